"""Transparency of a GIF's target, put back into its result.

Loaders of moving pictures know no transparency: VideoHelperSuite 4ee72c0 and the embedded worker lay a GIF on white, and what
comes back is opaque. Where the target shows what is behind it, frame by frame, the result is made to as well. For that
every frame is drawn whole and coded anew, with a palette of its own and one place in it for the holes: nothing is lost
where a frame has up to 255 colours, and results of upstreams hardly have more. A target without holes changes nothing.

Runs in the child process only. What is in the blocks of a file: ``gif_blocks.py``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.media.blocks import Pixels
from gateway.media.gif_blocks import Frame, Gif, read_gif

_COLOURS: Final = 255
#: Graphic control extension (GIF89a, section 23): the next frame is drawn on nothing; one colour is a hole.
_ALONE_WITH_HOLES: Final = 2 << 2 | 1
_DESCRIPTOR_BYTES: Final = 10
_FLAGS_AT: Final = 9
_HAS_TABLE, _TABLE_SIZE = 0x80, 0x07
_SCREEN_FLAGS_AT: Final = 4
_SCREEN_BYTES: Final = 7


def with_holes_of(result: Gif, target: Path) -> Gif:
    """The result, transparent where its target is.

    Args:
        result: as many frames as the target has.
        target: path of a GIF.

    Returns:
        The same one where the target has no holes, or another size or number of frames.
    """
    shown = io.BytesIO(b"".join(result.written()))
    with Image.open(target, formats=["GIF"]) as before, Image.open(shown, formats=["GIF"]) as after:
        if before.size != after.size or _frames(before) != len(result.frames) or _frames(after) != len(result.frames):
            return result
        if not any(hole.any() for hole in _holes(before)):
            return result
        drawn = zip(result.frames, _pictures(after), _holes(before), strict=True)
        return replace(result, frames=tuple(_redrawn(*each) for each in drawn))


def is_see_through(image: Image.Image) -> bool:
    """Whether some pixel of the frame that an opened GIF stands at shows what is behind it."""
    return image.has_transparency_data and bool(_hole(image).any())


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _holes(image: Image.Image) -> Iterator[npt.NDArray[np.bool_]]:
    for index in range(_frames(image)):
        image.seek(index)
        yield _hole(image)


def _hole(image: Image.Image) -> npt.NDArray[np.bool_]:
    hole: npt.NDArray[np.bool_] = np.asarray(image.convert("RGBA").getchannel("A")) == 0
    return hole


def _pictures(image: Image.Image) -> Iterator[Pixels]:
    for index in range(_frames(image)):
        image.seek(index)
        yield np.array(image.convert("RGB"))


def _redrawn(frame: Frame, picture: Pixels, hole: npt.NDArray[np.bool_]) -> Frame:
    if not hole.all():
        picture[hole] = picture[~hole][0]  # what is not seen takes no place in the palette
    reduced = Image.fromarray(picture).quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    numbers = np.array(reduced)
    clear = int(numbers.max()) + 1
    numbers[hole] = clear
    drawn = Image.fromarray(numbers, "P")
    drawn.putpalette((reduced.getpalette() or [])[: 3 * clear] + [_COLOURS] * 3)
    return replace(frame, picture=_coded(drawn), flags=_ALONE_WITH_HOLES, transparent=clear)


def _coded(image: Image.Image) -> memoryview:
    """An image block with its own colours: Pillow writes those of a single picture as the screen's."""
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=0)
    written = read_gif(buffer.getvalue())
    picture = bytearray(written.frames[0].picture)
    picture[_FLAGS_AT] |= _HAS_TABLE | written.screen[_SCREEN_FLAGS_AT] & _TABLE_SIZE
    picture[_DESCRIPTOR_BYTES:_DESCRIPTOR_BYTES] = written.screen[_SCREEN_BYTES:]
    return memoryview(bytes(picture))

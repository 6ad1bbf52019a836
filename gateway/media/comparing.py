"""A result laid beside its target, frame by frame, in constant memory.

Runs in the child process only. What the figures mean is decided in ``gateway/audit.py``; here they are measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from gateway.audit import Comparison, MediaKind, is_changed, movement_limit, sampled_frames
from gateway.media import movies, stills
from gateway.media.blocks import Means, Pixels, block_means, largest_movement
from gateway.sniffing import MediaType

#: VideoHelperSuite 4ee72c0 pads each side to a multiple of 2, of 8 for some codecs: up to 7 pixels in all.
_MOST_PADDING_PIXELS: Final = 7
_FURTHEST: Final = 255.0
_PALETTE_COLOURS: Final = 256


def compare_files(
    target: tuple[Path, MediaType], result: tuple[Path, MediaType], *, crf: int | None, all_frames: bool
) -> Comparison:
    """Whether the result is something else than the target.

    Two stills are compared by their decoded pixels, anything that moves by block means. It stops at the first frame
    that proves a change, so only a result that is unchanged costs a whole decoding.

    Args:
        target: the file the face went into.
        result: what came back.
        crf: of the encoder that made the result; None for a lossless one.
        all_frames: every frame, else 64 evenly spread ones.
    """
    if target[1].kind is MediaKind.IMAGE and result[1].kind is MediaKind.IMAGE:
        return _compare_stills(stills.read_upright(*target), stills.read_upright(*result))
    # The frames of a GIF have few enough colours for the palettes of another: Pillow 13.0 then writes each as it was.
    # Where one palette serves many such frames, or one frame brings several, what is unchanged may count as changed:
    # the other mistake would fail jobs whose small face was swapped.
    reduced = result[1].kind is MediaKind.GIF and target[1].kind is not MediaKind.GIF
    limit = movement_limit(crf, palette=reduced)
    furthest, compared = 0.0, 0
    for before, after in _pairs(target, result, all_frames=all_frames):
        fitted = _crop_padding(before, after)
        if fitted is None:
            return Comparison(changed=True, largest_movement=_FURTHEST, frames_compared=compared)
        compared += 1
        furthest = max(furthest, _movement(*fitted, limit=limit, palette=result[1].kind is MediaKind.GIF))
        if is_changed(furthest, limit):
            return Comparison(changed=True, largest_movement=furthest, frames_compared=compared)
    # Nothing to compare is nothing seen to be the same: the facts tell what is wrong with such a result.
    return Comparison(changed=compared == 0, largest_movement=furthest, frames_compared=compared)


def first_frames_differ(before: VideoFrame, after: VideoFrame, *, crf: int | None) -> bool:
    """Whether the first frames of two videos alone prove that one is not the other encoded anew."""
    fitted = _crop_padding(movies.upright_rgb(before), movies.upright_rgb(after))
    limit = movement_limit(crf, palette=False)
    return fitted is None or is_changed(_movement(*fitted, limit=limit, palette=False), limit)


def stills_differ(target: tuple[Path, MediaType], result: Pixels) -> bool:
    """Whether a still, decoded already, is something else than its target."""
    return not np.array_equal(stills.read_upright(*target), result)


def _compare_stills(before: Pixels, after: Pixels) -> Comparison:
    if before.shape != after.shape:
        return Comparison(changed=True, largest_movement=_FURTHEST, frames_compared=1)
    # The larger minus the smaller: unsigned bytes wrap around below zero.
    furthest = float((np.maximum(before, after) - np.minimum(before, after)).max())
    return Comparison(changed=furthest > 0, largest_movement=furthest, frames_compared=1)


def _pairs(
    target: tuple[Path, MediaType], result: tuple[Path, MediaType], *, all_frames: bool
) -> Iterator[tuple[Pixels, Pixels]]:
    # The first frame is in every sample, and most results prove their change there: before all packets are counted.
    yield from zip(_read(target, (0,)), _read(result, (0,)), strict=False)
    count = min(_count(*target), _count(*result))
    wanted = (range(count) if all_frames else sampled_frames(count))[1:]
    if wanted:
        yield from zip(_read(target, wanted), _read(result, wanted), strict=False)


def _count(path: Path, kind: MediaType) -> int:
    return 1 if kind.kind is MediaKind.IMAGE else movies.count_frames(path, kind)


def _read(file: tuple[Path, MediaType], wanted: range | tuple[int, ...]) -> Iterator[Pixels]:
    """The wanted frames as RGB. All before the last one are decoded, which is what makes the index exact."""
    path, kind = file
    if kind.kind is MediaKind.IMAGE:
        yield stills.read_upright(path, kind)
        return
    indices = set(wanted)
    most = max(indices, default=-1) + 1
    frames = islice(movies.read_frames(path, kind, only_first=most == 1), most)
    for index, frame in enumerate(frames):
        if index in indices:
            yield movies.upright_rgb(frame)


def _crop_padding(before: Pixels, after: Pixels) -> tuple[Pixels, Pixels] | None:
    """Both without what an encoder's padding added to the result; None when they are of different sizes."""
    rows, columns = after.shape[0] - before.shape[0], after.shape[1] - before.shape[1]
    if not (0 <= rows <= _MOST_PADDING_PIXELS and 0 <= columns <= _MOST_PADDING_PIXELS):
        return None
    # It puts the smaller half before the picture: one pixel goes to the right and to the bottom.
    top, left = rows // 2, columns // 2
    return before, after[top : top + before.shape[0], left : left + before.shape[1]]


def _movement(before: Pixels, after: Pixels, *, limit: float, palette: bool) -> float:
    target, found = block_means(before), block_means(after)
    movement = largest_movement(target, found)
    # Painting the target anew costs more than the rest together, so only a frame that needs it is painted.
    if not palette or not is_changed(movement, limit):
        return movement
    return largest_movement(found, [target, *_repainted(before, after)])


def _repainted(before: Pixels, after: Pixels) -> list[Means]:
    """Readings of the target in the colours of a GIF's frame, dithered and not."""
    packed = np.unique(after.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32))
    if len(packed) > _PALETTE_COLOURS:
        # Frames that repaint only a part of the canvas bring their own colours each: too many to be one palette.
        return []
    colours = np.stack([packed >> 16, packed >> 8 & 0xFF, packed & 0xFF], axis=-1).astype(np.uint8)
    filled = np.resize(colours, (_PALETTE_COLOURS, 3))
    palette = Image.new("P", (1, 1))
    palette.putpalette(filled.tobytes())
    picture = Image.fromarray(np.ascontiguousarray(before))
    return [
        block_means(np.asarray(picture.quantize(palette=palette, dither=dither).convert("RGB")))
        for dither in (Image.Dither.FLOYDSTEINBERG, Image.Dither.NONE)
    ]

"""Pictures of an input for whoever looks at it before it is worked on: whole, upright, small, a few of what moves.

Runs in the child process only. Which frames are taken is decided in ``gateway/screening.py``; here they are found and
written. A picture that one can see through is written three times, because there are three things to see: the colours that
hide where it is transparent, which a worker's loader shows (ComfyUI a125cd84, nodes.py, LoadImage drops the alpha), and
what shows on a white page and on a black one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image, ImageOps

from gateway.audit import MediaKind
from gateway.errors import InvalidInputError
from gateway.media import movies, stills
from gateway.screening import frames_to_look_at
from gateway.sniffing import MediaType

_WHITE: Final = (255, 255, 255, 255)
_BLACK: Final = (0, 0, 0, 255)
_OPAQUE: Final = 255
#: 65535 / 255.
_DEEP_TO_BYTE: Final = 257.0
#: Fast; the files live for a second.
_COMPRESSION: Final = 1
_GAPS: Final = "The video cannot be looked at: frames in its middle cannot be decoded."


def sample(path: Path, kind: MediaType, into: Path, *, most: int, longest_side: int) -> int:
    """Write pictures of a file as ``0000.png``, ``0001.png`` … into a folder.

    Args:
        path: the file, probed before.
        kind: what it is.
        into: a folder of one's own.
        most: frames of what moves, at most.
        longest_side: pixels of a picture's longer side, at most.

    Returns:
        How many were written.

    Raises:
        InvalidInputError: a frame that was to be looked at cannot be decoded.
    """
    number = 0
    for picture in _pictures(path, kind, most):
        # A filter that counts every pixel: what shows up only when pixels are left out is not what anybody sees.
        picture.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
        picture.save(into / f"{number:04}.png", compress_level=_COMPRESSION)
        number += 1
    return number


def _pictures(path: Path, kind: MediaType, most: int) -> Iterator[Image.Image]:
    if kind.kind is MediaKind.IMAGE:
        with stills.open_still(path, kind) as image:
            yield from _still_pictures(image, kind, most)
        return
    for frame in _sampled(path, kind, most):
        if kind.kind is MediaKind.GIF:
            yield from _sides(Image.fromarray(np.asarray(frame.reformat(format="rgba").to_ndarray())))
        else:
            yield Image.fromarray(np.ascontiguousarray(movies.upright_rgb(frame)))


def _still_pictures(image: Image.Image, kind: MediaType, most: int) -> Iterator[Image.Image]:
    """Of a PNG or WebP that moves, which clients' own workflows may take whole, a few frames."""
    frames = getattr(image, "n_frames", 1) if kind.content_type != "image/jpeg" else 1
    for index in frames_to_look_at(range(frames), most):
        if frames > 1:
            image.seek(index)
        upright = ImageOps.exif_transpose(image)
        yield from _sides(upright)
        if upright.mode.startswith("I"):
            # 16-bit greys: above as the loaders that clip them see them, here as those that scale them do.
            levels = np.asarray(upright, dtype=np.float64) / _DEEP_TO_BYTE
            yield Image.fromarray(np.clip(levels, 0, _OPAQUE).astype(np.uint8)).convert("RGB")


def _sides(picture: Image.Image) -> Iterator[Image.Image]:
    """What there is to see of a picture: one RGB, or three where it is transparent anywhere."""
    if not picture.has_transparency_data:
        yield picture.convert("RGB")
        return
    with_alpha = picture.convert("RGBA")
    yield with_alpha.convert("RGB")
    if int(np.asarray(with_alpha.getchannel("A")).min()) == _OPAQUE:
        return
    for colour in (_WHITE, _BLACK):
        yield Image.alpha_composite(Image.new("RGBA", with_alpha.size, colour), with_alpha).convert("RGB")


# ------------------------------------------------------------------------------------------------------- frames by time


def _sampled(path: Path, kind: MediaType, most: int) -> Iterator[VideoFrame]:
    shown = sorted(_shown(path, kind))
    starts = [start for start, _ in shown]
    indices = frames_to_look_at(starts, most)
    if kind.kind is MediaKind.GIF:
        # Each frame is painted over those before it, so all are needed.
        yield from _counted(path, kind, indices)
        return
    found = 0
    for frame in _sought(path, kind, [starts[index] for index in indices], [start for start, key in shown if key]):
        found += 1
        yield frame
    if found < len(indices):
        # Times that the decoder says otherwise, or key frames in name only: then all of it, by number.
        yield from _counted(path, kind, indices)


def _shown(path: Path, kind: MediaType) -> Iterator[tuple[int, bool]]:
    """When each frame is shown, in ticks, and whether decoding may begin there; in decoding order."""
    with movies.open_movie(path, kind) as container:
        stream = movies.only_video_stream(container)
        codec = stream.codec.canonical_name
        for packet in container.demux([stream]):
            start = packet.pts if packet.pts is not None else packet.dts
            if movies.is_shown(packet, codec) and start is not None:
                yield start, packet.is_keyframe


def _sought(path: Path, kind: MediaType, wanted: list[int], keys: list[int]) -> Iterator[VideoFrame]:
    """Frames by their times, as far as the decoder tells them; what lies between two key frames is skipped if it can be."""
    missing, position = set(wanted), -math.inf
    with movies.open_movie(path, kind) as container:
        stream = movies.threaded(movies.only_video_stream(container))
        frames: Iterator[VideoFrame] = iter(())
        for start in wanted:
            key = keys[max(0, bisect_right(keys, start) - 1)] if keys else wanted[0]
            if key > position:
                container.seek(key, stream=stream)
                frames = container.decode(stream)
            while position < start and (frame := next(frames, None)) is not None:
                position = start if frame.pts is None else frame.pts
                if position in missing and not frame.is_corrupt:
                    missing.discard(int(position))
                    yield frame


def _counted(path: Path, kind: MediaType, indices: tuple[int, ...]) -> Iterator[VideoFrame]:
    wanted, found = set(indices), 0
    for index, frame in enumerate(islice(movies.read_frames(path, kind), indices[-1] + 1)):
        if index in wanted:
            found += 1
            yield frame
    if found < len(indices):
        raise InvalidInputError(_GAPS)

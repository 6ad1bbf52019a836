"""Stills and GIFs by Pillow: opened with a fixed decoder, measured before decoding, then decoded to the last row.

Runs in the child process only. ``verify()`` is not used: it passes a truncated JPEG.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps

from gateway.audit import MediaFacts, MediaKind
from gateway.errors import InvalidInputError, TooLargeError, UnsupportedMediaError
from gateway.media import gif_holes
from gateway.media.blocks import Pixels
from gateway.media.limits import Limits
from gateway.sniffing import MediaType

_DECODERS: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/gif": "GIF"}
#: EXIF orientations that lay the picture on its side.
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
#: Browsers and FFmpeg show a frame with a delay of 10 ms or less for 100 ms.
_SHORTEST_DELAY_MS: Final = 10
_DEFAULT_DELAY_MS: Final = 100
_OPAQUE: Final = 255
_RGB_MODES: Final = frozenset({"RGB", "RGBA", "P", "PA"})
_PROFILE_HEADER_BYTES: Final = 128
#: Those of cameras and screens have a few KiB, or half a MiB with tables.
_LONGEST_PROFILE: Final = 1024 * 1024


@contextmanager
def open_still(path: Path, kind: MediaType) -> Iterator[Image.Image]:
    """The picture, opened by the one decoder that its bytes name, not yet decoded.

    Size is judged by our own limits, so Pillow's warning about large pictures is an error here in any case. Its other
    warnings are not: it warns about the broken EXIF that many a phone writes, and the picture is fine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # The limit of Pillow is global and lower than what a result may have; ours follows at once.
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(path, formats=[_DECODERS[kind.content_type]]) as image:
            yield image


def probe_still(path: Path, kind: MediaType, limits: Limits) -> MediaFacts:
    """Facts of a JPEG, PNG or WebP that was decoded whole.

    Raises:
        TooLargeError: too many pixels; nothing was decoded then.
        InvalidInputError: it is animated.
        UnsupportedMediaError: a grey picture of 16 bits.
        Exception: whatever Pillow raises on a broken file.
    """
    with open_still(path, kind) as image:
        _check_size(image, limits)
        # A phone's JPEG may hold a second picture (MPO); only PNG and WebP are animations.
        frames = getattr(image, "n_frames", 1) if kind.content_type != "image/jpeg" else 1
        if frames > 1:
            raise InvalidInputError("The picture is animated; expected a still JPEG, PNG or WebP picture.")
        _refuse_deep_grey(image)
        image.load()
        return _still_facts(image, kind, frames=1)


def probe_gif(path: Path, kind: MediaType, limits: Limits) -> MediaFacts:
    """Facts of a GIF of which every frame was decoded; raises as ``probe_still``."""
    with open_still(path, kind) as image:
        _check_size(image, limits)
        # Counting skips over the frames without decoding them.
        frames = getattr(image, "n_frames", 1)
        if frames > limits.gif_frames:
            raise TooLargeError(f"The GIF has {frames} frames; at most {limits.gif_frames} are accepted.")
        pixels = frames * image.width * image.height
        if pixels > limits.gif_pixels:
            raise TooLargeError(
                f"The GIF has {pixels:,} pixels in all its frames; at most {limits.gif_pixels:,} are accepted."
            )
        milliseconds, is_see_through = 0, False
        for index in range(frames):
            image.seek(index)
            image.load()
            delay = int(image.info.get("duration", 0))
            milliseconds += delay if delay > _SHORTEST_DELAY_MS else _DEFAULT_DELAY_MS
            is_see_through = is_see_through or gif_holes.is_see_through(image)
        facts = _still_facts(image, kind, frames=frames)
    if frames == 1:
        return replace(facts, is_see_through=is_see_through)
    return MediaFacts(
        kind=facts.kind,
        content_type=facts.content_type,
        suffix=facts.suffix,
        width=facts.width,
        height=facts.height,
        frames=frames,
        fps=Fraction(frames * 1000, milliseconds),
        duration_seconds=milliseconds / 1000,
        has_audio=False,
        video_codec=None,
        is_see_through=is_see_through,
    )


def colour_profile(path: Path, kind: MediaType) -> bytes | None:
    """The ICC profile that says which colours a still's red, green and blue mean; None where none says so.

    Profiles of grey and of CMYK are about other numbers than those that ``read_upright`` gives.
    """
    with open_still(path, kind) as image:
        profile = image.info.get("icc_profile")
        is_rgb = image.mode in _RGB_MODES
    # ICC.1:2022, section 7.2: size, colour space and signature of the header.
    if not is_rgb or not isinstance(profile, bytes) or not _PROFILE_HEADER_BYTES <= len(profile) <= _LONGEST_PROFILE:
        return None
    is_whole = int.from_bytes(profile[:4], "big") == len(profile) and profile[36:40] == b"acsp"
    return profile if is_whole and profile[16:20] == b"RGB " else None


def read_upright(path: Path, kind: MediaType) -> Pixels:
    """RGB as ComfyUI's LoadImage sees it: upright, alpha dropped, 32-bit greys scaled (ComfyUI a125cd84, nodes.py)."""
    with open_still(path, kind) as image:
        return _upright(image)


def _upright(image: Image.Image) -> Pixels:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "I":
        upright = upright.point(lambda level: level * (1 / 255))
    return np.asarray(upright.convert("RGB"))


def result_facts(path: Path, kind: MediaType, limits: Limits) -> MediaFacts:
    """As ``probe_still`` for what an upstream made, which may be animated."""
    return result_seen(path, kind, limits, is_shown=False)[0]


def result_seen(path: Path, kind: MediaType, limits: Limits, *, is_shown: bool) -> tuple[MediaFacts, Pixels | None]:
    """The same, and with ``is_shown`` what ``read_upright`` gives of it, without decoding it twice."""
    with open_still(path, kind) as image:
        _check_size(image, limits)
        frames = getattr(image, "n_frames", 1) if kind.content_type != "image/jpeg" else 1
        if frames > limits.gif_frames or frames * image.width * image.height > limits.gif_pixels:
            raise TooLargeError(f"The result has {frames} frames; at most {limits.gif_frames} are accepted.")
        for index in range(frames):
            if frames > 1:
                image.seek(index)
            image.load()
        facts = _still_facts(image, kind, frames=frames)
        if is_shown and frames > 1:
            image.seek(0)
        return facts, _upright(image) if is_shown else None


def _refuse_deep_grey(image: Image.Image) -> None:
    """ComfyUI a125cd84 clips all but the darkest of their greys to white, or not, as the Pillow beside it is old or new."""
    if image.mode.startswith("I"):
        raise UnsupportedMediaError("16-bit greyscale pictures are not taken; save it with 8 bits a channel.")


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if max(width, height) > limits.image_side:
        raise TooLargeError(
            f"The picture has {width}x{height} pixels; a side may have at most {limits.image_side} pixels."
        )
    if width * height > limits.image_pixels:
        raise TooLargeError(
            f"The picture has {width}x{height} pixels; at most {limits.image_pixels // 1_000_000} megapixels are accepted."
        )


def _still_facts(image: Image.Image, kind: MediaType, *, frames: int) -> MediaFacts:
    width, height = image.size
    if kind.kind is MediaKind.IMAGE and image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
        width, height = height, width
    is_still = kind.kind is MediaKind.IMAGE and frames == 1
    return MediaFacts(
        kind=kind.kind,
        content_type=kind.content_type,
        suffix=kind.suffix,
        width=width,
        height=height,
        frames=frames,
        fps=None,
        duration_seconds=None,
        has_audio=False,
        video_codec=None,
        is_see_through=is_still and _is_see_through(image),
    )


def _is_see_through(image: Image.Image) -> bool:
    """Of a decoded picture. Many say that they have transparency, and every pixel is opaque."""
    if not image.has_transparency_data:
        return False
    with_alpha = image if "A" in image.getbands() else image.convert("RGBA")
    return bool(np.asarray(with_alpha.getchannel("A")).min() < _OPAQUE)

"""Copies of results without what an upstream wrote beside the picture: prompts, workflows, comments, EXIF.

Runs in the child process only. ComfyUI a125cd84 puts the whole prompt, names of inputs included, into text chunks of a
PNG and into the EXIF of a WebP. Pictures are copied bit for bit: files are taken apart into chunks and put together
again, never decoded and encoded, but for a GIF whose target is transparent. On the way a GIF gets its target's timing, and a PNG the colour profile of the still that
it was made of: ComfyUI hands numbers through and says nothing of which colours they mean, so that a photo of a phone, most
often in Display P3, came back paler than it was. Videos are the work of ``remuxing.py``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.audit import Keeps, MediaKind
from gateway.errors import ResultInvalidError
from gateway.media import gif_blocks, gif_holes
from gateway.media.remuxing import Like
from gateway.sniffing import MediaType

#: What makes the picture (PNG 3rd edition, section 11); all else is about it.
_PNG_CHUNKS: Final = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD pHYs cICP mDCV cLLI acTL fcTL fdAT".split()
)
#: What says which colours the numbers mean. One of them is enough, and what a PNG came with stays.
_PNG_COLOUR_CHUNKS: Final = frozenset((b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"))
_PNG_SIGNATURE_BYTES: Final = 8
_WEBP_CHUNKS: Final = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
#: Flags of VP8X that say EXIF and XMP chunks follow (RFC 9649, section 2.7).
_WEBP_METADATA_FLAGS: Final = 0x08 | 0x04
#: JFIF, colour profile and Adobe's colour transform are needed to show it; other APPn and comments are not.
_JPEG_KEPT_APPS: Final = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_JPEG_START: Final = b"\xff\xd8"
_MARK: Final = 0xFF
_SOS, _EOI, _COM, _APP0, _APP15 = 0xDA, 0xD9, 0xFE, 0xE0, 0xEF
_RST0, _RST7 = 0xD0, 0xD7
_BROKEN: Final = "The result cannot be taken apart: it is damaged."


def clean_picture(
    path: Path, kind: MediaType, out: Path, like: Like | None = None, profile: bytes | None = None
) -> str:
    """Write the clean copy of a still or an animation to ``out``; videos are the work of ``remuxing.py``.

    Args:
        path: the result.
        kind: what it is.
        out: where the copy goes.
        like: the target that a GIF takes its delays and its loop from, when that is a GIF too.
        profile: ICC profile for a PNG that says nothing of its colours.

    Returns:
        Why a GIF was left with the timing it came with; "" when nothing was left.

    Raises:
        ResultInvalidError: the file does not hold together.
    """
    cleaners = {"image/jpeg": _clean_jpeg, "image/webp": _clean_webp}
    data = path.read_bytes()
    given_up = ""
    pieces: Iterator[bytes | memoryview]
    if kind.kind is MediaKind.GIF:
        gif, given_up = _clean_gif(data, like)
        pieces = gif.written()
    elif kind.content_type == "image/png":
        pieces = _clean_png(data, profile)
    else:
        pieces = cleaners[kind.content_type](data)
    try:
        with out.open("wb") as file:
            file.writelines(pieces)
    except IndexError as error:
        raise ResultInvalidError(_BROKEN) from error
    return given_up


def _clean_png(data: bytes, profile: bytes | None) -> Iterator[bytes | memoryview]:
    chunks = [(name, chunk) for name, chunk in _png_chunks(data) if name in _PNG_CHUNKS]
    if profile is not None and not any(name in _PNG_COLOUR_CHUNKS for name, _ in chunks):
        # behind IHDR, before PLTE and IDAT
        chunks.insert(1, (b"iCCP", _icc_chunk(profile)))
    yield data[:_PNG_SIGNATURE_BYTES]
    for _, chunk in chunks:
        yield chunk


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Names and whole chunks, nothing copied."""
    view, at = memoryview(data), _PNG_SIGNATURE_BYTES
    while at < len(data):
        # length, type, payload, checksum
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if end > len(data):
            raise ResultInvalidError(_BROKEN)
        yield name, view[at:end]
        if name == b"IEND":
            return
        at = end
    raise ResultInvalidError(_BROKEN)


def _icc_chunk(profile: bytes) -> bytes:
    """PNG 3rd edition, section 11.3.2.3: a name, the method, and the profile compressed."""
    body = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def _clean_webp(data: bytes) -> Iterator[bytes]:
    kept = bytearray(b"WEBP")
    at, whole = 12, 8 + int.from_bytes(data[4:8], "little")
    if whole > len(data):
        raise ResultInvalidError(_BROKEN)
    while at < whole:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        # Chunks begin at even places.
        end = at + 8 + size + size % 2
        chunk = bytearray(data[at:end])
        if chunk[:4] == b"VP8X":
            chunk[8] &= ~_WEBP_METADATA_FLAGS & 0xFF
        if bytes(chunk[:4]) in _WEBP_CHUNKS:
            kept += chunk
        at = end
    yield b"RIFF" + len(kept).to_bytes(4, "little") + bytes(kept)


def _clean_jpeg(data: bytes) -> Iterator[bytes]:
    yield _JPEG_START
    at = 2
    while True:
        while data[at] == _MARK and data[at + 1] == _MARK:
            at += 1
        marker = data[at + 1]
        if data[at] != _MARK:
            raise ResultInvalidError(_BROKEN)
        if marker == _EOI:
            yield data[at : at + 2]
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SOS:
            end = _end_of_scan(data, end)
        if _is_kept_segment(marker, data[at + 4 : at + 16]):
            yield data[at:end]
        at = end


def _is_kept_segment(marker: int, payload: bytes) -> bool:
    if marker == _COM:
        return False
    if _APP0 <= marker <= _APP15:
        return marker in _JPEG_KEPT_APPS and payload.startswith(_JPEG_KEPT_APPS[marker])
    return True


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the coded picture data stop: at the first marker that is neither stuffing nor a restart."""
    while True:
        at = data.find(_MARK, at)
        if at < 0 or at + 1 >= len(data):
            raise ResultInvalidError(_BROKEN)
        following = data[at + 1]
        if following not in (0x00, _MARK) and not _RST0 <= following <= _RST7:
            return at
        at += 1 if following == _MARK else 2


def _clean_gif(data: bytes, like: Like | None) -> tuple[gif_blocks.Gif, str]:
    """The clean GIF, and why it has not the timing of its target; "" when it has, or was not to have it."""
    gif = gif_blocks.read_gif(data)
    if like is None or like.kind.kind is not MediaKind.GIF or Keeps.FPS not in like.keeps:
        return gif, ""
    try:
        target = gif_blocks.read_gif(like.path.read_bytes(), lenient=True)
    except ResultInvalidError:
        return gif, "the target cannot be taken apart"
    timed = gif_blocks.timed_like(gif, target)
    return (gif, "another number of frames") if timed is None else (gif_holes.with_holes_of(timed, like.path), "")

"""Copies of results without what an upstream wrote beside the picture: prompts, workflows, comments, EXIF.

Runs in the child process only. ComfyUI a125cd84 puts the whole prompt, names of inputs included, into text chunks of a
PNG and into the EXIF of a WebP. Pictures are copied bit for bit: files are taken apart into chunks and put together
again, never decoded and encoded. Videos are the work of ``remuxing.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import ResultInvalidError
from gateway.sniffing import MediaType

#: What makes the picture (PNG 3rd edition, section 11); all else is about it.
_PNG_CHUNKS: Final = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD pHYs cICP mDCV cLLI acTL fcTL fdAT".split()
)
_WEBP_CHUNKS: Final = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
#: Flags of VP8X that say EXIF and XMP chunks follow (RFC 9649, section 2.7).
_WEBP_METADATA_FLAGS: Final = 0x08 | 0x04
#: JFIF, colour profile and Adobe's colour transform are needed to show it; other APPn and comments are not.
_JPEG_KEPT_APPS: Final = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_JPEG_START: Final = b"\xff\xd8"
_MARK: Final = 0xFF
_SOS, _EOI, _COM, _APP0, _APP15 = 0xDA, 0xD9, 0xFE, 0xE0, 0xEF
_RST0, _RST7 = 0xD0, 0xD7
_GIF_LOOPS: Final = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_GIF_APPLICATION, _GIF_COMMENT, _GIF_TEXT = 0xFF, 0xFE, 0x01
_BROKEN: Final = "The result cannot be taken apart: it is damaged."


def clean_picture(path: Path, kind: MediaType, out: Path) -> None:
    """Write the clean copy of a still or an animation to ``out``; videos are the work of ``remuxing.py``.

    Raises:
        ResultInvalidError: the file does not hold together.
    """
    cleaners = {"image/png": _clean_png, "image/jpeg": _clean_jpeg, "image/webp": _clean_webp, "image/gif": _clean_gif}
    data = path.read_bytes()
    try:
        out.write_bytes(b"".join(cleaners[kind.content_type](data)))
    except IndexError as error:
        raise ResultInvalidError(_BROKEN) from error


def _clean_png(data: bytes) -> Iterator[bytes]:
    yield data[:8]
    at = 8
    while at < len(data):
        # length, type, payload, checksum
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if end > len(data):
            raise ResultInvalidError(_BROKEN)
        if name in _PNG_CHUNKS:
            yield data[at:end]
        if name == b"IEND":
            return
        at = end
    raise ResultInvalidError(_BROKEN)


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


def _clean_gif(data: bytes) -> Iterator[bytes]:
    at = 13 + _colour_table_bytes(data[10])
    yield data[:at]
    while data[at] != _GIF_END:
        kind = data[at]
        if kind == _GIF_IMAGE:
            # Ten bytes of descriptor, a colour table perhaps, the code size, then the picture's blocks.
            end = _end_of_blocks(data, at + 10 + _colour_table_bytes(data[at + 9]) + 1)
        elif kind == _GIF_EXTENSION:
            end = _end_of_blocks(data, at + 2)
        else:
            raise ResultInvalidError(_BROKEN)
        if kind == _GIF_IMAGE or _is_kept_extension(data, at):
            yield data[at:end]
        at = end
    yield data[at : at + 1]


def _colour_table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 0x07) + 1) if flags & 0x80 else 0


def _end_of_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1


def _is_kept_extension(data: bytes, at: int) -> bool:
    label = data[at + 1]
    if label == _GIF_APPLICATION:
        return data[at + 3 : at + 14] in _GIF_LOOPS
    return label not in (_GIF_COMMENT, _GIF_TEXT)

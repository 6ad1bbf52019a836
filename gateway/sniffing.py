"""What a file is, judged by its first bytes alone.

The name a client gives a file and the type it declares are not looked at. What cannot be recognised here is not
accepted: that is what keeps playlists, SVG, HTML and scripts with a picture's name away from the decoders. Whether a
recognised file really decodes is for ``media/`` to find out.

Sources: the PNG, GIF and WebP specifications, ISO/IEC 14496-12 (``ftyp`` box) with the brands registered at mp4ra.org,
RFC 8794 (EBML) with the WebM container guidelines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.audit import PICTURES, MediaKind

#: As many bytes as ``sniff`` ever looks at.
HEAD_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class MediaType:
    """What a file is."""

    kind: MediaKind
    content_type: str
    #: With its dot; what the file is called where a name is needed.
    suffix: str


JPEG: Final = MediaType(MediaKind.IMAGE, "image/jpeg", ".jpg")
PNG: Final = MediaType(MediaKind.IMAGE, "image/png", ".png")
WEBP: Final = MediaType(MediaKind.IMAGE, "image/webp", ".webp")
GIF: Final = MediaType(MediaKind.GIF, "image/gif", ".gif")
MP4: Final = MediaType(MediaKind.VIDEO, "video/mp4", ".mp4")
QUICKTIME: Final = MediaType(MediaKind.VIDEO, "video/quicktime", ".mov")
WEBM: Final = MediaType(MediaKind.VIDEO, "video/webm", ".webm")
#: What is none of them, where any file is taken.
ANY_FILE: Final = MediaType(MediaKind.FILE, "application/octet-stream", "")
#: All that are told by their bytes, for sentences.
KINDS_TOLD: Final = "JPEG, PNG, WebP, GIF, MP4, QuickTime and WebM"

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
)
_MP4_BRANDS: Final = frozenset(
    {b"isom", b"mp41", b"mp42", b"mp71", b"avc1", b"hvc1", b"hev1", b"av01", b"dash", b"cmfc", b"MSNV", b"mmp4"}
    | {b"M4V ", b"M4VH", b"M4VP", b"f4v ", b"F4V ", b"XAVC", b"3gp4", b"3gp5", b"3gp6", b"3gp7", b"3g2a", b"3g2b"}
    | {b"iso%d" % number for number in range(2, 10)}
)
#: Major brands of stills and of sound: an "isom" among their compatible brands does not make them a video.
_OTHER_BRANDS: Final = frozenset(
    {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"crx "}
    | {b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "}
)
LATENT_SUFFIX: Final = ".latent"
_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]{1,16}\Z")
_DECLARED_KINDS: Final = {"audio": MediaKind.AUDIO, "text": MediaKind.TEXT}
_SHORTEST_FTYP_BYTES: Final = 16
_LONGEST_FTYP_BYTES: Final = 1024


def sniff(head: bytes) -> MediaType | None:
    """What the file that begins with these bytes is; None when it is nothing that is accepted.

    Args:
        head: the first ``HEAD_BYTES`` bytes, or the whole file when it is shorter.
    """
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head[:4] == b"RIFF" and head[8:15] == b"WEBPVP8":
        return WEBP
    if head[4:8] == b"ftyp":
        return _from_brands(head)
    return _from_doctype(head) if head.startswith(b"\x1a\x45\xdf\xa3") else None


def described(found: MediaType, declared: str, name: str) -> MediaType:
    """What a file is to be taken for: by its bytes where they say it, else by what its client calls it.

    Nothing is decoded on the strength of the latter. An upstream goes by the suffix, so that of the name is kept.

    Args:
        found: by its first bytes; ``ANY_FILE`` where they say nothing.
        declared: content type that the client declared, well-formed.
        name: any text.
    """
    if found.kind in PICTURES:
        return found
    match = _SUFFIX.search(name)
    suffix = match[0].lower() if match else ""
    major = declared.partition("/")[0].lower()
    kind = MediaKind.LATENT if suffix == LATENT_SUFFIX else _DECLARED_KINDS.get(major, MediaKind.FILE)
    return MediaType(kind, declared.lower(), suffix)


def _from_brands(head: bytes) -> MediaType | None:
    size = int.from_bytes(head[:4], "big")
    if not _SHORTEST_FTYP_BYTES <= size <= _LONGEST_FTYP_BYTES or len(head) < _SHORTEST_FTYP_BYTES:
        return None
    major = head[8:12]
    if major == b"qt  ":
        return QUICKTIME
    if major in _OTHER_BRANDS:
        return None
    end = min(size, HEAD_BYTES, len(head))
    # Bytes 12 to 16 are the minor version; compatible brands follow.
    brands = {major} | {head[at : at + 4] for at in range(16, end - 3, 4)}
    return MP4 if brands & _MP4_BRANDS else None


def _from_doctype(head: bytes) -> MediaType | None:
    # DocType (id 0x4282) has a length of one byte, marked by its highest bit.
    at = head.find(b"\x42\x82", 4, HEAD_BYTES)
    return WEBM if at > 0 and head[at + 2 : at + 7] == b"\x84webm" else None

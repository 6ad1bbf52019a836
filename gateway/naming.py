"""What things are called: a result, by the client's wish made harmless; an upstream that nobody named.

Pure. A result's name is for people; where a file lies never depends on it, and the link adds random bits of its own.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

MAX_CHARACTERS = 80
#: The task whose results have been called otherwise since before there were others.
FACE_SWAP = "face_swap"
_OUTSIDE = re.compile(r"[^A-Za-z0-9._-]")
#: Not in a quoted ASCII name: what ends the quotes, and what some clients take for an escape or a folder.
_ASCII_UNSAFE = re.compile(r'[^\x20-\x7e]|["\\/%]')
_EXTENDED_SAFE = "!#$&+-.^_`|~"


def safe_output_name(wish: str | None, now: float, task: str = FACE_SWAP) -> str:
    """The name without extension: NFC, anything outside ``[A-Za-z0-9._-]`` made ``_``, at most 80 characters.

    Without a wish ``faceswap_<UTC date>_<UTC time>``; of any other task, its name in front.
    """
    if wish:
        return _OUTSIDE.sub("_", unicodedata.normalize("NFC", wish))[:MAX_CHARACTERS]
    stem = "faceswap" if task == FACE_SWAP else _OUTSIDE.sub("_", task)
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d_%H%M%S")
    return f"{stem[: MAX_CHARACTERS - len(moment) - 1]}_{moment}"


def upstream_name(url: str) -> str:
    """An upstream's name where nobody gave it one: host and port, never credentials. Raises ValueError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"ipv6-{host.replace(':', '-')}"
    return f"{host}-{parts.port or (443 if parts.scheme == 'https' else 80)}"


def told_name(name: str, address: str, number: int) -> str:
    """What clients are told of an upstream's name: a number in place of one that is only its address."""
    return f"upstream-{number}" if name == upstream_name(address) else name


def content_disposition(filename: str, disposition: str) -> str:
    """The Content-Disposition field in both forms: an ASCII name for old clients, the true one for the rest.

    Source: RFC 6266, and RFC 8187 for the second form.
    """
    shown = "".join(char for char in filename if char.isprintable()) or "file"
    ascii_name = _ASCII_UNSAFE.sub("_", shown)
    # A lone surrogate cannot be encoded; "replace" makes it a question mark.
    extended = quote(shown.encode("utf-8", "replace"), safe=_EXTENDED_SAFE)
    return f"{disposition}; filename=\"{ascii_name}\"; filename*=UTF-8''{extended}"

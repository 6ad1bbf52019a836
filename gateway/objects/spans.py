"""A span of a file as something that an HTTP client can send: read as it goes, begun again when a try has failed.

So a part of an upload costs the memory of one read, whatever its size. Also the digests that are sent along.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Of one upload; larger files have larger parts. Source: Amazon S3 user guide, "Multipart upload limits".
MOST_PARTS: Final = 10_000
_PIECE_BYTES: Final = 1024 * 1024


class StoppedError(Exception):
    """Whoever wanted the bytes sent does not any more."""


class FileSpan(io.RawIOBase):
    """Bytes of a file from ``start`` on, ``size_bytes`` of them, as a seekable file.

    Args:
        path: the file, opened at once.
        start: offset of the first byte.
        size_bytes: how many.
        stopped: once it is set, reading raises StoppedError, so that a thread that sends can be had back.
    """

    def __init__(self, path: Path, start: int, size_bytes: int, *, stopped: threading.Event | None = None) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._start = start
        self._size_bytes = size_bytes
        self._stopped = stopped
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset within the span."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The offset within the span."""
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """At most so many bytes; none at the end of the span. Raises StoppedError."""
        if self._stopped is not None and self._stopped.is_set():
            raise StoppedError
        left = max(0, self._size_bytes - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._descriptor, wanted, self._start + self._at)
        self._at += len(data)
        return data

    def md5(self) -> str:
        """The digest of the whole span as Content-MD5 says it; afterwards it is at its beginning."""
        found = hashlib.md5(usedforsecurity=False)
        self.seek(0)
        while piece := self.read(_PIECE_BYTES):
            found.update(piece)
        self.seek(0)
        return base64.b64encode(found.digest()).decode("ascii")

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file, or all of it."""

    path: Path
    start: int
    size_bytes: int

    def opened(self, stopped: threading.Event) -> FileSpan:
        """To be read once; whoever opens it closes it. Raises FileNotFoundError."""
        return FileSpan(self.path, self.start, self.size_bytes, stopped=stopped)

    def parts(self, part_bytes: int) -> list[Span]:
        """Its parts: of that size, or larger where they would be too many; the last may be smaller."""
        size = max(part_bytes, -(-self.size_bytes // MOST_PARTS))
        starts = range(self.start, self.start + self.size_bytes, size)
        return [Span(self.path, at, min(size, self.start + self.size_bytes - at)) for at in starts]


def measured(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file. Raises FileNotFoundError."""
    found, size_bytes = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            found.update(piece)
            size_bytes += len(piece)
    return size_bytes, found.hexdigest()


def sha256_told(checksum: str) -> str | None:
    """64 hex digits of what a storage says, in base 64; None where that is none of a whole file.

    Of an upload in parts it is that of the parts' hashes, with their number behind it.
    """
    try:
        digest = base64.b64decode(checksum, validate=True)
    except ValueError:
        return None
    return digest.hex() if len(digest) == hashlib.sha256().digest_size else None

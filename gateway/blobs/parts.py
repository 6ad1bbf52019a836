"""Parts: the files in which bytes gather before they become blobs, and the blocking work on them.

Two ways lead to a whole part: piece by piece, hashed on the way (``Part``), or a finished file taken over from elsewhere
(``take_over``). Either ends with the part synced and its hash known; to give it that name is for ``local.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

from gateway.errors import StorageFullError
from gateway.interfaces import Blob

NO_ROOM_SENTENCE: Final = "The gateway's disk has no room for this file."
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Bytes read at once for hashing: as many as a second-level cache holds. Read rather than mapped into memory: a bad
#: sector under a map is a signal that kills the process, under a read it is an error.
_HASHED_PIECE_BYTES: Final = 1024 * 1024


def take_over(
    path: Path, part: Path, *, require_room: Callable[[int], None], adopt: Callable[[Path, str], None]
) -> Blob:
    """Make a finished file a blob: moved, not copied, when it lies on the same disk.

    Args:
        path: the file; nobody writes to it any more. It is gone afterwards, also when this fails.
        part: name to give it meanwhile.
        require_room: raises when fewer bytes than that can be written.
        adopt: moves a whole, synced part under its hash.

    Raises:
        StorageFullError: there is no room.
    """
    try:
        with full_disk_as_ours():
            _move(path, part, require_room)
            blob = _synced(part)
            adopt(part, blob.hash)
            return blob
    except BaseException:
        part.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise


def _move(path: Path, part: Path, require_room: Callable[[int], None]) -> None:
    require_room(0)
    try:
        path.rename(part)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        require_room(path.stat().st_size)
        shutil.copyfile(path, part)
        path.unlink()


def _synced(part: Path) -> Blob:
    """Its hash and size, once all of it is on the disk, for the owner alone to read. A link is no finished file."""
    with os.fdopen(os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        os.fchmod(file.fileno(), 0o600)
        found, size_bytes = blake3(), 0
        buffer = bytearray(min(_HASHED_PIECE_BYTES, os.fstat(file.fileno()).st_size))
        with memoryview(buffer) as view:
            while count := file.readinto(view):
                found.update(view[:count])
                size_bytes += count
        os.fsync(file.fileno())
    return Blob(hash=found.hexdigest(), size_bytes=size_bytes)


class Part:
    """The blocking side of a writer. Its lock orders a write that outlives its canceled caller before the discard.

    Args:
        path: of the file.
        before: called before the file is made; what it raises is what the first write raises.
    """

    def __init__(self, path: Path, *, before: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._before = before
        self._lock = threading.Lock()
        self._hash = blake3()
        self._size_bytes = 0
        self._file: BinaryIO | None = None
        #: Whether it was committed or dropped.
        self.is_over = False

    def write(self, chunks: list[bytes]) -> None:
        """Append; raises StorageFullError, and ValueError after the end."""
        with self._lock, full_disk_as_ours():
            self._append(b"".join(chunks))

    def commit(self, adopt: Callable[[Path, str], None], chunks: list[bytes]) -> Blob:
        """Append what is left, sync it and have it moved under its hash."""
        with self._lock, full_disk_as_ours():
            self._append(b"".join(chunks))
            os.fsync(self._open().fileno())
            blob = Blob(hash=self._hash.hexdigest(), size_bytes=self._size_bytes)
            adopt(self._path, blob.hash)
            self._close()
            return blob

    def discard(self) -> None:
        """Drop it, unless it was committed."""
        with self._lock:
            if not self.is_over:
                self._close()
                self._path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        write_all(self._open(), data)
        self._hash.update(data)
        self._size_bytes += len(data)

    def _open(self) -> BinaryIO:
        """The file, made at its first use: what was never begun leaves nothing."""
        if self.is_over:
            raise ValueError("this blob was committed or dropped")
        if self._file is None:
            self._before()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        return self._file

    def _close(self) -> None:
        self.is_over = True
        if self._file is not None:
            self._file.close()


@contextmanager
def full_disk_as_ours() -> Iterator[None]:
    """Tell a full disk, or a quota, as what it is to a client."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFullError(NO_ROOM_SENTENCE) from error
        raise


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write to an unbuffered file, which may take less at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]

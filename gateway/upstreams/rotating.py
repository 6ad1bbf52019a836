"""The log of a program that we run: what it wrote as it came, in a few files of bounded size. Blocking.

Cut by size and not by lines: a progress bar is one line of hours. Nothing is read or judged here.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

FILE_BYTES = 10 * 1024**2
#: The one that is written, and those before it: ``comfyui.log``, ``comfyui.log.1``, ``comfyui.log.2``.
FILES = 3
TAIL_BYTES = 2000


class RotatedLog:
    """One log; a single writer.

    Args:
        path: of the newest file; its folder is made if need be.
        file_bytes: what a file holds at most, give or take what is written at once.
        files: how many there are at most.
    """

    def __init__(self, path: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._files = files
        self._tail = b""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")

    def write(self, said: bytes) -> None:
        """Keep what was said. Raises OSError, e.g. on a full disk."""
        self._tail = (self._tail + said)[-TAIL_BYTES:]
        if self._file.tell() > 0 and self._file.tell() + len(said) > self._file_bytes:
            self._rotate()
        self._file.write(said)
        self._file.flush()

    def tail(self) -> str:
        """The end of what was written since the log was opened."""
        return self._tail.decode(errors="replace")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self._file = self._path.open("ab")

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

"""Marks: small files on the local disk that say which object in the bucket holds a blob, and when it was last committed.

The bucket alone cannot say whether a blob may be relied on. To delete an object is a request that may arrive late: a gateway
can be stopped between deciding and sending, be taken over meanwhile, and go on. So each upload of a blob gets a key of its
own, with a *generation* of random digits behind the hash, and the mark names the one that counts. To delete is to rename the
mark first, into ``doomed/``, then to ask once more whether this process still may; who commits the same bytes from then on
finds no mark, and uploads them under another key, which no late request reaches.

What is doomed is finished by who doomed it, or by who finds it at the beginning of its tenure, before it has relied on
anything. What appears there later was renamed by one that does not hold the directory any more, and found that out, or died
before it did: it sends nothing, and the mark is put back.

A mark that is lost (a data directory restored from a backup has none) costs an upload at the next commit of the same bytes.
Reading needs none. Everything here blocks.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.interfaces import Blob

#: Before the keys of all blobs in a bucket.
FOLDER: Final = "blobs/"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_GENERATION: Final = re.compile(r"[0-9a-f]{8}")
_DOOMED: Final = "doomed"


@dataclass(frozen=True, slots=True)
class Copy:
    """One object that holds a blob."""

    hash: str
    #: Eight hex digits, other ones with each upload.
    generation: str

    @classmethod
    def new(cls, blob_hash: str) -> Copy:
        """One more."""
        return cls(blob_hash, secrets.token_hex(4))

    @classmethod
    def of_name(cls, name: str) -> Copy | None:
        """From ``hash.generation``; None when it is no such name."""
        blob_hash, _, generation = name.partition(".")
        return cls(blob_hash, generation) if _HASH.fullmatch(blob_hash) and _GENERATION.fullmatch(generation) else None

    @property
    def name(self) -> str:
        """``hash.generation``."""
        return f"{self.hash}.{self.generation}"


def key_of(copy: Copy) -> str:
    """Where it lies in the bucket."""
    return f"{FOLDER}{copy.hash[:2]}/{copy.name}"


def copy_at(key: str) -> Copy | None:
    """Which copy an object is; None when it is none of ours."""
    copy = Copy.of_name(key.rpartition("/")[2])
    return copy if copy is not None and key == key_of(copy) else None


class Marks:
    """All marks.

    Args:
        root: their folder; made by ``prepare``.
        holds: whether this process still holds the data directory.
    """

    def __init__(self, root: Path, holds: Callable[[], bool]) -> None:
        self._root = root
        self._doomed = root / _DOOMED
        self._holds = holds
        #: Files in ``doomed/`` that are ours to finish, and what they stand for.
        self._ours: dict[Path, Copy] = {}

    def prepare(self) -> None:
        """Make the folders, and take over what an earlier run has doomed. At the beginning of a tenure."""
        self._doomed.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in list(self._doomed.iterdir()):
            # Under another name it is ours: whoever renamed it finds nothing to put back.
            claimed = self._doomed / f"{left.name.partition('.')[0]}.{secrets.token_hex(4)}"
            with suppress(FileNotFoundError):
                left.rename(claimed)
                self._remember(claimed)

    def find(self, blob_hash: str) -> Copy | None:
        """The copy that counts."""
        return _read(self._path(blob_hash), blob_hash)

    def set(self, copy: Copy) -> None:
        """Have this one count from now on, committed now."""
        path = self._path(copy.hash)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = self._root / f"{copy.name}.part"
        part.write_text(copy.generation, encoding="ascii")
        part.replace(path)

    def touch(self, blob_hash: str) -> None:
        """It was committed again. Raises FileNotFoundError."""
        now = time.time_ns()
        os.utime(self._path(blob_hash), ns=(now, now))

    def doom(self, blob_hash: str, *, untouched_since: float) -> Copy | None:
        """Take its mark away for good, unless it was touched since, or somebody else holds the directory.

        Returns:
            The copy that is to be deleted, and then ``finish``-ed; None when there is none or it stays.
        """
        path = self._path(blob_hash)
        doomed = self._doomed / f"{blob_hash}.{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= untouched_since:
                return None
            path.rename(doomed)
            if self._holds() and doomed.stat().st_mtime < untouched_since:
                return self._remember(doomed)
            self._put_back(doomed)
        return None

    def doomed(self) -> list[Copy]:
        """What is to be deleted and finished; marks that others have left in between are put back."""
        for left in list(self._doomed.iterdir()):
            if left not in self._ours:
                with suppress(FileNotFoundError):
                    self._put_back(left)
        return list(self._ours.values())

    def finish(self, copy: Copy) -> None:
        """It is deleted."""
        for path in [path for path, doomed in self._ours.items() if doomed == copy]:
            path.unlink(missing_ok=True)
            del self._ours[path]

    def untouched(self, *, since: float) -> list[str]:
        """Hashes of all that were not committed since."""
        return [entry.name for entry in self._entries() if entry.stat().st_mtime < since]

    def all(self) -> dict[str, str]:
        """Generations by hash."""
        found = {entry.name: _read(Path(entry.path), entry.name) for entry in self._entries()}
        return {blob_hash: copy.generation for blob_hash, copy in found.items() if copy is not None}

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for folder in self._root.iterdir():
            if folder.is_dir() and folder.name != _DOOMED:
                yield from (entry for entry in os.scandir(folder) if _HASH.fullmatch(entry.name))

    def _path(self, blob_hash: str) -> Path:
        if not _HASH.fullmatch(blob_hash):
            raise ValueError("a blob is named by 64 lower-case hex digits")
        return self._root / blob_hash[:2] / blob_hash

    def _remember(self, doomed: Path) -> Copy | None:
        copy = _read(doomed, doomed.name.partition(".")[0])
        if copy is None:  # no mark at all: nothing follows from it
            doomed.unlink(missing_ok=True)
            return None
        self._ours[doomed] = copy
        return copy

    def _put_back(self, doomed: Path) -> None:
        """Undo the rename, unless there is a newer mark by now."""
        with suppress(FileExistsError, ValueError):
            path = self._path(doomed.name.partition(".")[0])
            now = time.time_ns()
            os.utime(doomed, ns=(now, now))
            path.hardlink_to(doomed)
        doomed.unlink(missing_ok=True)


def _read(path: Path, blob_hash: str) -> Copy | None:
    try:
        return Copy.of_name(f"{blob_hash}.{path.read_text(encoding='ascii').strip()}")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def lying(root: Path) -> list[tuple[Path, Blob]]:
    """Blobs below a folder of a ``LocalBlobs``."""
    names = [path for path in root.glob("[0-9a-f][0-9a-f]/*") if Copy.of_name(f"{path.name}.00000000") is not None]
    return [(path, Blob(path.name, path.stat().st_size)) for path in names]

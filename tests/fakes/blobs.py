"""Bytes in memory.

Unrealistic: there is always room, nothing is synced, and ``path`` names no file; ``FakeMedia`` knows what it stands for.
Touch times are those of the clock that was handed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Self

from gateway.errors import StorageFullError, StorageUnreachableError
from gateway.interfaces import Blob, BlobsState, Clock

#: Every path of a blob begins so.
FOLDER = Path("/memory")


class MemoryWriter:
    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._data = bytearray()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.abort()

    async def write(self, data: bytes) -> None:
        if self._blobs.is_full:
            raise StorageFullError("There is no room left.")
        self._data += data

    async def commit(self) -> Blob:
        return self._blobs.put(bytes(self._data))

    async def abort(self) -> None:
        self._data.clear()


class MemoryBlobs:
    """``interfaces.Blobs`` without a disk. Hashes are SHA-256: as long as ours, and nobody looks closer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.stored: dict[str, bytes] = {}
        self._touched: dict[str, float] = {}
        self._commits: dict[str, int] = {}
        self.is_full = False
        #: Where some of them may be had elsewhere.
        self.links: dict[str, str] = {}
        self.tidied = 0
        self.probed = 0
        #: Where they are said to lie, and how it is there; with a trouble nothing is taken.
        self.place = BlobsState()

    def put(self, data: bytes) -> Blob:
        name = hashlib.sha256(data).hexdigest()
        self._commits[name] = self._commits.get(name, 0) + 1
        self.stored[name] = data
        self._touched[name] = self._clock.now()
        return Blob(name, len(data))

    async def writer(self, *, expected_bytes: int | None = None) -> MemoryWriter:
        return MemoryWriter(self)

    async def adopt(self, path: Path) -> Blob:
        data = path.read_bytes()  # noqa: ASYNC240 - a few bytes
        path.unlink()  # noqa: ASYNC240 - one file
        if self.is_full:
            raise StorageFullError("There is no room left.")
        if (trouble := self.place.trouble) is not None:
            raise StorageUnreachableError("away", reason=trouble.reason, is_refusal=trouble.is_refusal)
        return self.put(data)

    def path(self, blob_hash: str) -> Path:
        return FOLDER / blob_hash

    def held(self, blob_hash: str) -> AbstractAsyncContextManager[Path]:
        return nullcontext(self.path(blob_hash))

    async def stream(self, blob_hash: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        if blob_hash not in self.stored:
            raise FileNotFoundError(blob_hash)
        yield self.stored[blob_hash][start:end]

    async def exists(self, blob_hash: str) -> bool:
        return blob_hash in self.stored

    async def delete(self, blob_hash: str, *, untouched_since: float) -> bool:
        if self._touched.get(blob_hash, untouched_since) >= untouched_since:
            return False
        return self._drop(blob_hash)

    async def discard(self, blob: Blob) -> bool:
        """Only the last one who committed the same takes the bytes along."""
        self._commits[blob.hash] = self._commits.get(blob.hash, 0) - 1
        return self._commits[blob.hash] <= 0 and self._drop(blob.hash)

    async def untouched(self, *, since: float) -> Sequence[str]:
        return [name for name, touched in self._touched.items() if touched < since]

    async def tidy(self) -> None:
        self.tidied += 1

    async def link(self, blob_hash: str, *, filename: str, content_type: str) -> str | None:
        return self.links.get(blob_hash)

    def state(self) -> BlobsState:
        return self.place

    async def probe(self) -> None:
        self.probed += 1

    def _drop(self, name: str) -> bool:
        self._touched.pop(name, None)
        self._commits.pop(name, None)
        return self.stored.pop(name, None) is not None

"""A backup of a gateway as one tar, made while it serves: the database and every file that it speaks of.

Unpacked into an empty data directory it is a gateway again. Not in it: the admin token, the keys of webhook secrets and of links, the settings, the folder of
templates (the versions that jobs are pinned to are in the database), the files of embedded workers, and bytes of which
the database knows nothing. Files that retention lets go while the tar is written are left out.

The copy of the database is one committed state and lies in the scratch folder until the tar is written; memory holds
one chunk of one file. Source of the format: POSIX.1-2001, pax; names and sizes that the old header holds need none.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import anyio

from gateway.interfaces import Blob
from gateway.placed import placed_at

DATABASE: Final = "gateway.db"
CHUNK_BYTES: Final = 1024 * 1024
#: Blobs asked of the copy at a time.
PAGE_BLOBS: Final = 500
#: What a tar is a multiple of, so that any tape drive of 1979 can take it; GNU tar warns otherwise.
RECORD_BYTES: Final = tarfile.RECORDSIZE


class Copier(Protocol):
    """The part of ``interfaces.Store`` that a backup needs."""

    async def copy_to(self, path: Path) -> None:
        """Write a copy of one committed state to a new SQLite file."""
        ...

    async def blobs_of_copy(self, path: Path, *, after: str, limit: int) -> Sequence[Blob]:
        """The next blobs that assets in such a copy refer to, by hash."""
        ...


class BlobFiles(Protocol):
    """The part of ``interfaces.Blobs`` that a backup needs."""

    def held(self, blob_hash: str) -> AbstractAsyncContextManager[Path]:
        """A file with the bytes of a committed blob."""
        ...


class DamagedBlobError(Exception):
    """A stored file is not as long as the database says."""


@asynccontextmanager
async def open_backup(
    store: Copier, blobs: BlobFiles, scratch: Path, *, now: float
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The tar, chunk by chunk; the copy of the database is made on entering and deleted on leaving.

    Args:
        store: what to copy.
        blobs: where the files lie.
        scratch: a folder on a disk with room for the database once more.
        now: Unix seconds; the time stamp of every entry.

    Raises:
        StorageFullError: on entering: there is no room for the copy.
        DamagedBlobError: while reading.
    """
    folder = scratch / f"backup-{secrets.token_hex(8)}"
    await asyncio.to_thread(folder.mkdir, 0o700)
    try:
        copy = folder / DATABASE
        await store.copy_to(copy)
        async with aclosing(_tar(store, blobs, copy, int(now))) as chunks:
            yield chunks
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _tar(store: Copier, blobs: BlobFiles, copy: Path, now: int) -> AsyncGenerator[bytes]:
    written = 0
    async with aclosing(_members(store, blobs, copy, now)) as pieces:
        async for piece in pieces:
            written += len(piece)
            yield piece
    end = 2 * tarfile.BLOCKSIZE  # two empty blocks say that nothing follows
    yield bytes(end + -(written + end) % RECORD_BYTES)


async def _members(store: Copier, blobs: BlobFiles, copy: Path, now: int) -> AsyncGenerator[bytes]:
    size_bytes = (await asyncio.to_thread(copy.stat)).st_size
    async for piece in _file(DATABASE, copy, size_bytes, now):
        yield piece
    yield _header("blobs", now)
    folder = last = ""
    while page := await store.blobs_of_copy(copy, after=last, limit=PAGE_BLOBS):
        for blob in page:
            if placed_at(blob.hash) is not None:  # at a delivery target; the database says where
                continue
            if folder != (folder := blob.hash[:2]):
                yield _header(f"blobs/{folder}", now)
            async for piece in _blob(blobs, blob, now):
                yield piece
        last = page[-1].hash


async def _blob(blobs: BlobFiles, blob: Blob, now: int) -> AsyncIterator[bytes]:
    try:
        async with blobs.held(blob.hash) as path:
            async for piece in _file(f"blobs/{blob.hash[:2]}/{blob.hash}", path, blob.size_bytes, now):
                yield piece
    except FileNotFoundError:  # in object storage; here ``_file`` finds out
        return


async def _file(name: str, path: Path, size_bytes: int, now: int) -> AsyncIterator[bytes]:
    """One file with its header; nothing when it is gone. It stays open, so that a sweep cannot take it in the middle."""
    try:
        file: BinaryIO = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        return
    try:
        yield _header(name, now, size_bytes)
        left = size_bytes
        while left:
            piece = await asyncio.to_thread(file.read, min(left, CHUNK_BYTES))
            if not piece:
                raise DamagedBlobError("a stored file is shorter than it was: the disk is damaged")
            left -= len(piece)
            yield piece
    finally:
        file.close()
    if padding := -size_bytes % tarfile.BLOCKSIZE:
        yield bytes(padding)


def _header(name: str, now: int, size_bytes: int | None = None) -> bytes:
    """The header of a file, of a folder when it has no size; both for their owner alone."""
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if size_bytes is None else tarfile.REGTYPE
    entry.mode = 0o700 if size_bytes is None else 0o600
    entry.size = size_bytes or 0
    entry.mtime = now
    return entry.tobuf(tarfile.PAX_FORMAT)

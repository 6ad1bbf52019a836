"""Content-addressed bytes on the local disk: ``<root>/<first two digits>/<blake3>``.

What is written goes to ``<root>/parts/`` first and is moved under its hash when it is whole and synced, so a name that
exists holds all of its bytes, after a power cut too. Parts that a killed gateway left are swept by ``prepare``. Who
refers to a blob, and when nobody does any more, is for the store to know.

To delete is to rename first, into ``parts/``, then to ask once more whether this process still may, and to put the bytes
back when not. So a gateway that was stopped at any moment of it, and taken over meanwhile, cannot take from the new
holder what that one was given since. Asking first would leave a moment between the answer and the deed.

All disk work runs in a few threads of this store's own, so that slow disks hold up neither the event loop nor name
look-ups in the default executor.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio

from gateway.blobs.parts import NO_ROOM_SENTENCE, Part, take_over
from gateway.errors import StorageFullError
from gateway.interfaces import Blob, BlobsState

#: Bytes gathered before a thread is asked to write them: a hop costs about 0.1 ms, so a hop per 64 KiB socket read
#: would be most of the work.
WRITE_BATCH_BYTES: Final = 512 * 1024
#: Bytes read in one hop, and so what one slow reader holds in memory.
READ_CHUNK_BYTES: Final = 512 * 1024
#: Free bytes below which nothing new is begun: the database and its log live on the same disk.
DEFAULT_FLOOR_BYTES: Final = 256 * 1024**2
#: The disk is asked again each time this much has been written.
_RECHECK_BYTES: Final = 16 * 1024**2
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_PARTS: Final = "parts"
_DOOMED: Final = ".doomed"
#: How many recent commits can be taken back; far more than requests in flight.
_FRESH_LIMIT: Final = 4096

R = TypeVar("R")


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write on the file system of ``folder``."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


class LocalBlobs:
    """``interfaces.Blobs`` on a folder.

    Args:
        root: the folder; made by ``prepare`` with mode 0700, files have 0600.
        floor_bytes: free bytes that are left to others.
        free: asks how many bytes are free; a parameter for tests.
        holds: whether this process still holds the folder; asked in the threads.
    """

    def __init__(
        self,
        root: Path,
        *,
        floor_bytes: int = DEFAULT_FLOOR_BYTES,
        free: Callable[[Path], int] = free_bytes,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        self._root = root
        self._holds = holds
        self._floor_bytes = floor_bytes
        self._free = free
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="blobs")
        # Between "it is there, touch it" and "it is untouched, delete it".
        self._names = threading.Lock()
        # Blobs that did not exist before this run's first commit of them -> commits that were not taken back.
        self._fresh: OrderedDict[str, int] = OrderedDict()

    async def prepare(self) -> int:
        """Make the folders and sweep what an earlier run did not finish; how many parts were dropped."""
        return await self._run(self._prepare)

    async def close(self) -> None:
        """Wait for disk work that was begun and let the threads go. Nothing works afterwards."""
        await asyncio.to_thread(self._threads.shutdown)

    async def writer(self, *, expected_bytes: int | None = None) -> LocalBlobWriter:
        """A new writer.

        Args:
            expected_bytes: announced size; twice as much must be free, since results are made from inputs.

        Raises:
            StorageFullError: the disk has no room for it; what is small is refused when it is committed.
        """
        needed_bytes = 2 * (expected_bytes or 0)
        if expected_bytes is None or expected_bytes > WRITE_BATCH_BYTES:
            await self._run(self._require_room, needed_bytes)
            needed_bytes = 0
        # What comes in one batch asks for room as it is written, in the same hop: nothing is spared by refusing it before.
        return LocalBlobWriter(self, Part(self._new_part(), before=partial(self._require_room, needed_bytes)))

    async def adopt(self, path: Path) -> Blob:
        """Make a finished file a blob, durable under its hash as by a commit, in one go and in one thread.

        Args:
            path: the file, which nobody writes to any more. It is gone afterwards, also when this fails. On the same
                disk it is moved; from another one it is copied.

        Raises:
            StorageFullError: the disk is full.
            FileNotFoundError: there is no such file.
        """
        return await self._commit(self._take_over, path)

    def path(self, blob_hash: str) -> Path:
        """Where a committed blob lies.

        Raises:
            ValueError: not a hash; a file name never gets this far.
        """
        if not _HASH.fullmatch(blob_hash):
            raise ValueError("a blob is named by 64 lower-case hex digits")
        # One path made at once: each "/" of pathlib's makes another.
        return Path(f"{self._root}/{blob_hash[:2]}/{blob_hash}")

    def held(self, blob_hash: str) -> AbstractAsyncContextManager[Path]:
        """Where a committed blob lies; nothing has to be done to keep it there."""
        return nullcontext(self.path(blob_hash))

    async def stream(self, blob_hash: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from ``start`` up to but without ``end``, in chunks of at most ``READ_CHUNK_BYTES``.

        The file is opened anew for each chunk: the name fixes the content, an abandoned reader leaves no open file,
        and a blob that is deleted meanwhile is noticed.

        Raises:
            FileNotFoundError: it is not there, or no longer.
        """
        path = self.path(blob_hash)
        while end is None or start < end:
            wanted = READ_CHUNK_BYTES if end is None else min(READ_CHUNK_BYTES, end - start)
            chunk = await self._run(_read, path, start, wanted)
            if not chunk:
                return
            yield chunk
            start += len(chunk)

    async def exists(self, blob_hash: str) -> bool:
        """Whether it is there."""
        return await self._run(self.path(blob_hash).is_file)

    async def delete(self, blob_hash: str, *, untouched_since: float) -> bool:
        """Delete it unless it was committed or touched at or after ``untouched_since``; whether it was deleted.

        Args:
            blob_hash: its name.
            untouched_since: Unix seconds.
        """
        return await self._run(self._delete, self.path(blob_hash), untouched_since)

    async def discard(self, blob: Blob) -> bool:
        """Take back a commit of this run that led to nothing; whether the bytes are gone.

        They stay when the blob was there before that commit, or when somebody committed the same bytes since: content
        is shared, and the sweep takes what nobody refers to.
        """
        return await self._run(self._discard, blob.hash)

    async def untouched(self, *, since: float) -> list[str]:
        """Hashes of all blobs that were not touched since (Unix seconds).

        For the sweep: a gateway that is killed between a commit and the transaction that records it leaves a blob of
        which the store knows nothing.
        """
        return await self._run(self._untouched, since)

    async def tidy(self) -> None:
        """Nothing is ever left, but by a kill: ``prepare`` sees to that."""

    async def link(self, blob_hash: str, *, filename: str, content_type: str) -> str | None:  # noqa: ARG002 - the protocol's
        """Nowhere but here."""
        return None

    def state(self) -> BlobsState:
        """Here: it is as the disk is."""
        return BlobsState()

    async def probe(self) -> None:
        """Whoever uses it finds out."""

    # ------------------------------------------------------------------------------------------- inside the threads

    async def _run(self, work: Callable[..., R], *arguments: object) -> R:
        """Do blocking work in a thread. A canceled caller leaves at once; the work is finished all the same."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments))

    async def _commit(self, work: Callable[..., Blob], *arguments: object) -> Blob:
        """Make a blob in a thread. A canceled caller never hears of it, so nobody else could take it back."""
        committing = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        try:
            return await asyncio.shield(committing)
        except asyncio.CancelledError:
            committing.add_done_callback(self._take_back)
            raise

    def _take_back(self, committed: asyncio.Future[Blob]) -> None:
        if not committed.cancelled() and committed.exception() is None:
            with suppress(RuntimeError):  # the threads are let go: the next start sweeps it
                self._threads.submit(self._discard, committed.result().hash)

    def _prepare(self) -> int:
        parts = self._root / _PARTS
        parts.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._root, parts):
            folder.chmod(0o700)
        left = list(parts.iterdir())
        for part in left:
            blob_hash = part.name.partition(".")[0]
            if part.suffix == _DOOMED and _HASH.fullmatch(blob_hash):
                self._put_back(part, self.path(blob_hash))  # whether it should go is decided anew
            else:
                part.unlink()
        return len(left)

    def _require_room(self, needed_bytes: int) -> None:
        if self._free(self._root) < max(needed_bytes, self._floor_bytes):
            raise StorageFullError(NO_ROOM_SENTENCE)

    def _new_part(self) -> Path:
        return self._root / _PARTS / f"{secrets.token_hex(16)}.part"

    def _take_over(self, path: Path) -> Blob:
        return take_over(path, self._new_part(), require_room=self._require_room, adopt=self._adopt)

    def _adopt(self, part: Path, blob_hash: str) -> None:
        """Move a whole, synced part under its hash."""
        target = self.path(blob_hash)
        folder = target.parent
        with self._names:
            if target.exists():
                if blob_hash in self._fresh:
                    self._fresh[blob_hash] += 1
                self._stamp(target)
                part.unlink()
                return
            if not folder.exists():
                folder.mkdir(mode=0o700)
                _sync_folder(self._root)
            part.rename(target)
            self._stamp(target)
            self._fresh[blob_hash] = 1
            if len(self._fresh) > _FRESH_LIMIT:
                self._fresh.popitem(last=False)
        _sync_folder(folder)

    @staticmethod
    def _stamp(target: Path) -> None:
        """Touch it, so that the sweep takes it for new; a part that took long to arrive would look old."""
        now = time.time_ns()
        os.utime(target, ns=(now, now))

    def _discard(self, blob_hash: str) -> bool:
        path = self.path(blob_hash)
        with self._names:
            left = self._fresh.get(blob_hash, 0) - 1
            if left > 0:
                self._fresh[blob_hash] = left
            if left != 0:  # somebody else committed it too, or it was there before
                return False
            del self._fresh[blob_hash]
            return self._take_away(path)

    def _untouched(self, since: float) -> list[str]:
        found: list[str] = []
        for folder in self._root.iterdir():
            if folder.name != _PARTS and folder.is_dir():
                found += [entry.name for entry in os.scandir(folder) if entry.stat().st_mtime < since]
        return [name for name in found if _HASH.fullmatch(name)]

    def _delete(self, path: Path, untouched_since: float) -> bool:
        with self._names:
            try:
                if path.stat().st_mtime >= untouched_since:
                    return False
            except FileNotFoundError:
                return False
            self._fresh.pop(path.name, None)
            return self._take_away(path, untouched_since=untouched_since)

    def _take_away(self, path: Path, *, untouched_since: float = math.inf) -> bool:
        """Delete it unless somebody else holds the folder by now, or has touched it; whether it is gone by our doing."""
        doomed = self._root / _PARTS / f"{path.name}.{secrets.token_hex(4)}{_DOOMED}"
        try:
            path.rename(doomed)
            if not self._holds() or doomed.stat().st_mtime >= untouched_since:
                self._put_back(doomed, path)
                return False
            doomed.unlink()
        except FileNotFoundError:  # the new holder has swept our parts: it is no matter of ours any more
            return False
        return True

    def _put_back(self, doomed: Path, path: Path) -> None:
        """Undo the rename. Where it was committed again meanwhile, the same bytes replace the same bytes."""
        self._stamp(doomed)
        doomed.rename(path)


class LocalBlobWriter:
    """``interfaces.BlobWriter``: one blob on its way in. Made by ``LocalBlobs.writer``."""

    def __init__(self, blobs: LocalBlobs, part: Part) -> None:
        self._blobs = blobs
        self._part = part
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._unchecked_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abort()

    async def write(self, data: bytes) -> None:
        """Take bytes; returns when there is room for more.

        Raises:
            StorageFullError: the disk is full, or nearly so.
        """
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= WRITE_BATCH_BYTES:
            await self._flush()

    async def commit(self) -> Blob:
        """Make it durable under its hash: synced, renamed, and touched if it was there already.

        Raises:
            StorageFullError: the disk is full.
        """
        chunks = self._take_waiting()
        return await self._blobs._commit(self._part.commit, self._blobs._adopt, chunks)  # noqa: SLF001 - the two are one thing

    async def abort(self) -> None:
        """Drop what was written; harmless after ``commit``. Finishes even when the caller is being canceled."""
        self._waiting.clear()
        if self._part.is_over:
            return
        with anyio.CancelScope(shield=True):
            await self._blobs._run(self._part.discard)  # noqa: SLF001 - the two are one thing

    async def _flush(self) -> None:
        if not self._waiting:
            return
        self._unchecked_bytes += self._waiting_bytes
        chunks = self._take_waiting()
        if self._unchecked_bytes >= _RECHECK_BYTES:
            self._unchecked_bytes = 0
            await self._blobs._run(self._blobs._require_room, 0)  # noqa: SLF001 - the two are one thing
        await self._blobs._run(self._part.write, chunks)  # noqa: SLF001 - the two are one thing

    def _take_waiting(self) -> list[bytes]:
        chunks, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return chunks


def _read(path: Path, start: int, size_bytes: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return file.read(size_bytes)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

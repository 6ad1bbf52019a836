"""Content-addressed bytes in object storage: ``<prefix>/blobs/<first two digits>/<blake3>.<generation>``.

What is written gathers on the local disk as it does without storage, hashed on the way, and goes up when it is whole; a commit
comes back when the bucket has it. So a name that exists holds all of its bytes, and nothing is half-visible. What was sent,
and what media work wants to read, stays on the disk as long as there is room for it (``cache.py``).

Which object counts, and why late deletions cannot hit the wrong one, is told in ``marks.py``. Deleting takes two steps that
a failure may part: what the storage does not take back now is asked of it again with each sweep.

What a killed run leaves: an upload in parts (aborted by the first ``tidy`` of the next run), or an object without a mark
(found by ``untouched``). One data directory per prefix: ``claim.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
import structlog

from gateway.blobs.cache import Cache
from gateway.blobs.claim import Claim
from gateway.blobs.local import LocalBlobs, LocalBlobWriter
from gateway.blobs.marks import FOLDER, Copy, Marks, copy_at, key_of, lying
from gateway.blobs.turns import Turns
from gateway.errors import StorageUnreachableError
from gateway.interfaces import Blob, BlobsState, Bucket, StoredObject

#: Folder of the marks in ours.
MARKS: Final = "marks"
#: How long a link for a download may be opened; what was begun then may take longer.
LINK_SECONDS: Final = 300
#: An upload in parts that was begun so long ago, and is not ours, is nobody's.
UNFINISHED_SECONDS: Final = 3600.0
#: How many recent commits can be taken back; far more than requests in flight.
_FRESH_LIMIT: Final = 4096
_NEVER_THERE: Final = "probe/"
_DAMAGED: Final = "A stored file is damaged."
_AWAY: Final = "The file could not be stored; try again."

R = TypeVar("R")
log = structlog.get_logger(__name__)


class BucketBlobs:
    """``interfaces.Blobs`` over a bucket.

    Args:
        bucket: closed by whoever opened it.
        root: folder for marks and cache; made by ``prepare``.
        cache_bytes: what may lie there besides what is in use.
        holds: whether this process still holds the data directory; asked in threads.
        links: whether downloads are told to go to the bucket.
        claim: that the bucket's prefix is ours; None: nobody doubts it.
        local: the store on the disk below; a parameter for tests.
    """

    def __init__(
        self,
        bucket: Bucket,
        root: Path,
        *,
        cache_bytes: int,
        holds: Callable[[], bool] = lambda: True,
        links: bool = False,
        claim: Claim | None = None,
        local: LocalBlobs | None = None,
    ) -> None:
        self._bucket = bucket
        self._root = root
        self._holds = holds
        self._links = links
        self._claim = claim
        self._local = local or LocalBlobs(root / "cache", holds=holds)
        self._marks = Marks(root / MARKS, holds)
        self._cache = Cache(cache_bytes)
        # Apart from those of the disk's store, which may be at a large file.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="marks")
        self._turns = Turns()
        # Blobs that did not exist before this run's first commit of them -> commits that were not taken back.
        self._fresh: OrderedDict[str, int] = OrderedDict()
        self._aborts_at = 0.0
        self._begun_at = time.time()

    async def prepare(self, *, earlier: Path | None = None) -> int:
        """Make the folders, sweep what an earlier run did not finish, and send what lies on this disk only.

        Args:
            earlier: the folder of a ``LocalBlobs`` that was used before there was a bucket, or that a backup was unpacked
                to; its blobs are moved.

        Returns:
            How many were moved.

        Raises:
            StorageUnreachableError: some could not be; they stay.
        """
        await asyncio.to_thread(self._root.mkdir, 0o700, parents=True, exist_ok=True)
        await self._local.prepare()
        await self._run(self._marks.prepare)
        marked = await self._run(self._marks.all)
        for blob in await self._run(self._found_here):
            if blob.hash in marked:
                self._cache.add(blob.hash, blob.size_bytes)
            else:
                await self._drop_here(blob.hash)
        await self._trim()
        return 0 if earlier is None else await self._move(earlier)

    async def close(self) -> None:
        """Let the threads go. Nothing works afterwards."""
        await self._local.close()
        await asyncio.to_thread(self._threads.shutdown)

    # ------------------------------------------------------------------------------------------------------------ going up

    async def writer(self, *, expected_bytes: int | None = None) -> BucketBlobWriter:
        """A new writer; refuses with StorageFullError when the local disk surely has no room."""
        return BucketBlobWriter(self, await self._local.writer(expected_bytes=expected_bytes))

    async def adopt(self, path: Path) -> Blob:
        """Make a finished file a blob; see ``interfaces.Blobs``. Raises StorageFullError, StorageUnreachableError."""
        return await self._send(await self._local.adopt(path))

    async def _send(self, blob: Blob) -> Blob:
        """Have the bucket hold what lies here whole; what did not get there is not kept here either."""
        with self._cache.pinned(blob.hash):
            async with self._turns.alone(blob.hash):
                try:
                    await self._committed(blob)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await self._after_failure(blob.hash)
                    raise
        await self._trim()
        return blob

    async def _committed(self, blob: Blob) -> None:
        known = await self._run(self._marks.find, blob.hash)
        if known is not None and await self._is_whole(known, blob):
            await self._run(self._marks.touch, blob.hash)
        else:
            copy = Copy.new(blob.hash)
            await self._put(copy)
            await self._run(self._marks.set, copy)
        if known is None:
            self._fresh[blob.hash] = 1
            if len(self._fresh) > _FRESH_LIMIT:
                self._fresh.popitem(last=False)
        elif blob.hash in self._fresh:
            self._fresh[blob.hash] += 1
        self._cache.add(blob.hash, blob.size_bytes)

    async def _put(self, copy: Copy) -> None:
        try:
            await self._bucket.put(key_of(copy), self._local.path(copy.hash))
        except FileNotFoundError as error:  # dropped from the cache, since the bucket had it, at this moment
            raise StorageUnreachableError(_AWAY, reason="the file to be sent is gone") from error
        except BaseException:
            # It may have been stored by then, under a key that nobody else has.
            with anyio.CancelScope(shield=True), suppress(StorageUnreachableError):
                if not self.state().is_away:
                    await self._bucket.delete(key_of(copy))
            raise

    async def _is_whole(self, copy: Copy, blob: Blob) -> bool:
        """Whether the bucket still has it: rules of its owner may have taken it."""
        found = await self._bucket.look(key_of(copy))
        return found is not None and found.size_bytes == blob.size_bytes

    async def _after_failure(self, blob_hash: str) -> None:
        if await self._run(self._marks.find, blob_hash) is None:
            await self._drop_here(blob_hash)

    # --------------------------------------------------------------------------------------------------------- coming down

    @asynccontextmanager
    async def held(self, blob_hash: str) -> AsyncIterator[Path]:
        """A file with its bytes, that stays as long as the context; see ``interfaces.Blobs``."""
        with self._cache.pinned(blob_hash):
            if not await self._is_here(blob_hash):
                async with self._turns.alone(blob_hash):
                    if not await self._is_here(blob_hash):
                        await self._bring(blob_hash)
            self._cache.use(blob_hash)
            yield self._local.path(blob_hash)
        await self._trim()

    async def _is_here(self, blob_hash: str) -> bool:
        """Whether the cache has it, and nobody has taken its file away."""
        return blob_hash in self._cache and await self._local.exists(blob_hash)

    async def _bring(self, blob_hash: str) -> None:
        there = await self._located(blob_hash)
        if there is None:
            await self._drop_here(blob_hash)
            raise FileNotFoundError(blob_hash)
        await self._trim(coming_bytes=there.size_bytes)
        async with await self._local.writer(expected_bytes=there.size_bytes) as writer:
            async with aclosing(self._bucket.stream(there.key)) as chunks:
                async for chunk in chunks:
                    await writer.write(chunk)
            blob = await writer.commit()
        if blob.hash != blob_hash:
            if blob.hash not in self._cache:
                await self._drop_here(blob.hash)
            log.error("blob_damaged", blob=blob_hash, location=self._bucket.location(there.key))
            raise StorageUnreachableError(_DAMAGED, reason="its bytes are not those of its name", is_refusal=True)
        self._cache.add(blob_hash, blob.size_bytes)

    async def stream(self, blob_hash: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from ``start`` up to but without ``end``; from here where they are here.

        Raises:
            FileNotFoundError: it is not there.
            StorageUnreachableError: it cannot be read.
        """
        with self._cache.pinned(blob_hash):
            if await self._is_here(blob_hash):
                self._cache.use(blob_hash)
                async for chunk in self._local.stream(blob_hash, start, end):
                    yield chunk
                return
        there = await self._located(blob_hash)
        if there is None:
            raise FileNotFoundError(blob_hash)
        async with aclosing(self._bucket.stream(there.key, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def exists(self, blob_hash: str) -> bool:
        """Whether it is there."""
        return await self._is_here(blob_hash) or await self._located(blob_hash) is not None

    async def link(self, blob_hash: str, *, filename: str, content_type: str) -> str | None:
        """Where a download may be had from the bucket itself, for ``LINK_SECONDS``; None when it is to be had from us."""
        there = await self._located(blob_hash) if self._links else None
        if there is None:
            return None
        return await self._bucket.presigned_get(
            there.key, seconds=LINK_SECONDS, filename=filename, content_type=content_type
        )

    def state(self) -> BlobsState:
        """How the bucket is, as far as it was asked."""
        return BlobsState(self._bucket.location(""), self._bucket.trouble())

    async def probe(self) -> None:
        """List what is never there: that needs the way, the credentials and the bucket."""
        with suppress(StorageUnreachableError):
            async for _ in self._bucket.listed(_NEVER_THERE):
                pass

    async def _located(self, blob_hash: str) -> StoredObject | None:
        """An object with its bytes: the one that counts, else any, since the hash fixes the bytes."""
        known = await self._run(self._marks.find, blob_hash)
        if known is not None and (found := await self._bucket.look(key_of(known))) is not None:
            return found
        return next(iter(await self._copies(blob_hash)), None)

    async def _copies(self, blob_hash: str) -> list[StoredObject]:
        under = f"{FOLDER}{blob_hash[:2]}/{blob_hash}."
        return [found async for found in self._bucket.listed(under) if copy_at(found.key) is not None]

    # ------------------------------------------------------------------------------------------------------------ going away

    async def delete(self, blob_hash: str, *, untouched_since: float) -> bool:
        """Delete it unless it was committed or touched since; whether it is gone. See ``interfaces.Blobs``.

        Where the storage does not answer it is gone for us, and False: ``tidy`` deletes it when the storage answers. Once it
        is known not to, it is not asked: each answer that does not come takes half a minute, and there may be thousands.
        """
        async with self._turns.alone(blob_hash):
            return await self._delete(blob_hash, untouched_since)

    async def _delete(self, blob_hash: str, untouched_since: float) -> bool:
        doomed = await self._run(self._marks.doom, blob_hash, untouched_since=untouched_since)
        if doomed is None and await self._run(self._marks.find, blob_hash) is not None:
            return False
        self._fresh.pop(blob_hash, None)
        await self._drop_here(blob_hash)
        if doomed is not None:
            return await self._finish(doomed)
        if self.state().is_away:
            return False
        try:
            return await self._delete_unmarked(blob_hash, untouched_since)
        except StorageUnreachableError as error:
            log.warning("blob_not_deleted", blob=blob_hash, reason=error.reason)
            return False

    async def _delete_unmarked(self, blob_hash: str, untouched_since: float) -> bool:
        """Objects that a killed run has left, or of a data directory that was restored: nobody relies on one without a mark."""
        old = [found for found in await self._copies(blob_hash) if found.modified_at < untouched_since]
        for found in old:
            if not self._holds():
                return False
            await self._bucket.delete(found.key)
        return bool(old)

    async def _finish(self, doomed: Copy) -> bool:
        if self.state().is_away:
            return False
        try:
            await self._bucket.delete(key_of(doomed))
        except StorageUnreachableError as error:
            log.warning("blob_not_deleted", blob=doomed.hash, reason=error.reason)
            return False
        await self._run(self._marks.finish, doomed)
        return True

    async def discard(self, blob: Blob) -> bool:
        """Take back a commit of this run that led to nothing; whether the bytes are gone. See ``interfaces.Blobs``."""
        async with self._turns.alone(blob.hash):
            left = self._fresh.get(blob.hash, 0) - 1
            if left > 0:
                self._fresh[blob.hash] = left
            if left != 0:  # somebody else committed it too, or it was there before
                return False
            return await self._delete(blob.hash, float("inf"))

    async def untouched(self, *, since: float) -> list[str]:
        """Hashes of all blobs that were not touched since, and of objects as old as that without a mark.

        Copies that another one has taken the place of are deleted on the way.
        """
        if self._claim is not None:
            await self._claim.require()
        old = set(await self._run(self._marks.untouched, since=since))
        listed = [(found, copy) async for found in self._bucket.listed(FOLDER) if (copy := copy_at(found.key))]
        marked = await self._run(
            self._marks.all
        )  # after the listing: what was completed before it is marked, or under way
        there = {copy for _, copy in listed}
        for found, copy in listed:
            if found.modified_at >= since or copy.hash in self._turns or marked.get(copy.hash) == copy.generation:
                continue
            if copy.hash not in marked:
                old.add(copy.hash)
            elif Copy(copy.hash, marked[copy.hash]) in there and self._holds():
                await self._bucket.delete(found.key)
        return sorted(old)

    async def tidy(self) -> None:
        """Delete what could not be deleted, and drop uploads in parts that dead runs have left, as far as the storage answers."""
        try:
            await self._tidy()
        except StorageUnreachableError as error:
            log.warning("storage_not_tidied", reason=error.reason)

    async def _tidy(self) -> None:
        if self.state().is_away:
            await self.probe()
            if self.state().is_away:
                return
        for doomed in await self._run(self._marks.doomed):
            async with self._turns.alone(doomed.hash):
                await self._finish(doomed)
        now = time.time()
        if now >= self._aborts_at:
            if self._claim is not None:
                await self._claim.require()
            # The first time whatever was begun before us: the data directory is ours, so its run is dead.
            older_than = now - UNFINISHED_SECONDS if self._aborts_at else self._begun_at
            if dropped := await self._bucket.abort_unfinished(older_than=older_than, under=FOLDER):
                log.info("uploads_aborted", count=dropped)
            self._aborts_at = now + UNFINISHED_SECONDS

    # ------------------------------------------------------------------------------------------------------- on the local disk

    async def _trim(self, *, coming_bytes: int = 0) -> None:
        decided_at = time.time()
        for blob_hash in self._cache.surplus(coming_bytes=coming_bytes):
            # Who commits or brings the same from now on means to have it here.
            await self._local.delete(blob_hash, untouched_since=decided_at)

    async def _drop_here(self, blob_hash: str) -> None:
        """Take it off the disk, unless somebody waits who has just committed the same: that one sends it, or drops it."""
        self._cache.remove(blob_hash)
        if self._turns.wanted(blob_hash) <= 1:
            await self._local.delete(blob_hash, untouched_since=float("inf"))

    def _found_here(self) -> list[Blob]:
        """What lies in the cache, the least recently committed first."""
        return [blob for _, blob in sorted((path.stat().st_mtime, blob) for path, blob in lying(self._root / "cache"))]

    async def _move(self, earlier: Path) -> int:
        moved = 0
        for path, blob in await self._run(lying, earlier):
            async with self._turns.alone(blob.hash):
                if await self._run(self._marks.find, blob.hash) is None:
                    copy = Copy.new(blob.hash)
                    await self._bucket.put(key_of(copy), path)
                    await self._run(self._marks.set, copy)
                await self._run(path.unlink)
                moved += 1
        if moved:
            log.info("blobs_moved_to_storage", count=moved)
        return moved

    async def _run(self, work: Callable[..., R], *arguments: object, **options: object) -> R:
        """Do a little work on the disk. A canceled caller leaves at once; the work is finished all the same."""
        running = self._threads.submit(work, *arguments, **options)
        return await asyncio.shield(asyncio.wrap_future(running))


class BucketBlobWriter:
    """``interfaces.BlobWriter``: one blob on its way in. Made by ``BucketBlobs.writer``."""

    def __init__(self, blobs: BucketBlobs, writer: LocalBlobWriter) -> None:
        self._blobs = blobs
        self._writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abort()

    async def write(self, data: bytes) -> None:
        """Take bytes; returns when there is room for more. Raises StorageFullError."""
        await self._writer.write(data)

    async def commit(self) -> Blob:
        """Make it durable under its hash, in the bucket. Raises StorageFullError, StorageUnreachableError."""
        return await self._blobs._send(await self._writer.commit())  # noqa: SLF001 - the two are one thing

    async def abort(self) -> None:
        """Drop what was written; harmless after ``commit``."""
        await self._writer.abort()

"""A store of bytes that also answers for files which lie at a delivery target only (``gateway/placed.py``).

Those are passed on from there, or told of by a link; they are never here, so nothing that works on a file on the disk can be
done with them. Retention and purges leave them alone: where they lie is their owner's. Only what no job got is deleted.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Final, cast

import structlog

from gateway.direct import ARRIVAL_SECONDS, ARRIVALS
from gateway.errors import StorageUnreachableError
from gateway.interfaces import Blob, Blobs, BlobsState, BlobWriter, Bucket
from gateway.placed import Placed, placed_at

#: As long as a link to a bucket of our own (``bucket.py``).
LINK_SECONDS: Final = 300
#: Between two looks for arrivals that nobody took over.
SWEEP_SECONDS: Final = 3600.0

log = structlog.get_logger(__name__)


class PlacedBlobs:
    """``interfaces.Blobs``.

    Args:
        inner: where all others lie.
        buckets: the operator's targets, by name.
        direct: names of those that upstreams put files to.
        links: whether downloads are told to go there.
        now: Unix seconds.
    """

    def __init__(
        self,
        inner: Blobs,
        buckets: Mapping[str, Bucket],
        *,
        direct: Sequence[str] = (),
        links: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.inner = inner
        self._buckets = buckets
        self._direct = direct
        self._links = links
        self._now = now
        self._swept_at = 0.0

    async def writer(self, *, expected_bytes: int | None = None) -> BlobWriter:
        """A new writer; see ``interfaces.Blobs``."""
        return await self.inner.writer(expected_bytes=expected_bytes)

    async def adopt(self, path: Path) -> Blob:
        """Make a finished file a blob; see ``interfaces.Blobs``."""
        return await self.inner.adopt(path)

    def held(self, blob_hash: str) -> AbstractAsyncContextManager[Path]:
        """A file with its bytes. Raises FileNotFoundError on entering for one that is not here."""
        return self.inner.held(blob_hash) if placed_at(blob_hash) is None else _NotHere(blob_hash)

    async def stream(self, blob_hash: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from ``start`` up to but without ``end``. Raises FileNotFoundError, StorageUnreachableError."""
        placed = placed_at(blob_hash)
        if placed is None:
            async with aclosing(cast("AsyncGenerator[bytes]", self.inner.stream(blob_hash, start, end))) as ours:
                async for chunk in ours:
                    yield chunk
            return
        bucket = self._buckets.get(placed.target)
        if bucket is None:
            raise FileNotFoundError(blob_hash)
        async with aclosing(bucket.stream(placed.key, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def exists(self, blob_hash: str) -> bool:
        """Whether it is there."""
        placed = placed_at(blob_hash)
        if placed is None:
            return await self.inner.exists(blob_hash)
        bucket = self._buckets.get(placed.target)
        return bucket is not None and await _is_there(bucket, placed)

    async def delete(self, blob_hash: str, *, untouched_since: float) -> bool:
        """Delete it; False for one that is not ours to delete."""
        if placed_at(blob_hash) is not None:
            return False
        return await self.inner.delete(blob_hash, untouched_since=untouched_since)

    async def discard(self, blob: Blob) -> bool:
        """Take back what led to nothing."""
        placed = placed_at(blob.hash)
        return await self.inner.discard(blob) if placed is None else await self._taken_back(placed)

    async def _taken_back(self, placed: Placed) -> bool:
        bucket = self._buckets.get(placed.target)
        if bucket is None:
            return False
        try:
            await bucket.delete(placed.key)
        except StorageUnreachableError as error:
            log.warning("placed_file_left", target=placed.target, sha256=placed.sha256, reason=error.reason)
            return False
        return True

    async def untouched(self, *, since: float) -> Sequence[str]:
        """Hashes of those of ours that were not touched since."""
        return await self.inner.untouched(since=since)

    async def tidy(self) -> None:
        """Finish what was left, and delete what upstreams put to targets and nobody took over."""
        await self.inner.tidy()
        now = self._now()
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        for name in self._direct:
            bucket = self._buckets[name]
            try:
                await _sweep(bucket, now - ARRIVAL_SECONDS)
            except StorageUnreachableError as error:
                log.warning("arrivals_not_swept", target=name, reason=error.reason)

    def state(self) -> BlobsState:
        """How the place of ours is, from memory."""
        return self.inner.state()

    async def probe(self) -> None:
        """Ask the place of ours how it is."""
        await self.inner.probe()

    async def link(self, blob_hash: str, *, filename: str, content_type: str) -> str | None:
        """Where a client may fetch it without us; None: nowhere."""
        placed = placed_at(blob_hash)
        if placed is None:
            return await self.inner.link(blob_hash, filename=filename, content_type=content_type)
        bucket = self._buckets.get(placed.target) if self._links else None
        if bucket is None or not await _is_there(bucket, placed):
            return None
        return await bucket.presigned_get(
            placed.key, seconds=LINK_SECONDS, filename=filename, content_type=content_type
        )


async def _is_there(bucket: Bucket, placed: Placed) -> bool:
    """Whether it is there, and no other file in its place; a storage that keeps no metadata is believed."""
    found = await bucket.look(placed.key)
    return found is not None and found.sha256 in {None, placed.sha256}


async def _sweep(bucket: Bucket, before: float) -> None:
    old = [found.key async for found in bucket.listed(ARRIVALS) if found.modified_at < before]
    for key in old:
        await bucket.delete(key)
    if old:
        log.info("arrivals_swept", count=len(old), location=bucket.location(ARRIVALS))


class _NotHere(AbstractAsyncContextManager[Path]):
    """There is no file to hold."""

    def __init__(self, blob_hash: str) -> None:
        self._blob_hash = blob_hash

    async def __aenter__(self) -> Path:
        raise FileNotFoundError(self._blob_hash)

    async def __aexit__(self, *_: object) -> None:
        return

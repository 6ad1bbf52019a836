"""A target of the operator's that is a prefix of a bucket: finished files are put there as they lie in our own store."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from gateway.delivering import Answer, Reason
from gateway.errors import BusyError, StorageFullError, StorageUnreachableError
from gateway.interfaces import Blobs, Bucket, Clock

log = structlog.get_logger(__name__)

#: Nothing smaller goes up in parts. Source: Amazon S3 user guide, "Multipart upload limits".
LEAST_IN_PARTS_BYTES: Final = 5 * 1024**2
_OK: Final = 200


class BucketTarget:
    """``interfaces.DeliveryTarget``.

    Args:
        name: what clients call it.
        bucket: the prefix.
        blobs: our own store.
        clock: time.
    """

    def __init__(self, name: str, bucket: Bucket, blobs: Blobs, clock: Clock) -> None:
        self._name = name
        self._bucket = bucket
        self._blobs = blobs
        self._clock = clock

    async def put(self, key: str, blob_hash: str, *, content_type: str, file_name: str) -> Answer:
        """Put a file there; what came of it. Why it was in vain is told to the log: it is the operator's affair.

        Raises:
            BusyError: there is no room to bring the file here from a store that lies elsewhere.
        """
        try:
            async with self._blobs.held(blob_hash) as path:
                await self._bucket.put(key, path, content_type=content_type, filename=file_name)
                size_bytes = (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            return Answer(Reason.EXPIRED)
        except StorageFullError as error:
            raise BusyError("There is no room for a file that is to be delivered.") from error
        except StorageUnreachableError as error:
            log.warning("delivery_target", target=self._name, reason=error.reason, refused=error.is_refusal)
            return Answer(Reason.UNREACHABLE)
        if size_bytes >= LEAST_IN_PARTS_BYTES:
            await self._clear(key)
        return Answer(Reason.ANSWERED, _OK, place=self.location(key))

    def location(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return self._bucket.location(key)

    async def _clear(self, key: str) -> None:
        """Drop what puts of this key left that were killed; where that is not allowed, a rule of the bucket has to.

        Of this key alone, which nobody else has: the prefix may be shared with others, whose uploads are none of ours.
        """
        try:
            await self._bucket.abort_unfinished(older_than=self._clock.now(), under=key)
        except StorageUnreachableError as error:
            log.debug("delivery_target_parts", target=self._name, reason=error.reason)

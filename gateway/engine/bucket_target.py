"""A target of the operator's that is a prefix of a bucket: finished files are put there as they lie in our own store."""

from __future__ import annotations

from typing import Final

import structlog

from gateway.delivering import Answer, Reason
from gateway.errors import BusyError, StorageFullError, StorageUnreachableError
from gateway.interfaces import Blobs, Bucket

log = structlog.get_logger(__name__)

_OK: Final = 200


class BucketTarget:
    """``interfaces.DeliveryTarget``.

    Args:
        name: what clients call it.
        bucket: the prefix.
        blobs: our own store.
    """

    def __init__(self, name: str, bucket: Bucket, blobs: Blobs) -> None:
        self._name = name
        self._bucket = bucket
        self._blobs = blobs

    async def put(self, key: str, blob_hash: str, *, content_type: str, file_name: str) -> Answer:
        """Put a file there; what came of it. Why it was in vain is told to the log: it is the operator's affair.

        Raises:
            BusyError: there is no room to bring the file here from a store that lies elsewhere.
        """
        try:
            async with self._blobs.held(blob_hash) as path:
                await self._bucket.put(key, path, content_type=content_type, filename=file_name)
        except FileNotFoundError:
            return Answer(Reason.EXPIRED)
        except StorageFullError as error:
            raise BusyError("There is no room for a file that is to be delivered.") from error
        except StorageUnreachableError as error:
            log.warning("delivery_target", target=self._name, reason=error.reason, refused=error.is_refusal)
            return Answer(Reason.UNREACHABLE)
        return Answer(Reason.ANSWERED, _OK, place=self.location(key))

    def location(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return self._bucket.location(key)

    async def tidy(self, *, older_than: float) -> None:
        """Drop uploads in parts that killed puts left; where that is not allowed, a rule of the bucket has to."""
        try:
            dropped = await self._bucket.abort_unfinished(older_than=older_than)
        except StorageUnreachableError as error:
            log.info("delivery_target", target=self._name, reason=error.reason, refused=error.is_refusal)
            return
        if dropped:
            log.info("delivery_target_tidied", target=self._name, uploads=dropped)

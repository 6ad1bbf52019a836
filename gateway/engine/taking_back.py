"""Bytes that led to nothing go again."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.interfaces import Blob, Blobs, Store


async def take_back(store: Store, blobs: Blobs, unused: Iterable[Blob]) -> None:
    """Delete bytes that led to nothing, unless somebody else holds the same: the store knows who does.

    Raises:
        ShuttingDownError: the data directory is not ours any more; nothing is deleted.
    """
    for blob in unused:
        if await store.forget_blob(blob.hash):
            await blobs.discard(blob)

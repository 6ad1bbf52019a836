"""``interfaces.AssetStore`` over SQL: each method is one query function in one transaction."""

from __future__ import annotations

from gateway.idempotency import Claim
from gateway.interfaces import Asset, Minted, NewAsset
from gateway.store.executors import Executor
from gateway.store.queries import uploads


class SqlAssets:
    """Files that their owners name.

    Args:
        executor: where the queries run; whoever made it closes it.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def add(
        self, new: NewAsset, *, now: float, claim: Claim | None = None, must_be_known: bool = False
    ) -> Minted:
        """Keep an upload whose bytes are committed. Raises BlobNotFoundError, IdempotencyInFlightError."""
        return await self._executor.write(uploads.add_upload, new, now, claim, must_be_known=must_be_known)

    async def get(self, asset_id: str, owner: str | None, *, now: float) -> Asset | None:
        """An owner's upload or result; None for ``owner``: whoever's it is."""
        return await self._executor.read(uploads.asset, asset_id, owner, now)

    async def named(self, owner: str, file_path: str, *, now: float) -> Asset | None:
        """What an owner's upload of this name is: of several the one that was sent last."""
        return await self._executor.read(uploads.named_upload, owner, file_path, now)

    async def by_hash(self, owner: str, blob_hash: str, *, now: float) -> Asset | None:
        """Something that an owner has of these bytes; an upload before all else."""
        return await self._executor.read(uploads.by_hash, owner, blob_hash, now)

    async def delete(self, asset_id: str, owner: str, *, now: float) -> bool:
        """Forget an owner's upload; False when there is none. Raises AssetInUseError."""
        return await self._executor.write(uploads.delete_upload, asset_id, owner, now)

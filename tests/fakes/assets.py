"""``interfaces.AssetStore`` in memory. Unrealistic: the same bytes in a job's inputs are not known, claims are used up at once."""

from __future__ import annotations

from dataclasses import replace

from gateway.errors import AssetInUseError, BlobNotFoundError
from gateway.idempotency import Answer, Claim
from gateway.interfaces import Asset, Minted, NewAsset
from tests.fakes.credits import MemoryClaims


class MemoryAssets:
    """See the module."""

    def __init__(self, claims: MemoryClaims) -> None:
        self._claims = claims
        #: By id, the one that was named last at the end.
        self.by_id: dict[str, Asset] = {}
        #: Ids of assets that a job needs.
        self.in_use: set[str] = set()

    def put(self, asset: Asset) -> None:
        """There is an asset, a result perhaps."""
        self.by_id[asset.id] = asset

    async def add(
        self, new: NewAsset, *, now: float, claim: Claim | None = None, must_be_known: bool = False
    ) -> Minted:
        is_new_blob = await self.by_hash(new.owner, new.blob.hash, now=now) is None
        if must_be_known and is_new_blob:
            raise BlobNotFoundError("There are no bytes of this hash to make an asset of.")
        twin = next((old for old in self._kept(new.owner, now) if _is_twin(old, new)), None)
        kept = self.by_id.pop(twin.id) if twin is not None else _asset(new, now)
        self.by_id[kept.id] = kept = replace(kept, expires_at=max(kept.expires_at or 0.0, new.expires_at))
        if claim is not None:
            self._claims.finish(claim, Answer(201, b"", kept.id), now)
        return Minted(kept, is_new_blob, twin is None)

    async def get(self, asset_id: str, owner: str | None, *, now: float) -> Asset | None:
        return next((asset for asset in self._kept(owner, now) if asset.id == asset_id), None)

    async def named(self, owner: str, file_path: str, *, now: float) -> Asset | None:
        bare = file_path.removeprefix("input/")
        fit = [asset for asset in self._kept(owner, now) if asset.file_path in {bare, f"input/{bare}"}]
        return fit[-1] if fit else None

    async def by_hash(self, owner: str, blob_hash: str, *, now: float) -> Asset | None:
        fit = [asset for asset in self._kept(owner, now) if asset.blob == blob_hash]
        return fit[-1] if fit else None

    async def delete(self, asset_id: str, owner: str, *, now: float) -> bool:
        found = await self.get(asset_id, owner, now=now)
        if found is None:
            return False
        if found.job_id is not None or asset_id in self.in_use:
            raise AssetInUseError("This asset is in use and cannot be deleted now.")
        del self.by_id[asset_id]
        return True

    def _kept(self, owner: str | None, now: float) -> list[Asset]:
        return [
            asset
            for asset in self.by_id.values()
            if owner in {None, asset.owner} and (asset.expires_at is None or asset.expires_at > now)
        ]


def _is_twin(old: Asset, new: NewAsset) -> bool:
    return old.job_id is None and (old.blob, old.file_path) == (new.blob.hash, new.file_path)


def _asset(new: NewAsset, now: float) -> Asset:
    return Asset(
        id=new.id,
        owner=new.owner,
        blob=new.blob.hash,
        size_bytes=new.blob.size_bytes,
        content_type=new.content_type,
        file_path=new.file_path,
        tags=new.tags,
        created_at=now,
        expires_at=new.expires_at,
        job_id=None,
        facts=new.facts,
    )

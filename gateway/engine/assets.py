"""Files that a client sends by themselves, or names again: kept for their owner, found by id or hash, forgotten.

Bytes arrive as blobs, committed by whoever received them; here they get a name, an owner and an end. What another owner
has is never looked at, so that nobody can learn from an answer what somebody else has sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gateway.asset_links import AssetLink, AssetLinks
from gateway.audit import MediaFacts
from gateway.errors import BlobNotFoundError, ForbiddenError, HashMismatchError, NotFoundError
from gateway.idempotency import Claim
from gateway.interfaces import Asset, AssetStore, Blob, Clock, Minted, NewAsset
from gateway.sniffing import MediaType, described

log = structlog.get_logger(__name__)

#: Longer ones than any of ours are nobody's; they never reach the store.
MAX_ID_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was received."""

    owner: str
    blob: Blob
    #: By its first bytes.
    found: MediaType
    #: As the client declared it.
    content_type: str
    #: What the client calls it, already known to be harmless.
    file_path: str
    tags: tuple[str, ...] = ()
    #: blake3 that the client expects, 64 lower-case hex digits; anything else never fits.
    expected_hash: str | None = None
    #: None: as long as the settings say.
    expires_in_seconds: float | None = None


class Assets:
    """A part of the engine's door.

    Args:
        store: where they stand.
        clock: for how long they are kept.
        new_id: makes ids.
        links: signs links.
        retention_seconds: how long an upload is kept that says nothing else.
    """

    def __init__(
        self,
        store: AssetStore,
        clock: Clock,
        new_id: Callable[[], str],
        links: AssetLinks,
        *,
        retention_seconds: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._links = links
        self._retention_seconds = retention_seconds

    async def upload(self, upload: Upload, *, claim: Claim | None = None) -> Minted:
        """Keep a file; the same bytes under the same name are the same asset again, kept for longer if need be.

        Args:
            upload: its bytes are committed, and the caller's to take back when this raises.
            claim: of the request's idempotency key, used up by this.

        Raises:
            HashMismatchError: these are not the bytes that the client meant.
            IdempotencyInFlightError: the claim was lost.
        """
        if upload.expected_hash not in {None, upload.blob.hash}:
            raise HashMismatchError("The bytes that arrived do not have the expected hash.", field="expected_hash")
        return await self._keep(upload, claim, must_be_known=False)

    async def from_hash(
        self,
        owner: str,
        blob_hash: str,
        *,
        file_path: str | None = None,
        tags: tuple[str, ...] = (),
        expires_in_seconds: float | None = None,
    ) -> Minted:
        """An asset over bytes that the owner has already; the one there is, when it has that name.

        Raises:
            BlobNotFoundError: the owner has no such bytes.
        """
        known = await self.by_hash(owner, blob_hash)
        facts = known.facts
        upload = Upload(
            owner,
            Blob(known.blob, known.size_bytes),
            MediaType(facts.kind, facts.content_type, facts.suffix),
            known.content_type,
            file_path or "",
            tags,
            expires_in_seconds=expires_in_seconds,
        )
        return await self._keep(upload, None, must_be_known=True)

    async def by_hash(self, owner: str, blob_hash: str) -> Asset:
        """Something that the owner has of these bytes. Raises BlobNotFoundError."""
        found = await self._store.by_hash(owner, blob_hash, now=self._clock.now())
        if found is None:
            raise BlobNotFoundError("There are no bytes of this hash to make an asset of.")
        return found

    async def get(self, asset_id: str, owner: str) -> Asset:
        """An owner's upload or result. Raises NotFoundError."""
        return await self._get(asset_id, owner)

    async def named(self, file_path: str, owner: str) -> Asset:
        """An owner's newest upload of this name. Raises NotFoundError."""
        found = await self._store.named(owner, file_path, now=self._clock.now())
        if found is None:
            raise _no_such_asset()
        return found

    async def opened(self, asset_id: str, expires: str, signature: str) -> Asset:
        """What a link opens, whoever's it is.

        Raises:
            ForbiddenError: the link was not made here, was changed, or is over; said before anything is looked up.
            NotFoundError: its file is gone.
        """
        if not self._links.opens(asset_id, expires, signature, now=self._clock.now()):
            raise ForbiddenError("This link is not valid, or not any more: ask for the asset again.")
        return await self._get(asset_id, None)

    def link(self, asset_id: str, until: float | None) -> AssetLink:
        """A link that opens an asset without a key for a while. Args: until: when the asset expires, Unix seconds."""
        return self._links.make(asset_id, now=self._clock.now(), until=until)

    async def delete(self, asset_id: str, owner: str) -> None:
        """Forget an owner's upload; its bytes go with the last asset over them.

        Raises:
            NotFoundError: there is none.
            AssetInUseError: a job that has not ended was given it, or it is the result of one that is kept.
        """
        if not await self._store.delete(_lookup(asset_id), owner, now=self._clock.now()):
            raise _no_such_asset()
        log.info("asset_deleted", asset=asset_id)

    async def _get(self, asset_id: str, owner: str | None) -> Asset:
        found = await self._store.get(_lookup(asset_id), owner, now=self._clock.now())
        if found is None:
            raise _no_such_asset()
        return found

    async def _keep(self, upload: Upload, claim: Claim | None, *, must_be_known: bool) -> Minted:
        now = self._clock.now()
        seconds = self._retention_seconds if upload.expires_in_seconds is None else upload.expires_in_seconds
        new = NewAsset(
            id=self._new_id(),
            owner=upload.owner,
            blob=upload.blob,
            content_type=upload.content_type,
            file_path=upload.file_path or None,
            tags=upload.tags,
            facts=_unmeasured(described(upload.found, upload.content_type, upload.file_path)),
            expires_at=now + seconds,
        )
        minted = await self._store.add(new, now=now, claim=claim, must_be_known=must_be_known)
        log.info("asset_kept", asset=minted.asset.id, size_bytes=new.blob.size_bytes, is_new=minted.is_new_asset)
        return minted


def _lookup(asset_id: str) -> str:
    return asset_id if len(asset_id) <= MAX_ID_CHARACTERS else ""


def _no_such_asset() -> NotFoundError:
    return NotFoundError("There is no such asset.")


def _unmeasured(media_type: MediaType) -> MediaFacts:
    """What is known of a file that nobody has decoded."""
    return MediaFacts(
        media_type.kind,
        media_type.content_type,
        media_type.suffix,
        width=0,
        height=0,
        frames=0,
        fps=None,
        duration_seconds=None,
        has_audio=False,
        video_codec=None,
    )

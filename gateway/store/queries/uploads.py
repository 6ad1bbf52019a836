"""Uploads, and what their owner may do with them and with results: find them by id, name or hash, and forget them.

An upload is the owner's alone. Whether somebody else has the same bytes changes no answer here: every question names the
owner, and bytes are shared below, in ``blobs``, where no client looks. An input of a job never is an upload: it is an
asset of its own over the same bytes, so that an upload may expire while a job that was given it waits.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, bindparam, case, exists, insert, or_, select, text, update

from gateway.errors import AssetInUseError, BlobNotFoundError
from gateway.idempotency import Answer, Claim
from gateway.interfaces import Asset, Minted, NewAsset
from gateway.store.queries import change
from gateway.store.queries.assets import forget_assets, hold_blobs
from gateway.store.queries.claims import finish
from gateway.store.rows import Values, asset_from, to_json
from gateway.store.schema import IS_UPLOAD, AssetKind, assets, job_inputs, jobs

#: What a key is used up with; nobody is told it again.
_CREATED = 201


def add_upload(
    connection: Connection, new: NewAsset, now: float, claim: Claim | None, *, must_be_known: bool
) -> Minted:
    """Keep an upload; what was there before it.

    Raises:
        BlobNotFoundError: the owner has nothing with these bytes, and must.
        IdempotencyInFlightError: somebody else has taken the claim over; nothing was changed.
    """
    is_new_blob = by_hash(connection, new.owner, new.blob.hash, now) is None
    if must_be_known and is_new_blob:
        raise BlobNotFoundError("There are no bytes of this hash to make an asset of.")
    forget_assets(connection, _EXPIRED_TWIN, {**_twin(new), "now": now})
    hold = {"blob": new.blob.hash, "size_bytes": new.blob.size_bytes, "created_at": now}
    hold_blobs(connection, [hold])
    values = {**_twin(new), "until": new.expires_at, "moment": now}
    is_new_asset = connection.execute(_PROLONG, values).rowcount == 0
    if is_new_asset:
        change(connection, _INSERT, _row(new, now))
    kept = asset_from(connection.execute(_TWIN, _twin(new)).one())
    if claim is not None:
        finish(connection, claim, Answer(_CREATED, b"", kept.id), now)
    return Minted(kept, is_new_blob, is_new_asset)


def asset(connection: Connection, asset_id: str, owner: str | None, now: float) -> Asset | None:
    """An upload or a result; of this owner, unless that is None."""
    which = {"wanted": asset_id, "now": now}
    if owner is None:
        row = connection.execute(_BY_ID, which).one_or_none()
    else:
        row = connection.execute(_OWN_BY_ID, {**which, "whose": owner}).one_or_none()
    return None if row is None else asset_from(row)


def named_upload(connection: Connection, owner: str, file_path: str, now: float) -> Asset | None:
    """What an owner's upload of this name is; a leading ``input/`` is no part of a name."""
    bare = file_path.removeprefix("input/")
    names = [bare, f"input/{bare}"]
    row = connection.execute(_NAMED, {"whose": owner, "names": names, "now": now}).one_or_none()
    return None if row is None else asset_from(row)


def by_hash(connection: Connection, owner: str, blob_hash: str, now: float) -> Asset | None:
    """Something that an owner has of these bytes; an upload before all else."""
    row = connection.execute(_BY_HASH, {"whose": owner, "bytes": blob_hash, "now": now}).one_or_none()
    return None if row is None else asset_from(row)


def delete_upload(connection: Connection, asset_id: str, owner: str, now: float) -> bool:
    """Forget an upload; False when the owner has none of this id.

    Raises:
        AssetInUseError: a job holds it, in whichever way.
    """
    found = asset(connection, asset_id, owner, now)
    if found is None:
        return False
    # Rows of results go with the rows of their jobs: where there is one, its job is kept.
    is_needed = connection.execute(_IS_NEEDED, {"wanted": asset_id}).scalar_one()
    if found.job_id is not None or is_needed:
        raise AssetInUseError("This asset is in use and cannot be deleted now.")
    forget_assets(connection, _THIS, {"wanted": asset_id})
    return True


def _twin(new: NewAsset) -> Values:
    return {"whose": new.owner, "bytes": new.blob.hash, "name": new.file_path or ""}


def _row(new: NewAsset, now: float) -> Values:
    return {
        "id": new.id,
        "owner": new.owner,
        "kind": AssetKind.UPLOAD.value,
        "blob": new.blob.hash,
        "size_bytes": new.blob.size_bytes,
        "facts": to_json(new.facts.to_json()),
        "created_at": now,
        "expires_at": new.expires_at,
        "file_path": new.file_path or "",
        "content_type": new.content_type,
        "tags": to_json(new.tags),
        "named_at": now,
    }


# Literal, or SQLite does not see that the partial index fits.
_is_upload = text(IS_UPLOAD)
_is_kept = or_(assets.c.expires_at.is_(None), assets.c.expires_at > bindparam("now"))
_is_own = assets.c.owner == bindparam("whose")
_is_twin = and_(_is_upload, _is_own, assets.c.file_path == bindparam("name"), assets.c.blob == bindparam("bytes"))

_INSERT = insert(assets)
_TWIN = select(assets).where(_is_twin)
_EXPIRED_TWIN = select(assets.c.id, assets.c.blob).where(_is_twin, assets.c.expires_at <= bindparam("now"))
# Sent again, it is kept for longer, never for less.
_PROLONG = (
    update(assets)
    .where(_is_twin)
    .values(
        named_at=bindparam("moment"),
        expires_at=case((assets.c.expires_at < bindparam("until"), bindparam("until")), else_=assets.c.expires_at),
    )
)
_THIS = select(assets.c.id, assets.c.blob).where(assets.c.id == bindparam("wanted"))

_BY_ID = select(assets).where(assets.c.id == bindparam("wanted"), assets.c.kind != AssetKind.INPUT.value, _is_kept)
_OWN_BY_ID = _BY_ID.where(_is_own)
_NAMED = (
    select(assets)
    .where(_is_upload, _is_own, _is_kept, assets.c.file_path.in_(bindparam("names", expanding=True)))
    .order_by(assets.c.named_at.desc(), assets.c.id.desc())
    .limit(1)
)
_BY_HASH = (
    select(assets)
    .where(assets.c.blob == bindparam("bytes"), _is_own, _is_kept)
    .order_by((assets.c.kind == AssetKind.UPLOAD.value).desc(), assets.c.created_at.desc(), assets.c.id.desc())
    .limit(1)
)
_IS_NEEDED = select(
    exists().where(
        job_inputs.c.source_asset_id == bindparam("wanted"),
        jobs.c.id == job_inputs.c.job_id,
        jobs.c.finished_at.is_(None),
    )
)

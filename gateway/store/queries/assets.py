"""Blobs and the assets that refer to them: kept while a job needs them, then for their retention, then let go.

An asset may be the input of several jobs. It expires when the last of them has ended, and never while one waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Executable, bindparam, delete, exists, insert, literal_column, or_, select, update

from gateway.faces import DETECTION_TASK
from gateway.interfaces import Blob
from gateway.job import Job, JobResult
from gateway.store.queries import BATCH_ROWS, by_dialect, change, fetch_one
from gateway.store.rows import Values, asset_result_from, job_from, to_json
from gateway.store.schema import AssetKind, assets, blobs, job_inputs, jobs


def touch_blob(connection: Connection, blob: Blob, now: float) -> None:
    """Take note of a committed blob. New ones are loose until an asset refers to them."""
    row = {"hash": blob.hash, "size_bytes": blob.size_bytes, "touched_at": now, "loose": True}
    change(connection, _TOUCH_BLOB[connection.dialect.name], row)


def hold_inputs(connection: Connection, job: Job) -> None:
    """Keep the inputs of a new job until it ends."""
    rows = [_asset_row(job, item.asset_id, item.blob, item.size_bytes) for item in job.inputs.values()]
    if not rows:
        return
    for row, item in zip(rows, job.inputs.values(), strict=True):
        row.update(kind=AssetKind.INPUT.value, facts=to_json(item.facts.to_json()))
    hold_blobs(connection, rows)
    change(connection, _HOLD_ASSET[connection.dialect.name], rows)
    links = [
        {"job_id": job.id, "role": role, "asset_id": item.asset_id, "source_asset_id": item.source}
        for role, item in job.inputs.items()
    ]
    change(connection, _INSERT_INPUT, links)


def add_results(connection: Connection, job: Job, results: Sequence[JobResult], expires_at: float | None) -> None:
    """Keep the results of a task; without an end while it is at work (``end_results``)."""
    rows = [_asset_row(job, item.asset_id, item.blob, item.size_bytes) for item in results]
    if not rows:
        return
    for row, item in zip(rows, results, strict=True):
        row.update(kind=AssetKind.RESULT.value, facts=to_json(item.facts.to_json()), job_id=job.id, link=item.link)
        row.update(created_at=job.updated_at, expires_at=expires_at, file_path=item.name)
    hold_blobs(connection, rows)
    change(connection, _INSERT_ASSET, rows)


def end_results(connection: Connection, job_id: str, expires_at: float) -> None:
    """A task has ended: what was kept while it was at work expires like the rest."""
    change(connection, _END_RESULTS, {"ended": job_id, "until": expires_at})


def forget_results(connection: Connection, results: Sequence[JobResult]) -> None:
    """An attempt was lost: what was kept of it goes with it."""
    forget_assets(connection, _THESE, {"these": [result.asset_id for result in results]})


def release_inputs(connection: Connection, job_id: str, expires_at: float) -> None:
    """The job has ended: its inputs expire, unless another job still needs them."""
    change(connection, _RELEASE_INPUTS, {"ended": job_id, "until": expires_at})


def drop_results(connection: Connection, job_id: str) -> None:
    """The job failed or was canceled after one of its tasks had results."""
    forget_assets(connection, _RESULTS_OF, {"owner_job": job_id})


def result_by_link(connection: Connection, link: str, now: float) -> tuple[Job, JobResult] | None:
    """A finished file by its capability name, while it is kept."""
    row = connection.execute(_BY_LINK, {"wanted": link, "now": now}).one_or_none()
    if row is None:
        return None
    job = job_from(row)
    told = (result for result in job.results if result.asset_id == row.asset_id)
    return job, next(told, None) or asset_result_from(row)


def face_report(connection: Connection, owner: str, picture: str) -> tuple[str | None, bool]:
    """Hash of the newest report that a detection of an owner's made of the faces of a picture, by its hash.

    And whether there is any detection of this owner's.
    """
    if fetch_one(connection, _ANY_DETECTION, {"whose": owner}) is None:
        return None, False
    found = fetch_one(connection, _FACE_REPORT, {"whose": owner, "picture": picture})
    return None if found is None else str(found[0]), True


def forget_assets(connection: Connection, which: Executable, values: Values) -> int:
    """Delete the assets that ``which`` names by (id, blob); what they referred to becomes loose. How many there were."""
    rows = connection.execute(which, values).all()
    if rows:
        change(connection, _DELETE_ASSET, [{"gone": row.id} for row in rows])
        # Sorted, so that two replicas lock rows in one order.
        change(connection, _LOOSEN_BLOB, [{"gone": blob} for blob in sorted({row.blob for row in rows})])
    return len(rows)


def sweep_blobs(connection: Connection, untouched_since: float) -> tuple[str, ...]:
    """Forget blobs that nothing refers to and nobody touched since; their hashes."""
    rows = connection.execute(_LOOSE_BLOBS, {"before": untouched_since}).all()
    kept = [{"found": row.hash} for row in rows if row.used]
    gone = [{"found": row.hash} for row in rows if not row.used]
    if kept:
        change(connection, _FASTEN_BLOB, kept)
    if gone:
        change(connection, _DELETE_BLOB, gone)
    return tuple(row["found"] for row in gone)


def forget_blob(connection: Connection, blob_hash: str) -> bool:
    """Forget a blob unless an asset refers to it; True when none does, known or not."""
    if connection.execute(_IS_USED, {"wanted": blob_hash}).one_or_none() is not None:
        return False
    change(connection, _DELETE_BLOB, [{"found": blob_hash}])
    return True


def _asset_row(job: Job, asset_id: str, blob: str, size_bytes: int) -> Values:
    return {
        "id": asset_id,
        "owner": job.owner,
        "blob": blob,
        "size_bytes": size_bytes,
        "created_at": job.created_at,
        "job_id": None,
        "link": None,
        "expires_at": None,
    }


def hold_blobs(connection: Connection, rows: Sequence[Values]) -> None:
    """Before rows of assets are written: their blobs are referred to from now on."""
    held = [
        {"hash": row["blob"], "size_bytes": row["size_bytes"], "touched_at": row["created_at"], "loose": False}
        for row in rows
    ]
    change(connection, _HOLD_BLOB[connection.dialect.name], held)


_TOUCH_BLOB = by_dialect(
    lambda insert_into: (new := insert_into(blobs)).on_conflict_do_update(
        index_elements=["hash"], set_={"touched_at": new.excluded.touched_at}
    )
)
_HOLD_BLOB = by_dialect(
    lambda insert_into: (new := insert_into(blobs)).on_conflict_do_update(
        index_elements=["hash"], set_={"touched_at": new.excluded.touched_at, "loose": False}
    )
)
# An asset of that id that is another owner's, or no input, stays as it is: no job can prolong it.
_HOLD_ASSET = by_dialect(
    lambda insert_into: (new := insert_into(assets)).on_conflict_do_update(
        index_elements=["id"],
        set_={"expires_at": None},
        where=(assets.c.owner == new.excluded.owner) & (assets.c.kind == new.excluded.kind),
    )
)
_INSERT_ASSET = insert(assets)
_INSERT_INPUT = insert(job_inputs)
_DELETE_ASSET = delete(assets).where(assets.c.id == bindparam("gone"))

_other_inputs, _other_jobs = job_inputs.alias("other_inputs"), jobs.alias("other_jobs")
_RELEASE_INPUTS = (
    update(assets)
    .where(
        assets.c.id.in_(select(job_inputs.c.asset_id).where(job_inputs.c.job_id == bindparam("ended"))),
        ~exists().where(
            _other_inputs.c.asset_id == assets.c.id,
            _other_jobs.c.id == _other_inputs.c.job_id,
            _other_jobs.c.id != bindparam("ended"),
            _other_jobs.c.finished_at.is_(None),
        ),
    )
    .values(expires_at=bindparam("until"))
)
_END_RESULTS = (
    update(assets)
    .where(assets.c.job_id == bindparam("ended"), assets.c.expires_at.is_(None))
    .values(expires_at=bindparam("until"))
)
_THESE = select(assets.c.id, assets.c.blob).where(assets.c.id.in_(bindparam("these", expanding=True)))
_RESULTS_OF = select(assets.c.id, assets.c.blob).where(assets.c.job_id == bindparam("owner_job"))
_BY_LINK = (
    select(
        jobs,
        assets.c.id.label("asset_id"),
        assets.c.blob.label("asset_blob"),
        assets.c.size_bytes.label("asset_size_bytes"),
        assets.c.facts.label("asset_facts"),
        assets.c.link.label("asset_link"),
    )
    .join(assets, assets.c.job_id == jobs.c.id)
    .where(
        assets.c.link == bindparam("wanted"),
        or_(assets.c.expires_at.is_(None), assets.c.expires_at > bindparam("now")),
    )
)

_pictures = assets.alias("pictures")
_FACE_REPORT = (
    select(assets.c.blob)
    .select_from(_pictures)
    .join(job_inputs, job_inputs.c.asset_id == _pictures.c.id)
    .join(jobs, jobs.c.id == job_inputs.c.job_id)
    .join(assets, assets.c.job_id == jobs.c.id)
    .where(
        _pictures.c.blob == bindparam("picture"),
        jobs.c.owner == bindparam("whose"),
        jobs.c.task == literal_column(f"'{DETECTION_TASK}'"),
    )
    .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    .limit(1)
)

_ANY_DETECTION = (
    select(jobs.c.id)
    .where(jobs.c.owner == bindparam("whose"), jobs.c.task == literal_column(f"'{DETECTION_TASK}'"))
    .limit(1)
)

_LOOSEN_BLOB = update(blobs).where(blobs.c.hash == bindparam("gone")).values(loose=True)
_FASTEN_BLOB = update(blobs).where(blobs.c.hash == bindparam("found")).values(loose=False)
_DELETE_BLOB = delete(blobs).where(blobs.c.hash == bindparam("found"))
_LOOSE_BLOBS = (
    select(blobs.c.hash, exists().where(assets.c.blob == blobs.c.hash).label("used"))
    # Literal, or SQLite does not see that the partial index fits.
    .where(literal_column("blobs.loose"), blobs.c.touched_at <= bindparam("before"))
    .order_by(blobs.c.touched_at)
    .limit(BATCH_ROWS)
)
_IS_USED = select(assets.c.id).where(assets.c.blob == bindparam("wanted")).limit(1)

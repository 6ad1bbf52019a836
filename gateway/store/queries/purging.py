"""Forgetting at once what somebody asked to be forgotten: a job, or all of an owner. Only what has ended."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, exists, func, select

from gateway.errors import ConflictError
from gateway.interfaces import LooseBlob, Purged
from gateway.job import TERMINAL_JOB, JobState
from gateway.store.queries import change
from gateway.store.queries.assets import forget_assets
from gateway.store.queries.outbox import forget_owner
from gateway.store.schema import assets, blobs, job_inputs, jobs
from gateway.store.schema_credits import claims

#: Jobs in one transaction. Each takes its events, tasks and attempts along: some dozens of rows.
BATCH_JOBS = 50


def purge_job(connection: Connection, job_id: str) -> Purged | None:
    """Forget an ended job with its results, and its inputs unless another job names them. None when there is none.

    Raises:
        ConflictError: it has not ended.
    """
    row = connection.execute(_ENDED, {"wanted": job_id}).one_or_none()
    if row is None:
        return None
    if row.finished_at is None:
        raise ConflictError(f"the job is {row.state} and has not ended: cancel it first")
    return _purge(connection, [job_id])


def purge_owner(connection: Connection, owner: str) -> Purged:
    """Forget one batch of an owner's jobs, at last the assets that no job names; come again while something went.

    Raises:
        ConflictError: the owner has jobs that have not ended; nothing was changed.
    """
    if live := connection.execute(_LIVE_OF, {"owner": owner}).scalar_one():
        jobs_have = "1 job of this owner has" if live == 1 else f"{live} jobs of this owner have"
        raise ConflictError(f"{jobs_have} not ended: cancel first, then purge")
    old = [row.id for row in connection.execute(_ENDED_OF, {"owner": owner})]
    if old:
        return _purge(connection, old)
    forget_owner(connection, owner)
    change(connection, _DELETE_ANSWERS, {"owner": owner})
    rows = connection.execute(_ASSETS_OF, {"owner": owner}).all()
    gone = forget_assets(connection, _THESE, {"these": [row.id for row in rows]}) if rows else 0
    return Purged(jobs=0, assets=gone, blobs=_forget_blobs(connection, {row.blob for row in rows}))


def _purge(connection: Connection, old: Sequence[str]) -> Purged:
    which = {"old": old}
    rows = [*connection.execute(_RESULTS, which), *connection.execute(_INPUTS, which)]
    gone = forget_assets(connection, _THESE, {"these": [row.id for row in rows]}) if rows else 0
    # Answers that are told again hold what the client said of its job.
    change(connection, _DELETE_ANSWER, [{"gone": job_id} for job_id in old])
    change(connection, _DELETE_JOB, [{"gone": job_id} for job_id in old])
    return Purged(jobs=len(old), assets=gone, blobs=_forget_blobs(connection, {row.blob for row in rows}))


def _forget_blobs(connection: Connection, hashes: set[str]) -> tuple[LooseBlob, ...]:
    """Forget those of ``hashes`` that nothing refers to any more."""
    if not hashes:
        return ()
    rows = connection.execute(_UNUSED, {"hashes": sorted(hashes)}).all()
    if rows:
        change(connection, _DELETE_BLOB, [{"gone": row.hash} for row in rows])
    return tuple(LooseBlob(row.hash, row.touched_at) for row in rows)


_ENDED = select(jobs.c.state, jobs.c.finished_at).where(jobs.c.id == bindparam("wanted"))
# By state, not by finished_at: the index of an owner's jobs goes by state, and each batch asks again.
_LIVE = sorted(state.value for state in JobState if state not in TERMINAL_JOB)
_LIVE_OF = select(func.count()).select_from(jobs).where(jobs.c.owner == bindparam("owner"), jobs.c.state.in_(_LIVE))
_ENDED_OF = (
    select(jobs.c.id)
    .where(jobs.c.owner == bindparam("owner"), jobs.c.state.in_(sorted(TERMINAL_JOB)))
    .limit(BATCH_JOBS)
)
_RESULTS = select(assets.c.id, assets.c.blob).where(assets.c.job_id.in_(bindparam("old", expanding=True)))
_other = job_inputs.alias("other")
_INPUTS = (
    select(assets.c.id, assets.c.blob)
    .where(
        assets.c.id.in_(select(job_inputs.c.asset_id).where(job_inputs.c.job_id.in_(bindparam("old", expanding=True)))),
        ~exists().where(_other.c.asset_id == assets.c.id, _other.c.job_id.not_in(bindparam("old", expanding=True))),
    )
    .distinct()
)
# Another owner's job may name it; then it goes with that one.
_ASSETS_OF = (
    select(assets.c.id, assets.c.blob)
    .where(assets.c.owner == bindparam("owner"), ~exists().where(job_inputs.c.asset_id == assets.c.id))
    .limit(BATCH_JOBS)
)
_THESE = select(assets.c.id, assets.c.blob).where(assets.c.id.in_(bindparam("these", expanding=True)))
_UNUSED = select(blobs.c.hash, blobs.c.touched_at).where(
    blobs.c.hash.in_(bindparam("hashes", expanding=True)), ~exists().where(assets.c.blob == blobs.c.hash)
)
# By the scope too, which its index begins with: the scope of a claim is the owner of its job.
_DELETE_ANSWER = delete(claims).where(
    claims.c.scope == select(jobs.c.owner).where(jobs.c.id == bindparam("gone")).scalar_subquery(),
    claims.c.job_id == bindparam("gone"),
)
# Of jobs that retention took before their answers' day was over. A claim in flight holds nothing of what was sent.
_DELETE_ANSWERS = delete(claims).where(claims.c.scope == bindparam("owner"), claims.c.status.is_not(None))
_DELETE_JOB = delete(jobs).where(jobs.c.id == bindparam("gone"))
_DELETE_BLOB = delete(blobs).where(blobs.c.hash == bindparam("gone"))

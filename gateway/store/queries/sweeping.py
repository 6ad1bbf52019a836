"""Forgetting: expired assets, jobs past retention, blobs that nothing refers to, old outages.

What is still being delivered waits until that is over, one way or the other: the schedule has an end.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, select

from gateway.interfaces import Swept
from gateway.store.queries import BATCH_ROWS, change
from gateway.store.queries.assets import forget_assets, sweep_blobs
from gateway.store.queries.deliveries import is_being_delivered
from gateway.store.queries.trails import forget_outages
from gateway.store.schema import assets, jobs


def sweep(connection: Connection, job_retention_seconds: float, blob_grace_seconds: float, now: float) -> Swept:
    """One batch of each; the caller deletes the bytes of the blobs, and comes again while there was something."""
    gone = forget_assets(connection, _EXPIRED, {"now": now})
    old = [row.id for row in connection.execute(_OLD_JOBS, {"before": now - job_retention_seconds})]
    if old:
        # Before their jobs take them along, so that their blobs become loose.
        gone += forget_assets(connection, _RESULTS_OF_JOBS, {"old": old})
        change(connection, _DELETE_JOB, [{"wanted": job_id} for job_id in old])
    forget_outages(connection, now)
    return Swept(jobs=len(old), assets=gone, blobs=sweep_blobs(connection, now - blob_grace_seconds))


_EXPIRED = (
    select(assets.c.id, assets.c.blob)
    .where(assets.c.expires_at <= bindparam("now"), ~is_being_delivered(assets.c.job_id))
    .order_by(assets.c.expires_at)
    .limit(BATCH_ROWS)
)
_OLD_JOBS = (
    select(jobs.c.id)
    .where(jobs.c.finished_at <= bindparam("before"), ~is_being_delivered(jobs.c.id))
    .order_by(jobs.c.finished_at)
    .limit(BATCH_ROWS)
)
_RESULTS_OF_JOBS = select(assets.c.id, assets.c.blob).where(assets.c.job_id.in_(bindparam("old", expanding=True)))
_DELETE_JOB = delete(jobs).where(jobs.c.id == bindparam("wanted"))

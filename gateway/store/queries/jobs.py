"""Reading jobs and their events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from sqlalchemy import Connection, Executable, Select, bindparam, case, func, literal, select, tuple_, union_all, update

from gateway.errors import InvalidInputError
from gateway.events import Event
from gateway.job import Job, JobState
from gateway.store.queries import change, fetch, fetch_one
from gateway.store.rows import event_from, job_from
from gateway.store.schema import events, job_graphs, jobs

#: Progress of a job that has not ended stays below this: 1.0 is said by the terminal commit alone. With two decimals
#: of a percentage it still shows as 99.99.
HIGHEST_UNFINISHED = 0.9999


def job(connection: Connection, job_id: str) -> Job | None:
    """One job, whoever owns it."""
    row = fetch_one(connection, SELECT_JOB, {"wanted": job_id})
    return None if row is None else job_from(row)


def job_of(connection: Connection, job_id: str, owner: str) -> Job | None:
    """One job, when it is this owner's."""
    row = fetch_one(connection, _JOB_OF, {"wanted": job_id, "owner": owner})
    return None if row is None else job_from(row)


def jobs_of(
    connection: Connection,
    owner: str,
    states: frozenset[JobState] | None,
    task: str | None,
    before: str | None,
    limit: int,
) -> Sequence[Job]:
    """An owner's jobs, newest first, after the one with the id ``before``.

    Raises:
        InvalidInputError: ``before`` is no job of this owner, or not one of this task.
    """
    values: dict[str, object] = {"owner": owner, "most": limit}
    if task is not None:
        values["task"] = task
    if before is not None:
        values.update(seen_id=before, seen_at=_created_at(connection, owner, task, before))
    wanted = frozenset(JobState) if states is None else states
    if not wanted:
        return []
    return [
        job_from(row)
        for row in connection.execute(page_of(wanted, after=before is not None, one_task=task is not None), values)
    ]


def events_after(connection: Connection, job_id: str, number: int, limit: int) -> Sequence[Event]:
    """Durable events with a higher number, in order."""
    return [
        event_from(row) for row in fetch(connection, _EVENTS_AFTER, {"wanted": job_id, "seen": number, "most": limit})
    ]


def workflow(connection: Connection, job_id: str) -> str | None:
    """The graph that a client sent, and what belongs to it; None for jobs of templates."""
    found = connection.execute(_WORKFLOW, {"wanted": job_id}).scalar_one_or_none()
    return None if found is None else str(found)


def counts(connection: Connection) -> Mapping[JobState, int]:
    """How many jobs are in each state, by a walk along a narrow index."""
    found = {row.state: row.number for row in connection.execute(_COUNTS)}
    return {state: found.get(state.value, 0) for state in JobState}


def save_progress(connection: Connection, rows: Sequence[tuple[str, float, str]], now: float) -> None:
    """Raise highest fractions and set sentences of jobs that have not ended: (job id, fraction, step)."""
    values = [
        # In this order NaN becomes 0 as well.
        {"wanted": job_id, "reached": max(0.0, min(fraction, HIGHEST_UNFINISHED)), "step": step, "updated_at": now}
        for job_id, fraction, step in rows
    ]
    if values:
        change(connection, _SAVE_PROGRESS, values)


def _created_at(connection: Connection, owner: str, task: str | None, job_id: str) -> float:
    row = connection.execute(_SEEN, {"wanted": job_id, "owner": owner}).one_or_none()
    if row is None or task not in {None, row.task}:
        raise InvalidInputError("The cursor names no job of yours.", field="cursor")
    return float(row.created_at)


@cache
def page_of(states: frozenset[JobState], *, after: bool, one_task: bool = False) -> Executable:
    """The listing for a set of states; one statement for each that was ever asked for, a few hundred at most.

    One bounded walk per state, merged: a rare state among a million jobs costs no scan, and no sort of them all.
    """
    arms = [select(_heads(state, after=after, one_task=one_task).subquery()) for state in sorted(states)]
    heads = union_all(*arms).subquery()
    return (
        select(jobs)
        .join(heads, heads.c.id == jobs.c.id)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(bindparam("most"))
    )


def _heads(state: JobState, *, after: bool, one_task: bool) -> Select[tuple[str]]:
    heads = select(jobs.c.id).where(jobs.c.owner == bindparam("owner"), jobs.c.state == literal(state.value))
    if one_task:
        heads = heads.where(jobs.c.task == bindparam("task"))
    if after:
        heads = heads.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(bindparam("seen_at"), bindparam("seen_id")))
    return heads.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(bindparam("most"))


SELECT_JOB = select(jobs).where(jobs.c.id == bindparam("wanted"))
_JOB_OF = SELECT_JOB.where(jobs.c.owner == bindparam("owner"))
_WORKFLOW = select(job_graphs.c.workflow).where(job_graphs.c.job_id == bindparam("wanted"))
_SEEN = select(jobs.c.created_at, jobs.c.task).where(
    jobs.c.id == bindparam("wanted"), jobs.c.owner == bindparam("owner")
)
_EVENTS_AFTER = (
    select(events)
    .where(events.c.job_id == bindparam("wanted"), events.c.number > bindparam("seen"))
    .order_by(events.c.number)
    .limit(bindparam("most"))
)
_COUNTS = select(jobs.c.state, func.count().label("number")).group_by(jobs.c.state)
_SAVE_PROGRESS = (
    update(jobs)
    .where(jobs.c.id == bindparam("wanted"), jobs.c.finished_at.is_(None))
    .values(
        fraction=case((jobs.c.fraction < bindparam("reached"), bindparam("reached")), else_=jobs.c.fraction),
        step=bindparam("step"),
        updated_at=bindparam("updated_at"),
    )
)

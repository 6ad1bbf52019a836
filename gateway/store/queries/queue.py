"""The queue as the scheduler sees it: candidates, places, deadlines. Everything here is found by an index.

A **lane** is what one submitter wants of one requirement. The window of candidates holds the heads of the lanes, so its
price grows with the number of lanes in it and never with the backlog behind them. What has lost an attempt stands in a
lane beside that: it may have to wait although upstreams are free, and must not hide what could run there.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    text,
    tuple_,
    update,
)

from gateway.interfaces import Candidate, OpenTask
from gateway.job import Job, Task
from gateway.store.queries import BATCH_ROWS, fetch, fetch_one
from gateway.store.queries.jobs import job
from gateway.store.rows import candidate_from, job_from, outputs_from_json, task_from
from gateway.store.schema import IS_LIVE, attempts, jobs, tasks

#: Heads per lane: enough that one whose upstream is taken does not hide the next, few enough that no lane fills the
#: window.
HEADS = 4
#: Added to the lane of what has lost an attempt.
_AGAIN = "\x1fagain"
#: Nobody needs to know more exactly how long a queue of this length is.
MAX_POSITION = 10_000


def candidates(connection: Connection, limit: int, after_lane: str) -> tuple[list[Candidate], str]:
    """At most ``limit`` heads of lanes, and the lane after which the next call should begin.

    Where there are more lanes than fit, the window moves on from call to call and wraps around, so that every lane
    comes into it; where all fit, the second value is "". The first heads of all lanes come before any second one.
    """
    rows = fetch(connection, _HEADS, {"after": after_lane, "most": limit})
    lanes = list(dict.fromkeys(row.lane for row in sorted(rows, key=lambda row: int(row.turn))))
    if after_lane and len(lanes) < limit:
        seen = set(lanes)
        wrapped = fetch(connection, _HEADS, {"after": "", "most": limit - len(lanes)})
        more = [row for row in wrapped if row.lane not in seen]
        lanes += dict.fromkeys(row.lane for row in sorted(more, key=lambda row: int(row.turn)))
        rows += more
    turns = {lane: turn for turn, lane in enumerate(lanes)}
    rows.sort(key=lambda row: (turns[row.lane], -row.priority, row.queued_at, row.id))
    ranks: dict[str, int] = {}
    ranked = []
    for row in rows:
        ranks[row.lane] = rank = ranks.get(row.lane, 0) + 1
        ranked.append((rank, turns[row.lane], row))
    ranked.sort(key=lambda item: item[:2])
    window = [candidate_from(row) for _, _, row in ranked[:limit]]
    return window, lanes[-1] if len(lanes) >= limit else ""


def queued_task(connection: Connection, task_id: str) -> tuple[Job, Task] | None:
    """A task and its job, when it is still queued."""
    row = fetch_one(connection, _QUEUED_TASK, {"wanted": task_id})
    if row is None:
        return None
    task = task_from(row)
    found = job(connection, task.job_id)
    return None if found is None else (found, task)


def open_tasks(connection: Connection) -> Sequence[OpenTask]:
    """All dispatched and running tasks, in the order they were sent; as many as there are slots, so no limit."""
    rows = connection.execute(_OPEN_TASKS).all()
    owners = {row.id: job_from(row) for row in connection.execute(_OPEN_JOBS)}
    return [OpenTask(owners[row.job_id], task_from(row), outputs_from_json(row.outputs)) for row in rows]


def queue_position(connection: Connection, job_id: str) -> int | None:
    """How many tasks were queued before the job's first waiting one, at most ``MAX_POSITION``; None: it does not wait."""
    return None if (ahead := _ahead(connection, job_id)) is None else ahead[0]


def seconds_ahead(connection: Connection, job_id: str) -> float | None:
    """Predicted seconds of the same tasks."""
    return None if (ahead := _ahead(connection, job_id)) is None else ahead[1]


def _ahead(connection: Connection, job_id: str) -> tuple[int, float] | None:
    row = fetch_one(connection, _PLACE, {"wanted": job_id})
    if row is None:
        return None
    found = connection.execute(_AHEAD, {"queued_at": row.queued_at, "id": row.id}).one()
    return int(found.number), float(found.seconds)


def is_full(connection: Connection, max_queue: int) -> bool:
    """Whether ``max_queue`` tasks wait: a walk over at most that many entries of a narrow index, no counter to drift."""
    return max_queue <= 0 or fetch_one(connection, _LAST_PLACE, {"skip": max_queue - 1}) is not None


def overdue(connection: Connection, now: float) -> Sequence[str]:
    """Ids of queued tasks past their deadline, a batch of them."""
    return [row.id for row in connection.execute(_OVERDUE, {"now": now})]


def _queued(table: FromClause) -> ColumnElement[bool]:
    # Literal, or SQLite does not see that the partial indexes fit.
    return table.c.state == literal_column("'queued'")


def _heads() -> Select[tuple[object, ...]]:
    """Steps from lane to lane along the index (a loose index scan), and takes the first few of each."""
    first = (
        select(func.min(tasks.c.lane).label("lane"), literal(1, Integer).label("turn"))
        .where(_queued(tasks), tasks.c.lane > bindparam("after"))
        .cte("lanes", recursive=True)
    )
    beyond = tasks.alias("beyond")
    step = select(func.min(beyond.c.lane)).where(_queued(beyond), beyond.c.lane > first.c.lane).scalar_subquery()
    more = select(step, first.c.turn + 1).where(first.c.lane.is_not(None), first.c.turn < bindparam("most"))
    lanes = first.union_all(more)
    head = tasks.alias("head")
    heads = (
        select(head.c.id)
        .where(_queued(head), head.c.lane == lanes.c.lane)
        .order_by(head.c.priority.desc(), head.c.queued_at, head.c.id)
        .limit(HEADS)
        .correlate(lanes)
    )
    return select(tasks, lanes.c.turn).select_from(lanes).join(tasks, tasks.c.id.in_(heads))


#: Moves a task beside its lane.
STEP_ASIDE = update(tasks).where(tasks.c.id == bindparam("wanted")).values(lane=tasks.c.lane + _AGAIN)
_HEADS = _heads()
_QUEUED_TASK = select(tasks).where(tasks.c.id == bindparam("wanted"), _queued(tasks))
_OPEN_TASKS = (
    select(tasks)
    .join(attempts, attempts.c.id == tasks.c.prompt_id, isouter=True)
    .where(text(f"tasks.{IS_LIVE}"))
    .order_by(attempts.c.dispatched_at, tasks.c.queued_at, tasks.c.id)
)
_OPEN_JOBS = select(jobs).where(jobs.c.id.in_(select(tasks.c.job_id).where(text(f"tasks.{IS_LIVE}"))))
_PLACE = (
    select(tasks.c.queued_at, tasks.c.id)
    .where(tasks.c.job_id == bindparam("wanted"), _queued(tasks))
    .order_by(tasks.c.position)
    .limit(1)
)
_BEFORE = (
    select(tasks.c.cost_seconds)
    .where(_queued(tasks), tuple_(tasks.c.queued_at, tasks.c.id) < tuple_(bindparam("queued_at"), bindparam("id")))
    .limit(MAX_POSITION)
    .subquery()
)
_AHEAD = select(func.count().label("number"), func.coalesce(func.sum(_BEFORE.c.cost_seconds), 0.0).label("seconds"))
_LAST_PLACE = select(tasks.c.id).where(_queued(tasks)).order_by(tasks.c.queued_at).limit(1).offset(bindparam("skip"))
_OVERDUE = (
    select(tasks.c.id)
    .where(_queued(tasks), tasks.c.queue_deadline <= bindparam("now"))
    .order_by(tasks.c.queue_deadline)
    .limit(BATCH_ROWS)
)

"""Writing a job's life: each function is one transaction that ends in numbered events, or changes no row.

What may happen is decided by ``job.decide``; this module loads the rows, drops what a stale attempt says, asks, and
writes what follows for task, attempt, job, assets and events. The number of an event is the job row's ``last_event``
plus one, taken in the transaction that writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from gateway.comfy.messages import OutputFile
from gateway.delivering import DeliveryState, planned
from gateway.errors import ExpiredError, InternalJobError
from gateway.events import Event, EventKind
from gateway.interfaces import Recorded, Report
from gateway.job import (
    LIVE,
    MAX_INTERRUPTIONS,
    TERMINAL,
    Decision,
    Job,
    JobResult,
    JobState,
    RetryLimits,
    Task,
    TaskEvent,
    TaskState,
    decide,
    job_state,
)
from gateway.store.queries import change, fetch, fetch_one
from gateway.store.queries.assets import add_results, drop_results, end_results, forget_results, release_inputs
from gateway.store.queries.consents import complete as complete_consent
from gateway.store.queries.deliveries import add as add_deliveries
from gateway.store.queries.deliveries import told as told_of_delivery
from gateway.store.queries.jobs import HIGHEST_UNFINISHED, SELECT_JOB
from gateway.store.queries.ledger import close_hold
from gateway.store.queries.outbox import post
from gateway.store.queries.queue import STEP_ASIDE, overdue
from gateway.store.rows import (
    Values,
    event_row,
    job_changes,
    job_from,
    outputs_to_json,
    task_from,
)
from gateway.store.schema import CAUSED, attempts, events, jobs, tasks


@dataclass(frozen=True, slots=True)
class Retention:
    """How long files are kept."""

    #: Results, from the job's end.
    result_seconds: float
    #: Inputs, from the end of the last job that needs them.
    asset_seconds: float


@dataclass(slots=True)
class _Story:
    """A job in the hands of one transaction: what it is by now, and the events so far."""

    job: Job
    tasks: list[Task]
    now: float
    events: list[Event] = field(default_factory=list)

    def say(self, kind: EventKind, data: Mapping[str, object]) -> None:
        number = self.job.last_event + 1
        self.job = replace(self.job, last_event=number)
        self.events.append(Event(self.job.id, number, kind, self.now, data))

    def task(self, task_id: str) -> Task:
        return next(task for task in self.tasks if task.id == task_id)

    def put(self, task: Task) -> None:
        self.tasks = [task if old.id == task.id else old for old in self.tasks]

    def recorded(self, task_id: str) -> Recorded:
        return Recorded(self.job, self.task(task_id), tuple(self.events))


# ------------------------------------------------------------------------------------------------------------- record


def record(
    connection: Connection, task_id: str, report: Report, limits: RetryLimits, retention: Retention, now: float
) -> Recorded | None:
    """Apply an event by ``job.decide``; None when it is stale or refused: then no row changed."""
    story = _load(connection, task_id, now)
    if story is None:
        return None
    task = story.task(task_id)
    if _is_stale(task, report):
        return None
    decision = decide(task, report.event, limits)
    if decision is None:
        return None
    if report.event is TaskEvent.CANCEL_REQUESTED and task.cancel_requested:
        return story.recorded(task_id)
    _apply(connection, story, task, report, decision, retention)
    _save_job(connection, story)
    return story.recorded(task_id)


def record_outputs(
    connection: Connection, task_id: str, attempt: int, outputs: Mapping[str, tuple[OutputFile, ...]], now: float
) -> Recorded | None:
    """The upstream succeeded: keep what it named, set finishing. None when stale; asked again it says nothing new."""
    story = _load(connection, task_id, now)
    if story is None:
        return None
    task = story.task(task_id)
    if task.attempt != attempt or task.state not in LIVE:
        return None
    story.put(replace(task, finishing=True))
    change(connection, _KEEP_OUTPUTS, {"wanted": task_id, "finishing": True, "outputs": outputs_to_json(outputs)})
    if not task.finishing:
        if (state := job_state(story.tasks)) is JobState.FINISHING:
            story.say(EventKind.FINISHING, {})
        story.job = replace(story.job, state=state, updated_at=now)
        _save_job(connection, story)
    return story.recorded(task_id)


def keep_results(
    connection: Connection, task_id: str, attempt: int, results: Sequence[JobResult], now: float
) -> Recorded | None:
    """Keep files of an attempt that is at work, those that are not kept yet. None when stale, or being canceled."""
    story = _load(connection, task_id, now)
    if story is None:
        return None
    task = story.task(task_id)
    if task.attempt != attempt or task.state not in LIVE or task.finishing or task.cancel_requested:
        return None
    story.job = replace(story.job, updated_at=now)
    _add_results(connection, story, results, None)
    _save_job(connection, story)
    return story.recorded(task_id)


def request_cancel(
    connection: Connection, job_id: str, from_states: frozenset[JobState], retention: Retention, now: float
) -> Recorded | None:
    """Cancel all of a job's tasks that have not ended. None when the job is in none of ``from_states``."""
    story = _story(connection, fetch(connection, _TASKS_OF_JOB, {"wanted": job_id}), now)
    if story is None or story.job.state not in from_states:
        return None
    open_ = [task for task in story.tasks if task.state not in TERMINAL and not task.cancel_requested]
    for task in open_:
        decision = decide(task, TaskEvent.CANCEL_REQUESTED, _ANY_LIMITS)
        if decision is not None:
            _apply(connection, story, task, Report(TaskEvent.CANCEL_REQUESTED), decision, retention)
    if open_:
        _save_job(connection, story)
    return story.recorded(story.tasks[0].id)


def expire_queued(connection: Connection, retention: Retention, now: float) -> Sequence[Recorded]:
    """Fail what has waited past its deadline, a batch at a time."""
    report = Report(TaskEvent.EXPIRED)
    found = (record(connection, task_id, report, _ANY_LIMITS, retention, now) for task_id in overdue(connection, now))
    return [recorded for recorded in found if recorded is not None]


#: For events on which no limit bears.
_ANY_LIMITS = RetryLimits(max_attempts=MAX_INTERRUPTIONS)


def _is_stale(task: Task, report: Report) -> bool:
    """Whether an older attempt says it, or one that has ended already (its task waits again under the same number)."""
    if report.attempt is None:
        return False
    waits = task.state is TaskState.QUEUED and report.event is not TaskEvent.DISPATCHED
    return waits or report.attempt != task.attempt


def _apply(
    connection: Connection, story: _Story, task: Task, report: Report, decision: Decision, retention: Retention
) -> None:
    """Write task and attempt, and tell the story on: exactly what ``decision`` says."""
    flagged_now = decision.cancel_requested and not task.cancel_requested and decision.state in LIVE
    live = decision.state in LIVE
    changed = replace(
        task,
        state=decision.state,
        losses=decision.losses,
        interruptions=decision.interruptions,
        cancel_requested=decision.cancel_requested,
        finishing=task.finishing and live,
        upstream=task.upstream if live else None,
        prompt_id=None if decision.state is TaskState.QUEUED else task.prompt_id,
    )
    if report.event is TaskEvent.DISPATCHED:
        changed = _dispatch(connection, story, changed, report)
    elif report.event is TaskEvent.STARTED:
        _start(connection, story, changed, report)
    elif flagged_now:
        story.job = replace(story.job, cancel_requested_at=story.now)
        story.say(EventKind.CANCEL_REQUESTED, {})
    story.put(changed)
    _save_task(connection, task, changed, report, story.now)
    if task.state in LIVE and not live:
        ended = {
            "outcome": report.event.value,
            "reason": report.reason,
            "cause": report.cause.value if report.cause and report.event in CAUSED else None,
            "ended_at": story.now,
        }
        change(connection, _CHANGE_ATTEMPT, {"wanted": task.prompt_id, **ended})
    if decision.state is TaskState.QUEUED:
        dropped = _drop_results(connection, story, task)
        story.say(EventKind.REQUEUED, {"reason": report.event.value, "message": report.reason, **dropped})
    if decision.state is TaskState.SUCCEEDED:
        _keep_results(connection, story, report, retention)
    story.job = replace(story.job, state=job_state(story.tasks), updated_at=story.now)
    if story.job.is_terminal:
        _end(connection, story, report, decision, retention)
        post(connection, story.job, story.now)
        complete_consent(connection, story.job, story.now)


def _dispatch(connection: Connection, story: _Story, task: Task, report: Report) -> Task:
    if report.upstream is None or report.prompt_id is None:
        raise ValueError("a dispatch names its upstream and its prompt id")
    changed = replace(task, attempt=task.attempt + 1, upstream=report.upstream, prompt_id=report.prompt_id)
    attempt = {
        "id": report.prompt_id,
        "task_id": task.id,
        "number": changed.attempt,
        "upstream": report.upstream,
        "engine": report.engine,
        "dispatched_at": story.now,
        "reason": "",
    }
    change(connection, _INSERT_ATTEMPT, attempt)
    story.job = replace(story.job, upstream=report.upstream, engine=report.engine)
    data = {"upstream": report.upstream, "engine": report.engine, "attempt": changed.attempt}
    story.say(EventKind.DISPATCHED, data)
    return changed


def _start(connection: Connection, story: _Story, task: Task, report: Report) -> None:
    change(connection, _CHANGE_ATTEMPT, {"wanted": task.prompt_id, "started_at": story.now})
    if report.fraction is not None:
        fraction = max(story.job.fraction, min(report.fraction, HIGHEST_UNFINISHED))
        story.job = replace(story.job, fraction=fraction)
    if story.job.started_at is None:
        story.job = replace(story.job, started_at=story.now)
    story.say(EventKind.STARTED, {"upstream": task.upstream, "attempt": task.attempt})


def _keep_results(connection: Connection, story: _Story, report: Report, retention: Retention) -> None:
    sentences = tuple(message for _, message in report.warnings)
    story.job = replace(story.job, warnings=story.job.warnings + sentences, updated_at=story.now)
    expires_at = story.now + retention.result_seconds
    if story.job.results:
        end_results(connection, story.job.id, expires_at)
    _add_results(connection, story, report.results, expires_at)
    for code, message in report.warnings:
        story.say(EventKind.WARNING, {"code": code, "message": message})


def _add_results(connection: Connection, story: _Story, results: Sequence[JobResult], expires_at: float | None) -> None:
    """Make files the job's, each once, and tell of those that a node of the client's own graph made."""
    kept = {result.key: result for result in story.job.results}
    for result in results:
        kept.setdefault(result.key, result)
    new = tuple(kept.values())[len(story.job.results) :]
    add_results(connection, story.job, new, expires_at)
    story.job = replace(story.job, results=story.job.results + new)
    for result in new:
        if result.node_id is not None:
            story.say(EventKind.OUTPUT, _output(result))


def _output(result: JobResult) -> Mapping[str, object]:
    return {
        "asset_id": result.asset_id,
        "node_id": result.node_id,
        "name": result.name,
        "link": result.link,
        "content_type": result.facts.content_type,
        "size_bytes": result.size_bytes,
    }


def _drop_results(connection: Connection, story: _Story, task: Task) -> Mapping[str, object]:
    """The attempt was lost, and what was kept of it is no result any more: the next makes its own."""
    gone = [result for result in story.job.results if result.attempt_id == task.prompt_id is not None]
    if not gone:
        return {}
    forget_results(connection, gone)
    story.job = replace(story.job, results=tuple(result for result in story.job.results if result not in gone))
    return {"dropped": [result.asset_id for result in gone]}


def _end(connection: Connection, story: _Story, report: Report, decision: Decision, retention: Retention) -> None:
    """The terminal commit's part for the job: nothing may be told of it after this."""
    story.job = job = replace(story.job, finished_at=story.now)
    release_inputs(connection, job.id, story.now + retention.asset_seconds)
    if job.credit_cost:
        close_hold(connection, job, story.now)
    if job.state is JobState.SUCCEEDED:
        story.job = replace(job, fraction=1.0)
        story.say(EventKind.SUCCEEDED, _success(job))
        _plan_deliveries(connection, story)
        return
    if job.results:
        # Another task of this job had results before this one failed, or this one had some before its end.
        drop_results(connection, job.id)
        story.job = job = replace(job, results=())
    if job.state is JobState.CANCELED:
        story.job = replace(job, error_code=None, error_message=None)
        story.say(EventKind.CANCELED, {})
        return
    code, message = _error(report, decision)
    node = (report.error_node_id, report.error_node_class) if decision.error_code is None else (None, None)
    story.job = replace(job, error_code=code, error_message=message, error_node_id=node[0], error_node_class=node[1])
    story.say(EventKind.FAILED, {"code": code, "message": message})


def _plan_deliveries(connection: Connection, story: _Story) -> None:
    """Have the outputs put where their owner wants them; those that have no place, or are there already, are told at once."""
    made = planned(story.job, story.now)
    add_deliveries(connection, made)
    for delivery in made:
        if delivery.state is not DeliveryState.PENDING:
            story.say(*told_of_delivery(delivery))


def _success(job: Job) -> Mapping[str, object]:
    results = [
        {"link": result.link, "content_type": result.facts.content_type, "size_bytes": result.size_bytes}
        for result in job.results
    ]
    return {"results": results, "engine": job.engine, "warnings": list(job.warnings)}


def _error(report: Report, decision: Decision) -> tuple[str, str]:
    """Code and sentence of a failure: the guards' before the report's, and never none."""
    expired = report.event is TaskEvent.EXPIRED
    code = decision.error_code or report.error_code or (ExpiredError.code if expired else InternalJobError.code)
    said = decision.error_message or report.error_message
    if said:
        return code, said
    return code, "It waited in the queue for longer than it may." if expired else "The job failed."


# --------------------------------------------------------------------------------------------------------------- rows


def _load(connection: Connection, task_id: str, now: float) -> _Story | None:
    return _story(connection, fetch(connection, _SIBLINGS, {"wanted": task_id}), now)


def _story(connection: Connection, rows: Sequence[Any], now: float) -> _Story | None:
    if not rows:
        return None
    job = job_from(fetch_one(connection, SELECT_JOB, {"wanted": rows[0].job_id}))
    return _Story(job, [task_from(row) for row in rows], now)


def _save_task(connection: Connection, before: Task, task: Task, report: Report, now: float) -> None:
    values: Values = {
        "wanted": task.id,
        "state": task.state.value,
        "attempt": task.attempt,
        "losses": task.losses,
        "interruptions": task.interruptions,
        "cancel_requested": task.cancel_requested,
        "finishing": task.finishing,
        "upstream": task.upstream,
        "prompt_id": task.prompt_id,
        "finished_at": now if task.state in TERMINAL else None,
    }
    if before.finishing and not task.finishing:
        values["outputs"] = None
    if report.event is TaskEvent.ATTEMPT_LOST:
        values["avoid"] = before.upstream
        if not before.losses:
            change(connection, STEP_ASIDE, {"wanted": task.id})
    change(connection, _CHANGE_TASK, values)


def _save_job(connection: Connection, story: _Story) -> None:
    change(connection, _CHANGE_JOB, {"wanted": story.job.id, **job_changes(story.job)})
    if story.events:
        change(connection, INSERT_EVENT, [event_row(event) for event in story.events])


_INSERT_ATTEMPT = insert(attempts)
INSERT_EVENT = insert(events)
# The columns to set are those of the values handed in; SQLAlchemy keeps one compiled text per set of them.
_CHANGE_JOB = update(jobs).where(jobs.c.id == bindparam("wanted"))
_CHANGE_TASK = update(tasks).where(tasks.c.id == bindparam("wanted"))
_KEEP_OUTPUTS = _CHANGE_TASK
_CHANGE_ATTEMPT = update(attempts).where(attempts.c.id == bindparam("wanted"))
_TASKS_OF_JOB = select(tasks).where(tasks.c.job_id == bindparam("wanted")).order_by(tasks.c.position)
_family = tasks.alias("family")
_SIBLINGS = (
    select(tasks)
    .where(tasks.c.job_id == select(_family.c.job_id).where(_family.c.id == bindparam("wanted")).scalar_subquery())
    .order_by(tasks.c.position)
)

"""Taking in a new job: job, task, inputs, first event, price, kept promise and consent in one transaction."""

from __future__ import annotations

from sqlalchemy import Connection, insert

from gateway.errors import InvalidInputError, QueueFullError
from gateway.events import Event, EventKind
from gateway.interfaces import NewJob, Recorded
from gateway.job import Job, JobState, Task, TaskState
from gateway.store.queries import change
from gateway.store.queries.assets import hold_inputs
from gateway.store.queries.claims import finish
from gateway.store.queries.consents import attest
from gateway.store.queries.ledger import charge_for
from gateway.store.queries.queue import is_full
from gateway.store.queries.recording import INSERT_EVENT
from gateway.store.rows import Values, event_row, new_job_row, to_json
from gateway.store.schema import job_graphs, jobs, tasks

#: When it makes sense to ask again: about a job's length.
RETRY_AFTER_SECONDS = 30


def create_job(connection: Connection, new: NewJob, max_queue: int, now: float) -> Recorded:
    """Store job, task, input assets and first events; charge whoever pays; keep a promised answer, and the consent.

    Raises:
        QueueFullError: ``max_queue`` tasks wait already.
        InsufficientCreditsError: whoever pays has less than its price.
        IdempotencyInFlightError: somebody else has taken the key over meanwhile.
        InvalidInputError: a parameter is a value that JSON cannot say.
    """
    if is_full(connection, max_queue):
        raise QueueFullError(f"The queue is full: {max_queue} jobs wait.", retry_after_seconds=RETRY_AFTER_SECONDS)
    job = _new_job(new, charge_for(connection, new.owner, new.id, new.price, now), now)
    if new.promise is not None:
        finish(connection, new.promise.claim, new.promise.answer(job), now)
    task = Task(id=new.task_id, job_id=new.id, position=0, state=TaskState.QUEUED)
    events = _first_events(new, now)
    try:
        row = new_job_row(job)
    except TypeError:
        raise InvalidInputError("A parameter has a value that cannot be stored.") from None
    change(connection, _INSERT_JOB, row)
    if new.workflow is not None:
        change(connection, _INSERT_GRAPH, {"job_id": new.id, "workflow": new.workflow})
    change(connection, _INSERT_TASK, _new_task_row(new, now))
    hold_inputs(connection, job)
    attest(connection, new, now)
    change(connection, INSERT_EVENT, [event_row(event) for event in events])
    return Recorded(job, task, events)


def _first_events(new: NewJob, now: float) -> tuple[Event, ...]:
    told: list[tuple[EventKind, dict[str, object]]] = [(EventKind.QUEUED, {})]
    told += [(EventKind.WARNING, {"code": code, "message": message}) for code, message in new.warnings]
    return tuple(Event(new.id, number, kind, now, data) for number, (kind, data) in enumerate(told, start=1))


def _new_job(new: NewJob, credit_cost: int, now: float) -> Job:
    return Job(
        id=new.id,
        owner=new.owner,
        submitter=new.submitter,
        dialect=new.dialect,
        task=new.task,
        template=new.template,
        template_version=new.template_version,
        state=JobState.QUEUED,
        priority=new.priority,
        parameters=new.parameters,
        inputs=new.inputs,
        output_name=new.output_name,
        created_at=now,
        updated_at=now,
        queue_deadline=new.queue_deadline,
        warnings=tuple(message for _, message in new.warnings),
        last_event=1 + len(new.warnings),
        credit_cost=credit_cost,
        extra=new.extra,
    )


def _new_task_row(new: NewJob, now: float) -> Values:
    return {
        "id": new.task_id,
        "job_id": new.id,
        "position": 0,
        "submitter": new.submitter,
        "requirement": new.requirement,
        # A separator that is in no name keeps two lanes apart; a clash would cost fairness, not correctness.
        "lane": f"{new.submitter}\x1f{new.requirement}",
        "priority": new.priority,
        "cost_seconds": new.cost_seconds,
        # An upstream limits each upload, so the largest input counts, not their sum.
        "size_bytes": max((item.size_bytes for item in new.inputs.values()), default=0),
        "blobs": to_json(sorted({item.blob for item in new.inputs.values()})),
        "queued_at": now,
        "queue_deadline": new.queue_deadline,
        "state": TaskState.QUEUED.value,
        "attempt": 0,
        "losses": 0,
        "interruptions": 0,
        "cancel_requested": False,
        "finishing": False,
    }


_INSERT_JOB = insert(jobs)
_INSERT_GRAPH = insert(job_graphs)
_INSERT_TASK = insert(tasks)

"""Records what happens to tasks, then tells who listens: the one place where the engine writes a job's life.

The store decides by ``job.decide`` inside its transaction; what it refuses (a stale attempt, a state that has moved on)
changes no row and is told to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from gateway.comfy.messages import OutputFile
from gateway.delivering import FIELD as DELIVERY
from gateway.engine.credentials import Credentials
from gateway.engine.waiting import Waiting
from gateway.interfaces import Bus, Clock, NewJob, Recorded, Report, Store
from gateway.job import JobResult, JobState, RetryLimits
from gateway.outbox import FIELD as WEBHOOK

log = structlog.get_logger(__name__)


class Recorder:
    """Store, then bus, then log.

    Args:
        on_queued: called when a task has become ready to run, new or anew.
        on_message: called when a job's end has left something to be sent: a message in the outbox, a delivery.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Clock,
        *,
        limits: RetryLimits,
        on_queued: Callable[[], None],
        on_message: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._limits = limits
        self._on_queued = on_queued
        self._on_message = on_message
        #: Secrets of the jobs that have not ended: with what is recorded here, they go.
        self.credentials = Credentials()
        #: What waits, as far as it was told of here.
        self.waiting = Waiting(store)

    @property
    def limits(self) -> RetryLimits:
        """How much loss a task survives."""
        return self._limits

    async def create(self, new: NewJob, *, max_queue: int) -> Recorded:
        """Store a new job. Raises QueueFullError."""
        return self._tell(await self._store.create_job(new, max_queue=max_queue, now=self._clock.now()))

    async def record(self, task_id: str, report: Report) -> Recorded | None:
        """Record an event; None when it was stale or refused."""
        recorded = await self._store.record(task_id, report, limits=self._limits, now=self._clock.now())
        if recorded is None:
            log.info("report_refused", task=task_id, attempt=report.attempt, report=report.event.value)
            return None
        return self._tell(recorded)

    async def record_outputs(
        self, task_id: str, attempt: int, outputs: Mapping[str, tuple[OutputFile, ...]]
    ) -> Recorded | None:
        """Record that the upstream is done; None when stale."""
        recorded = await self._store.record_outputs(task_id, attempt, outputs, now=self._clock.now())
        return self._tell(recorded) if recorded else None

    async def keep_results(self, task_id: str, attempt: int, results: Sequence[JobResult]) -> Recorded | None:
        """Record files of an attempt that is at work; None when stale."""
        recorded = await self._store.keep_results(task_id, attempt, results, now=self._clock.now())
        return self._tell(recorded) if recorded else None

    async def request_cancel(self, job_id: str, from_states: frozenset[JobState]) -> Recorded | None:
        """Record a wish to cancel; None when the job is in none of ``from_states``."""
        recorded = await self._store.request_cancel(job_id, from_states, now=self._clock.now())
        return self._tell(recorded) if recorded else None

    async def expire(self) -> int:
        """Fail what waited too long; how many."""
        number = 0
        while expired := await self._store.expire_queued(now=self._clock.now()):
            for recorded in expired:
                self._tell(recorded)
            number += len(expired)
        return number

    def _tell(self, recorded: Recorded) -> Recorded:
        job = recorded.job
        self.waiting.note(job, recorded.task)
        for event in recorded.events:
            self._bus.announce(job.id, event.number)
            log.info(
                "job_event",
                job=job.id,
                kind=event.kind.value,
                attempt=recorded.task.attempt,
                upstream=job.upstream,
                code=job.error_code if event.is_terminal else None,
            )
        if job.is_terminal:
            self._bus.forget(job.id)
            self.credentials.forget(job.id)
            if WEBHOOK in job.extra or DELIVERY in job.extra:
                self._on_message()
        elif recorded.events and job.state is JobState.QUEUED:
            self._on_queued()
        return recorded

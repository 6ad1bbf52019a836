"""Why a queued job waits and how long it will: what runs now, what comes before it, and where it could run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.engine.catalog import Catalog
from gateway.engine.dispatcher import Standing
from gateway.engine.members import Judgment
from gateway.engine.needs import need_of, work_of_job
from gateway.engine.pool import Pool
from gateway.engine.timing import LearnedTimings
from gateway.errors import TemplateError
from gateway.events import Progress
from gateway.interfaces import Store
from gateway.job import Job
from gateway.timings import start_after


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a queued job waits."""

    #: Jobs that were queued before it.
    position: int
    #: Where it stands by fair share; None when it is too far back to tell.
    standing: Standing | None
    #: Of each upstream, by name; () when the template it was accepted with can no longer be read.
    upstreams: tuple[Judgment, ...]
    #: Predicted seconds until it starts; None where that cannot be told.
    expected_start_seconds: float | None


class Waits:
    """Predicts starts, and says what they wait for.

    Args:
        latest: the newest snapshot of a job at work.
        standing: where a queued job stands by fair share.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        pool: Pool,
        timings: LearnedTimings,
        latest: Callable[[str], Progress | None],
        standing: Callable[[str], Standing | None],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._pool = pool
        self._timings = timings
        self._latest = latest
        self._standing = standing

    async def explain(self, job: Job) -> Wait | None:
        """Why a job waits; None when it does not."""
        position = await self._store.queue_position(job.id)
        if position is None:
            return None
        expected = await self.expected_start_seconds(job)
        standing = self._standing(job.id)
        judged = await self._judged(job, standing.task_id if standing else "")
        return Wait(position, standing, judged, expected)

    async def _judged(self, job: Job, task_id: str) -> tuple[Judgment, ...]:
        try:
            template = await self._catalog.of_job(job)
        except TemplateError:
            return ()
        requirement, need = need_of(template, job)
        size_bytes = max((given.size_bytes for given in job.inputs.values()), default=0)
        return self._pool.judge(task_id, requirement, need, size_bytes)

    async def expected_start_seconds(self, job: Job) -> float | None:
        """Seconds until a queued job starts; None when it does not wait, nobody can take it, or nothing was learned."""
        ahead = await self._store.seconds_ahead(job.id)
        if ahead is None:
            return None
        try:
            template = await self._catalog.of_job(job)
        except TemplateError:
            return None
        own = self._timings.busy_seconds(template, work_of_job(template, job), job.parameters)
        if own is None:  # guesses are good for proportions, not for a clock
            return None
        working = self._pool.working_on(*need_of(template, job))
        return start_after([sum(self._left(job_id, own) for job_id in jobs) for jobs in working], ahead)

    def _left(self, job_id: str, own: float) -> float:
        """Seconds left of a job; one of which nothing is known yet takes as long as the one that asks."""
        latest = self._latest(job_id)
        return own if latest is None or latest.eta_seconds is None else latest.eta_seconds

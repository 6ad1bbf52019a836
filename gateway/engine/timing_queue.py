"""How long a queued job will wait: what runs now, what was queued before it, and where it could run."""

from __future__ import annotations

from collections.abc import Callable

from gateway.engine.catalog import Catalog
from gateway.engine.needs import Need, requirement_of, split_requirement
from gateway.engine.pool import Pool
from gateway.engine.timing import LearnedTimings
from gateway.errors import TemplateError
from gateway.events import Progress
from gateway.interfaces import Store
from gateway.job import Job
from gateway.timings import start_after


class Waits:
    """Predicts starts.

    Args:
        latest: the newest snapshot of a job at work.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        pool: Pool,
        timings: LearnedTimings,
        latest: Callable[[str], Progress | None],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._pool = pool
        self._timings = timings
        self._latest = latest

    async def expected_start_seconds(self, job: Job) -> float | None:
        """Seconds until a queued job starts; None when it does not wait, nobody can take it, or nothing was learned."""
        ahead = await self._store.seconds_ahead(job.id)
        if ahead is None:
            return None
        try:
            template = await self._catalog.pinned(job.template, job.template_version)
        except TemplateError:
            return None
        target = job.inputs.get("target")
        own = self._timings.busy_seconds(template, target.facts if target else None)
        if own is None:  # guesses are good for proportions, not for a clock
            return None
        requirement = requirement_of(template, job.parameters)
        need = Need(template, split_requirement(requirement)[2])
        working = self._pool.working_on(requirement, need)
        return start_after([sum(self._left(job_id, own) for job_id in jobs) for jobs in working], ahead)

    def _left(self, job_id: str, own: float) -> float:
        """Seconds left of a job; one of which nothing is known yet takes as long as the one that asks."""
        latest = self._latest(job_id)
        return own if latest is None or latest.eta_seconds is None else latest.eta_seconds

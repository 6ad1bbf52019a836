"""Keeps what runs have taught: in memory for the engine, in the store for the next start.

Learning is a matter of memory; rows are written together by the housekeeper every half minute and at the end. A kill
forgets the last half minute's runs, no more, and no job's commit has to wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import structlog

from gateway.audit import MediaFacts
from gateway.binding import as_dispatched
from gateway.comfy.progress import Lap, Plan, plan_for
from gateway.interfaces import Store
from gateway.repeating import copies_of
from gateway.template import Template
from gateway.timings import ANY_UPSTREAM, RESULTS, Timings, Work

log = structlog.get_logger(__name__)

#: Seconds that one frame of 640x360 is predicted to take where nothing has been learned; only proportions count then.
SECONDS_PER_FRAME = 0.1
FRAME_MEGAPIXELS = 640 * 360 / 1e6
LEAST_SECONDS = 1.0
MAX_PRICES = 1024


class LearnedTimings:
    """What the engine knows of how long things take."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._timings = Timings()
        #: (template, version, target) -> seconds, since something was learned last: uploads come in sizes that repeat.
        self._prices: dict[tuple[str, str, Work, int], float | None] = {}
        #: Template -> how many times more its jobs take than was guessed when they were queued.
        self._repriced: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        """Read what earlier processes have learned."""
        self._timings = Timings(await self._store.timings())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store what has changed for the last time."""
        try:
            await self.save()
        except Exception as failure:  # noqa: BLE001 - the edge of a stop, which must go on; what is lost is learned again
            log.warning("timings_not_saved", error=type(failure).__name__)

    # --------------------------------------------------------------------------------------------------- predicting

    def plan(self, template: str, graph: Mapping[str, object], target: MediaFacts | None, upstream: str) -> Plan:
        """The plan of a graph on an upstream ("" for any)."""
        work = work_of(target)

        def seconds_of(node_class: str, pass_number: int) -> float | None:
            return self._timings.seconds(template, upstream, work, node_class, pass_number)

        return plan_for(graph, frames=work.frames, seconds_of=seconds_of)

    def results_seconds(self, template: str, target: MediaFacts | None, upstream: str) -> float | None:
        """How long fetching, auditing and storing the results takes; None where it was never seen."""
        return self._timings.seconds(template, upstream, work_of(target), RESULTS, 0)

    def cost_seconds(self, template: Template, target: MediaFacts | None, parameters: Mapping[str, object]) -> float:
        """How long a job keeps an upstream busy (its results are fetched while the next one runs); a guess by frames and pixels until its template was measured."""
        guessed = guessed_seconds(work_of(target)) * copies_of(template, parameters)
        return self.busy_seconds(template, target, parameters) or guessed

    def busy_seconds(
        self, template: Template, target: MediaFacts | None, parameters: Mapping[str, object]
    ) -> float | None:
        """The same without the guess."""
        if not self._timings.knows(template.name):
            return None
        key = (template.name, template.version, work_of(target), copies_of(template, parameters))
        if key not in self._prices:
            if len(self._prices) >= MAX_PRICES:
                self._prices.clear()
            graph = as_dispatched(template, parameters).graph
            self._prices[key] = self.plan(template.name, graph, target, ANY_UPSTREAM).seconds
        return self._prices[key]

    # ----------------------------------------------------------------------------------------------------- learning

    def learn(
        self, template: str, upstream: str, target: MediaFacts | None, laps: Sequence[Lap], results_seconds: float
    ) -> None:
        """Take in a run that succeeded and was watched from its start to its end."""
        work, measured = work_of(target), [*laps, Lap(RESULTS, 0, results_seconds)]
        if not self._timings.knows(template):
            self._repriced[template] = sum(lap.seconds for lap in laps) / guessed_seconds(work)
        self._timings.learn(template, upstream, work, measured)
        self._prices.clear()

    def keep(self, templates: Iterable[str], upstreams: Iterable[str]) -> None:
        """Forget what was learned of templates and upstreams that are no more."""
        self._timings.keep(templates, upstreams)
        self._prices.clear()

    async def save(self) -> None:
        """Store what has changed. What cannot be stored now is tried again the next time."""
        repriced, self._repriced = self._repriced, {}
        changed, gone = self._timings.take_changes()
        if not (changed or gone):
            return
        try:
            await self._store.save_timings(changed, gone, repriced)
        except BaseException:
            self._timings.give_back(changed, gone)
            self._repriced = {**repriced, **self._repriced}
            raise
        log.debug("timings_saved", rows=len(changed), gone=len(gone))


def work_of(target: MediaFacts | None) -> Work:
    """What there is to do for a target."""
    return Work.of(target.frames, target.width, target.height) if target else Work(1, FRAME_MEGAPIXELS)


def guessed_seconds(work: Work) -> float:
    """By nothing but the size of the target."""
    return max(LEAST_SECONDS, work.frames * SECONDS_PER_FRAME * work.megapixels / FRAME_MEGAPIXELS)

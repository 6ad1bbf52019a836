"""Jobs' progress bars: shown at once, never falling, not even when this process is killed.

A bar starts from what was shown before, by this process (the bus) or an earlier one (the store). An attempt that starts
from the beginning makes it wait at its highest value, and the sentence says why. 1.0 is not ours to show: it comes with
the commit that makes the result downloadable.

A value that was shown and not stored would be forgotten by a kill, so the store goes ahead: it holds a *ceiling* that
nothing shown has passed, and before a bar passes it the next one is committed. That is 20 small writes a job instead of
one per tick; the first is made with the commit that says the job has started. A step is longer where a job is that quick: two seconds' worth, which is all that a short one has, for each
write would take as long as the work that it tells of. The next ceiling is stored when a bar comes near the last one, beside
what goes on, so that few ticks wait for a write: the first ones of an attempt, and leaps. After a kill the bar goes on from
the ceiling, at most a step and a quarter ahead of what was last seen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.comfy.progress import Snapshot
from gateway.events import Progress
from gateway.interfaces import Bus, Clock, Store
from gateway.job import Job, Task

#: Shown as 99.9 % at most while a job has not ended.
HIGHEST = 0.999
#: From ceiling to ceiling at least, and at least as much as is done in this time.
STEP = 0.05
STEP_SECONDS = 2.0
#: With this part of a step left below it, the next ceiling is stored.
NEAR = 0.25


@dataclass(slots=True)
class _Ceiling:
    """What is stored of one bar."""

    fraction: float
    #: Below it nothing is to be done.
    near: float
    #: Stores the next one.
    raising: asyncio.Task[None] | None = None

    def rise_to(self, fraction: float, step: float) -> None:
        """That much is stored."""
        self.fraction = max(self.fraction, fraction)
        self.near = HIGHEST if fraction >= HIGHEST else self.fraction - NEAR * step

    def has_raised(self, task: asyncio.Task[None]) -> None:
        """What went wrong will go wrong again where the bar would pass the ceiling, and is raised there."""
        self.raising = None
        if not task.cancelled() and task.exception() is not None:
            self.near = self.fraction


class Bars:
    """All bars of the jobs at work."""

    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._ceilings: dict[str, _Ceiling] = {}

    async def show(
        self,
        job: Job,
        task: Task,
        fraction: float,
        sentence: str,
        *,
        snapshot: Snapshot | None = None,
        title: str | None = None,
        left: float | None = None,
    ) -> None:
        """Tell how far a job is.

        Args:
            job: as read when this attempt began.
            task: of the job.
            fraction: of the whole job, as this attempt has it.
            sentence: what is being done.
            snapshot: where the prompt is.
            title: of the node at work.
            left: seconds to the job's end, where they can be told.
        """
        latest = self._bus.latest(job.id)
        # What the store holds is the ceiling: it counts only where nobody remembers what was really shown.
        shown = latest.fraction if latest else job.fraction
        if fraction < shown and task.losses + task.interruptions:
            sentence = f"Catching up after a lost attempt. {sentence}"
        fraction = min(max(fraction, shown), HIGHEST)
        ceiling = self._ceilings.get(job.id)
        if ceiling is None:
            ceiling = self._ceilings[job.id] = _Ceiling(job.fraction, job.fraction)
        if fraction > ceiling.near:
            await self._look_up(job.id, ceiling, fraction, sentence, left)
        self._bus.show(_progress(job.id, snapshot, fraction, sentence, title, left))

    async def _look_up(
        self, job_id: str, ceiling: _Ceiling, fraction: float, sentence: str, left: float | None
    ) -> None:
        """Have the next ceiling stored: before coming back where the bar would pass this one, else beside it."""
        if ceiling.raising is not None and fraction > ceiling.fraction:
            await asyncio.wait({ceiling.raising})
        step = _step(fraction, left)
        if fraction > ceiling.fraction:
            await self._raise(job_id, ceiling, fraction + step, step, sentence)
        elif ceiling.raising is None and fraction > ceiling.near and ceiling.fraction < HIGHEST:
            work = self._raise(job_id, ceiling, ceiling.fraction + step, step, sentence)
            ceiling.raising = asyncio.create_task(work, name=f"ceiling of {job_id}")
            ceiling.raising.add_done_callback(ceiling.has_raised)

    async def _raise(self, job_id: str, ceiling: _Ceiling, fraction: float, step: float, sentence: str) -> None:
        fraction = min(fraction, HIGHEST)
        await self._store.save_progress([(job_id, fraction, sentence)], now=self._clock.now())
        ceiling.rise_to(fraction, step)

    def first_ceiling(self, job_id: str, left: float | None) -> float | None:
        """What the commit that says of a job's start should store beside it, so that its first steps wait for no other.

        None where the bar has a ceiling already: an attempt that only begins again must not raise it.

        Args:
            job_id: of the job, whose bar is shown.
            left: seconds to the job's end, where they can be told.
        """
        ceiling = self._ceilings.get(job_id)
        return min(_step(0.0, left), HIGHEST) if ceiling is not None and ceiling.fraction <= 0.0 else None

    def note_ceiling(self, job_id: str, fraction: float) -> None:
        """It was stored."""
        if (ceiling := self._ceilings.get(job_id)) is not None:
            ceiling.rise_to(fraction, fraction)

    async def rest(self, job_id: str) -> None:
        """The attempt has ended; the bar stays where it is for the next one."""
        ceiling = self._ceilings.pop(job_id, None)
        if ceiling is not None and ceiling.raising is not None:
            await asyncio.wait({ceiling.raising})

    def forget(self, job_id: str) -> None:
        """The job has ended without an attempt."""
        self._bus.forget(job_id)


def _step(fraction: float, left: float | None) -> float:
    """From a fraction to the next ceiling. Args: left: seconds to the job's end, where they can be told."""
    return STEP if left is None else max(STEP, (1.0 - fraction) * STEP_SECONDS / max(left, STEP_SECONDS))


def describe(title: str | None, snapshot: Snapshot) -> str:
    """What is being done, for people."""
    if snapshot.node is None:
        return "Working"
    sentence = title or snapshot.node_class or "Working"
    if snapshot.steps and snapshot.steps > 1:
        sentence += f": {snapshot.step} of {snapshot.steps}"
        if snapshot.passes and snapshot.passes > 1:
            sentence += f", pass {snapshot.pass_number} of {snapshot.passes}"
    return sentence


def _progress(
    job_id: str, snapshot: Snapshot | None, fraction: float, sentence: str, title: str | None, left: float | None
) -> Progress:
    if snapshot is None:
        return Progress(job_id, fraction, sentence, eta_seconds=left)
    return Progress(
        job_id,
        fraction,
        sentence,
        nodes_done=snapshot.nodes_done,
        nodes_total=snapshot.nodes_total,
        node=snapshot.node,
        node_title=title,
        node_class=snapshot.node_class,
        step=snapshot.step,
        steps=snapshot.steps,
        pass_number=snapshot.pass_number,
        passes=snapshot.passes,
        eta_seconds=left,
    )

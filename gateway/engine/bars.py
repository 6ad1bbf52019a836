"""Jobs' progress bars: shown at once, never falling, not even when this process is killed.

A bar starts from what was shown before, by this process (the bus) or an earlier one (the store). An attempt that starts
from the beginning makes it wait at its highest value, and the sentence says why. 1.0 is not ours to show: it comes with
the commit that makes the result downloadable.

A value that was shown and not stored would be forgotten by a kill, so the store goes ahead: it holds a *ceiling* that
nothing shown has passed, and before a bar passes it the next one is committed. That is 20 small writes a job instead of
one per tick; after a kill the bar goes on from the ceiling, at most one step ahead of what was last seen. In the last
two seconds of a job, which are all that a short one has, one write covers the rest: each would take as long as the work
that it tells of.
"""

from __future__ import annotations

import math

from gateway.comfy.progress import Snapshot
from gateway.events import Progress
from gateway.interfaces import Bus, Clock, Store
from gateway.job import Job, Task

#: Shown as 99.9 % at most while a job has not ended.
HIGHEST = 0.999
#: From ceiling to ceiling.
STEP = 0.05
#: With no more than this left to do the ceiling goes up for the last time.
SHORT_SECONDS = 2.0


class Bars:
    """All bars of the jobs at work."""

    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._ceilings: dict[str, float] = {}

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
        if fraction > self._ceilings.get(job.id, job.fraction):
            is_nearly_done = left is not None and left <= SHORT_SECONDS
            await self._raise_ceiling(job.id, HIGHEST if is_nearly_done else fraction, sentence)
        self._bus.show(_progress(job.id, snapshot, fraction, sentence, title, left))

    async def _raise_ceiling(self, job_id: str, fraction: float, sentence: str) -> None:
        ceiling = min((math.floor(fraction / STEP) + 1) * STEP, HIGHEST)
        await self._store.save_progress([(job_id, ceiling, sentence)], now=self._clock.now())
        self._ceilings[job_id] = ceiling

    def rest(self, job_id: str) -> None:
        """The attempt has ended; the bar stays where it is for the next one."""
        self._ceilings.pop(job_id, None)

    def forget(self, job_id: str) -> None:
        """The job has ended without an attempt."""
        self._bus.forget(job_id)


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

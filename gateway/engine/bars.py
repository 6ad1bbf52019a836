"""Jobs' progress bars: shown at once, written now and then, never falling.

A bar starts from what was shown before, by this process (the bus) or an earlier one (the store). An attempt that starts
from the beginning makes it wait at its highest value, and the sentence says why. 1.0 is not ours to show: it comes with
the commit that makes the result downloadable.
"""

from __future__ import annotations

from gateway.comfy.progress import Snapshot
from gateway.events import Progress
from gateway.interfaces import Bus
from gateway.job import Job, Task

#: Shown as 99.9 % at most while a job has not ended.
HIGHEST = 0.999


class Bars:
    """All bars of the jobs at work."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._unsaved: dict[str, tuple[float, str]] = {}

    def show(
        self,
        job: Job,
        task: Task,
        fraction: float,
        sentence: str,
        *,
        snapshot: Snapshot | None = None,
        title: str | None = None,
    ) -> None:
        """Tell how far a job is.

        Args:
            job: as read when this attempt began.
            task: of the job.
            fraction: of the whole job, as this attempt has it.
            sentence: what is being done.
            snapshot: where the prompt is.
            title: of the node at work.
        """
        latest = self._bus.latest(job.id)
        shown = max(job.fraction, latest.fraction if latest else 0.0)
        if fraction < shown and task.losses + task.interruptions:
            sentence = f"Catching up after a lost attempt. {sentence}"
        fraction = min(max(fraction, shown), HIGHEST)
        self._unsaved[job.id] = (fraction, sentence)
        self._bus.show(_progress(job.id, snapshot, fraction, sentence, title))

    def forget(self, job_id: str) -> None:
        """The job has ended, or somebody else has it."""
        self._unsaved.pop(job_id, None)
        self._bus.forget(job_id)

    def take_unsaved(self) -> list[tuple[str, float, str]]:
        """(job id, fraction, sentence) of the bars that moved since the last call."""
        unsaved, self._unsaved = self._unsaved, {}
        return [(job_id, fraction, sentence) for job_id, (fraction, sentence) in unsaved.items()]


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


def _progress(job_id: str, snapshot: Snapshot | None, fraction: float, sentence: str, title: str | None) -> Progress:
    if snapshot is None:
        return Progress(job_id, fraction, sentence)
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
    )

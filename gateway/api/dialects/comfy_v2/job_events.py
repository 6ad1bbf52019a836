"""What one client of the dialect ``comfy_v2`` is told of a job's events: event -> frames; pure.

Whoever connects is told first how the job is now; a status that it passed through before is not told any more, because
the one told first says more. Outputs are told as long as the job has them: those of an attempt that was lost are none of
it. Before the terminal status every output was told. Frames of durable events carry their number.

Source: the published contract of the Comfy API v2, ``x-sse-events``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.api.dialects.comfy_v2.job_bodies import (
    CANCELING,
    Links,
    output_body,
    progress_body,
    shown_position,
    word,
)
from gateway.api.dialects.comfy_v2.words import STATE_WORDS
from gateway.api.following import Frame
from gateway.events import Event, EventKind, Progress
from gateway.job import Job, JobState

_STATE_AFTER: Final = {
    EventKind.QUEUED: JobState.QUEUED,
    EventKind.REQUEUED: JobState.QUEUED,
    EventKind.DISPATCHED: JobState.DISPATCHED,
    EventKind.STARTED: JobState.RUNNING,
    EventKind.FINISHING: JobState.FINISHING,
}


def progress_frames(item: Event | Progress, job: Job, previous: Progress | None, prefix: str) -> tuple[Frame, ...]:
    """A snapshot as a frame, which is the same for all who watch."""
    del job, previous, prefix
    return (Frame("progress", progress_body(item)),) if isinstance(item, Progress) else ()


@dataclass(slots=True)
class Told:
    """What one client knows.

    Args:
        links: how its outputs are linked.
    """

    links: Links
    _status: str = ""
    _position: int | None = None
    #: Number of the last event that the snapshot covers.
    _covered: int = 0
    _outputs: set[str] = field(default_factory=set)

    def snapshot(self, job: Job, position: int | None) -> Iterator[Frame]:
        """The status that a client is told on connecting; of a job that has ended, it is the last thing said.

        Args:
            job: as it is.
            position: as the engine counts.
        """
        self._covered = job.last_event
        if not job.is_terminal:
            self._status, self._position = word(job), shown_position(job, position)
            yield self._status_frame()

    def moved(self, job: Job, position: int | None) -> Iterator[Frame]:
        """The status again, where its place in the queue is another one by now."""
        shown = shown_position(job, position)
        if shown is not None and shown != self._position:
            self._position = shown
            yield self._status_frame()

    def of(self, event: Event, job: Job, position: int | None) -> Iterator[Frame]:
        """What is said of an event.

        Args:
            event: the next one.
            job: as it was read after it, or later.
            position: as the engine counts.
        """
        if event.is_terminal:
            yield from self._outputs_of(job, {result.asset_id for result in job.results}, None)
            self._status, self._position = word(job), None
            yield self._status_frame(event.number)
        elif event.kind is EventKind.OUTPUT:
            yield from self._outputs_of(job, {str(event.data.get("asset_id"))}, event.number)
        elif event.number > self._covered and (status := self._status_after(event)) not in {None, self._status}:
            self._status = str(status)
            self._position = shown_position(job, position) if status == STATE_WORDS[JobState.QUEUED] else None
            yield self._status_frame(event.number)

    def _status_after(self, event: Event) -> str | None:
        if event.kind is EventKind.CANCEL_REQUESTED:
            return CANCELING
        state = _STATE_AFTER.get(event.kind)
        # A wish to cancel is never taken back.
        return None if state is None or self._status == CANCELING else STATE_WORDS[state]

    def _outputs_of(self, job: Job, wanted: set[str], number: int | None) -> Iterator[Frame]:
        for result in job.results:
            if result.asset_id in wanted - self._outputs:
                self._outputs.add(result.asset_id)
                yield Frame("output", output_body(job, result, self.links), number)

    def _status_frame(self, number: int | None = None) -> Frame:
        return Frame("status", {"status": self._status, "queue_position": self._position}, number)

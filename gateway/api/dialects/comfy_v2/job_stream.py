"""A job's stream for one client of the dialect ``comfy_v2``: how the job is now, then what happens, until its terminal status.

The status comes first, then the outputs that are there, the newest progress and the newest preview; what follows is live.
Progress and previews come at most twice a second, each complete in itself, the newest alone. What is said of durable
events, ``job_events.py`` decides; here they are read from the store, in order, and each once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from gateway.api.dialects.comfy_v2.job_events import Told
from gateway.api.facade import Service
from gateway.api.following import HEARTBEAT_SECONDS, Frame, Signal, Translate
from gateway.api.jpegs import JpegPreviews
from gateway.errors import NotFoundError
from gateway.events import PreviewImage, Progress
from gateway.interfaces import Subscription
from gateway.job import Job, JobState

#: Between two progress frames, and between two previews, to one client.
PAUSE_SECONDS: Final = 0.5
#: How often the place of a job that waits is looked at: nobody announces that others have left the queue.
PLACE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Teller:
    """What all streams share."""

    service: Service
    #: A snapshot of progress in frames, each made once.
    progress: Translate
    previews: JpegPreviews
    heartbeat_seconds: float = HEARTBEAT_SECONDS


async def stream(teller: Teller, job: Job, after: int, told: Told) -> AsyncGenerator[Frame | Signal]:
    """The frames for one client; close it when done.

    Args:
        teller: of this window.
        job: as its owner was given it.
        after: number of the last event that the client has had, 0 for none.
        told: what it knows: nothing yet.
    """
    service, clock = teller.service, teller.service.clock
    subscription = service.subscribe(job.id, previews=True)
    try:
        # Read after listening began, so that nothing falls between the two.
        viewer = _Viewer(service, await service.job(job.id, job.owner), after, told)
        passing = _Passing(teller, subscription, viewer.job)
        for frame in await viewer.snapshot():
            yield frame
        said_at = clock.monotonic()
        is_behind = True
        while True:
            while is_behind:
                frames = await viewer.read()
                for frame in frames:
                    yield frame
                said_at = clock.monotonic() if frames else said_at
                is_behind = viewer.has_more
                if viewer.has_ended:
                    return
                # A long replay to a client that left never really waits; without this nobody could cancel it.
                await asyncio.sleep(0)
            frames = [*await viewer.moved(), *await passing.due()]
            for frame in frames:
                yield frame
            said_at = clock.monotonic() if frames else said_at
            if service.stopping.is_set():
                yield Signal.STOPPING
                return
            silence_until = said_at + teller.heartbeat_seconds
            until = min(silence_until, viewer.due_at, passing.due_at)
            is_new = await subscription.wait(max(0.0, until - clock.monotonic()))
            is_silence = not is_new and clock.monotonic() >= silence_until
            if is_silence:
                said_at = clock.monotonic()
                yield Signal.HEARTBEAT
            # After a silence the store is asked anyway: a lost announcement costs one heartbeat, not the stream.
            is_behind = is_silence or subscription.last_number > viewer.read_to
    except NotFoundError:
        return  # it was purged while somebody watched
    finally:
        subscription.close()


class _Viewer:
    """Reads what lasts: durable events, and the place in the queue."""

    def __init__(self, service: Service, job: Job, after: int, told: Told) -> None:
        self._service = service
        self._told = told
        #: Of events up to this one nothing is said: the client has had that.
        self._after = after
        self.job = job
        self.read_to = 0
        self.has_more = True
        self.has_ended = False
        #: Monotonic seconds; when the place is to be looked at.
        self.due_at = math.inf

    async def snapshot(self) -> list[Frame]:
        """How the job is."""
        return list(self._told.snapshot(self.job, await self._place()))

    async def read(self) -> list[Frame]:
        """What is said of the next events; the job is as it was after them."""
        events = await self._service.events_after(self.job.id, self.read_to)
        self.has_more = bool(events)
        if events and events[-1].number > self.job.last_event:
            self.job = await self._service.job(self.job.id, self.job.owner)
        place = await self._place() if events else None
        frames: list[Frame] = []
        for event in events:
            self.read_to = event.number
            # Told in any case, so that it is known which outputs the client has.
            said = list(self._told.of(event, self.job, place))
            frames += said if event.number > self._after else []
            if event.is_terminal:
                self.has_ended = True
                return frames
        return [*frames, *self._told.moved(self.job, place)]

    async def moved(self) -> list[Frame]:
        """The status, when the place in the queue is due to be looked at and is another one."""
        if self._service.clock.monotonic() < self.due_at:
            return []
        return list(self._told.moved(self.job, await self._place()))

    async def _place(self) -> int | None:
        is_waiting = self.job.state is JobState.QUEUED
        self.due_at = self._service.clock.monotonic() + PLACE_SECONDS if is_waiting else math.inf
        return await self._service.queue_position(self.job.id) if is_waiting else None


class _Passing:
    """What passes: the newest progress and the newest preview, held until they are due."""

    def __init__(self, teller: Teller, subscription: Subscription, job: Job) -> None:
        self._teller = teller
        self._subscription = subscription
        self._job = job
        # What was shown last before a restart, until the first new tick.
        is_at_work = job.state in {JobState.DISPATCHED, JobState.RUNNING, JobState.FINISHING}
        self._progress = Progress(job.id, job.fraction, job.step) if is_at_work else None
        self._preview: PreviewImage | None = None
        self._progress_at = self._preview_at = -math.inf

    @property
    def due_at(self) -> float:
        """Monotonic seconds; when something that is held may be said."""
        progress_at = self._progress_at if self._progress else math.inf
        return min(progress_at, self._preview_at if self._preview else math.inf)

    async def due(self) -> list[Frame]:
        """What may be said now."""
        self._progress = self._subscription.take_progress() or self._progress
        self._preview = self._subscription.take_preview() or self._preview
        now = self._teller.service.clock.monotonic()
        frames: list[Frame] = []
        if self._progress is not None and now >= self._progress_at:
            frames += self._teller.progress(self._progress, self._job, None)
            self._progress, self._progress_at = None, now + PAUSE_SECONDS
        if self._preview is not None and now >= self._preview_at:
            frame = await self._teller.previews.of(self._preview)
            frames += [frame] if frame else []
            self._preview, self._preview_at = None, now + PAUSE_SECONDS
        return frames

"""A job's events for one viewer: what was said since a cursor, then what is being said, until the end.

Attaching is: subscribe, read after the cursor, show the latest snapshot, go live. Durable events come from the store in
order and each once, whatever the bus dropped; progress is the newest snapshot at the time it is asked for, so a slow
viewer misses some and piles up nothing. Previews come to those alone who ask, newest first seen, no faster than
``PREVIEW_SECONDS``. SSE and WebSocket both read from here.

How a stream ends: with the job's end, or where its files are delivered, with what becomes of them (``Until``); with ``Stopping`` when the process is told to stop; or because the viewer
left, which closes the generator and never touches the job.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from gateway.api.facade import Service
from gateway.delivering import wish_of
from gateway.events import Event, PreviewImage, Progress
from gateway.interfaces import Subscription
from gateway.job import Job, JobState

#: Silence after which something is sent, so that proxies keep the connection: half of the usual 30 s.
HEARTBEAT_SECONDS = 15.0
#: Between two previews to one viewer: two a second are a moving picture of the work, and a film to nobody.
PREVIEW_SECONDS = 0.5
#: How long a stream stays after the job's end for what becomes of its files: a delivery may take days.
STAY_SECONDS = 60.0
#: States in which an upstream works on a job, so that a fraction says something.
_AT_WORK = frozenset({JobState.DISPATCHED, JobState.RUNNING, JobState.FINISHING})


class Until(Enum):
    """When a stream ends by itself."""

    #: With the job's end: what has become of its files afterwards is not told.
    END = "end"
    #: That is told as far as it has happened; nobody waits for more.
    TOLD = "told"
    #: Those who watch wait for it, ``STAY_SECONDS`` at most; then they come back with their cursor.
    DELIVERED = "delivered"


class Signal(Enum):
    """What a stream says that is no event."""

    #: Nothing happened for a while.
    HEARTBEAT = "heartbeat"
    #: The process stops; come back with the cursor.
    STOPPING = "stopping"


@dataclass(slots=True)
class Frame:
    """One thing to tell a client, or all who watch. Not to be changed once it was made.

    Nothing keeps it from that: it is made at each step of each bar, and a frozen one takes five times as long to make.
    """

    name: str
    data: dict[str, object]
    #: The durable event's number; None on what is passing.
    number: int | None = None
    #: A message of bytes, for sockets, in place of ``data``.
    binary: bytes | None = None
    _encoded: dict[Encode, bytes] | None = field(default=None, compare=False, repr=False)

    def encoded(self, encode: Encode) -> bytes:
        """This frame on a wire, worked out once however many get it. ``data`` must not change after that."""
        if self._encoded is None:
            self._encoded = {}
        known = self._encoded.get(encode)
        if known is None:
            known = self._encoded[encode] = encode(self)
        return known


#: How a wire spells a frame.
Encode: TypeAlias = Callable[[Frame], bytes]


Item = Event | Progress | PreviewImage | Signal

#: A dialect's third function. Args: what happened; the job as it was when the stream began; the snapshot shown before. Of
#: that one only ``node`` may decide what is told of a snapshot, and of the job only what never changes.
Translate = Callable[[Event | Progress, Job, Progress | None], tuple[Frame, ...]]


class ToldOnce:
    """A ``Translate`` that puts each snapshot into words once, however many watch.

    Args:
        translate: done once per snapshot and node shown before. Durable events are few, and go through as they are.
    """

    #: Jobs whose newest words are kept; one forgotten costs doing it again.
    MAX_JOBS = 1024

    def __init__(self, translate: Translate) -> None:
        self._translate = translate
        self._newest: OrderedDict[str, tuple[Progress, dict[str | None, tuple[Frame, ...]]]] = OrderedDict()

    def __call__(self, item: Event | Progress, job: Job, previous: Progress | None) -> tuple[Frame, ...]:
        """The frames; the same objects for all who were shown the same node before."""
        if not isinstance(item, Progress):
            return self._translate(item, job, previous)
        node = previous.node if previous is not None else None
        newest = self._newest.get(item.job_id)
        if newest is not None and newest[0] is item:
            told = newest[1]
            if node not in told:
                told[node] = self._translate(item, job, previous)
            return told[node]
        words = self._translate(item, job, previous)
        self._newest[item.job_id] = (item, {node: words})
        if newest is None and len(self._newest) > self.MAX_JOBS:
            self._newest.popitem(last=False)
        return words


class _Previews:
    """When the next preview is due, of one viewer."""

    def __init__(self, service: Service, subscription: Subscription) -> None:
        self._clock = service.clock
        self._subscription = subscription
        self._next_at = -math.inf
        self._was_shown = False

    def take(self) -> PreviewImage | None:
        """The newest one, unless one was given a moment ago."""
        if self._clock.monotonic() < self._next_at:
            return None
        picture = self._subscription.take_preview()
        self._was_shown = picture is not None
        if picture is not None:
            self._next_at = self._clock.monotonic() + PREVIEW_SECONDS
        return picture

    def wait_seconds(self, at_most: float) -> float:
        """How long to wait for news; after a preview only until the next one may be shown: it may be there by then."""
        if not self._was_shown:
            return at_most
        return min(at_most, max(0.0, self._next_at - self._clock.monotonic()))


class _Stay:
    """How long one viewer stays after the job's end."""

    def __init__(self, service: Service, job: Job, until: Until) -> None:
        self._service = service
        self._job_id = job.id
        self._until = until
        self.ends_at_once = until is Until.END or wish_of(job) is None
        #: The job had ended before, or has by now.
        self.has_ended = job.is_terminal
        #: Monotonic seconds.
        self._stays_until = math.inf

    async def goes_on(self) -> bool:
        """Whether there is something to stay for."""
        if self.ends_at_once or self._until is not Until.DELIVERED:
            return False
        if self._stays_until == math.inf:
            self._stays_until = self._service.clock.monotonic() + STAY_SECONDS
        is_time = self._service.clock.monotonic() < self._stays_until
        return is_time and await self._service.deliveries.is_pending(self._job_id)

    def wait_seconds(self, at_most: float) -> float:
        """How long to wait for news; after the end until it has to be seen whether to stay."""
        if not self.has_ended:
            return at_most
        if self._stays_until == math.inf:
            return 0.0
        return min(at_most, max(0.0, self._stays_until - self._service.clock.monotonic()))


async def follow(
    service: Service,
    job: Job,
    after: int,
    *,
    until: Until = Until.END,
    previews: bool = False,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> AsyncGenerator[Item]:
    """A job's events after number ``after``, then progress and events live. Close it when done (``aclosing``).

    With ``previews`` pictures of the work, too; the newest one of a running job at once.
    """
    subscription = service.subscribe(job.id, previews=previews)
    pictures = _Previews(service, subscription) if previews else None
    try:
        is_behind = True
        is_first = True
        stay = _Stay(service, job, until)
        while True:
            # Asked before the store is: what was written by then is told.
            is_over = stay.has_ended and not await stay.goes_on()
            while (is_behind or is_over) and (events := await service.events_after(job.id, after)):
                for event in events:
                    after = event.number
                    yield event
                    if event.is_terminal and stay.ends_at_once:
                        return
                    stay.has_ended |= event.is_terminal
                # A long replay to a client that left never really waits; without this nobody could cancel it.
                await asyncio.sleep(0)
            if is_over:
                return
            snapshot = subscription.take_progress() or (_remembered(job) if is_first else None)
            is_first = False
            if snapshot is not None:
                yield snapshot
            if pictures is not None and (picture := pictures.take()) is not None:
                yield picture
            if service.stopping.is_set():
                yield Signal.STOPPING
                return
            at_most = stay.wait_seconds(heartbeat_seconds)
            wait_seconds = at_most if pictures is None else pictures.wait_seconds(at_most)
            is_new = await subscription.wait(wait_seconds)
            is_silence = not is_new and wait_seconds == heartbeat_seconds
            if is_silence:
                yield Signal.HEARTBEAT
            # After a silence the store is asked anyway: a lost announcement costs one heartbeat, not the stream.
            is_behind = is_silence or subscription.last_number > after
    finally:
        subscription.close()


async def frames_of(
    service: Service,
    job: Job,
    after: int,
    translate: Translate,
    *,
    until: Until = Until.END,
    show_preview: Callable[[PreviewImage], Frame] | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> AsyncGenerator[Frame | Signal]:
    """``follow`` in a dialect's words.

    ``show_preview`` makes a preview a frame; without it none are asked for. ``previews.py`` has two such functions.
    """
    previous: Progress | None = None
    wants_previews = show_preview is not None
    told = follow(service, job, after, until=until, previews=wants_previews, heartbeat_seconds=heartbeat_seconds)
    async with aclosing(told) as items:
        async for item in items:
            if isinstance(item, Progress):
                for frame in translate(item, job, previous):
                    yield frame
                previous = item
            elif isinstance(item, Event):
                for frame in translate(item, job, previous):
                    yield frame
            elif isinstance(item, Signal):
                yield item
            elif show_preview is not None:
                yield show_preview(item)


def _remembered(job: Job) -> Progress | None:
    """What was shown last before a restart, until the first new tick."""
    if job.state not in _AT_WORK or job.fraction <= 0:
        return None
    return Progress(job_id=job.id, fraction=job.fraction, message=job.step)

"""Tells those who watch a job that there is something new; in one process.

Durable events are only announced: the listener reads them from the store after its own cursor. Passing events have one
slot per job that every listener reads, so a slow listener costs nothing but its own lateness. Nothing here grows with
what is said, only with who listens. A preview wakes those alone who asked for previews, and no watcher: nothing that is
worked out of a job's state shows one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gateway.events import Passing, PreviewImage, Progress
from gateway.interfaces import Watcher


@dataclass(slots=True)
class _Channel:
    last_number: int = 0
    progress: Progress | None = None
    preview: PreviewImage | None = None
    ended: bool = False
    listeners: set[LocalSubscription] = field(default_factory=set)


class LocalBus:
    """The in-process bus (``interfaces.Bus``). Call it from the event loop only."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> None:
        """Have it called on every change of any job, at once; it must be quick, and stays for good."""
        self._watchers.append(watcher)

    def doubt_all(self) -> None:
        """Jobs changed without an event: they were purged."""
        self._tell(None, is_event=False)

    def _tell(self, job_id: str | None, *, is_event: bool) -> None:
        for watcher in self._watchers:
            watcher(job_id, is_event=is_event)

    def announce(self, job_id: str, number: int) -> None:
        """A durable event was committed."""
        self._tell(job_id, is_event=True)
        channel = self._channels.get(job_id)
        if channel is None:
            return
        channel.last_number = max(channel.last_number, number)
        _wake(channel)

    def show(self, passing: Passing) -> None:
        """A passing event takes the place of the one before it."""
        channel = self._channels.get(passing.job_id)
        if channel is None:
            channel = self._channels[passing.job_id] = _Channel()
        if isinstance(passing, PreviewImage):
            channel.preview = passing
            for listener in channel.listeners:
                if listener.wants_previews:
                    listener.wake()
            return
        self._tell(passing.job_id, is_event=False)
        channel.progress = passing
        _wake(channel)

    def latest(self, job_id: str) -> Progress | None:
        """The newest snapshot of a job that is at work."""
        channel = self._channels.get(job_id)
        return channel.progress if channel else None

    def subscribe(self, job_id: str, *, previews: bool = False) -> LocalSubscription:
        """Listen from now on; to previews only when asked."""
        channel = self._channels.setdefault(job_id, _Channel())
        subscription = LocalSubscription(self, job_id, channel, wants_previews=previews)
        channel.listeners.add(subscription)
        return subscription

    def forget(self, job_id: str) -> None:
        """The job has ended: its snapshot goes at once, the channel with its last listener."""
        self._tell(job_id, is_event=False)
        channel = self._channels.get(job_id)
        if channel is None:
            return
        channel.progress = channel.preview = None
        channel.ended = True
        if not channel.listeners:
            del self._channels[job_id]

    def wake_all(self) -> None:
        """Let every listener look around once: the process is about to stop."""
        for channel in self._channels.values():
            _wake(channel)

    def _leave(self, subscription: LocalSubscription) -> None:
        channel = self._channels.get(subscription.job_id)
        if channel is None:
            return
        channel.listeners.discard(subscription)
        is_blank = channel.progress is None and channel.preview is None
        if not channel.listeners and (channel.ended or is_blank):
            del self._channels[subscription.job_id]


def _wake(channel: _Channel) -> None:
    for listener in channel.listeners:
        listener.wake()


class LocalSubscription:
    """One listener's ear (``interfaces.Subscription``).

    Waking and waiting happen once per listener and event, so they cost a future and no timer: one timer per listener
    looks now and then whether the wait under way has lasted long enough.
    """

    __slots__ = (
        "_bus",
        "_channel",
        "_is_woken",
        "_preview",
        "_progress",
        "_rings_at",
        "_timer",
        "_until",
        "_waiter",
        "job_id",
        "wants_previews",
    )

    def __init__(self, bus: LocalBus, job_id: str, channel: _Channel, *, wants_previews: bool) -> None:
        self.job_id = job_id
        self.wants_previews = wants_previews
        self._bus = bus
        self._channel = channel
        self._is_woken = channel.progress is not None or (wants_previews and channel.preview is not None)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._until = 0.0
        self._progress: Progress | None = None
        self._preview: PreviewImage | None = None

    def wake(self) -> None:
        """Make ``wait`` come back."""
        self._is_woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout_seconds: float) -> bool:
        """True when something is new since the last call; False after the time-out."""
        if not self._is_woken:
            loop = asyncio.get_running_loop()
            self._until = loop.time() + timeout_seconds
            self._waiter = loop.create_future()
            if self._timer is None or self._rings_at > self._until:
                self._set_timer(loop)
            try:
                await self._waiter
            finally:
                self._waiter = None
        was_woken, self._is_woken = self._is_woken, False
        return was_woken

    def _come_back(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Kept here: for a moment that has come, uvloop gives a handle that does not know when it is.
        self._rings_at = self._until
        self._timer = loop.call_at(self._until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if loop.time() >= self._until:
            self._come_back()
        else:  # it was woken since, and waits anew
            self._set_timer(loop)

    @property
    def last_number(self) -> int:
        """Highest durable number announced since the channel exists."""
        return self._channel.last_number

    def take_progress(self) -> Progress | None:
        """The newest snapshot, once."""
        newest = self._channel.progress
        if newest is None or newest is self._progress:
            return None
        self._progress = newest
        return newest

    def take_preview(self) -> PreviewImage | None:
        """The newest preview, once."""
        newest = self._channel.preview
        if newest is None or newest is self._preview:
            return None
        self._preview = newest
        return newest

    def close(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
        self._bus._leave(self)  # noqa: SLF001 - the two are one thing in two parts

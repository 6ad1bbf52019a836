"""What everything that is sent to others' machines shares: rounds that are woken, and hosts that are let be.

``gateway/engine/courier.py`` (webhooks) and ``gateway/engine/carrier.py`` (finished files) are built on it; when something
is tried again, each asks its own rules.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import structlog

from gateway.errors import ShuttingDownError
from gateway.interfaces import Clock
from gateway.outbox import HostBreaker

log = structlog.get_logger(__name__)

#: Nothing is known to need this tick; it bounds how long an event that we failed to foresee can hold something up.
TICK_SECONDS: Final = 60.0
#: After a fault of our own, a full disk for example.
AGAIN_SECONDS: Final = 5.0
#: Hosts that are remembered; those that answer are not.
MAX_HOSTS: Final = 4096


class Rounds:
    """One loop: a round, then a pause until something is due or somebody has news.

    Args:
        clock: time.
        name: of the loop, for the log.
        round_: starts what is due; seconds until there is something to look for. ShuttingDownError ends the loop.
    """

    def __init__(self, clock: Clock, name: str, round_: Callable[[], Awaitable[float]]) -> None:
        self._clock = clock
        self._name = name
        self._round = round_
        self._wake = asyncio.Event()
        self.is_stopping = False

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    async def run(self) -> None:
        """Go round until stopped."""
        while not self.is_stopping:
            self._wake.clear()
            try:
                seconds = await self._round()
            except ShuttingDownError:
                return  # nothing can be stored any more
            except Exception as error:  # the store is in trouble: these errands wait, everything else goes on
                log.error("round_failed", loop=self._name, exc_info=error)
                seconds = AGAIN_SECONDS
            await self._pause(seconds)

    def stop(self) -> None:
        """Go round no more."""
        self.is_stopping = True
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        if self._wake.is_set():
            return
        woken = asyncio.create_task(self._wake.wait(), name=f"{self._name}: woken")
        over = asyncio.create_task(self._sleep(seconds), name=f"{self._name}: over")
        try:
            await asyncio.wait((woken, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            over.cancel()
            await asyncio.gather(woken, over, return_exceptions=True)

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class Hosts:
    """Those that did not answer of late; bounded.

    Args:
        clock: time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hosts: OrderedDict[str, HostBreaker] = OrderedDict()

    def __contains__(self, host: object) -> bool:
        """Whether its last attempt failed."""
        return host in self._hosts

    def resting_until(self, host: str, asked: Collection[str]) -> float | None:
        """Seconds for which a host gets nothing; None when it may be asked now. Args: asked: who is being asked now."""
        breaker = self._hosts.get(host)
        if breaker is None or not breaker.is_doubted:
            return None
        now = self._clock.monotonic()
        if (until := breaker.resting_until(now)) is not None:
            return until - now
        return AGAIN_SECONDS if breaker.is_on_trial and host in asked else None

    def fault(self, host: str) -> None:
        """It did not answer."""
        self._hosts.setdefault(host, HostBreaker()).fault(self._clock.monotonic())
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)

    def answered(self, host: str) -> None:
        """It answered, whatever it said."""
        self._hosts.pop(host, None)

    def resting(self, asked: Collection[str]) -> dict[str, float]:
        """All that get nothing now, each with the seconds for which."""
        found = {host: self.resting_until(host, asked) for host in self._hosts}
        return {host: seconds for host, seconds in found.items() if seconds is not None}

"""Time that stands still until a test moves it.

Unrealistic: wall time and monotonic time move together, a sleep ends exactly when it is due, and what the event loop
itself times (``asyncio.timeout``) runs on real time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

NOON = 1_750_248_000.0


class FrozenClock:
    """``interfaces.Clock`` by hand."""

    def __init__(self, now: float = NOON) -> None:
        self._begun = now
        self._now = now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now - self._begun

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Let time pass; who sleeps until then wakes in the order of their times."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now + 1e-9:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)

    @property
    def sleepers(self) -> int:
        """How many sleep, the canceled ones left out."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

"""Waiting for an event or for some time, whichever comes first, by the clock that was handed in."""

from __future__ import annotations

import asyncio
from typing import Literal

from gateway.interfaces import Clock


async def nap(clock: Clock, event: asyncio.Event, seconds: float | None) -> None:
    """Come back when the event is set or the time (None: forever) is over."""
    waits = [asyncio.create_task(event.wait(), name="nap: woken")]
    if seconds is not None:
        waits.append(asyncio.create_task(_sleep(clock, max(0.0, seconds)), name="nap: over"))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _sleep(clock: Clock, seconds: float) -> Literal[True]:
    await clock.sleep(seconds)
    return True

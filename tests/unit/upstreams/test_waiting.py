from __future__ import annotations

import asyncio

from gateway.upstreams.waiting import nap


class HeldClock:
    """Time that passes when told to."""

    def __init__(self):
        self.over = asyncio.Event()
        self.asked = []

    async def sleep(self, seconds):
        self.asked.append(seconds)
        await self.over.wait()


async def test_nap_ends_with_the_time():
    clock = HeldClock()
    napping = asyncio.create_task(nap(clock, asyncio.Event(), 5))
    for _ in range(3):
        await asyncio.sleep(0)
    assert clock.asked == [5]
    assert not napping.done()
    clock.over.set()
    await napping


async def test_nap_ends_with_the_event():
    event = asyncio.Event()
    napping = asyncio.create_task(nap(HeldClock(), event, None))
    await asyncio.sleep(0)
    event.set()
    await napping


async def test_nap_leaves_no_task_behind_when_canceled():
    napping = asyncio.create_task(nap(HeldClock(), asyncio.Event(), 5))
    for _ in range(3):
        await asyncio.sleep(0)
    napping.cancel()
    await asyncio.wait({napping})
    assert {task.get_name() for task in asyncio.all_tasks()} & {"nap: woken", "nap: over"} == set()


async def test_moments_in_the_past_are_over_at_once():
    clock = HeldClock()
    clock.over.set()
    await nap(clock, asyncio.Event(), -3)
    assert clock.asked == [0.0]

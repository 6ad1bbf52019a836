"""The ceilings of bars: never passed by what is shown, stored beside what goes on, few."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway.engine.bars import HIGHEST, NEAR, STEP, STEP_SECONDS, Bars
from gateway.engine.bus import LocalBus
from gateway.errors import StorageFullError
from tests.fakes.clock import FrozenClock

JOB = SimpleNamespace(id="j", fraction=0.0)
TASK = SimpleNamespace(losses=0, interruptions=0)


class Store:
    """Keeps ceilings; each write lasts until it is let through."""

    def __init__(self):
        self.writes = []
        self.stored = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None

    async def save_progress(self, rows, *, now):
        ((_, fraction, _),) = rows
        self.writes.append(fraction)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.stored = max(self.stored, fraction)


class World:
    def __init__(self):
        self.store, self.bus = Store(), LocalBus()
        self.bars = Bars(self.store, self.bus, FrozenClock())

    async def show(self, fraction, left=None):
        await self.bars.show(JOB, TASK, fraction, "Working", left=left)
        assert self.shown <= self.store.stored
        await asyncio.sleep(0)

    @property
    def shown(self):
        return self.bus.latest("j").fraction


@pytest.fixture
def world():
    return World()


async def test_a_bar_that_rises_evenly_waits_for_its_first_ceiling_alone(world):
    await world.show(0.02)
    world.store.gate.clear()
    fraction = 0.02
    for _ in range(500):
        fraction += 0.001
        showing = asyncio.create_task(world.show(min(fraction, 1.0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert showing.done(), "a tick waited for a write"
        await showing
        world.store.gate.set()  # the disk is done before the next quarter of a step is
        await asyncio.sleep(0)
        world.store.gate.clear()
    assert len(world.store.writes) <= 0.5 / STEP + 2
    await world.bars.rest("j")


async def test_a_ceiling_is_no_more_than_a_step_and_a_quarter_ahead(world):
    for tick in range(1, 950):
        await world.show(tick / 1000)
        assert world.store.stored <= world.shown + (1 + NEAR) * STEP + 1e-9
    await world.bars.rest("j")


async def test_a_tick_that_would_pass_the_ceiling_waits_for_the_one_that_is_being_stored(world):
    await world.show(0.02)
    near = world.store.stored - NEAR * STEP / 2
    world.store.gate.clear()
    await world.show(near)
    assert len(world.store.writes) == 2
    leap = asyncio.create_task(world.show(world.store.stored + STEP / 2))
    await asyncio.sleep(0)
    assert not leap.done()
    assert world.shown == near
    world.store.gate.set()
    await leap
    assert len(world.store.writes) == 2


async def test_a_leap_over_the_next_ceiling_has_one_of_its_own_stored_first(world):
    await world.show(0.02)
    world.store.gate.clear()
    await world.show(world.store.stored - NEAR * STEP / 2)
    leap = asyncio.create_task(world.show(0.7))
    await asyncio.sleep(0)
    world.store.gate.set()
    await leap
    assert world.shown == 0.7
    assert world.store.writes[-1] == pytest.approx(0.7 + STEP)


async def test_steps_are_as_long_as_what_is_done_in_two_seconds(world):
    await world.show(0.2, left=8.0)
    assert world.store.stored == pytest.approx(0.2 + 0.8 * STEP_SECONDS / 8)
    await world.show(0.6, left=STEP_SECONDS)
    assert world.store.stored == HIGHEST
    for tick in range(61, 100):
        await world.show(tick / 100, left=1.0)
    assert len(world.store.writes) == 2


async def test_what_could_not_be_stored_beside_is_raised_where_the_bar_would_pass_and_not_tried_at_each_tick(world):
    await world.show(0.02)
    ceiling = world.store.stored
    world.store.error = StorageFullError("The disk is full.")
    for step in range(1, 6):
        await world.show(ceiling - NEAR * STEP / 2 + step / 10_000)
    assert len(world.store.writes) == 2
    with pytest.raises(StorageFullError):
        await world.show(ceiling + 0.01)
    assert world.shown <= ceiling
    world.store.error = None
    await world.show(ceiling + 0.01)
    assert world.shown == pytest.approx(ceiling + 0.01)


async def test_an_attempt_that_ended_leaves_no_write_behind(world):
    await world.show(0.02)
    world.store.gate.clear()
    await world.show(world.store.stored - NEAR * STEP / 2)
    resting = asyncio.create_task(world.bars.rest("j"))
    await asyncio.sleep(0)
    assert not resting.done()
    world.store.gate.set()
    await resting
    assert not any(task.get_name().startswith("ceiling") for task in asyncio.all_tasks())


async def test_the_first_ceiling_comes_with_the_commit_that_says_the_job_has_started(world):
    await world.show(0.0)
    assert world.bars.first_ceiling("j", 1.0) == HIGHEST, "two seconds' worth is all of it"
    assert world.bars.first_ceiling("j", 20.0) == pytest.approx(0.1)
    assert world.bars.first_ceiling("j", None) == STEP
    world.store.stored = 0.1
    world.bars.note_ceiling("j", 0.1)
    await world.show(0.07, left=20.0)
    assert world.store.writes == []
    await world.show(0.08, left=20.0)
    assert len(world.store.writes) == 1, "near it the next one is stored"


async def test_an_attempt_that_only_begins_again_raises_nothing(world):
    """A job that was started twenty times has not come further by that."""
    await world.bars.show(SimpleNamespace(id="j", fraction=0.3), TASK, 0.0, "Working")
    assert world.bars.first_ceiling("j", 1.0) is None
    assert world.bars.first_ceiling("unknown", 1.0) is None

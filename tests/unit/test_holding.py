"""Two gateways' ways to one directory, in one process: what is stopped here is its clock."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from gateway import holding
from gateway.data_dir import DataDirHeldError, StartError, hold_data_dir, lock_owner
from gateway.errors import BusyError, LeaseLostError, StorageFullError
from gateway.holding import DATABASE, DatabaseBusyError, Keeper, take_directory
from gateway.interfaces import Blob
from gateway.lease import Timing
from gateway.store.queries.leases import look
from gateway.store.sql_store import SqlStore
from tests.fakes.clock import FrozenClock


class Place:
    """A data directory and the gateways that want it."""

    def __init__(self, folder, stack) -> None:
        self.folder, self._stack = folder, stack
        self.clock = FrozenClock()
        self.migrated = 0

    async def open(self, claim) -> SqlStore:
        return await SqlStore.open(
            self.folder / DATABASE, result_retention_seconds=1, asset_retention_seconds=1, claim=claim
        )

    async def take(self, **options):
        return await take_directory(self._stack, self.folder, self.open, self.clock, **options)

    def taking(self, **options) -> asyncio.Task:
        return asyncio.create_task(self.take(**options), name="taking")

    async def pass_time(self, seconds, task, *, step=0.25) -> None:
        """Let the observer look as often as it likes."""
        for _ in range(round(seconds / step)):
            await self.look(task)
            if task.done():
                return
            self.clock.advance(step)
        await self.look(task)

    async def look(self, task) -> None:
        while not (self.clock.sleepers or task.done()):  # noqa: ASYNC110 - the look is under way in a thread
            await asyncio.sleep(0.001)

    @property
    def lease(self):
        return look(self.folder / DATABASE, "data_dir")


@pytest.fixture
async def place(tmp_path):
    async with AsyncExitStack() as stack:
        yield Place(tmp_path, stack)


async def test_free_directory_is_taken_at_once_with_the_next_token(tmp_path) -> None:
    for token in (1, 2):
        async with AsyncExitStack() as stack:
            place = Place(tmp_path, stack)
            store, keeper = await place.take()
            assert place.lease == store.lease
            assert store.lease.token == token
            assert lock_owner(tmp_path).holder == store.lease.holder
            assert keeper.holds()


async def test_second_waits_says_so_once_and_takes_over_when_the_first_lets_go(place) -> None:
    async with AsyncExitStack() as first:
        await take_directory(first, place.folder, place.open, place.clock)
        with capture_logs() as lines:
            second = place.taking()
            await place.pass_time(5.0, second)
        assert not second.done()
        assert [line["event"] for line in lines] == ["waiting_for_data_dir"]
    await place.pass_time(0.5, second)
    store, _ = await second
    assert store.lease.token == 2


async def test_second_waits_for_ever_while_the_counter_moves(place) -> None:
    async with AsyncExitStack() as first:
        _, keeper = await take_directory(first, place.folder, place.open, place.clock)
        second = place.taking()
        for _ in range(8):
            await place.pass_time(3.0, second)
            assert await keeper.check()
        assert not second.done()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert keeper.holds()
        assert place.lease.token == 1


async def test_first_that_stands_still_is_taken_over_and_can_do_nothing_any_more(place) -> None:
    stack = AsyncExitStack()
    store, keeper = await take_directory(stack, place.folder, place.open, place.clock)
    second = place.taking()
    await place.pass_time(9.5, second)
    assert not second.done()
    assert not keeper.holds(), "it doubts before anybody may take over"
    await place.pass_time(1.0, second)
    new, new_keeper = await second
    assert (new.lease.token, lock_owner(place.folder).holder) == (2, new.lease.holder)
    # It wakes.
    with pytest.raises(LeaseLostError):
        await store.touch_blob(Blob("b", 1), now=1.0)
    running = asyncio.create_task(keeper.run(), name="keeper")
    with pytest.raises(LeaseLostError):
        await keeper.verified()
    await running
    assert keeper.lost.is_set()
    assert not keeper.holds()
    # It goes, and a third one must not take its lock for the second's.
    await stack.aclose()
    third = place.taking(waits=False)
    await place.pass_time(1.0, third)
    assert await new_keeper.check()
    await place.pass_time(0.5, third)
    with pytest.raises(DataDirHeldError):
        await third
    assert new_keeper.holds()


async def test_start_that_does_not_wait_is_refused_once_the_other_shows_that_it_lives(place) -> None:
    _, keeper = await place.take()
    turns = []
    second = place.taking(waits=False, on_turn=lambda: turns.append(1))
    await place.pass_time(1.0, second)
    assert await keeper.check()
    await place.pass_time(0.5, second)
    with pytest.raises(DataDirHeldError, match="Another gateway uses the data directory"):
        await second
    assert turns == []


async def test_command_is_waited_for_and_not_taken_over(place) -> None:
    async with AsyncExitStack() as first:
        await take_directory(first, place.folder, place.open, place.clock)
    with hold_data_dir(place.folder):
        second = place.taking()
        await place.pass_time(20.0, second)
        assert not second.done()
    await place.pass_time(0.5, second)
    assert (await second)[0].lease.token == 2


async def test_turn_that_cannot_be_used_takes_nothing(place) -> None:
    """A port that is taken must not cost the other its directory."""
    await (await take_and_leave(place)).aclose()
    before = place.lease

    def no_port() -> None:
        raise StartError("Port 1 is taken")

    with pytest.raises(StartError, match="Port 1"):
        await place.take(on_turn=no_port)
    assert place.lease == before
    await place.take()


async def take_and_leave(place) -> AsyncExitStack:
    stack = AsyncExitStack()
    await take_directory(stack, place.folder, place.open, place.clock)
    return stack


async def test_holder_stopped_in_a_write_is_ended_where_that_can_be_told_and_named_otherwise(
    place, monkeypatch
) -> None:
    stack = await take_and_leave(place)
    tried = []

    async def busy(_claim):
        raise DatabaseBusyError

    monkeypatch.setattr(holding, "kill_stopped_holder", lambda folder, pid: tried.append((folder, pid)) or False)
    monkeypatch.setattr(place, "open", busy)
    with capture_logs() as lines:
        second = place.taking()
        await place.pass_time(11.0, second)
    assert len(tried) > 1
    assert [line["event"] for line in lines].count("holder_hangs_in_a_write") == 1
    assert not second.done()
    monkeypatch.undo()
    await stack.aclose()
    await place.pass_time(0.5, second)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert sorted(path.name for path in place.folder.iterdir() if "lock" in path.name) == ["lock"]


async def test_free_directory_whose_database_another_program_locked_is_told_with_the_remedy(place) -> None:
    async def busy(_claim):
        raise DatabaseBusyError

    place.open = busy
    with pytest.raises(StartError, match="Another program has locked the database"):
        await place.take()


# ----------------------------------------------------------------------------------------------------------- the keeper


class Counting:
    """A store of which only the counter is wanted."""

    def __init__(self) -> None:
        self.raised = 0
        self.error: Exception | None = None

    async def raise_counter(self) -> None:
        if self.error is not None:
            raise self.error
        self.raised += 1


@pytest.fixture
def clock():
    return FrozenClock()


def keeper_of(store, clock) -> Keeper:
    return Keeper(store, clock, Timing(), taken_at=clock.monotonic())


async def spin() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_counter_is_raised_every_three_seconds(clock) -> None:
    store = Counting()
    running = asyncio.create_task(keeper_of(store, clock).run(), name="keeper")
    for expected in range(4):
        await spin()
        assert store.raised == expected
        clock.advance(3.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_after_a_stop_nothing_is_done_before_the_store_has_confirmed(clock) -> None:
    store = Counting()
    keeper = keeper_of(store, clock)
    await keeper.verified()
    assert store.raised == 0, "costs nothing while it is known"
    clock.advance(60.0)
    assert not keeper.holds()
    acting = asyncio.create_task(keeper.verified(), name="acting")
    await spin()
    assert not acting.done()
    running = asyncio.create_task(keeper.run(), name="keeper")
    await acting
    assert store.raised == 1
    assert keeper.holds()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_raise_that_fails_is_tried_again_and_acts_wait_for_it(clock, monkeypatch) -> None:
    store = Counting()
    store.error = StorageFullError("full")
    keeper = keeper_of(store, clock)
    running = asyncio.create_task(keeper.run(), name="keeper")
    clock.advance(8.0)
    with capture_logs() as lines:
        acting = asyncio.create_task(keeper.verified(), name="acting")
        await spin()
    assert [line["event"] for line in lines] == ["lease_not_raised"]
    assert not acting.done()
    assert not keeper.lost.is_set()
    store.error = None
    clock.advance(1.0)
    await acting
    store.error = StorageFullError("full")
    clock.advance(8.0)
    monkeypatch.setattr(holding, "VERIFY_SECONDS", 0.01)
    with pytest.raises(BusyError):
        await keeper.verified()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

"""What every store promises about its lease, over each executor there is: who has an older token writes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from gateway.errors import LeaseLostError
from gateway.interfaces import Blob
from gateway.lease import Lease
from gateway.store.executors import SqliteExecutor
from gateway.store.queries.leases import Claim, LeaseMovedError, lease, look
from gateway.store.sql_store import SqlStore

NAME = "data_dir"


class Stage:
    """One database, and stores that are opened on it one after the other, as gateways are."""

    def __init__(self, path) -> None:
        self.path = path
        self.opened: list[SqlStore] = []

    async def open(self, holder, **claim) -> SqlStore:
        claim = Claim(NAME, holder, **({"seal": lambda: None} | claim))
        if self.path is None:
            beside = self.opened[0] if self.opened else None
            store = SqlStore.in_memory(claim=claim, beside=beside)
        else:
            store = await SqlStore.open(self.path, result_retention_seconds=1, asset_retention_seconds=1, claim=claim)
        self.opened.append(store)
        return store

    async def record(self) -> Lease | None:
        return await self.opened[0]._executor.read(lease, NAME)


@pytest.fixture(params=["file", "memory"])
async def stage(request, tmp_path):
    made = Stage(tmp_path / "gateway.db" if request.param == "file" else None)
    yield made
    for store in reversed(made.opened):
        await store.close()


async def test_each_holder_gets_a_higher_token_and_a_counter_of_its_own(stage) -> None:
    first = await stage.open("a")
    assert first.lease == await stage.record() == Lease(NAME, "a", 1, 0)
    await first.raise_counter()
    await first.raise_counter()
    assert await stage.record() == Lease(NAME, "a", 1, 2)
    second = await stage.open("b")
    assert second.lease == await stage.record() == Lease(NAME, "b", 2, 0)


async def test_holder_that_was_taken_over_writes_nothing_any_more_and_reads_on(stage) -> None:
    first = await stage.open("a")
    await first.touch_blob(Blob("mine", 1), now=1.0)
    second = await stage.open("b")
    for _ in range(2):
        with pytest.raises(LeaseLostError):
            await first.touch_blob(Blob("late", 1), now=2.0)
    with pytest.raises(LeaseLostError):
        await first.raise_counter()
    assert (await stage.record()).counter == 0
    swept = await second.sweep(job_retention_seconds=0, blob_grace_seconds=0, now=1e9)
    assert swept.blobs == ("mine",)
    assert set((await first.counts()).values()) == {0}


async def test_takeover_wants_the_lease_as_it_was_seen(stage) -> None:
    first = await stage.open("a")
    seen = await stage.record()
    await first.raise_counter()
    sealed = []
    with pytest.raises(LeaseMovedError):
        await stage.open("b", is_takeover=True, seen=seen, seal=lambda: sealed.append(1))
    with pytest.raises(LeaseMovedError):
        await stage.open("b", is_takeover=True, seen=None)
    assert sealed == []
    await first.raise_counter()
    second = await stage.open("b", is_takeover=True, seen=await stage.record(), seal=lambda: sealed.append(2))
    assert (second.lease.token, sealed) == (2, [2])
    with pytest.raises(LeaseLostError):
        await first.raise_counter()


async def test_of_two_that_take_over_at_once_one_gets_it(stage) -> None:
    await stage.open("a")
    seen = await stage.record()
    await stage.open("b", is_takeover=True, seen=seen)
    with pytest.raises(LeaseMovedError):
        await stage.open("c", is_takeover=True, seen=seen)
    assert (await stage.record()).holder == "b"


async def test_seal_that_fails_undoes_the_taking(stage) -> None:
    first = await stage.open("a")

    def broken() -> None:
        raise OSError("the lock is another's")

    with pytest.raises(OSError, match="another's"):
        await stage.open("b", seal=broken)
    await first.raise_counter()
    assert await stage.record() == Lease(NAME, "a", 1, 1)


async def test_store_without_a_lease_is_asked_for_none(stage) -> None:
    await stage.open("a")
    if stage.path is None:
        free = SqlStore.in_memory(beside=stage.opened[0])
    else:
        free = await SqlStore.open(stage.path, result_retention_seconds=1, asset_retention_seconds=1)
    assert free.lease is None
    await free.touch_blob(Blob("b", 1), now=1.0)
    await free.raise_counter()
    assert (await stage.record()).counter == 0
    await free.close()


# ------------------------------------------------------------------------------------------------------- a file's writer


async def test_whole_group_of_a_former_holder_is_refused_and_leaves_no_row(tmp_path) -> None:
    """Writes that had queued up before the takeover are in one transaction after it: none of them gets through."""
    path = tmp_path / "x.db"
    first = SqliteExecutor(path, claim=Claim(NAME, "a", seal=lambda: None))
    await first.start()
    await first.write(lambda connection: connection.exec_driver_sql("CREATE TABLE kept (n INTEGER)") and None)
    held, opened = threading.Event(), threading.Event()

    def hold(_connection):
        held.set()
        assert opened.wait(10)

    holding = asyncio.create_task(first.write(hold))
    await asyncio.to_thread(held.wait, 10)
    writes = [
        asyncio.create_task(
            first.write(
                lambda connection, n: connection.exec_driver_sql("INSERT INTO kept VALUES (?)", (n,)) and None, n
            )
        )
        for n in range(20)
    ]
    await asyncio.sleep(0)
    # The other one gets the write lock between the transaction that is held open and the one of those that wait.
    second = SqliteExecutor(path, claim=Claim(NAME, "b", seal=lambda: None))
    begun = first._queue.qsize()
    first_take = first._take
    taken = threading.Event()

    def take_after_the_takeover():
        group = first_take()
        assert taken.wait(10)
        return group

    first._take = take_after_the_takeover
    starting = asyncio.create_task(second.start())
    opened.set()
    await holding
    await starting
    taken.set()
    assert begun == 20
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LeaseLostError] * 20
    assert await second.read(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM kept").scalar()) == 0
    await second.close()
    await first.close()


async def test_takeover_that_fails_migrates_nothing(tmp_path) -> None:
    """A newer version must not change the tables under an older one that lives."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE mine (n INTEGER)")
    executor = SqliteExecutor(path, claim=Claim(NAME, "b", lambda: None, is_takeover=True, seen=Lease(NAME, "a", 1, 0)))
    with pytest.raises(LeaseMovedError):
        await executor.start()
    await executor.close()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


async def test_look_sees_what_is_committed_and_needs_no_table(tmp_path) -> None:
    path = tmp_path / "some where" / "x.db"
    assert look(path, NAME) is None
    path.parent.mkdir()
    path.touch()
    assert look(path, NAME) is None
    executor = SqliteExecutor(path, claim=Claim(NAME, "a", seal=lambda: None))
    await executor.start()
    assert look(path, NAME) == executor.lease
    assert look(path, "another") is None
    await executor.close()
    path.write_bytes(b"no database" * 100)
    assert look(path, NAME) is None


def test_look_at_a_database_that_is_locked_is_told_apart_from_one_without_a_lease(tmp_path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as raw:
        raw.execute("CREATE TABLE leases (name, holder, token, counter)")
        raw.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BlockingIOError):
            look(tmp_path / "x.db", NAME)

"""Transactions and threads, below any query of ours."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest
from sqlalchemy.exc import OperationalError

from gateway.errors import StorageFullError
from gateway.holding import is_busy
from gateway.store import executors
from gateway.store.executors import MAX_GROUP, InlineExecutor, SqliteExecutor
from gateway.store.migrations import SchemaTooNewError


@pytest.fixture
async def executor(tmp_path):
    made = SqliteExecutor(tmp_path / "x.db")
    await made.start()
    await made.write(run, "CREATE TABLE kept (n INTEGER)")
    yield made
    await made.close()


def run(connection, sql):
    connection.exec_driver_sql(sql)


def numbers(connection):
    return [row[0] for row in connection.exec_driver_sql("SELECT n FROM kept ORDER BY n")]


def add(connection, number):
    connection.exec_driver_sql("INSERT INTO kept VALUES (?)", (number,))
    return number


class Gate:
    """A write that holds the writer until it is opened, so that others queue up behind it."""

    def __init__(self):
        self.held, self._open = threading.Event(), threading.Event()

    def __call__(self, _connection):
        self.held.set()
        assert self._open.wait(10)

    async def close(self, executor):
        task = asyncio.create_task(executor.write(self))
        await asyncio.to_thread(self.held.wait, 10)
        return task

    def open(self):
        self._open.set()


async def gathered(executor, *queries):
    """Hand writes in while the writer is held; what came of each, and how many commits they took."""
    gate = Gate()
    held = await gate.close(executor)
    writes = [asyncio.create_task(executor.write(*query)) for query in queries]
    await asyncio.sleep(0)
    before = executor.commits
    gate.open()
    await held
    results = await asyncio.gather(*writes, return_exceptions=True)
    return results, executor.commits - before - 1


async def test_writes_that_wait_share_one_commit(executor):
    results, commits = await gathered(executor, *((add, number) for number in range(50)))
    assert (results, commits) == (list(range(50)), 1)
    assert await executor.read(numbers) == list(range(50))


async def test_group_has_a_limit(executor):
    _, commits = await gathered(executor, *((add, number) for number in range(MAX_GROUP + 1)))
    assert commits == 2


async def test_failing_write_undoes_itself_alone(executor):
    def broken(connection):
        add(connection, 99)
        raise KeyError("mine")

    results, commits = await gathered(executor, (add, 1), (broken,), (add, 2))
    assert (results[0], repr(results[1]), results[2], commits) == (1, "KeyError('mine')", 2, 1)
    assert await executor.read(numbers) == [1, 2]


async def test_lost_transaction_fails_the_whole_group(executor):
    """A full disk makes SQLite undo everything, also what ran well before it in the same group."""

    def lost(connection):
        connection.connection.driver_connection.rollback()
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    results, _ = await gathered(executor, (add, 1), (lost,), (add, 2))
    assert [type(result) for result in results] == [StorageFullError] * 3
    assert await executor.read(numbers) == []
    assert await executor.write(add, 3) == 3


async def test_full_database_is_told_as_such_and_writing_goes_on_afterwards(executor):
    pages = await executor.write(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    await executor.write(run, f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFullError):
        await executor.write(run, "CREATE TABLE big AS SELECT zeroblob(1000000)")
    await executor.write(run, "PRAGMA max_page_count = 1000000")
    assert await executor.write(add, 1) == 1


async def test_failed_commit_fails_all_of_its_writes(executor):
    """A deferred foreign key is looked at by the commit."""
    await executor.write(run, "CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    await executor.write(run, "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    results, _ = await gathered(executor, (add, 1), (run, "INSERT INTO child VALUES (7)"))
    assert [type(result).__name__ for result in results] == ["IntegrityError"] * 2
    assert await executor.read(numbers) == []


async def test_reader_refuses_to_write(executor):
    with pytest.raises(OperationalError, match="readonly"):
        await executor.read(add, 1)
    assert await executor.read(numbers) == []


async def test_reader_sees_the_last_commit_while_a_write_is_under_way(executor):
    gate = Gate()

    def slow(connection):
        add(connection, 1)
        gate(connection)

    task = asyncio.create_task(executor.write(slow))
    await asyncio.to_thread(gate.held.wait, 10)
    assert await executor.read(numbers) == []
    gate.open()
    await task
    assert await executor.read(numbers) == [1]


async def test_writer_syncs_each_commit_to_a_log(executor):
    def pragmas(connection):
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert await executor.write(pragmas) == ["wal", 2, 1]


async def test_close_commits_what_was_handed_in_before(tmp_path):
    made = SqliteExecutor(tmp_path / "y.db")
    await made.start()
    await made.write(run, "CREATE TABLE kept (n INTEGER)")
    gate = Gate()
    held = await gate.close(made)
    write = asyncio.create_task(made.write(add, 1))
    await asyncio.sleep(0)
    closing = asyncio.create_task(made.close())
    gate.open()
    await asyncio.gather(held, closing)
    assert await write == 1
    with sqlite3.connect(tmp_path / "y.db") as raw:
        assert raw.execute("SELECT n FROM kept").fetchall() == [(1,)]
    raw.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store-writer")]


async def test_caller_that_left_does_not_hold_up_the_others(executor):
    gate = Gate()
    held = await gate.close(executor)
    left = asyncio.create_task(executor.write(add, 1))
    stays = asyncio.create_task(executor.write(add, 2))
    await asyncio.sleep(0)
    left.cancel()
    gate.open()
    await held
    assert await stays == 2
    assert left.cancelled()


async def test_newer_file_is_refused_at_start(tmp_path):
    made = SqliteExecutor(tmp_path / "z.db")
    await made.start()
    await made.write(run, "UPDATE alembic_version SET version_num = '9999'")
    await made.close()
    again = SqliteExecutor(tmp_path / "z.db")
    with pytest.raises(SchemaTooNewError):
        await again.start()
    await again.close()


async def test_folder_that_is_not_there_is_told_at_start(tmp_path):
    made = SqliteExecutor(tmp_path / "none" / "x.db")
    with pytest.raises(FileNotFoundError):
        await made.start()
    await made.close()


async def test_a_database_that_somebody_else_writes_to_is_told_as_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "BUSY_TIMEOUT_MS", 1)
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL").close()
        other.execute("BEGIN IMMEDIATE").close()
        with pytest.raises(OperationalError) as caught:
            await SqliteExecutor(path).start()
    assert is_busy(caught.value)


async def test_inline_read_leaves_nothing_and_failed_write_undoes_itself():
    executor = InlineExecutor()
    await executor.write(run, "CREATE TABLE kept (n INTEGER)")
    await executor.read(add, 1)
    with pytest.raises(OperationalError):
        await executor.write(lambda connection: (add(connection, 2), run(connection, "nonsense")))
    assert await executor.read(numbers) == []
    await executor.close()

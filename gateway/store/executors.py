"""On which thread and in which transaction a query runs. What it says is none of this module's business.

``SqliteExecutor`` is production on one machine: **one writer thread that groups commits**. It takes what has queued up
since the last commit, runs each query in a savepoint of one transaction, commits once (``synchronous=FULL``: one sync
for all of them) and only then tells the callers. A query that fails undoes its own savepoint; a commit that fails fails
them all. Readers have connections of their own, which refuse to write, and see the last commit.

``InlineExecutor`` runs the same queries on SQLite in memory, in the caller's thread, one transaction each, so that a
simulation replays exactly. Unlike production it never reads an older state while a write is under way.

Both can hold a **lease** (``gateway/lease.py``): then each transaction that writes asks first whether it still is ours,
and writes nothing when somebody else has taken over, now or ever again.

Source: SQLite 3.40, "Write-Ahead Logging" and "PRAGMA synchronous"; -wal and -shm files get the mode of the database
file, which is therefore made here before SQLite opens it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from gateway.errors import ShuttingDownError, StorageFullError
from gateway.lease import Lease
from gateway.store import migrations
from gateway.store.copying import copy_database
from gateway.store.queries import leases
from gateway.store.schema import TABLES

_P = ParamSpec("_P")
_T = TypeVar("_T")
Query = Callable[Concatenate[Connection, _P], _T]

#: Writes that may wait before callers do. One is a few kB, so this is a few MB.
MAX_PENDING_WRITES = 1024
#: Writes in one commit: about 50 ms of work, the longest that a newcomer waits for its turn.
MAX_GROUP = 128
READERS = 4
#: Another process that looks at the file (a backup) may hold it for a moment.
BUSY_TIMEOUT_MS = 5000


class Executor(Protocol):
    """Runs queries, each in one transaction."""

    @property
    def lease(self) -> Lease | None:
        """The lease it writes under, as it was taken; None for one that needs none."""
        ...

    async def read(self, query: Query[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What a query that changes nothing says of the last committed state."""
        ...

    async def write(self, query: Query[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What a query says once its changes are durable; when it raises, nothing changed.

        A caller that is cancelled meanwhile does not learn which of the two it was.

        Raises:
            LeaseLostError: somebody else has taken over.
        """
        ...

    async def copy_to(self, path: Path) -> None:
        """Write a copy of the last committed state to the new file ``path``."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of the database."""
        ...


# -------------------------------------------------------------------------------------------------------------- inline


class MemoryDatabase:
    """A database in memory, on one connection."""

    def __init__(self) -> None:
        self.connection = _memory_engine().connect()
        _raw(self.connection).deserialize(_empty_database())

    def close(self) -> None:
        """Forget everything."""
        self.connection.close()


@cache
def _memory_engine() -> Engine:
    """One for all: each of its connections is a database of its own, but the statements are compiled once."""
    engine = create_engine("sqlite://", poolclass=NullPool)
    _prepare(engine, "foreign_keys=ON")
    return engine


@cache
def _empty_database() -> bytes:
    """All tables, as a file would hold them: reading it takes a hundredth of the time of making them."""
    with _memory_engine().connect() as connection:
        with connection.begin():
            # A test holds this equal to what the migrations make, in a tenth of their time.
            TABLES.create_all(connection)
        return _raw(connection).serialize()


class InlineExecutor:
    """SQLite in memory, in the caller's thread. For tests and simulations.

    Args:
        claim: the lease to take and to write under.
        beside: the executor of another gateway on the same database, which closes it.
    """

    def __init__(self, claim: leases.Claim | None = None, *, beside: InlineExecutor | None = None) -> None:
        self.database: MemoryDatabase = MemoryDatabase() if beside is None else beside.database
        self._owns = beside is None
        self._connection = self.database.connection
        self.lease: Lease | None = None
        if claim is not None:
            with self._connection.begin():
                self.lease = leases.take(self._connection, claim)

    async def read(self, query: Query[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See ``Executor``."""
        with self._connection.begin() as transaction:
            result = query(self._connection, *args, **kwargs)
            transaction.rollback()
        return result

    async def write(self, query: Query[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See ``Executor``."""
        with self._connection.begin():
            _check(self._connection, self.lease)
            return query(self._connection, *args, **kwargs)

    async def copy_to(self, path: Path) -> None:
        """See ``Executor``."""
        copy_database(_raw(self._connection), path)

    async def close(self) -> None:
        """Forget everything."""
        if self._owns:
            self.database.close()


# ----------------------------------------------------------------------------------------------------- writer, readers


@dataclass(slots=True)
class _Write:
    """A query that waits for its commit, and who waits for it."""

    run: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """In the loop's thread: hand over the result, unless the caller has left."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class SqliteExecutor:
    """A database file, its one writer thread and its readers. Call ``start`` first, and use it from one loop.

    Args:
        path: of the file.
        readers: how many read at a time.
        claim: the lease to take at the start and to write under.
    """

    def __init__(self, path: Path, *, readers: int = READERS, claim: leases.Claim | None = None) -> None:
        self._path = path
        self._claim = claim
        self.lease: Lease | None = None
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(MAX_PENDING_WRITES)
        self._closed = False
        self._writer: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="store-reader")
        self._reading = threading.local()
        self._reader_engine = create_engine(_url(path), poolclass=NullPool)
        _prepare(self._reader_engine, "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}", "query_only=ON")
        self._reader_connections: list[Connection] = []
        #: Commits so far; with the number of writes it tells how well they group.
        self.commits = 0
        self.writes = 0

    async def start(self) -> None:
        """Open the file, make or migrate its tables, take the lease, start the writer.

        One transaction: who does not get the lease has migrated nothing.

        Raises:
            LeaseMovedError: the lease was to be taken over, and its holder lives.
            SchemaTooNewError: a newer version of the gateway wrote the file.
            OSError: the file cannot be made or opened.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Any] = loop.create_future()
        # A daemon, so that a gateway that dies of something else does not hang here: what is not committed was promised
        # to nobody.
        self._writer = threading.Thread(
            target=self._write_forever, args=(_Write(lambda _: None, ready, loop),), name="store-writer", daemon=True
        )
        self._writer.start()
        await ready

    async def read(self, query: Query[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See ``Executor``."""
        if self._closed:
            raise ShuttingDownError("The gateway is stopping.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._readers, self._read, lambda connection: query(connection, *args, **kwargs)
        )

    async def write(self, query: Query[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See ``Executor``. Waits where ``MAX_PENDING_WRITES`` wait already."""
        async with self._room:
            if self._closed:
                raise ShuttingDownError("The gateway is stopping.")
            loop = asyncio.get_running_loop()
            future: asyncio.Future[_T] = loop.create_future()
            self._queue.put(_Write(lambda connection: query(connection, *args, **kwargs), future, loop))
            return await future

    async def copy_to(self, path: Path) -> None:
        """See ``Executor``. On a connection of its own: the readers' refuse to write, also to other files."""
        if self._closed:
            raise ShuttingDownError("The gateway is stopping.")
        await asyncio.to_thread(self._copy, path)

    async def close(self) -> None:
        """Commit what was handed in before, then stop; what comes later gets ShuttingDownError."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._readers.shutdown()
        for connection in self._reader_connections:
            connection.close()
        # Last, because the last connection to close folds the -wal file into the database.
        if self._writer is not None:
            self._writer.join()

    # In a reader's thread.

    def _read(self, run: Callable[[Connection], _T]) -> _T:
        connection: Connection | None = getattr(self._reading, "connection", None)
        if connection is None:
            connection = self._reading.connection = self._reader_engine.connect()
            self._reader_connections.append(connection)
        # One transaction, so that several statements of one query see one state.
        with connection.begin() as transaction:
            result = run(connection)
            transaction.rollback()
        return result

    def _copy(self, into: Path) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            try:
                copy_database(connection, into)
            except sqlite3.Error as error:
                raise _as_ours(error) from error

    # In the writer's thread.

    def _write_forever(self, ready: _Write) -> None:
        engine = create_engine(_url(self._path), poolclass=NullPool)
        _prepare(
            engine,
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            # A group's pages and what its savepoints may have to undo stay in memory until the commit.
            "cache_size=-16384",
            "temp_store=MEMORY",
            begin="BEGIN IMMEDIATE",
        )
        try:
            _make_private(self._path)
            connection = engine.connect()
            with connection.begin():
                migrations.upgrade(connection)
                taken = None if self._claim is None else leases.take(connection, self._claim)
            self.lease = taken
        except Exception as error:  # noqa: BLE001 - this is the edge of the thread: whoever waits for start() gets it
            ready.error = error
            _tell([ready])
            return
        _tell([ready])
        with connection:
            while group := self._take():
                self._commit(connection, group)
                _tell(group)

    def _take(self) -> list[_Write]:
        """What has queued up, at least one; empty at the end."""
        first = self._queue.get()
        if first is None:
            return []
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                # Seen by the next call, after this group's commit.
                self._queue.put(None)
                break
            group.append(following)
        return group

    def _commit(self, connection: Connection, group: list[_Write]) -> None:
        """One transaction for the group. Every write has its result or its error afterwards."""
        try:
            with connection.begin():
                _check(connection, self.lease)
                for write in group:
                    _run_in_savepoint(connection, write)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: every caller of the group gets it
            failure = _as_ours(error)
            for write in group:
                write.error = write.error or failure
        self.commits += 1
        self.writes += len(group)


def _check(connection: Connection, lease: Lease | None) -> None:
    """Once a transaction, in it: nobody takes over while it is open, for SQLite has one writer at a time."""
    if lease is not None:
        leases.check(_raw(connection), lease)


def _raw(connection: Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - tells mypy what _url made sure of
    return raw


def _run_in_savepoint(connection: Connection, write: _Write) -> None:
    """Keep result or error; raises only when the whole transaction is gone."""
    raw = _raw(connection)
    # Not Connection.begin_nested: the same two statements at a fifth of the price.
    raw.execute("SAVEPOINT write")
    try:
        write.result = write.run(connection)
    except Exception as error:
        if not raw.in_transaction:
            # A full disk and the like make SQLite undo everything: what ran before in this group is gone as well.
            raise
        write.error = _as_ours(error)
        raw.execute("ROLLBACK TO write")
    raw.execute("RELEASE write")


def _tell(group: list[_Write]) -> None:
    """Wake the callers, with one call per loop."""

    def tell_all() -> None:
        for write in group:
            write.tell()

    try:
        group[0].loop.call_soon_threadsafe(tell_all)
    except RuntimeError:
        # The loop is closed: nobody is left to be told.
        return


def _as_ours(error: BaseException) -> BaseException:
    """A full disk is something that a client is told; everything else stays what it is."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StorageFullError("There is no room left to store this.")
    return error


# ---------------------------------------------------------------------------------------------------------- connections


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def _make_private(path: Path) -> None:
    """Let the file be ours alone before SQLite writes to it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _prepare(engine: Engine, *pragmas: str, begin: str = "BEGIN") -> None:
    """Set pragmas on every new connection, and begin transactions ourselves.

    The driver's own way begins them late and in no mode that we could choose, so a read before a write can end as
    SQLITE_BUSY.
    """

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    def begun(connection: Connection) -> None:
        # Not exec_driver_sql: the same statement at a fifth of the price. But its errors are what callers know.
        try:
            _raw(connection).execute(begin).close()
        except sqlite3.Error as error:
            raise DBAPIError.instance(begin, None, error, sqlite3.Error) from error

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)

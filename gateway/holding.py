"""Holding the data directory: waiting for it, taking it, showing that we live, noticing that we were taken over.

``lease.py`` decides, this looks and acts. Order at the start: the lock, then the lease in the database, with the tables
brought up to date in the same transaction; nothing else in the directory is touched before. Who takes over replaces the
lock's file inside that transaction, so lock and lease change hands together.

A holder that was stopped in the middle of a write has SQLite's own write lock too, and nobody can take its lease in the
database. Such a one is killed (``stopped_holder.py``); what it had not committed was promised to nobody.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.exc import DBAPIError

from gateway.data_dir import DirectoryLock, LockReplacedError, StartError, held_by_another, lock_owner, unusable
from gateway.errors import BusyError, LeaseLostError
from gateway.interfaces import Clock
from gateway.lease import DATA_DIR, Observer, Sight, Tenure, Timing, Verdict
from gateway.stopped_holder import kill_stopped_holder
from gateway.store.queries.leases import Claim, LeaseMovedError, look
from gateway.store.sql_store import SqlStore
from gateway.upstreams.waiting import nap

log = structlog.get_logger(__name__)

DATABASE = "gateway.db"
TIMING = Timing()
#: Between two looks at a directory that somebody else holds.
LOOK_SECONDS = 0.25
#: A command that only looks is not worth a word.
SILENT_SECONDS = 1.0
#: After a raise that failed, a full disk for example.
AGAIN_SECONDS = 1.0
#: How long an act waits for the lease to be confirmed; then it is given up.
VERIFY_SECONDS = 15.0

OpenStore = Callable[[Claim], Awaitable[SqlStore]]


class DatabaseBusyError(Exception):
    """Somebody has SQLite's write lock and does not let go of it."""


class Keeper:
    """Raises the counter of a lease that was taken, and knows whether it still is ours."""

    def __init__(self, store: SqlStore, clock: Clock, timing: Timing, *, taken_at: float) -> None:
        self._store = store
        self._clock = clock
        self._timing = timing
        self._tenure = Tenure(timing, taken_at=taken_at)
        self._hurry = asyncio.Event()
        self._news = asyncio.Event()
        #: Set when somebody has taken over; it is never cleared.
        self.lost = asyncio.Event()

    def holds(self) -> bool:
        """Whether nobody can have taken over by now. From any thread."""
        return self._tenure.holds(self._clock.monotonic())

    async def verified(self) -> None:
        """Come back when nobody can have taken over: at once, but after a stop only when the store has said so.

        Raises:
            LeaseLostError: somebody has taken over.
            BusyError: it could not be found out.
        """
        if self.holds():
            return
        try:
            async with asyncio.timeout(VERIFY_SECONDS):
                while not self.holds():
                    if self._tenure.is_lost:
                        raise LeaseLostError("Another gateway has taken over; ask again.", retry_after_seconds=1)
                    self._hurry.set()
                    await self._news.wait()
        except TimeoutError as error:
            raise BusyError("The gateway cannot write just now.", retry_after_seconds=10) from error

    async def run(self) -> None:
        """Raise the counter until somebody else has taken over."""
        while not self._tenure.is_lost:
            await nap(self._clock, self._hurry, self._timing.raise_seconds)
            self._hurry.clear()
            await self.check()

    async def check(self) -> bool:
        """Raise the counter once; whether the lease still is ours, as far as one can tell."""
        if self._tenure.is_lost:
            return False
        begun_at = self._clock.monotonic()
        try:
            await self._store.raise_counter()
        except LeaseLostError:
            log.critical("lease_lost", reason="another gateway has taken over the data directory")
            self._tenure.lose()
            self.lost.set()
        except Exception as error:
            log.error("lease_not_raised", exc_info=error)
            await self._clock.sleep(min(AGAIN_SECONDS, self._timing.raise_seconds))
        else:
            self._tenure.confirm(begun_at)
        self._news.set()
        self._news = asyncio.Event()
        return not self._tenure.is_lost


async def take_directory(
    stack: AsyncExitStack,
    folder: Path,
    open_store: OpenStore,
    clock: Clock,
    *,
    waits: bool = True,
    timing: Timing | None = None,
    on_turn: Callable[[], None] = lambda: None,
) -> tuple[SqlStore, Keeper]:
    """The store of a data directory that this process holds from now on, until the stack unwinds.

    Args:
        stack: lets go of store and lock.
        folder: the data directory, prepared.
        open_store: opens the store under a claim. Raises DatabaseBusyError.
        clock: time.
        waits: for a gateway that lives to end; else it is refused.
        timing: of the lease.
        on_turn: called once, before it is taken: what must succeed for the taking to make sense.

    Raises:
        DataDirHeldError: somebody lives there, and we do not wait.
        StartError: it cannot be used.
    """
    timing = timing or TIMING
    turn = _Turn(folder, open_store, clock, Observer(timing, waits=waits), secrets.token_hex(16), on_turn)
    while (taken := await turn.look()) is None:
        pass
    stack.callback(taken.lock.close)
    stack.push_async_callback(taken.store.close)
    return taken.store, Keeper(taken.store, clock, timing, taken_at=taken.begun_at)


@dataclass(frozen=True, slots=True)
class _Taken:
    lock: DirectoryLock
    store: SqlStore
    #: Monotonic seconds.
    begun_at: float


class _Turn:
    """One start's wait for its turn, look by look."""

    def __init__(
        self,
        folder: Path,
        open_store: OpenStore,
        clock: Clock,
        observer: Observer,
        holder: str,
        on_turn: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._open_store = open_store
        self._clock = clock
        self._observer = observer
        self._holder = holder
        self._on_turn: Callable[[], None] | None = on_turn
        self._begun_at = clock.monotonic()
        self._has_told = False
        self._has_told_of_write = False

    async def look(self) -> _Taken | None:
        """What came of one look: the directory, or None and a moment has passed."""
        try:
            lock, sight = await asyncio.to_thread(self._see)
        except BlockingIOError:
            await self._clock.sleep(LOOK_SECONDS)
            return None
        except OSError as error:
            raise unusable(self._folder, error) from error
        match self._observer.judge(sight, self._clock.monotonic()):
            case Verdict.REFUSE:
                raise held_by_another(self._folder)
            case Verdict.WAIT:
                self._tell()
                await self._clock.sleep(LOOK_SECONDS)
                return None
            case Verdict.TAKE | Verdict.TAKE_OVER:
                return await self._take(lock, sight)

    def _see(self) -> tuple[DirectoryLock | None, Sight]:
        lock = DirectoryLock.lock(self._folder, self._holder)
        if lock is not None:
            return lock, Sight(lock_is_free=True)
        owner = lock_owner(self._folder)
        return None, Sight(lock_is_free=False, lock_holder=owner.holder, lease=look(self._folder / DATABASE, DATA_DIR))

    def _tell(self) -> None:
        if not self._has_told and self._clock.monotonic() - self._begun_at >= SILENT_SECONDS:
            self._has_told = True
            pid = lock_owner(self._folder).pid
            log.warning("waiting_for_data_dir", folder=str(self._folder), held_by_pid=pid, instead="--no-wait")

    async def _take(self, lock: DirectoryLock | None, sight: Sight) -> _Taken | None:
        is_takeover = lock is None
        try:
            if self._on_turn is not None:
                self._on_turn()
                self._on_turn = None
            if lock is None:
                lock = DirectoryLock.replacement(self._folder, self._holder)
            begun_at = self._clock.monotonic()
            claim = Claim(DATA_DIR, self._holder, lock.seal, is_takeover=is_takeover, seen=sight.lease)
            owner = lock_owner(self._folder)
            store = await self._open_store(claim)
        except (LeaseMovedError, LockReplacedError):
            _close(lock)
            return None
        except DatabaseBusyError as error:
            _close(lock)
            if not is_takeover:
                raise StartError(
                    f"Another program has locked the database in {self._folder}: end it, and start again."
                ) from error
            await self._end_stopped_writer()
            return None
        except BaseException:
            _close(lock)
            raise
        if is_takeover:
            log.warning("data_dir_taken_over", from_pid=owner.pid, token=store.lease.token if store.lease else None)
        return _Taken(lock, store, begun_at)

    async def _end_stopped_writer(self) -> None:
        pid = lock_owner(self._folder).pid
        if await asyncio.to_thread(kill_stopped_holder, self._folder, pid):
            log.warning("stopped_writer_killed", pid=pid)
        elif not self._has_told_of_write:
            self._has_told_of_write = True
            log.error("holder_hangs_in_a_write", pid=pid, remedy="end that process: it locks the database")
        await self._clock.sleep(LOOK_SECONDS)


def _close(lock: DirectoryLock | None) -> None:
    if lock is not None:
        lock.close()


def is_busy(error: DBAPIError) -> bool:
    """Whether SQLite waited in vain for its write lock."""
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY

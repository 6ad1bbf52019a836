"""What an operator may do with everything that is kept: forget parts of it, and take a copy of all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.engine.backup import open_backup
from gateway.engine.purging import Purge, purge_job, purge_owner
from gateway.errors import BusyError
from gateway.interfaces import Blobs, Clock, Store


class Archive:
    """A part of the engine's door.

    Args:
        scratch: folder for the copy of the database, with room for it once more.
        on_purge: called when something was forgotten.
    """

    def __init__(
        self, store: Store, blobs: Blobs, clock: Clock, scratch: Path, *, on_purge: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._scratch = scratch
        self._on_purge = on_purge
        self._is_backing_up = False

    async def purge_job(self, job_id: str, *, consents: bool = False) -> Purge:
        """Forget an ended job and its files, whoever owns it. Raises NotFoundError, ConflictError."""
        try:
            return await purge_job(self._store, self._blobs, job_id, consents=consents)
        finally:  # rows go first, so a purge that broke may have forgotten a job all the same
            self._on_purge()

    async def purge_owner(self, owner: str, *, consents: bool = False) -> Purge:
        """Forget all jobs and files of an owner. Raises ConflictError while one has not ended."""
        try:
            return await purge_owner(self._store, self._blobs, owner, consents=consents)
        finally:
            self._on_purge()

    @asynccontextmanager
    async def backup(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar of database and files, chunk by chunk; one at a time, since each needs the database's size on disk.

        Raises:
            BusyError: on entering: one is being made.
            StorageFullError: on entering: there is no room.
        """
        if self._is_backing_up:
            raise BusyError("A backup is being made already; try again when it is done.", retry_after_seconds=60)
        self._is_backing_up = True
        try:
            async with open_backup(self._store, self._blobs, self._scratch, now=self._clock.now()) as chunks:
                yield chunks
        finally:
            self._is_backing_up = False

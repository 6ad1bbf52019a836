"""A copy of the database while it is in use, and which blobs the copy speaks of.

``VACUUM INTO`` reads one committed state beside the writer and writes a compact file: what was deleted is not in it,
not even in free pages. Source: SQLite 3.40, "VACUUM".
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.interfaces import Blob

_BLOBS_AFTER = (
    "SELECT hash, size_bytes FROM blobs WHERE hash > ? AND EXISTS (SELECT 1 FROM assets WHERE blob = hash)"
    " ORDER BY hash LIMIT ?"
)


def copy_database(connection: sqlite3.Connection, into: Path) -> None:
    """Write a copy of the last committed state to the new file ``into``. The connection is in no transaction."""
    connection.execute("VACUUM INTO ?", (str(into),)).close()
    into.chmod(0o600)


def blobs_of(copy: Path, *, after: str, limit: int) -> Sequence[Blob]:
    """The next blobs that an asset in the copy refers to, by hash."""
    with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return [Blob(name, size_bytes) for name, size_bytes in connection.execute(_BLOBS_AFTER, (after, limit))]


class DatabaseFile:
    """A database that no gateway has open, to be copied as it is: no table of it is brought up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def copy_to(self, path: Path) -> None:
        """Write a copy to a new SQLite file. Raises sqlite3.Error."""
        await asyncio.to_thread(self._copy, path)

    async def blobs_of_copy(self, path: Path, *, after: str, limit: int) -> Sequence[Blob]:
        """The next blobs that assets in such a copy refer to, by hash."""
        return await asyncio.to_thread(blobs_of, path, after=after, limit=limit)

    def _copy(self, into: Path) -> None:
        # Not read-only: what a killed gateway left in the log beside the file has to be taken in.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            copy_database(connection, into)

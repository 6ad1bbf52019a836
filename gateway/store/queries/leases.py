"""Leases: taken with a higher token, raised by their holder, looked at by others.

``check`` is what fences: the executor asks it once in every write transaction, before anything is written there. SQLite
has one writer at a time, so nobody can take over between the question and the commit; another database would have to
lock the row (``FOR SHARE``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from gateway.errors import LeaseLostError
from gateway.lease import Lease
from gateway.store.schema import leases

#: A look that would have to wait longer is no look.
LOOK_SECONDS = 0.2


class LeaseMovedError(Exception):
    """The lease is not as it was when taking it over was decided: its holder lives, or somebody was faster."""


@dataclass(frozen=True, slots=True)
class Claim:
    """How a lease is to be taken."""

    name: str
    #: Id of the new holder.
    holder: str
    #: Called in the transaction, right before its commit; what it raises undoes the taking.
    seal: Callable[[], None]
    #: Taken over from a living process: only as it was seen. Else from whoever had it.
    is_takeover: bool = False
    seen: Lease | None = None


def lease(connection: Connection, name: str) -> Lease | None:
    """The record; None when nobody ever held it."""
    row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
    return None if row is None else Lease(row.name, row.holder, row.token, row.counter)


def take(connection: Connection, claim: Claim) -> Lease:
    """Take it with the next token.

    Raises:
        LeaseMovedError: it is to be taken over, and has moved since it was seen.
    """
    found = lease(connection, claim.name)
    if claim.is_takeover and found != claim.seen:
        raise LeaseMovedError(claim.name)
    taken = Lease(claim.name, claim.holder, found.token + 1 if found else 1, 0)
    values = {"holder": taken.holder, "token": taken.token, "counter": taken.counter}
    if found is None:
        connection.execute(insert(leases).values(name=claim.name, **values))
    else:
        connection.execute(update(leases).where(leases.c.name == claim.name).values(**values))
    claim.seal()
    return taken


def raise_counter(connection: Connection, held: Lease) -> None:
    """Show that the holder lives. That it still is the holder was checked at the beginning of the transaction."""
    of_ours = (leases.c.name == held.name) & (leases.c.token == held.token)
    connection.execute(update(leases).where(of_ours).values(counter=leases.c.counter + 1))


def check(connection: sqlite3.Connection, held: Lease) -> None:
    """Refuse what an earlier holder wants to write; some microseconds, in the transaction that shall write.

    Raises:
        LeaseLostError: somebody else has a higher token.
    """
    row = connection.execute("SELECT token FROM leases WHERE name = ?", (held.name,)).fetchone()
    if row is None or row[0] != held.token:
        raise LeaseLostError("Another gateway has taken over; ask again.", retry_after_seconds=1)


def look(database: Path, name: str) -> Lease | None:
    """The lease in a database that somebody else has open; nothing of it is changed, and no table is needed.

    Raises:
        BlockingIOError: it cannot be read just now.
    """
    try:
        uri = f"{database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=LOOK_SECONDS)) as connection:
            row = connection.execute(
                "SELECT name, holder, token, counter FROM leases WHERE name = ?", (name,)
            ).fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise BlockingIOError from error
        return None  # no file or no table yet
    except sqlite3.DatabaseError:
        return None  # damaged: whoever opens it says so
    return None if row is None else Lease(*row)

"""Queries: plain functions ``(Connection, values) -> values``, each called inside one transaction of its executor.

They know no clock (``now`` is handed in), begin and commit nothing, and keep their statements at module level, where
each is compiled once. Dialects differ in one word only, the insert with ``ON CONFLICT``; ``by_dialect`` picks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Insert, Update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Delete

#: Rows that one call changes at most, so that no transaction holds the writer for long. The rest waits for the next.
BATCH_ROWS = 500

Change = Insert | Update | Delete
_Text = tuple[str, tuple[tuple[str, Any], ...]]
#: By dialect, statement and names of the values; as many as the code has, for statements are module constants.
_texts: dict[tuple[str, Executable, tuple[str, ...]], _Text] = {}


def by_dialect(make: Callable[[Any], Change]) -> Mapping[str, Change]:
    """A statement per dialect name; ``make`` gets that dialect's ``insert``."""
    return {"sqlite": make(sqlite.insert), "postgresql": make(postgresql.insert)}


def change(connection: Connection, statement: Change, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Run an insert, update or delete of which no answer is wanted, for one row or for several with the same names.

    Compiled once by SQLAlchemy, then handed to the driver as text and tuple: about a dozen of these make a job, and
    SQLAlchemy's own bookkeeping took three quarters of their time. The transaction has to be open already.
    """
    rows = [values] if isinstance(values, Mapping) else values
    names = tuple(rows[0])
    key = (connection.dialect.name, statement, names)
    if (known := _texts.get(key)) is None:
        known = _texts[key] = _compile(connection, statement, names)
    text, places = known
    cursor = connection.connection.cursor()
    try:
        tuples = [tuple([row.get(name, default) for name, default in places]) for row in rows]
        if len(tuples) == 1:
            cursor.execute(text, tuples[0])
        else:
            cursor.executemany(text, tuples)
    finally:
        cursor.close()


def _compile(connection: Connection, statement: Change, names: tuple[str, ...]) -> _Text:
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(names))
    if compiled.positiontup is None:
        raise TypeError("this driver's parameters have no order")
    return str(compiled), tuple((name, compiled.params.get(name)) for name in compiled.positiontup)

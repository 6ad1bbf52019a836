"""Queries: plain functions ``(Connection, values) -> values``, each called inside one transaction of its executor.

They know no clock (``now`` is handed in), begin and commit nothing, and keep their statements at module level, where
each is compiled once. Dialects differ in one word only, the insert with ``ON CONFLICT``; ``by_dialect`` picks it.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, Executable, Insert, Select, Update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Delete

#: Rows that one call changes at most, so that no transaction holds the writer for long. The rest waits for the next.
BATCH_ROWS = 500

Change = Insert | Update | Delete
_Text = tuple[str, tuple[tuple[str, Any], ...]]
#: A row with its columns as attributes.
Found: TypeAlias = Any
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


def fetch(connection: Connection, statement: Select[Any], values: Mapping[str, Any]) -> list[Found]:
    """The rows of a select that a job's life needs again and again; see ``change`` for why, and for what it asks."""
    key = (connection.dialect.name, statement)
    if (reading := _readings.get(key)) is None:
        reading = _readings[key] = _reading(connection, statement)
    cursor = connection.connection.cursor()
    try:
        cursor.execute(reading.text, [values.get(name, default) for name, default in reading.places])
        return list(map(reading.row, cursor.fetchall()))
    finally:
        cursor.close()


def fetch_one(connection: Connection, statement: Select[Any], values: Mapping[str, Any]) -> Found | None:
    """The first of them, of a select that finds one at most; None where there is none."""
    found = fetch(connection, statement, values)
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class _Reading:
    """A select, compiled once."""

    text: str
    places: tuple[tuple[str, Any], ...]
    #: Makes a row of what the driver gives.
    row: Callable[[Sequence[Any]], Found]


_readings: dict[tuple[str, Executable], _Reading] = {}


def _reading(connection: Connection, statement: Select[Any]) -> _Reading:
    text, places = _compile(connection, statement, ())
    columns = list(statement.selected_columns)
    names = [column.key or "_" for column in columns]
    row = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024 - its names are known at run time
    make: Callable[[Sequence[Any]], Found] = row._make
    dialect = connection.dialect
    converters = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
    wanted = [(place, convert) for place, convert in enumerate(converters) if convert is not None]
    if not wanted:
        return _Reading(text, places, make)

    def converted(row: Sequence[Any]) -> Found:
        cells = list(row)
        for place, convert in wanted:
            cells[place] = convert(cells[place])
        return make(cells)

    return _Reading(text, places, converted)


def _compile(connection: Connection, statement: Change | Select[Any], names: tuple[str, ...]) -> _Text:
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(names))
    if compiled.positiontup is None:
        raise TypeError("this driver's parameters have no order")
    return str(compiled), tuple((name, compiled.params.get(name)) for name in compiled.positiontup)

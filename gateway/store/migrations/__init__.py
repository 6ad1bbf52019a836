"""Bringing a database on disk up to this version's tables: forwards only, in one transaction, before anything else.

One module per step in ``versions/``; a step is frozen once it was released and imports nothing of ``schema.py``, which
shows only how the tables are by now. A test holds the sum of the steps equal to ``schema.metadata``. There is no way
back: an older gateway refuses a newer database, and a backup is what one returns to.

Alembic runs the steps. It is loaded only where any are missing, without the lexers of pygments that the templates of its
templates would like to colour with: together that is a tenth of a gateway's start.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect

from gateway.errors import GatewayError

_HERE = Path(__file__).parent
_STEP = re.compile(r"v([0-9]{4})_\w+\.py")
#: Where Alembic notes the last step that was run.
_TABLE = "alembic_version"


class SchemaTooNewError(GatewayError):
    """A newer version of the gateway wrote the database."""


def upgrade(connection: Connection) -> None:
    """Run the steps that are missing, inside the transaction that ``connection`` is in.

    Raises:
        SchemaTooNewError: the database has a step that this version does not know.
    """
    steps = known()
    present = _present(connection)
    for step in present:
        if step not in steps:
            raise SchemaTooNewError(
                f"The database was written by a newer version of the gateway (its schema is {step}): "
                "start that version, or restore a backup made by this one."
            )
    if present == [max(steps)]:
        return
    with _without_colours():
        from gateway.store.migrations.running import run_missing
    run_missing(connection, _HERE)


def known() -> frozenset[str]:
    """All steps that this version knows."""
    names = (path.name for path in (_HERE / "versions").iterdir())
    return frozenset(found[1] for name in names if (found := _STEP.fullmatch(name)))


def newest() -> str:
    """The last step that this version knows."""
    return max(known())


def _present(connection: Connection) -> list[str]:
    """The last step that was run on this database; none on one that is new."""
    if not inspect(connection).has_table(_TABLE):
        return []
    return list(connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalars())  # noqa: S608 - our own word


@contextmanager
def _without_colours() -> Iterator[None]:
    """Mako does without what cannot be imported; it would colour the source of templates that fail to render."""
    name = "mako.ext.pygmentplugin"
    if name in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules[name] = None  # importing it fails, says the language's reference (5.3.1)
    try:
        yield
    finally:
        del modules[name]

"""Bringing a database on disk up to this version's tables: forwards only, in one transaction, before anything else.

One module per step in ``versions/``; a step is frozen once it was released and imports nothing of ``schema.py``, which
shows only how the tables are by now. A test holds the sum of the steps equal to ``schema.metadata``. There is no way
back: an older gateway refuses a newer database, and a backup is what one returns to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from gateway.errors import GatewayError

_HERE = Path(__file__).parent


class SchemaTooNewError(GatewayError):
    """A newer version of the gateway wrote the database."""


def upgrade(connection: Connection) -> None:
    """Run the steps that are missing, inside the transaction that ``connection`` is in.

    Raises:
        SchemaTooNewError: the database has a step that this version does not know.
    """
    script = ScriptDirectory(str(_HERE))
    known = {step.revision for step in script.walk_revisions()}

    def missing(heads: Any, _context: MigrationContext) -> Sequence[Any]:
        for head in heads:
            if head not in known:
                raise SchemaTooNewError(
                    f"The database was written by a newer version of the gateway (its schema is {head}): "
                    "start that version, or restore a backup made by this one."
                )
        # Alembic's own command does the same call; it would want a configuration file and an env.py around it.
        return list(script._upgrade_revs("head", heads))  # noqa: SLF001

    context = MigrationContext.configure(connection, opts={"fn": missing})
    with Operations.context(context):
        context.run_migrations()


def known() -> frozenset[str]:
    """All steps that this version knows."""
    return frozenset(step.revision for step in ScriptDirectory(str(_HERE)).walk_revisions())


def newest() -> str:
    """The last step that this version knows."""
    return ScriptDirectory(str(_HERE)).get_current_head() or ""

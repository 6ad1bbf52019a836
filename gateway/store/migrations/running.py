"""Runs the steps that a database lacks. Loaded only where one lacks any: Alembic takes a tenth of a gateway's start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def run_missing(connection: Connection, folder: Path) -> None:
    """Run what is missing of the steps in ``folder``, inside the transaction that ``connection`` is in."""
    script = ScriptDirectory(str(folder))

    def missing(heads: Any, _context: MigrationContext) -> Sequence[Any]:
        # Alembic's own command does the same call; it would want a configuration file and an env.py around it.
        return list(script._upgrade_revs("head", heads))  # noqa: SLF001

    context = MigrationContext.configure(connection, opts={"fn": missing})
    with Operations.context(context):
        context.run_migrations()

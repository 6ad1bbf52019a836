"""What ended an attempt that was lost or interrupted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_IS_LOSS = "cause IN ('died', 'stopped')"


def upgrade() -> None:
    """Add the column. What ended before has none: nobody wrote down why."""
    # In words of SQL: Alembic would build the whole table anew to give a column of SQLite its constraints.
    op.execute(
        "ALTER TABLE attempts ADD COLUMN cause TEXT "
        "CONSTRAINT ck_attempts_cause CHECK (cause IS NULL OR (cause IN ('died', 'not_stored', 'out_of_memory', "
        "'result_lost', 'stalled', 'stopped', 'taken_back', 'unseen') "
        "AND outcome IN ('attempt_lost', 'interrupted')))"
    )
    op.create_index(
        "ix_attempts_losses",
        "attempts",
        ["ended_at"],
        sqlite_where=sa.text(_IS_LOSS),
        postgresql_where=sa.text(_IS_LOSS),
    )


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

"""Clients' own graphs, the node that a job failed at, and events that tell of outputs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_IS_END = "kind IN ('canceled', 'failed', 'succeeded')"


def upgrade() -> None:
    """Make the table and the columns; events may be of one kind more."""
    op.create_table(
        "job_graphs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_graphs_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_graphs"),
    )
    op.execute("ALTER TABLE jobs ADD COLUMN error_node_id TEXT")
    op.execute("ALTER TABLE jobs ADD COLUMN error_node_class TEXT")
    _widen_events()


def _widen_events() -> None:
    """SQLite cannot change a constraint, so the table is made anew and filled from the old one."""
    op.drop_index("ix_events_end", "events")
    op.rename_table("events", "events_before")
    op.create_table(
        "events",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('cancel_requested', 'canceled', 'dispatched', 'failed', 'finishing', 'output', 'queued', "
            "'requeued', 'started', 'succeeded', 'warning')",
            name="ck_events_kind",
        ),
        sa.CheckConstraint("number > 0", name="ck_events_number"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_events"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO events (job_id, number, kind, at, data) SELECT job_id, number, kind, at, data FROM events_before"
    )
    op.drop_table("events_before")
    where = sa.text(_IS_END)
    op.create_index("ix_events_end", "events", ["job_id"], unique=True, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

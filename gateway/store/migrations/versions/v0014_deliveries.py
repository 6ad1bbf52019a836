"""Deliveries of finished files, events that tell of them, and where the files of a key go."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_IS_PENDING = "state = 'pending'"
_IS_END = "kind IN ('canceled', 'failed', 'succeeded')"


def upgrade() -> None:
    """Make the table and the column; events may be of two kinds more."""
    _make_deliveries()
    # In words of SQL: Alembic would build the whole table anew to give a column of SQLite its constraint.
    op.execute(
        "ALTER TABLE api_keys ADD COLUMN deliver_to TEXT CONSTRAINT ck_api_keys_deliver_to CHECK (deliver_to <> '')"
    )
    _widen_events()


def _make_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("target", sa.Text()),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), sa.CheckConstraint("place NOT LIKE '%?%'", name="ck_deliveries_place")),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double()),
        sa.Column("last_status", sa.Integer()),
        sa.Column("reason", sa.Text()),
        sa.CheckConstraint("state IN ('delivered', 'failed', 'pending')", name="ck_deliveries_state"),
        sa.CheckConstraint(
            "reason IS NULL OR reason IN ('answered', 'expired', 'internal', 'no_target', 'no_url', 'timed_out', "
            "'unreachable')",
            name="ck_deliveries_reason",
        ),
        sa.CheckConstraint(f"(next_at IS NOT NULL) = ({_IS_PENDING})", name="ck_deliveries_next"),
        sa.CheckConstraint("position >= 0 AND attempts >= 0", name="ck_deliveries_counters"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_deliveries_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("job_id", "position", name="uq_deliveries_job_id_position"),
    )
    where = sa.text(_IS_PENDING)
    for name, column in (("ix_deliveries_due", "next_at"), ("ix_deliveries_pending", "job_id")):
        op.create_index(name, "deliveries", [column], sqlite_where=where, postgresql_where=where)
    op.create_index("ix_deliveries_owner", "deliveries", ["owner", "created_at", "id"])
    op.create_index("ix_deliveries_state", "deliveries", ["state", "created_at", "id"])


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
            "'requeued', 'started', 'succeeded', 'upload_failed', 'uploaded', 'warning')",
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

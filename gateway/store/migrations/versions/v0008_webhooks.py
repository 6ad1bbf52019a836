"""The outbox of webhooks, where its messages go, and what signs them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IS_PENDING = "state = 'pending'"


def upgrade() -> None:
    """Make the tables."""
    _make_endpoints()
    _make_messages()
    _make_secrets()


def _make_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("disabled_at", sa.Double()),
        sa.CheckConstraint("disabled_at IS NULL OR next_at IS NULL", name="ck_webhook_endpoints_disabled"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
        sa.UniqueConstraint("owner", "url", name="uq_webhook_endpoints_owner_url"),
    )
    where = sa.text("next_at IS NOT NULL")
    op.create_index(
        "ix_webhook_endpoints_due", "webhook_endpoints", ["next_at"], sqlite_where=where, postgresql_where=where
    )


def _make_messages() -> None:
    op.create_table(
        "webhook_messages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double()),
        sa.Column("last_status", sa.Integer()),
        sa.Column("reason", sa.Text()),
        sa.CheckConstraint("state IN ('dead', 'delivered', 'pending')", name="ck_webhook_messages_state"),
        sa.CheckConstraint(
            "reason IS NULL OR reason IN ('answered', 'disabled', 'internal', 'timed_out', 'unreachable')",
            name="ck_webhook_messages_reason",
        ),
        sa.CheckConstraint(f"(next_at IS NOT NULL) = ({_IS_PENDING})", name="ck_webhook_messages_next"),
        sa.CheckConstraint("attempts >= 0", name="ck_webhook_messages_attempts"),
        sa.ForeignKeyConstraint(
            ["endpoint"], ["webhook_endpoints.id"], name="fk_webhook_messages_endpoint", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_webhook_messages_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_messages"),
        sa.UniqueConstraint("job_id", name="uq_webhook_messages_job_id"),
    )
    where = sa.text(_IS_PENDING)
    op.create_index(
        "ix_webhook_messages_due",
        "webhook_messages",
        ["endpoint", "next_at"],
        sqlite_where=where,
        postgresql_where=where,
    )
    op.create_index("ix_webhook_messages_endpoint", "webhook_messages", ["endpoint"])
    op.create_index("ix_webhook_messages_owner", "webhook_messages", ["owner", "created_at", "id"])


def _make_secrets() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_secrets"),
    )
    where = sa.text("expires_at IS NULL")
    op.create_index(
        "ix_webhook_secrets_newest",
        "webhook_secrets",
        ["account"],
        unique=True,
        sqlite_where=where,
        postgresql_where=where,
    )
    op.create_index("ix_webhook_secrets_account", "webhook_secrets", ["account"])


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

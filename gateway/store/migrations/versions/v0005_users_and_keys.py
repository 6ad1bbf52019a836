"""Users and their keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_IS_LIVE = "revoked_at IS NULL"


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("email_verified", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("name <> '' AND tier <> ''", name="ck_users_named"),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("rate_limit", sa.Integer(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.Column("revoked_at", sa.Double()),
        sa.Column("last_used_at", sa.Double()),
        sa.CheckConstraint("rate_limit > 0 AND concurrency > 0", name="ck_api_keys_limits"),
        sa.CheckConstraint("name <> '' AND scopes <> '[]'", name="ck_api_keys_named"),
        sa.CheckConstraint("length(prefix) < 20", name="ck_api_keys_prefix"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_keys_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index(
        "ix_api_keys_name",
        "api_keys",
        ["user_id", "name"],
        unique=True,
        sqlite_where=sa.text(_IS_LIVE),
        postgresql_where=sa.text(_IS_LIVE),
    )
    op.create_table(
        "key_hashes",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.CheckConstraint("length(hash) = 64", name="ck_key_hashes_hash"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_key_hashes_key_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash", name="pk_key_hashes"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_key_hashes_key", "key_hashes", ["key_id"])


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

"""Assets that were uploaded by themselves, and which of them an input was made of.

The table of assets is made anew: SQLite cannot change what a table's checks say.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COLUMNS = "id, owner, kind, blob, size_bytes, facts, job_id, link, created_at, expires_at"


def upgrade() -> None:
    """Make the table anew, with what was in it, and add the column."""
    op.rename_table("assets", "older_assets")
    for name in ("ix_assets_blob", "ix_assets_expiry", "ix_assets_job", "ix_assets_owner"):
        op.drop_index(name, "older_assets")
    _make_assets()
    op.execute(f"INSERT INTO assets ({_COLUMNS}) SELECT {_COLUMNS} FROM older_assets")  # noqa: S608 - names of ours
    op.drop_table("older_assets")
    _make_indexes()
    op.add_column("job_inputs", sa.Column("source_asset_id", sa.Text(), nullable=True))
    op.create_index(
        "ix_job_inputs_source",
        "job_inputs",
        ["source_asset_id"],
        sqlite_where=sa.text("source_asset_id IS NOT NULL"),
        postgresql_where=sa.text("source_asset_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")


def _make_assets() -> None:
    op.create_table(
        "assets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("file_path", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("named_at", sa.Double(), nullable=True),
        sa.CheckConstraint("(kind = 'result') = (job_id IS NOT NULL)", name="ck_assets_job"),
        sa.CheckConstraint("(kind = 'result') = (link IS NOT NULL)", name="ck_assets_link"),
        sa.CheckConstraint("kind IN ('input', 'result', 'upload')", name="ck_assets_kind"),
        sa.CheckConstraint(
            "NOT (kind = 'upload') OR (file_path IS NOT NULL AND content_type IS NOT NULL AND tags IS NOT NULL "
            "AND named_at IS NOT NULL AND expires_at IS NOT NULL)",
            name="ck_assets_upload",
        ),
        sa.ForeignKeyConstraint(["blob"], ["blobs.hash"], name="fk_assets_blob"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_assets_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_assets"),
        sa.UniqueConstraint("link", name="uq_assets_link"),
    )


def _make_indexes() -> None:
    op.create_index("ix_assets_blob", "assets", ["blob", "owner"])
    op.create_index("ix_assets_owner", "assets", ["owner", "created_at", "id"])
    for name, columns, condition, is_unique in (
        ("ix_assets_expiry", ["expires_at"], "expires_at IS NOT NULL", False),
        ("ix_assets_job", ["job_id"], "job_id IS NOT NULL", False),
        ("ix_assets_upload", ["owner", "file_path", "blob"], "kind = 'upload'", True),
    ):
        where = sa.text(condition)
        op.create_index(name, "assets", columns, unique=is_unique, sqlite_where=where, postgresql_where=where)

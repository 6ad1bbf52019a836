"""What finished runs have taught of how long nodes take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "timings",
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("node_class", sa.Text(), nullable=False),
        sa.Column("pass_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("pass_number >= 0", name="ck_timings_pass_number"),
        sa.PrimaryKeyConstraint("template", "node_class", "pass_number", "upstream", name="pk_timings"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

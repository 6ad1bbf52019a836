"""What was said of the people in the pictures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "consents",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("attested", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("state", sa.Text()),
        sa.Column("outputs", sa.Text()),
        sa.CheckConstraint("attested IN ('field', 'header')", name="ck_consents_attested"),
        sa.CheckConstraint("state IS NULL OR state IN ('canceled', 'failed', 'succeeded')", name="ck_consents_state"),
        sa.CheckConstraint(
            "(ended_at IS NOT NULL) = (state IS NOT NULL) AND (ended_at IS NOT NULL) = (outputs IS NOT NULL)",
            name="ck_consents_ended",
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_consents"),
    )
    op.create_index("ix_consents_at", "consents", ["at", "job_id"])
    op.create_index("ix_consents_owner", "consents", ["owner", "at", "job_id"])
    where = sa.text("ended_at IS NOT NULL")
    op.create_index("ix_consents_ended", "consents", ["ended_at"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

"""When upstreams became unreachable."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "outages",
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("at", "upstream", name="pk_outages"),
    )


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

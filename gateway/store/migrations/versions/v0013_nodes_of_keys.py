"""Lists of node classes that go with a key."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Keys of before have no lists."""
    # In words of SQL: Alembic would build the whole table anew to give columns of SQLite their constraints.
    for name in ("nodes_deny", "nodes_allow"):
        op.execute(f"ALTER TABLE api_keys ADD COLUMN {name} TEXT CONSTRAINT ck_api_keys_{name} CHECK ({name} <> '[]')")


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

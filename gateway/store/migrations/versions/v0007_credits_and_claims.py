"""What users have, what jobs cost them, and the requests that are done once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_IS_HOLD = "kind = 'hold'"
_CLOSES_HOLD = "kind IN ('charge', 'refund')"


def upgrade() -> None:
    """Make the tables, and the column of jobs that were free until now."""
    # In words of SQL: Alembic would build the whole table anew to give a column of SQLite its constraints.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN credit_cost INTEGER DEFAULT '0' NOT NULL "
        "CONSTRAINT ck_jobs_credit_cost CHECK (credit_cost >= 0)"
    )
    _make_purses()
    _make_ledger()
    _make_claims()


def _make_purses() -> None:
    op.create_table(
        "purses",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("subscription", sa.BigInteger(), nullable=False),
        sa.Column("monthly", sa.BigInteger(), nullable=False),
        sa.Column("permanent", sa.BigInteger(), nullable=False),
        sa.Column("monthly_grant", sa.BigInteger(), nullable=False),
        sa.Column("month", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "subscription >= 0 AND monthly >= 0 AND permanent >= 0 AND monthly_grant >= 0", name="ck_purses_balance"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_purses_user_id"),
        sa.PrimaryKeyConstraint("user_id", name="pk_purses"),
    )


def _make_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("subscription", sa.BigInteger(), nullable=False),
        sa.Column("monthly", sa.BigInteger(), nullable=False),
        sa.Column("permanent", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('charge', 'grant', 'hold', 'refund', 'renewal')", name="ck_ledger_kind"),
        sa.CheckConstraint(f"(job_id IS NOT NULL) = ({_IS_HOLD} OR {_CLOSES_HOLD})", name="ck_ledger_job"),
        sa.CheckConstraint(
            f"NOT ({_IS_HOLD}) OR (subscription <= 0 AND monthly <= 0 AND permanent <= 0 "
            "AND subscription + monthly + permanent < 0)",
            name="ck_ledger_hold",
        ),
        sa.CheckConstraint(
            "kind <> 'refund' OR (subscription >= 0 AND monthly >= 0 AND permanent >= 0 "
            "AND subscription + monthly + permanent > 0)",
            name="ck_ledger_refund",
        ),
        sa.CheckConstraint(
            "kind <> 'charge' OR (subscription = 0 AND monthly = 0 AND permanent = 0)", name="ck_ledger_charge"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_ledger_user_id"),
        sa.PrimaryKeyConstraint("number", name="pk_ledger"),
    )
    op.create_index("ix_ledger_user", "ledger", ["user_id", "number"])
    for name, which in (("ix_ledger_hold", _IS_HOLD), ("ix_ledger_end", _CLOSES_HOLD)):
        where = sa.text(which)
        op.create_index(name, "ledger", ["job_id"], unique=True, sqlite_where=where, postgresql_where=where)


def _make_claims() -> None:
    op.create_table(
        "claims",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("job_id", sa.Text()),
        sa.CheckConstraint(
            "(status IS NULL) = (body IS NULL) AND (status IS NULL) = (job_id IS NULL)", name="ck_claims_answer"
        ),
        sa.CheckConstraint("status IS NULL OR (status >= 200 AND status < 300)", name="ck_claims_status"),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_claims"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_claims_expiry", "claims", ["expires_at"])


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")

"""The tables of credits and idempotency keys; the rest, and the rules for all, are in ``schema.py``."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from gateway.ledger import EntryKind
from gateway.store.metadata import among, metadata

#: Entries of the ledger that take a job's price, and those that end that.
IS_HOLD = "kind = 'hold'"
CLOSES_HOLD = among("kind", (EntryKind.CHARGE, EntryKind.REFUND))
#: Claims whose request has not been answered yet.
IS_IN_FLIGHT = "status IS NULL"

#: What users have; ``gateway/ledger.py`` has the rules.
purses = Table(
    "purses",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("subscription", BigInteger, nullable=False),
    Column("monthly", BigInteger, nullable=False),
    Column("permanent", BigInteger, nullable=False),
    Column("monthly_grant", BigInteger, nullable=False),
    Column("month", Integer, nullable=False),
    CheckConstraint("subscription >= 0 AND monthly >= 0 AND permanent >= 0 AND monthly_grant >= 0", name="balance"),
)

#: Why they have it: the purses are the sum of these. Never changed, and kept when a job is forgotten.
ledger = Table(
    "ledger",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("kind", Text, nullable=False),
    # No foreign key: entries outlive jobs.
    Column("job_id", Text),
    Column("subscription", BigInteger, nullable=False),
    Column("monthly", BigInteger, nullable=False),
    Column("permanent", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    CheckConstraint(among("kind", EntryKind), name="kind"),
    CheckConstraint(f"(job_id IS NOT NULL) = ({IS_HOLD} OR {CLOSES_HOLD})", name="job"),
    CheckConstraint(
        f"NOT ({IS_HOLD}) OR (subscription <= 0 AND monthly <= 0 AND permanent <= 0 "
        "AND subscription + monthly + permanent < 0)",
        name="hold",
    ),
    CheckConstraint(
        "kind <> 'refund' OR (subscription >= 0 AND monthly >= 0 AND permanent >= 0 "
        "AND subscription + monthly + permanent > 0)",
        name="refund",
    ),
    CheckConstraint("kind <> 'charge' OR (subscription = 0 AND monthly = 0 AND permanent = 0)", name="charge"),
    Index("ix_ledger_user", "user_id", "number"),
    # A job is paid for once, and its hold ends once.
    Index("ix_ledger_hold", "job_id", unique=True, sqlite_where=text(IS_HOLD), postgresql_where=text(IS_HOLD)),
    Index("ix_ledger_end", "job_id", unique=True, sqlite_where=text(CLOSES_HOLD), postgresql_where=text(CLOSES_HOLD)),
)

#: Idempotency keys; ``gateway/idempotency.py`` has the rules.
claims = Table(
    "claims",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    # Of the answer; null while it is in flight.
    Column("status", Integer),
    Column("body", LargeBinary),
    Column("job_id", Text),
    CheckConstraint("(status IS NULL) = (body IS NULL) AND (status IS NULL) = (job_id IS NULL)", name="answer"),
    CheckConstraint("status IS NULL OR (status >= 200 AND status < 300)", name="status"),
    Index("ix_claims_expiry", "expires_at"),
    sqlite_with_rowid=False,
)

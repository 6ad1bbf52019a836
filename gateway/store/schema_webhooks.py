"""The tables of webhooks; the rest, and the rules for all, are in ``schema.py``."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from gateway.outbox import MessageState, Reason
from gateway.store.metadata import among, metadata

#: Spelled out, not bound, as in ``schema.py``.
IS_PENDING = "state = 'pending'"
IS_DUE_SOME_TIME = "next_at IS NOT NULL"

#: Where messages go: a URL of an owner. Two owners with one URL are two endpoints: neither can disable the other's.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("url", Text, nullable=False),
    # When the first of its pending messages is due, or it may be asked again; so that one look finds all that have
    # something due, however many messages wait for one of them.
    Column("next_at", Double),
    # Since it answered 410.
    Column("disabled_at", Double),
    UniqueConstraint("owner", "url"),
    CheckConstraint("disabled_at IS NULL OR next_at IS NULL", name="disabled"),
    Index(
        "ix_webhook_endpoints_due",
        "next_at",
        sqlite_where=text(IS_DUE_SOME_TIME),
        postgresql_where=text(IS_DUE_SOME_TIME),
    ),
)

#: The outbox; ``gateway/outbox.py`` has the rules.
webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint", Integer, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("owner", Text, nullable=False),
    # What it tells is the job's: it goes with it.
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double),
    Column("created_at", Double, nullable=False),
    Column("last_at", Double),
    Column("last_status", Integer),
    Column("reason", Text),
    CheckConstraint(among("state", MessageState), name="state"),
    CheckConstraint(f"reason IS NULL OR {among('reason', Reason)}", name="reason"),
    CheckConstraint(f"(next_at IS NOT NULL) = ({IS_PENDING})", name="next"),
    CheckConstraint("attempts >= 0", name="attempts"),
    UniqueConstraint("job_id"),
    Index(
        "ix_webhook_messages_due",
        "endpoint",
        "next_at",
        sqlite_where=text(IS_PENDING),
        postgresql_where=text(IS_PENDING),
    ),
    Index("ix_webhook_messages_endpoint", "endpoint"),
    Index("ix_webhook_messages_owner", "owner", "created_at", "id"),
)

#: What users' messages are signed with: one, and while it is being rotated more.
webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("id", Integer, primary_key=True),
    # A user's id, or ``local``: no foreign key.
    Column("account", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    # Null for the newest.
    Column("expires_at", Double),
    Index(
        "ix_webhook_secrets_newest",
        "account",
        unique=True,
        sqlite_where=text("expires_at IS NULL"),
        postgresql_where=text("expires_at IS NULL"),
    ),
    Index("ix_webhook_secrets_account", "account"),
)

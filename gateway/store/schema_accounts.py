"""The tables of users and keys; the rest, and the rules for all, are in ``schema.py``."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from gateway.store.metadata import metadata

IS_NOT_REVOKED = "revoked_at IS NULL"

#: Who pays, and who calls; ``gateway/accounts.py`` has the rules.
users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("email_verified", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("name"),
    CheckConstraint("name <> '' AND tier <> ''", name="named"),
)

api_keys = Table(
    "api_keys",
    metadata,
    # The owner of its jobs and assets. No foreign key there: what a key started outlives it.
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("rate_limit", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
    # JSON lists; null without one. Checked at the column, as ``cause`` of attempts.
    Column("nodes_deny", Text, CheckConstraint("nodes_deny <> '[]'", name="nodes_deny")),
    Column("nodes_allow", Text, CheckConstraint("nodes_allow <> '[]'", name="nodes_allow")),
    # Name of the target that its jobs' files go to.
    Column("deliver_to", Text, CheckConstraint("deliver_to <> ''", name="deliver_to")),
    CheckConstraint("rate_limit > 0 AND concurrency > 0", name="limits"),
    CheckConstraint("name <> '' AND scopes <> '[]'", name="named"),
    # A whole key is longer: none gets in here by mistake.
    CheckConstraint("length(prefix) < 20", name="prefix"),
    Index(
        "ix_api_keys_name",
        "user_id",
        "name",
        unique=True,
        sqlite_where=text(IS_NOT_REVOKED),
        postgresql_where=text(IS_NOT_REVOKED),
    ),
)

#: What opens as which key: one, and while a key is being rotated two.
key_hashes = Table(
    "key_hashes",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("key_id", Text, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Double, nullable=False),
    # Null for the newest.
    Column("expires_at", Double),
    CheckConstraint("length(hash) = 64", name="hash"),
    Index("ix_key_hashes_key", "key_id"),
    sqlite_with_rowid=False,
)

"""The table of consents; the rules for all are in ``schema.py``, those of this matter in ``gateway/consent.py``."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Double, Index, Table, Text, text

from gateway.consent import Attestation
from gateway.job import TERMINAL_JOB
from gateway.store.metadata import among, metadata

#: Spelled out, not bound, as in ``schema.py``.
HAS_ENDED = "ended_at IS NOT NULL"

consents = Table(
    "consents",
    metadata,
    # No foreign key: the record outlives the job, and the bytes that it names by their hashes.
    Column("job_id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("attested", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("ended_at", Double),
    Column("state", Text),
    Column("outputs", Text),
    CheckConstraint(among("attested", Attestation), name="attested"),
    CheckConstraint(f"state IS NULL OR {among('state', TERMINAL_JOB)}", name="state"),
    CheckConstraint(f"({HAS_ENDED}) = (state IS NOT NULL) AND ({HAS_ENDED}) = (outputs IS NOT NULL)", name="ended"),
    Index("ix_consents_at", "at", "job_id"),
    Index("ix_consents_owner", "owner", "at", "job_id"),
    Index("ix_consents_ended", "ended_at", sqlite_where=text(HAS_ENDED), postgresql_where=text(HAS_ENDED)),
)

"""The table of deliveries; the rest, and the rules for all, are in ``schema.py``."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Double, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, text

from gateway.delivering import DeliveryState, Reason
from gateway.store.metadata import among, metadata

#: Spelled out, not bound, as in ``schema.py``.
IS_PENDING = "state = 'pending'"

#: Outputs on their way to where their owners want them; ``gateway/delivering.py`` has the rules.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("owner", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("asset_id", Text, nullable=False),
    Column("file_name", Text, nullable=False),
    # Of the operator's; null: a URL, which lies sealed with the job.
    Column("target", Text),
    Column("host", Text, nullable=False),
    # Never with a query: a presigned URL has its secret there.
    Column("place", Text, CheckConstraint("place NOT LIKE '%?%'", name="place")),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double),
    Column("created_at", Double, nullable=False),
    Column("last_at", Double),
    Column("last_status", Integer),
    Column("reason", Text),
    UniqueConstraint("job_id", "position"),
    CheckConstraint(among("state", DeliveryState), name="state"),
    CheckConstraint(f"reason IS NULL OR {among('reason', Reason)}", name="reason"),
    CheckConstraint(f"(next_at IS NOT NULL) = ({IS_PENDING})", name="next"),
    CheckConstraint("position >= 0 AND attempts >= 0", name="counters"),
    Index("ix_deliveries_due", "next_at", sqlite_where=text(IS_PENDING), postgresql_where=text(IS_PENDING)),
    # What the sweep asks: is the file still to be put somewhere?
    Index("ix_deliveries_pending", "job_id", sqlite_where=text(IS_PENDING), postgresql_where=text(IS_PENDING)),
    Index("ix_deliveries_owner", "owner", "created_at", "id"),
    Index("ix_deliveries_state", "state", "created_at", "id"),
)

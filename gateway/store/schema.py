"""The tables, and the promises that the database itself keeps.

What ``job.py`` decides, the CHECKs here repeat in their own words, so that a slip in a query ends as an error and never
as a job with two ends. Every job and asset has an owner. JSON stands in plain text columns (``rows.py`` reads and writes
it), times are Unix seconds.

``migrations/`` builds these tables step by step on a user's disk; a test compares the two, so a change here needs a
migration beside it.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
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

from gateway.events import TERMINAL_KINDS, EventKind
from gateway.job import LIVE, TERMINAL, TERMINAL_JOB, Cause, JobState, TaskEvent, TaskState
from gateway.store import schema_accounts, schema_consents, schema_credits, schema_deliveries, schema_webhooks  # noqa: F401 - their tables are of the same database
from gateway.store.metadata import among, metadata


class AssetKind(StrEnum):
    """Why an asset is kept."""

    INPUT = "input"
    RESULT = "result"
    #: Sent by itself, for jobs that may come.
    UPLOAD = "upload"


#: How an attempt can end, by the event that ended it.
OUTCOMES = (
    TaskEvent.SUCCEEDED,
    TaskEvent.ATTEMPT_LOST,
    TaskEvent.INTERRUPTED,
    TaskEvent.FAILED,
    TaskEvent.CANCELED,
    TaskEvent.EXPIRED,
)
#: Those of them that have a cause.
CAUSED = (TaskEvent.ATTEMPT_LOST, TaskEvent.INTERRUPTED)

#: All tables, those of the modules beside this one included, for whoever makes them at once.
TABLES = metadata

#: Spelled out, not bound: SQLite uses a partial index only where the query repeats its condition literally.
IS_QUEUED = "state = 'queued'"
IS_LIVE = among("state", LIVE)
_IS_END = among("kind", TERMINAL_KINDS)
IS_UPLOAD = "kind = 'upload'"
#: Attempts with which an upstream was lost.
IS_LOSS = among("cause", (Cause.DIED, Cause.STOPPED))

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("submitter", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("template", Text, nullable=False),
    Column("template_version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("parameters", Text, nullable=False),
    # A snapshot: what is told of a job outlives the assets it names.
    Column("inputs", Text, nullable=False),
    Column("output_name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("queue_deadline", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("cancel_requested_at", Double),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_node_id", Text),
    Column("error_node_class", Text),
    Column("warnings", Text, nullable=False),
    Column("engine", Text),
    Column("upstream", Text),
    Column("fraction", Double, nullable=False),
    Column("step", Text, nullable=False),
    Column("results", Text, nullable=False),
    Column("last_event", Integer, nullable=False),
    Column("extra", Text, nullable=False),
    # At the column, as ``cause`` of attempts.
    Column(
        "credit_cost",
        Integer,
        CheckConstraint("credit_cost >= 0", name="credit_cost"),
        nullable=False,
        server_default="0",
    ),
    CheckConstraint(among("state", JobState), name="state"),
    CheckConstraint(f"(finished_at IS NOT NULL) = ({among('state', TERMINAL_JOB)})", name="finished"),
    CheckConstraint("(error_code IS NOT NULL) = (state = 'failed')", name="error"),
    CheckConstraint("(error_code IS NULL) = (error_message IS NULL)", name="sentence"),
    CheckConstraint("fraction >= 0 AND fraction <= 1 AND (fraction = 1) = (state = 'succeeded')", name="fraction"),
    CheckConstraint("results = '[]' OR state NOT IN ('canceled', 'failed')", name="results"),
    CheckConstraint("last_event > 0", name="last_event"),
    # Listing an owner's jobs, with or without a filter: one short walk per state, merged.
    Index("ix_jobs_owner", "owner", "state", "created_at", "id"),
    # The same of one task: free ones (face detections) may outnumber the others by far.
    Index("ix_jobs_task", "owner", "task", "state", "created_at", "id"),
    Index("ix_jobs_state", "state"),
    Index(
        "ix_jobs_ended",
        "finished_at",
        sqlite_where=text("finished_at IS NOT NULL"),
        postgresql_where=text("finished_at IS NOT NULL"),
    ),
)

#: Clients' own graphs. Beside their jobs, which are read a hundred times as often.
job_graphs = Table(
    "job_graphs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("workflow", Text, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("submitter", Text, nullable=False),
    Column("requirement", Text, nullable=False),
    # Submitter, requirement and whether an attempt was lost, in one comparable text: the next lane is then found by one
    # step in an index.
    Column("lane", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("cost_seconds", Double, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("blobs", Text, nullable=False),
    # Of the first time, so that a task that comes back keeps its place.
    Column("queued_at", Double, nullable=False),
    Column("queue_deadline", Double, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("interruptions", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("finishing", Boolean, nullable=False),
    Column("upstream", Text),
    Column("prompt_id", Text),
    Column("avoid", Text),
    Column("outputs", Text),
    Column("finished_at", Double),
    UniqueConstraint("job_id", "position"),
    CheckConstraint(among("state", TaskState), name="state"),
    CheckConstraint(f"(finished_at IS NOT NULL) = ({among('state', TERMINAL)})", name="finished"),
    CheckConstraint(f"(upstream IS NOT NULL) = ({IS_LIVE})", name="upstream"),
    CheckConstraint(f"NOT ({IS_QUEUED}) OR prompt_id IS NULL", name="queued_prompt"),
    CheckConstraint(f"NOT ({IS_LIVE}) OR (prompt_id IS NOT NULL AND attempt > 0)", name="live_prompt"),
    CheckConstraint(f"NOT (cancel_requested AND {IS_QUEUED})", name="queued_cancel"),
    CheckConstraint(f"NOT finishing OR {IS_LIVE}", name="finishing"),
    CheckConstraint("outputs IS NULL OR finishing", name="outputs"),
    CheckConstraint("position >= 0 AND attempt >= 0 AND losses >= 0 AND interruptions >= 0", name="counters"),
)
Index(
    "ix_tasks_lane",
    tasks.c.lane,
    tasks.c.priority.desc(),
    tasks.c.queued_at,
    tasks.c.id,
    sqlite_where=text(IS_QUEUED),
    postgresql_where=text(IS_QUEUED),
)
Index(
    "ix_tasks_age",
    tasks.c.queued_at,
    tasks.c.id,
    sqlite_where=text(IS_QUEUED),
    postgresql_where=text(IS_QUEUED),
)
Index(
    "ix_tasks_deadline",
    tasks.c.queue_deadline,
    sqlite_where=text(IS_QUEUED),
    postgresql_where=text(IS_QUEUED),
)
Index("ix_tasks_live", tasks.c.queued_at, sqlite_where=text(IS_LIVE), postgresql_where=text(IS_LIVE))

attempts = Table(
    "attempts",
    metadata,
    # What ComfyUI knows as prompt_id: stored before it hears of it.
    Column("id", Text, primary_key=True),
    Column("task_id", Text, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("engine", Text),
    Column("dispatched_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("outcome", Text),
    Column("reason", Text, nullable=False),
    # At the column, as a column that is added later can have no other; and one, for several come in any order.
    Column(
        "cause",
        Text,
        CheckConstraint(f"cause IS NULL OR ({among('cause', Cause)} AND {among('outcome', CAUSED)})", name="cause"),
    ),
    UniqueConstraint("task_id", "number"),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint(f"outcome IS NULL OR {among('outcome', OUTCOMES)}", name="outcome"),
    CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended"),
    # A task is on one upstream at a time.
    Index(
        "ix_attempts_open",
        "task_id",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("ix_attempts_losses", "ended_at", sqlite_where=text(IS_LOSS), postgresql_where=text(IS_LOSS)),
)

events = Table(
    "events",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("data", Text, nullable=False),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint(among("kind", EventKind), name="kind"),
    # A job ends once.
    Index("ix_events_end", "job_id", unique=True, sqlite_where=text(_IS_END), postgresql_where=text(_IS_END)),
    # Read in order of its key and nothing else, so it is stored in that order.
    sqlite_with_rowid=False,
)

blobs = Table(
    "blobs",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    # When it was last committed or referred to anew.
    Column("touched_at", Double, nullable=False),
    # Perhaps nothing refers to it: what the sweep looks at, so that it never walks all blobs.
    Column("loose", Boolean, nullable=False),
    CheckConstraint("size_bytes >= 0", name="size"),
    Index("ix_blobs_loose", "touched_at", sqlite_where=text("loose"), postgresql_where=text("loose")),
)

assets = Table(
    "assets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # No cascade: a blob that an asset refers to cannot be forgotten.
    Column("blob", Text, ForeignKey("blobs.hash"), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("facts", Text, nullable=False),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE")),
    Column("link", Text),
    Column("created_at", Double, nullable=False),
    # Null while a job that has not ended needs it.
    Column("expires_at", Double),
    # What the client calls it; "" for an upload without a name.
    Column("file_path", Text),
    # As the client declared it; what was found is in the facts.
    Column("content_type", Text),
    Column("tags", Text),
    # When an upload was last given this name: the newest is what the name means.
    Column("named_at", Double),
    UniqueConstraint("link"),
    CheckConstraint(among("kind", AssetKind), name="kind"),
    CheckConstraint(
        f"NOT ({IS_UPLOAD}) OR (file_path IS NOT NULL AND content_type IS NOT NULL AND tags IS NOT NULL "
        "AND named_at IS NOT NULL AND expires_at IS NOT NULL)",
        name="upload",
    ),
    CheckConstraint("(kind = 'result') = (link IS NOT NULL)", name="link"),
    CheckConstraint("(kind = 'result') = (job_id IS NOT NULL)", name="job"),
    # By owner too: whether somebody has some bytes is asked with every upload.
    Index("ix_assets_blob", "blob", "owner"),
    # The same bytes under the same name are one upload.
    Index(
        "ix_assets_upload",
        "owner",
        "file_path",
        "blob",
        unique=True,
        sqlite_where=text(IS_UPLOAD),
        postgresql_where=text(IS_UPLOAD),
    ),
    Index("ix_assets_owner", "owner", "created_at", "id"),
    Index(
        "ix_assets_job", "job_id", sqlite_where=text("job_id IS NOT NULL"), postgresql_where=text("job_id IS NOT NULL")
    ),
    Index(
        "ix_assets_expiry",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)

#: Which job needs which asset. No foreign key to assets: they expire earlier than jobs are forgotten.
job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("asset_id", Text, nullable=False),
    # The upload or result that it was made of.
    Column("source_asset_id", Text),
    Index("ix_job_inputs_asset", "asset_id"),
    Index(
        "ix_job_inputs_source",
        "source_asset_id",
        sqlite_where=text("source_asset_id IS NOT NULL"),
        postgresql_where=text("source_asset_id IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

templates = Table(
    "templates",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("toml", Text, nullable=False),
    Column("graph", Text, nullable=False),
    Column("saved_at", Double, nullable=False),
)

#: What finished runs have taught (``gateway/timings.py``).
timings = Table(
    "timings",
    metadata,
    Column("template", Text, primary_key=True),
    Column("node_class", Text, primary_key=True),
    Column("pass_number", Integer, primary_key=True, autoincrement=False),
    # "" for all of them together.
    Column("upstream", Text, primary_key=True),
    Column("sums", Text, nullable=False),
    Column("turn", BigInteger, nullable=False),
    CheckConstraint("pass_number >= 0", name="pass_number"),
    sqlite_with_rowid=False,
)

upstreams = Table(
    "upstreams",
    metadata,
    Column("name", Text, primary_key=True),
    Column("client_id", Text, nullable=False),
    # May carry credentials: never shown, never logged.
    Column("url", Text),
    Column("removed", Boolean, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("client_id"),
)

#: Who may act for what; ``gateway/lease.py`` tells the rules.
# Kept beside attempts, so that an upstream that had nothing to do, and the jobs of others that were purged, still tell
# who was lost together.
outages = Table(
    "outages",
    metadata,
    Column("at", Double, primary_key=True),
    Column("upstream", Text, primary_key=True),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("counter", BigInteger, nullable=False),
    CheckConstraint("token > 0", name="token"),
    CheckConstraint("counter >= 0", name="counter"),
)

"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them all."""
    _make_blobs()
    _make_jobs()
    _make_templates()
    _make_upstreams()
    _make_assets()
    _make_events()
    _make_job_inputs()
    _make_tasks()
    _make_attempts()


def downgrade() -> None:
    """Refuse."""
    raise NotImplementedError("Migrations go forwards only; restore a backup instead.")


def _make_blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", sa.Double(), nullable=False),
        sa.Column("loose", sa.Boolean(), nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name="ck_blobs_size"),
        sa.PrimaryKeyConstraint("hash", name="pk_blobs"),
    )
    op.create_index(
        "ix_blobs_loose",
        "blobs",
        ["touched_at"],
        unique=False,
        sqlite_where=sa.text("loose"),
        postgresql_where=sa.text("loose"),
    )


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("template_version", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("output_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("queue_deadline", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("cancel_requested_at", sa.Double(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("warnings", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=True),
        sa.Column("upstream", sa.Text(), nullable=True),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("results", sa.Text(), nullable=False),
        sa.Column("last_event", sa.Integer(), nullable=False),
        sa.Column("extra", sa.Text(), nullable=False),
        sa.CheckConstraint("(error_code IS NOT NULL) = (state = 'failed')", name="ck_jobs_error"),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('canceled', 'failed', 'succeeded'))", name="ck_jobs_finished"
        ),
        sa.CheckConstraint(
            "fraction >= 0 AND fraction <= 1 AND (fraction = 1) = (state = 'succeeded')", name="ck_jobs_fraction"
        ),
        sa.CheckConstraint("results = '[]' OR state NOT IN ('canceled', 'failed')", name="ck_jobs_results"),
        sa.CheckConstraint(
            "state IN ('canceled', 'dispatched', 'failed', 'finishing', 'queued', 'running', 'succeeded')",
            name="ck_jobs_state",
        ),
        sa.CheckConstraint("(error_code IS NULL) = (error_message IS NULL)", name="ck_jobs_sentence"),
        sa.CheckConstraint("last_event > 0", name="ck_jobs_last_event"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index(
        "ix_jobs_ended",
        "jobs",
        ["finished_at"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_owner", "jobs", ["owner", "state", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_state", "jobs", ["state"], unique=False)


def _make_templates() -> None:
    op.create_table(
        "templates",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("toml", sa.Text(), nullable=False),
        sa.Column("graph", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_templates"),
    )


def _make_upstreams() -> None:
    op.create_table(
        "upstreams",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_upstreams"),
        sa.UniqueConstraint("client_id", name="uq_upstreams_client_id"),
    )


def _make_assets() -> None:
    op.create_table(
        "assets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.CheckConstraint("(kind = 'result') = (job_id IS NOT NULL)", name="ck_assets_job"),
        sa.CheckConstraint("(kind = 'result') = (link IS NOT NULL)", name="ck_assets_link"),
        sa.CheckConstraint("kind IN ('input', 'result')", name="ck_assets_kind"),
        sa.ForeignKeyConstraint(["blob"], ["blobs.hash"], name="fk_assets_blob"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_assets_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_assets"),
        sa.UniqueConstraint("link", name="uq_assets_link"),
    )
    op.create_index("ix_assets_blob", "assets", ["blob"], unique=False)
    op.create_index(
        "ix_assets_expiry",
        "assets",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_assets_job",
        "assets",
        ["job_id"],
        unique=False,
        sqlite_where=sa.text("job_id IS NOT NULL"),
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
    op.create_index("ix_assets_owner", "assets", ["owner", "created_at", "id"], unique=False)


def _make_events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('cancel_requested', 'canceled', 'dispatched', 'failed', 'finishing', 'queued', 'requeued', 'started', 'succeeded', 'warning')",
            name="ck_events_kind",
        ),
        sa.CheckConstraint("number > 0", name="ck_events_number"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_events"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_events_end",
        "events",
        ["job_id"],
        unique=True,
        sqlite_where=sa.text("kind IN ('canceled', 'failed', 'succeeded')"),
        postgresql_where=sa.text("kind IN ('canceled', 'failed', 'succeeded')"),
    )


def _make_job_inputs() -> None:
    op.create_table(
        "job_inputs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_inputs_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "role", name="pk_job_inputs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_inputs_asset", "job_inputs", ["asset_id"], unique=False)


def _make_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("requirement", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("cost_seconds", sa.Double(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("blobs", sa.Text(), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=False),
        sa.Column("queue_deadline", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("interruptions", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("finishing", sa.Boolean(), nullable=False),
        sa.Column("upstream", sa.Text(), nullable=True),
        sa.Column("prompt_id", sa.Text(), nullable=True),
        sa.Column("avoid", sa.Text(), nullable=True),
        sa.Column("outputs", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('canceled', 'failed', 'succeeded'))", name="ck_tasks_finished"
        ),
        sa.CheckConstraint("(upstream IS NOT NULL) = (state IN ('dispatched', 'running'))", name="ck_tasks_upstream"),
        sa.CheckConstraint("NOT (cancel_requested AND state = 'queued')", name="ck_tasks_queued_cancel"),
        sa.CheckConstraint("NOT (state = 'queued') OR prompt_id IS NULL", name="ck_tasks_queued_prompt"),
        sa.CheckConstraint(
            "NOT (state IN ('dispatched', 'running')) OR (prompt_id IS NOT NULL AND attempt > 0)",
            name="ck_tasks_live_prompt",
        ),
        sa.CheckConstraint("NOT finishing OR state IN ('dispatched', 'running')", name="ck_tasks_finishing"),
        sa.CheckConstraint(
            "state IN ('canceled', 'dispatched', 'failed', 'queued', 'running', 'succeeded')", name="ck_tasks_state"
        ),
        sa.CheckConstraint("outputs IS NULL OR finishing", name="ck_tasks_outputs"),
        sa.CheckConstraint(
            "position >= 0 AND attempt >= 0 AND losses >= 0 AND interruptions >= 0", name="ck_tasks_counters"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_tasks_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("job_id", "position", name="uq_tasks_job_id_position"),
    )
    op.create_index(
        "ix_tasks_age",
        "tasks",
        ["queued_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_tasks_deadline",
        "tasks",
        ["queue_deadline"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_tasks_lane",
        "tasks",
        ["lane", sa.literal_column("priority DESC"), "queued_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_tasks_live",
        "tasks",
        ["queued_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('dispatched', 'running')"),
        postgresql_where=sa.text("state IN ('dispatched', 'running')"),
    )


def _make_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=True),
        sa.Column("dispatched_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "outcome IS NULL OR outcome IN ('attempt_lost', 'canceled', 'expired', 'failed', 'interrupted', 'succeeded')",
            name="ck_attempts_outcome",
        ),
        sa.CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ck_attempts_ended"),
        sa.CheckConstraint("number > 0", name="ck_attempts_number"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_attempts_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("task_id", "number", name="uq_attempts_task_id_number"),
    )
    op.create_index(
        "ix_attempts_open",
        "attempts",
        ["task_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )

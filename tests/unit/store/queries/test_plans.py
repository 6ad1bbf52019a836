"""Everything about the queue is found by an index."""

from __future__ import annotations

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from gateway.job import JobState
from gateway.store.executors import InlineExecutor
from gateway.store.queries import assets, claims, jobs, ledger, purging, queue, sweeping, trails, uploads
from gateway.store.schema import metadata

TABLES = {*metadata.tables, "other", "beyond", "head", "other_inputs", "other_jobs"}
TWIN = {"whose": "local", "name": "photo.png", "bytes": "b"}
PAGE = {"task": "face_swap", "owner": "local", "most": 5, "seen_at": 1.0, "seen_id": "x"}


def plan_of(statement, parameters):
    """What SQLite means to do, a line a step."""

    def explain(connection):
        compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
        values = tuple({**compiled.params, **parameters}[name] for name in compiled.positiontup)
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)]

    return explain


@pytest.mark.parametrize(
    ("statement", "parameters", "index"),
    [
        (queue._HEADS, {"after": "", "most": 5}, "ix_tasks_lane"),
        (queue._LAST_PLACE, {"skip": 9}, "ix_tasks_age"),
        (queue._AHEAD, {"queued_at": 1.0, "id": "x"}, "ix_tasks_age"),
        (queue._OVERDUE, {"now": 1.0}, "ix_tasks_deadline"),
        (queue._OPEN_TASKS, {}, "ix_tasks_live"),
        (sweeping._EXPIRED, {"now": 1.0}, "ix_assets_expiry"),
        (sweeping._OLD_JOBS, {"before": 1.0}, "ix_jobs_ended"),
        (trails._FORGET, {"before": 1.0}, "sqlite_autoindex_outages_1 (at<?)"),
        (ledger._HOLD, {"wanted": "j"}, "ix_ledger_hold"),
        (ledger._ENTRIES, {"wanted": "u", "most": 5}, "ix_ledger_user (user_id=?)"),
        (ledger._PAYER, {"wanted": "k"}, "sqlite_autoindex_api_keys_1 (id=?)"),
        (ledger._PURSES, {"wanted": "u"}, "sqlite_autoindex_purses_1 (user_id=?)"),
        (claims._CLAIM, {"scope_": "s", "key_": "k"}, "PRIMARY KEY (scope=? AND key=?)"),
        (claims._SWEEP, {"now": 1.0}, "ix_claims_expiry (expires_at<?)"),
        (purging._DELETE_ANSWER, {"gone": "j"}, "PRIMARY KEY (scope=?)"),
        (purging._ASSETS_OF, {"owner": "local"}, "ix_assets_owner"),
        (assets._LOOSE_BLOBS, {"before": 1.0}, "ix_blobs_loose"),
        (assets._BY_LINK, {"wanted": "l", "now": 1.0}, "sqlite_autoindex_assets"),
        (uploads._TWIN, TWIN, "ix_assets_upload (owner=? AND file_path=? AND blob=?)"),
        (uploads._EXPIRED_TWIN, {**TWIN, "now": 1.0}, "ix_assets_upload (owner=? AND file_path=? AND blob=?)"),
        (
            uploads._PROLONG,
            {**TWIN, "moment": 1.0, "until": 1.0},
            "ix_assets_upload (owner=? AND file_path=? AND blob=?)",
        ),
        (uploads._BY_HASH, {**TWIN, "now": 1.0}, "ix_assets_blob (blob=? AND owner=?)"),
        (uploads._OWN_BY_ID, {**TWIN, "wanted": "a", "now": 1.0}, "sqlite_autoindex_assets"),
        (uploads._IS_NEEDED, {"wanted": "a"}, "ix_job_inputs_source (source_asset_id=?)"),
        (jobs._COUNTS, {}, "ix_jobs_state"),
        (jobs.page_of(frozenset(JobState), after=False), PAGE, "ix_jobs_owner (owner=? AND state=?)"),
        (
            jobs.page_of(frozenset({JobState.FAILED}), after=True),
            PAGE,
            "ix_jobs_owner (owner=? AND state=? AND (created_at,id)<(?,?))",
        ),
        (
            jobs.page_of(frozenset(JobState), after=False, one_task=True),
            PAGE,
            "ix_jobs_task (owner=? AND task=? AND state=?)",
        ),
        (
            jobs.page_of(frozenset(JobState), after=True, one_task=True),
            PAGE,
            "ix_jobs_task (owner=? AND task=? AND state=? AND (created_at,id)<(?,?))",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_statement_walks_its_index_and_never_a_table(statement, parameters, index):
    executor = InlineExecutor()
    plan = await executor.read(plan_of(statement, parameters))
    await executor.close()
    assert any(index in step for step in plan)
    scans = [step for step in plan if step.startswith("SCAN") and "USING" not in step]
    # What is left to scan is what the statement itself has just found: no longer than the window.
    assert [step for step in scans if step.split()[1] in TABLES] == []


@pytest.mark.parametrize(
    ("statement", "parameters", "index"),
    [
        (purging._LIVE_OF, {"owner": "local"}, "ix_jobs_owner (owner=? AND state=?)"),
        (purging._ENDED_OF, {"owner": "local"}, "ix_jobs_owner (owner=? AND state=?)"),
        (
            uploads._NAMED,
            {"whose": "o", "names": ["x", "input/x"], "now": 1.0},
            "ix_assets_upload (owner=? AND file_path=?)",
        ),
        (purging._INPUTS, {"old": ["x", "y"]}, "ix_job_inputs_asset"),
        (purging._RESULTS, {"old": ["x", "y"]}, "ix_assets_job"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_statement_with_a_list_walks_its_index_and_never_a_table(statement, parameters, index):
    # Written out: how many values a list has is known at execution only.
    text = statement.params(**parameters).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    executor = InlineExecutor()
    plan = await executor.read(lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all())
    await executor.close()
    steps = [row[3] for row in plan]
    assert any(index in step for step in steps)
    assert [step for step in steps if step.startswith("SCAN") and step.split()[1] in TABLES] == []


@pytest.mark.parametrize("statement", [queue._HEADS, queue._AHEAD, queue._LAST_PLACE, jobs._SAVE_PROGRESS])
def test_statement_is_postgresql_too(statement):
    assert "queued" in str(statement.compile(dialect=postgresql.dialect())) or statement is jobs._SAVE_PROGRESS


def test_purses_are_locked_where_there_can_be_two_writers():
    locked = ledger._LOCKED_PURSES
    assert "FOR UPDATE" in str(locked.compile(dialect=postgresql.dialect()))
    assert "FOR UPDATE" not in str(locked.compile(dialect=sqlite.dialect()))
    for statement in (ledger._ADD_PURSES, claims._PUT):
        assert "ON CONFLICT" in str(statement["postgresql"].compile(dialect=postgresql.dialect()))

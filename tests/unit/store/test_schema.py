"""What the database itself refuses."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import CheckConstraint, insert, update
from sqlalchemy.exc import IntegrityError

from gateway.events import EventKind
from gateway.job import JobState, TaskState
from gateway.store.executors import InlineExecutor
from gateway.store.schema import AssetKind, assets, attempts, blobs, events, jobs, metadata, tasks

JOB = {
    "id": "j", "owner": "local", "submitter": "s", "dialect": "d", "task": "t", "template": "t",
    "template_version": "1", "state": "queued", "priority": 0, "parameters": "{}", "inputs": "{}", "output_name": "o",
    "created_at": 1.0, "updated_at": 1.0, "queue_deadline": 9.0, "warnings": "[]", "fraction": 0.0, "step": "",
    "results": "[]", "last_event": 1, "extra": "{}",
}  # fmt: skip
TASK = {
    "id": "t", "job_id": "j", "position": 0, "state": "queued", "submitter": "s", "requirement": "r", "lane": "sr",
    "priority": 0, "cost_seconds": 1.0, "size_bytes": 1, "blobs": "[]", "queued_at": 1.0, "queue_deadline": 9.0,
    "attempt": 0, "losses": 0, "interruptions": 0, "cancel_requested": False, "finishing": False,
}  # fmt: skip
ATTEMPT = {"id": "a", "task_id": "t", "number": 1, "upstream": "u", "dispatched_at": 1.0, "reason": ""}
EVENT = {"job_id": "j", "number": 1, "kind": "queued", "at": 1.0, "data": "{}"}
BLOB = {"hash": "h", "size_bytes": 1, "touched_at": 1.0, "loose": False}
ASSET = {
    "id": "a", "owner": "local", "kind": "input", "blob": "h", "size_bytes": 1, "facts": "{}", "created_at": 1.0,
}  # fmt: skip
LIVE_TASK = {"state": "running", "attempt": 1, "upstream": "u", "prompt_id": "a"}
FAILED_JOB = {"state": "failed", "finished_at": 2.0, "error_code": "c", "error_message": "m"}


@pytest.fixture
async def refused():
    """Run a statement in a database with one of each row; whether a promise refused it."""
    executor = InlineExecutor()

    def fill(connection):
        for table, row in ((jobs, JOB), (tasks, TASK), (attempts, ATTEMPT), (events, EVENT), (blobs, BLOB)):
            connection.execute(insert(table), row)
        connection.execute(insert(assets), ASSET)

    async def ask(statement, values):
        try:
            await executor.write(lambda connection: connection.execute(statement, values) and None)
        except IntegrityError:
            return True
        return False

    await executor.write(fill)
    yield ask
    await executor.close()


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (jobs, {"state": "paused"}),
        (jobs, {"state": "failed", "error_code": "c", "error_message": "m"}),
        (jobs, {"finished_at": 2.0}),
        (jobs, {**FAILED_JOB, "error_code": None, "error_message": None}),
        (jobs, {**FAILED_JOB, "error_message": None}),
        (jobs, {**FAILED_JOB, "results": "[1]"}),
        (jobs, {"state": "succeeded", "finished_at": 2.0, "fraction": 0.9}),
        (jobs, {"fraction": 1.0}),
        (jobs, {"fraction": -0.1}),
        (jobs, {"last_event": 0}),
        (tasks, {"state": "finishing"}),
        (tasks, {"upstream": "u"}),
        (tasks, {"prompt_id": "p"}),
        (tasks, {**LIVE_TASK, "upstream": None}),
        (tasks, {**LIVE_TASK, "prompt_id": None}),
        (tasks, {**LIVE_TASK, "attempt": 0}),
        (tasks, {"state": "succeeded"}),
        (tasks, {"finished_at": 2.0}),
        (tasks, {"cancel_requested": True}),
        (tasks, {"finishing": True}),
        (tasks, {**LIVE_TASK, "outputs": "{}"}),
        (attempts, {"number": 0}),
        (attempts, {"ended_at": 2.0}),
        (attempts, {"outcome": "failed"}),
        (attempts, {"ended_at": 2.0, "outcome": "started"}),
        (attempts, {"ended_at": 2.0, "outcome": "attempt_lost", "cause": "weather"}),
        (attempts, {"ended_at": 2.0, "outcome": "succeeded", "cause": "died"}),
        (events, {"number": 0}),
        (events, {"kind": "progress"}),
        (assets, {"kind": "result"}),
        (assets, {"kind": "other"}),
        (assets, {"blob": "unknown"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value.name,
)
async def test_database_refuses(refused, table, values):
    assert await refused(update(table), values)


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (jobs, FAILED_JOB),
        (jobs, {"state": "succeeded", "finished_at": 2.0, "fraction": 1.0, "results": "[1]"}),
        (tasks, LIVE_TASK),
        (tasks, {**LIVE_TASK, "finishing": True, "outputs": "{}", "cancel_requested": True}),
        (attempts, {"ended_at": 2.0, "outcome": "attempt_lost"}),
        (attempts, {"ended_at": 2.0, "outcome": "attempt_lost", "cause": "died"}),
        (events, {"kind": "failed"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value.name,
)
async def test_database_takes_what_a_life_needs(refused, table, values):
    """Or the refusals above would show nothing."""
    assert not await refused(update(table), values)


async def test_job_has_one_end(refused):
    assert not await refused(insert(events), {**EVENT, "number": 2, "kind": "succeeded"})
    assert await refused(insert(events), {**EVENT, "number": 3, "kind": "failed"})
    assert await refused(insert(events), {**EVENT, "number": 2, "kind": "started"})


async def test_task_has_one_open_attempt_and_each_number_once(refused):
    assert await refused(insert(attempts), {**ATTEMPT, "id": "b", "number": 2})
    assert not await refused(update(attempts), {"ended_at": 2.0, "outcome": "failed"})
    assert await refused(insert(attempts), {**ATTEMPT, "id": "b"})
    assert await refused(insert(attempts), {**ATTEMPT, "number": 2})
    assert not await refused(insert(attempts), {**ATTEMPT, "id": "b", "number": 2})


@pytest.mark.parametrize(
    ("table", "name", "values"),
    [
        (jobs, "state", JobState),
        (tasks, "state", TaskState),
        (events, "kind", EventKind),
        (assets, "kind", AssetKind),
    ],
    ids=lambda value: getattr(value, "name", None) or getattr(value, "__name__", value),
)
def test_lists_in_checks_are_those_of_the_enums(table, name, values):
    (check,) = [
        constraint
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint) and constraint.name == f"ck_{table.name}_{name}"
    ]
    assert set(re.findall(r"'(\w+)'", str(check.sqltext))) == {value.value for value in values}


def test_jobs_and_assets_have_an_owner():
    for name in ("jobs", "assets"):
        assert not metadata.tables[name].c.owner.nullable

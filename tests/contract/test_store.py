"""What every store promises, over each executor there is."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from gateway.audit import MediaFacts, MediaKind
from gateway.comfy.messages import OutputFile
from gateway.errors import ConflictError, InvalidInputError, QueueFullError, ShuttingDownError
from gateway.events import EventKind
from gateway.interfaces import Blob, LooseBlob, NewJob, Purged, Report
from gateway.job import Cause, JobInput, JobResult, JobState, RetryLimits, TaskEvent, TaskState
from gateway.poison import Death, Loss, Trail
from gateway.store.executors import InlineExecutor, SqliteExecutor
from gateway.store.queries import trails
from gateway.store.queries.queue import candidates
from gateway.store.schema import tasks
from gateway.store.sql_store import SqlStore
from gateway.timings import Key, Row

FACTS = MediaFacts(MediaKind.VIDEO, "video/mp4", ".mp4", 64, 48, 25, None, 1.0, has_audio=True, video_codec="h264")
LIMITS = RetryLimits(max_attempts=3, max_interruptions=4)
RESULTS, ASSETS = 100.0, 50.0
OUTPUTS = {
    "9": (OutputFile("a.mp4", "", "output", "gifs", "video/h264-mp4"), OutputFile("b.png", "x", "temp", "images"))
}
ALL = frozenset(JobState)


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory):
    """A database that was migrated once, for all tests to copy."""
    path = tmp_path_factory.mktemp("store") / "empty.db"

    async def make():
        await (await SqlStore.open(path, result_retention_seconds=RESULTS, asset_retention_seconds=ASSETS)).close()

    asyncio.run(make())
    return path


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, empty_file):
    if request.param == "file":
        path = Path(shutil.copy(empty_file, tmp_path / "gateway.db"))
        made = await SqlStore.open(path, result_retention_seconds=RESULTS, asset_retention_seconds=ASSETS)
    else:
        made = SqlStore.in_memory(result_retention_seconds=RESULTS, asset_retention_seconds=ASSETS)
    yield made
    await made.close()


# ---- words


def new_job(number, **changes):
    name = f"{number:04}"
    return replace(
        NewJob(
            id=f"job-{name}",
            task_id=f"task-{name}",
            owner="local",
            submitter="ann",
            dialect="faceswap",
            task="face_swap",
            template="faceswap_video",
            template_version="v1",
            priority=0,
            parameters={"faces": [0, 1], "restore": 0.5, "name": "é"},
            inputs={
                "target": JobInput(f"asset-t-{name}", f"blob-t-{name}", 100, FACTS),
                "face": JobInput(f"asset-f-{name}", f"blob-f-{name}", 7, FACTS),
            },
            output_name="out",
            queue_deadline=1000.0,
            requirement="needs",
            cost_seconds=2.5,
            extra={"ws": True},
        ),
        **changes,
    )


async def create(store, number=1, *, now=10.0, **changes):
    return await store.create_job(new_job(number, **changes), max_queue=10_000, now=now)


async def tell(store, event, attempt=None, *, task="task-0001", now=20.0, **said):
    return await store.record(task, Report(event, attempt, **said), limits=LIMITS, now=now)


_prompts = count()


async def dispatch(store, *, task="task-0001", now=20.0, upstream="gpu-1"):
    prompt_id = f"prompt-{next(_prompts)}"
    return await tell(
        store, TaskEvent.DISPATCHED, task=task, now=now, upstream=upstream, prompt_id=prompt_id, engine="comfyui"
    )


def result(number=1):
    return JobResult(f"asset-r-{number}", f"blob-r-{number}", 55, FACTS, f"link-{number}")


async def kinds(store, job="job-0001"):
    events = await store.events_after(job, 0)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    return [event.kind.value for event in events]


async def everything(store):
    """Every row of every table, to show that nothing changed."""

    def look(connection):
        tables = [row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {table}")))  # noqa: S608 - a name from the database itself
            for table in tables
        }

    return await store._executor.read(look)


async def sweep(store, now, *, jobs=10_000.0, grace=0.0):
    return await store.sweep(job_retention_seconds=jobs, blob_grace_seconds=grace, now=now)


# ---- a job's life


async def test_warnings_of_a_new_job_are_its_first_events_after_the_first(store):
    recorded = await create(store, warnings=(("input_flagged", "One."), ("input_flagged", "Two.")))
    job = await store.job("job-0001")
    assert (job, job.warnings, job.last_event) == (recorded.job, ("One.", "Two."), 3)
    assert await kinds(store) == ["queued", "warning", "warning"]
    told = await store.events_after("job-0001", 0)
    assert tuple(told) == recorded.events
    assert told[2].data == {"code": "input_flagged", "message": "Two."}
    await dispatch(store)
    assert await kinds(store) == ["queued", "warning", "warning", "dispatched"]


async def test_new_job_is_read_back_as_it_was_made(store):
    recorded = await create(store)
    job = await store.job("job-0001")
    assert job == recorded.job
    assert (job.state, job.last_event, job.created_at, job.inputs) == (JobState.QUEUED, 1, 10.0, new_job(1).inputs)
    assert (job.parameters, job.extra) == (new_job(1).parameters, {"ws": True})
    assert [event.kind for event in recorded.events] == [EventKind.QUEUED]
    assert await store.queued_task("task-0001") == (job, recorded.task)
    assert await store.job("job-none") is None


async def test_whole_life_tells_each_step_once_and_keeps_the_result(store):
    await create(store)
    sent = await dispatch(store)
    assert (sent.job.state, sent.job.upstream, sent.job.engine) == (JobState.DISPATCHED, "gpu-1", "comfyui")
    assert (sent.task.attempt, sent.task.upstream) == (1, "gpu-1")
    assert sent.events[0].data == {"upstream": "gpu-1", "engine": "comfyui", "attempt": 1}
    assert await store.queued_task("task-0001") is None
    started = await tell(store, TaskEvent.STARTED, 1, now=21.0)
    assert (started.job.state, started.job.started_at) == (JobState.RUNNING, 21.0)
    finishing = await store.record_outputs("task-0001", 1, OUTPUTS, now=22.0)
    assert (finishing.job.state, finishing.task.finishing) == (JobState.FINISHING, True)
    (open_task,) = await store.open_tasks()
    assert (open_task.job, open_task.task, open_task.outputs) == (finishing.job, finishing.task, OUTPUTS)
    done = await tell(store, TaskEvent.SUCCEEDED, 1, now=23.0, results=(result(),), warnings=(("soft", "Careful."),))
    assert done.job == await store.job("job-0001")
    assert (done.job.state, done.job.fraction, done.job.finished_at) == (JobState.SUCCEEDED, 1.0, 23.0)
    assert (done.job.results, done.job.warnings) == ((result(),), ("Careful.",))
    assert done.task.upstream is None
    assert await kinds(store) == ["queued", "dispatched", "started", "finishing", "warning", "succeeded"]
    assert done.events[0].data == {"code": "soft", "message": "Careful."}
    assert done.events[1].data == {
        "results": [{"link": "link-1", "content_type": "video/mp4", "size_bytes": 55}],
        "engine": "comfyui",
        "warnings": ["Careful."],
    }
    assert await store.events_after("job-0001", 4, limit=1) == [done.events[0]]
    assert await store.open_tasks() == []
    assert await store.result_by_link("link-1", now=23.0 + RESULTS - 1) == (done.job, result())
    assert await store.result_by_link("link-1", now=23.0 + RESULTS) is None
    assert await store.result_by_link("link-2", now=0.0) is None


async def counted(store, number, picture, *, now, owner="local", task="face_detect"):
    """A finished detection, or another job, of one picture."""
    inputs = {"target": JobInput(f"asset-t-{number:04}", picture, 100, FACTS)}
    await create(store, number, now=now, owner=owner, task=task, inputs=inputs)
    await dispatch(store, task=f"task-{number:04}", now=now)
    await tell(store, TaskEvent.SUCCEEDED, 1, task=f"task-{number:04}", now=now + 1, results=(result(number),))


async def test_newest_report_of_a_picture_is_found_for_its_owner_only(store):
    await counted(store, 1, "blob-a", now=10.0)
    await counted(store, 2, "blob-a", now=20.0)
    await counted(store, 3, "blob-b", now=30.0)
    await counted(store, 4, "blob-a", now=40.0, owner="bob")
    await counted(store, 5, "blob-a", now=50.0, task="face_swap")
    await create(
        store, 6, now=60.0, task="face_detect", inputs={"target": JobInput("asset-t-0006", "blob-a", 1, FACTS)}
    )
    assert await store.face_report("local", "blob-a") == "blob-r-2"
    assert await store.face_report("bob", "blob-a") == "blob-r-4"
    assert await store.face_report("local", "blob-c") is None


async def test_a_report_is_found_though_there_was_none_when_it_was_last_asked_for(store):
    """That an owner has none is remembered until the first is made."""
    assert await store.face_report("local", "blob-a") is None
    assert await store.face_report("bob", "blob-a") is None
    await counted(store, 1, "blob-b", now=10.0, task="face_swap")
    assert await store.face_report("local", "blob-b") is None
    await counted(store, 2, "blob-a", now=20.0)
    assert await store.face_report("local", "blob-a") == "blob-r-2"
    assert await store.face_report("bob", "blob-a") is None


async def test_who_never_had_faces_counted_is_asked_about_once(store, monkeypatch):
    asked, plain = [], store._executor.read

    async def read(query, *given):
        asked.append(given)
        return await plain(query, *given)

    monkeypatch.setattr(store._executor, "read", read)
    for picture in ("blob-a", "blob-b"):
        assert await store.face_report("local", picture) is None
    assert asked == [("local", "blob-a")]


async def test_what_a_node_told_comes_back_as_it_was(store):
    await create(store)
    await dispatch(store)
    told = {"2": (OutputFile("", "", "output", "text", text='{"faces": []}'),)}
    await store.record_outputs("task-0001", 1, told, now=21.0)
    assert (await store.open_tasks())[0].outputs == told


async def test_outputs_told_twice_make_one_event(store):
    await create(store)
    await dispatch(store)
    await store.record_outputs("task-0001", 1, {}, now=21.0)
    again = await store.record_outputs("task-0001", 1, OUTPUTS, now=22.0)
    assert again.events == ()
    assert (await store.open_tasks())[0].outputs == OUTPUTS
    assert await kinds(store) == ["queued", "dispatched", "finishing"]


async def test_lost_attempt_puts_the_task_back_where_it_was(store):
    await create(store, now=10.0)
    await create(store, 2, now=11.0)
    await dispatch(store, now=20.0)
    await store.record_outputs("task-0001", 1, OUTPUTS, now=21.0)
    lost = await tell(store, TaskEvent.ATTEMPT_LOST, 1, now=22.0, reason="socket gone")
    assert (lost.job.state, lost.task.state, lost.task.losses) == (JobState.QUEUED, TaskState.QUEUED, 1)
    assert (lost.task.finishing, lost.task.upstream, lost.task.prompt_id) == (False, None, None)
    assert lost.events[0].data == {"reason": "attempt_lost", "message": "socket gone"}
    first, second = sorted(await store.candidates(limit=10), key=lambda item: item.queued_at)
    assert (first.task_id, first.queued_at, first.losses, first.avoid) == ("task-0001", 10.0, 1, "gpu-1")
    assert second.avoid is None
    assert await store.queue_position("job-0001") == 0
    again = await dispatch(store, upstream="gpu-2")
    assert again.task.attempt == 2


@pytest.mark.parametrize(
    "event", [TaskEvent.STARTED, TaskEvent.SUCCEEDED, TaskEvent.FAILED, TaskEvent.ATTEMPT_LOST, TaskEvent.CANCELED]
)
async def test_stale_attempt_changes_no_row(store, event):
    await create(store)
    await dispatch(store)
    await tell(store, TaskEvent.ATTEMPT_LOST, 1)
    waiting = await everything(store)
    assert await tell(store, event, 1, results=(result(),)) is None
    assert await store.record_outputs("task-0001", 1, OUTPUTS, now=30.0) is None
    assert await everything(store) == waiting
    await dispatch(store)
    running = await everything(store)
    assert await tell(store, event, 1, results=(result(),)) is None
    assert await store.record_outputs("task-0001", 1, OUTPUTS, now=30.0) is None
    assert await everything(store) == running


async def test_unknown_task_and_refused_event_change_no_row(store):
    await create(store)
    before = await everything(store)
    assert await tell(store, TaskEvent.STARTED) is None
    assert await tell(store, TaskEvent.FAILED, task="task-none") is None
    assert await everything(store) == before


async def test_attempts_run_out(store):
    await create(store)
    for number in (1, 2, 3):
        await dispatch(store)
        last = await tell(store, TaskEvent.ATTEMPT_LOST, number)
    assert (last.job.state, last.job.error_code) == (JobState.FAILED, "upstream_lost")
    assert [event.kind for event in last.events] == [EventKind.FAILED]
    assert (await kinds(store)).count("requeued") == 2


async def lose(store, task, upstream, at, cause=Cause.DIED, *, started=True, event=TaskEvent.ATTEMPT_LOST):
    """A new attempt of a task, which ends so."""
    dispatched = await dispatch(store, task=task, upstream=upstream, now=at - 1)
    number = dispatched.task.attempt
    if started:
        await tell(store, TaskEvent.STARTED, number, task=task, now=at - 1)
    await tell(store, event, number, task=task, now=at, cause=cause)


async def test_trail_holds_the_deaths_under_a_task_and_what_was_lost_beside_them(store):
    one, other, quiet = "task-0001", "task-0002", "task-0003"
    for number in (1, 2, 3):
        await create(store, number)
    await lose(store, one, "gpu-1", 100.0)
    await lose(store, other, "gpu-3", 109.0)
    await lose(store, other, "gpu-4", 112.0, started=False)
    await lose(store, one, "gpu-2", 200.0)
    await lose(store, quiet, "gpu-5", 195.0, Cause.STOPPED, event=TaskEvent.INTERRUPTED)
    first, second = Loss("gpu-1", 100.0), Loss("gpu-2", 200.0)
    trails = await store.trails([one, other, quiet, "task-nobody"])
    assert trails[one] == Trail(
        (Death("gpu-1", 100.0, taken_at=99.0, found_at=100.0), Death("gpu-2", 200.0, taken_at=199.0, found_at=200.0)),
        (first, Loss("gpu-3", 109.0), Loss("gpu-5", 195.0), second),
    )
    assert [death.upstream for death in trails[other].deaths] == ["gpu-3"], "the other one had not begun"
    assert Loss("gpu-4", 112.0) in trails[other].losses
    assert trails[quiet] == trails["task-nobody"] == Trail()


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.DIED, Cause.STOPPED}))
async def test_only_an_upstream_that_went_away_leaves_a_trail(store, cause):
    await create(store, 1)
    await create(store, 2)
    await lose(store, "task-0001", "gpu-1", 100.0, cause)
    await lose(store, "task-0002", "gpu-2", 100.0)
    assert (await store.trails(["task-0001"]))["task-0001"] == Trail()
    assert (await store.trails(["task-0002"]))["task-0002"].losses == (Loss("gpu-2", 100.0),)


async def test_an_upstream_is_lost_when_it_becomes_unreachable_whatever_it_had_to_do(store):
    """Its attempt is known to be lost much later; one that was idle has none."""
    await create(store, 1)
    dispatched = await dispatch(store, task="task-0001", upstream="gpu-1", now=80.0)
    await tell(store, TaskEvent.STARTED, dispatched.task.attempt, task="task-0001", now=81.0)
    for upstream, at in [("gpu-1", 70.0), ("gpu-1", 90.0), ("gpu-1", 100.0), ("gpu-2", 103.0), ("gpu-3", 150.0)]:
        await store.note_outage(upstream, at=at)
    await tell(store, TaskEvent.ATTEMPT_LOST, 1, task="task-0001", now=160.0, cause=Cause.DIED)
    assert (await store.trails(["task-0001"]))["task-0001"] == Trail(
        (Death("gpu-1", 100.0, taken_at=80.0, found_at=160.0),),
        (Loss("gpu-1", 90.0), Loss("gpu-1", 100.0), Loss("gpu-2", 103.0)),
    )


async def test_what_another_job_lost_counts_from_the_outage_too_and_once(store):
    await create(store, 1)
    await create(store, 2)
    dispatched = await dispatch(store, task="task-0002", upstream="gpu-2", now=30.0)
    await tell(store, TaskEvent.STARTED, dispatched.task.attempt, task="task-0002", now=31.0)
    await store.note_outage("gpu-2", at=40.0)
    await lose(store, "task-0001", "gpu-1", 100.0)
    await tell(store, TaskEvent.ATTEMPT_LOST, 1, task="task-0002", now=100.0, cause=Cause.DIED)
    assert (await store.trails(["task-0001"]))["task-0001"].losses == (Loss("gpu-1", 100.0),)


async def test_an_outage_is_noted_once_and_forgotten_when_it_is_old(store):
    await create(store, 1)
    await lose(store, "task-0001", "gpu-1", 100.0)
    for _ in range(2):
        await store.note_outage("gpu-2", at=101.0)

    async def lost_beside():
        found = (await store.trails(["task-0001"]))["task-0001"].losses
        return [loss.upstream for loss in found if loss.upstream != "gpu-1"]

    for now in (101.0, 101.0 + trails.OUTAGES_KEPT_SECONDS):
        await store.sweep(job_retention_seconds=1e9, blob_grace_seconds=1e9, now=now)
        assert await lost_beside() == ["gpu-2"]
    await store.sweep(job_retention_seconds=1e9, blob_grace_seconds=1e9, now=102.0 + trails.OUTAGES_KEPT_SECONDS)
    assert await lost_beside() == []


@pytest.mark.parametrize(
    ("statement", "values", "indexes"),
    [
        (trails._LOSSES, {"since": 1.0, "until": 2.0}, ["ix_attempts_losses", "sqlite_autoindex_outages_1 (at>?"]),
        (
            trails._DEATHS,
            {"wanted": ["task-0001"]},
            ["sqlite_autoindex_attempts_2", "sqlite_autoindex_outages_1 (at>?"],
        ),
    ],
    ids=["losses", "deaths"],
)
async def test_outages_and_losses_are_found_by_index(store, statement, values, indexes):
    def plan(connection):
        text = statement.params(**values).compile(connection, compile_kwargs={"literal_binds": True})
        return " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))

    found = await store._executor.read(plan)
    assert [index for index in indexes if index not in found] == [], found


async def test_interruptions_cost_no_attempt_up_to_their_cap(store):
    await create(store)
    for number in range(1, 5):
        await dispatch(store)
        last = await tell(store, TaskEvent.INTERRUPTED, number)
        assert last.job.is_terminal == (number == 4)
    assert last.task.losses == 0
    assert (await kinds(store))[-1] == "failed"


async def test_failure_carries_its_code_and_ended_job_takes_nothing_more(store):
    await create(store)
    await dispatch(store)
    failed = await tell(store, TaskEvent.FAILED, 1, error_code="node_failed", error_message="A node failed.")
    assert failed.events[0].data == {"code": "node_failed", "message": "A node failed."}
    assert (failed.job.error_code, failed.job.error_message) == ("node_failed", "A node failed.")
    ended = await everything(store)
    for event in TaskEvent:
        assert await tell(store, event, 1, results=(result(),), upstream="u", prompt_id="p") is None
    await store.save_progress([("job-0001", 0.9, "late")], now=40.0)
    assert await store.request_cancel("job-0001", ALL - {JobState.FAILED}, now=40.0) is None
    assert await everything(store) == ended


# ---- cancel


async def test_canceled_while_queued_ends_at_once(store):
    await create(store)
    canceled = await store.request_cancel("job-0001", frozenset({JobState.QUEUED}), now=12.0)
    assert (canceled.job.state, canceled.job.finished_at) == (JobState.CANCELED, 12.0)
    assert await kinds(store) == ["queued", "canceled"]
    assert await store.candidates(limit=10) == []


async def test_cancel_from_other_states_is_refused(store):
    await create(store)
    before = await everything(store)
    assert await store.request_cancel("job-0001", frozenset({JobState.RUNNING}), now=12.0) is None
    assert await store.request_cancel("job-none", ALL, now=12.0) is None
    assert await everything(store) == before


@pytest.mark.parametrize("end", [TaskEvent.SUCCEEDED, TaskEvent.ATTEMPT_LOST, TaskEvent.INTERRUPTED, TaskEvent.FAILED])
async def test_cancel_wins_until_the_terminal_commit(store, end):
    await create(store)
    await dispatch(store)
    flagged = await store.request_cancel("job-0001", ALL, now=21.0)
    assert (flagged.job.state, flagged.job.cancel_requested_at) == (JobState.DISPATCHED, 21.0)
    assert flagged.task.cancel_requested
    again = await store.request_cancel("job-0001", ALL, now=22.0)
    assert (again.events, again.job.cancel_requested_at) == ((), 21.0)
    over = await tell(store, end, 1, results=(result(),), error_code="node_failed", error_message="x")
    assert (over.job.state, over.job.results, over.job.error_code) == (JobState.CANCELED, (), None)
    assert await store.result_by_link("link-1", now=22.0) is None
    assert await kinds(store) == ["queued", "dispatched", "cancel_requested", "canceled"]


async def test_cancel_recorded_twice_changes_no_row(store):
    await create(store)
    await dispatch(store)
    await tell(store, TaskEvent.CANCEL_REQUESTED, now=21.0)
    before = await everything(store)
    assert (await tell(store, TaskEvent.CANCEL_REQUESTED, now=22.0)).events == ()
    assert await everything(store) == before


# ---- several tasks


async def with_second_task(store):
    def add(connection):
        row = connection.execute(select(tasks)).one()._asdict()
        connection.execute(insert(tasks), {**row, "id": "task-0002", "position": 1})

    await create(store)
    await store._executor.write(add)
    await dispatch(store)
    await dispatch(store, task="task-0002")


async def test_job_ends_with_the_last_of_its_tasks(store):
    await with_second_task(store)
    first = await tell(store, TaskEvent.SUCCEEDED, 1, results=(result(1),))
    assert (first.job.state, first.job.finished_at, first.events) == (JobState.RUNNING, None, ())
    last = await tell(store, TaskEvent.SUCCEEDED, 1, task="task-0002", results=(result(2),))
    assert (last.job.state, last.job.results) == (JobState.SUCCEEDED, (result(1), result(2)))
    assert await kinds(store) == ["queued", "dispatched", "dispatched", "succeeded"]


async def test_failed_job_drops_results_of_its_other_tasks(store):
    await with_second_task(store)
    await tell(store, TaskEvent.SUCCEEDED, 1, results=(result(1),))
    failed = await tell(store, TaskEvent.FAILED, 1, task="task-0002", error_code="node_failed", error_message="x")
    assert (failed.job.state, failed.job.results) == (JobState.FAILED, ())
    assert await store.result_by_link("link-1", now=21.0) is None
    assert (await sweep(store, 30.0)).blobs == ("blob-r-1",)


# ---- clients' own graphs


def early(number=1, *, node="9", source=None, attempt="prompt-a"):
    return replace(
        result(number), node_id=node, name=f"cat_{number}.png", attempt_id=attempt, source=source or f"out/{number}.png"
    )


async def running(store, prompt_id="prompt-a", *, now=20.0):
    """Its next attempt, under this id, at work."""
    sent = await tell(store, TaskEvent.DISPATCHED, now=now, upstream="gpu-1", prompt_id=prompt_id, engine="comfyui")
    await tell(store, TaskEvent.STARTED, sent.task.attempt, now=now)
    return sent.task.attempt


async def test_a_clients_graph_is_kept_beside_its_job_and_forgotten_with_it(store):
    await create(store, workflow='{"graph": {}}')
    await create(store, 2)
    assert await store.workflow("job-0001") == '{"graph": {}}'
    assert await store.workflow("job-0002") is None
    await store.request_cancel("job-0001", ALL, now=20.0)
    await store.purge_job("job-0001")
    assert await store.workflow("job-0001") is None
    assert (await everything(store))["job_graphs"] == []


async def test_outputs_are_the_jobs_while_it_runs_and_stay_when_it_succeeds(store):
    await create(store)
    attempt = await running(store)
    shown = await store.keep_results("task-0001", attempt, [early(1)], now=30.0)
    assert (shown.job.state, shown.job.results) == (JobState.RUNNING, (early(1),))
    assert shown.job == await store.job("job-0001")
    assert await store.result_by_link("link-1", now=1e9) == (shown.job, early(1))  # no end before the job's
    assert shown.events[0].data == {
        "asset_id": "asset-r-1", "node_id": "9", "name": "cat_1.png",
        "link": "link-1", "content_type": "video/mp4", "size_bytes": 55,
    }  # fmt: skip
    done = await tell(store, TaskEvent.SUCCEEDED, attempt, now=100.0, results=(early(2),))
    assert done.job.results == (early(1), early(2))
    assert await kinds(store) == ["queued", "dispatched", "started", "output", "output", "succeeded"]
    for link in ("link-1", "link-2"):
        assert await store.result_by_link(link, now=100.0 + RESULTS - 1) is not None
        assert await store.result_by_link(link, now=100.0 + RESULTS) is None
    assert {"blob-r-1", "blob-r-2"} <= set((await sweep(store, 100.0 + RESULTS)).blobs)


async def test_no_output_is_there_twice_however_often_it_comes(store):
    await create(store)
    attempt = await running(store)
    first, again, third = early(1), early(2, source=early(1).source), early(3, source=early(1).source)
    await store.keep_results("task-0001", attempt, [first, again], now=30.0)
    await store.keep_results("task-0001", attempt, [again], now=31.0)
    done = await tell(store, TaskEvent.SUCCEEDED, attempt, results=(third, early(4, node="8", source=first.source)))
    assert [kept.asset_id for kept in done.job.results] == ["asset-r-1", "asset-r-4"]
    assert (await kinds(store)).count("output") == 2
    gone = (await sweep(store, 1e6)).blobs
    assert {name for name in gone if name.startswith("blob-r")} == {"blob-r-1", "blob-r-4"}  # no other was ever held


@pytest.mark.parametrize("event", [TaskEvent.ATTEMPT_LOST, TaskEvent.INTERRUPTED])
async def test_what_a_lost_attempt_made_is_dropped_and_its_clients_are_told_which(store, event):
    await create(store)
    attempt = await running(store)
    await store.keep_results("task-0001", attempt, [early(1)], now=30.0)
    lost = await tell(store, event, attempt, now=31.0, reason="gone", cause=Cause.DIED)
    assert (lost.job.state, lost.job.results) == (JobState.QUEUED, ())
    assert lost.events[-1].data == {"reason": event.value, "message": "gone", "dropped": ["asset-r-1"]}
    assert await store.result_by_link("link-1", now=32.0) is None
    assert (await sweep(store, 32.0)).blobs == ("blob-r-1",)
    before = await everything(store)
    assert (
        await store.keep_results("task-0001", attempt, [early(2)], now=33.0) is None
    )  # it waits, under the same number
    attempt = await running(store, "prompt-b", now=34.0)
    assert await store.keep_results("task-0001", attempt - 1, [early(2)], now=35.0) is None
    assert (await everything(store))["assets"] == before["assets"]
    await store.keep_results("task-0001", attempt, [early(3, attempt="prompt-b", source=early(1).source)], now=36.0)
    done = await tell(store, TaskEvent.SUCCEEDED, attempt, now=37.0)
    assert [kept.asset_id for kept in done.job.results] == ["asset-r-3"]


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_a_job_that_ends_otherwise_has_no_outputs(store, end):
    await create(store)
    attempt = await running(store)
    await store.keep_results("task-0001", attempt, [early(1)], now=30.0)
    if end == "canceled":
        await store.request_cancel("job-0001", ALL, now=31.0)
        assert await store.keep_results("task-0001", attempt, [early(2)], now=31.0) is None
        ended = await tell(store, TaskEvent.CANCELED, attempt, now=32.0)
    else:
        ended = await tell(
            store, TaskEvent.FAILED, attempt, now=32.0, error_code="node_failed", error_message="x",
            error_node_id="7", error_node_class="KSampler",
        )  # fmt: skip
        assert (ended.job.error_node_id, ended.job.error_node_class) == ("7", "KSampler")
    assert (ended.job.state, ended.job.results) == (JobState(end), ())
    assert ended.job == await store.job("job-0001")
    assert await store.keep_results("task-0001", attempt, [early(2)], now=33.0) is None
    assert (await sweep(store, 33.0)).blobs == ("blob-r-1",)


async def test_nothing_is_kept_early_once_the_end_is_near(store):
    await create(store)
    attempt = await running(store)
    await store.record_outputs("task-0001", attempt, OUTPUTS, now=22.0)
    before = await everything(store)
    assert await store.keep_results("task-0001", attempt, [early(1)], now=23.0) is None
    assert await everything(store) == before


async def test_cancel_reaches_every_task(store):
    await with_second_task(store)
    await tell(store, TaskEvent.ATTEMPT_LOST, 1, task="task-0002")
    canceled = await store.request_cancel("job-0001", ALL, now=22.0)
    assert (canceled.job.state, canceled.task.cancel_requested) == (JobState.DISPATCHED, True)
    over = await tell(store, TaskEvent.CANCELED, 1)
    assert over.job.state is JobState.CANCELED
    assert (await kinds(store))[-2:] == ["cancel_requested", "canceled"]


# ---- the queue


async def test_full_queue_refuses_and_stores_nothing(store):
    for number in (1, 2):
        await store.create_job(new_job(number), max_queue=2, now=10.0)
    before = await everything(store)
    with pytest.raises(QueueFullError):
        await store.create_job(new_job(3), max_queue=2, now=10.0)
    assert await everything(store) == before
    await dispatch(store)
    await store.create_job(new_job(3), max_queue=2, now=10.0)


async def test_expired_queue_deadline_fails_the_job_and_no_running_one(store):
    for number in (1, 2, 3):
        await create(store, number, queue_deadline=100.0 * number)
    await dispatch(store, now=20.0)
    (expired,) = await store.expire_queued(now=200.0)
    assert (expired.job.id, expired.job.error_code) == ("job-0002", "expired")
    assert await store.expire_queued(now=200.0) == []
    assert (await store.job("job-0001")).state is JobState.DISPATCHED


async def test_seconds_ahead_are_those_of_the_tasks_queued_before(store):
    for number, cost in ((1, 2.5), (2, 4.0), (3, 1.0)):
        await create(store, number, now=10.0 + number, cost_seconds=cost)
    assert [await store.seconds_ahead(f"job-000{number}") for number in (1, 2, 3)] == [0.0, 2.5, 6.5]
    await dispatch(store)
    assert await store.seconds_ahead("job-0001") is None
    assert await store.seconds_ahead("job-0003") == 4.0


# ---- what was learned


def timing(number=1, *, template="video", node_class="Swap", upstream="gpu-1", turn=1):
    return Row(Key(template, node_class, number, upstream), (0.1 + number, 1.0, 1 / 3, *[1e-9] * 7), turn)


async def test_learned_rows_come_back_as_they_were(store):
    rows = [timing(), timing(2), timing(1, upstream=""), timing(1, template="*", upstream="")]
    await store.save_timings(rows, [], {})
    assert sorted(await store.timings(), key=repr) == sorted(rows, key=repr)


async def test_learned_rows_are_replaced_and_forgotten_by_their_key(store):
    await store.save_timings([timing(), timing(2)], [], {})
    newer = replace(timing(2), turn=7)
    await store.save_timings([newer], [timing().key, timing(9).key], {})
    assert await store.timings() == [newer]


async def test_cost_of_what_is_queued_of_a_template_follows_what_was_learned(store):
    names = ("video@1", "video@2?choices", "video_b@1", "video@1")
    for number, requirement in enumerate(names, 1):
        await create(store, number, requirement=requirement, cost_seconds=10.0, now=10.0 + number)
    await dispatch(store, task="task-0004")
    await store.save_timings([timing()], [], {"video": 0.25})
    costs = {each.task_id: each.cost_seconds for each in await store.candidates(limit=10)}
    assert costs == {"task-0001": 2.5, "task-0002": 2.5, "task-0003": 10.0}
    assert await store.seconds_ahead("job-0003") == 5.0


async def test_queue_position_counts_those_before(store):
    for number in (1, 2, 3):
        await create(store, number, now=10.0 + number)
    assert [await store.queue_position(f"job-000{number}") for number in (1, 2, 3)] == [0, 1, 2]
    await dispatch(store)
    assert await store.queue_position("job-0001") is None
    assert await store.queue_position("job-0003") == 1


async def test_candidates_are_the_heads_of_each_lane(store):
    for number in range(1, 11):
        await create(store, number, now=float(number), priority=5 if number == 9 else 0)
    await create(store, 11, now=50.0, submitter="bob")
    await create(store, 12, now=51.0, submitter="bob", requirement="other")
    found = await store.candidates(limit=100)
    assert [item.task_id[-2:] for item in found] == ["09", "11", "12", "01", "02", "03"]
    assert found[0].blobs == {"blob-t-0009", "blob-f-0009"}
    assert (found[0].size_bytes, found[0].cost_seconds) == (100, 2.5)
    assert [item.task_id[-2:] for item in await store.candidates(limit=4)] == ["09", "11", "12", "01"]


async def test_what_lost_an_attempt_hides_nothing_new_and_keeps_its_age(store):
    for number in range(1, 11):
        await create(store, number, now=float(number))
    for number in range(1, 6):
        await dispatch(store, task=f"task-{number:04}")
        await tell(store, TaskEvent.ATTEMPT_LOST, 1, task=f"task-{number:04}")
    found = {item.task_id[-2:]: item for item in await store.candidates(limit=100)}
    assert sorted(found) == ["01", "02", "03", "04", "06", "07", "08", "09"]
    assert found["01"].queued_at == 1.0
    await dispatch(store)
    await tell(store, TaskEvent.ATTEMPT_LOST, 2)
    assert {item.task_id[-2:] for item in await store.candidates(limit=100)} == set(found)
    assert await store.queue_position("job-0001") == 0


async def test_more_lanes_than_fit_all_come_into_the_window_in_turn(store):
    for number in range(1, 11):
        await create(store, number, submitter=f"s{number:02}")
    seen = [[item.submitter for item in await store.candidates(limit=4)] for _ in range(3)]
    assert all(len(set(window)) == 4 for window in seen)
    assert len(set().union(*seen)) == 10


async def test_window_costs_no_more_behind_a_long_backlog(store):
    """3000 waiting tasks of one submitter neither hide another's one nor make the look-up longer."""
    await asyncio.gather(*(create(store, number) for number in range(100)))
    await create(store, 9000, submitter="zoe", now=500.0)

    async def steps():
        def count_steps(connection):
            raw, ticks = connection.connection.driver_connection, count()
            raw.set_progress_handler(lambda: next(ticks) and 0, 10)
            found, _ = candidates(connection, 64, "")
            raw.set_progress_handler(None, 0)
            return next(ticks), [item.submitter for item in found]

        return await store._executor.read(count_steps)

    short = await steps()
    await asyncio.gather(*(create(store, number) for number in range(100, 3000)))
    long = await steps()
    assert long[1] == short[1] == ["ann", "zoe", "ann", "ann", "ann"]
    assert long[0] <= short[0] + 5
    assert (await store.counts())[JobState.QUEUED] == 3001


# ---- lists


async def test_owner_sees_own_jobs_newest_first_page_by_page(store):
    for number in range(1, 8):
        await create(store, number, now=10.0 + number // 2, owner="other" if number == 4 else "local")
    await dispatch(store, task="task-0002")
    ids = []
    before = None
    while page := await store.jobs("local", states=None, before=before, limit=2):
        ids += [job.id[-1] for job in page]
        before = page[-1].id
    assert ids == ["7", "6", "5", "3", "2", "1"]
    live = await store.jobs("local", states=frozenset({JobState.DISPATCHED}), before=None, limit=10)
    assert [job.id for job in live] == ["job-0002"]
    assert await store.jobs("local", states=frozenset(), before=None, limit=10) == []
    for stranger in ("job-none", "job-0004"):
        with pytest.raises(InvalidInputError) as refused:
            await store.jobs("local", states=None, before=stranger, limit=2)
        assert refused.value.field == "cursor"


async def test_a_list_of_one_task_leaves_out_the_others_and_takes_no_cursor_of_theirs(store):
    for number in range(1, 7):
        await create(store, number, now=10.0, task="face_detect" if number % 2 else "face_swap")
    options = {"states": None, "task": "face_swap"}
    first = await store.jobs("local", **options, before=None, limit=2)
    rest = await store.jobs("local", **options, before=first[-1].id, limit=2)
    assert [job.id for job in (*first, *rest)] == ["job-0006", "job-0004", "job-0002"]
    with pytest.raises(InvalidInputError):
        await store.jobs("local", **options, before="job-0001", limit=2)


async def test_progress_never_falls_and_never_says_done(store):
    await create(store)
    await store.save_progress([("job-0001", 0.5, "half"), ("job-none", 0.1, "")], now=11.0)
    await store.save_progress([("job-0001", 0.2, "again")], now=12.0)
    job = await store.job("job-0001")
    assert (job.fraction, job.step, job.updated_at) == (0.5, "again", 12.0)
    await store.save_progress([("job-0001", 1.0, "nearly"), ("job-0001", float("nan"), "odd")], now=13.0)
    assert 0.99 < (await store.job("job-0001")).fraction < 1.0


async def test_the_start_of_a_job_raises_its_progress_in_the_same_commit(store):
    await create(store)
    await dispatch(store)
    started = await tell(store, TaskEvent.STARTED, 1, fraction=0.25)
    assert started.job.fraction == (await store.job("job-0001")).fraction == 0.25
    await tell(store, TaskEvent.ATTEMPT_LOST, 1)
    await dispatch(store)
    assert (await tell(store, TaskEvent.STARTED, 2, fraction=0.1)).job.fraction == 0.25, "it never falls"
    await create(store, 2)
    sent = await dispatch(store, task="task-0002")
    assert (await tell(store, TaskEvent.STARTED, 1, task="task-0002", fraction=1.0)).job.fraction < 1.0
    assert sent.job.fraction == 0.0


async def test_progress_survives_the_next_event(store):
    await create(store)
    await dispatch(store)
    await store.save_progress([("job-0001", 0.5, "half")], now=21.0)
    lost = await tell(store, TaskEvent.ATTEMPT_LOST, 1)
    assert (lost.job.fraction, lost.job.step) == (0.5, "half")


# ---- retention


async def test_inputs_live_as_long_as_their_job_waits_and_then_their_retention(store):
    await create(store)
    assert (await sweep(store, 9_000_000.0)).assets == 0
    await store.request_cancel("job-0001", ALL, now=100.0)
    assert (await sweep(store, 99.0 + ASSETS)).assets == 0
    swept = await sweep(store, 100.0 + ASSETS)
    assert (swept.assets, set(swept.blobs)) == (2, {"blob-t-0001", "blob-f-0001"})
    assert (await store.job("job-0001")).inputs == new_job(1).inputs
    assert (await sweep(store, 100.0 + ASSETS)).blobs == ()


async def test_input_of_two_jobs_stays_until_both_have_ended(store):
    shared = new_job(1).inputs
    await create(store, 1)
    await create(store, 2, inputs=shared)
    await store.request_cancel("job-0001", ALL, now=100.0)
    assert (await sweep(store, 100_000.0, jobs=1e9)).assets == 0
    await store.request_cancel("job-0002", ALL, now=200_000.0)
    assert (await sweep(store, 200_000.0 + ASSETS, jobs=1e9)).assets == 2


async def test_blob_of_two_assets_stays_until_both_are_gone(store):
    first, second = new_job(1).inputs["face"], new_job(2).inputs["face"]
    await create(store, 1, inputs={"face": first})
    await create(store, 2, inputs={"face": replace(second, blob=first.blob)})
    await store.request_cancel("job-0001", ALL, now=100.0)
    swept = await sweep(store, 1000.0, jobs=1e9)
    assert (swept.assets, swept.blobs) == (1, ())
    await store.request_cancel("job-0002", ALL, now=2000.0)
    assert (await sweep(store, 3000.0, jobs=1e9)).blobs == (first.blob,)


async def test_result_expires_with_its_retention(store):
    await create(store)
    await dispatch(store)
    await tell(store, TaskEvent.SUCCEEDED, 1, now=100.0, results=(result(),))
    await sweep(store, 100.0 + RESULTS - 1)
    assert await store.result_by_link("link-1", now=150.0) is not None
    assert (await sweep(store, 100.0 + RESULTS)).blobs == ("blob-r-1",)
    assert await store.result_by_link("link-1", now=150.0) is None


async def test_job_past_retention_goes_with_all_it_had(store):
    await create(store)
    await dispatch(store)
    await tell(store, TaskEvent.SUCCEEDED, 1, now=100.0, results=(result(),))
    await create(store, 2)
    swept = await sweep(store, 150.0, jobs=50.0, grace=10.0)
    assert swept.jobs == 1
    assert set(swept.blobs) == {"blob-t-0001", "blob-f-0001", "blob-r-1"}
    left = await everything(store)
    assert {table: len(rows) for table, rows in left.items() if rows and table != "alembic_version"} == {
        "jobs": 1, "tasks": 1, "events": 1, "assets": 2, "blobs": 2, "job_inputs": 2,
    }  # fmt: skip


async def test_touched_blob_is_kept_for_its_grace(store):
    await store.touch_blob(Blob("blob-t-0001", 100), now=100.0)
    assert (await sweep(store, 109.0, grace=10.0)).blobs == ()
    await store.touch_blob(Blob("blob-t-0001", 100), now=109.0)
    assert (await sweep(store, 110.0, grace=10.0)).blobs == ()
    await create(store, now=110.0)
    assert (await sweep(store, 900.0, grace=10.0)).blobs == ()
    await store.touch_blob(Blob("blob-x", 1), now=110.0)
    assert (await sweep(store, 900.0, grace=10.0)).blobs == ("blob-x",)


# ---- templates, upstreams


async def test_template_versions_stay_as_first_saved(store):
    await store.save_template("swap", "v1", "toml", "graph", now=1.0)
    await store.save_template("swap", "v1", "other", "other", now=2.0)
    assert await store.template("swap", "v1") == ("toml", "graph")
    assert await store.template("swap", "v2") is None


async def test_upstream_keeps_its_client_id(store):
    made = await store.upstream("gpu-1", now=1.0)
    added = await store.upstream("gpu-2", url="http://gpu-2:8188", now=1.0)
    assert await store.upstream("gpu-1", now=2.0) == made
    assert made.client_id != added.client_id
    assert await store.upstream("gpu-2", now=2.0) == added
    changed = await store.set_upstream("gpu-2", draining=True, now=3.0)
    assert changed == replace(added, draining=True)
    assert await store.set_upstream("gpu-2", removed=True, now=3.0) == replace(changed, removed=True)
    assert await store.set_upstream("gpu-9", removed=True, now=3.0) is None
    assert [row.name for row in await store.upstreams()] == ["gpu-1", "gpu-2"]


# ---- purging


async def succeed(store, number, *, now=40.0):
    """A job that ran to its end, with one result."""
    task = f"task-{number:04}"
    await dispatch(store, task=task)
    await tell(store, TaskEvent.STARTED, 1, task=task)
    return await tell(store, TaskEvent.SUCCEEDED, 1, task=task, now=now, results=(result(number),))


async def counts_of_rows(store):
    return {table: len(rows) for table, rows in (await everything(store)).items() if not table.startswith("alembic")}


async def test_purged_job_leaves_no_row_and_names_the_bytes_that_may_go(store):
    before = await counts_of_rows(store)
    await create(store)
    await succeed(store, 1)
    purged = await store.purge_job("job-0001")
    assert purged == Purged(
        jobs=1,
        assets=3,
        blobs=(LooseBlob("blob-f-0001", 10.0), LooseBlob("blob-r-1", 40.0), LooseBlob("blob-t-0001", 10.0)),
    )
    assert await counts_of_rows(store) == before
    assert await store.purge_job("job-0001") is None


@pytest.mark.parametrize("how_far", ["queued", "dispatched", "running"])
async def test_live_job_is_not_purged_and_nothing_changes(store, how_far):
    await create(store)
    if how_far != "queued":
        await dispatch(store)
    if how_far == "running":
        await tell(store, TaskEvent.STARTED, 1)
    before = await everything(store)
    with pytest.raises(ConflictError, match=f"{how_far}.*cancel it first"):
        await store.purge_job("job-0001")
    with pytest.raises(ConflictError, match="1 job of this owner has not ended"):
        await store.purge_owner("local")
    assert await everything(store) == before


async def test_in_use_is_what_open_jobs_were_given_and_what_open_tasks_tried(store):
    shared = new_job(1).inputs["face"]
    await create(store, 1)
    await create(store, 2, inputs={"target": new_job(2).inputs["target"], "face": shared})
    lost = (await dispatch(store)).task
    await tell(store, TaskEvent.ATTEMPT_LOST, lost.attempt, reason="gone", cause=Cause.DIED)
    again = (await dispatch(store)).task
    blobs = [f"blob-{role}-000{number}" for role in "tf" for number in (1, 2)]
    asked = [lost.prompt_id, again.prompt_id, "nobody's"]
    everything_needed = {"blob-t-0001", "blob-f-0001", "blob-t-0002", lost.prompt_id, again.prompt_id}
    assert await store.in_use([*blobs, "blob-of-nobody"], asked) == everything_needed
    assert await store.in_use(["blob-t-0001"], []) == {"blob-t-0001"}
    assert await store.in_use([], []) == frozenset()
    await tell(store, TaskEvent.FAILED, again.attempt, error_code="node_failed", error_message="It broke.")
    assert await store.in_use(blobs, asked) == {"blob-t-0002", "blob-f-0001"}
    await store.request_cancel("job-0002", ALL, now=30.0)
    assert await store.in_use(blobs, asked) == frozenset()
    many = [f"blob-{number}" for number in range(1200)]
    assert await store.in_use(many, many) == frozenset()


async def test_purge_spares_what_another_job_names(store):
    shared = new_job(1).inputs["face"]
    await create(store, 1)
    await create(store, 2, inputs={"target": new_job(2).inputs["target"], "face": shared})
    # The same bytes under an asset of its own.
    await create(store, 3, inputs={"target": replace(new_job(3).inputs["target"], blob="blob-t-0001")})
    await store.request_cancel("job-0001", ALL, now=30.0)
    purged = await store.purge_job("job-0001")
    assert (purged.assets, purged.blobs) == (1, ())
    assert [job.id for job in await store.jobs("local", states=None, before=None, limit=9)] == ["job-0003", "job-0002"]
    await store.request_cancel("job-0002", ALL, now=30.0)
    purged = await store.purge_job("job-0002")
    assert {loose.hash for loose in purged.blobs} == {"blob-f-0001", "blob-t-0002"}


async def test_purged_owner_is_gone_batch_by_batch_and_others_stay(store):
    for number in range(1, 121):
        await create(store, number, owner="ann")
        await store.request_cancel(f"job-{number:04}", ALL, now=30.0)
    await create(store, 900, owner="bob")
    jobs, hashes = 0, set()
    while (purged := await store.purge_owner("ann")).jobs or purged.assets:
        assert purged.jobs <= 50
        jobs += purged.jobs
        hashes |= {loose.hash for loose in purged.blobs}
    assert (jobs, len(hashes)) == (120, 240)
    assert await store.jobs("ann", states=None, before=None, limit=9) == []
    assert (await store.job("job-0900")).state is JobState.QUEUED
    assert (await counts_of_rows(store))["assets"] == 2
    assert await store.purge_owner("nobody") == Purged(jobs=0, assets=0, blobs=())


async def test_owners_file_whose_job_is_forgotten_already_goes_too(store):
    await create(store, 1, owner="ann")
    await succeed(store, 1)
    # Its retention over, the job is swept; its inputs, which expire later here, are not.
    await store._executor.write(lambda connection: connection.exec_driver_sql("UPDATE assets SET expires_at = 1e9"))
    await sweep(store, 1000.0, jobs=10.0)
    assert await store.job("job-0001") is None
    purged = await store.purge_owner("ann")
    assert (purged.jobs, {loose.hash for loose in purged.blobs}) == (0, {"blob-t-0001", "blob-f-0001"})


# ---- copying


async def test_copy_is_one_state_while_others_write_and_speaks_of_its_blobs(store, tmp_path):
    for number in range(1, 4):
        await create(store, number)
    await store.touch_blob(Blob("loose", 5), now=10.0)
    path = tmp_path / "copy.db"
    await asyncio.gather(store.copy_to(path), *(create(store, number) for number in range(4, 30)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as copy:
        kept = [row[0] for row in copy.execute("SELECT id FROM jobs ORDER BY id DESC")]
    assert kept == [f"job-{number:04}" for number in range(len(kept), 0, -1)]
    assert len(kept) >= 3
    names = [f"blob-{role}-{number:04}" for role in "ft" for number in range(1, len(kept) + 1)]
    first = await store.blobs_of_copy(path, after="", limit=4)
    assert [blob.hash for blob in first] == names[:4]
    rest = await store.blobs_of_copy(path, after=first[-1].hash, limit=99)
    assert [(blob.hash, blob.size_bytes) for blob in [*first, *rest]] == [
        (name, 7 if "-f-" in name else 100) for name in names
    ]


async def test_copy_of_a_purged_job_holds_no_trace_of_it(store, tmp_path):
    await create(store, extra={"note": "erase-me-please"})
    await store.request_cancel("job-0001", ALL, now=30.0)
    await store.purge_job("job-0001")
    await store.copy_to(tmp_path / "copy.db")
    assert b"erase-me-please" not in (tmp_path / "copy.db").read_bytes()


# ---- executors


async def test_failed_write_changes_nothing_and_spoils_no_other(store):
    async def doubled():
        with pytest.raises(Exception, match="UNIQUE"):
            await create(store, 1)

    await create(store, 1)
    await asyncio.gather(create(store, 2), doubled(), create(store, 3))
    assert (await store.counts())[JobState.QUEUED] == 3


async def test_value_that_json_cannot_say_is_the_callers_fault(store):
    with pytest.raises(InvalidInputError):
        await create(store, parameters={"seed": 2**70})
    assert await store.job("job-0001") is None


async def test_dispatch_without_prompt_id_is_refused(store):
    await create(store)
    before = await everything(store)
    with pytest.raises(ValueError, match="prompt id"):
        await tell(store, TaskEvent.DISPATCHED)
    assert await everything(store) == before


def _script(path):
    return f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import SqlStore, create
from pathlib import Path
async def main():
    store = await SqlStore.open(Path({str(path)!r}), result_retention_seconds=1, asset_retention_seconds=1)
    async def one(number):
        await create(store, number)
        print(number, flush=True)
    await asyncio.gather(*(one(number) for number in range(2000)))
asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path):
    path = tmp_path / "gateway.db"
    process = subprocess.Popen([sys.executable, "-c", _script(path)], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - nothing else runs in this loop
    acknowledged = [int(process.stdout.readline()) for _ in range(150)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.communicate()[0].splitlines() if line]
    store = await SqlStore.open(path, result_retention_seconds=1, asset_retention_seconds=1)
    kept = {job.id for job in await store.jobs("local", states=None, before=None, limit=5000)}
    assert {f"job-{number:04}" for number in acknowledged} <= kept
    assert (await store.counts())[JobState.QUEUED] == len(kept) < 2000
    await store.close()


async def test_inline_and_file_hold_the_same_tables(tmp_path):
    executors = InlineExecutor(), SqliteExecutor(tmp_path / "gateway.db")
    await executors[1].start()

    def look(connection):
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'")
        return {name for name, sql in rows if sql}

    assert await executors[0].read(look) == await executors[1].read(look)
    for executor in executors:
        await executor.close()


async def test_file_is_ours_alone_and_closed_store_refuses(tmp_path):
    path = tmp_path / "gateway.db"
    path.touch(mode=0o644)
    store = await SqlStore.open(path, result_retention_seconds=1, asset_retention_seconds=1)
    await create(store)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["gateway.db", "gateway.db-shm", "gateway.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await store.close()
    await store.close()
    assert sorted(tmp_path.iterdir()) == [path]
    with pytest.raises(ShuttingDownError):
        await create(store, 2)
    with pytest.raises(ShuttingDownError):
        await store.job("job-0001")
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    raw.close()


async def test_blob_is_forgotten_only_while_no_asset_refers_to_it(store):
    await create(store)
    await store.touch_blob(Blob("loose", 5), now=10.0)
    assert not await store.forget_blob("blob-t-0001")
    assert await store.forget_blob("loose")
    assert await store.forget_blob("never heard of")
    swept = await store.sweep(job_retention_seconds=1e9, blob_grace_seconds=0.0, now=1e6)
    assert "loose" not in swept.blobs

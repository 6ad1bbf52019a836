"""What every store promises of records of consent, over each executor."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.audit import MediaFacts, MediaKind
from gateway.consent import Attestation, ConsentRecord
from gateway.errors import InvalidInputError, QueueFullError
from gateway.interfaces import NewJob, Report
from gateway.job import JobInput, JobResult, JobState, RetryLimits, TaskEvent
from gateway.store.sql_store import SqlStore

FACTS = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 64, 48, 1, None, None, has_audio=False, video_codec=None)
LIMITS = RetryLimits(max_attempts=2, max_interruptions=4)
LIVE = frozenset(JobState) - {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path):
    if request.param == "file":
        made = await SqlStore.open(
            tmp_path / "gateway.db", result_retention_seconds=100.0, asset_retention_seconds=50.0
        )
    else:
        made = SqlStore.in_memory()
    yield made
    await made.close()


# ---- words


async def create(store, number=1, *, consent=Attestation.FIELD, owner="k-ann", now=10.0, max_queue=100):
    new = NewJob(
        id=f"job-{number}",
        task_id=f"task-{number}",
        owner=owner,
        submitter="ann",
        dialect="faceswap",
        task="face_swap",
        template="faceswap_image",
        template_version="v1",
        priority=0,
        parameters={},
        inputs={
            "target": JobInput(f"a-t-{number}", f"hash-t-{number}", 100, FACTS),
            "face": JobInput(f"a-f-{number}", f"hash-f-{number}", 7, FACTS),
        },
        output_name="out",
        queue_deadline=1000.0,
        requirement="needs",
        cost_seconds=2.5,
        consent=consent,
    )
    await store.create_job(new, max_queue=max_queue, now=now)


async def tell(store, number, event, *, now=20.0, **said):
    return await store.record(f"task-{number}", Report(event, **said), limits=LIMITS, now=now)


async def run(store, number=1, *, now=20.0, end=TaskEvent.SUCCEEDED, **said):
    await tell(store, number, TaskEvent.DISPATCHED, upstream="gpu-1", prompt_id=f"prompt-{number}", engine="comfyui")
    await tell(store, number, end, attempt=1, now=now, **said)


def result(number=1):
    return JobResult(f"a-r-{number}", f"hash-r-{number}", 55, FACTS, f"link-{number}")


async def page(store, *, owner=None, since=0.0, after=None, limit=100):
    return [one.job_id for one in await store.consents.records(owner=owner, since=since, after=after, limit=limit)]


# ---- a record's life


@pytest.mark.parametrize("attested", list(Attestation))
async def test_what_was_said_is_kept_with_the_job_and_completed_with_its_end(store, attested):
    await create(store, consent=attested)
    begun = ConsentRecord(
        job_id="job-1",
        owner="k-ann",
        dialect="faceswap",
        attested=attested,
        at=10.0,
        inputs={"target": "hash-t-1", "face": "hash-f-1"},
    )
    assert await store.consents.record("job-1") == begun
    await run(store, results=(result(),))
    ended = await store.consents.record("job-1")
    assert (ended.at, ended.inputs) == (begun.at, begun.inputs)
    assert (ended.ended_at, ended.state, ended.outputs) == (20.0, "succeeded", ("hash-r-1",))


async def test_a_job_that_fails_or_is_canceled_has_no_outputs_and_says_how_it_ended(store):
    await create(store, 1)
    await run(store, 1, end=TaskEvent.FAILED, error_code="node_failed", error_message="No.")
    await create(store, 2)
    await store.request_cancel("job-2", LIVE, now=20.0)
    records = await store.consents.records(owner=None, since=0.0, after=None, limit=10)
    assert [(one.state, one.outputs) for one in records] == [("failed", ()), ("canceled", ())]


async def test_where_nothing_is_said_or_no_job_is_made_nothing_is_kept(store):
    await create(store, 1, consent=None)
    await run(store, 1)
    with pytest.raises(QueueFullError):
        await create(store, 2, max_queue=0)
    assert await page(store) == []


async def test_the_record_outlives_its_job_and_goes_when_its_own_time_is_over(store):
    await create(store)
    await run(store, now=20.0)
    swept = await store.sweep(job_retention_seconds=10.0, blob_grace_seconds=0.0, now=500.0)
    assert swept.jobs == 1
    assert await store.consents.sweep(before=19.0) == 0
    assert (await store.consents.record("job-1")).state == "succeeded"
    assert await store.consents.sweep(before=20.0) == 1
    assert await store.consents.record("job-1") is None


async def test_a_job_under_way_keeps_its_record_however_old(store):
    await create(store)
    assert await store.consents.sweep(before=10_000.0) == 0
    assert await store.consents.forget("job-1") == 0
    assert await store.consents.forget_owner("k-ann") == 0
    assert await page(store) == ["job-1"]


async def test_a_purge_leaves_records_and_they_are_forgotten_when_that_is_asked(store):
    for number, owner in ((1, "k-ann"), (2, "k-ann"), (3, "k-eve")):
        await create(store, number, owner=owner)
        await run(store, number)
    await store.purge_job("job-1")
    await store.purge_owner("k-ann")
    assert await page(store) == ["job-1", "job-2", "job-3"]
    assert await store.consents.forget("job-1") == 1
    assert await store.consents.forget_owner("k-ann") == 1
    assert await page(store) == ["job-3"]


# ---- lists


async def test_records_come_oldest_first_page_by_page_of_an_owner_and_since_a_time(store):
    for number, (owner, at) in enumerate([("k-ann", 10.0), ("k-eve", 30.0), ("k-ann", 20.0), ("k-ann", 20.0)], 1):
        await create(store, number, owner=owner, now=at)
    assert await page(store) == ["job-1", "job-3", "job-4", "job-2"]
    assert await page(store, limit=2) == ["job-1", "job-3"]
    assert await page(store, after="job-3") == ["job-4", "job-2"]
    assert await page(store, owner="k-ann", since=20.0) == ["job-3", "job-4"]
    assert await page(store, since=20.0, after="job-1") == ["job-3", "job-4", "job-2"]
    assert await page(store, since=30.1) == []
    with pytest.raises(InvalidInputError) as refusal:
        await page(store, after="job-9")
    assert refusal.value.field == "after"


@pytest.mark.parametrize(("owner", "index"), [(None, "ix_consents_at"), ("k-ann", "ix_consents_owner")])
async def test_lists_are_read_from_an_index(store, owner, index):
    def plan(connection):
        where = "" if owner is None else f"owner = '{owner}' AND "
        found = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN SELECT * FROM consents WHERE {where}(at, job_id) > (1.0, 'x') ORDER BY at, job_id LIMIT 5"  # noqa: S608 - ours
        )
        return " ".join(row[3] for row in found)

    told = await store._executor.read(plan)
    assert index in told
    assert "TEMP B-TREE" not in told


async def test_a_copy_holds_them(tmp_path):
    store = await SqlStore.open(tmp_path / "gateway.db", result_retention_seconds=1.0, asset_retention_seconds=1.0)
    try:
        await create(store)
        await store.copy_to(Path(tmp_path / "copy.db"))
    finally:
        await store.close()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT job_id, attested FROM consents").fetchall() == [("job-1", "field")]

"""What every store promises of deliveries, over each executor."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from gateway.audit import MediaFacts, MediaKind
from gateway.delivering import Answer, Chosen, DeliveryState, Reason, to_named, to_urls
from gateway.errors import ConflictError
from gateway.interfaces import NewJob, Report
from gateway.job import JobInput, JobResult, RetryLimits, TaskEvent
from gateway.outbox import Again, Dead, Delivered
from gateway.store.sql_store import SqlStore

FACTS = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 64, 48, 1, None, None, has_audio=False, video_codec=None)
LIMITS = RetryLimits(max_attempts=2, max_interruptions=4)
NOON = 1_750_248_000.0
OK, DOWN = Answer(Reason.ANSWERED, 201), Answer(Reason.UNREACHABLE)
TO_URL = to_urls(["aa"], ["https://h.example.net/1"], ["h.example.net:443"])


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("deliveries") / "empty.db"

    async def make():
        store = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
        await store.close()

    asyncio.run(make())
    return path


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, empty_file):
    if request.param == "file":
        path = Path(shutil.copy(empty_file, tmp_path / "gateway.db"))
        made = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
    else:
        made = SqlStore.in_memory(result_retention_seconds=100.0, asset_retention_seconds=50.0)
    yield made
    await made.close()


async def succeed(store, number=1, *, wish=TO_URL, owner="local", outputs=1, now=NOON):
    """A job that ends well at ``now``."""
    new = NewJob(
        id=f"job-{number}",
        task_id=f"task-{number}",
        owner=owner,
        submitter=owner,
        dialect="faceswap",
        task="face_swap",
        template="faceswap_image",
        template_version="v1",
        priority=0,
        parameters={},
        inputs={"target": JobInput(f"asset-{number}", f"blob-{number}", 100, FACTS)},
        output_name="out",
        queue_deadline=NOON + 1000.0,
        requirement="needs",
        cost_seconds=1.0,
        extra={"deliver_to": wish} if wish else {},
    )
    await store.create_job(new, max_queue=100_000, now=now)
    sent = Report(TaskEvent.DISPATCHED, attempt=0, upstream="gpu", prompt_id=f"p-{number}", engine="comfyui")
    await store.record(f"task-{number}", sent, limits=LIMITS, now=now)
    results = tuple(
        JobResult(f"result-{number}-{place}", f"made-{number}-{place}", 5, FACTS, f"out_{number}_{place}.png")
        for place in range(outputs)
    )
    done = Report(TaskEvent.SUCCEEDED, attempt=1, results=results)
    return await store.record(f"task-{number}", done, limits=LIMITS, now=now)


async def due(store, now=NOON, **without):
    return await store.deliveries.due(now=now, limit=100, **without)


async def the(store, number=1):
    (found,) = await store.deliveries.of_jobs([f"job-{number}"])
    return found


def ids(found):
    return [delivery.job_id for delivery in found]


async def kinds(store, number=1):
    return [event.kind.value for event in await store.events_after(f"job-{number}", 0)]


async def test_a_delivery_is_there_with_its_job_s_success(store):
    await succeed(store)
    (found,) = await due(store)
    assert (found.job_id, found.state, found.attempts, found.next_at) == ("job-1", DeliveryState.PENDING, 0, NOON)
    assert (found.place, found.host, found.file_name) == ("https://h.example.net/1", "h.example.net:443", "out.png")
    assert await store.deliveries.is_pending("job-1")
    await succeed(store, 2, wish=None)
    assert await store.deliveries.of_jobs(["job-2"]) == []
    assert not await store.deliveries.is_pending("job-2")


async def test_of_more_outputs_than_urls_the_rest_is_told_at_once(store):
    recorded = await succeed(store, outputs=2)
    one, two = await store.deliveries.of_jobs(["job-1"])
    assert (one.state, two.state, two.reason) == (DeliveryState.PENDING, DeliveryState.FAILED, Reason.NO_URL)
    assert [event.kind.value for event in recorded.events][-2:] == ["succeeded", "upload_failed"]
    with pytest.raises(ConflictError, match="no URL"):
        await store.deliveries.redeliver(two.id, "local", now=NOON)


async def test_what_is_due_leaves_out_owners_hosts_and_what_is_under_way(store):
    await succeed(store, 1)
    await succeed(store, 2, owner="ann", now=NOON + 1)
    await succeed(store, 3, wish=to_named("archive", Chosen.KEY), now=NOON + 2)
    later = NOON + 10
    assert ids(await due(store, later)) == ["job-1", "job-2", "job-3"]
    assert ids(await due(store, NOON + 1)) == ["job-1", "job-2"]
    assert ids(await due(store, later, without_owners={"ann"})) == ["job-1", "job-3"]
    assert ids(await due(store, later, without_hosts={"target:archive"})) == ["job-1", "job-2"]
    assert ids(await due(store, later, without={(await the(store)).id})) == ["job-2", "job-3"]
    assert await store.deliveries.next_due(without_hosts={"h.example.net:443"}) == NOON + 2
    assert await store.deliveries.next_due(without_owners={"ann", "local"}) is None


async def test_an_attempt_in_vain_comes_again_and_says_nothing(store):
    await succeed(store)
    told = await store.deliveries.record(await the(store), DOWN, Again(NOON + 5), now=NOON + 1)
    assert told == (True, None)
    found = await the(store)
    assert (found.attempts, found.next_at, found.last_at, found.reason) == (1, NOON + 5, NOON + 1, Reason.UNREACHABLE)
    assert await due(store, NOON + 4) == []
    assert (await kinds(store))[-1] == "succeeded"


@pytest.mark.parametrize(
    ("answer", "verdict", "kind", "state"),
    [
        (OK, Delivered(), "uploaded", DeliveryState.DELIVERED),
        (DOWN, Dead(), "upload_failed", DeliveryState.FAILED),
    ],
)
async def test_the_end_is_one_numbered_event_after_the_job_s(store, answer, verdict, kind, state):
    ended = await succeed(store)
    seen = await the(store)
    is_new, event = await store.deliveries.record(seen, answer, verdict, now=NOON + 1)
    assert is_new
    assert (event.number, event.kind.value) == (ended.job.last_event + 1, kind)
    assert (await store.job("job-1")).last_event == event.number
    assert (await store.events_after("job-1", ended.job.last_event)) == [event]
    assert ((await the(store)).state, (await the(store)).next_at) == (state, None)
    # Whoever saw it as it was before changes nothing and says nothing.
    assert await store.deliveries.record(seen, OK, Delivered(), now=NOON + 2) == (False, None)
    assert (await kinds(store)).count(kind) == 1


async def test_a_place_that_is_known_only_now_is_kept(store):
    await succeed(store, wish=to_named("archive", Chosen.JOB))
    there = Answer(Reason.ANSWERED, 200, place="s3://b/job-1/out.png")
    _, event = await store.deliveries.record(await the(store), there, Delivered(), now=NOON)
    assert (await the(store)).place == event.data["place"] == "s3://b/job-1/out.png"


async def test_no_place_with_a_query_is_ever_kept(store):
    await succeed(store, wish=to_named("archive", Chosen.JOB))
    told = Answer(Reason.ANSWERED, 200, place="https://b/x?X-Amz-Signature=1")
    with pytest.raises(IntegrityError):
        await store.deliveries.record(await the(store), told, Delivered(), now=NOON)


async def test_what_was_given_up_is_delivered_from_the_beginning(store):
    await succeed(store)
    await store.deliveries.record(await the(store), DOWN, Dead(), now=NOON)
    wanted = (await the(store)).id
    assert await store.deliveries.redeliver(wanted, "ann", now=NOON + 9) is None
    assert await store.deliveries.redeliver("dlv_none", None, now=NOON + 9) is None
    again = await store.deliveries.redeliver(wanted, None, now=NOON + 9)
    assert again == await the(store)
    assert (again.state, again.attempts, again.next_at) == (DeliveryState.PENDING, 0, NOON + 9)


async def test_one_that_waits_is_brought_forward_with_its_count(store):
    await succeed(store)
    await store.deliveries.record(await the(store), DOWN, Again(NOON + 500), now=NOON)
    await store.deliveries.redeliver((await the(store)).id, "local", now=NOON + 9)
    assert [(one.attempts, one.next_at) for one in await due(store, NOON + 9)] == [(1, NOON + 9)]


async def test_lists_are_an_owner_s_newest_first_and_paged(store):
    for number in range(1, 5):
        await succeed(store, number, owner="ann" if number % 2 else "bob", now=NOON + number)
    listed = store.deliveries.listed
    assert ids(await listed("ann", state=None, before=None, limit=9)) == ["job-3", "job-1"]
    assert ids(await listed(None, state=None, before=None, limit=2)) == ["job-4", "job-3"]
    after = (await the(store, 3)).id
    assert ids(await listed(None, state=None, before=after, limit=9)) == ["job-2", "job-1"]
    assert await listed("bob", state=None, before=after, limit=9) == []
    await store.deliveries.record(await the(store, 2), DOWN, Dead(), now=NOON)
    assert ids(await listed(None, state=DeliveryState.FAILED, before=None, limit=9)) == ["job-2"]


async def sweep(store, now):
    swept = await store.sweep(job_retention_seconds=1000.0, blob_grace_seconds=0.0, now=now)
    return swept.jobs, swept.assets


async def test_retention_waits_for_a_delivery_and_for_nothing_else(store):
    await succeed(store, 1)
    await succeed(store, 2, wish=None)
    assert await sweep(store, NOON + 101) == (0, 3)  # two inputs and the other's result
    assert await sweep(store, NOON + 1001) == (1, 0)
    await store.deliveries.record(await the(store), OK, Delivered(), now=NOON)
    assert await sweep(store, NOON + 101) == (0, 1)
    assert await sweep(store, NOON + 1001) == (1, 0)
    assert await store.deliveries.of_jobs(["job-1"]) == []


async def test_a_file_that_is_gone_is_delivered_no_more(store):
    await succeed(store)
    await store.deliveries.record(await the(store), DOWN, Dead(), now=NOON)
    await sweep(store, NOON + 101)
    with pytest.raises(ConflictError, match="not kept"):
        await store.deliveries.redeliver((await the(store)).id, "local", now=NOON + 102)


async def test_a_purge_takes_deliveries_along(store):
    await succeed(store, 1)
    await succeed(store, 2)
    await store.purge_job("job-1")
    assert ids(await due(store)) == ["job-2"]
    await store.purge_owner("local")
    assert await due(store) == []

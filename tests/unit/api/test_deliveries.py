"""Deliveries over ``/-/``, for their owners and for the operator, and streams that stay for them."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest

from gateway.api.following import STAY_SECONDS, Signal, Until, follow
from gateway.delivering import Chosen, Delivery, DeliveryState, Reason, to_named
from gateway.events import Event, EventKind
from gateway.settings import from_mapping
from tests.fakes.clock import FrozenClock
from tests.fakes.fake_service import NOW, FakeService
from tests.tools.asgi import TOKEN, ask, make

WISH = {"deliver_to": to_named("archive", Chosen.JOB)}
FAILED = Delivery(
    "dlv_019a0000-0000-7000-8000-000000000001_0", "019a0000-0000-7000-8000-000000000001", "local", 0, "asset", "a.png", "archive", "target:archive", None,
    DeliveryState.FAILED, 10, None, NOW, NOW + 1, 503, Reason.ANSWERED,
)  # fmt: skip
THEIRS = replace(FAILED, id="dlv_019a0000-0000-7000-8000-000000000002_11", owner="k-eve")


@pytest.fixture
def gateway():
    return make()


async def test_deliveries_are_told_as_they_are(gateway):
    app, service = gateway
    service.delivery_store.stored = [FAILED, THEIRS]
    page = (await ask(app, "GET", "/-/deliveries")).json
    assert page == {
        "deliveries": [
            {
                "id": FAILED.id,
                "asset_id": "asset",
                "name": "a.png",
                "target": "archive",
                "place": None,
                "state": "failed",
                "attempts": 10,
                "next_at": None,
                "last_at": "2025-06-18T15:00:01.000Z",
                "last_status": 503,
                "reason": "answered",
                "job": FAILED.job_id,
                "owner": "local",
                "created_at": "2025-06-18T15:00:00.000Z",
            }
        ],
        "next": None,
    }


async def test_the_operator_sees_and_mends_everybody_s(gateway):
    app, service = gateway
    service.delivery_store.stored = [FAILED, THEIRS]
    told = (await ask(app, "GET", "/-/deliveries", authorization=f"Bearer {TOKEN}")).json["deliveries"]
    assert [one["id"] for one in told] == [FAILED.id, THEIRS.id]
    assert (await ask(app, "POST", f"/-/deliveries/{THEIRS.id}/redeliver")).status == 404
    mended = await ask(app, "POST", f"/-/deliveries/{THEIRS.id}/redeliver", authorization=f"Bearer {TOKEN}")
    assert (mended.status, mended.json["state"], mended.json["attempts"]) == (202, "pending", 0)
    assert (await ask(app, "POST", f"/-/deliveries/{FAILED.id}/redeliver")).status == 202


async def test_pages_follow_one_another(gateway):
    app, service = gateway
    service.delivery_store.stored = [replace(FAILED, id=f"dlv_{number}") for number in range(5)]
    seen, before = [], ""
    while before is not None:
        page = (await ask(app, "GET", f"/-/deliveries?limit=2&before={before}&state=failed")).json
        seen += [one["id"] for one in page["deliveries"]]
        before = page["next"]
    assert seen == [f"dlv_{number}" for number in range(5)]


@pytest.mark.parametrize(("query", "field"), [("state=dead", "state"), ("limit=0", "limit"), ("limit=101", "limit")])
async def test_a_query_that_cannot_be_is_refused_with_its_field(gateway, query, field):
    answer = await ask(gateway[0], "GET", f"/-/deliveries?{query}")
    assert (answer.status, answer.json["field"]) == (400, field)


async def test_a_job_shows_its_deliveries_in_its_own_body_and_in_lists(gateway):
    app, service = gateway
    job = service.put(extra=WISH)
    service.succeed(job.id)
    service.deliver(job.id)
    plain = service.put()
    one = (await ask(app, "GET", f"/-/jobs/{job.id}")).json
    listed = {job["id"]: job for job in (await ask(app, "GET", "/-/jobs")).json["jobs"]}
    assert one["deliver_to"] == listed[job.id]["deliver_to"] == "archive"
    assert [told["state"] for told in one["deliveries"]] == ["delivered"]
    assert one["deliveries"] == listed[job.id]["deliveries"]
    assert not {"deliver_to", "deliveries"} & listed[plain.id].keys()


async def test_a_status_is_kept_ready_only_when_no_delivery_is_pending(gateway):
    app, service = gateway
    job = service.put(extra=WISH)
    service.succeed(job.id)
    service.deliver(job.id, "pending")
    assert (await ask(app, "GET", f"/status/{job.id}")).json["deliveries"][0]["attempts"] == 1
    service.delivery_store.stored = [replace(one, attempts=2) for one in service.delivery_store.stored]
    assert (await ask(app, "GET", f"/status/{job.id}")).json["deliveries"][0]["attempts"] == 2


# ---- streams


def ended(service, state=None):
    job = service.put(extra=WISH)
    service.succeed(job.id)
    if state is not None:
        service.deliver(job.id, state)
    return service.stored[job.id]


async def kinds(service, job, after, until):
    async with aclosing(follow(service, job, after, until=until)) as items:
        return [item.kind.value if isinstance(item, Event) else item async for item in items]


@pytest.fixture
def service():
    made = FakeService(from_mapping({}))
    made.clock = FrozenClock(NOW)
    return made


async def test_what_became_of_files_is_told_to_those_who_know_the_word(service):
    job = ended(service, "delivered")
    assert await kinds(service, job, 1, Until.END) == ["succeeded"]
    assert await kinds(service, job, 1, Until.TOLD) == ["succeeded", "uploaded"]
    assert await kinds(service, job, 1, Until.DELIVERED) == ["succeeded", "uploaded"]
    assert await kinds(service, job, 2, Until.DELIVERED) == ["uploaded"]


async def test_one_who_does_not_wait_is_told_what_there_is(service):
    job = ended(service, "pending")
    assert await kinds(service, job, 1, Until.TOLD) == ["succeeded"]


async def test_a_stream_stays_until_the_delivery_is_over(service):
    job = ended(service, "pending")
    async with aclosing(follow(service, job, 1, until=Until.DELIVERED)) as items:
        assert (await anext(items)).kind is EventKind.SUCCEEDED
        coming = anext(items)
        service.deliver(job.id)
        assert (await coming).kind is EventKind.UPLOADED
        assert [item async for item in items] == []


async def test_a_stream_of_a_job_at_work_stays_as_well(service):
    job = service.put(extra=WISH)
    async with aclosing(follow(service, job, 1, until=Until.DELIVERED)) as items:
        coming = anext(items)
        service.delivery_store.stored = [replace(FAILED, job_id=job.id, state=DeliveryState.PENDING)]
        service.succeed(job.id)
        assert (await coming).kind is EventKind.SUCCEEDED
        coming = anext(items)
        service.deliver(job.id, "failed")
        assert (await coming).kind is EventKind.UPLOAD_FAILED
        assert [item async for item in items] == []


async def test_nobody_stays_for_days(service):
    job = ended(service, "pending")
    told = []
    async with aclosing(follow(service, job, 2, until=Until.DELIVERED, heartbeat_seconds=0.01)) as items:
        async for item in items:
            told.append(item)
            service.clock.advance(STAY_SECONDS / 3)
    assert told == [Signal.HEARTBEAT] * 3


async def test_who_comes_back_after_the_end_waits_again_while_there_is_something_to_wait_for(gateway):
    app, service = gateway
    job = ended(service, "pending")
    path = f"/-/jobs/{job.id}/events"
    service.stopping.set()  # so that the stream ends by itself
    waiting = await ask(app, "GET", path, last_event_id=str(job.last_event))
    assert (waiting.status, b"shutdown" in waiting.body) == (200, True)
    service.stopping.clear()
    service.deliver(job.id)
    late = await ask(app, "GET", path, last_event_id=str(job.last_event))
    assert b"event: uploaded" in late.body
    assert (await ask(app, "GET", path, last_event_id=str(job.last_event + 1))).status == 204

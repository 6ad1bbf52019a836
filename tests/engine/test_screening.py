"""Inputs looked at before there is a job, on the whole engine."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from gateway.accounts import Key, Scope, User
from gateway.engine import screening as module
from gateway.engine.health import HealthStatus
from gateway.errors import ApiDisabledError, InvalidInputError, UnsafeContentError
from gateway.events import EventKind
from gateway.ledger import Amounts
from gateway.screening import CheckFailedError, Opinion, Pending
from tests.engine.conftest import Engine

MODEL = {"safety_model": "red.onnx"}
BAD = b"image:bad"


@pytest.fixture
async def house(engine, tmp_path):
    """An engine whose inputs are looked at."""

    async def house(**settings):
        engine.settings = Engine(tmp_path, **MODEL, **settings).settings
        return await engine.start(engine.new_upstream())

    return house


def untouched(engine):
    """Nothing is there: no job, no bytes, no picture on its way."""
    return engine.blobs.stored == {} and list(engine.folder.iterdir()) == []


async def told(engine, job_id):
    return [(event.kind, dict(event.data)) for event in await engine.store.events_after(job_id, 0)]


# -------------------------------------------------------------------------------------------------------------- policies


async def test_flagged_input_is_refused_by_its_field_and_nothing_is_left(house):
    engine = await house()
    with pytest.raises(UnsafeContentError) as refused:
        await engine.submit(BAD)
    assert (refused.value.field, refused.value.status_hint) == ("image", 422)
    assert untouched(engine)
    assert await engine.service.jobs("local") == []


async def test_flagged_input_is_not_paid_for(house):
    engine = await house()
    await engine.store.accounts.create_user(User("u-ann", "ann", "free", email_verified=False, created_at=0.0))
    key = Key("k-ann", "u-ann", "laptop", "cfg_live_12345678", 60, 4, frozenset({Scope.JOBS}), 10.0)
    await engine.store.accounts.create_key(key, "0" * 64)
    await engine.service.credits.grant("ann", "permanent", 1)
    with pytest.raises(UnsafeContentError):
        await engine.submit(BAD, owner="k-ann")
    assert (await engine.service.credits.account("u-ann")).balance == Amounts(permanent=1)
    assert (await engine.job(await engine.submit(owner="k-ann"))).credit_cost == 1


async def test_harmless_inputs_make_a_job_and_leave_no_pictures(house):
    engine = await house()
    job_id = await engine.submit()
    assert EventKind.WARNING not in [kind for kind, _ in await told(engine, job_id)]
    assert (await engine.job(job_id)).warnings == ()
    assert len(engine.check.shown) == 2
    assert list(engine.folder.iterdir()) == []


async def test_flagged_input_may_run_and_says_so_from_the_first_event_on(house, logged):
    engine = await house(safety="flag")
    job_id = await engine.submit(BAD, settle=False)
    first, second = (await told(engine, job_id))[:2]
    assert first == (EventKind.QUEUED, {})
    assert second[0] is EventKind.WARNING
    assert second[1]["code"] == "input_flagged"
    await engine.settle()
    engine.finish(engine.upstreams["gpu-1"])
    job = await engine.until("succeeded", job_id)
    assert job.warnings == (second[1]["message"],)
    numbers = [event.number for event in await engine.store.events_after(job_id, 0)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [entry["score"] for entry in logged if entry["event"] == "input_flagged"] == [0.9]


async def test_switched_off_nothing_is_looked_at_and_nobody_says_it_was(house):
    engine = await house(safety="off")
    job_id = await engine.submit(BAD)
    assert (await engine.job(job_id)).warnings == ()
    assert engine.check.shown == []
    assert engine.service.health().screening.check is None


async def test_threshold_is_the_operators(house):
    engine = await house(safety_threshold=0.95)
    await engine.submit(BAD)
    engine.check.answers = [Opinion(0.0, is_flagged=True)]
    with pytest.raises(UnsafeContentError):
        await engine.submit(b"image:new")


# ------------------------------------------------------------------------------------------------------------ no verdict


async def test_check_that_fails_refuses_the_job_and_shows_until_it_works_again(house, logged):
    engine = await house()
    engine.check.answers = [CheckFailedError("the service answered 500")]
    with pytest.raises(ApiDisabledError) as refused:
        await engine.submit()
    assert refused.value.retry_after_seconds == 30
    assert "500" not in refused.value.message
    assert untouched(engine)
    health = engine.service.health()
    assert (health.status, health.screening.is_failing) == (HealthStatus.DEGRADED, True)
    assert [entry["reason"] for entry in logged if entry["event"] == "safety_check_failed"]
    await engine.submit()
    health = engine.service.health()
    assert (health.status, health.screening.is_failing) == (HealthStatus.HEALTHY, False)


@pytest.mark.parametrize("policy", ["flag", "reject"])
async def test_what_could_not_be_looked_at_does_not_run_whatever_the_policy(house, policy):
    engine = await house(safety=policy)
    engine.check.answers = [CheckFailedError("down")] * 2
    with pytest.raises(ApiDisabledError):
        await engine.submit()
    assert untouched(engine)


async def test_pending_check_asks_to_come_back_and_the_same_then_runs(house):
    engine = await house()
    engine.check.answers = [Pending(7), Pending(3)]
    with pytest.raises(ApiDisabledError, match="still being scanned") as refused:
        await engine.submit()
    assert refused.value.retry_after_seconds == 7
    assert untouched(engine)
    first = sorted(engine.check.shown)
    await engine.submit()
    assert sorted(engine.check.shown[2:]) == first, "the same pictures go by the same names"


async def test_input_that_is_flagged_is_refused_though_another_is_pending(house):
    engine = await house()
    engine.check.answers = [Pending(7), Opinion(0.99)]
    with pytest.raises(UnsafeContentError):
        await engine.submit()


async def test_video_that_cannot_be_looked_at_is_no_good(house):
    engine = await house()
    with pytest.raises(InvalidInputError):
        await engine.submit(b"video:gaps")
    assert untouched(engine)


async def test_client_that_leaves_in_the_middle_leaves_nothing(house):
    engine = await house()
    engine.check.gate.clear()
    submitting = asyncio.create_task(engine.submit(settle=False))
    await engine.settle()
    assert engine.check.shown
    submitting.cancel()
    with suppress(asyncio.CancelledError):
        await submitting
    await engine.settle()
    assert untouched(engine)


# -------------------------------------------------------------------------------------------------------- frames, memory


async def test_frames_of_a_video_are_looked_at_up_to_the_setting_and_no_further_than_needed(house):
    engine = await house(safety_frames=6)
    await engine.submit(b"video:target")
    assert len(engine.check.shown) == 6 + 1
    engine.check.shown.clear()
    with pytest.raises(UnsafeContentError):
        await engine.submit(b"video:bad")
    assert len(engine.check.shown) == module._PICTURES_AT_A_TIME


async def test_same_bytes_are_looked_at_once(house):
    engine = await house()
    await engine.submit()
    await engine.submit()
    assert len(engine.check.shown) == 2
    with pytest.raises(UnsafeContentError):
        await engine.submit(BAD)
    engine.check.answers = [Opinion(0.0)]
    with pytest.raises(UnsafeContentError):
        await engine.submit(BAD)
    assert len(engine.check.shown) == 3


async def test_verdicts_are_forgotten_the_oldest_first(house, monkeypatch):
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    engine = await house()
    await engine.submit(b"image:1")
    await engine.submit(b"image:2")
    engine.check.shown.clear()
    await engine.submit(b"image:2")
    assert engine.check.shown == []
    await engine.submit(b"image:1")
    assert len(engine.check.shown) == 1


async def test_no_more_than_a_few_inputs_are_with_the_check_and_few_wait(house, monkeypatch):
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    engine = await house()
    engine.check.gate.clear()
    alone = {"task": "face_detect", "roles": ("target",), "settle": False}
    submissions = [asyncio.create_task(engine.submit(b"image:%d" % number, **alone)) for number in range(8)]
    await engine.settle()
    assert len(engine.check.shown) == module._AT_A_TIME
    done = [task for task in submissions if task.done()]
    assert [type(task.exception()) for task in done] == [ApiDisabledError]
    engine.check.gate.set()
    outcomes = await asyncio.gather(*submissions, return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 7


async def test_detections_are_looked_at_too(house):
    engine = await house()
    with pytest.raises(UnsafeContentError):
        await engine.submit(BAD, task="face_detect", roles=("target",))

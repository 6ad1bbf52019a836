"""Who gets which upstream, and what waits for it: fairness, staging ahead, draining, capability, limits, the worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.api.health import full_body
from gateway.engine.health import HealthStatus
from gateway.engine.needs import Need, requirement_of, split_requirement
from gateway.engine.pool import FORM_BYTES, MAX_COLLECTING, Pool
from gateway.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    QueueFullError,
    ShuttingDownError,
    TooLargeError,
)
from gateway.interfaces import BlobsState, Trouble
from tests.fakes.clock import FrozenClock
from tests.fakes.upstream import FakeUpstream

BOOSTED = {"swap_model": ("inswapper_128.onnx", "hyperswap_1a_256.onnx")}


async def test_ten_jobs_of_one_lane_fill_ten_upstreams_at_once(engine):
    upstreams = [engine.new_upstream(f"gpu-{number:02}") for number in range(10)]
    await engine.start()
    for number in range(10):
        await engine.submit(b"image:%d" % number)
    for upstream in upstreams:
        engine.pool.add(upstream)
    for _ in range(3):
        await engine.settle()
    assert [len(upstream.prompts) for upstream in upstreams] == [1] * 10


async def test_a_submitter_with_one_job_does_not_wait_behind_anothers_hundred(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    for number in range(20):
        await engine.submit(b"image:%d" % number, submitter="greedy", settle=False)
    modest = await engine.submit(b"image:modest", submitter="modest")
    order = []
    for _ in range(3):
        order.append(gpu.prompt.job_id)
        engine.finish(gpu)
        await engine.settle()
    assert order.index(modest) == 1


async def test_an_upload_that_failed_is_not_charged_to_the_submitter(engine):
    gpu = engine.new_upstream()
    gpu.stage_error = ConnectionError("broke")
    await engine.start(gpu)
    await engine.submit(submitter="ann")
    assert engine.dispatcher._shares.of("ann", engine.clock.monotonic()) == 0.0


async def test_the_next_ones_inputs_are_staged_while_the_first_runs_and_no_more(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    await engine.submit(b"image:1", b"image:face-1")
    await engine.submit(b"image:2", b"image:face-2")
    await engine.submit(b"image:3", b"image:face-3")
    assert len(gpu.prompts) == 1
    assert len(gpu.uploads) == 4, "two of the running one, two of the next"
    engine.finish(gpu)
    await engine.settle()
    assert len(gpu.prompts) == 2
    assert len(gpu.uploads) == 6


async def test_inputs_are_uploaded_side_by_side(engine):
    gpu = engine.new_upstream()
    gpu.stage_gate = asyncio.Event()
    await engine.start(gpu)
    begun, plain = [], gpu.stage

    async def stage(blob, path, suffix):
        begun.append(blob)
        return await plain(blob, path, suffix)

    gpu.stage = stage
    job_id = await engine.submit()
    assert len(begun) == 2
    gpu.stage_gate.set()
    await engine.until("dispatched", job_id)


async def test_a_drained_upstream_finishes_its_job_and_takes_no_other(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    first = await engine.submit(b"image:1")
    await engine.store.upstream("gpu-1", now=0.0)
    await engine.service.set_draining("gpu-1", draining=True)
    second = await engine.submit(b"image:2")
    engine.finish(gpu)
    await engine.until("succeeded", first)
    await engine.until("queued", second)
    assert [row.draining for row in await engine.store.upstreams()] == [True]
    await engine.service.set_draining("gpu-1", draining=False)
    await engine.until("dispatched", second)
    with pytest.raises(NotFoundError):
        await engine.service.set_draining("nobody", draining=True)


@pytest.mark.parametrize("why", ["unreachable", "foreign prompts", "no capabilities", "another model"])
async def test_an_upstream_that_cannot_take_it_gets_nothing(engine, why):
    gpu = engine.new_upstream()
    if why == "unreachable":
        gpu.set_reachable(reachable=False)
    elif why == "foreign prompts":
        gpu.set_foreign_prompts(1)
    elif why == "no capabilities":
        gpu.known = None
    else:
        gpu.known = engine.new_upstream(models={"swap_model": ("other.onnx",)}).known
    await engine.start(gpu)
    job_id = await engine.submit()
    await engine.until("queued", job_id)
    fit = engine.new_upstream()
    gpu.state, gpu.known = fit.state, fit.known
    engine.dispatcher.wake()
    await engine.until("dispatched", job_id)


async def test_a_model_that_the_client_chose_leads_to_the_upstream_that_has_it(engine):
    plain, rich = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2", models=BOOSTED)
    await engine.start(plain, rich)
    await engine.submit(b"image:other")  # keeps neither from being found: the plain one takes it
    job_id = await engine.submit(parameters={"swap_model": "hyperswap_1a_256.onnx"})
    await engine.until("dispatched", job_id)
    assert (len(plain.prompts), rich.prompt.job_id) == (1, job_id)


async def test_a_key_of_needs_leads_back_to_them(engine):
    await engine.start()
    template = engine.catalog.get("faceswap_image")
    assert requirement_of(template, {"target_faces": "0"}) == template.requirement
    key = requirement_of(template, {"swap_model": "a?b@c.onnx", "target_faces": "0"})
    assert split_requirement(key) == (template.name, template.version, {"swap_model": "a?b@c.onnx"})
    assert split_requirement(template.requirement) == (template.name, template.version, {})


async def test_what_an_upstream_can_do_is_asked_anew_when_it_says_so_anew(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    need = Need(engine.catalog.get("faceswap_image"), {})
    requirement = need.template.requirement
    member = engine.pool._members["gpu-1"]
    assert member.lacks(requirement, need) == ()
    gpu.known = replace(gpu.known, classes={})
    assert member.lacks(requirement, need)


# ------------------------------------------------------------------------------------------------------------- limits


async def test_an_input_that_fits_one_upstream_only_goes_there(engine):
    small = engine.new_upstream("gpu-1", max_upload_bytes=FORM_BYTES + 50)
    large = engine.new_upstream("gpu-2", max_upload_bytes=FORM_BYTES + 500)
    await engine.start(small, large)
    job_id = await engine.submit(b"image:" + b"x" * 200)
    await engine.until("dispatched", job_id)
    assert (small.prompts, large.prompt.job_id) == ({}, job_id)


async def test_each_file_is_measured_against_the_limit_and_not_their_sum(engine):
    gpu = engine.new_upstream(max_upload_bytes=FORM_BYTES + 100)
    await engine.start(gpu)
    job_id = await engine.submit(b"image:" + b"x" * 80, b"image:" + b"y" * 80)
    await engine.until("dispatched", job_id)


async def test_an_input_that_fits_nowhere_is_refused_and_the_limit_is_named(engine):
    small = engine.new_upstream(max_upload_bytes=FORM_BYTES + 50)
    await engine.start(small)
    with pytest.raises(TooLargeError, match="the largest any takes is 50 bytes"):
        await engine.submit(b"image:" + b"x" * 200)
    assert engine.blobs.stored == {}


async def test_a_full_queue_refuses_and_leaves_nothing_behind(tmp_path, engine):
    engine.settings = engine.settings.model_copy(update={"max_queue": 1})
    await engine.start()
    await engine.submit(b"image:first")
    with pytest.raises(QueueFullError) as refused:
        await engine.submit(b"image:second")
    assert refused.value.retry_after_seconds
    assert set(engine.blobs.stored.values()) == {b"image:first", b"image:face"}


async def test_a_refused_submission_keeps_bytes_that_another_job_uses(engine):
    await engine.start()
    await engine.submit(b"image:shared")
    with pytest.raises(InvalidInputError):
        await engine.submit(b"image:shared", b"text:no face")
    assert set(engine.blobs.stored.values()) == {b"image:shared", b"image:face"}


async def test_a_client_that_leaves_in_the_middle_of_a_submission_leaves_no_bytes(engine):
    await engine.start()
    create, gate = engine.store.create_job, asyncio.Event()

    async def slow(*arguments, **named):
        await gate.wait()
        return await create(*arguments, **named)

    engine.store.create_job = slow
    submitting = asyncio.create_task(engine.submit())
    await engine.settle()
    submitting.cancel()
    await asyncio.gather(submitting, return_exceptions=True)
    await engine.service.close()
    assert engine.blobs.stored == {}


async def test_a_gateway_that_stops_takes_nothing_new_and_leaves_nothing(engine):
    await engine.start()
    engine.service.begin_stopping()
    with pytest.raises(ShuttingDownError):
        await engine.submit()


async def test_what_waited_too_long_fails_as_expired(engine):
    await engine.start()
    job_id = await engine.submit()
    engine.clock.advance(engine.settings.queue_ttl + 1)
    assert await engine.recorder.expire() == 1
    assert (await engine.job(job_id)).error_code == "expired"


# ------------------------------------------------------------------------------------------------- coming and going


async def test_an_upstream_at_work_is_not_removed_and_goes_on_taking_work(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    with pytest.raises(ConflictError):
        await engine.service.remove_upstream("gpu-1")
    assert not engine.pool.views()[0].draining
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    await engine.service.remove_upstream("gpu-1")
    assert gpu.is_closed
    assert engine.service.upstreams() == ()
    with pytest.raises(NotFoundError):
        await engine.service.remove_upstream("gpu-1")


async def test_nothing_begins_on_an_upstream_while_it_is_being_removed(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    set_upstream = engine.store.set_upstream

    async def slow(*arguments, **named):
        await engine.submit()
        return await set_upstream(*arguments, **named)

    engine.store.set_upstream = slow
    await engine.service.remove_upstream("gpu-1")
    assert gpu.prompts == {}


async def test_a_name_that_is_taken_is_refused_before_anything_is_remembered(engine):
    await engine.start(engine.new_upstream())
    with pytest.raises(ConflictError):
        await engine.service.add_upstream("http://gpu-9:8188", "gpu-1")
    view = await engine.service.add_upstream("http://gpu-9:8188", "gpu-9")
    assert view.status.name == "gpu-9"


async def test_the_next_prompt_does_not_wait_for_the_last_ones_results(engine):
    gpu = engine.new_upstream()
    gpu.fetch_gate = asyncio.Event()
    await engine.start(gpu)
    first, second = await engine.submit(b"image:1"), await engine.submit(b"image:2")
    engine.finish(gpu)
    await engine.until("finishing", first)
    await engine.until("dispatched", second)
    assert len(gpu.prompts) == 2
    gpu.fetch_gate.set()
    await engine.until("succeeded", first)


async def test_an_upstream_waits_when_results_pile_up_and_goes_on_when_one_is_stored(engine):
    gpu = engine.new_upstream()
    gpu.fetch_gate = asyncio.Event()
    await engine.start(gpu)
    for number in range(MAX_COLLECTING + 3):
        await engine.submit(b"image:%d" % number)
    for _ in range(MAX_COLLECTING + 1):
        engine.finish(gpu)
        await engine.settle()
    assert len(gpu.prompts) == MAX_COLLECTING + 1
    gpu.fetch_gate.set()
    await engine.settle()
    assert len(gpu.prompts) == MAX_COLLECTING + 2


async def test_an_upstream_that_still_has_results_of_ours_is_not_removed(engine):
    gpu = engine.new_upstream()
    gpu.fetch_gate = asyncio.Event()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("finishing", job_id)
    with pytest.raises(ConflictError):
        await engine.service.remove_upstream("gpu-1")
    gpu.fetch_gate.set()
    await engine.until("succeeded", job_id)
    await engine.service.remove_upstream("gpu-1")


async def test_an_upstream_with_two_tasks_is_free_when_both_have_left():
    pool = Pool(FrozenClock(), on_change=lambda: None)
    pool.add(FakeUpstream("gpu-1", None))
    pool.claim("gpu-1", "a", "job-a")
    pool.claim("gpu-1", "b", "job-b")
    pool.release("gpu-1", "b")
    assert pool.is_busy("gpu-1")
    pool.release("gpu-1", "a")
    assert not pool.is_busy("gpu-1")
    await pool.close()


async def test_an_upstream_whose_task_ends_with_an_error_is_said_to(logged):
    class Broken(FakeUpstream):
        async def run_forever(self):
            raise RuntimeError("a bug")

    pool = Pool(FrozenClock(), on_change=lambda: None)
    pool.add(Broken("gpu-1", None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await pool.close()
    assert [entry["event"] for entry in logged] == ["upstream_broke"]


async def test_stopping_twice_is_as_good_as_once(engine):
    await engine.start(engine.new_upstream())
    await engine.submit()
    await engine.dispatcher.stop()
    await engine.dispatcher.stop()
    assert engine.dispatcher._at_work == {}


async def test_nothing_is_started_by_a_round_that_was_under_way_when_it_stopped(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    candidates = engine.store.candidates

    async def stopped(*, limit):
        found = await candidates(limit=limit)
        await engine.dispatcher.stop()
        return found

    engine.store.candidates = stopped
    await engine.submit()
    assert gpu.prompts == {}


# ------------------------------------------------------------------------------------------- the worker beside GPUs


async def test_beside_a_real_upstream_a_worker_swaps_no_faces_however_long_they_wait(engine):
    gpu, worker = engine.new_upstream("gpu-1"), engine.new_upstream("embedded-1", engine="preview")
    gpu.set_reachable(reachable=False)
    await engine.start(gpu, worker)
    job_id = await engine.submit()
    assert worker.prompts == {}
    health = engine.service.health()
    assert (health.status, health.ready_templates) == (HealthStatus.DEGRADED, ("face_detect",))
    await engine.service.remove_upstream("gpu-1")
    await engine.until("dispatched", job_id)
    assert worker.prompt.job_id == job_id


async def test_beside_a_real_upstream_a_worker_detects_faces(engine):
    await engine.start()
    template = engine.catalog.get("face_detect")
    gpu, worker = engine.new_upstream("gpu-1"), engine.new_upstream("embedded-1", engine="preview")
    classes = {name: inputs for name, inputs in gpu.known.classes.items() if name != "GatewayFaceDetect"}
    gpu.known = replace(gpu.known, classes=classes)
    engine.pool.add(gpu)
    engine.pool.add(worker, embedded=True)
    needs = {template.requirement: Need(template, {})}
    assert [(slot.upstream, slot.fits) for slot in engine.pool.slots(needs)] == [
        ("embedded-1", frozenset(needs)),
        ("gpu-1", frozenset()),
    ]
    assert "face_detect" in engine.service.health().ready_templates


# ------------------------------------------------------------------------------------------------------------- health


async def test_storage_that_does_not_answer_degrades_health_and_takes_nobody_out_of_service(engine):
    await engine.start(engine.new_upstream())
    engine.blobs.place = BlobsState("s3://faces/p/", Trouble("EndpointConnectionError"))
    health = engine.service.health()
    assert (health.status, health.is_ready) == (HealthStatus.DEGRADED, True)
    told = full_body(health)["storage"]
    assert told["location"] == "s3://faces/p/"
    assert "does not answer (EndpointConnectionError)" in told["message"]
    engine.blobs.place = BlobsState("s3://faces/p/", Trouble("PutObject: AccessDenied (HTTP 403)", is_refusal=True))
    assert "refuses what it is asked (PutObject: Acc" in full_body(engine.service.health())["storage"]["message"]
    engine.blobs.place = BlobsState("s3://faces/p/")
    assert engine.service.health().status is HealthStatus.HEALTHY
    assert full_body(engine.service.health())["storage"]["message"] == "Files lie in s3://faces/p/."


async def test_a_gateway_on_which_no_template_fits_any_upstream_is_not_ready(engine):
    gpu = engine.new_upstream()
    gpu.known = replace(gpu.known, classes={})
    await engine.start(gpu)
    health = engine.service.health()
    assert (health.status, health.is_ready, health.ready_templates) == (HealthStatus.UNAVAILABLE, False, ())
    assert "does not have this node class" in health.template_problems["faceswap_image"]
    gpu.known = engine.new_upstream().known
    health = engine.service.health()
    assert (health.status, health.is_ready) == (HealthStatus.HEALTHY, True)
    assert health.template_problems == {}


async def test_a_gateway_on_which_some_templates_fit_is_degraded_and_ready(engine):
    gpu = engine.new_upstream()
    gpu.known = replace(gpu.known, classes={k: v for k, v in gpu.known.classes.items() if not k.startswith("VHS")})
    await engine.start(gpu)
    health = engine.service.health()
    assert health.status is HealthStatus.DEGRADED
    assert "faceswap_image" in health.ready_templates
    assert health.template_problems.keys() == {"faceswap_gif", "faceswap_video"}, "video_creation is optional"
    gpu.set_reachable(reachable=False)
    health = engine.service.health()
    assert (health.status, health.template_problems) == (HealthStatus.UNAVAILABLE, {})

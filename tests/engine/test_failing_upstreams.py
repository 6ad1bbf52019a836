"""What an upstream that fails gets: a rest, an ejection that can be read, one job to show itself. What its jobs get."""

from __future__ import annotations

import pytest

from gateway.breaker import EJECT_SECONDS, REST_SECONDS
from gateway.engine.dispatcher import MAX_RETRY_SECONDS
from gateway.engine.health import HealthStatus
from gateway.engine.pool import RESTART_SECONDS
from gateway.job import JobState


async def lose(engine, gpu, times):
    """Its newest prompt is lost so often, each time as soon as it got one; then it is being left alone."""
    for number in range(times):
        gpu.prompt.start()
        gpu.prompt.lose()
        await engine.settle()
        if number < times - 1:
            await engine.pass_time(REST_SECONDS[number])


async def restraint(engine):
    return [view.restraint for view in engine.service.upstreams()]


async def test_the_third_failure_in_a_row_ejects_it_and_says_so(engine):
    gpu = engine.new_upstream()
    gpu.stage_error = ConnectionError("refused")
    await engine.start(gpu)
    job_id = await engine.submit()
    for seconds in REST_SECONDS:
        await engine.pass_time(seconds)
    gpu.stage_error = None
    assert await restraint(engine) == ["ejected 30 s: 3 connect failures"]
    assert engine.service.health().status is HealthStatus.DEGRADED
    await engine.pass_time(EJECT_SECONDS - 1)
    await engine.until("queued", job_id)
    await engine.pass_time(1)
    await engine.until("dispatched", job_id)
    assert await restraint(engine) == ["on trial with one job: 3 connect failures"]
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    assert await restraint(engine) == [""]


async def test_one_on_trial_gets_one_job_and_nothing_behind_it(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    first = await engine.submit(b"image:1")
    await engine.submit(b"image:2")
    await lose(engine, gpu, 1)
    await engine.pass_time(REST_SECONDS[0])
    engine.pool.prompt_ending("gpu-1", (await engine.task(first)).id)
    await engine.settle()
    assert len(gpu.prompts) == 2
    engine.finish(gpu)
    await engine.settle()
    assert len(gpu.prompts) == 3


async def test_jobs_that_fail_by_themselves_say_nothing_against_it(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    for number in range(5):
        job_id = await engine.submit(b"image:%d" % number)
        gpu.prompt.start()
        gpu.prompt.fail()
        await engine.until("failed", job_id)
    assert await restraint(engine) == [""]


@pytest.mark.parametrize("by_whom", ["us", "somebody there"])
async def test_an_interrupt_neither_counts_nor_clears(engine, by_whom):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    await lose(engine, gpu, 1)
    await engine.pass_time(REST_SECONDS[0])
    gpu.prompt.start()
    if by_whom == "us":
        await engine.service.cancel(job_id, "local")
        await engine.until("canceled", job_id)
    else:
        gpu.prompt.interrupt()
        await engine.settle()
    assert await restraint(engine) == ["on trial with one job: 1 lost job"]


async def test_memory_that_ran_out_counts_also_when_nobody_else_can_take_the_job(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    gpu.prompt.fail("out_of_memory")
    await engine.until("failed", job_id)
    assert await restraint(engine) == ["resting 6 s: 1 out-of-memory failure"]


async def test_where_all_are_ejected_jobs_wait(engine):
    gpus = [engine.new_upstream(f"gpu-{number}") for number in (1, 2)]
    await engine.start(*gpus)
    for gpu in gpus:
        gpu.stage_error = ConnectionError("refused")
    job_id = await engine.submit()
    for _ in range(8):
        await engine.pass_time(REST_SECONDS[1])
    assert all("ejected" in told for told in await restraint(engine))
    assert (await engine.job(job_id)).state is JobState.QUEUED
    for gpu in gpus:
        gpu.stage_error = None
    await engine.pass_time(300)
    await engine.until("dispatched", job_id)


async def test_retries_beyond_their_share_wait_and_new_jobs_go_first(engine):
    gpus = [engine.new_upstream(f"gpu-{number}") for number in (1, 2)]
    await engine.start(*gpus)
    lost = [await engine.submit(b"image:%d" % number) for number in (1, 2)]
    for gpu in gpus:
        gpu.prompt.start()
        gpu.prompt.lose()
    await engine.settle()
    new = await engine.submit(b"image:new")
    await engine.pass_time(REST_SECONDS[0])
    states = {job_id: (await engine.job(job_id)).state.value for job_id in (*lost, new)}
    assert sorted(states[job_id] for job_id in lost) == ["dispatched", "queued"]
    assert states[new] == "dispatched"
    waiting = next(job_id for job_id in lost if states[job_id] == "queued")
    for gpu in gpus:
        engine.finish(gpu)
    await engine.settle()
    await engine.until("dispatched", waiting)


async def test_new_jobs_go_first_however_many_retries_wait_before_them(engine):
    gpus = [engine.new_upstream(f"gpu-{number}") for number in range(6)]
    await engine.start(*gpus)
    lost = [await engine.submit(b"image:%d" % number) for number in range(6)]
    for gpu in gpus:
        gpu.prompt.start()
        gpu.prompt.lose()
    await engine.settle()
    new = [await engine.submit(b"image:new %d" % number) for number in range(5)]
    await engine.pass_time(REST_SECONDS[0])
    for job_id in new:
        await engine.until("dispatched", job_id)
    assert sorted([(await engine.job(job_id)).state.value for job_id in lost]) == ["dispatched"] + 5 * ["queued"]


async def test_a_lost_task_waits_a_random_part_of_its_time_although_others_are_free(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    await engine.start(first, second)
    engine.dispatcher._chance = lambda: 0.5
    job_id = await engine.submit()
    first.prompt.start()
    first.prompt.lose()
    await engine.settle()
    await engine.pass_time(0.9)
    await engine.until("queued", job_id)
    await engine.pass_time(0.1)
    await engine.until("dispatched", job_id)
    assert second.prompt.job_id == job_id


async def test_what_waits_to_be_tried_again_can_be_canceled_and_leaves_nothing_behind(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    engine.dispatcher._chance = lambda: 1.0
    job_id = await engine.submit()
    await lose(engine, gpu, 1)
    await engine.service.cancel(job_id, "local")
    await engine.until("canceled", job_id)
    await engine.submit(b"image:other")
    await engine.pass_time(MAX_RETRY_SECONDS)
    assert engine.dispatcher._retry_at == {}


async def test_an_upstream_whose_connection_breaks_by_a_fault_of_ours_is_run_again(engine, logged):
    gpu, runs = engine.new_upstream(), 0
    run_on = gpu.run_forever

    async def break_twice():
        nonlocal runs
        runs += 1
        if runs <= 2:
            raise AttributeError("nobody foresaw this")
        await run_on()

    gpu.run_forever = break_twice
    await engine.start(gpu)
    assert runs == 1
    for again in (2, 3):
        await engine.pass_time(RESTART_SECONDS)
        assert runs == again
    assert [entry["upstream"] for entry in logged if entry["event"] == "upstream_broke"] == ["gpu-1"] * 2

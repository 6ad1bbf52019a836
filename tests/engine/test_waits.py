"""Why a job waits: its place, who is ahead by share, which upstreams could run it and why they do not."""

from __future__ import annotations

import pytest

from tests.engine.test_failing_upstreams import lose


async def told(engine, job_id):
    return await engine.service.why_waiting(await engine.job(job_id))


async def reasons(engine, job_id):
    return {judged.upstream: (judged.fits, judged.reason) for judged in (await told(engine, job_id)).upstreams}


async def test_who_has_had_less_of_the_pool_is_ahead_whoever_came_first(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    await engine.submit(b"image:running", submitter="greedy")
    mine = [await engine.submit(b"image:%d" % number, submitter="greedy") for number in range(3)]
    for number in (4, 5):
        await engine.submit(b"image:%d" % number, submitter="modest")
    standings = [(await told(engine, job_id)).standing for job_id in mine]
    assert [(standing.ahead_own, standing.ahead_others) for standing in standings] == [(0, 1), (1, 2), (2, 2)]
    assert [(await told(engine, job_id)).position for job_id in mine] == [0, 1, 2]


async def test_a_job_that_runs_does_not_wait(engine):
    await engine.start(engine.new_upstream())
    assert await told(engine, await engine.submit()) is None


@pytest.mark.parametrize(
    ("why", "fits", "reason"),
    [
        ("at work", True, "it works on another job"),
        ("unreachable", True, "it does not answer"),
        ("drained", True, "it is being drained"),
        ("foreign prompts", True, "it is busy with 2 prompts of others"),
        ("no capabilities", None, ""),
        ("too small", False, "it takes files of 10 bytes at most"),
        ("failed", True, "resting 6 s: 1 lost job"),
    ],
)
async def test_each_upstream_says_why_it_does_not_run_it(engine, why, fits, reason):
    gpu = engine.new_upstream(max_upload_bytes=1034 if why == "too small" else None)
    await engine.start(gpu)
    if why == "at work":
        await engine.submit(b"image:other")
    elif why == "failed":
        await engine.submit(b"image:other")
        await lose(engine, gpu, 1)
    elif why == "unreachable":
        gpu.set_reachable(reachable=False)
    elif why == "drained":
        engine.pool.set_draining("gpu-1", draining=True)
    elif why == "foreign prompts":
        gpu.set_foreign_prompts(2)
    elif why == "no capabilities":
        gpu.known = None
    if why == "too small":
        engine.pool.add(engine.new_upstream("gpu-2"))
        engine.pool.set_draining("gpu-2", draining=True)
    job_id = await engine.submit()
    assert (await reasons(engine, job_id))["gpu-1"] == (fits, reason)


async def test_a_model_that_is_not_there_is_named(engine):
    await engine.start(engine.new_upstream(models={"swap_model": ("other.onnx",)}))
    fits, reason = (await reasons(engine, await engine.submit()))["gpu-1"]
    assert fits is False
    assert "inswapper_128" in reason


async def test_a_lost_job_says_when_it_may_be_tried_again(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    engine.dispatcher._chance = lambda: 0.5
    job_id = await engine.submit()
    await lose(engine, gpu, 1)
    assert (await told(engine, job_id)).standing.retry_in_seconds == pytest.approx(1.0)

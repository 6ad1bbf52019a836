"""What ended jobs leave on upstreams goes, in time, after a purge, after an outage; what open ones need stays."""

from __future__ import annotations

import asyncio

import pytest

from gateway.engine.tidying import LOOK_SECONDS, TIDY_SECONDS, Tidying


@pytest.fixture
def tidying(engine):
    def make():
        return Tidying(engine.store, engine.pool, engine.bus, engine.clock)

    return make


def lies_on(gpu):
    return (len(gpu.staged()), len(gpu.files))


async def test_files_of_a_job_stay_while_it_is_open_and_go_when_it_has_ended(engine, tidying):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    keeper = tidying()
    job_id = await engine.submit()
    await keeper.round()
    assert lies_on(gpu) == (2, 0), "its prompt is about to read them"
    engine.finish(gpu)
    job = await engine.until("succeeded", job_id)
    assert lies_on(gpu) == (2, 1)
    await keeper.round()
    assert lies_on(gpu) == (2, 1), "not yet its turn"
    engine.clock.advance(TIDY_SECONDS)
    await keeper.round()
    assert lies_on(gpu) == (0, 0)
    assert engine.blobs.stored[job.results[0].blob] == b"image:swapped", "the result is here"


async def test_what_a_waiting_job_shares_with_an_ended_one_stays(engine, tidying):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    first = await engine.submit(b"image:target one")
    engine.finish(gpu)
    await engine.until("succeeded", first)
    second = await engine.submit(b"image:target two")
    shared = {given.blob for given in (await engine.job(second)).inputs.values()}
    await tidying().round()
    assert gpu.staged() == shared
    assert gpu.files == {}
    engine.finish(gpu)
    await engine.until("succeeded", second)


async def test_outputs_of_a_lost_attempt_stay_until_its_task_has_ended(engine, tidying):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    lost = gpu.prompt
    lost.show("9", "half.png")
    lost.lose(by_our_stop=True)
    await engine.settle()
    await tidying().round()
    assert [file.filename for file in gpu.files] == ["half.png"]
    await engine.pass_time(60)
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    await tidying().round()
    assert gpu.files == {}


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_jobs_that_ended_without_a_result_leave_nothing_either(engine, tidying, end):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.show("9", "half.png")
    if end == "failed":
        gpu.prompt.fail()
    else:
        await engine.service.cancel(job_id, "local")
    await engine.until(end, job_id)
    await tidying().round()
    assert lies_on(gpu) == (0, 0)


async def test_after_a_purge_nobody_waits_for_the_turn(engine, tidying):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    keeper = tidying()
    await keeper.round()
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    await keeper.round()
    assert lies_on(gpu) == (2, 1), "not yet its turn"
    await engine.service.archive.purge_job(job_id)
    await keeper.round()
    assert lies_on(gpu) == (0, 0)


async def test_an_upstream_that_was_down_at_its_turn_is_seen_to_when_it_is_back(engine, tidying):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    keeper = tidying()
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    gpu.set_reachable(False)
    await keeper.round()
    assert lies_on(gpu) == (2, 1)
    gpu.set_reachable(True)
    await keeper.round()
    assert lies_on(gpu) == (0, 0)


async def test_one_that_breaks_keeps_no_other_from_being_tidied(engine, tidying, logged):
    bad, good = engine.new_upstream("bad"), engine.new_upstream("good")
    await engine.start(bad, good)
    bad.tidy_error = ConnectionError("it does not answer")
    jobs = [await engine.submit(), await engine.submit()]
    engine.finish(bad)
    engine.finish(good)
    for job_id in jobs:
        await engine.until("succeeded", job_id)
    await tidying().round()
    assert lies_on(good) == (0, 0)
    assert lies_on(bad) == (2, 1)
    assert "upstream_not_tidied" in [entry["event"] for entry in logged]


async def test_the_loop_survives_a_round_that_fails(engine, tidying, logged):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    gpu.tidy_error = RuntimeError("a fault of ours")
    loop = asyncio.create_task(tidying().run())
    await engine.settle()
    assert "tidying_failed" in [entry["event"] for entry in logged]
    gpu.tidy_error = None
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    await engine.pass_time(TIDY_SECONDS + LOOK_SECONDS)
    assert lies_on(gpu) == (0, 0)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)

"""What is let go of in time: expired jobs, old results and their bytes, bytes that nobody knows of."""

from __future__ import annotations

import asyncio

from gateway.engine.maintenance import BLOB_GRACE_SECONDS

DAY = 86_400.0


async def finished(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    return await engine.until("succeeded", job_id)


async def test_results_and_inputs_go_with_their_retention_bytes_and_all(engine):
    job = await finished(engine)
    engine.clock.advance(DAY - 1)
    await engine.keeper.sweep()
    assert len(engine.blobs.stored) == 3
    engine.clock.advance(2 + BLOB_GRACE_SECONDS)
    await engine.keeper.sweep()
    assert engine.blobs.stored == {}
    kept = await engine.job(job.id)
    assert (kept.state.value, kept.id) == ("succeeded", job.id)


async def test_jobs_go_with_theirs(engine):
    job = await finished(engine)
    engine.clock.advance(31 * DAY)
    await engine.keeper.sweep()
    assert await engine.job(job.id) is None


async def test_inputs_of_a_waiting_job_stay_however_old(engine):
    await engine.start()
    job_id = await engine.submit()
    engine.clock.advance(90 * DAY)
    await engine.keeper.sweep()
    await engine.keeper.sweep_strays()
    assert len(engine.blobs.stored) == 2
    assert (await engine.job(job_id)).state.value == "queued"


async def test_bytes_that_no_job_got_go_after_a_grace(engine):
    await engine.start()
    engine.blobs.put(b"image:left by a killed process")
    engine.clock.advance(BLOB_GRACE_SECONDS - 1)
    await engine.keeper.sweep_strays()
    assert len(engine.blobs.stored) == 1
    engine.clock.advance(2)
    await engine.keeper.sweep_strays()
    assert engine.blobs.stored == {}


async def test_expiring_goes_on_until_nothing_is_left(engine):
    await engine.start()
    jobs = [await engine.submit(b"image:%d" % number) for number in range(3)]
    expire, left = engine.store.expire_queued, []

    async def one_at_a_time(*, now):
        left.extend(await expire(now=now))
        return [left.pop()] if left else []

    engine.store.expire_queued = one_at_a_time
    ears = [engine.service.subscribe(job_id) for job_id in jobs]
    engine.clock.advance(2 * DAY)
    assert await engine.recorder.expire() == 3
    assert [ear.last_number for ear in ears] == [2, 2, 2]


async def test_a_sweep_goes_on_until_nothing_is_left(engine):
    await finished(engine)
    sweep, sweeps = engine.store.sweep, []

    async def counted(**named):
        sweeps.append(swept := await sweep(**named))
        return swept

    engine.store.sweep = counted
    engine.clock.advance(40 * DAY)
    await engine.keeper.sweep()
    assert len(sweeps) == 2
    assert (sweeps[-1].jobs, sweeps[-1].assets, sweeps[-1].blobs) == (0, 0, ())
    assert engine.blobs.stored == {}


async def test_the_loop_survives_a_round_that_fails(engine, logged):
    await engine.start()
    counts, calls = engine.store.counts, []

    async def broken():
        calls.append(True)
        if len(calls) == 1:
            raise RuntimeError("the database is locked")
        return await counts()

    engine.store.counts = broken
    keeping = asyncio.create_task(engine.keeper.run())
    await engine.settle()
    await engine.pass_time(1)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert len(calls) == 2
    assert "maintenance_failed" in [entry["event"] for entry in logged]


async def test_health_shows_counts_of_the_last_round(engine):
    await engine.start()
    await engine.submit()
    await engine.keeper.round(1)
    assert {state.value: number for state, number in engine.service.health().jobs.items() if number} == {"queued": 1}

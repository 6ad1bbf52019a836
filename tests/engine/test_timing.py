"""What one run teaches the next: bars, seconds left, prices, waits; and what must not teach anything."""

from __future__ import annotations

import asyncio

import pytest

from gateway.comfy.messages import NodeFinished, NodeProgress, NodeStarted
from gateway.comfy.progress import MOST_RUN_TO, RUN_TO
from gateway.engine.maintenance import SAVE_TIMINGS_EVERY, SWEEP_EVERY
from gateway.engine.timing import guessed_seconds, work_of
from gateway.timings import ANY_MOVING, ANY_STILL, RESULTS
from tests.fakes.media import IMAGE, VIDEO

#: Of a picture's nodes in their order: (part of the class's name, seconds).
PACE = (("LoadImage", 1.0), ("ReActorFaceBoost", 0.0), ("ReActorFaceSwap", 20.0), ("SaveImage", 4.0))
RUN_SECONDS = 26.0


def nodes(gpu, part):
    return [key for key, node in gpu.prompt.graph.items() if node["class_type"].startswith(part)]


async def run(engine, gpu, *, slowness=1.0, watch=None, finish=True):
    """Let the newest prompt run at its pace, as its messages tell; ``watch`` is called after each."""
    prompt = gpu.prompt
    prompt.start()
    for part, seconds in PACE:
        for key in nodes(gpu, part):
            prompt.say(NodeStarted(prompt.id, key))
            await engine.settle()
            await step(engine, seconds * slowness, watch)
            if part == "ReActorFaceSwap":
                prompt.say(NodeProgress(prompt.id, key, 1, 1))
            prompt.say(NodeFinished(prompt.id, key))
            await engine.settle()
            if watch:
                watch()
    if finish:
        engine.finish(gpu, start=False)
        await engine.settle()


async def step(engine, seconds, watch):
    await engine.pass_time(seconds)
    if watch:
        watch()


async def learned(engine, **how):
    """An engine with one upstream that has run one picture."""
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    await run(engine, gpu, **how)
    await engine.until("succeeded", job_id)
    return gpu


async def test_the_second_run_tells_from_its_start_how_long_the_first_took(engine):
    gpu = await learned(engine)
    job_id = await engine.submit(b"image:second")
    gpu.prompt.start()
    await engine.settle()
    assert engine.service.progress(job_id).eta_seconds == pytest.approx(RUN_SECONDS, rel=0.05)


async def test_the_first_run_tells_nothing_at_its_start(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await engine.settle()
    assert engine.service.progress(job_id).eta_seconds is None


async def test_the_second_runs_bar_goes_with_time_and_its_seconds_left_go_down(engine):
    gpu = await learned(engine)
    job_id = await engine.submit(b"image:second")
    began, seen = engine.clock.monotonic(), []

    def watch():
        bar = engine.service.progress(job_id)
        seen.append((engine.clock.monotonic() - began, bar.fraction, bar.eta_seconds))

    await run(engine, gpu, watch=watch, finish=False)
    bars = [fraction for _, fraction, _ in seen]
    assert bars == sorted(bars)
    told = [(at, fraction, left) for at, fraction, left in seen[1::2] if left is not None]
    assert len(told) > 3
    for at, fraction, left in told:
        assert fraction == pytest.approx(0.02 + 0.96 * at / RUN_SECONDS, abs=0.03)
        assert left == pytest.approx(RUN_SECONDS - at, abs=0.05 * RUN_SECONDS)


async def test_the_bar_of_a_job_that_takes_no_time_is_stored_once(engine, monkeypatch):
    gpu = await learned(engine, slowness=0.05)
    plain, writes = engine.store.save_progress, []

    async def counted(rows, *, now):
        writes.extend(rows)
        return await plain(rows, now=now)

    monkeypatch.setattr(engine.store, "save_progress", counted)
    job_id = await engine.submit(b"image:second")
    fractions = []
    await run(engine, gpu, slowness=0.05, watch=lambda: fractions.append(engine.service.progress(job_id).fraction))
    await engine.until("succeeded", job_id)
    assert writes == [], "all of it comes with the commit that says it has started"
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 3


async def test_a_slower_run_is_judged_by_its_own_pace_in_the_end(engine):
    gpu = await learned(engine)
    job_id = await engine.submit(b"image:second")
    left = []
    await run(engine, gpu, slowness=3.0, finish=False, watch=lambda: left.append(engine.service.progress(job_id)))
    before_saving = next(bar for bar in reversed(left) if bar.eta_seconds and bar.eta_seconds > 0.5)
    assert 6.0 < before_saving.eta_seconds < 12.5
    assert all(bar.eta_seconds is None or bar.eta_seconds >= 0.0 for bar in left)


async def test_what_was_learned_is_there_after_a_restart(engine):
    gpu = await learned(engine)
    for number in range(SAVE_TIMINGS_EVERY):
        await engine.keeper.round(number + 1)
    await engine.restart()
    job_id = await engine.submit(b"image:second")
    gpu.prompt.start()
    await engine.settle()
    assert engine.service.progress(job_id).eta_seconds == pytest.approx(RUN_SECONDS, rel=0.05)


async def test_many_runs_are_one_write_and_none_is_none(engine, monkeypatch):
    writes = []
    save = engine.store.save_timings

    async def counted(*rows):
        writes.append(rows)
        await save(*rows)

    monkeypatch.setattr(engine.store, "save_timings", counted)
    gpu = await learned(engine)
    for number in range(3):
        await engine.submit(b"image:%d" % number)
        await run(engine, gpu)
    assert writes == []
    await engine.timings.save()
    await engine.timings.save()
    assert len(writes) == 1


async def test_what_could_not_be_stored_is_stored_the_next_time(engine, monkeypatch):
    await learned(engine)

    async def full(*_rows):
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(engine.store, "save_timings", full)
        with pytest.raises(OSError):  # noqa: PT011 - raised just above
            await engine.timings.save()
    await engine.timings.save()
    assert {row.key.node_class for row in await engine.store.timings()} > {"ReActorFaceSwap", RESULTS}


async def test_results_are_a_part_of_the_seconds_left_and_of_the_bar(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    for number in range(2):
        gpu.fetch_gate = asyncio.Event()
        job_id = await engine.submit(b"image:%d" % number)
        gpu.prompt.start()
        await engine.settle()
        at_start = engine.service.progress(job_id)
        await run(engine, gpu)
        collecting = engine.service.progress(job_id)
        await engine.pass_time(13.0)
        gpu.fetch_gate.set()
        await engine.until("succeeded", job_id)
    assert at_start.eta_seconds == pytest.approx(RUN_SECONDS + 13.0, rel=0.05)
    assert collecting.eta_seconds == pytest.approx(13.0, rel=0.05)
    assert collecting.fraction == pytest.approx(0.02 + 0.98 * 2 / 3, abs=0.03)
    assert collecting.fraction < RUN_TO < MOST_RUN_TO


@pytest.mark.parametrize("ending", ["fail", "lose", "unchanged", "taken up"])
async def test_only_what_was_watched_from_start_to_success_teaches(engine, ending):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    await run(engine, gpu, finish=False)
    match ending:
        case "fail":
            gpu.prompt.fail()
        case "lose":
            gpu.prompt.lose()
        case "unchanged":
            engine.finish(gpu, b"image:target", start=False)
        case _:
            await engine.restart()
            await run(engine, gpu)
            await engine.until("succeeded", job_id)
    await engine.settle()
    await engine.timings.save()
    assert await engine.store.timings() == []


async def test_bar_of_a_lost_attempt_does_not_fall_when_the_next_is_planned_by_what_was_learned_meanwhile(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    await engine.start(first, second)
    job_id, other = await engine.submit(b"image:one"), await engine.submit(b"image:two")
    lost, good = (first, second) if first.prompt.job_id == job_id else (second, first)
    lost.prompt.start()
    seen = []
    for part in ("LoadImage", "ReActorFaceBoost"):
        for key in nodes(lost, part):
            lost.prompt.say(NodeStarted(lost.prompt.id, key), NodeFinished(lost.prompt.id, key))
    for key in nodes(lost, "ReActorFaceSwap"):
        lost.prompt.say(NodeStarted(lost.prompt.id, key), NodeProgress(lost.prompt.id, key, 1, 1))
    await engine.settle()
    seen.append(engine.service.progress(job_id).fraction)
    await run(engine, good)
    await engine.until("succeeded", other)
    lost.prompt.lose()
    await engine.settle()
    assert good.prompt.job_id == job_id
    await run(engine, good, watch=lambda: seen.append(engine.service.progress(job_id).fraction), finish=False)
    assert seen == sorted(seen)
    assert seen[0] > 0.8


# ------------------------------------------------------------------------------------------------------ prices and waits


async def test_jobs_cost_what_was_learned_and_what_was_queued_before_is_priced_anew(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    await engine.submit(b"image:first")
    await engine.submit(b"image:early")
    guess = guessed_seconds(work_of(IMAGE))
    assert [each.cost_seconds for each in await engine.store.candidates(limit=9)] == [guess]
    engine.pool.set_draining("gpu-1", draining=True)
    await run(engine, gpu)
    await engine.timings.save()
    await engine.submit(b"image:late")
    early, late = [each.cost_seconds for each in await engine.store.candidates(limit=9)]
    assert early == pytest.approx(RUN_SECONDS, rel=0.05)
    assert late == pytest.approx(RUN_SECONDS, rel=0.05)


async def test_the_wait_is_what_runs_and_what_was_queued_before_over_the_upstreams_that_work(engine):
    gpu = await learned(engine)
    ids = [await engine.submit(b"image:%d" % number) for number in range(3)]
    gpu.prompt.start()
    await engine.settle()

    async def waits():
        told = [await engine.service.why_waiting(await engine.job(job_id)) for job_id in ids]
        return [wait and wait.expected_start_seconds for wait in told]

    running, second, third = await waits()
    assert running is None
    assert second == pytest.approx(RUN_SECONDS, rel=0.05)
    assert third == pytest.approx(2 * RUN_SECONDS, rel=0.05)
    engine.pool.set_draining("gpu-1", draining=True)
    assert await waits() == [None, None, None]


async def test_no_wait_is_told_while_nothing_was_learned(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    await engine.submit(b"image:first")
    waiting = await engine.submit(b"image:second")
    wait = await engine.service.why_waiting(await engine.job(waiting))
    assert wait.expected_start_seconds is None


async def test_nothing_is_forgotten_while_the_folder_of_templates_is_away(engine, tmp_path):
    await learned(engine)
    await engine.timings.save()
    before = await engine.store.timings()
    engine.workflows = tmp_path / "away"
    await engine.restart()
    assert engine.service.templates() == ()
    await engine.keeper.round(SWEEP_EVERY)
    await engine.timings.save()
    assert await engine.store.timings() == before


async def test_of_upstreams_and_templates_that_are_gone_nothing_is_kept(engine):
    await learned(engine)
    engine.pool.set_draining("gpu-1", draining=True)
    await engine.service.remove_upstream("gpu-1")
    await engine.keeper.round(SWEEP_EVERY)
    await engine.timings.save()
    rows = await engine.store.timings()
    assert {row.key.upstream for row in rows} == {""}
    assert {row.key.template for row in rows} == {"faceswap_image", ANY_STILL}
    assert VIDEO.frames > 1
    assert ANY_MOVING not in {row.key.template for row in rows}

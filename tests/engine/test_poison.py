"""A job that takes its upstreams down: two of them, not the whole pool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.poison import OUTAGE_SECONDS
from tests.engine.conftest import Engine

A_WHILE = 60.0


@pytest.fixture
async def engine(engine, tmp_path):
    strict = Engine(tmp_path, poison_after=2)
    yield strict
    await strict.stop()
    await strict.store.close()


async def three(engine):
    gpus = [engine.new_upstream(f"gpu-{number}") for number in (1, 2, 3)]
    await engine.start(*gpus)
    return gpus


def runner_of(engine, job_id):
    """The upstream that has the job's newest prompt."""
    prompts = [gpu.prompt for gpu in engine.upstreams.values() if gpu.prompts]
    return max((prompt for prompt in prompts if prompt.job_id == job_id), key=lambda prompt: prompt.attempt).upstream


async def die(engine, job_id):
    """The upstream that runs the job dies of it."""
    gpu = runner_of(engine, job_id)
    gpu.prompt.start()
    gpu.prompt.lose()
    await engine.settle()
    return gpu.name


async def test_a_job_under_which_two_upstreams_died_is_not_tried_on_a_third(engine, logged):
    await three(engine)
    job_id = await engine.submit()
    dead = []
    dead.append(await die(engine, job_id))
    await engine.until("dispatched", job_id)
    dead.append(await die(engine, job_id))
    await engine.pass_time(OUTAGE_SECONDS - 0.1)
    await engine.until("queued", job_id)
    await engine.pass_time(0.2)
    job = await engine.until("failed", job_id)
    assert job.error_code == "poisoned"
    assert not any(name in job.error_message for name in engine.upstreams)
    (told,) = [entry for entry in logged if entry["event"] == "task_poisoned"]
    assert [death["upstream"] for death in told["deaths"]] == dead
    assert len(set(dead)) == 2
    assert sum(len(gpu.prompts) for gpu in engine.upstreams.values()) == 2


async def test_after_a_first_death_it_is_tried_again_at_once(engine):
    await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    assert (await engine.task(job_id)).attempt == 2
    engine.finish(runner_of(engine, job_id))
    await engine.until("succeeded", job_id)


async def test_where_one_death_is_enough_the_first_is_waited_out(tmp_path):
    engine = Engine(tmp_path, poison_after=1)
    await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await engine.pass_time(OUTAGE_SECONDS - 0.1)
    await engine.until("queued", job_id)
    await engine.pass_time(0.2)
    assert (await engine.until("failed", job_id)).error_code == "poisoned"
    await engine.stop()
    await engine.store.close()


async def test_while_it_waits_for_the_verdict_it_says_so_and_others_run(engine):
    await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await die(engine, job_id)
    await engine.pass_time(4)
    wait = await engine.service.why_waiting(await engine.job(job_id))
    assert wait.standing.retry_in_seconds == pytest.approx(6)
    other = await engine.submit(b"image:other")
    await engine.until("dispatched", other)


async def test_a_death_in_a_common_outage_does_not_count(engine):
    """The first of two: when the second is judged, it is still known what was lost beside the first, and long gone."""
    await three(engine)
    job_id, other = await engine.submit(), await engine.submit(b"image:other")
    await die(engine, job_id)
    await engine.pass_time(OUTAGE_SECONDS - 1)
    await die(engine, other)
    await engine.service.cancel(other, "local")
    await engine.pass_time(A_WHILE)
    await die(engine, job_id)
    await engine.pass_time(A_WHILE)
    assert runner_of(engine, job_id).prompt.attempt == 3


async def test_an_outage_that_begins_after_the_death_excuses_it_too(engine):
    await three(engine)
    job_id, other = await engine.submit(), await engine.submit(b"image:other")
    await die(engine, job_id)
    await engine.pass_time(OUTAGE_SECONDS + 1)
    await die(engine, job_id)
    await engine.pass_time(OUTAGE_SECONDS - 1)
    await die(engine, other)
    await engine.service.cancel(other, "local")
    await engine.pass_time(A_WHILE)
    assert runner_of(engine, job_id).prompt.attempt == 3


def go_away(engine, gpu):
    """It can no longer be reached; whoever looked at it found out just now."""
    gpu.state = replace(gpu.state, reachable=False, reason="away", unreachable_since=engine.clock.monotonic())
    engine.dispatcher.wake()


@pytest.mark.parametrize("seconds", [-OUTAGE_SECONDS + 0.1, 0.0, OUTAGE_SECONDS - 0.1])
async def test_an_idle_upstream_that_goes_in_the_same_outage_excuses_a_death(engine, seconds):
    gpus = await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await engine.pass_time(A_WHILE)
    idle = next(gpu for gpu in gpus if not gpu.prompts)
    if seconds < 0:
        go_away(engine, idle)
        await engine.pass_time(-seconds)
    await die(engine, job_id)
    if seconds >= 0:
        await engine.pass_time(seconds)
        go_away(engine, idle)
        await engine.settle()
    await engine.pass_time(A_WHILE)
    assert runner_of(engine, job_id).prompt.attempt == 3


async def test_an_idle_upstream_that_went_long_before_excuses_nothing_also_after_a_restart(engine):
    gpus = await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await engine.pass_time(A_WHILE)
    go_away(engine, next(gpu for gpu in gpus if not gpu.prompts))
    await engine.pass_time(OUTAGE_SECONDS + 0.1)
    await engine.restart()  # it is noted by this process too, as of then
    await die(engine, job_id)
    await engine.pass_time(A_WHILE)
    assert (await engine.until("failed", job_id)).error_code == "poisoned"


async def test_a_death_counts_from_when_its_upstream_went_not_from_when_the_job_was_given_up(engine):
    """Both are cut off at one time; the job's is known to be lost a minute later."""
    gpus = await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await engine.pass_time(A_WHILE)
    busy = runner_of(engine, job_id)
    busy.prompt.start()
    await engine.settle()
    await engine.pass_time(5.0)
    for gpu in gpus:
        if gpu is busy or not gpu.prompts:
            go_away(engine, gpu)
    await engine.pass_time(60.0)
    busy.prompt.lose()
    await engine.pass_time(A_WHILE)
    assert runner_of(engine, job_id).prompt.attempt == 3


@pytest.mark.parametrize("end", ["memory", "our stop", "an operator", "before it began", "silence"])
async def test_other_ends_do_not_count(engine, end):
    await three(engine)
    job_id = await engine.submit()
    for _ in range(2):
        prompt = runner_of(engine, job_id).prompt
        if end != "before it began":
            prompt.start()
        await engine.settle()
        match end:
            case "memory":
                prompt.fail("out_of_memory")
            case "our stop":
                prompt.lose(by_our_stop=True)
            case "an operator":
                prompt.interrupt()
            case "before it began":
                prompt.lose()
            case "silence":
                await engine.pass_time(engine.settings.stall_seconds)
                for _ in range(10):  # its time-out is one of the loop's own
                    await engine.settle()
        await engine.settle()
        await engine.pass_time(A_WHILE)
    assert runner_of(engine, job_id).prompt.attempt == 3


async def test_one_upstream_that_died_twice_is_no_verdict(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    for _ in range(2):
        await die(engine, job_id)
        await engine.pass_time(A_WHILE)
    assert gpu.prompt.attempt == 3


async def test_the_verdict_survives_restarts(engine):
    await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await engine.restart()
    await die(engine, job_id)
    await engine.restart()
    await engine.pass_time(OUTAGE_SECONDS - 0.2)
    await engine.until("queued", job_id)
    await engine.pass_time(0.3)
    assert (await engine.until("failed", job_id)).error_code == "poisoned"


async def test_a_clock_that_was_set_back_holds_nobody_up(engine):
    await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await die(engine, job_id)
    real, year = engine.clock.now, 365 * 86_400.0
    engine.clock.now = lambda: real() - year
    await engine.restart()
    await engine.pass_time(OUTAGE_SECONDS + 0.1)
    await engine.until("failed", job_id)


async def test_what_waits_for_its_verdict_can_be_canceled(engine):
    await three(engine)
    job_id = await engine.submit()
    await die(engine, job_id)
    await die(engine, job_id)
    await engine.until("queued", job_id)
    await engine.service.cancel(job_id, "local")
    await engine.pass_time(A_WHILE)
    await engine.until("canceled", job_id)
    assert engine.dispatcher._quarantine._reviews == {}

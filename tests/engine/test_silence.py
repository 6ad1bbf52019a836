"""A prompt that says nothing: slow for as long as it may be, then interrupted, lost, and its upstream ejected."""

from __future__ import annotations

import asyncio

import pytest

from gateway.breaker import EJECT_SECONDS, Fault
from gateway.comfy.messages import LogLine
from gateway.engine import following
from tests.engine.conftest import STALL_SECONDS
from tests.tools.waiting import wait_until


async def running(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await engine.settle()
    return gpu, job_id


async def silent_for(engine, seconds):
    await engine.pass_time(seconds)
    await engine.settle()


async def reasons(engine):
    return [view.restraint for view in engine.service.upstreams()]


async def cause(engine):
    def look(connection):
        return connection.exec_driver_sql("SELECT outcome, cause FROM attempts ORDER BY number").all()

    return [tuple(row) for row in await engine.store._executor.read(look)]


async def test_a_running_prompt_that_says_nothing_is_slow_and_not_lost(engine):
    gpu, job_id = await running(engine)
    for _ in range(4):  # two minutes and more: a node that ticks seldom
        await silent_for(engine, STALL_SECONDS / 4 - 1)
    await engine.until("running", job_id)
    assert gpu.canceled == []


async def test_any_message_begins_the_time_anew(engine):
    gpu, job_id = await running(engine)
    await silent_for(engine, STALL_SECONDS - 1)
    gpu.prompt.say(LogLine(gpu.prompt.id, "loading a model"))
    await engine.settle()
    await silent_for(engine, STALL_SECONDS - 1)
    await engine.until("running", job_id)
    await silent_for(engine, 1)
    await engine.until("queued", job_id)


async def test_then_it_is_interrupted_and_lost_and_its_upstream_ejected(engine):
    gpu, job_id = await running(engine)
    await silent_for(engine, STALL_SECONDS)
    assert gpu.canceled == [gpu.prompt.id]
    await engine.until("queued", job_id)
    assert await cause(engine) == [("attempt_lost", "stalled")]
    assert await reasons(engine) == ["ejected 30 s: 1 stalled job"]
    await silent_for(engine, EJECT_SECONDS - 1)
    assert len(gpu.prompts) == 1
    await silent_for(engine, 1)
    assert gpu.prompt.attempt == 2


async def test_one_that_does_not_let_go_is_not_waited_for_longer_than_it_gets(engine, monkeypatch):
    monkeypatch.setattr(following, "LET_GO_SECONDS", 0.01)
    gpu, job_id = await running(engine)

    async def cancel(prompt_id):
        gpu.canceled.append(prompt_id)
        await asyncio.Event().wait()

    monkeypatch.setattr(gpu, "cancel", cancel)
    await silent_for(engine, STALL_SECONDS)

    async def is_queued():
        return (await engine.job(job_id)).state == "queued"

    await wait_until(is_queued, what="its end there")
    assert await reasons(engine) == ["ejected 30 s: 1 stalled job"]


@pytest.mark.parametrize("seconds", [STALL_SECONDS / 10, STALL_SECONDS * 10])
async def test_the_template_says_how_long(engine, workflows, seconds):
    page = workflows / "faceswap_image" / "template.toml"
    page.write_text(f"stall_seconds = {seconds}\n" + page.read_text())
    _, job_id = await running(engine)
    await silent_for(engine, seconds - 1)
    await engine.until("running", job_id)
    await silent_for(engine, 1)
    await engine.until("queued", job_id)


@pytest.mark.parametrize(("foreign", "reason"), [(0, "ejected 30 s: 1 stalled job"), (1, "")])
async def test_a_server_that_begins_nothing_is_ejected_unless_it_works_for_others(engine, foreign, reason):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.set_foreign_prompts(foreign)
    await silent_for(engine, STALL_SECONDS)
    assert (await cause(engine))[0] == ("interrupted", "stalled")
    assert (await engine.job(job_id)).state == "queued"
    assert await reasons(engine) == [reason]


async def test_an_upstream_with_a_prompt_that_was_given_up_gets_nothing_and_says_why(engine):
    gpu = engine.new_upstream()
    gpu.set_stale_prompts(1)
    await engine.start(gpu)
    job_id = await engine.submit()
    await engine.until("queued", job_id)
    (judged,) = (await engine.service.why_waiting(await engine.job(job_id))).upstreams
    said = "removing 1 prompt that nobody waits for any more, before it gets anything else"
    assert judged.reason == said
    health = engine.service.health()
    assert (health.status, [view.restraint for view in health.upstreams]) == ("degraded", [said])
    gpu.set_stale_prompts(2)
    engine.pool.note_fault(gpu.name, Fault.LOST)
    [view] = engine.service.upstreams()
    assert view.restraint == f"resting 6 s: 1 lost job; {said.replace('1 prompt', '2 prompts')}"
    engine.pool.note_success(gpu.name)
    gpu.set_stale_prompts(0)
    engine.dispatcher.wake()
    await engine.until("dispatched", job_id)


async def test_what_a_runner_that_broke_has_sent_is_not_taken_for_stale(engine, monkeypatch):
    gpu, job_id = await running(engine)
    task, prompt_id = engine.dispatcher._at_work[(await engine.task(job_id)).id], gpu.prompt.id
    monkeypatch.setattr(engine.runner._follower, "_hear", None)
    gpu.prompt.say(LogLine(prompt_id, "breaks it"))
    await engine.settle()
    assert task.exception() is not None
    assert prompt_id in engine.runner.live_prompts()
    monkeypatch.undo()
    await engine.pass_time(10)
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    assert engine.runner.live_prompts() == frozenset()


async def test_what_runs_when_the_gateway_stops_is_not_taken_for_stale(engine):
    gpu, _ = await running(engine)
    await engine.dispatcher.stop()
    assert gpu.prompt.id in engine.runner.live_prompts()

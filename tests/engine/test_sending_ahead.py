"""The next prompt is sent when the last one is about to end, so that no upstream stands still in between."""

from __future__ import annotations

import pytest

from gateway.comfy.messages import NodeProgress, NodeStarted
from gateway.engine.following import ENDING_SECONDS


async def nearly_end(engine, gpu, prompt):
    """Half of its work is seen to take less than what is left may take."""
    swap = next(node for node, entry in prompt.graph.items() if "FaceSwap" in str(entry["class_type"]))
    prompt.start()
    prompt.say(NodeStarted(prompt.id, swap), NodeProgress(prompt.id, swap, 1, 10))
    await engine.settle()
    engine.clock.advance(ENDING_SECONDS)
    prompt.say(NodeProgress(prompt.id, swap, 9, 10))
    await engine.settle()


@pytest.fixture
async def pair(engine):
    """One upstream with a prompt that is about to end and one that waits behind it; both jobs."""
    gpu = engine.new_upstream()
    await engine.start(gpu)
    jobs = [await engine.submit(b"image:1"), await engine.submit(b"image:2")]
    await nearly_end(engine, gpu, gpu.prompt)
    return gpu, *jobs


async def test_one_prompt_is_sent_ahead_and_no_more(engine, pair):
    gpu, first, second = pair
    third = await engine.submit(b"image:3")
    assert [prompt.job_id for prompt in gpu.prompts.values()] == [first, second]
    await engine.until("queued", third)
    running, waiting = gpu.prompts.values()
    running.succeed(engine.result_node())
    await engine.until("succeeded", first)
    await engine.until("queued", third)
    waiting.start()
    waiting.succeed(engine.result_node())
    await engine.until("dispatched", third)


async def test_nothing_is_sent_ahead_while_much_is_left_to_do(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    await engine.submit(b"image:1")
    await engine.submit(b"image:2")
    gpu.prompt.start()
    await engine.pass_time(30.0)
    swap = next(node for node, entry in gpu.prompt.graph.items() if "FaceSwap" in str(entry["class_type"]))
    gpu.prompt.say(NodeStarted(gpu.prompt.id, swap), NodeProgress(gpu.prompt.id, swap, 1, 10))
    await engine.pass_time(30.0)
    gpu.prompt.say(NodeProgress(gpu.prompt.id, swap, 5, 10))
    await engine.settle()
    assert len(gpu.prompts) == 1


async def test_a_free_upstream_comes_before_one_that_is_about_to_be(engine):
    busy = engine.new_upstream("gpu-1")
    await engine.start(busy)
    await engine.submit(b"image:1")
    await nearly_end(engine, busy, busy.prompt)
    free = engine.new_upstream("gpu-2")
    engine.pool.add(free)
    await engine.settle()
    second = await engine.submit(b"image:2")
    assert free.prompt.job_id == second
    assert len(busy.prompts) == 1


async def test_what_waited_behind_a_lost_one_loses_no_attempt_and_pays_nothing(engine, pair):
    gpu, first, second = pair
    running, waiting = gpu.prompts.values()
    gpu.set_reachable(reachable=False)
    running.lose()
    waiting.lose()
    await engine.settle()
    queued = {found.job_id: found for found in await engine.store.candidates(limit=9)}
    assert {job_id: found.losses for job_id, found in queued.items()} == {first: 1, second: 0}
    assert engine.dispatcher._shares.of("ann", engine.clock.monotonic()) == pytest.approx(
        queued[first].cost_seconds, rel=0.01
    )


async def test_an_upstream_that_lost_both_rests_whichever_is_heard_of_last(engine, pair):
    gpu, *_ = pair
    running, waiting = gpu.prompts.values()
    running.lose()
    await engine.settle()
    waiting.lose()
    await engine.settle()
    assert len(gpu.prompts) == 2
    await engine.pass_time(60.0)
    assert len(gpu.prompts) == 3


async def test_what_was_pulled_back_before_it_began_keeps_its_place(engine, pair):
    gpu, first, second = pair
    third = await engine.submit(b"image:3")
    await engine.service.cancel(first, "local")
    running, waiting = gpu.prompts.values()
    waiting.interrupt()
    await engine.until("canceled", first)
    await engine.until("dispatched", second)
    await engine.until("queued", third)
    assert gpu.prompt.job_id == second
    assert gpu.canceled == [running.id]


async def test_after_a_restart_both_are_taken_up(engine, pair):
    gpu, first, second = pair
    running, waiting = gpu.prompts.values()
    await engine.restart()
    running.succeed(engine.result_node())
    await engine.until("succeeded", first)
    waiting.start()
    waiting.succeed(engine.result_node())
    await engine.until("succeeded", second)
    assert len(gpu.prompts) == 2

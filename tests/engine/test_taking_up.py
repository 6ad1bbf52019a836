"""A restart in the middle of everything: what an earlier process left running is taken up, not run again."""

from __future__ import annotations

import asyncio

from gateway.comfy.messages import NodeProgress, NodeStarted
from gateway.engine.following import ENDING_SECONDS


async def running(engine, gpu):
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await engine.settle()
    return job_id


async def test_a_running_prompt_is_followed_on(engine):
    gpu = engine.new_upstream()
    job_id = await running(engine, gpu)
    await engine.restart()
    assert engine.pool.is_busy("gpu-1")
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    assert len(gpu.prompts) == 1
    assert await engine.kinds(job_id) == ["queued", "dispatched", "started", "finishing", "succeeded"]


async def test_what_stood_in_is_told_though_the_upstream_said_only_later_what_it_has(engine):
    gpu = engine.new_upstream(models={"swap_model": ("reswapper_128.onnx",)})
    job_id = await running(engine, gpu)
    known, gpu.known = gpu.known, None
    await engine.restart()
    gpu.known = known
    engine.finish(gpu)
    job = await engine.until("succeeded", job_id)
    assert any("reswapper_128.onnx was used" in warning for warning in job.warnings), job.warnings


async def test_what_was_sent_first_is_still_shown_as_at_work(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    await engine.submit(b"image:1")
    older = await engine.submit(b"image:2")
    younger = await engine.submit(b"image:3", submitter="bob")
    engine.clock.advance(1.0)
    engine.finish(gpu)  # bob has had less of the pool
    await engine.settle()
    swap = next(node for node, entry in gpu.prompt.graph.items() if "FaceSwap" in str(entry["class_type"]))
    gpu.prompt.start()
    gpu.prompt.say(NodeStarted(gpu.prompt.id, swap), NodeProgress(gpu.prompt.id, swap, 1, 10))
    await engine.settle()
    engine.clock.advance(ENDING_SECONDS)
    gpu.prompt.say(NodeProgress(gpu.prompt.id, swap, 9, 10))
    await engine.until("dispatched", older)
    assert [view.job_id for view in engine.pool.views()] == [younger]
    await engine.restart()
    assert [view.job_id for view in engine.pool.views()] == [younger]


async def test_a_prompt_that_ended_while_nobody_watched_succeeds(engine):
    gpu = engine.new_upstream()
    job_id = await running(engine, gpu)
    await engine.stop()
    engine.finish(gpu)
    await engine.start()
    await engine.until("succeeded", job_id)
    assert len(gpu.prompts) == 1


async def test_results_that_were_being_fetched_are_fetched_again(engine):
    gpu = engine.new_upstream()
    gpu.fetch_gate = asyncio.Event()
    job_id = await running(engine, gpu)
    engine.finish(gpu, start=False)
    await engine.until("finishing", job_id)
    gpu.fetch_gate = None
    await engine.restart()
    job = await engine.until("succeeded", job_id)
    assert len(job.results) == 1
    assert (await engine.kinds(job_id)).count("finishing") == 1


async def test_results_that_are_gone_after_a_restart_cost_nothing(engine):
    gpu = engine.new_upstream()
    gpu.fetch_gate = asyncio.Event()
    job_id = await running(engine, gpu)
    engine.finish(gpu, start=False)
    await engine.until("finishing", job_id)
    gpu.fetch_gate = None
    gpu.files.clear()
    await engine.restart()
    task = await engine.task(job_id)
    assert (task.attempt, task.losses, task.interruptions) == (2, 0, 1)


async def test_a_prompt_that_was_gone_before_we_came_back_costs_nothing(engine):
    gpu = engine.new_upstream()
    job_id = await running(engine, gpu)
    await engine.stop()
    gpu.prompt.messages = asyncio.Queue()  # what was said before the restart was heard
    gpu.prompt.lose()
    await engine.start()
    task = await engine.task(job_id)
    assert (task.attempt, task.losses, task.interruptions) == (2, 0, 1)


async def test_a_prompt_that_is_lost_after_we_heard_of_it_again_costs_an_attempt(engine):
    gpu = engine.new_upstream()
    job_id = await running(engine, gpu)
    await engine.restart()
    gpu.prompt.start()
    gpu.prompt.lose()
    await engine.settle()
    await engine.pass_time(7)
    assert (await engine.task(job_id)).losses == 1


async def test_a_task_whose_upstream_left_the_pool_runs_on_another(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    job_id = await running(engine, first)
    await engine.stop()
    del engine.upstreams["gpu-1"]
    await engine.start(second)
    task = await engine.task(job_id)
    assert (task.upstream, task.attempt, task.losses, task.interruptions) == ("gpu-2", 2, 0, 1)
    assert engine.runner.live_prompts() == {second.prompt.id}


async def test_what_is_to_be_taken_up_is_known_before_any_upstream_is_connected(engine):
    gpu = engine.new_upstream()
    await running(engine, gpu)
    await engine.stop()
    await engine._build()
    await engine.dispatcher.prepare()
    assert engine.runner.live_prompts() == {gpu.prompt.id}


async def test_a_template_that_was_edited_meanwhile_does_not_change_the_job(engine, workflows):
    gpu = engine.new_upstream()
    job_id = await running(engine, gpu)
    path = workflows / "faceswap_image" / "template.toml"
    path.write_text(path.read_text().replace("Face swap", "Another swap"))
    await engine.restart()
    assert engine.catalog.get("faceswap_image").version != (await engine.job(job_id)).template_version
    engine.finish(gpu)
    await engine.until("succeeded", job_id)


async def test_twenty_restarts_under_one_job_are_survived_and_the_twentieth_loss_ends_it(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    for _ in range(19):
        gpu.prompt.lose(by_our_stop=True)
        await engine.settle()
    assert (await engine.task(job_id)).interruptions == 19
    gpu.prompt.lose(by_our_stop=True)
    assert (await engine.until("failed", job_id)).error_code == "upstream_lost"

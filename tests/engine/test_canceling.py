"""A cancel wins until the terminal commit, wherever it finds the job."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.engine import results, scratch
from gateway.engine.canceling import unless_canceled
from gateway.errors import ConflictError, NotFoundError

INPUTS = {b"image:target", b"image:face"}


async def test_a_queued_job_is_gone_at_once(engine):
    await engine.start()
    job_id = await engine.submit()
    await engine.service.cancel(job_id, "local")
    assert (await engine.job(job_id)).state.value == "canceled"
    gpu = engine.new_upstream()
    engine.pool.add(gpu)
    await engine.settle()
    assert gpu.prompts == {}


async def test_a_cancel_while_inputs_are_staged_frees_the_upstream_at_once(engine):
    gpu = engine.new_upstream()
    gpu.stage_gate = asyncio.Event()
    await engine.start(gpu)
    job_id = await engine.submit()
    assert engine.pool.is_busy("gpu-1")
    assert engine.service.is_preparing(await engine.job(job_id))
    await engine.service.cancel(job_id, "local")
    await engine.until("canceled", job_id)
    assert not engine.service.is_preparing(await engine.job(job_id))
    assert not engine.pool.is_busy("gpu-1")
    assert gpu.prompts == {}
    assert engine.bus._channels == {}


async def test_a_job_is_being_prepared_only_between_its_place_in_the_queue_and_its_prompt(engine):
    gpu = engine.new_upstream()
    gpu.stage_gate = asyncio.Event()
    await engine.start(gpu)
    job_id, behind = await engine.submit(), await engine.submit()
    assert engine.service.is_preparing(await engine.job(job_id))
    assert not engine.service.is_preparing(await engine.job(behind))
    gpu.stage_gate.set()
    await engine.until("dispatched", job_id)
    assert not engine.service.is_preparing(await engine.job(job_id))


async def test_a_cancel_between_the_stored_dispatch_and_the_prompt_sends_nothing(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    record = engine.recorder.record

    async def dispatched(task_id, report):
        recorded = await record(task_id, report)
        if report.event.value == "dispatched":
            await engine.service.cancel(recorded.job.id, "local")
        return recorded

    engine.recorder.record = dispatched
    job_id = await engine.submit()
    await engine.until("canceled", job_id)
    assert gpu.prompts == {}


async def test_a_running_prompt_is_canceled_there_and_the_job_ends_when_it_left(engine):
    gpu = engine.new_upstream()
    gpu.obeys_cancel = False
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    job = await engine.service.cancel(job_id, "local")
    assert (job.state.value, job.cancel_requested_at) == ("dispatched", engine.clock.now())
    await engine.settle()
    assert gpu.canceled == [gpu.prompt.id]
    assert (await engine.job(job_id)).state.value == "running"
    await engine.pass_time(5)
    assert gpu.canceled == [gpu.prompt.id] * 2
    gpu.prompt.interrupt()
    await engine.until("canceled", job_id)
    kinds = await engine.kinds(job_id)
    assert kinds[-2:] == ["started", "canceled"]
    assert kinds.count("cancel_requested") == 1


@pytest.mark.parametrize("ending", ["succeed", "fail", "lose"])
async def test_however_the_attempt_ends_after_a_cancel_the_job_ends_canceled_without_files(engine, ending):
    gpu = engine.new_upstream()
    gpu.obeys_cancel = False
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await engine.settle()
    await engine.service.cancel(job_id, "local")
    getattr(gpu.prompt, ending)(*(["9"] if ending == "succeed" else []))
    job = await engine.until("canceled", job_id)
    assert (job.results, job.error_code) == ((), None)
    assert set(engine.blobs.stored.values()) == INPUTS


async def test_a_cancel_that_failed_is_tried_again(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    cancel, tries = gpu.cancel, []

    async def broken(prompt_id):
        tries.append(prompt_id)
        if len(tries) == 1:
            raise ConnectionError("broke")
        await cancel(prompt_id)

    gpu.cancel = broken
    await engine.service.cancel(job_id, "local")
    await engine.settle()
    await engine.pass_time(5)
    await engine.until("canceled", job_id)


async def test_a_cancel_while_results_are_fetched_stops_it(engine, tmp_path):
    gpu = engine.new_upstream()
    gpu.fetch_gate = asyncio.Event()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("finishing", job_id)
    await engine.service.cancel(job_id, "local")
    await engine.until("canceled", job_id)
    assert set(engine.blobs.stored.values()) == INPUTS
    assert list(tmp_path.iterdir()) == []


async def test_a_cancel_waits_for_the_thread_that_writes_a_result(tmp_path):
    """It would go on writing into a folder that is being deleted, and that stays then."""
    began, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow():
        loop.call_soon_threadsafe(began.set)
        assert may_end.wait(5)
        results._write_at(tmp_path / "fetched", 0, bytearray(b"x"))

    task = asyncio.create_task(scratch.finished(slow), name="writing")
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=0.01)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "fetched").read_bytes() == b"x"


async def test_a_folder_on_the_way_is_gone_at_the_end_whatever_is_in_it(tmp_path):
    async with scratch.scratch_folder(tmp_path, "look") as folder:
        (folder / "within").mkdir()
        (folder / "within" / "file").write_bytes(b"x")
        (folder / "file").write_bytes(b"x")
    async with scratch.scratch_folder(tmp_path, "result", is_made=False) as folder:
        assert not folder.exists()
        results._write_at(folder / "fetched", 0, b"x")
        assert folder.stat().st_mode & 0o777 == 0o700
        results._write_at(folder / "fetched", 1, b"y")
        assert (folder / "fetched").read_bytes() == b"xy"
    async with scratch.scratch_folder(tmp_path, "result", is_made=False):
        pass
    assert list(tmp_path.iterdir()) == []


async def test_a_cancel_while_the_folder_of_a_result_waits_to_be_deleted_deletes_it_all_the_same():
    """What waits for a thread would be taken out of the queue, and its folder stay."""
    may_end, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(may_end.wait, 5)
        task = asyncio.create_task(scratch.finished(done.set), name="deleting")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert done.is_set()


async def test_a_cancel_just_before_the_terminal_commit_drops_the_files(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    record = engine.store.record

    async def canceled_first(task_id, report, **more):
        if report.event.value == "succeeded":
            # Another replica, or a cancel whose flag has not reached the runner yet.
            await engine.store.request_cancel(job_id, frozenset({(await engine.job(job_id)).state}), now=0.0)
        return await record(task_id, report, **more)

    engine.store.record = canceled_first
    engine.finish(gpu)
    await engine.until("canceled", job_id)
    assert set(engine.blobs.stored.values()) == INPUTS


async def test_a_cancel_while_the_warnings_of_a_stored_result_are_looked_up_drops_its_bytes(engine, monkeypatch):
    asked = asyncio.Event()

    async def never(collector, job, bound):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(results.Collector, "_numbering", never)
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await asked.wait()
    assert len(engine.blobs.stored) == len(INPUTS) + 1
    await engine.service.cancel(job_id, "local")
    await engine.until("canceled", job_id)
    assert set(engine.blobs.stored.values()) == INPUTS


async def test_a_cancel_recorded_before_a_restart_is_carried_out_after_it(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await engine.settle()
    await engine.stop()
    await engine.store.request_cancel(job_id, frozenset({(await engine.job(job_id)).state}), now=0.0)
    await engine.start()
    assert gpu.canceled == [gpu.prompt.id]
    await engine.until("canceled", job_id)


async def test_a_cancel_that_comes_while_a_task_is_taken_up_is_not_missed(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await engine.settle()
    await engine.stop()
    open_tasks = engine.store.open_tasks
    calls = []

    async def canceled_after():
        found = await open_tasks()
        calls.append(found)
        if len(calls) == 2:  # the first is ``prepare``
            await engine.service.cancel(job_id, "local")
        return found

    engine.store.open_tasks = canceled_after
    await engine.start()
    await engine.until("canceled", job_id)


async def test_an_ended_job_cannot_be_canceled_nor_can_somebody_elses(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    with pytest.raises(NotFoundError):
        await engine.service.cancel(job_id, "somebody")
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    with pytest.raises(ConflictError):
        await engine.service.cancel(job_id, "local")


async def test_work_that_is_canceled_has_cleaned_up_when_none_comes_back():
    flag, cleaned = asyncio.Event(), []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    waiting = asyncio.create_task(unless_canceled(flag, work(), name="work"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    flag.set()
    assert await waiting is None
    assert cleaned == [True]
    assert await unless_canceled(flag, work(), name="work") is None
    assert cleaned == [True]

"""Giving out a job that was made or read here asks the store nothing, and never more is believed than that."""

from __future__ import annotations

from dataclasses import replace

from gateway.engine.waiting import MOST, Waiting


def watch(engine, monkeypatch):
    """Ids of tasks the store is asked for from now on."""
    asked, plain = [], engine.store.queued_task

    async def queued_task(task_id):
        asked.append(task_id)
        return await plain(task_id)

    monkeypatch.setattr(engine.store, "queued_task", queued_task)
    return asked


async def only_task(engine):
    [candidate] = await engine.store.candidates(limit=10)
    return candidate.task_id


async def test_a_new_job_is_given_out_without_asking_for_it(engine, monkeypatch):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    asked = watch(engine, monkeypatch)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    assert asked == []
    assert len(engine.recorder.waiting) == 0


async def test_what_is_known_of_a_new_job_is_what_the_store_says(engine):
    await engine.start()
    await engine.submit()
    task_id = await only_task(engine)
    assert await engine.recorder.waiting.look(task_id) == await engine.store.queued_task(task_id)


async def test_a_job_of_an_earlier_process_is_asked_for_once(engine, monkeypatch):
    """Once while another runs, to stage its inputs; then it is known."""
    await engine.start()
    await engine.submit()
    await engine.restart()
    task_id = await only_task(engine)
    asked, waiting = watch(engine, monkeypatch), engine.recorder.waiting
    first, again, taken = await waiting.look(task_id), await waiting.look(task_id), await waiting.take(task_id)
    assert first == again == taken is not None
    assert asked == [task_id]
    await waiting.take(task_id)
    assert asked == [task_id] * 2, "good for one start"


async def test_a_job_that_was_canceled_meanwhile_is_forgotten(engine):
    await engine.start()
    job_id = await engine.submit()
    assert len(engine.recorder.waiting) == 1
    await engine.service.cancel(job_id, "local")
    assert len(engine.recorder.waiting) == 0


async def test_what_waits_again_after_an_attempt_is_read_anew(engine, monkeypatch):
    """How often it was lost, and how far its bar had come, is part of it by then."""
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    asked = watch(engine, monkeypatch)
    gpu.prompt.lose(by_our_stop=True)
    await engine.until("dispatched", job_id)
    await engine.settle()
    assert asked == [(await engine.task(job_id)).id]


async def test_only_so_many_are_known(engine):
    await engine.start()
    await engine.submit()
    job, task = await engine.store.queued_task(await only_task(engine))
    waiting = Waiting(engine.store)
    for number in range(MOST + 5):
        waiting.note(job, replace(task, id=f"task-{number}"))
    assert len(waiting) == MOST
    assert await waiting.take("task-0") is None, "the oldest went, and the store knows of no such task"
    assert await waiting.take(f"task-{MOST + 4}") == (job, replace(task, id=f"task-{MOST + 4}"))

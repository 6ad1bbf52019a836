"""Restarts of the gateway's own processes: never under a job, never beside one, and work afterwards."""

from __future__ import annotations

import asyncio

import pytest

from gateway.engine.restarting import LOOK_SECONDS
from gateway.errors import ConflictError, NotFoundError
from gateway.interfaces import Restartable
from tests.engine.conftest import shipped_templates
from tests.fakes.upstream import FakeUpstream, capabilities_for


class OwnUpstream(FakeUpstream):
    """One whose process is ours; a restart ends when a test lets it."""

    def __init__(self, name):
        super().__init__(name, capabilities_for(shipped_templates()))
        self.restarts = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def restart(self):
        self.restarts += 1
        await self.gate.wait()


@pytest.fixture
async def own(engine):
    upstream = OwnUpstream("gpu-1")
    assert isinstance(upstream, Restartable)
    await engine.start(upstream)
    return upstream


def view(engine):
    return engine.service.upstreams()[0]


async def test_what_runs_there_ends_first_what_waits_comes_after(engine, own):
    running, waiting = await engine.submit(b"image:1"), await engine.submit(b"image:2")
    engine.service.restarts.begin("gpu-1")
    await engine.pass_time(LOOK_SECONDS)
    assert (own.restarts, len(own.prompts)) == (0, 1)
    assert (view(engine).restarting, view(engine).available) == (True, False)
    own.gate.clear()
    engine.finish(own)
    await engine.until("succeeded", running)
    await engine.pass_time(LOOK_SECONDS)
    assert (own.restarts, len(own.prompts)) == (1, 1), "nothing is given to it while it is being restarted"
    [judged] = (await engine.service.why_waiting(await engine.job(waiting))).upstreams
    assert judged.reason == view(engine).restraint == "it is restarted when it has nothing to do"
    own.gate.set()
    await engine.settle()
    assert not view(engine).restarting
    engine.finish(own)
    await engine.until("succeeded", waiting)


async def test_one_that_is_drained_stays_so_and_asking_twice_restarts_once(engine, own):
    await engine.service.set_draining("gpu-1", draining=True)
    own.gate.clear()
    for _ in range(2):
        engine.service.restarts.begin("gpu-1")
        await engine.settle()
    own.gate.set()
    await engine.settle()
    assert (own.restarts, view(engine).draining, view(engine).restarting) == (1, True, False)
    engine.service.restarts.begin("gpu-1")
    await engine.settle()
    assert own.restarts == 2


async def test_what_is_not_ours_or_not_there_is_refused(engine):
    await engine.start(engine.new_upstream("gpu-1"))
    with pytest.raises(ConflictError, match="drain it, restart it where it runs"):
        engine.service.restarts.begin("gpu-1")
    with pytest.raises(NotFoundError):
        engine.service.restarts.begin("gpu-2")
    assert not view(engine).restarting


async def test_one_that_is_removed_meanwhile_and_a_stop_end_a_restart(engine, own):
    own.gate.clear()
    engine.service.restarts.begin("gpu-1")
    await engine.settle()
    await engine.service.remove_upstream("gpu-1")
    own.gate.set()
    await engine.settle()
    assert engine.service.upstreams() == ()
    engine.pool.add(own)
    own.gate.clear()
    engine.service.restarts.begin("gpu-1")
    await engine.settle()
    await engine.service.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "restart of gpu-1"]

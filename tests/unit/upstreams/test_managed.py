"""One worker process over and over (``upstreams/managed.py``), with a child of three lines in place of the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from gateway.comfy.messages import Interrupted, Lost, NodeProgress, PromptStarted
from gateway.interfaces import Restartable
from gateway.upstreams.managed import BACKOFF_SECONDS, STEADY_SECONDS, ManagedUpstream, WorkerCommand
from tests.fakes.clock import FrozenClock
from tests.fakes.upstream import FakeUpstream

#: Says its port and its environment, then waits for the end of its input.
CHILD = (
    "import json, os, sys\n"
    "print(json.dumps({'port': 4711, 'pid': os.getpid()}), flush=True)\n"
    "print(sorted(name for name in os.environ if name.startswith(('GATEWAY_', 'COMFYGATE_'))), file=sys.stderr, flush=True)\n"
    "sys.stdin.read()\n"
)


def command(code, **more):
    # -S -E: a bare interpreter starts in a third of the time.
    return WorkerCommand((sys.executable, "-S", "-E", "-c", code), **more)


class Pool:
    """Owns one worker, as the pool does."""

    def __init__(self, tmp_path, code=CHILD, **more):
        self.clock = FrozenClock()
        self.remotes = []
        self.changed = asyncio.Event()
        self.worker = ManagedUpstream(
            "embedded-1",
            tmp_path / "embedded-1",
            self.make_remote,
            clock=self.clock,
            on_change=self.changed.set,
            command=command(code, **more),
            folder="gateway/mine",
        )

    def make_remote(self, url, token):
        remote = FakeUpstream("embedded-1", None, engine="preview")
        remote.url, remote.token = url, token
        self.remotes.append(remote)
        self.changed.set()
        return remote

    async def __aenter__(self):
        self.task = asyncio.create_task(self.worker.run_forever())
        await self.next_change()
        return self

    async def __aexit__(self, *_):
        await self.worker.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def next_change(self):
        async with asyncio.timeout(20):
            await self.changed.wait()
        self.changed.clear()
        await asyncio.sleep(0)


@pytest.fixture
async def process(monkeypatch):
    """The processes that were started."""
    started = []
    create = asyncio.create_subprocess_exec

    async def watched(*arguments, **how):
        made = await create(*arguments, **how)
        started.append((made, how))
        return made

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    return started


async def test_a_worker_is_spoken_to_at_its_port_with_its_token(tmp_path, process, monkeypatch):
    monkeypatch.setenv("GATEWAY_ADMIN_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with Pool(tmp_path) as pool:
        assert pool.remotes[0].url == "http://127.0.0.1:4711"
        environment = process[0][1]["env"]
        assert pool.remotes[0].token == environment["COMFYGATE_WORKER_TOKEN"]
        assert "secret" not in environment.values()
        assert pool.worker.status() is pool.remotes[0].state
    assert process[0][0].returncode == 0, "it ended by itself when its input was closed"
    assert pool.remotes[0].is_closed
    assert not pool.worker.status().reachable


@pytest.mark.parametrize(("number", "by_us"), [(signal.SIGKILL, True), (signal.SIGSEGV, False)])
async def test_what_runs_there_is_lost_with_the_process_and_only_a_crash_counts(tmp_path, process, number, by_us):
    async with Pool(tmp_path) as pool:
        messages = pool.worker.run("p", {}, job_id="j", attempt=1)
        waiting = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        pool.remotes[0].prompt.start()
        assert await waiting == PromptStarted("p")
        waiting = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        pool.clock.advance(5.0)
        assert pool.worker.status().unreachable_since is None
        os.kill(process[0][0].pid, number)
        assert await waiting == Lost("p", "the worker's process ended", by_our_stop=by_us)
        assert pool.remotes[0].prompt.closed
        with pytest.raises(StopAsyncIteration):
            await anext(messages)
        gone_at = pool.clock.monotonic()
        await pool.next_change()
        pool.clock.advance(BACKOFF_SECONDS[0])
        assert pool.worker.status().unreachable_since == gone_at
        await pool.next_change()
        assert len(pool.remotes) == 2
        assert pool.worker.status().unreachable_since is None
        assert [message async for message in pool.worker.adopt("p")] == [
            Lost("p", "the worker that ran it is gone", by_our_stop=True)
        ]


async def test_messages_pass_in_order_until_the_outcome_and_no_task_is_made_for_them(tmp_path):
    async with Pool(tmp_path) as pool:
        messages = pool.worker.run("p", {}, job_id="j", attempt=1)
        waiting = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        prompt = pool.remotes[0].prompt
        ticks = [NodeProgress("p", "1", float(value), 500.0) for value in range(500)]
        prompt.say(*ticks)
        assert await waiting == ticks[0]
        before = len(asyncio.all_tasks())
        for tick in ticks[1:]:
            assert await anext(messages) == tick
            assert len(asyncio.all_tasks()) == before
        prompt.interrupt()
        assert [message async for message in messages] == [Interrupted("p")]
        assert prompt.closed
        assert pool.worker._waits == set()


async def test_a_prompt_of_the_same_child_is_taken_up_there(tmp_path):
    async with Pool(tmp_path) as pool:
        messages = pool.worker.run("p", {}, job_id="j", attempt=1)
        waiting = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        pool.remotes[0].prompt.interrupt()
        assert [message async for message in pool.worker.adopt("p")] == [Interrupted("p")]


async def test_a_connection_that_breaks_gets_a_new_worker(tmp_path, process):
    pool = Pool(tmp_path)
    make = pool.make_remote

    async def broken():
        raise RuntimeError("a bug")

    def make_broken(url, token):
        remote = make(url, token)
        remote.run_forever = broken
        pool.worker._make_remote = make
        return remote

    pool.worker._make_remote = make_broken
    async with pool:
        await pool.next_change()
        assert not pool.worker.status().reachable
        assert process[0][0].returncode is not None
        pool.clock.advance(BACKOFF_SECONDS[0])
        await pool.next_change()
        assert pool.worker.status().reachable


@pytest.mark.parametrize("code", ["print('no json')", "raise SystemExit(3)", "print('{}')", "print('x' * 100_000)"])
async def test_a_child_that_does_not_say_its_port_is_told_and_started_again(tmp_path, code, process):
    async with Pool(tmp_path, code) as pool:
        status = pool.worker.status()
        assert (status.reachable, status.reason) == (False, "it ended before it was ready; the log says why")
        with pytest.raises(ConnectionError):
            pool.worker.fetch(None)
        [message] = [message async for message in pool.worker.run("p", {}, job_id="j", attempt=1)]
        assert isinstance(message, Lost)
        assert not pool.task.done()


async def test_a_restart_ends_the_child_and_the_next_one_starts_at_once(tmp_path, process):
    async with Pool(tmp_path, engine="comfyui") as pool:
        assert isinstance(pool.worker, Restartable)
        assert pool.worker.status().engine == "preview", "what runs there is what it says itself"
        messages = pool.worker.run("p", {}, job_id="j", attempt=1)
        waiting = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        await pool.worker.restart()
        assert process[0][0].returncode == 0
        assert await waiting == Lost("p", "the worker's process ended", by_our_stop=True)
        assert pool.worker.status().engine == "comfyui"
        await pool.next_change()
        while len(pool.remotes) < 2:  # its clock stands still: no backoff is waited for
            await pool.next_change()
        assert pool.worker.status().reachable


async def test_a_restart_does_not_wait_for_the_backoff(tmp_path, process):
    async with Pool(tmp_path, "raise SystemExit(3)") as pool:
        assert len(process) == 1
        await pool.worker.restart()
        await pool.next_change()
        assert len(process) == 2


@pytest.mark.parametrize(("served", "waits"), [(STEADY_SECONDS, False), (STEADY_SECONDS - 1, True)])
async def test_only_time_in_service_forgives_the_backoff(tmp_path, process, served, waits):
    async with Pool(tmp_path) as pool:
        pool.clock.advance(served)
        os.kill(process[0][0].pid, signal.SIGSEGV)
        await pool.next_change()
        if waits:
            assert len(process) == 1
            pool.clock.advance(BACKOFF_SECONDS[0])
        await pool.next_change()
        assert len(pool.remotes) == 2


async def test_one_that_takes_longer_than_it_may_is_told_so(tmp_path):
    async with Pool(tmp_path, "import sys; sys.stdin.read()", start_seconds=0.01) as pool:
        assert "did not start within" in pool.worker.status().reason

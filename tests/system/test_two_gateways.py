"""Two gateways on one data directory: at any time one of them acts, also when the other was only stopped."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import AsyncExitStack, closing
from http import HTTPStatus

import pytest
from sqlalchemy.exc import OperationalError

from gateway import holding
from gateway.clock import SystemClock
from gateway.holding import DATABASE, DatabaseBusyError, is_busy, take_directory
from gateway.lease import Timing
from gateway.store import executors
from gateway.store.sql_store import SqlStore
from tests.tools.faceswap_client import at_work, ended, parts, submit
from tests.tools.gateway_process import GatewayProcess, free_port
from tests.tools.open_worker import open_worker
from tests.tools.sse_client import stream
from tests.tools.waiting import PATIENCE_SECONDS, wait_until, wait_until_now

pytestmark = pytest.mark.system

EX_TEMPFAIL = 75
ROUNDS = int(os.environ.get("COMFYGATE_ZOMBIE_ROUNDS", "1"))
TABLES = (
    "jobs",
    "tasks",
    "attempts",
    "events",
    "assets",
    "blobs",
    "job_inputs",
    "templates",
    "upstreams",
    "leases",
    "outages",
)


def stop(gateway: GatewayProcess) -> None:
    """SIGSTOP, and not in the middle of a write: such a one is ended, which has a test of its own."""
    while True:
        gateway.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, gateway.process.pid, os.WSTOPPED | os.WNOWAIT)
        with closing(sqlite3.connect(gateway.data_dir / "gateway.db", timeout=0, isolation_level=None)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            except sqlite3.OperationalError:
                wake(gateway)
                time.sleep(0.01)
            else:
                return


def wake(gateway: GatewayProcess) -> None:
    gateway.process.send_signal(signal.SIGCONT)


def everything(gateway: GatewayProcess) -> dict[str, object]:
    """All rows, and all files that are kept: names and content."""
    rows = {table: sorted(map(repr, gateway.rows(f"SELECT * FROM {table}"))) for table in TABLES}  # noqa: S608 - our own names
    places = [gateway.data_dir / name for name in ("blobs", "address", "lock", "admin-token")]
    paths = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file()]
    return {**rows, **{str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}}


def attempts(gateway: GatewayProcess, job_id: str) -> list[tuple[int, str]]:
    return gateway.rows(
        "SELECT number, outcome FROM attempts WHERE task_id IN (SELECT id FROM tasks WHERE job_id = ?) ORDER BY number",
        job_id,
    )


@pytest.fixture
def worker(tmp_path, request):
    """An upstream; flags of its own come by parametrizing."""
    with open_worker(tmp_path / "upstream", *getattr(request, "param", ())) as started:
        yield started


@pytest.fixture
def pair(tmp_path, worker):
    """Two gateways that were told the same; none is started."""
    made = [
        GatewayProcess(
            tmp_path / name,
            {"UPSTREAMS": worker.url},
            workers=0,
            port=free_port(),
            has_quick_lease=True,
            shared_data_dir=tmp_path / "data",
        )
        for name in ("first", "second")
    ]
    yield made
    for gateway in made:
        gateway.end()


@pytest.mark.long
async def test_stopped_gateway_is_taken_over_and_changes_nothing_when_it_wakes(pair, worker, material):
    first, second = pair
    first.start(wait_for_workers=False)
    async with first.client() as old, second.client() as new:
        files = parts(video=material.long, image=material.face(700))
        async with stream(old, "POST", "/face-swap", files=files) as live:
            running = (await live.until("queued")).json["prompt_id"]
            waiting = await submit(old, video=material.clip, image=material.face(701))
            await at_work(old, running)
            stop(first)

            second.start(wait_for_workers=False)
            assert (await ended(new, running))["status"] == "SUCCESS"
            assert (await ended(new, waiting))["status"] == "SUCCESS"
            assert attempts(second, running) == attempts(second, waiting) == [(1, "succeeded")]
            assert "data_dir_taken_over" in second.log.read_text()

            # The zombie's neighbour: a prompt that it has never heard of, under its own name at the same upstream.
            neighbour = await submit(new, video=material.long, image=material.face(702))
            await at_work(new, neighbour)
            stop(second)
            before = everything(second)
            wake(first)
            told = await live.rest()
            status = await asyncio.to_thread(first.process.wait, PATIENCE_SECONDS)
            assert everything(second) == before
            wake(second)
        first.process = None
        assert status == EX_TEMPFAIL
        assert "error" not in told.names
        # It may read what the other one wrote down before it notices that there is another one.
        assert told.names[-1] == "completed" or told.comments[-1] == "shutdown"
        assert "Traceback" not in first.log.read_text()

        assert (await ended(new, neighbour))["status"] == "SUCCESS"
        assert attempts(second, neighbour) == [(1, "succeeded")]
        assert worker.ended() == []
        assert len(worker.started()) == len(set(worker.started())) == 3
        results = {
            (await new.get((await ended(new, job))["result"])).status_code for job in (running, waiting, neighbour)
        }
        assert results == {HTTPStatus.OK}
        assert second.rows("SELECT token FROM leases") == [(2,)]
    assert second.stop()[0] == 0


def reconnects(gateway: GatewayProcess) -> list[str]:
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [line["reason"] for line in lines if line["event"] == "upstream reconnects"]


@pytest.mark.long
@pytest.mark.parametrize("worker", [("--quirks", "0.3.64")], indirect=True, ids=["forgets-sockets"])
@pytest.mark.parametrize("when", ["while it works", "while it is idle"])
async def test_socket_that_is_forgotten_when_the_woken_one_closes_its_own_is_replaced(pair, worker, material, when):
    """Both have the same client id there: what ends with the zombie is the entry of its successor's socket."""
    first, second = pair
    first.start(wait_for_workers=False)
    async with first.client() as old, second.client() as new:
        await ended(old, await submit(old, video=material.clip, image=material.face(710)))
        stop(first)
        second.start(wait_for_workers=False)
        # It hears of this one, so its socket is the one that is known there.
        assert (await ended(new, await submit(new, video=material.clip, image=material.face(711))))[
            "status"
        ] == "SUCCESS"
        jobs = [await submit(new, video=material.long, image=material.face(712))] if when == "while it works" else []
        for job in jobs:
            await at_work(new, job)
        seen = len(reconnects(second))
        wake(first)
        assert await asyncio.to_thread(first.process.wait, PATIENCE_SECONDS) == EX_TEMPFAIL
        first.process = None
        jobs.append(await submit(new, video=material.long, image=material.face(713)))
        for job in jobs:
            assert (await ended(new, job))["status"] == "SUCCESS"
            assert attempts(second, job) == [(1, "succeeded")]
        assert len(reconnects(second)) > seen, "it was forgotten, noticed, and replaced"
        assert len(worker.started()) == len(set(worker.started())) == 2 + len(jobs)


@pytest.mark.long
async def test_gateways_that_are_stopped_at_random_take_turns_and_no_job_is_lost_or_told_twice(pair, worker, material):
    """The one that acts is stopped at any moment, in a write too; the stand-by takes over; woken, it becomes the stand-by.

    ``COMFYGATE_ZOMBIE_ROUNDS=100`` is the long form; the seed is printed when it fails.
    """
    seed = int(os.environ.get("COMFYGATE_SEED", secrets.randbits(32)))
    print("COMFYGATE_SEED =", seed)  # noqa: T201 - shown on failure
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    acting, waiting = pair
    acting.start(wait_for_workers=False)
    waiting.start(wait_until_it_listens=False)
    jobs = []
    for number in range(ROUNDS):
        async with acting.client() as client:
            targets = [chance.choice([material.clip, material.long]) for _ in range(2)]
            jobs += [await submit(client, video=target, image=material.face(800 + number)) for target in targets]
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        acting.process.send_signal(signal.SIGSTOP)
        await wait_until(waiting.is_listening, what="the stand-by")
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        wake(acting)
        status = await asyncio.to_thread(acting.process.wait, PATIENCE_SECONDS)
        was_in_a_write = "stopped_writer_killed" in waiting.log.read_text()
        assert status == EX_TEMPFAIL or (status == -signal.SIGKILL and was_in_a_write)
        acting.process = None
        acting, waiting = waiting, acting
        waiting.start(wait_until_it_listens=False)
    async with acting.client() as client:
        assert {(await ended(client, job))["status"] for job in jobs} == {"SUCCESS"}
    for job in jobs:
        events = acting.rows("SELECT number, kind FROM events WHERE job_id = ? ORDER BY number", job)
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert [kind for _, kind in events].count("succeeded") == 1
        assert [outcome for _, outcome in attempts(acting, job)].count("succeeded") == 1
    assert set(acting.rows("SELECT token FROM leases")) == {(ROUNDS + 1,)}
    # A prompt is handed in twice only where its attempt ended between the two: never under one id.
    assert len(worker.started()) == len(set(worker.started()))


@pytest.mark.long
async def test_second_waits_for_the_first_to_end_and_a_killed_one_is_not_waited_for(tmp_path):
    """With the times as they are shipped, and on one port: it listens when the other has let go of it."""
    first = GatewayProcess(tmp_path / "first", workers=0, shared_data_dir=tmp_path / "data")
    second = GatewayProcess(tmp_path / "second", workers=0, shared_data_dir=tmp_path / "data")
    try:
        first.start(wait_for_workers=False)
        second.port = first.port
        second.start(wait_until_it_listens=False)
        wait_until_now(lambda: b"waiting_for_data_dir" in second.log.read_bytes(), what="a word")
        assert not second.is_listening()
        async with first.client() as client:
            assert (await client.get("/-/jobs")).status_code == HTTPStatus.OK
        assert first.stop()[0] == 0
        wait_until_now(second.is_listening, what="the second to listen")
        assert b"data_dir_taken_over" not in second.log.read_bytes(), "it was left to it"
        async with second.client() as client:
            assert (await client.get("/-/jobs")).status_code == HTTPStatus.OK
        second.kill()
        first.start(wait_for_workers=False)
        assert b"waiting_for_data_dir" not in first.log.read_bytes(), "nobody waits for the dead"
        assert first.rows("SELECT token FROM leases") == [(3,)]
    finally:
        first.end()
        second.end()


STOPS_IN_A_WRITE = """
import asyncio, os, signal, sys
from contextlib import AsyncExitStack
from pathlib import Path
from gateway.clock import SystemClock
from gateway.holding import DATABASE, take_directory
from gateway.store.sql_store import SqlStore

async def main():
    folder = Path(sys.argv[1])
    async def opened(claim):
        return await SqlStore.open(folder / DATABASE, result_retention_seconds=1, asset_retention_seconds=1, claim=claim)
    def stop(connection):
        connection.exec_driver_sql("INSERT INTO blobs VALUES ('half', 1, 1.0, 1)")
        os.kill(os.getpid(), signal.SIGSTOP)
    async with AsyncExitStack() as stack:
        store, _ = await take_directory(stack, folder, opened, SystemClock())
        await store._executor.write(stop)

asyncio.run(main())
"""


async def test_gateway_that_was_stopped_in_the_middle_of_a_write_is_ended(tmp_path, monkeypatch):
    """It has the database's write lock: neither can it be refused nor can anybody else write."""
    monkeypatch.setattr(executors, "BUSY_TIMEOUT_MS", 100)
    monkeypatch.setattr(holding, "LOOK_SECONDS", 0.05)

    async def opened(claim):
        try:
            return await SqlStore.open(
                tmp_path / DATABASE, result_retention_seconds=1, asset_retention_seconds=1, claim=claim
            )
        except OperationalError as error:
            raise (DatabaseBusyError if is_busy(error) else AssertionError) from error

    with subprocess.Popen([sys.executable, "-c", STOPS_IN_A_WRITE, tmp_path]) as stopped:  # noqa: ASYNC220 - a few ms
        await wait_until(lambda: os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG))
        try:
            async with AsyncExitStack() as stack:
                store, keeper = await take_directory(
                    stack, tmp_path, opened, SystemClock(), timing=Timing(0.1, 0.3, 0.6)
                )
                assert stopped.wait(PATIENCE_SECONDS) == -signal.SIGKILL
                assert store.lease.token == 2
                assert await keeper.check()
                with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
                    assert database.execute("SELECT hash FROM blobs").fetchall() == []
        finally:
            stopped.kill()

"""Thousands of random requests against a whole gateway: no 5xx but the documented ones, and it lives on unharmed.

``COMFYGATE_FUZZ_REQUESTS`` says how many (1000 unless told, 10000 for the full run), ``COMFYGATE_FUZZ_SEED`` repeats one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from random import Random

import pytest

from tests.tools import clips
from tests.tools.faceswap_client import ended, submit
from tests.tools.gateway_process import GatewayProcess, is_alive
from tests.tools.random_requests import Known, Reply, Request, dice, make, seed_of_this_run, send
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

REQUESTS = int(os.environ.get("COMFYGATE_FUZZ_REQUESTS", "1000"))
AT_ONCE = 16
#: As docs/dialects.md lists them.
DOCUMENTED = {503: {"unavailable", "queue_full", "shutting_down"}, 507: {"storage_full"}}
#: Codes a socket is closed with by RFC 6455's rules or ours; 1011 would be a fault of the gateway.
CLOSE_CODES = {None, 1000, 1002, 1003, 1005, 1007, 1008, 1009, 1013, 4404, 4408}
#: What uvicorn tells at length and is a client's fault: a text frame that is not UTF-8, first on an open socket, then on
#: one that is closing. It closes both.
STRANGERS_FAULTS = ("UnicodeDecodeError: 'utf-8' codec", "websockets.exceptions.InvalidState: connection is closing")
#: Bodies of 2 MiB, 16 at once, allocators that keep what they had; a leak of 10 kB a request would pass this.
MOST_GROWTH_KIB = 96 * 1024


@pytest.fixture
def gateway(tmp_path):
    with GatewayProcess(tmp_path / "gateway", {"URL_INPUTS": "allowlist"}) as process:
        yield process


def test_the_seed_alone_decides_what_is_sent():
    known = Known(1, ["a"], ["b"], "c", clips.pixel(), b"clip" * 100)
    first, again = ([make(rng, known) for _ in range(300)] for rng in (dice(7), dice(7)))
    assert first == again
    assert len({request.head for request in first}) > 250


async def test_no_random_request_breaks_anything(gateway, material, capsys):
    seed = seed_of_this_run()
    with capsys.disabled():
        sys.stdout.write(f" [{REQUESTS} requests, COMFYGATE_FUZZ_SEED={seed}] ")
        sys.stdout.flush()
    assert gateway.process is not None
    async with gateway.client() as client:
        prompt_id = await submit(client, target_image=material.still, image=material.face(700))
        link = (await ended(client, prompt_id))["result"].removeprefix("/download/")
    known = Known(
        gateway.port,
        [prompt_id],
        [link],
        gateway.bearer["Authorization"].removeprefix("Bearer "),
        material.face(701).read_bytes(),
        material.clip.read_bytes(),
    )
    rng = dice(seed)
    warm_up = REQUESTS // 4
    await fire(gateway, known, rng, warm_up)
    before = memory_kib(gateway.process.pid)
    statuses = await fire(gateway, known, rng, REQUESTS - warm_up)

    assert is_alive(gateway.process.pid)
    grown = memory_kib(gateway.process.pid) - before
    assert grown < MOST_GROWTH_KIB, f"{grown} KiB more than after the first quarter"
    assert len(statuses) >= 8, f"a broad choice of answers: {statuses}"
    assert statuses[200] > 0, "some are right"
    if faults := complaints(gateway):
        pytest.fail("\n".join(str(fault) for fault in faults[:3]))
    await assert_unharmed(gateway, material)


async def fire(gateway: GatewayProcess, known: Known, rng: Random, count: int) -> Counter[int | None]:
    """Send so many, several at once; the statuses that came."""
    requests = iter([make(rng, known) for _ in range(count)])
    statuses: Counter[int | None] = Counter()

    async def one_after_another() -> None:
        for request in requests:
            try:
                reply = await send(request, gateway.port)
            except TimeoutError:
                raise AssertionError(f"never answered: {request!r}") from None
            judge(request, reply)
            statuses[reply.status] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(one_after_another(), name=f"client {number}")
    return statuses


def judge(request: Request, reply: Reply) -> None:
    """Whatever was asked: an answer, an honest one, and no fault of the gateway."""
    if reply.status is None:
        assert not request.is_http, f"no answer to {request!r}"
        return
    assert reply.close_code in CLOSE_CODES, f"closed with {reply.close_code}: {request.frames!r}"
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        assert reply.status in DOCUMENTED, f"{reply.status} {reply.body!r} to {request!r}"
        # Not ready is an answer: something drained or removed the worker. It is no error, and has no code.
        if reply.body and not request.head.startswith(b"GET /health"):
            told = json.loads(reply.body)
            assert told.get("code", told.get("error")) in DOCUMENTED[reply.status]
    for secret in (b"Traceback", b"/gateway.db", b'File "'):
        assert secret not in reply.body, f"{reply.body!r} to {request!r}"


def complaints(gateway: GatewayProcess) -> list[object]:
    """Lines of its log that are about its own faults."""
    found: list[object] = []
    for line in gateway.log.read_text().splitlines():
        try:
            told = json.loads(line)
        except ValueError:  # not written by its logger: a traceback, or a warning of the interpreter
            found.append(line)
            continue
        is_fault = told["level"] in {"error", "critical"} or "exception" in told
        cause = told.get("exception", "").rstrip().rpartition("\n")[2]
        if is_fault and not (told["logger"] in {"uvicorn.error", "asyncio"} and cause.startswith(STRANGERS_FAULTS)):
            found.append(told)
    return found


def memory_kib(pid: int) -> int:
    """Resident memory of a process, its children not counted."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def assert_unharmed(gateway: GatewayProcess, material) -> None:
    """Every job of it ends, nothing half-made stays, no connection is held, and it still swaps faces."""
    async with gateway.client() as client:
        # A random request may have known the admin token, and drained or removed the worker, or added a stranger, beside
        # which a CPU worker swaps nothing.
        names = {member["name"] for member in (await client.get("/-/upstreams")).json()["upstreams"]}
        for name in names - {"embedded-1"}:
            await client.delete(f"/-/upstreams/{name}", headers=gateway.bearer)
        gateway_is_whole = (await client.get("/health/ready")).status_code == HTTPStatus.OK
    if not gateway_is_whole:
        gateway.stop()
        gateway.start(wait_for_workers=False)
        async with gateway.client() as client:
            # Both are remembered; what is there already cannot be added, and what is not cannot be resumed.
            await client.post("/-/upstreams", json={"url": "embedded-1"}, headers=gateway.bearer)
            await client.post("/-/upstreams/embedded-1/resume", headers=gateway.bearer)
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.clip, image=material.face(702))
        assert (await ended(client, prompt_id))["status"] == "SUCCESS"
    live = "SELECT count(*) FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'canceled')"
    await wait_until(lambda: gateway.rows(live) == [(0,)], what="the end of all jobs")
    stored = "SELECT hash FROM blobs"
    await wait_until(
        lambda: {Path(name).name for name in gateway.files()} == {name for (name,) in gateway.rows(stored)},
        what="nothing on the disk that no row names",
        patience_seconds=10,
    )
    assert gateway.process is not None
    descriptors = Path(f"/proc/{gateway.process.pid}/fd")
    await wait_until(
        lambda: len(list(descriptors.iterdir())) < 80, what="connections to be let go", patience_seconds=15
    )

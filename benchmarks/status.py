"""``status``: polls a second of ``GET /status/{id}`` against a JSON endpoint of a bare Starlette app.

32 kept connections, each with one request under way, ids at random among 256 of the stored jobs: what grows is what is
stored, not who asks. Stored jobs have ended (most that a gateway knows have), except in one figure, where all of them wait.
"0 stored" is the one job that is asked for. "All asked for" is the other end: ids at random among all 10,000, in a fresh
process, so that nearly every poll is the first for its job.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from benchmarks import peer, stage, wire
from benchmarks.figures import Bound, Sheet, Target, at_least, percentile
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError
from benchmarks.seeding import seed

CONNECTIONS = 32
SECONDS = 4.0
_OK = b"HTTP/1.1 200"
#: "Not falling with the number of stored jobs", with room for noise.
_NOT_FALLING = 0.95
_WAITING = "1,000 waiting ones"
_ALL = "10,000, all asked for,"
#: Jobs that are polled.
_POLLED = 256


@dataclass
class Polled:
    """What a few seconds of polling gave."""

    per_second: float
    p99_ms: float
    cpu_us: float


async def run(options: Options) -> Sheet:
    """All rounds."""
    sheet = Sheet("status")
    # (ended, waiting) of each data directory; the smallest form makes do with one.
    stored = (
        {"0": (1, 0)}
        if options.is_smoke
        else {"0": (1, 0), "1,000": (1000, 0), "10,000": (10_000, 0), _WAITING: (0, 1000)}
    )
    folders = {name: options.folder / f"seeded-{number}" for number, name in enumerate(stored)}
    ids = {}
    for name, (ended, waiting) in stored.items():
        ids[name] = [job_id for found in await seed(folders[name], ended=ended, queued=waiting) for job_id in found]
    async with stage.fleet(options.folder, options.material, 1) as fleet:
        for _ in range(options.rounds):
            rates = {}
            for name, folder in folders.items():
                rates[name] = await _our_round(options, sheet, fleet, folder, ids[name], name)
                if name == "10,000":
                    await _our_round(options, sheet, fleet, folder, ids[name], _ALL)
                if name == "0":  # the floor answers with what was answered here
                    await _floor_round(options, sheet, [*stored, _ALL] if "10,000" in stored else list(stored))
            if "10,000" in rates:
                target = Target(Bound.AT_LEAST, _NOT_FALLING, is_ratio=False)
                sheet.add("polls at 10,000 / polls at 0 stored", "", ours=rates["10,000"] / rates["0"], target=target)
            await _peer_round(options, sheet, fleet)
    return sheet


async def _floor_round(options: Options, sheet: Sheet, names: Sequence[str]) -> None:
    async with stage.bare(options.folder) as served:
        polled = await poll(served, ["/status/x"], options.seconds(SECONDS))
    for name in names:
        sheet.add(f"polls, {name} stored", "per s", floor=polled.per_second)
        sheet.add(f"p99 of a poll, {name} stored", "ms", floor=polled.p99_ms)
        sheet.add(f"CPU of a poll, {name} stored", "µs", floor=polled.cpu_us)


async def _our_round(
    options: Options, sheet: Sheet, fleet: stage.Fleet, folder: Path, ids: Sequence[str], name: str
) -> float:
    # With an upstream the waiting ones would not wait.
    ports = [] if name == _WAITING else fleet.ports
    async with stage.gateway(options.folder, ports, data_dir=folder) as served:
        body = await served.status(ids[0])
        (options.folder / "status.json").write_text(json.dumps(body), encoding="utf-8")
        asked = ids if name == _ALL else ids[:: max(1, len(ids) // _POLLED)]
        polled = await poll(served, [f"/status/{job_id}" for job_id in asked], options.seconds(SECONDS))
        if (now := await served.status(ids[0]))["status"] != body["status"]:
            raise BenchmarkError(f"a stored job did not stay {body['status']}: {now}")
    target = None if name in {_WAITING, _ALL} else at_least(1)
    sheet.add(f"polls, {name} stored", "per s", ours=polled.per_second, target=target)
    sheet.add(f"p99 of a poll, {name} stored", "ms", ours=polled.p99_ms)
    sheet.add(f"CPU of a poll, {name} stored", "µs", ours=polled.cpu_us)
    return polled.per_second


async def _peer_round(options: Options, sheet: Sheet, fleet: stage.Fleet) -> None:
    if options.peer is None:
        sheet.note(peer.ABSENT)
        return
    await fleet.script()
    material = options.material
    async with peer.proxy(options.peer, options.folder, fleet.ports[0]) as served:
        connection = await wire.Connection.open(served.port)
        job_id = await peer.submit(connection, material.face, material.target_image, 1, is_video=False)
        connection.close()
        await fleet.until(done=1)
        polled = await poll(served, [f"/api/v2/jobs/{job_id}"], options.seconds(SECONDS))
    await fleet.forget()
    sheet.add("polls, 0 stored", "per s", peer=polled.per_second)
    sheet.add("p99 of a poll, 0 stored", "ms", peer=polled.p99_ms)
    sheet.add("CPU of a poll, 0 stored", "µs", peer=polled.cpu_us)


# -------------------------------------------------------------------------------------------------------------- polling


async def poll(served: stage.Served, paths: Sequence[str], seconds: float) -> Polled:
    """Poll on all connections for so long. Raises BenchmarkError on any answer but 200."""
    requests = [wire.request_bytes("GET", path) for path in paths]
    random.Random(1).shuffle(requests)
    loop = asyncio.get_running_loop()
    pollers = []
    for _ in range(CONNECTIONS):
        _, poller = await loop.create_connection(lambda: _Poller(requests), "127.0.0.1", served.port)
        pollers.append(poller)
    await _poll_all(pollers, min(0.5, seconds))  # connections, caches, the interpreter's own
    cpu, begun = served.process.cpu_seconds(), time.monotonic()
    await _poll_all(pollers, seconds)
    took, cpu = time.monotonic() - begun, served.process.cpu_seconds() - cpu
    latencies = [latency for poller in pollers for latency in poller.latencies]
    for poller in pollers:
        poller.close()
    if not latencies:
        raise BenchmarkError("no poll was answered")
    return Polled(len(latencies) / took, percentile(latencies, 0.99) * 1e3, cpu / len(latencies) * 1e6)


async def _poll_all(pollers: Sequence[_Poller], seconds: float) -> None:
    for poller in pollers:
        poller.start()
    await asyncio.sleep(seconds)
    for poller in pollers:
        await asyncio.wait_for(poller.stop(), wire.ANSWER_SECONDS)


class _Poller(asyncio.Protocol):
    """One connection that asks again as soon as it was answered."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = requests
        self._random = random.Random(id(self))
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self._buffer = b""
        self._is_going = False
        self._is_idle = asyncio.Event()
        self._failure = ""
        self.latencies: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, which nobody asked for unless it was idle."""
        self._failure = self._failure or f"a connection was lost ({exc})"
        self._is_idle.set()

    def start(self) -> None:
        """Begin to ask, counting from nothing."""
        self.latencies = []
        self._is_going = True
        self._is_idle.clear()
        self._ask()

    async def stop(self) -> None:
        """Ask no more; returns after the last answer. Raises BenchmarkError when one was no success."""
        self._is_going = False
        await self._is_idle.wait()
        if self._failure:
            raise BenchmarkError(self._failure)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _ask(self) -> None:
        self._sent_at = time.monotonic()
        if self._transport is not None:
            self._transport.write(self._random.choice(self._requests))

    def data_received(self, data: bytes) -> None:
        """The answer, or a part of it."""
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        mark = data.find(b"ontent-")
        while end > 0 and data[mark : mark + 14].lower() not in {b"ontent-length:", b""}:
            mark = data.find(b"ontent-", mark + 1)
        if end < 0 or len(data) < end + 4 + int(data[mark + 14 : data.find(b"\r\n", mark)]):
            self._buffer = data
            return
        self._buffer = b""
        if not data.startswith(_OK):
            self._failure = f"a poll was answered {data[:200]!r}"
            self._is_going = False
        self.latencies.append(time.monotonic() - self._sent_at)
        if self._is_going:
            self._ask()
        else:
            self._is_idle.set()

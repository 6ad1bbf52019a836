"""``relay``: from an upstream's frame to the client, as Server-Sent Event and as WebSocket message, against a bare relay.

The stand-ins note when a tick was handed to the socket, the viewers when its event was whole: what lies between is the
latency. Both sides get the same frames at the same pace; each scenario runs on a fresh set of jobs. The gateway gives a
viewer the newest snapshot, so that ticks may be left out, never turned round: what share came is told, and an event out
of order breaks the run off.

Which tick an event shows is worked out from its percentage: it rises evenly with the ticks of one pass, the first and the
last that came are known ticks, and one that lies between two ticks breaks the run off as well.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks import bare, material, peer, stage, wire
from benchmarks.figures import Bound, Sheet, Side, Target, at_most, percentile
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError

JOBS = 10
#: Nothing new for this long: all that will come has come.
_QUIET_SECONDS = 0.25
_CONNECTING_AT_ONCE = 50
_IDLE_STREAMS = 1000
_IDLE_FIGURE = ("memory of an idle stream", "kB")
_IDLE_TARGET = Target(Bound.AT_MOST, 40, is_ratio=False, unit="kB")
_PERCENTAGE = re.compile(rb'"percentage": ?([0-9.]+)')
_VALUE = re.compile(rb'"value": ?([0-9]+), ?"max"')
_STEP = re.compile(rb'"step": ?([0-9]+)')
#: How far an event may lie from the tick it is taken for; percentages are rounded to two decimals.
_RESIDUE = 0.25


@dataclass(frozen=True)
class Scenario:
    """Who watches what."""

    name: str
    jobs: int
    viewers: int
    per_second: float
    seconds: float
    is_websocket: bool = False

    @property
    def ticks(self) -> int:
        """Of each job."""
        return max(2, round(self.per_second * self.seconds))


#: No more than 5,000 deliveries a second: a bare relay alone takes a third of a core for them.
SCENARIOS = (
    Scenario("SSE, 10 jobs x 50/s, 1 viewer each", JOBS, 10, 50, 6),
    Scenario("SSE, 1 job x 50/s, 1 viewer", 1, 1, 50, 3),
    Scenario("SSE, 10 jobs x 50/s, 100 viewers", JOBS, 100, 50, 3),
    Scenario("SSE, 10 jobs x 5/s, 1,000 viewers", JOBS, 1000, 5, 4),
    Scenario("SSE, 1 job x 10/s, 500 viewers", 1, 500, 10, 5),
    Scenario("WebSocket, 10 jobs x 50/s, 1 viewer each", JOBS, 10, 50, 3, is_websocket=True),
    Scenario("WebSocket, 1 job x 50/s, 1 viewer", 1, 1, 50, 3, is_websocket=True),
    Scenario("WebSocket, 10 jobs x 50/s, 100 viewers", JOBS, 100, 50, 3, is_websocket=True),
    Scenario("WebSocket, 10 jobs x 5/s, 1,000 viewers", JOBS, 1000, 5, 4, is_websocket=True),
)
SMOKE_SCENARIOS = (
    Scenario("SSE, 2 jobs x 50/s, 1 viewer each", 2, 2, 50, 0.3),
    Scenario("WebSocket, 2 jobs x 50/s, 2 viewers each", 2, 4, 50, 0.3, is_websocket=True),
)
#: One viewer of one job brings too few events to tell CPU from what a server does anyway, so ten jobs stand for it.
_LATENCY_TARGETS = {SCENARIOS[0].name}
_CPU_TARGETS = {SCENARIOS[0].name, SCENARIOS[4].name}


@dataclass
class Told:
    """What one scenario gave on one relay."""

    latencies_ms: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    expected: int = 0

    @property
    def cpu_us(self) -> float:
        """CPU time of the relaying program for each event delivered."""
        return self.cpu_seconds / len(self.latencies_ms) * 1e6


class Relay:
    """One of the programs that relay."""

    #: What in a message tells the tick, and whether it is the tick's number; else it is a percentage.
    pattern = _VALUE
    is_exact = True
    shows_last_tick_at_once = False

    def __init__(self, fleet: stage.Fleet, served: stage.Served) -> None:
        self.fleet = fleet
        self.served = served

    async def start(self, count: int) -> None:
        """Get so many jobs submitted, each to an instance of its own."""
        raise NotImplementedError

    async def view(self, index: int, prompt: dict[str, object], *, is_websocket: bool) -> wire.Viewer:
        """A viewer of the prompt that runs on the instance of this index."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Called when the jobs were told to end."""


class Floor(Relay):
    """The bare relay; its jobs are submitted directly."""

    async def start(self, count: int) -> None:
        """Submit with the relay's own client ids."""
        for index, port in enumerate(self.fleet.ports[:count]):
            body = {
                "prompt": material.swap_graph("t.png", "f.png"),
                "prompt_id": secrets.token_hex(16),
                "client_id": bare.CLIENT_ID.format(index),
            }
            await wire.ask_json(port, "POST", "/prompt", body)

    async def view(self, index: int, prompt: dict[str, object], *, is_websocket: bool) -> wire.Viewer:
        """By the instance's number."""
        del prompt
        if is_websocket:
            return await wire.Viewer.websocket(self.served.port, f"/relay-ws/{index}", {})
        return await wire.Viewer.sse(self.served.port, f"/relay/{index}")


class Ours(Relay):
    """The gateway."""

    pattern = _PERCENTAGE
    is_exact = False
    shows_last_tick_at_once = True

    def __init__(self, fleet: stage.Fleet, served: stage.Gateway, small: material.Material) -> None:
        super().__init__(fleet, served)
        self._gateway = served
        self._small = small
        self._submitted: list[str] = []
        self._count = 0

    async def start(self, count: int) -> None:
        """Submit to the gateway."""
        self._submitted = []
        for _ in range(count):
            self._count += 1
            target = material.unlike(self._small.target_image, self._count)
            form = stage.swap_form(self._small.face, target, is_video=False)
            self._submitted.append(await self._gateway.submit(form))

    async def view(self, index: int, prompt: dict[str, object], *, is_websocket: bool) -> wire.Viewer:
        """By the job's id."""
        del index
        if is_websocket:
            return await wire.Viewer.websocket(self.served.port, "/face-swap-ws", {"prompt_id": prompt["job"]})
        return await wire.Viewer.sse(self.served.port, f"/events/{prompt['job']}")

    async def settle(self) -> None:
        """Wait for the ends of the jobs."""
        for job_id in self._submitted:
            await self._gateway.ended(job_id)


class Peer(Relay):
    """comfy-api-proxy."""

    pattern = _STEP

    def __init__(self, fleet: stage.Fleet, served: stage.Served, small: material.Material) -> None:
        super().__init__(fleet, served)
        self._small = small

    async def start(self, count: int) -> None:
        """It has one upstream."""
        del count
        connection = await wire.Connection.open(self.served.port)
        await peer.submit(connection, self._small.face, self._small.target_image, 1, is_video=False)
        connection.close()

    async def view(self, index: int, prompt: dict[str, object], *, is_websocket: bool) -> wire.Viewer:
        """By the job's id, which is the prompt's."""
        del index, is_websocket
        return await wire.Viewer.sse(self.served.port, f"/api/v2/jobs/{prompt['id']}/events")


async def run(options: Options) -> Sheet:
    """All rounds."""
    sheet = Sheet("relay")
    offered = SMOKE_SCENARIOS if options.is_smoke else SCENARIOS
    scenarios = [scenario for scenario in offered if options.only in scenario.name]
    if not scenarios:
        raise BenchmarkError(f"no scenario's name contains {options.only!r}")
    idle = 0 if options.only else options.pick(_IDLE_STREAMS, 20)
    async with stage.fleet(options.folder, options.material, max(scenario.jobs for scenario in scenarios)) as fleet:
        for _ in range(options.rounds):
            async with stage.bare(options.folder, fleet.ports) as served:
                floor = Floor(fleet, served)
                if idle:
                    sheet.add(*_IDLE_FIGURE, floor=await _idle_memory(floor, idle))
                for scenario in scenarios:
                    _add(sheet, scenario, Side.FLOOR, await _watch(floor, scenario))
            async with stage.gateway(options.folder, fleet.ports) as gateway:
                ours = Ours(fleet, gateway, options.material)
                if idle:
                    sheet.add(*_IDLE_FIGURE, ours=await _idle_memory(ours, idle), target=_IDLE_TARGET)
                for scenario in scenarios:
                    _add(sheet, scenario, Side.OURS, await _watch(ours, scenario))
            if not options.only:
                await _peer_round(options, sheet, fleet)
    sheet.note(
        "A share of ticks below 1 is what coalescing left out; one that came twice or out of order ends the run."
    )
    return sheet


async def _peer_round(options: Options, sheet: Sheet, fleet: stage.Fleet) -> None:
    if options.peer is None:
        sheet.note(peer.ABSENT)
        return
    async with peer.proxy(options.peer, options.folder, fleet.ports[0]) as served:
        alone = Scenario(SCENARIOS[1].name, 1, 1, 50, options.seconds(SCENARIOS[1].seconds))
        _add(sheet, alone, Side.PEER, await _watch(Peer(fleet, served, options.material), alone))
    sheet.note(
        "comfy-api-proxy has no WebSocket, gives out two events a second and takes eight streams: one viewer, then."
    )


def _add(sheet: Sheet, scenario: Scenario, side: Side, told: Told) -> None:
    latency = at_most(3) if scenario.name in _LATENCY_TARGETS else None
    cpu = at_most(3) if scenario.name in _CPU_TARGETS else None
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        value = percentile(told.latencies_ms, share)
        sheet.add_from(side, f"{scenario.name}: latency {name}", "ms", value, target=latency)
    sheet.add_from(side, f"{scenario.name}: CPU an event", "µs", told.cpu_us, target=cpu)
    sheet.add_from(side, f"{scenario.name}: events a CPU second", "", 1e6 / told.cpu_us)
    sheet.add_from(side, f"{scenario.name}: share of ticks", "", len(told.latencies_ms) / told.expected)


# ------------------------------------------------------------------------------------------------------------- watching


async def _idle_memory(relay: Relay, count: int) -> float:
    """KB by which the relaying program grows for each stream in which nothing happens."""
    async with _running(relay, 1, ticks=1) as prompts:
        first = await _viewers(relay, prompts, 1, is_websocket=False)
        before = relay.served.process.rss_bytes()
        others = await _viewers(relay, prompts, count, is_websocket=False)
        await asyncio.sleep(1.0)
        grown = relay.served.process.rss_bytes() - before
        for viewer in [*first, *others]:
            viewer.close()
    return grown / count / 1e3


async def _watch(relay: Relay, scenario: Scenario) -> Told:
    async with _running(relay, scenario.jobs, ticks=scenario.ticks) as prompts:
        viewers = await _viewers(relay, prompts, scenario.viewers, is_websocket=scenario.is_websocket)
        begun = relay.served.process.cpu_seconds()
        await relay.fleet.tick(scenario.ticks, scenario.per_second)
        await _until_quiet(viewers)
        told = Told(cpu_seconds=relay.served.process.cpu_seconds() - begun, expected=scenario.ticks * scenario.viewers)
        for viewer in viewers:
            viewer.close()
        noted = [prompt for _, prompt in await _at_work(relay.fleet)]
        for number, viewer in enumerate(viewers):
            sent = noted[number % scenario.jobs]["ticks_ns"]
            told.latencies_ms += _latencies(relay, viewer, sent, scenario.ticks)
    relay.served.process.require_alive()
    if not told.latencies_ms:
        raise BenchmarkError(f"nothing came through in {scenario.name!r}")
    return told


@asynccontextmanager
async def _running(relay: Relay, count: int, *, ticks: int) -> AsyncIterator[list[tuple[int, dict[str, Any]]]]:
    """So many jobs that wait to tick, with the index of the instance of each; they end with the context."""
    fleet = relay.fleet
    await fleet.forget()
    await fleet.script(held=True, maximum=ticks + 1)
    await relay.start(count)
    await fleet.until(running=count)
    await asyncio.sleep(_QUIET_SECONDS)
    yield await _at_work(fleet)
    await fleet.script()
    await fleet.finish()
    await relay.settle()


async def _at_work(fleet: stage.Fleet) -> list[tuple[int, dict[str, Any]]]:
    report = await fleet.report()
    return [(index, prompt) for index, prompts in enumerate(report) for prompt in prompts if not prompt["ended_ns"]]


async def _viewers(
    relay: Relay, prompts: Sequence[tuple[int, dict[str, Any]]], count: int, *, is_websocket: bool
) -> list[wire.Viewer]:
    """Viewers spread evenly over the jobs, all of them attached."""
    room = asyncio.Semaphore(_CONNECTING_AT_ONCE)

    async def view(number: int) -> wire.Viewer:
        async with room:
            index, prompt = prompts[number % len(prompts)]
            return await relay.view(index, prompt, is_websocket=is_websocket)

    viewers = await asyncio.gather(*(view(number) for number in range(count)))
    deadline = time.monotonic() + stage.PATIENCE_SECONDS
    while relay.shows_last_tick_at_once and not all(_has_tick(relay, viewer) for viewer in viewers):
        if time.monotonic() > deadline:
            raise BenchmarkError("a viewer was not shown where the job stands")
        await asyncio.sleep(_QUIET_SECONDS)
    await asyncio.sleep(_QUIET_SECONDS)
    return viewers


def _has_tick(relay: Relay, viewer: wire.Viewer) -> bool:
    return any(relay.pattern.search(data) for _, data in viewer.reads)


async def _until_quiet(viewers: Sequence[wire.Viewer]) -> None:
    """Return when nothing new has come for a while; a relay that never catches up is cut off."""
    deadline = time.monotonic() + stage.PATIENCE_SECONDS
    seen = -1
    while (now := sum(len(viewer.reads) for viewer in viewers)) != seen and time.monotonic() < deadline:
        seen = now
        await asyncio.sleep(_QUIET_SECONDS)


def _latencies(relay: Relay, viewer: wire.Viewer, sent_ns: Sequence[int], ticks: int) -> list[float]:
    """Milliseconds from socket to viewer of each tick that came. Raises BenchmarkError for what came out of order."""
    shown = [(at, float(found[1])) for at, text in viewer.messages() if (found := relay.pattern.search(text))]
    numbers = [value for _, value in shown]
    if not relay.is_exact:
        numbers = _numbers(numbers, ticks)
    came = [(at, round(number)) for (at, _), number in zip(shown, numbers, strict=True) if round(number) > 1]
    order = [number for _, number in came]
    if any(after <= before for before, after in pairwise(order)):
        raise BenchmarkError("an event came twice or out of order")
    return [(at - sent_ns[number]) / 1e6 for at, number in came]


def _numbers(percentages: Sequence[float], ticks: int) -> list[float]:
    """Ticks by percentages: the first one stands for tick 1, the last for the last."""
    if not percentages or percentages[-1] <= percentages[0]:
        raise BenchmarkError("the bar did not move")
    first, last = percentages[0], percentages[-1]
    numbers = [1 + (percentage - first) / (last - first) * ticks for percentage in percentages]
    if max(abs(number - round(number)) for number in numbers) > _RESIDUE:
        raise BenchmarkError("a percentage belongs to no tick: the bar does not rise evenly")
    return numbers

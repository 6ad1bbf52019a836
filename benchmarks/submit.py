"""``submit``: a photo and a video, from the client's first byte to ``POST /prompt`` at the upstream; and how many a second.

The floor is a client that does it itself: two uploads and the prompt, one after the other, prepared bytes on a kept
connection, to a stand-in that looks at nothing. That is the least it can take; what it takes a client with an ordinary
library is told as well. Ours is
one multipart ``POST /face-swap``, answered by an id when the job is durable; that the prompt arrives later is what counts
as added. Every submission is unlike all others, so nothing is spared by its content being known. Jobs last 0 ms.

The rate is of accepted submissions by 16 clients, each sending the next one when the last was answered. What was
accepted must also end: the time until the last has ended is told beside it.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from httpx import AsyncClient

from benchmarks import material, peer, stage, wire
from benchmarks.figures import Bound, Sheet, Side, Target, at_least, at_most, percentile
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError

#: As many for both sides: one instance alone would be what limits.
INSTANCES = 4
CLIENTS = 16
ONE_BY_ONE = 40
SECONDS = 5.0
#: What was accepted in the window must have ended by then.
_DRAIN_SECONDS = 120.0
_BY_LIBRARY = "until /prompt p50, the floor's client on httpx"
_RATE_BY_LIBRARY = "accepted, 16 clients, the floor's clients on httpx"
_TIMES = Target(Bound.AT_MOST, 5, is_ratio=False, unit="x p50")


@dataclass
class Rate:
    """What many clients got."""

    latencies_ms: list[float] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Accepted submissions."""
        return len(self.latencies_ms) / self.seconds


async def run(options: Options) -> Sheet:
    """All rounds."""
    sheet = Sheet("submit")
    numbers = itertools.count(1)
    for _ in range(options.rounds):
        async with stage.fleet(options.folder, options.material, INSTANCES) as fleet:
            floor = Direct(fleet, options.material)
            to_prompt = await _one_by_one(floor, options, numbers)
            _add_times(sheet, Side.FLOOR, to_prompt)
            _add_rate(sheet, Side.FLOOR, await _many(floor, options, numbers))
            await fleet.forget()
            async with AsyncClient(base_url=f"http://127.0.0.1:{fleet.ports[0]}", trust_env=False) as http:
                usual = DirectByLibrary(fleet, options.material, http)
                sheet.add(_BY_LIBRARY, "ms", floor=percentile(await _one_by_one(usual, options, numbers), 0.5))
                sheet.add(_RATE_BY_LIBRARY, "per s", floor=(await _many(usual, options, numbers)).per_second)
        async with stage.fleet(options.folder, options.material, INSTANCES) as fleet:
            await _our_round(options, sheet, fleet, numbers, to_prompt)
        await _peer_round(options, sheet, numbers)
    return sheet


class Client:
    """One way to submit."""

    #: What of a prompt's record is the id that submitting gave.
    key = "id"

    def __init__(self, fleet: stage.Fleet, small: material.Material) -> None:
        self.fleet = fleet
        self.small = small

    def port(self, client: int) -> int:
        """Where a client connects to."""
        raise NotImplementedError

    async def submit(self, connection: wire.Connection, number: int, client: int) -> str:
        """Submit; the id."""
        raise NotImplementedError

    def cpu_seconds(self) -> float:
        """Of what stands between, if anything does."""
        return 0.0

    async def ended(self, submitted: Sequence[str]) -> None:
        """Return when all of these have ended."""


class Direct(Client):
    """Without anything between: uploads and prompt to the instance itself."""

    def port(self, client: int) -> int:
        """Clients spread over the instances."""
        return self.fleet.ports[client % len(self.fleet.ports)]

    async def submit(self, connection: wire.Connection, number: int, client: int) -> str:
        """Two uploads, one prompt."""
        names = []
        for name, data in ((f"f{number}.jpg", self.small.face), (f"t{number}.mp4", self.small.video)):
            answer = await connection.ask(stage.upload_form(name, material.unlike(data, number)))
            names.append(str(answer.json()["name"]))
        body = {
            "prompt": material.swap_graph(f"bench/{names[1]}", f"bench/{names[0]}", is_video=True),
            "prompt_id": secrets.token_hex(16),
            "client_id": f"direct-{client}",
        }
        return str((await connection.ask(wire.json_request("POST", "/prompt", body))).json()["prompt_id"])


class DirectByLibrary(Direct):
    """The same by httpx, as most programs would: what it takes is the library's time as much as the upstream's."""

    def __init__(self, fleet: stage.Fleet, small: material.Material, http: AsyncClient) -> None:
        super().__init__(fleet, small)
        self._http = http

    async def submit(self, connection: wire.Connection, number: int, client: int) -> str:
        """Two uploads, one prompt."""
        del connection
        names = []
        for name, data in ((f"f{number}.jpg", self.small.face), (f"t{number}.mp4", self.small.video)):
            fields = {"type": "input", "subfolder": "bench"}
            files = {"image": (name, material.unlike(data, number))}
            names.append((await self._http.post("/upload/image", data=fields, files=files)).json()["name"])
        body = {
            "prompt": material.swap_graph(f"bench/{names[1]}", f"bench/{names[0]}", is_video=True),
            "prompt_id": secrets.token_hex(16),
            "client_id": f"direct-{client}",
        }
        return str((await self._http.post("/prompt", json=body)).json()["prompt_id"])


class Ours(Client):
    """Through the gateway."""

    key = "job"

    def __init__(self, fleet: stage.Fleet, small: material.Material, served: stage.Gateway) -> None:
        super().__init__(fleet, small)
        self._served = served

    def port(self, client: int) -> int:
        """The gateway's."""
        del client
        return self._served.port

    async def submit(self, connection: wire.Connection, number: int, client: int) -> str:
        """One form."""
        del client
        face, video = (material.unlike(data, number) for data in (self.small.face, self.small.video))
        answer = await connection.ask(stage.swap_form(face, video, is_video=True))
        return str(answer.json()["prompt_id"])

    def cpu_seconds(self) -> float:
        """The gateway's, its children's too."""
        return self._served.process.cpu_seconds()

    async def ended(self, submitted: Sequence[str]) -> None:
        """Until the gateway says so of each. Raises BenchmarkError when one failed."""
        for job_id in submitted:
            await self._served.ended(job_id, patience_seconds=_DRAIN_SECONDS)


class Peer(Client):
    """Through comfy-api-proxy."""

    def __init__(self, fleet: stage.Fleet, small: material.Material, served: stage.Served) -> None:
        super().__init__(fleet, small)
        self._served = served

    def port(self, client: int) -> int:
        """The proxy's."""
        del client
        return self._served.port

    async def submit(self, connection: wire.Connection, number: int, client: int) -> str:
        """Two assets, one job."""
        del client
        face, video = (material.unlike(data, number) for data in (self.small.face, self.small.video))
        return await peer.submit(connection, face, video, number, is_video=True)

    def cpu_seconds(self) -> float:
        """The proxy's."""
        return self._served.process.cpu_seconds()


async def _our_round(
    options: Options, sheet: Sheet, fleet: stage.Fleet, numbers: Iterator[int], direct: list[float]
) -> None:
    async with stage.gateway(options.folder, fleet.ports) as served:
        ours = Ours(fleet, options.material, served)
        to_prompt = await _one_by_one(ours, options, numbers)
        _add_times(sheet, Side.OURS, to_prompt)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            floor = percentile(direct, share)
            added = percentile(to_prompt, share) - floor
            target = at_most(2) if name == "p50" else None
            sheet.add(f"added until /prompt {name}", "ms", ours=added, floor=floor, target=target)
        sheet.add(_BY_LIBRARY, "ms", ours=percentile(to_prompt, 0.5))
        await fleet.forget()
        before, begun = ours.cpu_seconds(), time.monotonic()
        rate = await _many(ours, options, numbers)
        _add_rate(sheet, Side.OURS, rate)
        sheet.add(_RATE_BY_LIBRARY, "per s", ours=rate.per_second)
        await fleet.until(done=len(rate.submitted))
        await ours.ended(rate.submitted)
        took = time.monotonic() - begun
        accepted = len(rate.latencies_ms)
        sheet.add("jobs ended, all that were accepted / time until the last", "per s", ours=accepted / took)
        sheet.add(
            "CPU of a job to its end, children included", "ms", ours=(ours.cpu_seconds() - before) / accepted * 1e3
        )


async def _peer_round(options: Options, sheet: Sheet, numbers: Iterator[int]) -> None:
    if options.peer is None:
        sheet.note(peer.ABSENT)
        return
    async with (
        stage.fleet(options.folder, options.material, 1) as fleet,
        peer.proxy(options.peer, options.folder, fleet.ports[0]) as served,
    ):
        client = Peer(fleet, options.material, served)
        _add_times(sheet, Side.PEER, await _one_by_one(client, options, numbers))
        _add_rate(sheet, Side.PEER, await _many(client, options, numbers))
    sheet.note("comfy-api-proxy stands before one instance; it looks into no file and fetches no result.")


def _add_times(sheet: Sheet, side: Side, to_prompt: list[float]) -> None:
    sheet.add_from(side, "until /prompt p50, one at a time", "ms", percentile(to_prompt, 0.5))
    sheet.add_from(side, "until /prompt p99, one at a time", "ms", percentile(to_prompt, 0.99))


def _add_rate(sheet: Sheet, side: Side, rate: Rate) -> None:
    p50, p99 = (percentile(rate.latencies_ms, share) for share in (0.5, 0.99))
    sheet.add_from(side, "accepted, 16 clients", "per s", rate.per_second, target=at_least(0.33))
    sheet.add_from(side, "answer p50, 16 clients", "ms", p50)
    sheet.add_from(side, "answer p99, 16 clients", "ms", p99)
    sheet.add_from(side, "answer p99 / its p50, 16 clients", "", p99 / p50, target=_TIMES)
    if side is not Side.FLOOR:
        sheet.add_from(side, "CPU of an accepted job", "ms", rate.cpu_seconds / len(rate.latencies_ms) * 1e3)


# ----------------------------------------------------------------------------------------------------------- submitting


async def _one_by_one(client: Client, options: Options, numbers: Iterator[int]) -> list[float]:
    """Milliseconds from a client's first byte until the prompt is at the upstream, one submission after the other."""
    connection = await wire.Connection.open(client.port(0))
    begun: dict[str, int] = {}
    count = options.pick(ONE_BY_ONE, 3)
    for turn in range(count + 2):  # the first two warm up
        now = time.monotonic_ns()
        submitted = await client.submit(connection, next(numbers), 0)
        begun[submitted] = now
        await client.fleet.until(done=turn + 1)
        await client.ended([submitted])
    connection.close()
    found = {prompt[client.key]: prompt for prompts in await client.fleet.report() for prompt in prompts}
    if missing := begun.keys() - found.keys():
        raise BenchmarkError(f"{len(missing)} submissions never became prompts")
    return [(found[key]["received_ns"] - now) / 1e6 for key, now in list(begun.items())[2:]]


async def _many(client: Client, options: Options, numbers: Iterator[int]) -> Rate:
    """All clients at once, each sending the next one when the last was answered."""
    rate = Rate()
    connections = [await wire.Connection.open(client.port(number)) for number in range(CLIENTS)]
    cpu, begun = client.cpu_seconds(), time.monotonic()
    end = begun + options.seconds(SECONDS)

    async def work(number: int) -> None:
        while time.monotonic() < end:
            sent = time.monotonic()
            rate.submitted.append(await client.submit(connections[number], next(numbers), number))
            rate.latencies_ms.append((time.monotonic() - sent) * 1e3)

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(work(number), name=f"client {number}")
    rate.seconds = time.monotonic() - begun
    rate.cpu_seconds = client.cpu_seconds() - cpu
    for connection in connections:
        connection.close()
    return rate

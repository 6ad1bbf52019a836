"""``pool``: how busy upstreams are kept, with jobs of 500 ms and of 20 ms.

One upstream with jobs of 20 ms shows the gap between two jobs; four of them finish 200 jobs a second, which asks for 5 ms
of everything that a job costs (two cores, on which the stand-ins run too).

One job runs before what is measured: how long jobs take is known from then on, over restarts too. All jobs are queued in the gateway before any is given out; each has inputs of its own, to be uploaded, and a result to be
fetched, checked and stored. Busy is the share of an upstream's time between its first start and its last end in which a
job ran, as the stand-ins noted it; the gap is what lies between two jobs. The makespan is from the first start to the
last end of all, over what it would be without gaps. The floor is a client for each upstream that does nothing but keep
its queue at two prompts, uploads included: ComfyUI's own queue then hides all that a submission takes.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

from benchmarks import material, stage, wire
from benchmarks.figures import Bound, Sheet, Side, Target, percentile
from benchmarks.options import Options
from benchmarks.submit import Direct

_QUEUE_DEPTH = 2
_LOOK_SECONDS = 0.002
_SUBMITTING_AT_ONCE = 8


@dataclass(frozen=True)
class Load:
    """Jobs of one length."""

    milliseconds: int
    instances: int
    jobs: int
    #: Of upstream time, in percent.
    busy: float

    @property
    def seconds(self) -> float:
        """How long one lasts."""
        return self.milliseconds / 1e3

    @property
    def name(self) -> str:
        """For the table."""
        return f"jobs of {self.milliseconds} ms on {self.instances}"


LOADS = (Load(500, 4, 80, 99), Load(20, 1, 200, 88), Load(20, 4, 400, 88))
SMOKE_LOADS = (Load(20, 2, 8, 88),)


async def run(options: Options) -> Sheet:
    """All rounds."""
    sheet = Sheet("pool")
    numbers = itertools.count(1)
    for _ in range(options.rounds):
        for load in SMOKE_LOADS if options.is_smoke else LOADS:
            async with stage.fleet(options.folder, options.material, load.instances) as fleet:
                await fleet.script(seconds=load.seconds)
                await _feed(Direct(fleet, options.material), load, numbers)
                _add(sheet, load, Side.FLOOR, await fleet.report())
            async with stage.fleet(options.folder, options.material, load.instances) as fleet:
                await fleet.script(seconds=load.seconds)
                await _queue(options, fleet, load, numbers)
                _add(sheet, load, Side.OURS, await fleet.report())
    sheet.note(
        "comfy-api-proxy stands before one instance and has no queue of its own, so there is nothing to measure."
    )
    return sheet


async def _queue(options: Options, fleet: stage.Fleet, load: Load, numbers: Iterator[int]) -> None:
    small = options.material
    async with stage.gateway(options.folder, fleet.ports) as served:
        form = stage.swap_form(small.face, material.unlike(small.target_image, next(numbers)), is_video=False)
        await served.ended(await served.submit(form))
        await fleet.forget()
        await served.drain()
        room = asyncio.Semaphore(_SUBMITTING_AT_ONCE)

        async def submit(number: int) -> str:
            face, target = (material.unlike(data, number) for data in (small.face, small.target_image))
            async with room:
                return await served.submit(stage.swap_form(face, target, is_video=False))

        jobs = await asyncio.gather(*(submit(next(numbers)) for _ in range(load.jobs)))
        await served.resume()
        await fleet.until(done=load.jobs)  # nobody asks the gateway meanwhile
        for job_id in jobs:
            await served.ended(job_id)


async def _feed(client: Direct, load: Load, numbers: Iterator[int]) -> None:
    """Keep each upstream's queue at two until all is submitted, then wait for the end."""
    left = iter(range(load.jobs))

    async def feed(instance: int) -> None:
        connection = await wire.Connection.open(client.port(instance))
        queue = wire.request_bytes("GET", "/queue")
        for _ in left:
            while _length((await connection.ask(queue)).json()) >= _QUEUE_DEPTH:
                await asyncio.sleep(_LOOK_SECONDS)
            await client.submit(connection, next(numbers), instance)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for instance in range(load.instances):
            group.create_task(feed(instance), name=f"feeder {instance}")
    await client.fleet.until(done=load.jobs)


def _length(queue: dict[str, list[Any]]) -> int:
    return len(queue["queue_running"]) + len(queue["queue_pending"])


def _add(sheet: Sheet, load: Load, side: Side, report: Sequence[Sequence[dict[str, Any]]]) -> None:
    spans = [sorted((prompt["started_ns"], prompt["ended_ns"]) for prompt in prompts) for prompts in report]
    shares = [sum(end - start for start, end in each) / (each[-1][1] - each[0][0]) * 100 for each in spans if each]
    gaps_ms = [(after[0] - before[1]) / 1e6 for each in spans for before, after in pairwise(each)]
    whole = max(each[-1][1] for each in spans if each) - min(each[0][0] for each in spans if each)
    ideal = math.ceil(load.jobs / load.instances) * load.seconds * 1e9
    busy = Target(Bound.AT_LEAST, load.busy, is_ratio=False, unit="%")
    name = load.name
    sheet.add_from(side, f"{name}: upstreams busy", "%", mean(shares), target=busy)
    sheet.add_from(side, f"{name}: makespan / ideal", "", whole / ideal)
    sheet.add_from(side, f"{name}: gap p50", "ms", percentile(gaps_ms, 0.5))
    sheet.add_from(side, f"{name}: gap p99", "ms", percentile(gaps_ms, 0.99))

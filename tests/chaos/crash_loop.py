"""Processes killed again and again under clients that write down what they see; then what they saw is judged.

::

    python -m tests.chaos.crash_loop --rounds 200 --workers 3            # counts, and each rule that did not hold
    python -m tests.chaos.crash_loop --rounds 200 --workers 3 --seed 7   # the same choices again

A round: 20 to 500 ms of work, then SIGKILL of the gateway, of an upstream, or of both at once, and their start. After
the last one 60 s of peace: whatever has not ended by then is stuck. A seed gives the same choices; which write a kill
meets is up to the machine, so what a seed finds may take several tries to come again.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.clients import Crowd, Wish
from tests.chaos.history import sent_twice, violations
from tests.chaos.material import Material
from tests.chaos.processes import Pool

#: Time that a process gets to work, in seconds.
LIFE_SECONDS = (0.02, 0.5)
PEACE_SECONDS = 60.0
#: Every job must end well however often it is hit.
SETTINGS = {"MAX_ATTEMPTS": "100", "POISON_AFTER": "0"}
CANCELED_SHARE = 0.2
#: Jobs at work or waiting, per upstream.
CLIENTS_PER_WORKER = 2


@dataclass
class Verdict:
    """What became of one run."""

    seed: int
    violations: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    peace_seconds: float = 0.0
    #: What gateway and upstreams said when something had gone wrong.
    testimony: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = "".join(f"\n  {count:6d} {name}" for name, count in sorted(self.counts.items()))
        broken = "".join(f"\n  {sentence}" for sentence in self.violations)
        verdict = f"{len(self.violations)} violations{broken}"
        told = "".join(f"\n  | {line}" for line in self.testimony)
        return f"seed {self.seed}: {verdict}\n  all ended {self.peace_seconds:.1f} s after the last blow{counts}{told}"


async def run(folder: Path, *, rounds: int, workers: int, seed: int) -> Verdict:
    """So many rounds on processes of its own, and the verdict."""
    # Three sources of chance, so that who is killed when does not depend on how fast clients are.
    uses = ("kills", "jobs", "cancels")
    killing, working, wishing = (Random(f"{seed} {use}") for use in uses)  # noqa: S311 - no secrets
    verdict = Verdict(seed, [])
    material = await asyncio.to_thread(Material, folder / "material")
    async with Pool(folder, [()] * workers, SETTINGS) as pool, Crowd(pool.gateway.url, material, working) as crowd:
        is_over = asyncio.Event()
        clients = [
            asyncio.create_task(client(crowd, wishing, is_over), name=f"client {number}")
            for number in range(CLIENTS_PER_WORKER * workers)
        ]
        for _ in range(rounds):
            await one_round(pool, killing, verdict.counts)
            if any(task.done() for task in clients):
                break  # it broke: the gather below says how
        is_over.set()
        await peace(clients, verdict)
        await crowd.look_again()
        await judge(pool, crowd, verdict)
    return verdict


async def client(crowd: Crowd, chance: Random, is_over: asyncio.Event) -> None:
    """One job after the other."""
    while not is_over.is_set():
        job_id = await crowd.submit()
        if job_id is not None:
            wish = Wish("", chance.uniform(0, 2)) if chance.random() < CANCELED_SHARE else None
            await crowd.see_through(job_id, wish)


async def one_round(pool: Pool, chance: Random, counts: Counter[str]) -> None:
    """Let them work, and kill."""
    await asyncio.sleep(chance.uniform(*LIFE_SECONDS))
    victim, worker = chance.choices(["gateway", "worker", "both"], (5, 5, 2))[0], chance.choice(pool.workers)
    counts[f"kills of {victim}"] += 1
    killed = []
    if victim != "gateway":
        killed.append(pool.kill_worker(worker))
    if victim != "worker":
        killed.append(pool.kill_gateway())
    await asyncio.gather(*killed)


async def peace(clients: list[asyncio.Task[None]], verdict: Verdict) -> None:
    """Wait for the clients' last jobs, as long as that may take."""
    begun = time.monotonic()
    await asyncio.wait(clients, timeout=PEACE_SECONDS)
    verdict.peace_seconds = time.monotonic() - begun
    for task in clients:
        task.cancel()
    ends = await asyncio.gather(*clients, return_exceptions=True)
    verdict.violations += [f"clients work: {end!r}" for end in ends if isinstance(end, Exception)]


async def judge(pool: Pool, crowd: Crowd, verdict: Verdict) -> None:
    """Everything that can be said at the end."""
    kept = await asyncio.to_thread(pool.kept)
    verdict.violations += violations(crowd.observations, kept)
    verdict.violations += sent_twice(pool.started())
    if verdict.violations:
        verdict.testimony = await asyncio.to_thread(pool.testimony)
    try:
        await asyncio.to_thread(pool.settle)
    except AssertionError as error:
        verdict.violations.append(f"nothing of ours stays: {error}")
    verdict.violations += [f"no scraps: {name}" for name in pool.scraps()]
    verdict.counts += crowd.counts
    verdict.counts["jobs acknowledged"] = len(crowd.jobs)
    verdict.counts["jobs kept"] = len(kept)
    verdict.counts.update(f"jobs {record.state}" for record in kept)
    verdict.counts.update(f"attempts {outcome}" for record in kept for outcome in record.outcomes)
    verdict.counts["observations"] = len(crowd.observations)
    verdict.counts["most attempts of a job"] = max((len(record.outcomes) for record in kept), default=0)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.crash_loop", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="made up when it is not given, and printed")
    parser.add_argument("--keep", type=Path, help="do everything in this folder, and leave it")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        begun = time.monotonic()
        verdict = asyncio.run(run(place, rounds=options.rounds, workers=options.workers, seed=seed))
    sys.stdout.write(f"{options.rounds} rounds in {time.monotonic() - begun:.0f} s\n{verdict}\n")
    return bool(verdict.violations)


if __name__ == "__main__":
    sys.exit(main())

"""Many jobs on two upstreams, most of them canceled at random moments, in every state that a job can be in.

::

    python -m tests.chaos.cancel_storm --jobs 200            # counts by state, and each rule that did not hold
    python -m tests.chaos.cancel_storm --jobs 200 --seed 7

Nobody is killed, and one attempt is all that a job has: whoever is hit beside a canceled one fails. One upstream cancels
by id in one step; with the other one, as with ComfyUI up to 0.24, whoever interrupts must see to it that nobody else is hit.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.clients import Crowd, Wish, insist
from tests.chaos.crash_loop import Verdict, judge, peace
from tests.chaos.history import CancelSent
from tests.chaos.material import Material
from tests.chaos.processes import Pool
from tests.tools.waiting import wait_until

SETTINGS = {"MAX_ATTEMPTS": "1", "POISON_AFTER": "0"}
FLAGS: list[tuple[str, ...]] = [("--quirks", "0.3.64"), ("--quirks", "newer")]
CANCELED_SHARE = 0.7
#: Event that a cancel waits for -> most seconds that it comes after it.
MOMENTS = {"": 4.0, "dispatched": 0.3, "started": 0.5, "progress": 0.5, "finishing": 0.02, "succeeded": 0.05}
CLIENTS = 16
#: A result that nobody wants any more is deleted within this.
TIDY_SECONDS = 10.0
#: Whom an interrupt without an id hits.
EVERYBODY = "everybody"


async def run(folder: Path, *, jobs: int, seed: int) -> Verdict:
    """So many jobs on processes of its own, and the verdict."""
    working, wishing = (Random(f"{seed} {use}") for use in ("jobs", "cancels"))  # noqa: S311 - no secrets
    verdict = Verdict(seed, [])
    material = await asyncio.to_thread(Material, folder / "material")
    async with Pool(folder, FLAGS, SETTINGS) as pool, Crowd(pool.gateway.url, material, working) as crowd:
        wishes = iter([wish(wishing) for _ in range(jobs)])
        clients = [
            asyncio.create_task(client(crowd, wishes), name=f"client {number}") for number in range(min(CLIENTS, jobs))
        ]
        await wait_until(
            lambda: len(crowd.jobs) >= jobs or any(task.done() for task in clients),
            what="the last job",
            patience_seconds=3600,
        )
        await peace(clients, verdict)
        await crowd.look_again()
        await judge(pool, crowd, verdict)
        verdict.violations += neighbours(pool, crowd)
        verdict.violations += await left_behind(pool)
    return verdict


def wish(chance: Random) -> Wish | None:
    """When the next job is to be canceled, if it is."""
    if chance.random() >= CANCELED_SHARE:
        return None
    after = chance.choice(list(MOMENTS))
    return Wish(after, chance.uniform(0, MOMENTS[after]))


async def client(crowd: Crowd, wishes: Iterator[Wish | None]) -> None:
    """One job after the other, until none is left."""
    for own in wishes:
        await crowd.see_through(await insist(crowd.submit), own)


def neighbours(pool: Pool, crowd: Crowd) -> Iterator[str]:
    """What happened to jobs that nobody wished canceled: they may be given back before they began, and no more."""
    canceled = {seen.job_id for seen in crowd.observations if isinstance(seen, CancelSent)}
    query = (
        "SELECT attempts.id, job_id, outcome, attempts.started_at FROM attempts JOIN tasks ON tasks.id = task_id "
        "ORDER BY attempts.number"
    )
    rows = [row for row in pool.gateway.rows(query) if row[1] not in canceled]
    for _, job_id, outcome, started_at in rows:
        if outcome != "succeeded" and (outcome != "interrupted" or started_at is not None):
            yield f"no neighbour is hit: {job_id} {outcome} after its start"
    spared = {prompt_id for prompt_id, *_ in rows}
    for worker in pool.workers:
        for path, body in worker.ended():
            if hit(path, body) & {*spared, EVERYBODY}:
                yield f"no neighbour is hit: {worker.folder.name} was asked {path} {body}"


def hit(path: str, body: Any) -> set[str]:
    """Prompts that a request to an upstream ends even while they run."""
    if path == "/interrupt":
        return {(body or {}).get("prompt_id") or EVERYBODY}
    return {path.split("/")[3]} if path.startswith("/api/jobs/") else set()


async def left_behind(pool: Pool) -> list[str]:
    """Files that belong to no job, where nobody was killed; what a canceled job had just made goes right after it."""

    def strays() -> list[str]:
        wanted = {blob for (blob,) in pool.gateway.rows("SELECT DISTINCT blob FROM assets")}
        return sorted(name for name in pool.gateway.files() if Path(name).name not in wanted)

    try:
        await wait_until(lambda: not strays(), what="the last file to go", patience_seconds=TIDY_SECONDS)
    except AssertionError:
        return [f"nothing is left behind: {name}" for name in strays()]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.cancel_storm", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="made up when it is not given, and printed")
    parser.add_argument("--keep", type=Path, help="do everything in this folder, and leave it")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        verdict = asyncio.run(run(options.keep or Path(folder), jobs=options.jobs, seed=seed))
    sys.stdout.write(f"{options.jobs} jobs in {time.monotonic() - begun:.0f} s\n{verdict}\n")
    return bool(verdict.violations)


if __name__ == "__main__":
    sys.exit(main())

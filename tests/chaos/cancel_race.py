"""Swaps of the v1 API that are deleted at about the moment when a worker picks them up.

::

    python -m tests.chaos.cancel_race --swaps 500            # how many were canceled and how many processed; what broke

Each must end canceled and refunded, or done and charged, as the answer to its DELETE said: there is nothing in between.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx

from tests.tools import clips
from tests.tools.v1_house import CREDITS, House, opened
from tests.tools.waiting import wait_until

CLIENTS = 4
#: A DELETE comes up to so long after the answer to its create.
MOST_SECONDS = 0.06


@dataclass
class Verdict:
    """How it went."""

    #: Words of DELETE and of the end -> swaps.
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = [f"DELETE said {said:<10} and it ended {end:<8}: {n}" for (said, end), n in sorted(self.counts.items())]
        return "\n".join([*told, *self.violations, "every rule held" if not self.violations else "BROKEN"])


async def run(folder: Path, *, swaps: int, seed: int) -> Verdict:
    """So many swaps on a gateway of its own, and the verdict."""
    rng, verdict = Random(seed), Verdict()  # noqa: S311 - no secrets
    face, target = clips.face(folder / "face.png"), clips.still(folder / "still.png")
    delays = iter([rng.uniform(0, MOST_SECONDS) for _ in range(swaps)])
    (folder / "house").mkdir()
    with opened(folder / "house", face=face, target=target, others={}) as house:
        async with house.client() as client:
            racers = [asyncio.create_task(race(house, client, delays, verdict)) for _ in range(CLIENTS)]
            await asyncio.gather(*racers)
            left = (await client.get("/api/v1/me")).json()["credits"]["total"]
        judge(house, verdict, left)
    return verdict


async def race(house: House, client: httpx.AsyncClient, delays, verdict: Verdict) -> None:
    body = {"type": "image", "source_url": house.url("face.jpg"), "target_url": house.url("target.jpg")}
    for delay in delays:
        made = (await client.post("/api/v1/swaps", json=body)).json()
        await asyncio.sleep(delay)
        path = f"/api/v1/swaps/{made['id']}"
        said = (await client.delete(path)).json()["status"]

        async def look(path: str = path) -> str | None:
            status = (await client.get(path)).json()["status"]
            return status if status in {"done", "failed", "canceled"} else None

        end = await wait_until(look, what=f"the end of {made['id']}", patience_seconds=600)
        verdict.counts[said, end] += 1
        if (said, end) not in {("canceled", "canceled"), ("processing", "done"), ("done", "done")}:
            verdict.violations.append(f"{made['id']}: DELETE said {said}, and it ended {end}")


def judge(house: House, verdict: Verdict, left: int) -> None:
    """The ledger agrees with how each swap ended, and the purse with the ledger."""
    entries: dict[str, list[tuple[str, int]]] = {}
    for job_id, kind, amount in house.gateway.rows(
        "SELECT job_id, kind, subscription + monthly + permanent FROM ledger WHERE job_id IS NOT NULL ORDER BY number"
    ):
        entries.setdefault(job_id, []).append((kind, amount))
    spent = 0
    for job_id, state, cost in house.gateway.rows("SELECT id, state, credit_cost FROM jobs"):
        end = ("charge", 0) if state == "succeeded" else ("refund", cost)
        spent += cost if state == "succeeded" else 0
        if entries.get(job_id) != [("hold", -cost), end] or cost <= 0:
            verdict.violations.append(f"{job_id} is {state} and cost {cost}, and its entries are {entries.get(job_id)}")
    if left != CREDITS - spent:
        verdict.violations.append(f"{left} credits are left of {CREDITS}, and {spent} were spent")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="comfygate-cancel-race-") as folder:
        verdict = asyncio.run(run(Path(folder), swaps=options.swaps, seed=options.seed))
    sys.stdout.write(f"seed {options.seed}\n{verdict}\n")
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())

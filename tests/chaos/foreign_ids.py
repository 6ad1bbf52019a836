"""Whether the time of an answer tells an id that is somebody else's from one that was never there.

::

    python -m tests.chaos.foreign_ids --count 2000         # of each kind, at each route; the table and the verdict
    python -m tests.chaos.foreign_ids --route /status/{id}

One gateway in keys mode with a worker, one connection, one request at a time. Each round asks once for every kind of id, in
random order, so that whatever the machine does meanwhile falls on all of them. ``missing`` is asked for twice: what differs
between these two is the noise. A kind differs when its median is further from ``missing`` than the noise is, by more than three
standard errors (of the differences of blocks of rounds) and by more than two parts in a hundred.
"""

from __future__ import annotations

import argparse
import http.client
import math
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import UUID

import httpx

from tests.tools import clips
from tests.tools.gateway_process import GatewayProcess

#: One of each dialect, and our own; all of them by the same function below.
ROUTES = ("/status/{id}", "/check_task_status/{id}", "/query_task/{id}", "/-/jobs/{id}", "/-/jobs/{id}/events")
BASE = "missing"
AGAIN = "missing again"
KINDS = (BASE, AGAIN, "foreign", "deleted", "malformed")
BLOCKS = 20
STANDARD_ERRORS = 3.0
SMALLEST_SHARE = 0.02
#: Requests a minute that the key may send: as many as any key may.
RATE = 100_000


@dataclass(frozen=True)
class Timing:
    """One kind at one route; microseconds."""

    route: str
    kind: str
    count: int
    p50: float
    p95: float
    #: Of the median from that of ``missing``, and its standard error.
    difference: float
    error: float
    #: What ``missing again`` differs by.
    noise: float

    @property
    def differs(self) -> bool:
        return abs(self.difference) - self.noise > max(STANDARD_ERRORS * self.error, SMALLEST_SHARE * self.p50)


def compare(route: str, seconds: Mapping[str, list[float]]) -> Iterator[Timing]:
    """What was measured of a route, kind by kind, round by round."""
    base = statistics.median(seconds[BASE])
    noise = abs(statistics.median(seconds[AGAIN]) - base)
    for kind, taken in seconds.items():
        apart = [
            statistics.median(ours) - statistics.median(theirs)
            for ours, theirs in zip(_blocks(taken), _blocks(seconds[BASE]), strict=True)
        ]
        error = statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        ordered = sorted(taken)
        yield Timing(
            route,
            kind,
            len(taken),
            1e6 * statistics.median(taken),
            1e6 * ordered[int(0.95 * (len(ordered) - 1))],
            1e6 * (statistics.median(taken) - base),
            1e6 * error,
            1e6 * noise,
        )


def _blocks(values: list[float]) -> list[list[float]]:
    size = max(1, len(values) // BLOCKS)
    return [values[start : start + size] for start in range(0, len(values), size)]


class World:
    """A gateway, two keys, and ids of every kind that the first of them does not own."""

    def __init__(self, gateway: GatewayProcess, folder: Path) -> None:
        self._gateway = gateway
        self.key = self._new_key("asks")
        files = {"target_image": clips.still(folder / "still.png"), "image": clips.face(folder / "face.png")}
        content = {field: path.read_bytes() for field, path in files.items()}
        owner = {"X-API-Key": self._new_key("owns")}
        with gateway.http() as http:
            self.foreign = self._submit(http, content, owner)
            self.deleted = self._submit(http, content, {"X-API-Key": self.key})
            while http.get(f"/-/jobs/{self.deleted}", headers={"X-API-Key": self.key}).json()["state"] != "succeeded":
                time.sleep(0.2)
            purged = http.post("/-/purge", json={"job": self.deleted}, headers=gateway.bearer)
            assert purged.is_success, purged.text

    def ids(self, chance: Random) -> dict[str, str]:
        """One of each kind; what never was is another each time, as old as a real one."""

        def missing() -> str:
            return str(UUID(int=(UUID(self.foreign).int >> 62 << 62) | chance.getrandbits(62)))

        return {
            BASE: missing(),
            AGAIN: missing(),
            "foreign": self.foreign,
            "deleted": self.deleted,
            "malformed": "".join(chance.choices("abcdef0123456789", k=36)),
        }

    def measure(self, route: str, count: int, chance: Random) -> dict[str, list[float]]:
        """Seconds of each kind, round by round."""
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port)
        taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(-min(200, count), count):
            for kind, job_id in chance.sample(list(self.ids(chance).items()), k=len(KINDS)):
                seconds = _ask(connection, route.replace("{id}", job_id), self.key)
                if number >= 0:  # the first rounds are for warming up
                    taken[kind].append(seconds)
        connection.close()
        return taken

    def _new_key(self, name: str) -> str:
        with self._gateway.http() as http:
            body = {"name": name, "rate_limit": RATE, "credits": 100}
            answer = http.post("/-/keys", json=body, headers=self._gateway.bearer)
        return str(answer.json()["key"])

    @staticmethod
    def _submit(http: httpx.Client, files: dict[str, bytes], headers: dict[str, str]) -> str:
        fields = {"return_prompt_id_only": "true"}
        return str(http.post("/face-swap", data=fields, files=files, headers=headers).json()["prompt_id"])


def _ask(connection: http.client.HTTPConnection, path: str, key: str) -> float:
    begun = time.perf_counter()
    connection.request("GET", path, headers={"X-API-Key": key})
    answer = connection.getresponse()
    answer.read()
    seconds = time.perf_counter() - begun
    assert answer.status == http.client.NOT_FOUND, (answer.status, path)
    return seconds


def run(
    folder: Path, *, count: int, seed: int, routes: tuple[str, ...] = ROUTES, told: Callable[[Timing], None]
) -> list[Timing]:
    """Measure all routes on a gateway of its own; those that differ."""
    chance = Random(seed)  # noqa: S311 - a replayable order, no secret
    differing = []
    with GatewayProcess(folder / "gateway", {"AUTH": "keys"}) as gateway:
        world = World(gateway, folder)
        for route in routes:
            for timing in compare(route, world.measure(route, count, chance)):
                told(timing)
                if timing.differs:
                    differing.append(timing)
    return differing


def tell(timing: Timing) -> None:
    """A line of the table."""
    mark = "  DIFFERS" if timing.differs else ""
    sys.stdout.write(
        f"{timing.route:<26}{timing.kind:<15}{timing.count:>6}{timing.p50:>10.1f}{timing.p95:>10.1f}"
        f"{timing.difference:>+10.1f} ± {timing.error:.1f}{mark}\n"
    )
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.foreign_ids", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--count", type=int, default=2000, help="of each kind, at each route")
    parser.add_argument("--route", action="append", choices=ROUTES)
    parser.add_argument("--seed", type=int, default=None, help="made up when it is not given, and printed")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    sys.stdout.write(
        f"seed {seed}\n{'route':<26}{'id':<15}{'count':>6}{'p50 us':>10}{'p95 us':>10}{'from missing':>13}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        routes = tuple(options.route or ROUTES)
        differing = run(Path(folder), count=options.count, seed=seed, routes=routes, told=tell)
    sys.stdout.write("No kind of id is told by its time.\n" if not differing else f"{len(differing)} differ.\n")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())

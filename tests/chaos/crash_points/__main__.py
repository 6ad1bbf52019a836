"""``python -m tests.chaos.crash_points``: die at every point of the life, once before and once after it.

A process of its own for each death, and another that looks at what is left. Forked from this one, which has imported all
that they need and has no threads.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from tests.chaos.crash_points.faults import FAULTS
from tests.chaos.crash_points.house import House
from tests.chaos.crash_points.inspection import Inspection
from tests.chaos.crash_points.life import Life, Notes
from tests.chaos.crash_points.points import DIED, Points, watch

#: No life and no inspection takes as long.
MAX_SECONDS = 120.0
SIDE_BY_SIDE = 3


@dataclass(frozen=True)
class Death:
    """Where a process dies."""

    site: str
    #: Which of the site's points, from 0.
    turn: int
    #: Whether the point takes effect first.
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.site}, number {self.turn}"


def in_child(work: Callable[[], Coroutine[Any, Any, None]], told: Path) -> int:
    """What a forked process ended with; what went wrong in it is written to ``told``."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        with capture_logs():
            asyncio.run(asyncio.wait_for(work(), MAX_SECONDS))
    except BaseException:  # noqa: BLE001 - the edge of the process
        told.write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def die(folder: Path, points: Points) -> int:
    """Live until the fatal point; what the process ended with."""

    async def live() -> None:
        house = House(folder, time.time())
        watch(points)
        await Life(house, Notes(folder / "notes")).live()
        (folder / "sites").write_text("\n".join(points.sites))

    return in_child(live, folder / "told")


def look(folder: Path) -> str:
    """What is wrong with the directory of a process that died; "" when nothing is."""

    async def inspect() -> None:
        await Inspection(folder, Notes.read(folder / "notes")).inspect()

    return "" if in_child(inspect, folder / "told") == 0 else (folder / "told").read_text()


def count(*, looking: bool) -> list[str]:
    """The points of a life that nobody ends, and perhaps a look at what it leaves."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if die(folder, Points()) != 0:
            raise SystemExit((folder / "told").read_text())
        if looking and (wrong := look(folder)):
            raise SystemExit(wrong)
        return (folder / "sites").read_text().splitlines()


def chosen(sites: list[str], *, is_short: bool) -> Iterator[Death]:
    """Short: around one point of each site, and after every fourth commit."""
    seen: Counter[str] = Counter()
    for site in sites:
        turn = seen[site]
        seen[site] += 1
        if not turn or not is_short:
            yield Death(site, turn, after=False)
        if not turn or not is_short or (site.startswith("commit") and turn % 4 == 0):
            yield Death(site, turn, after=True)


def verdict(death: Death) -> str:
    """What is wrong after it; "" when nothing is."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ended = die(folder, Points((death.site, death.turn), death.after))
        if ended not in {0, DIED}:  # 0: threads made a point fewer this time
            return (folder / "told").read_text()
        return look(folder)


def judge(wanted: list[Death], *, at_most: int) -> list[str]:
    """What is wrong, ``at_most`` so many."""
    found: list[str] = []
    for death in wanted:
        if said := verdict(death):
            found.append(f"{death}:\n{said}")
        if len(found) >= at_most:
            break
    return found


def judge_side_by_side(wanted: list[Death], *, at_most: int) -> list[str]:
    """The same in several processes: most of the time each of them waits for the disk."""
    with tempfile.TemporaryDirectory() as scratch:
        reports = [Path(scratch) / str(part) for part in range(SIDE_BY_SIDE)]
        children: list[int] = []
        for part, report in enumerate(reports):
            child = os.fork()
            if not child:
                report.write_text("\0".join(judge(wanted[part::SIDE_BY_SIDE], at_most=at_most)))
                os._exit(0)
            children.append(child)
        ends = [os.waitpid(child, 0)[1] for child in children]
        if any(ends):
            return ["a part of the deaths was not judged"]
        return [said for report in reports for said in report.read_text().split("\0") if said]


def main() -> int:
    """Print counts; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.crash_points")
    parser.add_argument(
        "--short", action="store_true", help="one point of each function that makes some, and a fourth of the commits"
    )
    parser.add_argument("--site", help="only points that begin so: 'rename in local._adopt'")
    parser.add_argument("--fault", choices=sorted(FAULTS), help="with this fault planted, where it shows")
    options = parser.parse_args()
    gc.freeze()
    begun = time.monotonic()
    site = options.site
    if options.fault:
        plant, site = FAULTS[options.fault]
        plant()
    sites = count(looking=not options.fault)
    wanted = [death for death in chosen(sites, is_short=options.short) if death.site.startswith(site or "")]
    wrong = judge_side_by_side(wanted, at_most=1 if options.fault else len(wanted))
    kinds = Counter(site.partition(" ")[0] for site in sites)
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    sys.stdout.write("\n".join(wrong))
    sys.stdout.write(
        f"{len(sites)} points ({told}) of {len(set(sites))} sites; "
        f"{len(wanted)} deaths, {len(wrong)} wrong, {time.monotonic() - begun:.1f} s\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

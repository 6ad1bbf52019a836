"""Run many seeds, or look at one.

::

    python -m tests.chaos.simulation --seeds 20000 --jobs 2       # seconds per seed, and each seed that fails
    python -m tests.chaos.simulation --seed 4711 --trace          # what happened in that one
    python -m tests.chaos.simulation --mutations                  # each guard taken away: which seed finds it
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context

from tests.chaos.simulation.mutations import MUTATIONS, SEARCH_SEEDS, first_seed_that_fails
from tests.chaos.simulation.world import Verdict, run

#: Failing seeds that are told in full.
MOST_TOLD = 10


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    options = parsed()
    if options.mutations:
        return hunt(options.mutation)
    if options.seed is not None:
        verdict = run(options.seed, tracing=options.trace)
        for at, who, what in verdict.trace:
            say(f"{at:9.3f}  {who:10}  {what}")
        tell(verdict)
        return bool(verdict.violations)
    return sweep(options.first, options.seeds, options.jobs)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.simulation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes at work")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--trace", action="store_true", help="tell all that happened in it")
    parser.add_argument("--mutations", action="store_true", help="take each guard away and look for a seed that fails")
    parser.add_argument("--mutation", help="only the one of this name")
    return parser.parse_args()


def sweep(first: int, seeds: int, processes: int) -> int:
    begun = time.perf_counter()
    failed = 0
    virtual_seconds = 0.0
    for verdict in verdicts(range(first, first + seeds), processes):
        virtual_seconds += verdict.virtual_seconds
        if verdict.violations:
            failed += 1
            if failed <= MOST_TOLD:
                tell(verdict)
    took = time.perf_counter() - begun
    say(
        f"{seeds} seeds, {failed} failed, {took:.1f} s: {seeds / took:.1f} seeds/s, {virtual_seconds / 3600:.0f} h simulated"
    )
    return failed > 0


def verdicts(seeds: range, processes: int) -> Iterator[Verdict]:
    if processes == 1:
        yield from map(run, seeds)
        return
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=50)


def tell(verdict: Verdict) -> None:
    if verdict.violations:
        say(f"seed {verdict.seed} fails:")
        for violation in verdict.violations[:MOST_TOLD]:
            say(f"  {violation}")
        say(f"  replay: python -m tests.chaos.simulation --seed {verdict.seed} --trace")
    else:
        say(f"seed {verdict.seed}: clean, {verdict.virtual_seconds:.0f} s simulated, {len(verdict.histories)} jobs")


def hunt(name: str | None) -> int:
    missed = 0
    for mutation in MUTATIONS:
        if name is not None and mutation.name != name:
            continue
        verdict = first_seed_that_fails(mutation, range(SEARCH_SEEDS))
        if verdict is None:
            missed += 1
            say(f"{mutation.name}: NOT FOUND within {SEARCH_SEEDS} seeds")
        else:
            say(f"{mutation.name}: seed {verdict.seed}: {verdict.violations[0]}")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())

"""Try the whole OpenAPI document on a gateway of its own.

::

    python -m tests.openapi --examples 1000            # of each operation; ends with 1 when an answer was wrong
    python -m tests.openapi --only /face-swap          # of operations whose label holds this
    python -m tests.openapi --seed 7                   # others
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.openapi.exploring import explored
from tests.openapi.house import opened


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.openapi", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--examples", type=int, default=1000, help="of each operation, at most")
    parser.add_argument("--only", default="", help="operations whose label holds this")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun, requests, faults = time.perf_counter(), 0, 0
    with tempfile.TemporaryDirectory() as name, opened(Path(name)) as house:
        for report in explored(
            house, examples=options.examples, number=options.seed, wanted=lambda label: options.only in label
        ):
            counts = "  ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items()))
            say(f"{report.label:45} {report.seconds:7.1f} s   {counts}")
            requests += report.statuses.total()
            if report.fault:
                faults += 1
                say(f"  WRONG {report.fault}")
    say(f"{requests} requests in {time.perf_counter() - begun:.0f} s, {faults} operations with wrong answers")
    return bool(faults or not requests)


if __name__ == "__main__":
    sys.exit(main())

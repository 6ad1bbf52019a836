"""A gateway killed around its commits, renames and syncs; the long form is ``python -m tests.chaos.crash_points``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.crash_points.faults import FAULTS

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 900


def crash_points(*options: str) -> tuple[int, str]:
    """A process of its own: it forks, and must have no threads when it does."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.crash_points", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long
def test_a_death_at_any_point_loses_and_leaves_nothing() -> None:
    code, said = crash_points("--short")
    assert code == 0, said
    counts = re.search(r"(\d+) points .* of (\d+) sites; (\d+) deaths, 0 wrong", said)
    assert counts is not None, said
    points, sites, deaths = map(int, counts.groups())
    assert points >= 100
    assert sites >= 12
    assert deaths >= 2 * sites


# Two of them are enough to see that the inspection looks; COMFYGATE_EXAMPLES, which asks for long forms, takes all.
@pytest.mark.parametrize("fault", FAULTS if "COMFYGATE_EXAMPLES" in os.environ else list(FAULTS)[:2])
def test_a_planted_fault_is_found(fault: str) -> None:
    code, said = crash_points("--fault", fault)
    assert code == 1, said
    assert "AssertionError" in said

"""The gateway's engine and store in simulated worlds, by seed; the long form is ``python -m tests.chaos.simulation``."""

from __future__ import annotations

import os

import pytest

from tests.chaos.simulation.world import run

SEEDS = int(os.environ.get("COMFYGATE_SEEDS", "200"))


def replay(seed: int) -> str:
    return f"python -m tests.chaos.simulation --seed {seed} --trace"


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_nothing_is_lost_or_done_twice_in_any_world(first: int) -> None:
    for seed in range(first, min(first + 50, SEEDS)):
        assert run(seed).violations == (), replay(seed)


def test_a_seed_gives_the_same_world_again() -> None:
    first, second = (run(17, tracing=True) for _ in range(2))
    assert len(first.trace) > 50
    assert first == second

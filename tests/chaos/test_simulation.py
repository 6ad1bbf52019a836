"""The gateway's engine and store in simulated worlds, by seed; the long form is ``python -m tests.chaos.simulation``."""

from __future__ import annotations

import os

import pytest

from tests.chaos.simulation.mutations import MUTATIONS, Mutation, first_seed_that_fails
from tests.chaos.simulation.world import run

SEEDS = int(os.environ.get("COMFYGATE_SEEDS", "100"))
#: Seeds to look through when the noted one no longer finds a guard missing, since the engine has changed.
CLOSE_SEEDS = 1000


def replay(seed: int) -> str:
    return f"python -m tests.chaos.simulation --seed {seed} --trace"


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.long) for first in range(50, SEEDS, 50))])
def test_nothing_is_lost_or_done_twice_in_any_world(first: int) -> None:
    for seed in range(first, min(first + 50, SEEDS)):
        assert run(seed).violations == (), replay(seed)


def test_a_seed_gives_the_same_world_again() -> None:
    first, second = (run(17, tracing=True) for _ in range(2))
    assert len(first.trace) > 50
    assert first == second


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_guard_that_is_gone_is_missed(mutation: Mutation) -> None:
    verdict = first_seed_that_fails(mutation, [mutation.seed, *range(CLOSE_SEEDS)])
    assert verdict is not None
    assert run(verdict.seed).violations == (), "the world fails even with the guard in its place"

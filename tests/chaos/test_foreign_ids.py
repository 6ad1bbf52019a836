"""A few rounds of the measurement; the long form is ``python -m tests.chaos.foreign_ids --count 2000``."""

from __future__ import annotations

from random import Random

import pytest

from tests.chaos.foreign_ids import AGAIN, BASE, KINDS, ROUTES, compare, run

COUNT = 5


@pytest.mark.long
@pytest.mark.system
def test_every_route_is_measured_with_every_kind_of_id(tmp_path) -> None:
    """What it takes is judged by the long form alone: a busy machine shows nothing in a few rounds."""
    seen = []
    run(tmp_path, count=COUNT, seed=1, told=seen.append)
    assert [(timing.route, timing.kind, timing.count) for timing in seen] == [
        (route, kind, COUNT) for route in ROUTES for kind in KINDS
    ]


def measured(chance: Random, later: float) -> dict[str, list[float]]:
    """2000 answers of each of three kinds in about a millisecond, of which one comes so many seconds later."""
    return {
        kind: [chance.gauss(1e-3 + (later if kind == "foreign" else 0), 1e-4) for _ in range(2000)]
        for kind in (BASE, AGAIN, "foreign")
    }


@pytest.mark.parametrize(("later", "differs"), [(0.0, False), (5e-5, True), (-5e-5, True)])
def test_what_comes_later_is_seen_and_noise_is_not(later, differs) -> None:
    for seed in range(5):
        base, again, foreign = compare("/x", measured(Random(seed), later))  # noqa: S311 - no secret
        assert (base.differs, again.differs, foreign.differs) == (False, False, differs), foreign

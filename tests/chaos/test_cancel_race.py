"""A short cancel race; the long form is ``python -m tests.chaos.cancel_race --swaps 500``."""

from __future__ import annotations

import pytest

from tests.chaos.cancel_race import run

pytestmark = pytest.mark.system

SWAPS = 30


@pytest.mark.long
async def test_a_delete_against_the_pick_up_ends_refunded_or_charged_and_never_in_between(tmp_path) -> None:
    verdict = await run(tmp_path, swaps=SWAPS, seed=11)
    assert verdict.violations == [], f"python -m tests.chaos.cancel_race --swaps {SWAPS} --seed 11\n{verdict}"
    assert sum(verdict.counts.values()) == SWAPS
    assert len({said for said, _ in verdict.counts}) > 1, f"both must be seen: {verdict}"

"""A short crash loop; the long form is ``python -m tests.chaos.crash_loop --rounds 200 --workers 3``."""

from __future__ import annotations

import pytest

from tests.chaos.crash_loop import run

pytestmark = pytest.mark.system

ROUNDS = 6
#: One that kills everybody, and cancels two of the first jobs.
SEED = 3


@pytest.mark.long
async def test_what_was_acknowledged_ends_well_and_once_whoever_is_killed(tmp_path) -> None:
    verdict = await run(tmp_path, rounds=ROUNDS, workers=3, seed=SEED)
    assert verdict.violations == [], f"python -m tests.chaos.crash_loop --rounds {ROUNDS} --seed {SEED}\n{verdict}"
    assert {"kills of gateway", "kills of worker", "kills of both"} <= set(verdict.counts), verdict
    assert min(verdict.counts["jobs succeeded"], verdict.counts["downloads"]) > 0, verdict
    assert verdict.counts["stream connections"] > verdict.counts["jobs acknowledged"], f"no stream came back\n{verdict}"

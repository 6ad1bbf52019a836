"""A short cancel storm; the long form is ``python -m tests.chaos.cancel_storm --jobs 200``."""

from __future__ import annotations

import pytest

from tests.chaos.cancel_storm import hit, run

pytestmark = pytest.mark.system

JOBS = 24


@pytest.mark.long
async def test_cancels_in_every_state_hit_exactly_their_jobs(tmp_path) -> None:
    verdict = await run(tmp_path, jobs=JOBS, seed=5)
    assert verdict.violations == [], f"python -m tests.chaos.cancel_storm --jobs {JOBS} --seed 5\n{verdict}"
    assert verdict.counts["jobs acknowledged"] == verdict.counts["jobs kept"] == JOBS
    assert min(verdict.counts["jobs canceled"], verdict.counts["jobs succeeded"]) > JOBS // 8, verdict
    assert sum(name.startswith("canceled when") for name in verdict.counts) > 2, "in several states"


def test_who_is_hit_by_a_request_is_seen() -> None:
    assert hit("/interrupt", {"prompt_id": "a"}) == {"a"}
    assert hit("/interrupt", None) == hit("/interrupt", {}) == {"everybody"}
    assert hit("/api/jobs/a/cancel", {}) == {"a"}
    assert hit("/queue", {"delete": ["a"]}) == set()

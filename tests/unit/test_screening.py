from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.screening import CheckFailedError, Opinion, Pending, Verdict, frames_to_look_at, verdict

# ------------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Opinion(0.1), Opinion(0.49)], Verdict(False, 0.49)),
        ([Opinion(0.1), Opinion(0.5)], Verdict(True, 0.5)),
        ([Opinion(0.0, is_flagged=True)], Verdict(True, 0.0)),
        # One that is flagged is enough, whatever the others will say.
        ([Pending(9), Opinion(0.9)], Verdict(True, 0.9)),
        ([Pending(3), Opinion(0.1), Pending(9)], Pending(9)),
    ],
)
def test_an_input_is_as_bad_as_the_worst_of_its_pictures(answers, expected) -> None:
    assert verdict(answers, 0.5) == expected


def test_what_nobody_saw_is_not_harmless() -> None:
    with pytest.raises(CheckFailedError):
        verdict([], 0.5)


# --------------------------------------------------------------------------------------------------------------- frames

TIMES = st.lists(st.integers(1, 10_000), min_size=1, max_size=400).map(
    lambda gaps: [sum(gaps[:index]) for index in range(len(gaps))]
)


@given(TIMES, st.integers(1, 64))
def test_as_many_frames_as_may_be_are_looked_at_each_once_and_both_ends(starts, most) -> None:
    chosen = frames_to_look_at(starts, most)
    assert len(chosen) == min(most, len(starts))
    assert all(before < after for before, after in pairwise(chosen))
    assert set(chosen) <= set(range(len(starts)))
    if most > 1:
        assert {0, len(starts) - 1} <= set(chosen)


@given(TIMES, st.integers(2, 64))
def test_no_moment_is_further_from_a_look_than_a_step_and_a_frame(starts, most) -> None:
    chosen = frames_to_look_at(starts, most)
    step = (starts[-1] - starts[0]) / (most - 1)
    longest_frame = max((after - before for before, after in pairwise(starts)), default=0)
    for before, after in pairwise(chosen):
        assert starts[after] - starts[before] <= step + longest_frame + 1e-6


def test_frames_are_spread_by_time_not_by_number() -> None:
    # Ten frames a second, and then one a second.
    starts = [tick * 0.1 for tick in range(50)] + [5.0 + second for second in range(45)]
    late = [index for index in frames_to_look_at(starts, 10) if starts[index] >= 5.0]
    assert len(late) == 9


def test_frames_that_flash_by_beside_a_long_one_are_looked_at_too() -> None:
    starts = [float(index) for index in range(100)] + [60_000.0 + index for index in range(100)]
    chosen = frames_to_look_at(starts, 12)
    assert sum(0 < index < 99 for index in chosen) >= 4
    assert sum(100 < index < 199 for index in chosen) >= 4


def test_of_one_look_the_middle_is_taken() -> None:
    assert frames_to_look_at([0, 1, 2, 3, 4], 1) == (2,)

"""What runs teach: the fit, its robustness, its bounds, and the order in which estimates are asked."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comfy.progress import Lap
from gateway.timings import (
    MAX_ROWS,
    PENALTIES,
    RESULTS,
    SURPRISE,
    Key,
    Timings,
    Work,
    fit,
    fold,
    predict,
    start_after,
)

NOTHING = (0.0,) * 10
SIZES = [(24, 320, 180), (240, 640, 360), (96, 1280, 720), (500, 640, 360), (48, 1920, 1080), (300, 320, 180)]
WORKS = [Work.of(*size) for size in SIZES]
A_WORK = st.builds(Work.of, st.integers(1, 5000), st.integers(16, 4096), st.integers(16, 4096))
SECONDS = st.floats(0.0, 1e5)


def learned(seconds_of, works=WORKS, times=4, sums=NOTHING):
    for _ in range(times):
        for work in works:
            sums = fold(sums, work, seconds_of(work))
    return sums


def timings(*runs):
    """Of (template, upstream, work, seconds) of one node that ticks once through."""
    made = Timings()
    for template, upstream, work, seconds in runs:
        made.learn(template, upstream, work, [Lap("Swap", 1, seconds), Lap(RESULTS, 0, 0.5)])
    return made


# ------------------------------------------------------------------------------------------------------------ the fit


@pytest.mark.parametrize("parts", [(0.0, 0.05, 0.0), (0.0, 0.0, 0.4), (3.0, 0.0, 0.0), (2.0, 0.05, 0.2)])
def test_seconds_a_frame_a_pixel_and_a_run_are_told_apart(parts) -> None:
    sums = learned(lambda work: predict(parts, work))
    unseen = Work.of(700, 854, 480)
    assert predict(fit(sums), unseen) == pytest.approx(predict(parts, unseen), rel=0.1)


def test_one_run_predicts_the_same_again() -> None:
    for work in WORKS:
        assert predict(fit(fold(NOTHING, work, 12.0)), work) == pytest.approx(12.0, rel=0.05)


def test_one_run_predicts_more_for_more_and_less_for_less() -> None:
    parts = fit(fold(NOTHING, Work.of(100, 640, 360), 10.0))
    assert 50.0 < predict(parts, Work.of(1000, 640, 360)) < 105.0
    assert 10.5 < predict(parts, Work.of(100, 1280, 720)) < 40.0
    assert predict(parts, Work.of(10, 640, 360)) < 3.0


@given(st.lists(st.tuples(A_WORK, SECONDS), max_size=12), A_WORK)
def test_whatever_was_measured_predictions_are_finite_and_grow_with_the_work(runs, work) -> None:
    sums = NOTHING
    for done, seconds in runs:
        sums = fold(sums, done, seconds)
    parts = fit(sums)
    assert all(0.0 <= part < float("inf") for part in parts)
    more = Work(work.frames + 1, work.megapixels * 1.1)
    assert 0.0 <= predict(parts, work) <= predict(parts, more) < float("inf")


@given(st.integers(0, 2**32))
def test_noise_does_not_become_a_slope_when_all_targets_are_alike(seed) -> None:
    noise = random.Random(seed)  # noqa: S311 - noise
    work = Work.of(100, 640, 360)
    sums = learned(lambda _: 10.0 * noise.uniform(0.9, 1.1), [work], times=20)
    assert predict(fit(sums), work) == pytest.approx(10.0, rel=0.1)
    assert predict(fit(sums), Work.of(200, 640, 360)) == pytest.approx(19.0, rel=0.2)


# ---------------------------------------------------------------------------------------------------------- robustness


@pytest.mark.parametrize("upstream", ["gpu-1", "gpu-2"])
def test_one_stall_moves_an_estimate_by_a_bounded_part(upstream) -> None:
    """Also one on an upstream where nothing ran before."""
    work = Work.of(100, 640, 360)
    made = timings(*[("video", "gpu-1", work, 10.0)] * 10, ("video", upstream, work, 10_000.0))
    assert 10.0 < made.seconds("video", "gpu-3", work, "Swap", 1) < 10.0 * (1 + (SURPRISE - 1) / 7)
    assert made.seconds("video", upstream, work, "Swap", 1) < 10.0 * SURPRISE


def test_a_server_that_became_five_times_faster_is_believed_within_two_dozen_runs() -> None:
    work = Work.of(100, 640, 360)
    made = timings(*[("video", "gpu-1", work, 50.0)] * 30, *[("video", "gpu-1", work, 10.0)] * 25)
    assert made.seconds("video", "gpu-1", work, "Swap", 1) < 18.0


@given(st.lists(st.tuples(A_WORK, SECONDS), min_size=1, max_size=6))
def test_the_fit_leaves_no_more_than_any_other_parts_do(runs) -> None:
    """Tried against a grid around it, the penalty counted; sums of what no run has had are left out."""
    sums = NOTHING
    for done, seconds in runs:
        sums = fold(sums, done, seconds)
    aa, ab, ac, ay, bb, bc, by, cc, cy, _ = sums
    fixed, frame, pixel = (penalty / bb for penalty in PENALTIES)

    def cost(a, b, c):
        squares = a * a * aa * (1 + fixed) + b * b * bb * (1 + frame) + c * c * cc * (1 + pixel)
        return squares + 2 * (a * b * ab + a * c * ac + b * c * bc - a * ay - b * by - c * cy)

    best = fit(sums)
    for factors in itertools.product((0.0, 0.9, 1.1), repeat=3):
        other = [part * factor for part, factor in zip(best, factors, strict=True)]
        assert cost(*best) <= cost(*other) + 1e-6 * abs(cost(*best)) + 1e-9
    for single in ((ay / aa / (1 + fixed), 0, 0), (0, by / bb / (1 + frame), 0), (0, 0, cy / cc / (1 + pixel))):
        assert cost(*best) <= cost(*single) + 1e-6 * abs(cost(*single)) + 1e-9


# ------------------------------------------------------------------------------------------------------------- asking


def test_nothing_is_known_at_first() -> None:
    assert Timings().seconds("video", "gpu-1", WORKS[0], "Swap", 1) is None
    assert not Timings().knows("video")


def test_what_ran_there_is_asked_first_then_the_template_then_the_class() -> None:
    work = WORKS[1]
    made = timings(("video", "gpu-1", work, 10.0), ("video", "gpu-2", work, 30.0))
    assert made.seconds("video", "gpu-1", work, "Swap", 1) == pytest.approx(10.0, rel=0.05)
    assert made.seconds("video", "gpu-2", work, "Swap", 1) == pytest.approx(30.0, rel=0.05)
    assert made.seconds("video", "gpu-3", work, "Swap", 1) == pytest.approx(20.0, rel=0.1)
    assert made.seconds("other", "gpu-1", work, "Swap", 1) == pytest.approx(20.0, rel=0.1)
    assert made.seconds("video", "gpu-1", work, "Swap", 2) is None
    assert made.seconds("video", "gpu-1", work, "Other", 1) is None
    assert made.knows("video")
    assert not made.knows("other")


def test_passes_of_stills_are_no_passes_of_videos() -> None:
    still = Work.of(1, 640, 360)
    made = timings(("image", "gpu-1", still, 1.0))
    assert made.seconds("video", "gpu-1", WORKS[1], "Swap", 1) is None
    assert made.seconds("other", "gpu-1", still, "Swap", 1) == pytest.approx(1.0, rel=0.05)


# ------------------------------------------------------------------------------------------------- keeping and forgetting


def test_changes_are_told_once_and_make_the_same_predictions_again() -> None:
    made = timings(*[("video", "gpu-1", work, work.frames * 0.1) for work in WORKS])
    changed, gone = made.take_changes()
    assert {row.key for row in changed} >= {Key("video", "Swap", 1, "gpu-1"), Key("*", "Swap", 1, "")}
    assert gone == []
    assert made.take_changes() == ([], [])
    again = Timings(changed)
    for work in WORKS:
        one, other = (each.seconds("video", "gpu-1", work, "Swap", 1) for each in (made, again))
        assert one == other


def test_changes_that_could_not_be_stored_are_told_again() -> None:
    made = timings(("video", "gpu-1", WORKS[0], 1.0))
    made.keep([], [])
    made.learn("video", "gpu-1", WORKS[0], [Lap("Swap", 1, 1.0)])
    changed, gone = made.take_changes()
    made.give_back(changed, gone)
    again = made.take_changes()
    assert {row.key for row in again[0]} == {row.key for row in changed}
    assert set(again[1]) == set(gone)
    assert not {row.key for row in changed} & set(gone)


def test_what_is_no_more_is_forgotten() -> None:
    work = WORKS[0]
    made = timings(("video", "gpu-1", work, 1.0), ("video", "gpu-2", work, 1.0), ("old", "gpu-1", work, 1.0))
    made.take_changes()
    made.keep(["video"], ["gpu-2"])
    _, gone = made.take_changes()
    assert {(key.template, key.upstream) for key in gone} == {("video", "gpu-1"), ("old", "gpu-1"), ("old", "")}
    assert made.seconds("video", "gpu-2", work, "Swap", 1) is not None


def test_rows_are_bounded_and_the_oldest_go() -> None:
    made = Timings()
    for number in range(MAX_ROWS):
        made.learn("video", f"gpu-{number}", WORKS[0], [Lap("Swap", 1, 1.0)])
    assert len(made) <= MAX_ROWS
    _, gone = made.take_changes()
    assert Key("video", "Swap", 1, "gpu-0") in gone
    assert made.seconds("video", f"gpu-{MAX_ROWS - 1}", WORKS[0], "Swap", 1) is not None


def test_rows_of_another_shape_are_left_out() -> None:
    made = timings(("video", "gpu-1", WORKS[0], 1.0))
    changed, _ = made.take_changes()
    broken = [type(row)(row.key, row.sums[:3], row.turn) for row in changed]
    assert len(Timings(broken)) == 0


# ------------------------------------------------------------------------------------------------------- predicted waits


def test_work_ahead_fills_the_upstreams_from_the_one_that_is_free_first() -> None:
    assert start_after([], 10.0) is None
    assert start_after([0.0], 0.0) == 0.0
    assert start_after([7.0], 0.0) == 7.0
    assert start_after([7.0], 10.0) == 17.0
    assert start_after([7.0, 3.0], 0.0) == 3.0
    assert start_after([7.0, 3.0], 4.0) == 7.0
    assert start_after([7.0, 3.0], 10.0) == 10.0


@given(st.lists(st.floats(-10, 1e4), min_size=1, max_size=8), st.floats(0, 1e5), st.floats(0, 1e3))
def test_wait_grows_with_the_work_ahead_and_is_never_negative(levels, ahead, more) -> None:
    now, later = start_after(levels, ahead), start_after(levels, ahead + more)
    assert 0.0 <= now <= later + 1e-6
    assert now == pytest.approx(
        ahead / len(levels) + sum(min(now, max(x, 0.0)) for x in levels) / len(levels), abs=1e-3
    )

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lease import DATA_DIR, LONGEST_STEP_SECONDS, Lease, Observer, Sight, Tenure, Timing, Verdict

TIMING = Timing()
FREE = Sight(lock_is_free=True)
COMMAND = Sight(lock_is_free=False)


def held(counter: int, *, holder: str = "a", token: int = 1) -> Sight:
    return Sight(lock_is_free=False, lock_holder=holder, lease=Lease(DATA_DIR, holder, token, counter))


def verdicts(observer: Observer, sight: Sight, seconds: float, *, begun: float, step: float = 0.25) -> list[Verdict]:
    """Of looks at the same sight, one every ``step``."""
    return [observer.judge(sight, begun + step * number) for number in range(int(seconds / step) + 1)]


@pytest.mark.parametrize("waits", [True, False])
def test_free_lock_is_taken_at_once(waits) -> None:
    assert Observer(TIMING, waits=waits).judge(FREE, 5.0) is Verdict.TAKE


def test_lock_that_gets_free_is_taken_at_the_next_look() -> None:
    observer = Observer(TIMING, waits=True)
    assert observer.judge(held(1), 0.0) is Verdict.WAIT
    assert observer.judge(FREE, 0.25) is Verdict.TAKE


@pytest.mark.parametrize("waits", [True, False])
def test_counter_that_stands_still_for_ten_seconds_is_taken_over_and_not_before(waits) -> None:
    observer = Observer(TIMING, waits=waits)
    assert set(verdicts(observer, held(7), 9.75, begun=100.0)) == {Verdict.WAIT}
    assert observer.judge(held(7), 110.0) is Verdict.TAKE_OVER


def test_counter_that_moves_is_waited_for_however_long() -> None:
    observer = Observer(TIMING, waits=True)
    for number in range(40):
        assert set(verdicts(observer, held(number), 9.0, begun=number * 9.25)) == {Verdict.WAIT}


def test_start_that_does_not_wait_is_refused_when_the_counter_moves() -> None:
    observer = Observer(TIMING, waits=False)
    assert set(verdicts(observer, held(7), 2.75, begun=0.0)) == {Verdict.WAIT}
    assert observer.judge(held(8), 3.0) is Verdict.REFUSE
    assert observer.judge(held(8), 3.25) is Verdict.REFUSE


def test_change_of_hands_begins_the_wait_anew_and_is_no_sign_of_life() -> None:
    observer = Observer(TIMING, waits=False)
    verdicts(observer, held(7), 9.0, begun=0.0)
    assert set(verdicts(observer, held(0, holder="b", token=2), 9.75, begun=9.25)) == {Verdict.WAIT}
    assert observer.judge(held(0, holder="b", token=2), 19.25) is Verdict.TAKE_OVER


def test_gateway_that_stops_before_its_first_lease_is_taken_over_too() -> None:
    starting = Sight(lock_is_free=False, lock_holder="b", lease=Lease(DATA_DIR, "dead", 1, 9))
    observer = Observer(TIMING, waits=True)
    assert verdicts(observer, starting, 10.0, begun=0.0)[-1] is Verdict.TAKE_OVER
    unborn = Sight(lock_is_free=False, lock_holder="b")
    assert verdicts(Observer(TIMING, waits=True), unborn, 10.0, begun=0.0)[-1] is Verdict.TAKE_OVER


def test_command_is_waited_for_and_never_taken_over() -> None:
    assert set(verdicts(Observer(TIMING, waits=True), COMMAND, 100.0, begun=0.0)) == {Verdict.WAIT}


def test_start_that_does_not_wait_outlasts_a_glance_and_is_refused_by_a_command_that_stays() -> None:
    observer = Observer(TIMING, waits=False)
    assert observer.judge(COMMAND, 0.0) is Verdict.WAIT
    assert observer.judge(COMMAND, 0.1) is Verdict.WAIT
    assert observer.judge(COMMAND, 0.25) is Verdict.REFUSE


def test_pause_of_the_observer_is_no_stillness_of_the_holder() -> None:
    """The whole machine may have slept: the holder had no chance to raise anything."""
    observer = Observer(TIMING, waits=True)
    observer.judge(held(7), 0.0)
    assert observer.judge(held(7), 3600.0) is Verdict.WAIT
    assert observer.judge(held(8), 3600.25) is Verdict.WAIT


def test_holder_believes_in_itself_from_the_beginning_of_its_last_raise() -> None:
    tenure = Tenure(TIMING, taken_at=100.0)
    assert tenure.holds(107.9)
    assert not tenure.holds(108.0)
    tenure.confirm(103.0)
    assert tenure.holds(110.9)
    assert not tenure.holds(111.0)
    tenure.confirm(101.0)  # one that was answered late shortens nothing
    assert tenure.holds(110.9)


def test_lost_lease_does_not_come_back() -> None:
    tenure = Tenure(TIMING, taken_at=0.0)
    tenure.lose()
    tenure.confirm(1.0)
    assert tenure.is_lost
    assert not tenure.holds(1.0)


@pytest.mark.parametrize("times", [(0.0, 1.0, 2.0), (3.0, 3.0, 10.0), (3.0, 10.0, 10.0), (3.0, 11.0, 10.0)])
def test_times_that_would_let_two_hold_it_are_refused(times) -> None:
    with pytest.raises(ValueError, match="before it is taken over"):
        Timing(*times)


@given(
    # What the holder does, in seconds since its last deed: raises that take a while to be committed, and stops.
    st.lists(st.tuples(st.floats(0.0, 12.0), st.floats(0.0, 6.0)), max_size=12),
    st.floats(0.05, 1.5),
    st.floats(0.0, 5.0),
)
def test_no_holder_believes_in_itself_when_it_is_taken_over(deeds, step, offset) -> None:
    tenure = Tenure(TIMING, taken_at=0.0)
    commits = []
    now = 0.0
    for pause, duration in deeds:
        begun = now + pause
        now = begun + duration
        commits.append((now, begun))
    observer = Observer(TIMING, waits=True)
    look = offset
    # Times of another process: only differences are compared, so they may begin anywhere.
    while observer.judge(held(sum(at <= look for at, _ in commits)), look + 1e6) is not Verdict.TAKE_OVER:
        look += step
    for at, begun in commits:
        if at <= look:
            tenure.confirm(begun)
    assert not tenure.holds(look)
    assert TIMING.still_seconds - TIMING.valid_seconds > LONGEST_STEP_SECONDS

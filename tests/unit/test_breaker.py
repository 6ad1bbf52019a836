"""When an upstream that failed gets work again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.breaker import EJECT_AFTER, JITTER, MAX_EJECT_SECONDS, REST_SECONDS, Admission, Breaker, Fault


def failing(*kinds, chance=0.0):
    """A breaker that met these faults, each as soon as it was given work again; and the time."""
    breaker, now = Breaker(lambda: chance), 0.0
    for kind in kinds:
        now = max(now, breaker.until)
        breaker.fault(kind, now)
    return breaker, now


def test_an_upstream_that_never_failed_gets_all_there_is():
    breaker = Breaker(lambda: 0.5)
    assert breaker.admission(0.0) is Admission.WORK
    assert breaker.reason(0.0) == ""


@pytest.mark.parametrize("faults", [1, 2])
def test_a_fault_makes_it_rest_and_then_show_itself_with_one_job(faults):
    breaker, now = failing(*[Fault.LOST] * faults)
    seconds = REST_SECONDS[faults - 1]
    assert breaker.admission(now + seconds - 0.1) is Admission.NOTHING
    assert breaker.admission(now + seconds) is Admission.CANARY
    assert breaker.reason(now).startswith(f"resting {seconds:.0f} s: {faults} lost job")


def test_the_third_in_a_row_ejects_it_and_the_reason_can_be_read():
    breaker, now = failing(*[Fault.UNREACHABLE] * 3)
    assert breaker.reason(now) == "ejected 30 s: 3 connect failures"
    assert breaker.admission(now + 29.9) is Admission.NOTHING
    assert breaker.admission(now + 30) is Admission.CANARY
    assert breaker.reason(now + 30) == "on trial with one job: 3 connect failures"


def test_faults_of_several_kinds_count_together():
    breaker, now = failing(Fault.LOST, Fault.MEMORY, Fault.UNREACHABLE)
    assert breaker.reason(now) == "ejected 30 s: 1 lost job, 1 out-of-memory failure, 1 connect failure"


def test_one_stalled_job_ejects_it_at_once():
    breaker, now = failing(Fault.SILENT)
    assert breaker.reason(now) == "ejected 30 s: 1 stalled job"
    assert breaker.admission(now + 29.9) is Admission.NOTHING
    breaker.fault(Fault.LOST, now + 30)
    assert breaker.reason(now + 30) == "resting 12 s: 1 stalled job, 1 lost job"


def test_each_ejection_is_longer_up_to_five_minutes():
    breaker, now = Breaker(lambda: 0.0), 0.0
    lengths = []
    for _ in range(EJECT_AFTER + 14):
        lengths.append(breaker.fault(Fault.LOST, now))
        now = breaker.until
    assert lengths[:5] == [6.0, 12.0, 30.0, 60.0, 90.0]
    assert lengths[-1] == MAX_EJECT_SECONDS


def test_chance_adds_up_to_a_tenth_to_an_ejection_and_nothing_to_a_rest():
    assert failing(Fault.LOST, chance=1.0)[0].until == REST_SECONDS[0]
    breaker, now = failing(*[Fault.LOST] * 3, chance=1.0)
    assert breaker.until - now == pytest.approx(30 * (1 + JITTER))


def test_a_job_seen_through_clears_it_for_good():
    breaker, _ = failing(*[Fault.LOST] * 5)
    breaker.success()
    assert breaker.admission(0.0) is Admission.WORK
    assert breaker.fault(Fault.LOST, 1000.0) == REST_SECONDS[0]


def test_what_is_told_late_of_the_same_failure_counts_once():
    breaker = Breaker(lambda: 0.0)
    for late in (0.0, 1.0, 2.0):
        breaker.fault(Fault.LOST, late)
    assert breaker.until == REST_SECONDS[0]
    assert breaker.reason(2.0) == "resting 6 s: 1 lost job"


@given(st.lists(st.tuples(st.sampled_from([*Fault, None]), st.floats(0, 400))), st.floats(0, 1))
def test_it_always_comes_back_within_the_longest_ejection(steps, chance):
    breaker, now = Breaker(lambda: chance), 0.0
    for kind, later in steps:
        now += later
        if kind is None:
            breaker.success()
        else:
            breaker.fault(kind, now)
        assert breaker.admission(now + MAX_EJECT_SECONDS * (1 + JITTER)) is not Admission.NOTHING
        assert (breaker.reason(now) == "") == (breaker.admission(now) is Admission.WORK)

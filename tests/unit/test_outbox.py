"""What follows from an attempt at a webhook, and when a host is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.outbox import (
    JITTER,
    MAX_ATTEMPTS,
    MAX_REST_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    OPEN_AFTER,
    REST_SECONDS,
    SCHEDULE_SECONDS,
    Again,
    Answer,
    Dead,
    Delivered,
    HostBreaker,
    Reason,
    judge,
    message_id,
    retry_after,
)

NOW = 1_750_248_000.0
DOWN = Answer(Reason.UNREACHABLE)


def answered(status, retry_after_seconds=None):
    return Answer(Reason.ANSWERED, status, retry_after_seconds)


def test_schedule_is_the_published_one():
    assert SCHEDULE_SECONDS[:3] == (0, 5, 300)
    assert sum(SCHEDULE_SECONDS) == 75 * 3600 + 35 * 60 + 5


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_success(status):
    assert judge(0, answered(status), NOW, lambda: 0.5) == Delivered()


@pytest.mark.parametrize("status", [199, 301, 302, 307, 400, 401, 404, 429, 500, 502, 503, 504])
def test_anything_else_is_tried_again_redirects_included(status):
    assert judge(0, answered(status), NOW, lambda: 0.5) == Again(NOW + 5)


def test_gone_disables_at_once():
    assert judge(0, answered(410), NOW, lambda: 0.5) == Dead(disables_endpoint=True)


def test_what_fails_every_time_is_tried_ten_times_over_three_days():
    now, attempts = NOW, 0
    while isinstance(verdict := judge(attempts, DOWN, now, lambda: 0.5), Again):
        now, attempts = verdict.at, attempts + 1
    assert verdict == Dead()
    assert attempts + 1 == MAX_ATTEMPTS == 10
    assert now - NOW == sum(SCHEDULE_SECONDS)


@given(st.integers(0, MAX_ATTEMPTS - 2), st.floats(0, 1))
def test_a_delay_differs_from_the_schedule_by_a_tenth_at_most(attempts, chance):
    verdict = judge(attempts, DOWN, 0.0, lambda: chance)
    wanted = SCHEDULE_SECONDS[attempts + 1]
    assert wanted * (1 - JITTER) <= verdict.at <= wanted * (1 + JITTER)


def test_a_receiver_may_ask_for_more_patience_but_for_a_day_at_most_and_never_for_less():
    assert judge(0, answered(503, 60.0), NOW, lambda: 0.5) == Again(NOW + 60)
    assert judge(0, answered(429, 1e9), NOW, lambda: 0.5) == Again(NOW + MAX_RETRY_AFTER_SECONDS)
    assert judge(1, answered(429, 1.0), NOW, lambda: 0.5) == Again(NOW + 300)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Wed, 18 Jun 2025 12:02:00 GMT", 120.0),
        ("Wed, 18 Jun 2025 11:00:00 GMT", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("٣", None),
        ("9" * 5000, 999_999_999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert retry_after(text, NOW) == seconds


def test_ids_hold_no_dot():
    assert message_id("019a0000-0000-7000-8000-000000000001") == "msg_019a0000-0000-7000-8000-000000000001"


def test_only_silence_is_a_fault_of_the_host():
    assert DOWN.is_fault
    assert Answer(Reason.TIMED_OUT).is_fault
    assert not answered(500).is_fault


# ---- hosts


def test_a_host_is_left_alone_after_faults_in_a_row_longer_each_time():
    breaker, now = HostBreaker(), 0.0
    for _ in range(OPEN_AFTER - 1):
        breaker.fault(now)
        assert breaker.resting_until(now) is None
    rests = []
    for _ in range(6):
        breaker.fault(now)
        rests.append(breaker.resting_until(now) - now)
        now += rests[-1]
        assert breaker.resting_until(now) is None
        assert breaker.is_on_trial
    assert rests == [REST_SECONDS, 60, 120, 240, MAX_REST_SECONDS, MAX_REST_SECONDS]


def test_faults_of_attempts_that_were_under_way_together_count_once():
    breaker = HostBreaker()
    for _ in range(OPEN_AFTER + 5):
        breaker.fault(0.0)
    assert breaker.resting_until(0.0) == REST_SECONDS


def test_an_answer_clears_a_host():
    breaker = HostBreaker()
    for _ in range(OPEN_AFTER):
        breaker.fault(0.0)
    breaker.success()
    assert not breaker.is_doubted
    assert breaker.resting_until(0.0) is None

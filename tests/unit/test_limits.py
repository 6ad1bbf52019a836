"""No window holds more than the limit, what is told is true, and it is told as RFC 9651 writes."""

from __future__ import annotations

import os
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConcurrencyLimitedError, RateLimitedError
from gateway.limits import (
    Allowance,
    Concurrency,
    Quota,
    RateLimiter,
    SlidingLog,
    rate_headers,
)

WINDOW = 60
#: 100 000 in the long form.
STEPS = int(os.environ.get("COMFYGATE_STEPS", "600"))

# Steps in sixteenths of a second are exact in binary, so the tests may ask for equality.
gaps = st.lists(st.integers(0, 40 * 16), max_size=120)


def times_of(steps):
    now, times = 1000.0, []
    for step in steps:
        now += step / 16
        times.append(now)
    return times


def most_in_a_window(admitted):
    """The fullest span of a window's length that any of them ends; each span holds its end and not its beginning."""
    return max((sum(last - WINDOW < time <= last for time in admitted) for last in admitted), default=0)


# ---- the log


@given(gaps, st.integers(1, 8))
def test_no_span_of_a_window_ever_holds_more_than_the_limit(steps, limit):
    log = SlidingLog(WINDOW)
    admitted = [now for now in times_of(steps) if log.admit(limit, now)]
    assert most_in_a_window(admitted) <= limit


@given(gaps, st.integers(1, 8))
def test_nobody_is_refused_who_would_not_break_the_limit(steps, limit):
    log = SlidingLog(WINDOW)
    admitted = []
    for now in times_of(steps):
        if log.admit(limit, now):
            admitted.append(now)
        else:
            assert most_in_a_window([*admitted, now]) > limit


def test_log_equals_a_model_that_keeps_everything_while_limits_change():
    dice = random.Random(7)  # noqa: S311 - the same dice every time
    log, admitted, now, limit = SlidingLog(WINDOW), [], 0.0, 5
    for _ in range(STEPS):
        now += dice.choice((0, 0, 1, 3, 17, 59, 60, 61)) / dice.choice((1, 16))
        if dice.random() < 0.02:
            limit = dice.randint(0, 9)
        admitted = [time for time in admitted if time > now - WINDOW]
        if dice.random() < 0.7:
            assert log.admit(limit, now) == (len(admitted) < limit)
            admitted += [now] if len(admitted) < limit else []
        quota = log.quota(limit, now)
        assert (quota.limit, quota.remaining) == (limit, max(0, limit - len(admitted)))
        assert log.is_idle(now) == (not admitted)


@given(gaps, st.integers(1, 5))
def test_who_waits_exactly_as_long_as_told_has_more_then(steps, limit):
    log = SlidingLog(WINDOW)
    now = 0.0
    for now in times_of(steps):
        log.admit(limit, now)
    before = log.quota(limit, now)
    assert (before.more_in_seconds == 0) == (before.remaining == limit)
    if before.more_in_seconds:
        assert log.quota(limit, now + before.more_in_seconds - 1).remaining >= before.remaining
        assert log.quota(limit, now + before.more_in_seconds).remaining > before.remaining


def test_a_limit_lowered_below_what_is_used_tells_when_there_is_room_again():
    log = SlidingLog(WINDOW)
    for now in (0, 10, 20, 30):
        assert log.admit(4, now)
    assert log.quota(2, 30) == Quota(2, 0, 50), "the third to leave makes the first room"
    assert not log.admit(2, 79)
    assert log.admit(2, 80)


# ---- many of them


def test_subjects_do_not_count_for_one_another():
    limiter = RateLimiter()
    assert limiter.admit("a", 1, 0.0).remaining == 0
    assert limiter.admit("b", 1, 0.0).remaining == 0
    with pytest.raises(RateLimitedError):
        limiter.admit("a", 1, 1.0)


@pytest.mark.parametrize(("now", "wait"), [(0.5, 60), (1.0, 60), (20.0, 41), (60.25, 1)])
def test_refusal_tells_when_to_come_back_and_is_not_counted(now, wait):
    limiter = RateLimiter()
    limiter.admit("a", 1, 0.5)
    with pytest.raises(RateLimitedError) as refused:
        limiter.admit("a", 1, now)
    assert refused.value.retry_after_seconds == wait
    assert limiter.admit("a", 1, now + wait) == Quota(1, 0, 60)


def test_looking_at_what_is_left_remembers_nobody():
    limiter = RateLimiter()
    assert limiter.quota("a", 9, 0.0) == Quota(9, 9, 0)
    assert len(limiter) == 0


def test_idle_subjects_are_forgotten():
    limiter = RateLimiter()
    for number in range(100):
        limiter.admit(f"key-{number}", 5, 0.0)
    for number in range(100):
        limiter.admit("other", 500, 61.0 + number)
    assert len(limiter) == 1


def test_no_more_than_so_many_are_remembered():
    limiter = RateLimiter(max_subjects=10)
    for number in range(100):
        limiter.admit(f"key-{number}", 5, 0.0)
    assert len(limiter) == 10
    assert limiter.quota("key-99", 5, 0.0).remaining == 4


# ---- creates in flight


def test_place_is_given_back_however_the_block_is_left():
    places = Concurrency()
    with pytest.raises(ZeroDivisionError), places.take("a", 1):
        raise ZeroDivisionError
    with places.take("a", 2), places.take("a", 2):
        assert places.taken("a") == 2
        with pytest.raises(ConcurrencyLimitedError) as refused, places.take("a", 2):
            raise AssertionError("three of two")
        assert refused.value.retry_after_seconds == 1
        assert places.taken("a") == 2, "a refusal changed something"
        with places.take("b", 1):
            assert places.taken("b") == 1
    assert places.taken("a") == 0
    assert places._taken == {}


# ---- headers

_PARAMETER = r';[a-z*][a-z0-9_.*-]*=(?:-?[0-9]{1,15}|"[\x20\x21\x23-\x5b\x5d-\x7e]*")'
_ITEM = rf'"[\x20\x21\x23-\x5b\x5d-\x7e]*"(?:{_PARAMETER})*'


def structured(text):
    """A list of strings with parameters, as RFC 9651 sections 3.1 and 3.3 write it; raises where it is none."""
    assert re.fullmatch(rf"{_ITEM}(?:, {_ITEM})*", text), text
    found = {}
    for item in re.findall(_ITEM, text):
        name = re.match(r'"([^"]*)"', item)[1]
        pairs = (pair[1:].split("=") for pair in re.findall(_PARAMETER, item))
        found[name] = {key: value[1:-1] if value[0] == '"' else int(value) for key, value in pairs}
    return found


@given(st.integers(1, 10_000), st.integers(1, 500), st.integers(0, 10_000), st.integers(0, 60))
def test_headers_read_back_as_what_was_meant(requests, creates, remaining, wait):
    headers = rate_headers(Allowance(requests, creates), Quota(requests, remaining, wait))
    assert structured(headers["RateLimit-Policy"]) == {
        "minute": {"q": requests, "w": 60},
        "create": {"q": creates, "qu": "concurrent-requests"},
    }
    assert structured(headers["RateLimit"]) == {"minute": {"r": remaining, **({"t": wait} if wait else {})}}

from __future__ import annotations

import pytest

from gateway.api import knocks
from gateway.api.knocks import MAX_FAILURES, WINDOW_SECONDS, Knocks
from gateway.errors import RateLimitedError


class Clock:
    at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock():
    return Clock()


def fail_until_refused(counted: Knocks, address: str) -> RateLimitedError:
    for _ in range(MAX_FAILURES):
        counted.failed(address)
    with pytest.raises(RateLimitedError) as refusal:
        counted.failed(address)
    return refusal.value


def test_whoever_waits_as_long_as_was_said_is_heard_again(clock):
    counted = Knocks(clock)
    refusal = fail_until_refused(counted, "10.0.0.1")
    assert refusal.retry_after_seconds == WINDOW_SECONDS
    clock.at += refusal.retry_after_seconds - 0.5
    with pytest.raises(RateLimitedError) as again:
        counted.failed("10.0.0.1")
    assert again.value.retry_after_seconds == 1
    clock.at += again.value.retry_after_seconds
    counted.failed("10.0.0.1")


def test_no_minute_holds_more_than_it_may(clock):
    counted = Knocks(clock)
    heard = []
    for _ in range(400):
        clock.at += 0.7
        try:
            counted.failed("10.0.0.1")
        except RateLimitedError:
            continue
        heard.append(clock.at)
    assert len(heard) > 2 * MAX_FAILURES
    for moment in heard:
        assert sum(moment - WINDOW_SECONDS < other <= moment for other in heard) <= MAX_FAILURES


def test_addresses_count_for_themselves_and_a_household_for_one(clock):
    counted = Knocks(clock)
    fail_until_refused(counted, "10.0.0.1")
    counted.failed("10.0.0.2")
    fail_until_refused(counted, "2001:db8::1")
    with pytest.raises(RateLimitedError):
        counted.failed("2001:db8::ffff:1")
    counted.failed("2001:db8:0:1::1")
    counted.failed("local")


def test_addresses_remembered_are_bounded(clock, monkeypatch):
    monkeypatch.setattr(knocks, "MAX_ADDRESSES", 3)
    counted = Knocks(clock)
    for number in range(10):
        counted.failed(f"10.0.0.{number}")
    assert list(counted._failures) == ["10.0.0.7", "10.0.0.8", "10.0.0.9"]

"""What is a key, what is the same request, and when a claim is free, in flight or done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import IdempotencyMismatchError, InvalidInputError
from gateway.idempotency import (
    LEASE_SECONDS,
    RENEW_SECONDS,
    Answer,
    Free,
    InFlight,
    Stored,
    Wanted,
    fingerprint,
    key_of,
    standing,
)

WANTED = Wanted("key-1", "k", "same")
DONE = Answer(201, b"{}", "job-1")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# ---- the header


@pytest.mark.parametrize("value", ["k", '"k"', " k ", '\t"k" '])
def test_bare_and_quoted_key_are_the_same(value):
    assert key_of([value]) == "k"


def test_request_without_the_header_has_no_key():
    assert key_of([]) is None


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ["  "],
        ['""'],
        ['"'],
        ["a b"],
        ["k" * 65],
        ['"' + "k" * 65 + '"'],
        ['"k'],
        ['k"'],
        ['"a"b"'],
        ["a\\b"],
        ['"a\\"b"'],
        ['"k";a=1'],
        ["é"],
        ["a\x7f"],
        ["a", "a"],
        ["a, b"],
        # An API key in the wrong header; what is in this one is stored.
        ["cfg_live_Ab12"],
        ['"x-cfg_test_"'],
    ],
)
def test_what_is_no_key_is_refused(values):
    with pytest.raises(InvalidInputError) as refused:
        key_of(values)
    assert refused.value.field == "Idempotency-Key"


@given(st.text("".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\'), min_size=1, max_size=64))
def test_every_visible_key_of_up_to_64_characters_is_taken_both_ways(key):
    assert key_of([key]) == key_of([f'"{key}"']) == key


# ---- the fingerprint


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(json_values)
def test_order_of_fields_does_not_matter(value):
    assert fingerprint("POST", "/p", value) == fingerprint("POST", "/p", reordered(value))


def test_method_route_and_every_field_matter():
    prints = [
        fingerprint("POST", "/p", {"a": 1, "b": [1, 2]}),
        fingerprint("PUT", "/p", {"a": 1, "b": [1, 2]}),
        fingerprint("POST", "/q", {"a": 1, "b": [1, 2]}),
        fingerprint("POST", "/p", {"a": 1, "b": [2, 1]}),
        fingerprint("POST", "/p", {"a": "1", "b": [1, 2]}),
        fingerprint("POST", "/p", {"a": True, "b": [1, 2]}),
        fingerprint("POST", "/p", {"a": 1, "b": [1, 2], "c": None}),
    ]
    assert len(set(prints)) == len(prints)


# ---- what a stored claim means


def stored(**changes):
    values = {
        "fingerprint": "same",
        "token": "t",
        "lease_until": 160.0,
        "expires_at": 9000.0,
        "answer": None,
        **changes,
    }
    return Stored(**values)


def test_claim_that_nobody_made_or_whose_time_is_over_is_free():
    assert standing(None, WANTED, 100.0) is Free.FREE
    assert standing(stored(answer=DONE), WANTED, 9000.0) is Free.FREE
    assert standing(stored(answer=DONE, fingerprint="other"), WANTED, 9000.0) is Free.FREE


def test_claim_under_its_lease_is_in_flight_for_as_long_as_that_runs():
    assert standing(stored(), WANTED, 100.0) == InFlight(60.0)
    assert standing(stored(), WANTED, 159.5) == InFlight(0.5)


def test_claim_whose_lease_ran_out_is_free_for_whatever_is_wanted():
    assert standing(stored(), WANTED, 160.0) is Free.FREE
    assert standing(stored(fingerprint="other"), WANTED, 160.0) is Free.FREE


def test_claim_is_never_in_flight_for_longer_than_a_lease_when_the_clock_was_put_back():
    assert standing(stored(lease_until=160.0), WANTED, 99.0) is Free.FREE


def test_done_claim_gives_its_answer_whenever_its_lease_ended():
    assert standing(stored(answer=DONE), WANTED, 100.0) is DONE
    assert standing(stored(answer=DONE), WANTED, 8999.0) is DONE


@pytest.mark.parametrize("answer", [None, DONE])
def test_key_that_was_used_for_something_else_is_refused(answer):
    with pytest.raises(IdempotencyMismatchError):
        standing(stored(answer=answer, fingerprint="other"), WANTED, 100.0)


def test_holder_may_miss_a_renewal():
    assert 2 * RENEW_SECONDS < LEASE_SECONDS <= 60

from __future__ import annotations

import re
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts import (
    KEY_PATTERN,
    RANDOM_BYTES,
    Key,
    KeyKind,
    Scope,
    checked_name,
    checked_number,
    checked_patterns,
    checked_scopes,
    checked_tier,
    hash_of,
    is_key_text,
    key_text,
    looks_like_a_key,
    may_hold_a_key,
    shown_prefix,
)
from gateway.errors import InvalidInputError
from gateway.workflow_rules import DEFAULT_DENY, NodeRules

DIGITS = string.digits + string.ascii_letters
RANDOMNESS = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
KINDS = st.sampled_from(KeyKind)
#: Of the bytes 0 to 31.
GOLDEN = "cfg_live_jlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2BNrhJ"
GOLDEN_HASH = "0f603f302c7d8b3f7ae730f213d8d45751e582324a146661bd0313e93c4dc522"


@given(KINDS, RANDOMNESS)
def test_a_key_has_its_form_and_its_check_digits(kind, randomness):
    text = key_text(kind, randomness)
    assert re.fullmatch(KEY_PATTERN, text)
    assert text.startswith(f"cfg_{kind}_")
    assert is_key_text(text)
    assert looks_like_a_key(text)


@given(KINDS, RANDOMNESS, st.integers(0, 46), st.sampled_from(DIGITS + "_-. é"))
def test_a_key_with_one_character_changed_is_none(kind, randomness, place, other):
    text = key_text(kind, randomness)
    changed = text[:place] + other + text[place + 1 :]
    assert is_key_text(changed) is (changed == text)


@given(RANDOMNESS, st.integers(0, 37))
def test_a_key_with_two_neighbours_exchanged_is_none(randomness, place):
    text = key_text(KeyKind.LIVE, randomness)
    at = len("cfg_live_") + min(place, 36)
    exchanged = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    assert is_key_text(exchanged) is (exchanged == text)


@pytest.mark.parametrize("text", ["", "cfg_", "cfg_live_", "cfg_live_" + "0" * 37, "cfg_live_" + "0" * 38 + "\n"])
def test_what_is_no_key_is_known_for_it(text):
    assert not is_key_text(text)


def test_a_key_is_seen_in_the_middle_of_a_text():
    assert may_hold_a_key(f"id={GOLDEN}.")
    assert may_hold_a_key(f"id={GOLDEN[:-3]}.")
    assert not may_hold_a_key("id=cfg_other")


def test_a_key_is_written_as_it_always_was():
    """Keys that were given out must be keys for ever."""
    assert key_text(KeyKind.LIVE, bytes(range(32))) == GOLDEN
    assert hash_of(GOLDEN) == GOLDEN_HASH


def test_all_that_randomness_has_is_in_a_key():
    base = key_text(KeyKind.LIVE, bytes(RANDOM_BYTES))
    seen = {key_text(KeyKind.LIVE, (1 << bit).to_bytes(RANDOM_BYTES)) for bit in range(190)}
    assert len(seen | {base}) == 191


@pytest.mark.parametrize("length", [0, 24, 31, 33])
def test_a_key_is_made_of_enough_randomness(length):
    with pytest.raises(ValueError, match="32 random bytes"):
        key_text(KeyKind.LIVE, bytes(length))


def test_what_lists_show_tells_keys_apart_and_opens_nothing():
    shown = shown_prefix(GOLDEN)
    assert GOLDEN.startswith(shown)
    assert len(shown) == len("cfg_live_") + 8
    assert not is_key_text(shown)


def test_whoever_may_administer_may_do_all():
    key = Key("k", "u", "n", "cfg_test_12345678", 1, 1, frozenset({Scope.ADMIN}), 0.0)
    assert key.may(Scope.JOBS)
    assert key.kind is KeyKind.TEST
    jobs_only = Key("k", "u", "n", "cfg_live_12345678", 1, 1, frozenset({Scope.JOBS}), 0.0)
    assert not jobs_only.may(Scope.ADMIN)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\x00", "x" * 65, "\u202e", "Mu\u0308ller", "\udcff"])
def test_names_are_refused(name):
    with pytest.raises(InvalidInputError) as refusal:
        checked_name(name, "name")
    assert refusal.value.field == "name"


@pytest.mark.parametrize("name", ["a", "Ann Müller", "ann@example.org", "x" * 64])
def test_names_are_taken(name):
    assert checked_name(name, "name") == name


KEY = Key("k", "u", "n", "cfg_live_12345678", 1, 1, frozenset({Scope.JOBS}), 0.0)


def test_a_key_without_lists_has_no_rules_and_one_with_either_has():
    assert KEY.node_rules is None
    denying = replace(KEY, nodes_deny=frozenset({"Save*"})).node_rules
    assert denying == NodeRules(frozenset({"Save*"}))
    allowing = replace(KEY, nodes_allow=frozenset({"Save*"})).node_rules
    assert allowing == NodeRules(frozenset(), frozenset({"Save*"}))


def test_a_key_can_deny_what_ships_where_the_gateway_does_not():
    rules = replace(KEY, nodes_deny=frozenset({"default", "Mine"})).node_rules
    assert rules == NodeRules(DEFAULT_DENY | {"Mine"})
    assert not NodeRules(frozenset()).narrowed(rules).permits("VHS_LoadVideoPath")


@pytest.mark.parametrize(
    "patterns", [[], [""], [" a"], ["a "], ["a\nb"], ["\x00"], ["\udcff"], ["x" * 101], ["x"] * 201], ids=repr
)
def test_patterns_are_refused(patterns):
    with pytest.raises(InvalidInputError) as refusal:
        checked_patterns(patterns, "nodes_deny")
    assert refusal.value.field == "nodes_deny"


def test_patterns_are_taken_up_to_the_bounds():
    most = [f"{number:0100}" for number in range(200)]
    assert checked_patterns(most, "nodes_allow") == frozenset(most)
    assert checked_patterns(["*", "CR Load?", "Läden [[]x]", "*"], "nodes_allow") == {"*", "CR Load?", "Läden [[]x]"}


def test_tiers_limits_and_scopes_are_checked():
    assert checked_tier("pro-2") == "pro-2"
    assert checked_number(7, "rate_limit", 7) == 7
    assert checked_scopes(frozenset({"jobs", "admin"})) == frozenset(Scope)
    for wrong in (
        lambda: checked_tier("Pro"),
        lambda: checked_tier(""),
        lambda: checked_number(0, "rate_limit", 7),
        lambda: checked_number(8, "rate_limit", 7),
        lambda: checked_scopes(frozenset()),
        lambda: checked_scopes(frozenset({"jobs", "root"})),
    ):
        with pytest.raises(InvalidInputError):
            wrong()

"""What an upstream's report of an upload is taken for, whatever it says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comfy.frames import node_output
from gateway.direct import (
    MAX_REPORT_CHARACTERS,
    REPORT,
    Arrival,
    NotSent,
    arrival_key,
    arrival_of,
    node_for,
    reports_in,
)

SHA256 = "ab" * 32
SENT = {
    "filename": "out_00001-audio.mp4",
    "subfolder": "gateway/id/prompt",
    "type": "output",
    "status": "uploaded",
    "size_bytes": 12,
    "sha256": SHA256,
    "reason": "",
}


OURS = node_for("6")


def heard(said, node=OURS):
    """From what the node says to what is kept of it."""
    return {node: reports_in(node_output("prompt", node, {REPORT: said}))}


def test_a_report_survives_the_way_through_history_and_store():
    assert arrival_of(heard([SENT]), "6") == Arrival(12, SHA256)
    (kept,) = heard([SENT])[OURS]
    assert (kept.filename, kept.kind) == ("", REPORT), "no file that could be fetched"


def test_what_was_not_asked_for_is_none():
    assert arrival_of({}, "6") is None
    assert arrival_of(heard([SENT]), "7") is None
    assert heard([SENT], node="6")["6"] == (), "a report of a node that is not ours"


def test_a_failure_says_why():
    told = {**SENT, "status": "failed", "reason": "the storage answered with status 403"}
    assert arrival_of(heard([told]), "6") == NotSent("the storage answered with status 403")


@pytest.mark.parametrize(
    "change",
    [
        {"size_bytes": True},
        {"size_bytes": 12.0},
        {"size_bytes": None},
        {"sha256": None},
        {"sha256": "AB" * 32},
        {"sha256": SHA256 + "\n"},
        {"sha256": ""},
    ],
)
def test_numbers_and_hashes_are_of_their_kind(change):
    assert isinstance(arrival_of(heard([{**SENT, **change}]), "6"), NotSent)


def test_a_report_without_end_is_not_kept():
    assert heard([{**SENT, "reason": "x" * MAX_REPORT_CHARACTERS}])[OURS] == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(SENT, JSON)).map(lambda one: [one]))
def test_whatever_is_said_it_is_an_arrival_a_reason_or_nothing(said):
    said = json.loads(json.dumps(said))
    assert isinstance(arrival_of(heard(said), "6"), Arrival | NotSent | None)


def test_an_attempt_has_a_place_of_its_own():
    assert len({arrival_key(prompt, node) for prompt in ("p", "q") for node in ("6", "7")}) == 4

"""Cursors and ends of event streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import TERMINAL_KINDS, Event, EventKind, cursor_from
from gateway.job import TERMINAL_JOB


@pytest.mark.parametrize(
    "said",
    [None, "", "x", "-1", "+1", " 1", "1.0", "1e3", "²", "٣", "8", "9" * 18, "9" * 19, "9" * 5000, "0x1", "1\n"],
)
def test_cursor_that_is_none_begins_at_the_beginning(said):
    assert cursor_from(said, 7) == 0


@pytest.mark.parametrize(("said", "number"), [("0", 0), ("1", 1), ("7", 7), ("007", 7)])
def test_cursor_up_to_the_last_event_is_kept(said, number):
    assert cursor_from(said, 7) == number


@given(st.none() | st.text(max_size=30), st.integers(0, 10**6))
def test_cursor_is_never_outside_what_there_is(said, last):
    assert 0 <= cursor_from(said, last) <= last


def test_an_event_is_the_end_exactly_when_its_job_has_ended():
    assert {kind.value for kind in TERMINAL_KINDS} == {state.value for state in TERMINAL_JOB}
    ends = {kind for kind in EventKind if Event("j", 1, kind, 0.0, {}).is_terminal}
    assert ends == TERMINAL_KINDS

"""The life of a job: the table, the guards, and what no order of events can bring about."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway import job
from gateway.job import (
    LIVE,
    TERMINAL,
    TRANSITIONS,
    JobState,
    RetryLimits,
    Task,
    TaskEvent,
    TaskState,
    decide,
    job_state,
    next_state,
    picture,
)

LIMITS = RetryLimits(max_attempts=3, max_interruptions=5)
QUEUED = Task("t", "j", 0, TaskState.QUEUED)
RUNNING = replace(QUEUED, state=TaskState.RUNNING, attempt=1)


def follow(task, event, limits=LIMITS):
    """The task after an event, as a recorder would write it; the same where the event is refused."""
    decision = decide(task, event, limits)
    if decision is None:
        return task
    return replace(
        task,
        state=decision.state,
        losses=decision.losses,
        interruptions=decision.interruptions,
        cancel_requested=decision.cancel_requested,
        attempt=task.attempt + (event is TaskEvent.DISPATCHED),
    )


class Life(RuleBasedStateMachine):
    """Any events in any order; a model remembers what was asked for."""

    def __init__(self):
        super().__init__()
        self.task = QUEUED
        self.ended = None
        self.flagged = False
        self.dispatches = 0

    @rule(event=st.sampled_from(TaskEvent))
    def happens(self, event):
        before, self.task = self.task, follow(self.task, event)
        if self.flagged and before.state in LIVE:
            assert self.task.state is not TaskState.QUEUED
            if self.task.state in TERMINAL:
                assert self.task.state is TaskState.CANCELED
        self.flagged = self.flagged or (event is TaskEvent.CANCEL_REQUESTED and before.state in LIVE)
        self.dispatches += event is TaskEvent.DISPATCHED and before.state is TaskState.QUEUED
        if self.ended is None and self.task.state in TERMINAL:
            self.ended = self.task

    @invariant()
    def terminal_is_final(self):
        assert self.ended in (None, self.task)

    @invariant()
    def flag_is_remembered_and_never_waits(self):
        assert self.flagged <= self.task.cancel_requested
        assert not (self.task.cancel_requested and self.task.state is TaskState.QUEUED)

    @invariant()
    def tries_are_bounded(self):
        assert self.task.losses <= LIMITS.max_attempts
        assert self.task.interruptions <= LIMITS.max_interruptions
        assert self.dispatches <= LIMITS.max_attempts + LIMITS.max_interruptions - 1
        if self.task.state not in TERMINAL:
            assert self.task.losses < LIMITS.max_attempts


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_table_has_its_arrows_and_no_other():
    assert len(TRANSITIONS) == 19
    assert not [pair for pair in TRANSITIONS if pair[0] in TERMINAL]
    assert {state for state, event in TRANSITIONS if event is TaskEvent.DISPATCHED} == {TaskState.QUEUED}


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("event", TaskEvent)
def test_what_the_table_refuses_changes_nothing(state, event):
    if next_state(state, event) is None:
        assert decide(replace(RUNNING, state=state, cancel_requested=state in LIVE), event, LIMITS) is None


def test_picture_says_what_the_table_says():
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in picture().splitlines()]
    assert head[1:] == [event.value for event in TaskEvent]
    for state, *cells in rows[:-1]:
        for event, cell in zip(TaskEvent, cells, strict=True):
            target = next_state(TaskState(state), event)
            assert cell == ("-" if target is None else "flag" if target.value == state else target.value)
    assert [row[0] for row in rows] == ["queued", "dispatched", "running", "terminal"]
    assert set(rows[-1][1:]) == {"-"}


def test_picture_in_the_docstring_says_what_the_table_says():
    drawn = job.__doc__.split("::")[1].split("succeeded, failed")[0].split("\n\n")[1]
    head, *rows = [line.split() for line in drawn.strip().splitlines()]
    assert head[3:] == [event.value for event in TaskEvent]
    words = {"-": None, "(flag)": "flag"}
    for state, *cells in rows:
        for event, cell in zip(TaskEvent, cells, strict=True):
            target = next_state(TaskState(state), event)
            said = words.get(cell, cell.rstrip("¹"))
            assert said == (None if target is None else "flag" if target.value == state else target.value)


def test_last_attempt_lost_fails_with_a_sentence():
    decision = decide(replace(RUNNING, losses=2), TaskEvent.ATTEMPT_LOST, LIMITS)
    assert (decision.state, decision.losses, decision.error_code) == (TaskState.FAILED, 3, "upstream_lost")
    assert "3" in decision.error_message


def test_interruption_costs_no_attempt():
    decision = decide(replace(RUNNING, losses=2), TaskEvent.INTERRUPTED, LIMITS)
    assert (decision.state, decision.losses, decision.interruptions) == (TaskState.QUEUED, 2, 1)


def test_one_interruption_too_many_fails():
    decision = decide(replace(RUNNING, interruptions=4), TaskEvent.INTERRUPTED, LIMITS)
    assert (decision.state, decision.error_code) == (TaskState.FAILED, "upstream_lost")


def test_cancel_of_a_queued_task_is_its_end_and_of_a_live_one_a_flag():
    ended = decide(QUEUED, TaskEvent.CANCEL_REQUESTED, LIMITS)
    assert (ended.state, ended.cancel_requested) == (TaskState.CANCELED, False)
    flagged = decide(RUNNING, TaskEvent.CANCEL_REQUESTED, LIMITS)
    assert (flagged.state, flagged.cancel_requested) == (TaskState.RUNNING, True)


@pytest.mark.parametrize(
    "event",
    [TaskEvent.SUCCEEDED, TaskEvent.FAILED, TaskEvent.ATTEMPT_LOST, TaskEvent.INTERRUPTED, TaskEvent.EXPIRED],
)
def test_flagged_task_ends_canceled_however_its_attempt_ends(event):
    decision = decide(replace(RUNNING, cancel_requested=True, losses=2), event, LIMITS)
    assert (decision.state, decision.error_code) == (TaskState.CANCELED, None)


def test_flagged_task_may_still_start():
    task = replace(QUEUED, state=TaskState.DISPATCHED, attempt=1, cancel_requested=True)
    assert decide(task, TaskEvent.STARTED, LIMITS).state is TaskState.RUNNING


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["queued"], "queued"),
        (["dispatched"], "dispatched"),
        (["running"], "running"),
        (["succeeded"], "succeeded"),
        (["queued", "dispatched"], "dispatched"),
        (["queued", "succeeded"], "running"),
        (["succeeded", "failed", "canceled"], "failed"),
        (["succeeded", "canceled"], "canceled"),
        (["running", "failed"], "running"),
    ],
)
def test_job_state_follows_from_its_tasks(states, expected):
    assert job_state(replace(QUEUED, state=TaskState(state)) for state in states) is JobState(expected)


def test_job_is_finishing_only_when_all_its_tasks_are():
    finishing = replace(RUNNING, finishing=True)
    assert job_state([finishing]) is JobState.FINISHING
    assert job_state([finishing, replace(QUEUED, state=TaskState.SUCCEEDED)]) is JobState.FINISHING
    assert job_state([finishing, RUNNING]) is JobState.RUNNING


@given(st.lists(st.sampled_from(TaskState), min_size=1, max_size=4))
def test_job_has_ended_exactly_when_all_its_tasks_have(states):
    tasks = [replace(QUEUED, state=state) for state in states]
    assert (job_state(tasks) in job.TERMINAL_JOB) == all(state in TERMINAL for state in states)

"""Faults to plant in the gateway, each of which the machine must find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.api.dialects.faceswap import translation
from gateway.api.ready import ReadyAnswers
from gateway.breaker import Breaker
from gateway.engine.dispatcher import Dispatcher
from gateway.engine.pool import Pool
from gateway.interfaces import OpenTask, Report
from gateway.job import Cause, Decision, Job, RetryLimits, Task, TaskEvent, decide
from gateway.store.queries import recording
from gateway.store.sql_store import SqlStore

Patch = pytest.MonkeyPatch


def a_cancel_loses_against_a_success(patch: Patch) -> None:
    def forgetful(task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
        is_flagged = task.cancel_requested and event is not TaskEvent.SUCCEEDED
        return decide(replace(task, cancel_requested=is_flagged), event, limits)

    async def go_on(_flag: object, work: Any, *, name: str) -> Any:
        del name
        return await work

    patch.setattr(recording, "decide", forgetful)
    patch.setattr("gateway.engine.runner.unless_canceled", go_on)


def what_was_lost_is_not_tried_again(patch: Patch) -> None:
    patch.setattr(recording, "decide", lambda task, event, _limits: decide(task, event, RetryLimits(1)))


def a_cursor_gives_the_last_event_again(patch: Patch) -> None:
    after = SqlStore.events_after

    async def again(self: SqlStore, job_id: str, number: int, **more: Any) -> Any:
        return await after(self, job_id, max(number - 1, 0), **more)

    patch.setattr(SqlStore, "events_after", again)


def draining_is_not_remembered(patch: Patch) -> None:
    remember = SqlStore.set_upstream

    async def forgetful(self: SqlStore, name: str, *, draining: bool | None = None, **more: Any) -> Any:
        del draining
        return await remember(self, name, **more)

    patch.setattr(SqlStore, "set_upstream", forgetful)


def a_busy_upstream_gets_more(patch: Patch) -> None:
    patch.setattr(Pool, "claim", lambda _self, _name, _task_id, _job_id: None)


def a_ready_answer_outlives_a_change(patch: Patch) -> None:
    patch.setattr(ReadyAnswers, "_changed", lambda _self, _job_id, *, is_event: None)


def the_bar_forgets_what_was_shown(patch: Patch) -> None:
    shown = translation._status_percentage

    def forgetful(job: Job, snapshot: Any) -> float:
        return shown(job if job.is_terminal else replace(job, fraction=0.0), snapshot)

    patch.setattr(translation, "_status_percentage", forgetful)


def the_upstream_is_not_told_of_a_cancel(patch: Patch) -> None:
    patch.setattr(Dispatcher, "cancel", lambda _self, _job_id: None)


def what_runs_is_run_anew_after_a_restart(patch: Patch) -> None:
    async def give_up(self: Dispatcher, found: OpenTask) -> None:
        report = Report(TaskEvent.INTERRUPTED, attempt=found.task.attempt, cause=Cause.UNSEEN)
        await self._recorder.record(found.task.id, report)

    patch.setattr(Dispatcher, "_take_up", give_up)


def a_busy_upstream_is_let_go(patch: Patch) -> None:
    patch.setattr(Pool, "is_busy", lambda _self, _name: False)


def what_failed_gets_no_rest(patch: Patch) -> None:
    patch.setattr(Breaker, "fault", lambda _self, _kind, _now: 0.0)


MUTATIONS: Mapping[str, Callable[[Patch], None]] = {
    plant.__name__.replace("_", " "): plant
    for plant in (
        a_cancel_loses_against_a_success,
        what_was_lost_is_not_tried_again,
        a_cursor_gives_the_last_event_again,
        draining_is_not_remembered,
        a_busy_upstream_gets_more,
        a_ready_answer_outlives_a_change,
        the_bar_forgets_what_was_shown,
        the_upstream_is_not_told_of_a_cancel,
        what_runs_is_run_anew_after_a_restart,
        a_busy_upstream_is_let_go,
        what_failed_gets_no_rest,
    )
}

"""What one client is told, event by event: the pure half of a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.api.dialects.comfy_v2.job_bodies import Links
from gateway.api.dialects.comfy_v2.job_events import Told
from gateway.api.following import Frame
from gateway.events import Event, EventKind
from gateway.job import Job, JobResult, JobState
from gateway.settings import from_mapping
from tests.fakes.fake_service import IMAGE_FACTS, NOW, FakeService

LINKS = Links("http://h", lambda _job, result: (f"http://h/{result.asset_id}", NOW), 60.0)
JOB = FakeService(from_mapping({})).put(IMAGE_FACTS)


def result(number: int) -> JobResult:
    return JobResult(f"asset-{number}", "f" * 64, 5, IMAGE_FACTS, f"link-{number}", node_id="9", name=f"{number}.png")


def job(state: JobState, *results: int, **changes: Any) -> Job:
    return replace(JOB, state=state, results=tuple(map(result, results)), **changes)


def event(number: int, kind: EventKind, **data: Any) -> Event:
    return Event(JOB.id, number, kind, NOW, data)


def said(frames: list[Frame]) -> list[tuple[str, Any, int | None]]:
    return [(frame.name, frame.data.get("status") or frame.data.get("id"), frame.number) for frame in frames]


def all_of(told: Told, now: Job, *events: Event, position: int | None = None) -> list[tuple[str, Any, int | None]]:
    return said([frame for each in events for frame in told.of(each, now, position)])


def test_each_change_of_status_is_told_once_with_its_number():
    told = Told(LINKS)
    now = job(JobState.FINISHING)

    assert all_of(
        told,
        now,
        event(1, EventKind.QUEUED),
        event(2, EventKind.DISPATCHED),
        event(3, EventKind.STARTED),
        event(4, EventKind.REQUEUED),
        event(5, EventKind.DISPATCHED),
        event(6, EventKind.FINISHING),
    ) == [("status", "queued", 1), ("status", "running", 2), ("status", "queued", 4), ("status", "running", 5)]


def test_what_the_snapshot_covers_is_not_told_again():
    told = Told(LINKS)

    [first] = told.snapshot(job(JobState.RUNNING, last_event=3), None)

    assert first.data == {"status": "running", "queue_position": None}
    assert all_of(told, job(JobState.RUNNING), event(1, EventKind.QUEUED), event(3, EventKind.STARTED)) == []


def test_outputs_that_are_there_are_told_however_old():
    told = Told(LINKS)
    now = job(JobState.RUNNING, 1, last_event=4)
    list(told.snapshot(now, None))

    assert all_of(told, now, event(4, EventKind.OUTPUT, asset_id="asset-1")) == [("output", "asset-1", 4)]


def test_an_output_of_a_lost_attempt_is_none():
    assert all_of(Told(LINKS), job(JobState.QUEUED, 2), event(4, EventKind.OUTPUT, asset_id="asset-1")) == []


def test_every_output_is_told_once_before_the_terminal_status():
    told = Told(LINKS)
    now = job(JobState.SUCCEEDED, 1, 2)

    assert all_of(told, now, event(4, EventKind.OUTPUT, asset_id="asset-2"), event(5, EventKind.SUCCEEDED)) == [
        ("output", "asset-2", 4),
        ("output", "asset-1", None),
        ("status", "succeeded", 5),
    ]


def test_nothing_runs_again_once_it_is_being_canceled():
    told = Told(LINKS)
    list(told.snapshot(job(JobState.RUNNING), None))

    assert all_of(
        told,
        job(JobState.RUNNING),
        event(4, EventKind.CANCEL_REQUESTED),
        event(5, EventKind.REQUEUED),
        event(6, EventKind.STARTED),
    ) == [("status", "canceling", 4)]
    assert all_of(told, job(JobState.CANCELED), event(7, EventKind.CANCELED)) == [("status", "canceled", 7)]


def test_what_waited_too_long_has_expired():
    now = job(JobState.FAILED, error_code="expired")
    assert all_of(Told(LINKS), now, event(2, EventKind.FAILED)) == [("status", "expired", 2)]


def test_a_warning_is_no_frame():
    assert all_of(Told(LINKS), job(JobState.RUNNING), event(2, EventKind.WARNING, code="x", message="y")) == []


def test_the_place_in_the_queue_is_told_when_it_changes():
    told = Told(LINKS)
    list(told.snapshot(job(JobState.QUEUED), 3))

    assert list(told.moved(job(JobState.QUEUED), 3)) == []
    [moved] = told.moved(job(JobState.QUEUED), 0)
    assert moved.data == {"status": "queued", "queue_position": 1}
    assert moved.number is None
    assert list(told.moved(job(JobState.RUNNING), None)) == []

"""The promises that the database keeps are the ones that ``job.py`` and ``events.py`` make."""

from __future__ import annotations

import re
from enum import StrEnum

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import StaticPool

from gateway.events import EventKind
from gateway.job import TERMINAL, TERMINAL_JOB, Cause, JobState, TaskState
from gateway.store import migrations


@pytest.fixture(scope="module")
def checks() -> dict[str, list[str]]:
    """Table -> its CHECKs, as the migrations make them on a user's disk."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        migrations.upgrade(connection)
        inspector = inspect(connection)
        found = {
            table: [str(check["sqltext"]) for check in inspector.get_check_constraints(table)]
            for table in inspector.get_table_names()
        }
    engine.dispose()
    return found


def listed(sentences: list[str], start: str) -> list[set[str]]:
    """The word lists of the CHECKs that begin so."""
    return [set(re.findall(r"'(\w+)'", text)) for text in sentences if text.startswith(start)]


def values(words: type[StrEnum] | frozenset[StrEnum]) -> set[str]:
    return {word.value for word in words}


def test_states_of_jobs_are_the_enum(checks) -> None:
    assert listed(checks["jobs"], "state IN") == [values(JobState)]


def test_states_of_tasks_are_the_enum(checks) -> None:
    assert listed(checks["tasks"], "state IN") == [values(TaskState)]


def test_kinds_of_events_are_the_enum(checks) -> None:
    assert listed(checks["events"], "kind IN") == [values(EventKind)]


def test_causes_of_lost_attempts_are_the_enum(checks) -> None:
    (check,) = [text for text in checks["attempts"] if text.startswith("cause IS NULL OR")]
    causes, outcomes = (set(re.findall(r"'(\w+)'", part)) for part in check.split(" AND "))
    assert causes == values(Cause)
    assert outcomes == {"attempt_lost", "interrupted"}


def test_what_is_finished_is_what_is_terminal(checks) -> None:
    assert listed(checks["jobs"], "(finished_at IS NOT NULL) =") == [values(TERMINAL_JOB)]
    assert listed(checks["tasks"], "(finished_at IS NOT NULL) =") == [values(TERMINAL)]

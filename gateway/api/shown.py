"""How values are shown wherever no dialect prescribes another way: times, ids, how far a job is, where its files went."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from gateway.delivering import FIELD, Delivery, shown_wish
from gateway.errors import NotFoundError
from gateway.events import Progress
from gateway.job import Job, JobState

#: The nil UUID: a UUIDv7 never is.
NO_JOB: Final = "00000000-0000-0000-0000-000000000000"
_JOB_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def timestamp(unix_seconds: float) -> str:
    """UTC with milliseconds and ``Z``."""
    moment = datetime.fromtimestamp(unix_seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def percentage(fraction: float) -> float:
    """Two decimals; 100 only when the fraction is 1, which it is only after the commit of the result."""
    return 100.0 if fraction >= 1 else min(max(round(100 * fraction, 2), 0.0), 99.99)


def percentage_of(job: Job, snapshot: Progress | None) -> float:
    """How far a job is: 100 once it has succeeded and not before, and never back. Args: snapshot: while at work."""
    if job.state is JobState.SUCCEEDED:
        return 100.0
    shown = snapshot.fraction if snapshot is not None and not job.is_terminal else 0.0
    # A fraction of 1 before the terminal commit is read between two looks at the engine: it is not finished here.
    return min(percentage(max(job.fraction, shown)), 99.99)


def is_job_id(text: str) -> bool:
    """Whether it has the shape of a job's id."""
    return _JOB_ID.fullmatch(text) is not None


def lookup_id(text: str) -> str:
    """What to look up for an id from a path or message: itself, or where it is none, one that no job has.

    So what is no id takes the same way as an id that leads to nothing, and as long.
    """
    return text if is_job_id(text) else NO_JOB


def no_such_job(field: str) -> NotFoundError:
    """The one answer to an id that leads to nothing."""
    return NotFoundError("There is no such job.", field=field)


def delivery_members(job: Job, deliveries: Sequence[Delivery]) -> dict[str, object]:
    """What the body of a job that has a destination says of it beside all else; nothing of any other."""
    wish = shown_wish(job)
    if wish is None:
        return {}
    return {FIELD: wish, "deliveries": [delivery_body(delivery) for delivery in deliveries]}


def delivery_body(delivery: Delivery) -> dict[str, object]:
    """A delivery, as its job's owner sees it."""
    return {
        "id": delivery.id,
        "asset_id": delivery.asset_id,
        "name": delivery.file_name,
        "target": delivery.target,
        "place": delivery.place,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "next_at": None if delivery.next_at is None else timestamp(delivery.next_at),
        "last_at": None if delivery.last_at is None else timestamp(delivery.last_at),
        "last_status": delivery.last_status,
        "reason": delivery.reason.value if delivery.reason else None,
    }

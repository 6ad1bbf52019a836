"""How values are shown wherever no dialect prescribes another way: times, ids."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from gateway.errors import NotFoundError

_JOB_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def timestamp(unix_seconds: float) -> str:
    """UTC with milliseconds and ``Z``."""
    moment = datetime.fromtimestamp(unix_seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def is_job_id(text: str) -> bool:
    """Whether it has the shape of a job's id; nothing else is ever looked up."""
    return _JOB_ID.fullmatch(text) is not None


def job_id(text: str, field: str) -> str:
    """A job's id from a path or message.

    Raises:
        NotFoundError: it has not the shape of one.
    """
    if not is_job_id(text):
        raise no_such_job(field)
    return text


def no_such_job(field: str) -> NotFoundError:
    """The one answer to an id that leads to nothing."""
    return NotFoundError("There is no such job.", field=field)

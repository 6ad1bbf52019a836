"""What a webhook is told of a job that has ended: ``{type, timestamp, data}``, where data is what the dialect's own GET says.

Pure. The same job gives the same bytes in every attempt. A message stays below the 20 kB that receivers are told to
expect; what would be longer tells which job it is, and that the rest is to be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.api.ops import job_body
from gateway.api.problems import to_json
from gateway.api.shown import timestamp
from gateway.api.window import Dialect
from gateway.job import Job
from gateway.outbox import KINDS

#: Source: the Standard Webhooks specification 1.0.0, "Payload size".
MAX_BODY_BYTES: Final = 20_000


def teller(dialects: Sequence[Dialect], base: str, kept_seconds: float) -> Callable[[Job], bytes]:
    """What makes the body of a job's message.

    Args:
        dialects: each tells of the jobs that came in by it.
        base: what links begin with: PUBLIC_URL, or "" where nobody has said how we are reached.
        kept_seconds: how long the files of an ended job are kept.
    """
    told = {dialect.name: dialect.told_outside for dialect in dialects}

    def tell(job: Job) -> bytes:
        own = told.get(job.dialect)
        data = own(job, base, kept_seconds) if own is not None else job_body(job, None, base)
        body = _body(job, data)
        return body if len(body) < MAX_BODY_BYTES else _body(job, {"id": job.id, "truncated": True})

    return tell


def _body(job: Job, data: Mapping[str, object]) -> bytes:
    ended_at = job.finished_at if job.finished_at is not None else job.updated_at
    return to_json({"type": KINDS[job.state], "timestamp": timestamp(ended_at), "data": data})

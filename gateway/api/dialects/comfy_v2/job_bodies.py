"""The translations of jobs of the dialect ``comfy_v2``; pure: job -> body, state -> its word, page -> body.

Source: the published contract of the Comfy API v2; what is ours in a body is the member ``gateway``, and ``metadata`` and
``priority`` where a client of comfy-api-proxy looks for them. ``docs/dialects.md`` lists every member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.api.dialects.comfy_v2.words import STATE_WORDS
from gateway.api.shown import delivery_members, timestamp
from gateway.audit import MediaKind
from gateway.delivering import Delivery
from gateway.errors import ExpiredError, NodeFailedError
from gateway.events import Progress
from gateway.job import Job, JobResult, JobState
from gateway.outbox import FIELD as WEBHOOK

PREFIX: Final = "/api/v2"
CANCELING: Final = "canceling"
EXPIRED: Final = "expired"
#: Every status that a job can have, and the states that it can stand for.
STATES_OF: Final[Mapping[str, frozenset[JobState]]] = {
    **{word: frozenset(state for state, its in STATE_WORDS.items() if its == word) for word in STATE_WORDS.values()},
    CANCELING: frozenset({JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING, JobState.FINISHING}),
    EXPIRED: frozenset({JobState.FAILED}),
}
#: Codes that go by another name here.
_CODES: Final = {NodeFailedError.code: "node_execution_error"}
#: Where ``metadata`` lies in a job's ``extra``.
METADATA: Final = "metadata"
_AT_WORK: Final = frozenset({JobState.DISPATCHED, JobState.RUNNING, JobState.FINISHING})
_OUTPUT_TYPES: Final[Mapping[MediaKind, str]] = {
    MediaKind.IMAGE: "image",
    # VideoHelperSuite's GIFs come under the same name as its videos, and so they do from comfy-api-proxy.
    MediaKind.GIF: "video",
    MediaKind.VIDEO: "video",
    MediaKind.AUDIO: "audio",
    MediaKind.TEXT: "text",
    MediaKind.LATENT: "latent",
    MediaKind.FILE: "file",
    MediaKind.FACES: "text",
}


@dataclass(frozen=True, slots=True)
class Links:
    """How a body's links begin, and where bytes are to be had."""

    #: No slash at the end.
    base: str
    #: A job's result -> the URL of its bytes, and until when that opens them, in Unix seconds.
    content: Callable[[Job, JobResult], tuple[str, float]]
    #: How long an ended job and its files are kept.
    kept_seconds: float


def word(job: Job) -> str:
    """``status``."""
    if job.cancel_requested_at is not None and not job.is_terminal:
        return CANCELING
    if job.state is JobState.FAILED and job.error_code == ExpiredError.code:
        return EXPIRED
    return STATE_WORDS[job.state]


def job_body(
    job: Job,
    links: Links,
    *,
    snapshot: Progress | None,
    position: int | None,
    delivered: Sequence[Delivery] = (),
) -> dict[str, object]:
    """A Job.

    Args:
        job: of any dialect.
        links: of the request.
        snapshot: the newest one, while it is at work.
        position: how many wait before it; None when it does not wait.
        delivered: its deliveries.
    """
    body: dict[str, object] = {
        "id": job.id,
        "status": word(job),
        "created_at": timestamp(job.created_at),
        "started_at": _moment(job.started_at),
        "completed_at": _moment(job.finished_at),
        "expires_at": timestamp(_base_of_retention(job) + links.kept_seconds),
        "queue_position": shown_position(job, position),
        "progress": _progress_of(job, snapshot),
        "outputs": [output_body(job, result, links) for result in job.results],
        "error": _error_body(job) if job.state is JobState.FAILED else None,
        "metrics": {
            "queue_ms": _milliseconds(job.created_at, job.started_at),
            "execution_ms": _milliseconds(job.started_at, job.finished_at),
        },
        "urls": _urls(job, links.base),
        "gateway": {**_gateway_body(job), **delivery_members(job, delivered)},
    }
    if METADATA in job.extra:
        body["metadata"] = job.extra[METADATA]
    if job.priority:
        body["priority"] = job.priority
    return body


def ended_body(job: Job, base: str, kept_seconds: float) -> dict[str, object]:
    """A Job that has ended, for webhooks: its files are to be had by links that need no key, as long as they are kept."""

    def content(job: Job, result: JobResult) -> tuple[str, float]:
        return f"{base}/download/{result.link}", _base_of_retention(job) + kept_seconds

    return job_body(job, Links(base, content, kept_seconds), snapshot=None, position=None)


def _base_of_retention(job: Job) -> float:
    """From when on it is kept for so long; of one that has not ended, the earliest that this can be."""
    return job.finished_at if job.finished_at is not None else job.updated_at


def shown_position(job: Job, position: int | None) -> int | None:
    """``queue_position``: the next one to run is the first, as comfy-api-proxy counts."""
    return None if position is None or job.state is not JobState.QUEUED else position + 1


def _urls(job: Job, base: str) -> dict[str, object]:
    itself = f"{base}{PREFIX}/jobs/{job.id}"
    return {"self": itself, "events": f"{itself}/events", "cancel": f"{itself}/cancel"}


def _gateway_body(job: Job) -> dict[str, object]:
    return {
        "priority": job.priority,
        "metadata": job.extra.get(METADATA),
        "webhook_url": job.extra.get(WEBHOOK),
        "template": job.template,
        "engine": job.engine,
        "warnings": list(job.warnings),
    }


def _error_body(job: Job) -> dict[str, object]:
    code = job.error_code or "internal_error"
    return {
        "code": _CODES.get(code, code),
        "message": job.error_message or "The job failed.",
        "node_id": job.error_node_id,
        "class_type": job.error_node_class,
        "traceback": None,
    }


def _moment(unix_seconds: float | None) -> str | None:
    return None if unix_seconds is None else timestamp(unix_seconds)


def _milliseconds(since: float | None, until: float | None) -> int | None:
    return None if since is None or until is None else max(0, round(1000 * (until - since)))


# ------------------------------------------------------------------------------------------------- progress, outputs


def _progress_of(job: Job, snapshot: Progress | None) -> dict[str, object] | None:
    if job.state not in _AT_WORK:
        return None
    # What was shown last before a restart, until the first new tick.
    return progress_body(snapshot or Progress(job.id, job.fraction, job.step))


def progress_body(snapshot: Progress) -> dict[str, object]:
    """A Progress."""
    return {
        "value": round(min(max(snapshot.fraction, 0.0), 1.0), 4),
        "nodes_done": snapshot.nodes_done,
        "nodes_total": snapshot.nodes_total,
        "current_node": snapshot.node,
        "current_node_class": snapshot.node_class,
        "step": snapshot.step,
        "steps": snapshot.steps,
        "message": snapshot.message or None,
    }


def output_body(job: Job, result: JobResult, links: Links) -> dict[str, object]:
    """An Output."""
    url, until = links.content(job, result)
    return {
        "node_id": result.node_id or "",
        "name": result.name or result.link,
        "type": _OUTPUT_TYPES[result.facts.kind],
        "content_type": result.facts.content_type,
        "size_bytes": result.size_bytes,
        "id": result.asset_id,
        # Of bytes that were never here there is none; the contract has it null then.
        "hash": None if result.place is not None else f"blake3:{result.blob}",
        "url": url,
        "url_expires_at": timestamp(until),
        "job_id": job.id,
    }


# ---------------------------------------------------------------------------------------------------------------- lists


def listed_body(body: Mapping[str, object], job: Job) -> dict[str, object]:
    """A Job in a list, where the official SDK looks for its times under other names."""
    return {**body, "create_time": timestamp(job.created_at), "update_time": timestamp(job.updated_at)}


def page_body(jobs: Sequence[Mapping[str, object]], *, next_cursor: str | None, truncated: bool) -> dict[str, object]:
    """A page.

    Args:
        jobs: the bodies on it.
        next_cursor: where the next page begins; None where this is the last.
        truncated: the looking stopped before the page was full.
    """
    body: dict[str, object] = {"jobs": list(jobs), "truncated": truncated}
    return body if next_cursor is None else {**body, "next_cursor": next_cursor}


def has_labels(job: Job, labels: Mapping[str, str]) -> bool:
    """Whether a job's ``metadata`` has all of these, compared as texts."""
    metadata = job.extra.get(METADATA)
    known = metadata if isinstance(metadata, Mapping) else {}
    return all(name in known and _as_text(known[name]) == value for name, value in labels.items())


def _as_text(label: object) -> str:
    if label is None:
        return "null"
    return str(label).lower() if isinstance(label, bool) else str(label)

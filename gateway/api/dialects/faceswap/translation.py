"""The five translations of the dialect ``faceswap``; pure.

request -> submission (``read_request``, ``submission``), job -> body (``accepted_body``, ``status_body``), event -> frames
(``frames``), error -> body (``error_body``), state -> its word (``STATE_WORDS``).

Source: the published README of the face-swap API that clients of this dialect were written for; ``docs/dialects.md``
lists its fields and our deliberate differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from gateway.api.auth import Caller
from gateway.api.facade import Submission, SubmittedFile
from gateway.api.file_fields import MOVING, STILL, refuse_other_files, submitted_file
from gateway.api.following import Frame
from gateway.api.incoming import ReceivedFile
from gateway.api.shown import delivery_members, percentage, percentage_of, timestamp
from gateway.audit import MediaKind
from gateway.consent import FIELD as CONSENT
from gateway.consent import Attestation, by_field
from gateway.delivering import FIELD as DELIVERY
from gateway.delivering import Delivery, Destination, read_destination
from gateway.errors import GatewayError, InvalidInputError
from gateway.events import Event, EventKind, Progress
from gateway.job import Job, JobState
from gateway.naming import FACE_SWAP
from gateway.outbox import FIELD as WEBHOOK

NAME: Final = "faceswap"
STATE_WORDS: Final[Mapping[JobState, str]] = {
    JobState.QUEUED: "QUEUED",
    JobState.DISPATCHED: "PROCESSING",
    JobState.RUNNING: "PROCESSING",
    JobState.FINISHING: "PROCESSING",
    JobState.SUCCEEDED: "SUCCESS",
    JobState.FAILED: "FAILED",
    JobState.CANCELED: "FAILED",
}

QUEUED_MESSAGE: Final = "Face swap workflow queued successfully!"
#: The braces are the document's: it names the route, and status_url beside it holds the real path.
ACCEPTED_MESSAGE: Final = "Face swap workflow queued successfully. Use /status/{prompt_id} to check progress."
COMPLETED_MESSAGE: Final = "🎉 Face swap completed successfully!"
CANCELED_MESSAGE: Final = "Canceled by request"
CANCELED_CODE: Final = "canceled"

TRUTH: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}

# ------------------------------------------------------------------------------------------------ request -> submission


@dataclass(frozen=True, slots=True)
class SourceField:
    """One way to give an input."""

    name: str
    role: str
    is_url: bool
    kinds: frozenset[MediaKind]


SOURCES: Final = (
    SourceField("video", "target", False, MOVING),
    SourceField("video_url", "target", True, MOVING),
    SourceField("target_image", "target", False, STILL),
    SourceField("target_image_url", "target", True, STILL),
    SourceField("image", "face", False, STILL),
    SourceField("image_url", "face", True, STILL),
)
FILE_FIELDS: Final = frozenset(source.name for source in SOURCES if not source.is_url)
MISSING: Final = {
    "target": ("video", "There is no target: give video or video_url, or target_image or target_image_url."),
    "face": ("image", "There is no source face: give image or image_url."),
}


@dataclass(frozen=True, slots=True)
class SwapRequest:
    """What a client asks for, checked as far as its own words go."""

    #: By role, uploads.
    files: Mapping[str, SubmittedFile]
    #: By role, the field and its URL.
    urls: Mapping[str, tuple[SourceField, str]]
    #: By role.
    kinds: Mapping[str, frozenset[MediaKind]] = field(default_factory=dict)
    output_name: str | None = None
    wants_id_only: bool = False
    #: Called when the job has ended.
    webhook_url: str | None = None
    #: Where its file is put.
    deliver_to: Destination | None = None
    #: The same, judged, as it is kept with the job.
    wish: Mapping[str, object] | None = None
    #: What is said of the people in the pictures.
    consent: Attestation | None = None


def read_request(fields: Mapping[str, str], files: Mapping[str, ReceivedFile]) -> SwapRequest:
    """A form as a request. Unknown text fields are let pass, as the original does.

    Raises:
        InvalidInputError: naming the field: missing, given twice, a text where a file belongs or the reverse.
        UnsupportedMediaError: a video where a picture belongs, or the reverse.
    """
    refuse_other_files(files, FILE_FIELDS)
    uploads: dict[str, SubmittedFile] = {}
    urls: dict[str, tuple[SourceField, str]] = {}
    kinds: dict[str, frozenset[MediaKind]] = {}
    for role, (missing_field, sentence) in MISSING.items():
        given = [source for source in SOURCES if source.role == role and _is_given(source, fields, files)]
        if not given:
            raise InvalidInputError(sentence, field=missing_field)
        if len(given) > 1:
            names = " and ".join(source.name for source in given)
            raise InvalidInputError(f"{names} were given; give exactly one of them.", field=given[1].name)
        source = given[0]
        kinds[role] = source.kinds
        if source.is_url:
            urls[role] = (source, fields[source.name].strip())
        else:
            uploads[role] = _upload(source, files)
    return SwapRequest(
        files=uploads,
        urls=urls,
        kinds=kinds,
        output_name=fields.get("output_name") or None,
        wants_id_only=_truth(fields.get("return_prompt_id_only", ""), "return_prompt_id_only"),
        webhook_url=fields.get(WEBHOOK, "").strip() or None,
        deliver_to=read_destination(fields.get(DELIVERY, "").strip() or None, DELIVERY),
        consent=by_field(fields.get(CONSENT)),
    )


def _is_given(source: SourceField, fields: Mapping[str, str], files: Mapping[str, ReceivedFile]) -> bool:
    # A browser's form sends the fields that were left empty, too.
    return source.name in files or bool(fields.get(source.name, "").strip())


def _upload(source: SourceField, files: Mapping[str, ReceivedFile]) -> SubmittedFile:
    file = files.get(source.name)
    if file is None:
        raise InvalidInputError(
            f"The field {source.name!r} must be a file; a URL goes into {source.name}_url.", field=source.name
        )
    hint = "Send it as 'video'." if source.name == "target_image" else ""
    return submitted_file(source.name, file, source.kinds, hint=hint)


def _truth(text: str, name: str) -> bool:
    if not text.strip():
        return False
    value = TRUTH.get(text.strip().lower())
    if value is None:
        raise InvalidInputError(f"{name} must be one of true, false, 1, 0, yes, no, on, off.", field=name)
    return value


def submission(wanted: SwapRequest, inputs: Mapping[str, SubmittedFile], caller: Caller) -> Submission:
    """What the engine is asked for, once every input lies in the store."""
    extra = {WEBHOOK: wanted.webhook_url, DELIVERY: wanted.wish}
    return Submission(
        owner=caller.owner,
        submitter=caller.submitter,
        dialect=NAME,
        inputs=inputs,
        accepts=wanted.kinds,
        output_name=wanted.output_name,
        extra={name: value for name, value in extra.items() if value is not None},
        consent=wanted.consent,
    )


# ---------------------------------------------------------------------------------------------------------- job -> body


def accepted_body(job: Job, prefix: str) -> dict[str, object]:
    """The answer of ``return_prompt_id_only``. Args: prefix: path before every link, "" mostly."""
    return {
        "prompt_id": job.id,
        "status": STATE_WORDS[JobState.QUEUED],
        "message": ACCEPTED_MESSAGE,
        "status_url": f"{prefix}/status/{job.id}",
        "output_prefix": job.output_name,
    }


def status_body(
    job: Job, snapshot: Progress | None, position: int | None, prefix: str, delivered: Sequence[Delivery] = ()
) -> dict[str, object]:
    """The answer of ``/status``.

    Args:
        job: of any dialect.
        snapshot: the newest one, while it is at work.
        position: jobs ahead of it in the queue.
        prefix: as above.
        delivered: its deliveries.
    """
    return {
        "prompt_id": job.id,
        "status": STATE_WORDS[job.state],
        "progress": {"percentage": _status_percentage(job, snapshot), "step": _step(job, snapshot, position)},
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(job.updated_at),
        "result": f"{prefix}/download/{job.results[0].link}" if job.results else None,
        "error": _error_sentence(job),
        "code": CANCELED_CODE if job.state is JobState.CANCELED else job.error_code,
        "engine": job.engine,
        "warnings": list(job.warnings),
        **delivery_members(job, delivered),
    }


def ended_body(job: Job, base: str, kept_seconds: float) -> dict[str, object]:
    """The answer of ``/status`` about a job that has ended, for webhooks. Args: base: what links begin with."""
    del kept_seconds
    return status_body(job, None, None, base)


def _status_percentage(job: Job, snapshot: Progress | None) -> float:
    value = percentage_of(job, snapshot)
    return int(value) if value == int(value) else value


def _step(job: Job, snapshot: Progress | None, position: int | None) -> str:
    match job.state:
        case JobState.QUEUED:
            return f"Waiting in the queue, {position} ahead" if position else "Waiting in the queue"
        case JobState.DISPATCHED | JobState.RUNNING | JobState.FINISHING:
            if snapshot is not None and snapshot.node_class is not None:
                return f"Executing: {snapshot.node_class}"
            return snapshot.message if snapshot is not None else job.step or "Starting"
        case JobState.SUCCEEDED:
            return f"{_noun(job)} completed successfully"
        case JobState.FAILED:
            return f"{_noun(job)} failed"
        case JobState.CANCELED:
            return CANCELED_MESSAGE
        case _:
            assert_never(job.state)


def _error_sentence(job: Job) -> str | None:
    if job.state is JobState.CANCELED:
        return CANCELED_MESSAGE
    return job.error_message or f"The {_noun(job).lower()} failed." if job.state is JobState.FAILED else None


def _noun(job: Job) -> str:
    """What it is called: jobs of every dialect are asked for here, clients' own workflows too."""
    return "Face swap" if job.task == FACE_SWAP else "Job"


# ------------------------------------------------------------------------------------------------------ event -> frames


def frames(item: Event | Progress, job: Job, previous: Progress | None, prefix: str = "") -> tuple[Frame, ...]:
    """What a client is told: nothing, one frame, or ``executing`` before ``progress`` when the node changed.

    Args:
        item: what happened.
        job: as it was when the stream began; only what never changes is read.
        previous: the snapshot that this client was shown before.
        prefix: path before every link.
    """
    if isinstance(item, Progress):
        shown = _progress_frame(job, item.fraction, item.eta_seconds)
        is_new_node = item.node is not None and (previous is None or previous.node != item.node)
        return (_executing_frame(item), shown) if is_new_node else (shown,)
    told: tuple[Frame, ...] = ()
    match item.kind:
        case EventKind.QUEUED:
            told = (_queued_frame(item, job, prefix),)
        case EventKind.REQUEUED:
            told = _requeued_frames(item, job, previous)
        case EventKind.SUCCEEDED:
            told = (_progress_frame(job, 1.0, None), _completed_frame(item, job, prefix))
        case EventKind.FAILED:
            told = (_error_frame(str(item.data.get("message", "")), str(item.data.get("code", "")), item.number),)
        case EventKind.CANCELED:
            told = (canceled_frame(item.number),)
        case EventKind.UPLOADED | EventKind.UPLOAD_FAILED:
            told = (_upload_frame(item),)
        case _:
            # dispatched, started, finishing, warning, cancel_requested: the document has no word for them.
            pass
    return told


def _requeued_frames(event: Event, job: Job, previous: Progress | None) -> tuple[Frame, ...]:
    """The bar stands where it stood, and the sentence says why."""
    if previous is None:
        return ()
    waiting = _progress_frame(job, previous.fraction, None)
    return (Frame("progress", {**waiting.data, "message": str(event.data.get("message", ""))}),)


def _queued_frame(event: Event, job: Job, prefix: str) -> Frame:
    data: dict[str, object] = {
        "prompt_id": event.job_id,
        "message": QUEUED_MESSAGE if job.task == FACE_SWAP else "Job queued successfully!",
        "status_url": f"{prefix}/status/{event.job_id}",
        "events_url": f"{prefix}/events/{event.job_id}",
    }
    return Frame("queued", data, event.number)


def _executing_frame(snapshot: Progress) -> Frame:
    return Frame(
        "executing",
        {
            "node": snapshot.node,
            "title": snapshot.node_title,
            "class_type": snapshot.node_class,
            "message": snapshot.message,
        },
    )


def _progress_frame(job: Job, fraction: float, eta_seconds: float | None) -> Frame:
    target = job.inputs.get("target")
    total = max(1, target.facts.frames) if target is not None else 1
    shown = percentage(fraction)
    data: dict[str, object] = {
        "percentage": shown,
        "current": math.floor(min(max(fraction, 0.0), 1.0) * total),
        "total": total,
        "message": f"{_noun(job)} progress: {shown:.2f}%",
    }
    if eta_seconds is not None and math.isfinite(eta_seconds):
        data["eta_seconds"] = round(eta_seconds, 1)
    return Frame("progress", data)


def _completed_frame(event: Event, job: Job, prefix: str) -> Frame:
    filename = _first_link(event)
    warnings = event.data.get("warnings")
    data: dict[str, object] = {
        "message": COMPLETED_MESSAGE if job.task == FACE_SWAP else "🎉 Job completed successfully!",
        "filename": filename,
        "download_url": f"{prefix}/download/{filename}",
        "prompt_id": event.job_id,
        "output_prefix": job.output_name,
        "engine": event.data.get("engine"),
        "warnings": list(warnings) if isinstance(warnings, list | tuple) else [],
    }
    return Frame("completed", data, event.number)


def _upload_frame(event: Event) -> Frame:
    """What became of a delivery, after the end."""
    names = ("delivery", "asset_id", "name", "target", "place")
    more = ("reason", "status") if event.kind is EventKind.UPLOAD_FAILED else ()
    told = {name: event.data.get(name) for name in (*names, *more)}
    return Frame(event.kind.value, {"prompt_id": event.job_id, **told}, event.number)


def _first_link(event: Event) -> str:
    results = event.data.get("results")
    if isinstance(results, list | tuple) and results and isinstance(results[0], Mapping):
        return str(results[0].get("link", ""))
    return ""


def canceled_frame(number: int | None = None) -> Frame:
    """How a canceled job ends."""
    return _error_frame(CANCELED_MESSAGE, CANCELED_CODE, number)


def error_frame(error: GatewayError) -> Frame:
    """An error that belongs to no durable event: the job was never stored."""
    return _error_frame(error.message, error.code, None)


def _error_frame(detail: str, code: str, number: int | None) -> Frame:
    return Frame("error", {"detail": detail, "code": code}, number)


# -------------------------------------------------------------------------------------------------------- error -> body


def error_body(error: GatewayError, request_id: str) -> Mapping[str, object]:
    """The envelope of every HTTP error; the request's id is in a header."""
    del request_id
    return {"detail": error.message, "code": error.code, "field": error.field}

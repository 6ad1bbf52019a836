"""What the dialect ``faceswap`` is, for the OpenAPI document: made of the tables that ``translation`` reads by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from gateway.api.dialects.faceswap import translation
from gateway.api.dialects.faceswap.handlers import description as root_body
from gateway.api.dialects.faceswap.translation import SOURCES, TRUTH
from gateway.api.openapi import samples
from gateway.api.openapi.agreement import IN_FORM, IN_HEADER, IN_JSON
from gateway.api.openapi.files import FILE_ANSWERS, FILE_PARAMETERS, types_of
from gateway.api.openapi.shapes import DeliveryShown, HealthAnswer, Readiness, UploadedEvent, UploadFailedEvent
from gateway.api.openapi.streams import LAST_EVENT_ID, PREVIEWS, Preview, event_answers, stream
from gateway.api.openapi.vocabulary import (
    BYTES,
    EVENT_STREAM,
    FORM,
    JSON,
    MULTIPART,
    Answer,
    Body,
    Content,
    Description,
    JobId,
    Model,
    Moment,
    Operation,
    Parameter,
    Schema,
    World,
    json_answer,
    nullable,
    opened,
)
from gateway.consent import FIELD as CONSENT
from gateway.delivering import FIELD as DELIVERY
from gateway.errors import ConsentRequiredError, NotFoundError, SourceUnreachableError, StorageUnreachableError
from gateway.outbox import FIELD as WEBHOOK

# ------------------------------------------------------------------------------------------------------------- answers


class FaceswapProgress(Model):
    """How far a job is."""

    percentage: float
    """Of the whole job; 100 only when it has succeeded."""
    step: str


class FaceswapStatus(Model):
    """Where a job is."""

    prompt_id: JobId
    status: Literal["QUEUED", "PROCESSING", "SUCCESS", "FAILED"]
    progress: FaceswapProgress
    created_at: Moment
    updated_at: Moment
    result: str | None
    """Where the file is, once there is one."""
    error: str | None
    code: str | None
    """Of the error: see the codes of failed jobs."""
    engine: str | None
    """`comfyui`, or `preview` for the built-in CPU worker; null until an upstream took it."""
    warnings: list[str]
    deliver_to: str | list[str] | None = None
    """Where its file goes, if anywhere: a target's name, or the host and path of a URL."""
    deliveries: list[DeliveryShown] | None = None
    """One for each output, once it has succeeded."""


class FaceswapAccepted(Model):
    """A job was made."""

    prompt_id: JobId
    status: Literal["QUEUED"]
    message: str
    status_url: str
    output_prefix: str


class FaceswapQueued(Model):
    """The first event."""

    prompt_id: JobId
    message: str
    status_url: str
    events_url: str


class FaceswapExecuting(Model):
    """Another node is at work."""

    node: str | None
    title: str | None
    class_type: str | None
    message: str


class FaceswapTick(Model):
    """How far the whole job is."""

    percentage: float
    current: int
    total: int
    message: str
    eta_seconds: float | None = None


class FaceswapCompleted(Model):
    """The end: there is a file."""

    message: str
    filename: str
    download_url: str
    prompt_id: JobId
    output_prefix: str
    engine: str | None
    warnings: list[str]


class FaceswapUploaded(UploadedEvent):
    """After the end: the file is where it was to be put."""

    prompt_id: JobId


class FaceswapUploadFailed(UploadFailedEvent):
    """After the end: that was given up. The file can be downloaded as ever."""

    prompt_id: JobId


class FaceswapFailure(Model):
    """The end: there is none."""

    detail: str
    code: str


class FaceswapError(Model):
    """An error over HTTP."""

    detail: str
    """A sentence for people."""
    code: str
    """A word for programs."""
    field: str | None
    """The field at fault."""


class FaceswapRoot(Model):
    """What there is, for programs."""

    name: str
    description: str
    endpoints: dict[str, str]
    fields: dict[str, str]
    usage: list[str]


STREAM: Final[Mapping[str, type[Model]]] = {
    "queued": FaceswapQueued,
    "executing": FaceswapExecuting,
    "progress": FaceswapTick,
    "completed": FaceswapCompleted,
    "error": FaceswapFailure,
    "uploaded": FaceswapUploaded,
    "upload_failed": FaceswapUploadFailed,
    "preview": Preview,
}
_STATUS_EXAMPLES: Final = {
    "queued": translation.status_body(samples.QUEUED, None, 2, ""),
    "running": translation.status_body(samples.RUNNING, samples.PROGRESS, None, ""),
    "succeeded": translation.status_body(samples.SUCCEEDED, None, None, ""),
    "failed": translation.status_body(samples.FAILED, None, None, ""),
    "canceled": translation.status_body(samples.CANCELED, None, None, ""),
}

# ------------------------------------------------------------------------------------------------------------- requests


def _texts() -> dict[str, Schema]:
    """What is no file: URLs, and what the three other fields take."""
    urls = {
        source.name: {
            "type": "string",
            "format": "uri",
            "description": f"A URL instead of a file in `{source.name.removesuffix('_url')}`.",
        }
        for source in SOURCES
        if source.is_url
    }
    return {
        **urls,
        "output_name": {"type": "string", "description": "What the result is to be called; a random part is added."},
        WEBHOOK: {"type": "string", "format": "uri", "description": "Called when the job has ended."},
        DELIVERY: {
            "type": "string",
            "description": "Where the result is put: an https URL that takes a PUT, or the name of a target of the operator's.",
        },
        CONSENT: IN_FORM,
        "return_prompt_id_only": {
            "type": "string",
            "enum": list(TRUTH),
            "description": "Answer at once with a prompt_id instead of a stream.",
        },
    }


def _files() -> dict[str, Schema]:
    return {
        source.name: {**BYTES, "description": f"The {source.role}: {' or '.join(sorted(source.kinds))}."}
        for source in SOURCES
        if not source.is_url
    }


def _one_of_each_role(properties: dict[str, Schema]) -> dict[str, Any]:
    """Exactly one source for the target and one for the face."""
    roles = [
        {
            "oneOf": [
                {"required": [source.name]} for source in SOURCES if source.role == role and source.name in properties
            ]
        }
        for role in translation.MISSING
    ]
    return {**opened(properties), "allOf": roles}


def _body() -> Body:
    by_url = {"video_url": "https://media.example.org/clip.mp4", "image_url": "https://media.example.org/face.jpg"}
    texts = _texts()
    json_texts = {
        # A flat object is read as a form: null is a field that is not there, true is "true".
        **{name: nullable(schema) for name, schema in texts.items()},
        "return_prompt_id_only": {"enum": [*TRUTH, True, False, None]},
        CONSENT: IN_JSON,
    }
    with_files = Content(
        _one_of_each_role({**_files(), **texts}),
        {"video": {"video": "(bytes of an MP4)", "image": "(bytes of a JPEG)", "output_name": "holiday"}},
        file_types={source.name: types_of(source.kinds) for source in SOURCES if not source.is_url},
    )
    return Body(
        {
            MULTIPART: with_files,
            FORM: Content(_one_of_each_role(texts), {"by URL": by_url}),
            JSON: Content(
                _one_of_each_role(json_texts), {"by URL": by_url, "id only": {**by_url, "return_prompt_id_only": True}}
            ),
        },
        "Exactly one source for the target and one for the face. Other text fields are let pass, other files refused.",
    )


# ----------------------------------------------------------------------------------------------------------- operations


def describe(world: World) -> Description:
    """The dialect."""
    del world
    return Description(
        tag=translation.NAME,
        help="A photo and a video (or a picture) in, the swapped one out: as a stream of events, or by asking for the status.",
        operations={**_of_pages(), **_of_jobs()},
        envelope=FaceswapError,
        code_at=("code",),
        told_outside=FaceswapStatus,
    )


def _of_jobs() -> dict[str, Operation]:
    prompt_id = Parameter(
        "prompt_id", "As it was answered.", {"type": "string", "format": "uuid"}, "path", samples.JOB_ID
    )
    accepted = Content(FaceswapAccepted, {"accepted": translation.accepted_body(samples.QUEUED, "")})
    return {
        "POST /face-swap": Operation(
            id="faceswap_submit",
            summary="Swap a face",
            help="Answers with Server-Sent Events, or with a prompt_id where return_prompt_id_only is true. URLs are judged "
            "before the stream begins and fetched inside it.",
            parameters=(PREVIEWS, IN_HEADER),
            body=_body(),
            answers=(
                Answer(
                    200,
                    "The job's events, or that it was made.",
                    {EVENT_STREAM: stream(STREAM), JSON: accepted},
                ),
            ),
            raises=(SourceUnreachableError, ConsentRequiredError),
            is_create=True,
        ),
        "GET /status/{prompt_id}": Operation(
            id="faceswap_status",
            summary="Where a job is",
            parameters=(prompt_id,),
            answers=(json_answer(200, "The job.", FaceswapStatus, _STATUS_EXAMPLES),),
            raises=(NotFoundError,),
        ),
        "GET /events/{prompt_id}": Operation(
            id="faceswap_events",
            summary="A job's events, from the beginning or after Last-Event-ID",
            parameters=(prompt_id, *LAST_EVENT_ID, PREVIEWS),
            answers=event_answers(STREAM),
            raises=(NotFoundError,),
        ),
        "WS /face-swap-ws": Operation(
            id="faceswap_socket",
            summary="Submit by URL, or attach to a job, and watch it",
            help="A WebSocket. The first message, within 10 s, is an object with the URL fields of `POST /face-swap`, or "
            '`{"prompt_id": "…"}`; later `{"cancel": true}` is understood. What comes back is `{"event", "data"}` with the '
            "events of the stream; `queued`, `completed` and `error` carry `type` and their fields flat as well.",
            parameters=(PREVIEWS, IN_HEADER),
            answers=(Answer(101, "The socket is open."),),
        ),
        "GET /download/{filename}": Operation(
            id="faceswap_download",
            summary="A finished file",
            help="To whoever knows its name, which carries 128 random bits, until the retention ends.",
            parameters=(
                Parameter("filename", "As a job told it.", where="path", example=samples.LINK),
                *FILE_PARAMETERS,
            ),
            answers=FILE_ANSWERS,
            raises=(NotFoundError, StorageUnreachableError),
        ),
    }


def _of_pages() -> dict[str, Operation]:
    ready = {"ready": {"ready": True}}
    return {
        "GET /": Operation(
            id="faceswap_root",
            summary="The page for browsers, a description for programs",
            answers=(
                Answer(
                    200,
                    "HTML where `Accept` names it.",
                    {JSON: Content(FaceswapRoot, {"root": root_body("")}), "text/html": Content({"type": "string"})},
                ),
            ),
        ),
        "GET /health": Operation(
            id="faceswap_health",
            summary="How the gateway and its upstreams are",
            help="In keys mode a caller without a key is told the status alone.",
            answers=(
                Answer(
                    200,
                    "From memory; no upstream is asked.",
                    {JSON: Content(HealthAnswer, {"word": {"status": "healthy"}})},
                ),
            ),
        ),
        "GET /health/ready": Operation(
            id="faceswap_ready",
            summary="503 when nothing can run",
            answers=(
                json_answer(200, "Something can run.", Readiness, ready),
                json_answer(503, "Nothing can run, or the gateway stops.", Readiness, {"not ready": {"ready": False}}),
            ),
        ),
    }

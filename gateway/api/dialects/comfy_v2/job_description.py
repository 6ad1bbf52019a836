"""What ``comfy_v2`` does with jobs, for the OpenAPI document: made of the rules that ``job_reading`` reads by."""

from __future__ import annotations

from typing import Any, Final, Literal

from gateway.api.dialects.comfy_v2 import job_bodies, job_reading
from gateway.api.dialects.comfy_v2.asset_description import IDEMPOTENCY
from gateway.api.dialects.comfy_v2.job_refusals import NotReadyError, QueueFullHereError
from gateway.api.openapi import samples
from gateway.api.openapi.agreement import IN_HEADER, IN_JSON
from gateway.api.openapi.shapes import DeliveryShown
from gateway.api.openapi.streams import LAST_EVENT_ID, event_answers
from gateway.api.openapi.vocabulary import (
    JSON,
    Answer,
    Body,
    Content,
    JobId,
    Model,
    Moment,
    Operation,
    Parameter,
    Schema,
    closed,
    json_answer,
    nullable,
    opened,
)
from gateway.consent import FIELD as CONSENT
from gateway.delivering import FIELD as DELIVERY
from gateway.delivering import MAX_URLS
from gateway.errors import (
    ApiDisabledError,
    ConcurrencyLimitedError,
    ConsentRequiredError,
    GatewayError,
    IdempotencyReuseError,
    InsufficientCreditsError,
    MissingAssetError,
    NotFoundError,
    TemplateError,
    UnsafeContentError,
    WorkflowError,
    WorkflowFormatError,
)
from gateway.outbox import FIELD as WEBHOOK

Word = Literal["queued", "running", "canceling", "succeeded", "failed", "expired", "canceled"]


class ComfyProgress(Model):
    """How far a job is."""

    value: float
    """0 to 1, of the whole job."""
    nodes_done: int
    nodes_total: int
    current_node: str | None
    current_node_class: str | None
    step: int | None
    steps: int | None
    message: str | None


class ComfyOutput(Model):
    """A file that a job made."""

    node_id: str
    name: str
    type: Literal["image", "video", "audio", "text", "latent", "file"]
    content_type: str
    size_bytes: int
    id: str
    """Of the asset."""
    hash: str
    url: str
    """Opens its bytes without a key, until `url_expires_at`."""
    url_expires_at: Moment
    job_id: JobId


class ComfyJobError(Model):
    """Why a job failed."""

    code: str
    message: str
    node_id: str | None
    class_type: str | None
    traceback: None


class ComfyMetrics(Model):
    """How long it took."""

    queue_ms: int | None
    execution_ms: int | None


class ComfyUrls(Model):
    """Where to ask on."""

    self: str
    events: str
    cancel: str


class ComfyGateway(Model):
    """What the published contract has no place for."""

    priority: int
    metadata: str | dict[str, Any] | None
    """Flat, unless the job came in by a dialect that takes more."""
    webhook_url: str | None
    template: str
    engine: str | None
    warnings: list[str]
    deliver_to: str | list[str] | None = None
    """Where its files go, if anywhere: a target's name, or the hosts and paths of URLs."""
    deliveries: list[DeliveryShown] | None = None
    """One for each output, once it has succeeded."""


class ComfyJob(Model):
    """A job of any dialect."""

    id: JobId
    status: Word
    created_at: Moment
    started_at: Moment | None
    completed_at: Moment | None
    expires_at: Moment
    queue_position: int | None
    """From 1, while it waits."""
    progress: ComfyProgress | None
    outputs: list[ComfyOutput]
    error: ComfyJobError | None
    metrics: ComfyMetrics
    urls: ComfyUrls
    gateway: ComfyGateway
    metadata: Any = None
    """As in `gateway`, where there is some."""
    priority: int | None = None
    """As in `gateway`, where it is not 0."""


class ComfyListedJob(ComfyJob):
    """A job in a list, with its times under the names that the official client looks for as well."""

    create_time: Moment
    update_time: Moment


class ComfyJobs(Model):
    """A page of jobs, newest first."""

    jobs: list[ComfyListedJob]
    truncated: bool
    """The looking stopped before the page was full."""
    next_cursor: JobId | None = None
    """Of the next page; absent on the last."""


class ComfyWorkflow(Model):
    """The graph of a job, without anything secret."""

    workflow: dict[str, Any]
    format: Literal["api"]


class ComfyStatusEvent(Model):
    """Where a job is by now."""

    status: Word
    queue_position: int | None


class ComfyPreview(Model):
    """A picture of the work."""

    node_id: str
    content_type: Literal["image/jpeg"]
    data_base64: str


class ComfyHealth(Model):
    """How the gateway is; the numbers for whoever may see jobs."""

    status: Literal["healthy", "degraded", "unavailable"]
    upstreams: int | None = None
    available: int | None = None


EVENTS: Final[dict[str, type[Model]]] = {
    "status": ComfyStatusEvent,
    "progress": ComfyProgress,
    "preview": ComfyPreview,
    "output": ComfyOutput,
}
#: What a create may end with beside what is wrong with its body.
CREATING: Final[tuple[type[GatewayError], ...]] = (
    ApiDisabledError,
    ConcurrencyLimitedError,
    ConsentRequiredError,
    IdempotencyReuseError,
    InsufficientCreditsError,
    MissingAssetError,
    NotReadyError,
    QueueFullHereError,
    TemplateError,
    UnsafeContentError,
    WorkflowError,
)
_ID: Final = Parameter("id", "Of the job.", {"type": "string", "format": "uuid"}, "path", samples.JOB_ID)
_BASE: Final = "https://faces.example.org"
_KEPT_SECONDS: Final = 86_400.0
_GRAPH: Final = {
    "1": {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": {"id": samples.JOB_ID}}}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}},
}


def examples() -> dict[str, Any]:
    """Jobs, by what became of them."""
    links = job_bodies.Links(
        _BASE, lambda _, result: (f"{_BASE}/download/{result.link}", samples.CREATED_AT + _KEPT_SECONDS), _KEPT_SECONDS
    )
    return {
        "queued": job_bodies.job_body(samples.QUEUED, links, snapshot=None, position=2),
        "running": job_bodies.job_body(samples.RUNNING, links, snapshot=samples.PROGRESS, position=None),
        "succeeded": job_bodies.job_body(samples.SUCCEEDED, links, snapshot=None, position=None),
        "failed": job_bodies.job_body(samples.FAILED, links, snapshot=None, position=None),
    }


def wishes() -> dict[str, Schema]:
    """What goes with any job, whatever it runs."""
    integer: Schema = {
        "type": "integer",
        "minimum": job_reading.PRIORITIES.start,
        "maximum": job_reading.PRIORITIES.stop - 1,
        "description": "Higher runs earlier among the caller's own jobs.",
    }
    label: Schema = {"type": ["string", "number", "boolean", "null"]}
    labels: Schema = {"type": "object", "maxProperties": job_reading.MAX_LABELS, "additionalProperties": label}
    text: Schema = {"type": "string", "maxLength": job_reading.MAX_METADATA_BYTES}
    metadata: Schema = {
        "anyOf": [text, labels, {"type": "null"}],
        "description": "Given back, and to be looked for by.",
    }
    url: Schema = {"type": "string", "format": "uri", "description": "Called when the job has ended."}
    urls: Schema = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_URLS}
    destination: Schema = {
        "anyOf": [{"type": "string"}, urls, {"type": "null"}],
        "description": "Where the outputs are put: a target of the operator's by its name, an https URL that takes a PUT, or "
        "one for each output in their order.",
    }
    known = {"priority": nullable(integer), "metadata": metadata, WEBHOOK: nullable(url), DELIVERY: destination}
    ours = closed(known)
    return {"gateway": nullable(ours), "priority": nullable(integer), "metadata": metadata, CONSENT: IN_JSON}


def operations() -> dict[str, Operation]:
    """All of them."""
    return {**_create(), **_look(), **_follow()}


def created(says: str) -> Answer:
    """A job was made."""
    return Answer(
        201, says, {JSON: Content(ComfyJob, {"queued": examples()["queued"]})}, {"Location": "Path of the job."}
    )


def _create() -> dict[str, Operation]:
    secret: Schema = {"type": "string", "maxLength": job_reading.MAX_SECRET_CHARACTERS}
    node = opened({"class_type": {"type": "string"}, "inputs": {"type": "object"}}, ("class_type", "inputs"))
    members: dict[str, Schema] = {
        "workflow": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": node,
            "description": "A graph in API format: each node by its id.",
        },
        "extra_data": nullable(closed({job_reading.SECRET: secret})),
        **wishes(),
        # Reserved by the published contract.
        **{name: {"type": "null"} for name in job_reading.RESERVED},
    }
    labeled = {"workflow": _GRAPH, "gateway": {"priority": 5, "metadata": {"order": 42}}}
    return {
        "POST /api/v2/jobs": Operation(
            id="v2_create_job",
            summary="Run a workflow",
            help="What is wrong with the body is 422 `invalid_workflow`, what is a matter of time 429 with Retry-After.",
            parameters=(IDEMPOTENCY, IN_HEADER),
            body=Body(
                {JSON: Content(opened(members, ("workflow",)), {"plain": {"workflow": _GRAPH}, "labeled": labeled})}
            ),
            answers=(created("The job is stored."),),
            raises=(*CREATING, WorkflowFormatError),
        )
    }


def _look() -> dict[str, Operation]:
    shown = examples()
    listed = {**shown["succeeded"], "create_time": shown["succeeded"]["created_at"]}
    listed["update_time"] = shown["succeeded"]["completed_at"]
    limit: Schema = {
        "type": "integer",
        "minimum": 1,
        "maximum": job_reading.MAX_LIMIT,
        "default": job_reading.DEFAULT_LIMIT,
    }
    return {
        "GET /api/v2/jobs": Operation(
            id="v2_list_jobs",
            summary="The caller's jobs of all dialects, newest first",
            help="`metadata[NAME]=VALUE` in the query asks for jobs with this label.",
            parameters=(
                Parameter("status", f"Some of {', '.join(job_bodies.STATES_OF)}, with commas between them."),
                Parameter("limit", "How many at most.", limit),
                Parameter("cursor", "`next_cursor` of an earlier page."),
            ),
            answers=(json_answer(200, "A page.", ComfyJobs, {"page": {"jobs": [listed], "truncated": False}}),),
        ),
        "GET /api/v2/jobs/{id}": Operation(
            id="v2_get_job",
            summary="A job",
            parameters=(_ID,),
            answers=(json_answer(200, "The job.", ComfyJob, shown),),
            raises=(NotFoundError,),
        ),
        "GET /api/v2/jobs/{id}/workflow": Operation(
            id="v2_get_workflow",
            summary="The graph of a job, as it was sent",
            parameters=(_ID,),
            answers=(json_answer(200, "The graph.", ComfyWorkflow, {"graph": {"workflow": _GRAPH, "format": "api"}}),),
            raises=(NotFoundError, TemplateError),
        ),
    }


def _follow() -> dict[str, Operation]:
    return {
        "GET /api/v2/jobs/{id}/events": Operation(
            id="v2_job_events",
            summary="A job as it goes on",
            help="Whoever connects is told first how the job is now, and before its terminal status of every output.",
            parameters=(_ID, *LAST_EVENT_ID),
            answers=event_answers(EVENTS),
            raises=(NotFoundError,),
        ),
        "POST /api/v2/jobs/{id}/cancel": Operation(
            id="v2_cancel_job",
            summary="Cancel a job",
            help="Always 200, with the job as it is then. The body is not read.",
            parameters=(_ID,),
            answers=(json_answer(200, "The job.", ComfyJob, examples()),),
            raises=(NotFoundError,),
        ),
        "GET /api/v2/health": Operation(
            id="v2_health",
            summary="How the gateway is",
            answers=(
                json_answer(
                    200,
                    "From memory; no upstream is asked.",
                    ComfyHealth,
                    {"word": {"status": "healthy"}, "numbers": {"status": "healthy", "upstreams": 2, "available": 2}},
                ),
            ),
        ),
    }

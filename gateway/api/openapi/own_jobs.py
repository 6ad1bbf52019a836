"""Our own routes about jobs, described: ``/-/jobs``, tickets, purge, backup."""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict

from gateway.api import ops, tickets
from gateway.api.openapi import samples
from gateway.api.openapi.shapes import DeliveryShown
from gateway.api.openapi.streams import LAST_EVENT_ID, PREVIEWS, Preview, event_answers
from gateway.api.openapi.vocabulary import (
    BYTES,
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
from gateway.errors import BusyError, ConflictError, InvalidInputError, NotFoundError, StorageFullError
from gateway.events import EventKind
from gateway.job import JobState

TAG: Final = "jobs"


class File(Model):
    """A file that a job was given."""

    content_type: str
    size_bytes: int


class ResultFile(File):
    """A file that a job made."""

    link: str
    """Its name: whoever knows it may have the file."""
    url: str


class JobFailure(Model):
    """Why a job failed."""

    code: str
    message: str | None


class Job(Model):
    """A job of any dialect, in our own words."""

    id: JobId
    state: JobState
    cancel_requested: bool
    dialect: str
    """The API it came in by."""
    task: str
    template: str
    template_version: str
    fraction: float
    """0 to 1, of the whole job."""
    step: str
    output_name: str
    inputs: dict[str, File]
    """By role."""
    results: list[ResultFile]
    error: JobFailure | None
    warnings: list[str]
    engine: str | None
    upstream: str | None
    created_at: Moment
    updated_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    last_event: int
    """Number of its newest durable event."""
    deliver_to: str | list[str] | None = None
    """Where its files go, if anywhere: a target's name, or the hosts and paths of URLs."""
    deliveries: list[DeliveryShown] | None = None
    """One for each output, once it has succeeded."""


class UpstreamVerdict(Model):
    """Why an upstream does not run a job now."""

    name: str
    fits: bool | None
    """Whether it could, sooner or later; null while it has not said what it can do."""
    reason: str


class Waiting(Model):
    """What a job waits for."""

    ahead_own: int | None
    ahead_others: int | None
    retry_in_seconds: float | None
    upstreams: list[UpstreamVerdict]


class LookedAt(Job):
    """A job, and while it is queued, why it waits."""

    queue_position: int | None = None
    expected_start_seconds: float | None = None
    waiting: Waiting | None = None


class JobPage(Model):
    """Jobs, newest first."""

    jobs: list[Job]
    next: JobId | None
    """Of the next page's `before`; null on the last."""


class OwnEvent(Model):
    """A durable event: its own data beside these."""

    model_config = ConfigDict(extra="allow")

    job_id: JobId
    at: Moment


class OwnProgress(Model):
    """How far a job is: a passing event, complete in itself."""

    job_id: JobId
    fraction: float
    message: str
    nodes_done: int
    nodes_total: int
    node: str | None
    node_title: str | None
    node_class: str | None
    step: int | None
    steps: int | None
    pass_number: int | None
    passes: int | None
    eta_seconds: float | None


class Ticket(Model):
    """What opens a stream or a WebSocket once."""

    ticket: str
    url: str
    expires_in_seconds: int


class Purged(Model):
    """What was forgotten."""

    jobs: int
    files: int
    deleted_files: int
    consents: int


EVENTS: Final[dict[str, type[Model]]] = {
    **{kind.value: OwnEvent for kind in EventKind},
    "progress": OwnProgress,
    "preview": Preview,
}
_PURGED: Final = {"purged": {"jobs": 1, "files": 3, "deleted_files": 3, "consents": 0}}
_ID: Final = Parameter("id", "Of the job, in whatever dialect it was told.", {"type": "string"}, "path", samples.JOB_ID)


def limit(most: int, default: int) -> Parameter:
    """``limit`` of a listing."""
    shape: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("limit", "How many at most.", shape)


def operations() -> dict[str, Operation]:
    """All of them."""
    return {**_jobs(), **_tickets(), **_keeping()}


def _jobs() -> dict[str, Operation]:
    examples = {
        "running": ops.job_body(samples.RUNNING, samples.PROGRESS, ""),
        "succeeded": ops.job_body(samples.SUCCEEDED, None, ""),
        "failed": ops.job_body(samples.FAILED, None, ""),
    }
    canceled = {"canceled": ops.job_body(samples.CANCELED, None, "")}
    states = {"type": "string", "description": f"Some of {', '.join(JobState)}, with commas between them."}
    return {
        "GET /-/jobs": Operation(
            id="list_jobs",
            tag=TAG,
            summary="The caller's jobs of every dialect, newest first",
            parameters=(
                Parameter("state", "Only jobs in these states.", states, example="queued,running"),
                Parameter("before", "`next` of an earlier page."),
                limit(ops.MAX_LIMIT, ops.DEFAULT_LIMIT),
            ),
            answers=(
                json_answer(
                    200, "A page.", JobPage, {"page": {"jobs": [examples["succeeded"]], "next": samples.JOB_ID}}
                ),
            ),
        ),
        "GET /-/jobs/{id}": Operation(
            id="get_job",
            tag=TAG,
            summary="A job, and while it waits, why",
            parameters=(_ID,),
            answers=(json_answer(200, "The job.", LookedAt, examples),),
            raises=(NotFoundError,),
        ),
        "DELETE /-/jobs/{id}": Operation(
            id="cancel_job",
            tag=TAG,
            summary="Cancel a job",
            parameters=(_ID,),
            answers=(
                json_answer(200, "It is canceled.", Job, canceled),
                json_answer(202, "Its upstream is being told.", Job, {"running": examples["running"]}),
            ),
            raises=(NotFoundError, ConflictError),
        ),
        "GET /-/jobs/{id}/events": Operation(
            id="job_events",
            tag=TAG,
            summary="Every durable event of a job as it is, and progress",
            parameters=(_ID, *LAST_EVENT_ID, PREVIEWS),
            answers=event_answers(EVENTS),
            raises=(NotFoundError,),
        ),
    }


def _tickets() -> dict[str, Operation]:
    return {
        "POST /-/tickets": Operation(
            id="make_ticket",
            tag=TAG,
            summary="What opens an event stream or a WebSocket once, for a browser",
            body=Body(
                {
                    JSON: Content(
                        opened(
                            {"path": {"type": "string", "description": "Of the stream, without a query."}}, ("path",)
                        ),
                        {"socket": {"path": "/face-swap-ws"}, "events": {"path": f"/events/{samples.JOB_ID}"}},
                    )
                }
            ),
            answers=(
                json_answer(
                    201,
                    "It opens that path once, within a minute.",
                    Ticket,
                    {
                        "ticket": {
                            "ticket": "k3J…",
                            "url": "/face-swap-ws?ticket=k3J…",
                            "expires_in_seconds": tickets.LIFE_SECONDS,
                        }
                    },
                ),
            ),
            raises=(InvalidInputError, BusyError),
        ),
    }


def _keeping() -> dict[str, Operation]:
    text = {"type": "string", "minLength": 1}
    consents = nullable({"type": "boolean", "default": False, "description": "Records of consent as well."})
    return {
        "POST /-/purge": Operation(
            id="purge",
            tag="operating",
            summary="Forget what has ended, rows and bytes, at once",
            body=Body(
                {
                    JSON: Content(
                        {"anyOf": [closed({name: text, "consents": consents}, (name,)) for name in ("job", "owner")]},
                        {"one job": {"job": samples.JOB_ID}, "an owner": {"owner": "local"}},
                    )
                }
            ),
            answers=(json_answer(200, "It is gone.", Purged, _PURGED),),
            raises=(NotFoundError, ConflictError),
        ),
        "GET /-/backup": Operation(
            id="backup",
            tag="operating",
            summary="A tar of the database and every file that it speaks of",
            help="It ends unfinished when it breaks: check that the tar is whole.",
            answers=(
                Answer(200, "The tar.", {"application/x-tar": Content(BYTES)}, {"Content-Disposition": "Its name."}),
            ),
            raises=(BusyError, StorageFullError),
        ),
    }

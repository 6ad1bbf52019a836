"""What the dialect ``swiftswap`` is, for the OpenAPI document: made of the tables that ``translation`` reads by."""

from __future__ import annotations

from typing import Any, Final, Literal

from gateway.api.dialects.swiftswap import translation
from gateway.api.dialects.swiftswap.translation import FACE, NAME_FIELDS, PICTURE, VIDEO, TargetField
from gateway.api.file_fields import STILL
from gateway.api.openapi import samples
from gateway.api.openapi.agreement import IN_FORM, IN_HEADER
from gateway.api.openapi.files import FILE_ANSWERS, FILE_PARAMETERS, types_of
from gateway.api.openapi.vocabulary import (
    BYTES,
    MULTIPART,
    Body,
    Content,
    Description,
    JobId,
    Model,
    Operation,
    Parameter,
    Schema,
    World,
    json_answer,
    opened,
)
from gateway.consent import FIELD as CONSENT
from gateway.errors import ConsentRequiredError, NotFoundError, StorageUnreachableError


class SwiftswapRunning(Model):
    """There is somebody who answers."""

    status: Literal["running"]


class SwiftswapAccepted(Model):
    """A task was made."""

    task_id: JobId


class SwiftswapStatus(Model):
    """Where a task is."""

    status: Literal["pending", "processing", "completed", "failed"]
    result: str | None
    """A sentence, once it has ended."""
    link: str | None = None
    """Where the file is; of a completed task only."""
    code: str | None = None
    """Of the reason; of a failed task only."""


class SwiftswapError(Model):
    """An error over HTTP."""

    detail: str
    """A sentence for people."""
    code: str
    """A word for programs."""
    field: str | None
    """The field at fault."""


_EXAMPLES: Final = {
    "pending": translation.status_body(samples.QUEUED, ""),
    "completed": translation.status_body(samples.SUCCEEDED, ""),
    "failed": translation.status_body(samples.FAILED, ""),
}


def describe(world: World) -> Description:
    """The dialect."""
    del world
    return Description(
        tag=translation.NAME,
        help="A photo and a picture or video as a form, a task to ask for until its file is there.",
        operations=_operations(),
        envelope=SwiftswapError,
        code_at=("code",),
    )


def _operations() -> dict[str, Operation]:
    name = Parameter("name", "As a task told it.", where="path", example=samples.LINK)
    task = Parameter("task_id", "As it was answered.", {"type": "string", "format": "uuid"}, "path", samples.JOB_ID)
    return {
        "GET /check_status": Operation(
            id="swiftswap_check",
            summary="Whether somebody answers",
            answers=(
                json_answer(200, "Somebody does.", SwiftswapRunning, {"running": dict(translation.RUNNING_BODY)}),
            ),
        ),
        "POST /swap_image/": _swap("swiftswap_image", "Put a face into a picture", PICTURE),
        "POST /swap_image": _swap("swiftswap_image_plain", "The same, without the slash", PICTURE),
        "POST /swap_video/": _swap("swiftswap_video", "Put a face into a video or GIF", VIDEO),
        "POST /swap_video": _swap("swiftswap_video_plain", "The same, without the slash", VIDEO),
        "GET /check_task_status/{task_id}": Operation(
            id="swiftswap_status",
            summary="Where a task is",
            parameters=(task,),
            answers=(json_answer(200, "The task.", SwiftswapStatus, _EXAMPLES),),
            raises=(NotFoundError,),
        ),
        "GET /static/{name}": Operation(
            id="swiftswap_file",
            summary="A finished file",
            parameters=(name, *FILE_PARAMETERS),
            answers=FILE_ANSWERS,
            raises=(NotFoundError, StorageUnreachableError),
        ),
    }


def _swap(name: str, summary: str, target: TargetField) -> Operation:
    made = json_answer(
        200, "The task is stored.", SwiftswapAccepted, {"made": translation.accepted_body(samples.QUEUED)}
    )
    return Operation(
        id=name,
        summary=summary,
        help="Other text fields are let pass, other files refused.",
        body=_body(target),
        answers=(made,),
        parameters=(IN_HEADER,),
        raises=(ConsentRequiredError,),
        is_create=True,
    )


def _body(target: TargetField) -> Body:
    kinds = {FACE: STILL, target.name: target.kinds}
    files: dict[str, Schema] = {
        name: {**BYTES, "description": f"A file: {' or '.join(sorted(of_it))}."} for name, of_it in kinds.items()
    }
    names: dict[str, Schema] = {
        name: {"type": "string", "description": "What the result is to be called; where both are given, alike."}
        for name in NAME_FIELDS
    }
    form: dict[str, Any] = opened({**files, **names, CONSENT: IN_FORM}, tuple(files))
    example = {**dict.fromkeys(files, "(bytes of a file)"), NAME_FIELDS[0]: "holiday"}
    types = {name: types_of(of_it) for name, of_it in kinds.items()}
    return Body({MULTIPART: Content(form, {"with a name": example}, file_types=types)})

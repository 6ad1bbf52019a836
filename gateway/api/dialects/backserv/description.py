"""What the dialect ``backserv`` is, for the OpenAPI document: made of its table of files and of what templates declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from gateway.api.dialects.backserv import translation
from gateway.api.dialects.backserv.translation import INPUTS, MAX_USER_ID, UNUSABLE, InputField
from gateway.api.facade import TaskParameter
from gateway.api.openapi import samples
from gateway.api.openapi.agreement import IN_HEADER, IN_JSON
from gateway.api.openapi.vocabulary import (
    JSON,
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
    closed,
    json_answer,
    nullable,
    opened,
)
from gateway.audit import MediaKind
from gateway.consent import FIELD as CONSENT
from gateway.errors import (
    CallerError,
    ConsentRequiredError,
    NotFoundError,
    SourceUnreachableError,
    TaskUnavailableError,
)
from gateway.manifest import ParameterType

# ------------------------------------------------------------------------------------------------------------- answers

Word = Literal["Queueing", "In Progress", "Completed", "System Error", "Cancelled"]


class BackservAccepted(Model):
    """A task was made."""

    ticket_id: JobId
    serv_name: str
    """The upstream that has it; `pool` until one has."""
    status: Literal["Queueing"]


class BackservTask(Model):
    """Where a task is."""

    status: Word
    result_info: str | None
    """URL of the first result."""
    error_info: str | None
    """A sentence."""
    started_at: Moment | None
    completed_at: Moment | None
    result_urls: list[str]
    serv_name: str
    task_type: str
    template: str
    progress: float
    """Percent of the whole task; 100 only with the result."""
    code: str | None
    warnings: list[str]
    queue_position: int | None = None
    """While it is queueing only."""


class BackservCancelled(Model):
    """It is cancelled."""

    status: Literal["Cancelled"]
    message: str


class BackservParameter(Model):
    """What a task takes."""

    name: str
    type: Literal["file", "string", "int", "float", "bool", "choice"]
    required: bool
    help: str | None = None
    kinds: list[MediaKind] | None = None
    """Of files that fit."""
    default: bool | int | float | str | None = None
    min: float | None = None
    max: float | None = None
    multiple_of: int | None = None
    unit: str | None = None
    choices: list[str] | None = None
    max_length: int | None = None


class BackservTaskType(Model):
    """What can be asked for."""

    task_type: str
    can_run: bool
    missing: list[str]
    """What keeps it from running."""
    task_params: list[BackservParameter]


class BackservTaskTypes(Model):
    """All that can be asked for."""

    task_types: list[BackservTaskType]


class BackservError(Model):
    """An error over HTTP."""

    error: str
    """A word for programs."""
    message: str
    """A sentence for people, which names the field at fault."""
    field: str | None
    missing: list[str] | None = None
    """What upstreams lack, where a task cannot run."""


# ------------------------------------------------------------------------------------------------------------- requests

_TYPES: Final[Mapping[ParameterType, str]] = {
    ParameterType.BOOL: "boolean",
    ParameterType.INT: "integer",
    ParameterType.FLOAT: "number",
    ParameterType.STRING: "string",
    ParameterType.CHOICE: "string",
}


def _input_schema(field: InputField) -> Schema:
    kinds = " or ".join(sorted(field.kinds))
    return {"type": "string", "minLength": 1, "description": f"{field.help} ({kinds}): an https URL or a data URI."}


def _parameter_schema(parameter: TaskParameter) -> Schema:
    limits: dict[str, object] = {
        "minimum": parameter.min,
        "maximum": parameter.max,
        "multipleOf": parameter.multiple_of,
        "maxLength": parameter.max_length,
        "default": parameter.default,
        "enum": [*parameter.choices, *([] if parameter.required else [None])] if parameter.choices else None,
    }
    says = parameter.help or ""
    schema: dict[str, object] = {
        "type": _TYPES[parameter.type],
        **{name: value for name, value in limits.items() if value is not None},
        "description": f"{says} ({parameter.unit})".strip() if parameter.unit else says,
    }
    if parameter.required:
        return schema
    # null says nothing, as leaving it out does
    return {**schema, "type": [schema["type"], "null"]}


def _task_schema(name: str, world: World) -> Schema:
    files: dict[str, Schema] = {field.name: _input_schema(field) for field in INPUTS[name]}
    own: dict[str, Schema] = {**files, "output_name": nullable({"type": "string"}), CONSENT: IN_JSON}
    required = tuple(files)
    known = None if world.tasks is None else next((task for task in world.tasks if task.name == name), None)
    if known is None:
        # Who may not know what templates declare is told of no limits.
        return _of_type(name, opened(own, required))
    declared = [parameter for parameter in known.parameters if parameter.name not in UNUSABLE]
    own |= {parameter.name: _parameter_schema(parameter) for parameter in declared}
    return _of_type(name, closed(own, (*required, *(parameter.name for parameter in declared if parameter.required))))


def _of_type(name: str, params: Schema) -> Schema:
    user: Schema = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_USER_ID,
        "description": "Printable; who shares fairly with whom. It opens nothing and hides nothing.",
    }
    members: dict[str, Schema] = {"task_type": {"const": name}, "task_params": params, "user_id": user}
    return {**opened(members, tuple(members)), "title": name}


def _body(world: World) -> Body:
    schema: dict[str, Any] = {"oneOf": [_task_schema(name, world) for name in INPUTS]}
    face_swap = {
        "task_type": "face_swap",
        "task_params": {
            "source_image": "https://media.example.org/face.jpg",
            "target_image": "https://media.example.org/clip.mp4",
            "output_name": "holiday",
        },
        "user_id": "user123",
    }
    upscale = {
        "task_type": "image_upscale",
        "task_params": {"image_url": "data:image/png;base64,iVBORw0KGgo="},
        "user_id": "user123",
    }
    return Body(
        {JSON: Content(schema, {"face swap": face_swap, "upscale by data URI": upscale})},
        "Read as JSON whatever its type says. Files are https URLs or data URIs. `GET /task_types` lists the parameters "
        "of this gateway.",
    )


# ----------------------------------------------------------------------------------------------------------- operations

_BASE: Final = "https://faces.example.org"
_EXAMPLES: Final = {
    "queueing": translation.task_body(samples.QUEUED, None, 2, _BASE),
    "in progress": translation.task_body(samples.RUNNING, samples.PROGRESS, None, _BASE),
    "completed": translation.task_body(samples.SUCCEEDED, None, None, _BASE),
    "failed": translation.task_body(samples.FAILED, None, None, _BASE),
    "cancelled": translation.task_body(samples.CANCELED, None, None, _BASE),
}


def describe(world: World) -> Description:
    """The dialect."""
    return Description(
        tag=translation.NAME,
        help="Tasks of four types as JSON: submit, query, cancel.",
        operations=_operations(world),
        envelope=BackservError,
        code_at=("error",),
    )


def _operations(world: World) -> dict[str, Operation]:
    ticket = Parameter("ticket_id", "As it was answered.", {"type": "string", "format": "uuid"}, "path", samples.JOB_ID)
    accepted = {"accepted": translation.accepted_body(samples.QUEUED)}
    return {
        "POST /submit_task": Operation(
            id="backserv_submit",
            summary="Submit a task",
            help="What is given as URLs is fetched first. What is wrong with a parameter is 400, its size and kind included.",
            parameters=(IN_HEADER,),
            body=_body(world),
            answers=(json_answer(202, "The task is stored.", BackservAccepted, accepted),),
            raises=(ConsentRequiredError, SourceUnreachableError, TaskUnavailableError),
            is_create=True,
        ),
        "GET /query_task/{ticket_id}": Operation(
            id="backserv_query",
            summary="Where a task is",
            parameters=(ticket,),
            answers=(json_answer(200, "The task.", BackservTask, _EXAMPLES),),
            raises=(NotFoundError,),
        ),
        "POST /cancel_task/{ticket_id}": Operation(
            id="backserv_cancel",
            summary="Cancel a task",
            help="400 when it has ended. The body is not read.",
            parameters=(ticket,),
            answers=(
                json_answer(
                    200,
                    "It is cancelled, or about to be.",
                    BackservCancelled,
                    {"cancelled": translation.cancelled_body()},
                ),
            ),
            raises=(NotFoundError, CallerError),
        ),
        "GET /task_types": Operation(
            id="backserv_task_types",
            summary="What can be asked for, and with which parameters",
            answers=(
                json_answer(
                    200,
                    "The four types.",
                    BackservTaskTypes,
                    {"this gateway": translation.types_body(world.tasks or ())},
                ),
            ),
        ),
    }

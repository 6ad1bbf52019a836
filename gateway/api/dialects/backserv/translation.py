"""The translations of the dialect ``backserv``; pure.

request -> submission (``read_request``, ``submission``), job -> body (``accepted_body``, ``task_body``), error -> body
(``error_body``), state -> its word (``STATE_WORDS``). There are no events: the document knows polling only.

Which parameters a task takes beside its files is not said here: templates declare them (``Service.task_types``), and the
engine checks them.

Source: the published document of the Back.Serv API that clients of this dialect were written for; ``docs/dialects.md``
lists its fields and our deliberate differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.api.auth import Caller
from gateway.api.facade import Submission, SubmittedFile, TaskParameter, TaskType
from gateway.api.file_fields import MOVING, STILL, submitted_file
from gateway.api.incoming import ReceivedFile
from gateway.api.shown import percentage_of, timestamp
from gateway.api.url_inputs import UrlInput
from gateway.audit import MediaKind
from gateway.consent import FIELD as CONSENT
from gateway.consent import Attestation, by_field
from gateway.errors import GatewayError, InvalidInputError, TaskUnavailableError
from gateway.events import Progress
from gateway.job import Job, JobState
from gateway.strictjson import JsonValue

NAME: Final = "backserv"
CANCELLED: Final = "Cancelled"
STATE_WORDS: Final[Mapping[JobState, str]] = {
    JobState.QUEUED: "Queueing",
    JobState.DISPATCHED: "In Progress",
    JobState.RUNNING: "In Progress",
    JobState.FINISHING: "In Progress",
    JobState.SUCCEEDED: "Completed",
    JobState.FAILED: "System Error",
    JobState.CANCELED: CANCELLED,
}
#: ``serv_name`` as long as no upstream has the task.
POOL: Final = "pool"
CANCEL_MESSAGE: Final = "Task successfully cancelled"
CANCELED_INFO: Final = "Cancelled by request"
CANCELED_CODE: Final = "canceled"
MAX_USER_ID: Final = 128
#: What templates know of and clients of this dialect cannot use: each of its items belongs to a photo of its own, for
#: which there is no field.
UNUSABLE: Final = frozenset({"face_swaps"})
NO_TEMPLATE: Final = "a template that does this"

# ------------------------------------------------------------------------------------------------ request -> submission


@dataclass(frozen=True, slots=True)
class InputField:
    """A parameter of a task that is a file."""

    name: str
    role: str
    kinds: frozenset[MediaKind]
    help: str


#: Task type -> what it takes as files. The names are the engine's as well.
INPUTS: Final[Mapping[str, tuple[InputField, ...]]] = {
    "face_swap": (
        InputField("source_image", "face", STILL, "The face to put in"),
        InputField("target_image", "target", STILL | MOVING, "The picture, video or GIF that receives it"),
    ),
    "image_upscale": (InputField("image_url", "target", STILL, "The picture to enlarge"),),
    "image_creation": (),
    "video_creation": (),
}


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What a client asks for, checked as far as its own words go."""

    task_type: str
    user_id: str
    #: By role, what came as data URIs.
    files: Mapping[str, SubmittedFile]
    #: By role.
    urls: Mapping[str, UrlInput]
    #: By role.
    kinds: Mapping[str, frozenset[MediaKind]]
    #: What the task's templates declare; checked by the engine.
    parameters: Mapping[str, JsonValue]
    output_name: str | None
    #: What is said of the people in the pictures.
    consent: Attestation | None = None


def read_request(body: Mapping[str, JsonValue], files: Mapping[str, ReceivedFile]) -> TaskRequest:
    """A body as a request. Fields beside the three documented ones are let pass, as the original does.

    Args:
        body: with a mark in place of each data URI.
        files: by mark; each is called by the field it came in.

    Raises:
        InvalidInputError: naming the field: missing, of another type, a data URI where none belongs.
        UnsupportedMediaError: a file of a kind that the field does not take.
    """
    task_type = _text(body, "task_type")
    if task_type not in INPUTS:
        raise InvalidInputError(f"task_type must be one of {', '.join(INPUTS)}.", field="task_type")
    params = body.get("task_params")
    if not isinstance(params, dict):
        what = "is missing" if params is None else "must be an object"
        raise InvalidInputError(f"task_params {what}.", field="task_params")
    user_id = _user_id(body)
    fields = INPUTS[task_type]
    given = {field: _text(params, field.name) for field in fields}
    for mark, file in files.items():
        if mark not in given.values():
            raise InvalidInputError(f"{file.display_name} takes no data URI.", field=file.display_name)
    uploads = {
        field.role: submitted_file(field.name, files[value], field.kinds)
        for field, value in given.items()
        if value in files
    }
    urls = {
        field.role: UrlInput(_url(value, field.name), field.name, field.kinds)
        for field, value in given.items()
        if value not in files
    }
    for name in UNUSABLE & params.keys():
        raise InvalidInputError(f"There is no parameter {name!r}.", field=name)
    known = {"output_name", CONSENT, *(field.name for field in fields)}
    return TaskRequest(
        task_type=task_type,
        user_id=user_id,
        files=uploads,
        urls=urls,
        kinds={field.role: field.kinds for field in fields},
        # null says nothing, to the choice of a template as well
        parameters={name: value for name, value in params.items() if name not in known and value is not None},
        output_name=_text(params, "output_name") if params.get("output_name") else None,
        consent=by_field(params.get(CONSENT)),
    )


def _text(values: Mapping[str, JsonValue], name: str) -> str:
    value = values.get(name)
    if value is None or value == "":
        raise InvalidInputError(f"{name} is missing.", field=name)
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string.", field=name)
    return value


def _user_id(body: Mapping[str, JsonValue]) -> str:
    """It is shown to nobody and believed by nobody, but it is stored: no control characters, not long."""
    value = _text(body, "user_id")
    if len(value) > MAX_USER_ID or not value.isprintable() or not value.strip():
        raise InvalidInputError(f"user_id must be printable text of at most {MAX_USER_ID} characters.", field="user_id")
    return value


def _url(value: str, name: str) -> str:
    if not value.lower().startswith(("http://", "https://")):
        raise InvalidInputError(f"{name} must be an https URL or a data URI.", field=name)
    return value


def refuse_unknown_task(task_type: str, known: Iterable[TaskType]) -> None:
    """Raise TaskUnavailableError for a documented type that no template of this gateway does."""
    if all(task.name != task_type for task in known):
        raise TaskUnavailableError.of(task_type, (NO_TEMPLATE,))


def submission(
    wanted: TaskRequest, inputs: Mapping[str, SubmittedFile], caller: Caller, *, is_open: bool
) -> Submission:
    """What the engine is asked for, once every input lies in the store.

    Args:
        wanted: what the client asks for.
        inputs: by role.
        caller: who asks; in keys mode the one who shares fairly, whatever ``user_id`` says.
        is_open: whether there are no keys, so that ``user_id`` tells users of one address apart.
    """
    return Submission(
        owner=caller.owner,
        # No address holds a space, so nobody can spell another's.
        submitter=f"{caller.submitter} {wanted.user_id}" if is_open else caller.submitter,
        dialect=NAME,
        task=wanted.task_type,
        inputs=inputs,
        accepts=wanted.kinds,
        parameters=wanted.parameters,
        output_name=wanted.output_name,
        must_be_runnable=True,
    )


# ---------------------------------------------------------------------------------------------------------- job -> body


def word(job: Job) -> str:
    """Its status. Once a cancel was taken note of, the job will end canceled: nothing else is said in between."""
    is_ending = job.cancel_requested_at is not None and not job.is_terminal
    return CANCELLED if is_ending else STATE_WORDS[job.state]


def serv_name(job: Job) -> str:
    """The upstream that has it, or had it at its end."""
    return POOL if job.state is JobState.QUEUED or job.upstream is None else job.upstream


def accepted_body(job: Job) -> dict[str, object]:
    """The answer of ``/submit_task``."""
    return {"ticket_id": job.id, "serv_name": serv_name(job), "status": word(job)}


def task_body(job: Job, snapshot: Progress | None, position: int | None, base: str) -> dict[str, object]:
    """The answer of ``/query_task``.

    Args:
        job: the job.
        snapshot: how far it is, while it is at work.
        position: jobs ahead of it in the queue.
        base: of absolute links, without a slash at its end.
    """
    urls = [f"{base}/download/{result.link}" for result in job.results]
    body: dict[str, object] = {
        "status": word(job),
        "result_info": urls[0] if urls else None,
        "error_info": _error_info(job),
        "started_at": timestamp(job.started_at) if job.started_at is not None else None,
        "completed_at": timestamp(job.finished_at) if job.finished_at is not None else None,
        "result_urls": urls,
        "serv_name": serv_name(job),
        "task_type": job.task,
        "template": job.template,
        "progress": percentage_of(job, snapshot),
        "code": CANCELED_CODE if word(job) == CANCELLED else job.error_code,
        "warnings": list(job.warnings),
    }
    return {**body, "queue_position": position} if job.state is JobState.QUEUED else body


def _error_info(job: Job) -> str | None:
    if word(job) == CANCELLED:
        return CANCELED_INFO
    return job.error_message or "The task failed." if job.state is JobState.FAILED else None


def cancelled_body() -> dict[str, object]:
    """The answer of ``/cancel_task``."""
    return {"status": CANCELLED, "message": CANCEL_MESSAGE}


# ------------------------------------------------------------------------------------------------------- types -> body


def types_body(known: Iterable[TaskType], *, consent_required: bool = False) -> dict[str, object]:
    """The answer of ``/task_types``: all four, with what the templates of this gateway make of them.

    Args:
        known: by the gateway.
        consent_required: whether a swap is refused without it, unless a header says it.
    """
    by_name = {task.name: task for task in known}
    said = {"face_swap": [{**_CONSENT, "required": consent_required}]}
    return {"task_types": [_type_body(name, by_name.get(name), said.get(name, [])) for name in INPUTS]}


def _type_body(name: str, task: TaskType | None, said: Sequence[Mapping[str, object]]) -> dict[str, object]:
    if task is None:
        task = TaskType(name, (), can_run=False, missing=(NO_TEMPLATE,))
    own = [*map(_input_body, INPUTS[name]), *map(_parameter_body, task.parameters), *said, _OUTPUT_NAME]
    return {
        "task_type": name,
        "can_run": task.can_run,
        "missing": list(task.missing),
        "task_params": sorted(own, key=lambda parameter: not parameter["required"]),
    }


_CONSENT: Final[Mapping[str, object]] = {
    "name": CONSENT,
    "type": "bool",
    "required": False,
    "help": "That the people in the pictures agreed",
}
_OUTPUT_NAME: Final[Mapping[str, object]] = {
    "name": "output_name",
    "type": "string",
    "required": False,
    "help": "What the result is called",
}


def _input_body(field: InputField) -> Mapping[str, object]:
    return {
        "name": field.name,
        "type": "file",
        "required": True,
        "kinds": sorted(kind.value for kind in field.kinds),
        "help": f"{field.help}: an https URL or a data URI",
    }


def _parameter_body(parameter: TaskParameter) -> Mapping[str, object]:
    """What is not set has no key: a number has no longest length, a choice no least value."""
    limits: dict[str, object] = {
        "default": parameter.default,
        "min": parameter.min,
        "max": parameter.max,
        "multiple_of": parameter.multiple_of,
        "unit": parameter.unit,
        "choices": list(parameter.choices) or None,
        "max_length": parameter.max_length,
        "help": parameter.help,
    }
    return {
        "name": parameter.name,
        "type": parameter.type.value,
        "required": parameter.required,
        **{name: value for name, value in limits.items() if value is not None},
    }


# -------------------------------------------------------------------------------------------------------- error -> body


def error_body(error: GatewayError, request_id: str) -> Mapping[str, object]:
    """The envelope of every error. The sentence names the field, for clients that show nothing else."""
    del request_id
    named = error.field is not None and error.field not in error.message
    body: dict[str, object] = {
        "error": error.code,
        "message": f"{error.field}: {error.message}" if named else error.message,
        "field": error.field,
    }
    return {**body, "missing": list(error.missing)} if isinstance(error, TaskUnavailableError) else body

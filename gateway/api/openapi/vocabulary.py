"""What can be said of an endpoint: the words that dialects describe themselves in.

A dialect has a function ``describe(world) -> Description`` beside its endpoints. What it says is made of the values that
its handlers go by (tables of fields, enums, limits), of models of its answers, and of examples that its own translations
make; so a description changes with the code or not at all. What every endpoint of a kind may answer besides, keys, doors,
limits, bodies, is added in ``refusals.py`` and is not said again.

Source: the OpenAPI Specification 3.1.1. Nothing here knows how a document is put together; ``document.py`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.facade import TaskType
from gateway.errors import GatewayError
from gateway.settings import Settings

#: JSON Schema, dialect 2020-12.
Schema: TypeAlias = Mapping[str, object]

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
EVENT_STREAM: Final = "text/event-stream"

#: In 3.1 a body of bytes says of its schema nothing but that; every tool knows this way of saying it.
BYTES: Final[Schema] = {"type": "string", "format": "binary"}


class Model(BaseModel):
    """An answer's shape. Closed, so that a field that nobody told of fails the tests; published open."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True, use_attribute_docstrings=True)


JobId = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Moment = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
    ),
]


@dataclass(frozen=True, slots=True)
class World:
    """What a description depends on beside the code."""

    settings: Settings
    #: What the templates do; None for a reader who may not know.
    tasks: tuple[TaskType, ...] | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A body of one type."""

    #: What it is made of: a model, or a schema where the tables that are read by are one.
    shape: type[BaseModel] | Schema
    #: By name, whole bodies.
    examples: Mapping[str, object] = field(default_factory=dict)
    #: Of a form: the types of its files, by field.
    file_types: Mapping[str, str] = field(default_factory=dict)
    #: Of an event stream: the data of each event, by its name.
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something in the query, the path or a header."""

    name: str
    help: str
    shape: Schema = field(default_factory=lambda: {"type": "string"})
    where: Literal["query", "path", "header"] = "query"
    example: object = None
    #: Those in the path always are.
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent along, by content type."""

    contents: Mapping[str, Content]
    help: str = ""
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back when nothing is wrong."""

    status: int
    help: str
    contents: Mapping[str, Content] = field(default_factory=dict)
    #: Beside those of every answer: what each says.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Those that are there at times.
    may_have: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint."""

    #: Unique in the document; what generated clients call their function.
    id: str
    #: A line.
    summary: str
    answers: tuple[Answer, ...]
    help: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    #: What its handler and the engine behind it raise, beside what its kind of endpoint does anyway.
    raises: tuple[type[GatewayError], ...] = ()
    #: It makes a job: what can keep one from being made is added.
    is_create: bool = False
    #: Heading it stands under; None: the description's.
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """A dialect, or our own routes."""

    #: Heading.
    tag: str
    #: A few sentences; Markdown.
    help: str
    #: "POST /face-swap", "WS /face-swap-ws" -> what it is.
    operations: Mapping[str, Operation]
    #: The shape of every error.
    envelope: type[BaseModel]
    #: Where the code stands in it.
    code_at: tuple[str, ...]
    #: The code that clients see, of one of ours.
    code_of: Callable[[str], str] = str
    #: What a webhook tells of a job of this dialect; None: it has no webhooks.
    told_outside: type[BaseModel] | None = None
    #: Further headings of its operations -> what stands below them.
    tags: Mapping[str, str] = field(default_factory=dict)


def json_answer(status: int, help: str, model: type[BaseModel], examples: Mapping[str, object]) -> Answer:  # noqa: A002 - it is called by place
    """An answer in JSON, with examples by name."""
    return Answer(status, help, {JSON: Content(model, examples)})


def nullable(schema: Schema) -> Schema:
    """A member that may also be null, which says as much as leaving it out."""
    kind = schema.get("type")
    if isinstance(kind, str) and "const" not in schema and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def closed(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object with these members and no others."""
    return {**opened(properties, required), "additionalProperties": False}


def opened(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object with these members; others are let pass."""
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    return {**schema, "required": list(required)} if required else schema

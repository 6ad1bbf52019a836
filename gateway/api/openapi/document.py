"""The OpenAPI 3.1 document, put together of descriptions and of the endpoints that they describe.

Pure: values in, one JSON-shaped value out. An endpoint that nobody described, and a description of an endpoint that is
not there, are programming errors and raise. Source: the OpenAPI Specification 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from gateway.api.auth import Access
from gateway.api.openapi.problem_model import Problem
from gateway.api.openapi.refusals import Manner, headers_of, kinds_of, refusals
from gateway.api.openapi.vocabulary import JSON, Answer, Content, Description, Operation, Parameter, World
from gateway.api.window import Endpoint, SocketEndpoint
from gateway.outbox import KINDS

OPENAPI: Final = "3.1.1"
_REF: Final = "#/components/schemas/{model}"
_HELP: Final = """\
A pool of ComfyUI instances as one dependable service, in every API that it speaks. A job that was submitted in one of them
can be looked at in all: they are words for the same engine.

Every answer carries `X-Request-ID`. An error answers in the envelope of the API that its path belongs to, or as
`application/problem+json` (RFC 9457) where `Accept` names that type. A path that is not described here is answered with
404, a method that is not with 405 and `Allow`.
"""
_HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "X-Request-ID": ("Of this request, also in the log; the client's own when it sent a sane one.", "string"),
    "Retry-After": ("Seconds until it makes sense to ask again.", "integer"),
    "WWW-Authenticate": ("How to show a key.", "string"),
    "Allow": ("The methods that the path takes.", "string"),
    "Upgrade": ("websocket", "string"),
    "RateLimit": ("What the key has left (requests by key only).", "string"),
    "RateLimit-Policy": ("What the key may (requests by key only).", "string"),
}
#: Told of every answer to a request that a key may come with.
_OF_KEYS: Final = ("RateLimit", "RateLimit-Policy")
_WEBHOOK_HEADERS: Final = {
    "webhook-id": "The same in every attempt.",
    "webhook-timestamp": "Unix seconds of the attempt.",
    "webhook-signature": "`v1,` and the base64 of an HMAC-SHA256; several, with spaces between them, while a secret is replaced.",
}
#: Of links that were signed: what opens them beside a key.
_SIGNATURE: Final = {"type": "apiKey", "in": "query", "name": "signature", "description": "Of a link that was told."}
_SCHEMES: Final[Mapping[str, Mapping[str, str]]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or the admin token."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A key, or the admin token."},
    "signature": _SIGNATURE,
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "From `POST /-/tickets`, for browsers: opens one stream or WebSocket once.",
    },
}


@dataclass(frozen=True, slots=True)
class Section:
    """A dialect, or routes of ours: what they are, and what is said of them."""

    description: Description
    manner: Manner
    endpoints: Sequence[Endpoint | SocketEndpoint]


class _Shapes(GenerateJsonSchema):
    """Schemas without a title for each field: its name says as much."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the library's signature
        return False


def spelled(endpoint: Endpoint | SocketEndpoint) -> str:
    """An endpoint as descriptions name it: "GET /status/{prompt_id}", "WS /face-swap-ws"."""
    return f"{endpoint.method if isinstance(endpoint, Endpoint) else 'WS'} {endpoint.path}"


def build(world: World, sections: Sequence[Section]) -> dict[str, Any]:
    """The whole document.

    Raises:
        LookupError: an endpoint has no description, or a description no endpoint.
        ValueError: two operations have one id.
    """
    for section in sections:
        require_complete(section)
    writer = _Writer(world, _schemas(sections))
    paths: dict[str, dict[str, Any]] = {}
    for section in sections:
        for endpoint in section.endpoints:
            operation = section.description.operations[spelled(endpoint)]
            method = endpoint.method.lower() if isinstance(endpoint, Endpoint) else "get"
            paths.setdefault(endpoint.path, {})[method] = writer.operation(section, endpoint, operation)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "comfygate",
            "version": version("comfygate"),
            "summary": "A gateway to a pool of ComfyUI instances",
            "description": _HELP,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        # Relative to where the document was fetched, so that it holds below whatever path a proxy gives us.
        "servers": [{"url": world.settings.public_url or "."}],
        "tags": [
            {"name": name, "description": says}
            for section in sections
            for name, says in {section.description.tag: section.description.help, **section.description.tags}.items()
        ],
        "paths": paths,
        "webhooks": _webhooks(sections, writer.schemas),
        "components": {
            "schemas": writer.schemas.named,
            "responses": writer.responses,
            "headers": {
                name: {"description": says, "required": name not in _OF_KEYS, "schema": {"type": kind}}
                for name, (says, kind) in _HEADERS.items()
            },
            "securitySchemes": _SCHEMES,
        },
    }


def require_complete(section: Section) -> None:
    """Raise LookupError where endpoints and descriptions are not the same ones."""
    served = {spelled(endpoint) for endpoint in section.endpoints}
    described = set(section.description.operations)
    if served != described:
        raise LookupError(f"not described: {sorted(served - described)}; not served: {sorted(described - served)}")


# ------------------------------------------------------------------------------------------------------------- schemas


@dataclass(frozen=True, slots=True)
class _Schemas:
    #: What stands below ``components``.
    named: dict[str, Any]
    refs: Mapping[type[BaseModel], Mapping[str, str]]


def _models(sections: Iterable[Section]) -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {Problem: None}
    for section in sections:
        found[section.description.envelope] = None
        if section.description.told_outside is not None:
            found[section.description.told_outside] = None
        for operation in section.description.operations.values():
            for content in _contents(operation):
                shapes = (content.shape, *content.events.values())
                found |= {shape: None for shape in shapes if isinstance(shape, type)}
    return list(found)


def _contents(operation: Operation) -> list[Content]:
    bodies = [operation.body.contents] if operation.body is not None else []
    return [
        content
        for contents in (*bodies, *(answer.contents for answer in operation.answers))
        for content in contents.values()
    ]


def _schemas(sections: Iterable[Section]) -> _Schemas:
    models = _models(sections)
    refs, named = models_json_schema(
        [(model, "serialization") for model in models], ref_template=_REF, schema_generator=_Shapes
    )
    schemas = _published(named.get("$defs", {}))
    return _Schemas(dict(sorted(schemas.items())), {model: refs[model, "serialization"] for model in models})


def _published(value: Any) -> Any:
    """Schemas of answers, open: a client that breaks when a field is added could never be served a better answer."""
    if isinstance(value, dict):
        is_closed = value.get("additionalProperties") is False
        return {
            name: _published(inner)
            for name, inner in value.items()
            if not (is_closed and name == "additionalProperties")
        }
    return [_published(inner) for inner in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------------------ webhooks


def _webhooks(sections: Iterable[Section], schemas: _Schemas) -> dict[str, Any]:
    """What is sent to a job's ``webhook_url``, by kind of message."""
    told = [section.description.told_outside for section in sections]
    jobs = [schemas.refs[model] for model in told if model is not None]
    return {kind: {"post": _webhook(kind, state.value, jobs)} for state, kind in KINDS.items()}


def _webhook(kind: str, state: str, jobs: list[Mapping[str, str]]) -> dict[str, Any]:
    members = {"type": {"const": kind}, "timestamp": {"type": "string", "format": "date-time"}, "data": {"anyOf": jobs}}
    return {
        "operationId": f"webhook_{state}",
        "summary": f"A job ended: {state}",
        "description": "Sent and signed as the Standard Webhooks specification says. `data` is what the API that the job "
        "came in by says of it; of a job too long to tell, its `id` and `truncated`.",
        "tags": ["webhooks"],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": says, "schema": {"type": "string"}}
            for name, says in _WEBHOOK_HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"type": "object", "properties": members, "required": list(members)}}},
        },
        "responses": {
            "2XX": {"description": "Taken; it is not sent again."},
            "410": {"description": "Never again: nothing more is sent there."},
            "default": {"description": "Sent again later, by a schedule of three days."},
        },
    }


# ---------------------------------------------------------------------------------------------------------- operations


@dataclass(slots=True)
class _Writer:
    world: World
    schemas: _Schemas
    #: What several operations answer alike, by name.
    responses: dict[str, Any] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)

    def operation(self, section: Section, endpoint: Endpoint | SocketEndpoint, told: Operation) -> dict[str, Any]:
        if told.id in self._ids:
            raise ValueError(f"two operations are called {told.id}")
        self._ids.add(told.id)
        body: dict[str, Any] = {
            "operationId": told.id,
            "tags": [told.tag or section.description.tag],
            "summary": told.summary,
            "description": told.help or told.summary,
            "security": self._security(endpoint),
        }
        if parameters := self._parameters(endpoint, told):
            body["parameters"] = parameters
        if told.body is not None:
            body["requestBody"] = {
                "description": told.body.help,
                "required": told.body.is_required,
                "content": self._content(told.body.contents),
            }
        return {**body, "responses": self._responses(section, endpoint, told)}

    def _security(self, endpoint: Endpoint | SocketEndpoint) -> list[dict[str, list[str]]]:
        keys: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
        if isinstance(endpoint, SocketEndpoint) or endpoint.takes_ticket:
            keys.append({"ticket": []})
        if isinstance(endpoint, Endpoint) and endpoint.opened_by is not None:
            keys.append({endpoint.opened_by: []})
        if endpoint.access is Access.PUBLIC:
            return [{}]
        is_open = self.world.settings.auth == "open" and endpoint.access is Access.OWNER
        return [{}, *keys] if is_open else keys

    @staticmethod
    def _parameters(endpoint: Endpoint | SocketEndpoint, told: Operation) -> list[dict[str, Any]]:
        said = {parameter.name: parameter for parameter in told.parameters}
        for name in re.findall(r"\{(\w+)\}", endpoint.path):
            said.setdefault(name, Parameter(name, "", where="path"))
        return [_parameter(parameter) for parameter in said.values()]

    def _content(self, contents: Mapping[str, Content]) -> dict[str, Any]:
        return {kind: self._media(content) for kind, content in contents.items()}

    def _media(self, content: Content) -> dict[str, Any]:
        told: dict[str, Any] = {"schema": self._schema(content)}
        if content.examples:
            told["examples"] = {name: {"value": value} for name, value in content.examples.items()}
        if content.file_types:
            told["encoding"] = {name: {"contentType": kinds} for name, kinds in content.file_types.items()}
        if content.events:
            told["x-events"] = {name: self.schemas.refs[model] for name, model in content.events.items()}
        return told

    def _schema(self, content: Content) -> Any:
        if content.events:
            # 3.1 has no word for what a stream is made of (3.2 has): tools read it as what each event is.
            return {"oneOf": [self._event(name, self.schemas.refs[model]) for name, model in content.events.items()]}
        return self.schemas.refs[content.shape] if isinstance(content.shape, type) else content.shape

    @staticmethod
    def _event(name: str, data: Mapping[str, str]) -> dict[str, Any]:
        text = {"type": "string", "contentMediaType": JSON, "contentSchema": data}
        members = {"event": {"const": name}, "data": text, "id": {"type": "string"}}
        return {"type": "object", "properties": members, "required": ["event", "data"]}

    def _responses(self, section: Section, endpoint: Endpoint | SocketEndpoint, told: Operation) -> dict[str, Any]:
        of_keys = () if endpoint.access is Access.PUBLIC else _OF_KEYS
        answers = {str(answer.status): self._answer(answer, of_keys) for answer in told.answers}
        description = section.description
        refused = refusals(
            description,
            section.manner,
            self.schemas.refs[description.envelope],
            kinds_of(endpoint, told),
        )
        for status, told_of in refused.items():
            # What is answered to HEAD has no body.
            is_bare = isinstance(endpoint, Endpoint) and endpoint.method == "HEAD"
            response = {name: value for name, value in told_of.items() if name != "content" or not is_bare}
            if str(status) in answers:
                _add_refusal(answers[str(status)], response)
                continue
            answers[str(status)] = {"$ref": f"#/components/responses/{self._shared(description.tag, status, response)}"}
        return dict(sorted(answers.items()))

    def _answer(self, answer: Answer, of_keys: tuple[str, ...]) -> dict[str, Any]:
        own = {
            name: {"description": says, "required": name in answer.headers, "schema": {"type": "string"}}
            for name, says in {**answer.headers, **answer.may_have}.items()
        }
        told: dict[str, Any] = {"description": answer.help, "headers": {**headers_of(*of_keys), **own}}
        return {**told, "content": self._content(answer.contents)} if answer.contents else told

    def _shared(self, tag: str, status: int, response: dict[str, Any]) -> str:
        """The name of a response that several operations have, a new one where it differs from all."""
        name = stem = f"{re.sub(r'[^a-z0-9]+', '_', tag.lower())}_{status}"
        number = 1
        while self.responses.setdefault(name, response) != response:
            number += 1
            name = f"{stem}_{number}"
        return name


def _add_refusal(answer: dict[str, Any], refused: Mapping[str, Any]) -> None:
    """One status, two meanings: what the endpoint answers with it, or an error."""
    answer["description"] += f" Or: {refused['description']}"
    for kind, media in refused["content"].items():
        own = answer["content"].get(kind)
        answer["content"][kind] = (
            media if own is None else {**own, "schema": {"anyOf": [own["schema"], media["schema"]]}}
        )


def _parameter(parameter: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.help,
        "required": parameter.is_required or parameter.where == "path",
        "schema": parameter.shape,
    }
    return told if parameter.example is None else {**told, "example": parameter.example}

"""How an endpoint may say no: the errors that its kind brings with it, and each as a described answer.

Which errors those are follows from what an endpoint is: everybody may come to the wrong host, whoever needs a key may
have none, whoever sends a body may send too much. Only what its own handler and the engine behind it raise is said by
whoever describes it. Tests hold every answer that any of them sees against this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from gateway.api.auth import Access
from gateway.api.openapi.vocabulary import JSON, Description, Operation
from gateway.api.problems import PROBLEM_TYPE, Envelope, InternalServerError, StatusOf, problem, status_hint, to_json
from gateway.api.window import Endpoint, Holds, SocketEndpoint
from gateway.errors import (
    ApiDisabledError,
    BusyError,
    ConcurrencyLimitedError,
    ForbiddenError,
    GatewayError,
    InsufficientCreditsError,
    InvalidInputError,
    InvalidKeyError,
    MethodNotAllowedError,
    MisdirectedError,
    QueueFullError,
    RateLimitedError,
    ShuttingDownError,
    StorageFullError,
    StorageUnreachableError,
    TemplateError,
    TooLargeError,
    UnauthorizedError,
    UnsafeContentError,
    UnsupportedMediaError,
    UpgradeRequiredError,
)

_Kinds = frozenset[type[GatewayError]]


@dataclass(frozen=True, slots=True)
class Manner:
    """How errors look."""

    envelope: Envelope
    status_of: StatusOf = status_hint


#: Of examples.
REQUEST_ID: Final = "5f0c9c7e8d3b4a0f9c1d2e3f4a5b6c7d"
PROBLEM_REF: Final = {"$ref": "#/components/schemas/Problem"}

#: Two Hosts, a proxy or a page that nobody knows, a Host that is not ours; another method; our own fault; the end.
_ANYWHERE: Final[_Kinds] = frozenset(
    {
        InvalidInputError,
        ForbiddenError,
        MisdirectedError,
        MethodNotAllowedError,
        InternalServerError,
        ShuttingDownError,
    }
)
_BEHIND_A_KEY: Final[_Kinds] = frozenset({UnauthorizedError, InvalidKeyError, ForbiddenError, RateLimitedError})
_WITH_A_BODY: Final[_Kinds] = frozenset({InvalidInputError, TooLargeError, UnsupportedMediaError, ShuttingDownError})
_WITH_FILES: Final[_Kinds] = frozenset({StorageFullError, StorageUnreachableError})
_CREATING: Final[_Kinds] = frozenset(
    {
        ApiDisabledError,
        BusyError,
        ConcurrencyLimitedError,
        InsufficientCreditsError,
        QueueFullError,
        ShuttingDownError,
        StorageFullError,
        TemplateError,
        TooLargeError,
        UnsafeContentError,
        UnsupportedMediaError,
    }
)
#: Headers that come with a status, whatever else is true of the answer.
_HEADERS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    426: ("Upgrade",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    507: ("Retry-After",),
}


def kinds_of(endpoint: Endpoint | SocketEndpoint, operation: Operation) -> _Kinds:
    """Every error that may come of asking an endpoint."""
    kinds = _ANYWHERE | frozenset(operation.raises)
    if endpoint.access is not Access.PUBLIC:
        kinds |= _BEHIND_A_KEY
    if isinstance(endpoint, SocketEndpoint):
        return kinds | {BusyError, UpgradeRequiredError}
    if endpoint.holds is Holds.SLOT:
        kinds |= {endpoint.when_full}
    if operation.body is not None:
        kinds |= _WITH_A_BODY
        if any(content.file_types for content in operation.body.contents.values()):
            kinds |= _WITH_FILES
    return kinds | _CREATING if operation.is_create else kinds


def refusals(
    description: Description, manner: Manner, envelope_ref: Mapping[str, str], kinds: _Kinds
) -> dict[int, dict[str, Any]]:
    """By status, what is answered: the envelope and the codes that can stand in it, and the same as a problem.

    Args:
        description: who answers.
        manner: its envelope, which makes the examples, and its statuses.
        envelope_ref: where the shape of the envelope stands in the document.
        kinds: of errors.
    """
    own, problems = by_status(kinds, manner.status_of), by_status(kinds, status_hint)
    told: dict[int, dict[str, Any]] = {}
    for status in sorted({*own, *problems}):
        content: dict[str, Any] = {}
        says = _says(status, problems.get(status, ()), str)
        if manner.envelope is not problem and status in own:
            says = _says(status, own[status], description.code_of)
            content[JSON] = _content(
                manner.envelope, description.code_at, description.code_of, envelope_ref, own[status]
            )
        if status in problems:
            content[PROBLEM_TYPE] = _content(problem, ("code",), str, PROBLEM_REF, problems[status])
        told[status] = {
            "description": says,
            "headers": headers_of(*_HEADERS.get(status, ())),
            "content": content,
        }
    return told


def by_status(kinds: _Kinds, status_of: StatusOf) -> dict[int, list[type[GatewayError]]]:
    """Kinds of errors by the status that they are answered with."""
    found: dict[int, list[type[GatewayError]]] = {}
    for kind in sorted(kinds, key=lambda kind: (kind.status_hint, kind.code, kind.__name__)):
        found.setdefault(status_of(sample(kind)), []).append(kind)
    return found


def headers_of(*names: str) -> dict[str, Any]:
    """The header that every answer has, and these, by reference."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}


def _says(status: int, kinds: Iterable[type[GatewayError]], code_of: Callable[[str], str]) -> str:
    told = {code_of(kind.code): sample(kind).message for kind in kinds}
    return "\n".join([f"{HTTPStatus(status).phrase}.", "", *(f"* `{code}`: {says}" for code, says in told.items())])


def _content(
    envelope: Envelope,
    code_at: tuple[str, ...],
    code_of: Callable[[str], str],
    ref: Mapping[str, str],
    kinds: Iterable[type[GatewayError]],
) -> dict[str, Any]:
    by_code: dict[str, GatewayError] = {}
    for kind in kinds:
        by_code.setdefault(code_of(kind.code), sample(kind))
    codes: dict[str, Any] = {"enum": list(by_code)}
    for name in reversed(code_at):
        codes = {"type": "object", "properties": {name: codes}}
    examples = {code: {"value": json.loads(to_json(envelope(error, REQUEST_ID)))} for code, error in by_code.items()}
    return {"schema": {"allOf": [ref, codes]}, "examples": examples}


def sample(kind: type[GatewayError]) -> GatewayError:
    """An error of a kind, which says what the kind means."""
    if kind is InternalServerError:
        return InternalServerError()
    sentence = (kind.__doc__ or kind.code).partition("\n")[0]
    return TemplateError("faceswap_video", sentence) if kind is TemplateError else _plain(kind, sentence)


def _plain(kind: Callable[[str], GatewayError], sentence: str) -> GatewayError:
    return kind(sentence)

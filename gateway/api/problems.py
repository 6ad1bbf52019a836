"""How the gateway says no over HTTP: one error, one status, one envelope.

Dialects bring envelopes of their own; everything that belongs to none answers as ``application/problem+json`` (RFC
9457), and so does every dialect when a client asks for that type in ``Accept``. Whatever the envelope, status, code and
sentence are the error's (``errors.py``), and nothing else of an exception gets out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.errors import (
    BusyError,
    CallerError,
    ConflictError,
    ForbiddenError,
    GatewayError,
    InvalidInputError,
    MethodNotAllowedError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedMediaError,
)

PROBLEM_TYPE: Final = "application/problem+json"
JSON_TYPE: Final = "application/json"
#: When to ask again, where nobody knows better.
RETRY_AFTER_SECONDS: Final = 5

#: An error's body in a dialect's words. Args: the error, the request's id.
Envelope = Callable[[GatewayError, str], Mapping[str, object]]

#: An error's status in a dialect.
StatusOf = Callable[[GatewayError], int]

_BY_STATUS: Final[Mapping[int, tuple[type[CallerError], str]]] = {
    400: (InvalidInputError, "The request is malformed."),
    401: (UnauthorizedError, "This needs a Bearer token."),
    403: (ForbiddenError, "This is not allowed."),
    404: (NotFoundError, "There is nothing here."),
    405: (MethodNotAllowedError, "This path does not take that method."),
    409: (ConflictError, "This cannot be done now."),
    413: (TooLargeError, "The body is too large."),
    415: (UnsupportedMediaError, "The body is of a type that is not accepted here."),
}


class InternalServerError(GatewayError):
    """Our own fault; the log has the rest under the request's id."""

    def __init__(self) -> None:
        super().__init__("Something went wrong inside the gateway; the log tells what, under this request's id.")


def to_json(value: object) -> bytes:
    """Compact UTF-8 JSON; NaN and infinities are a programming error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def to_json_quickly(value: object) -> bytes:
    """The same for what is told by the hundred a second; NaN and infinities become null."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a number of more than 64 bits, a key that is no text
        return to_json(value)


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer that no cache keeps."""
    return Response(to_json(value), status, {"Cache-Control": "no-store", **(headers or {})}, JSON_TYPE)


def problem(error: GatewayError, request_id: str) -> Mapping[str, object]:
    """The envelope of RFC 9457, with our code and field beside its members."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_hint).phrase,
        "status": error.status_hint,
        "detail": error.message,
        "code": error.code,
    }
    if error.field is not None:
        body["field"] = error.field
    return {**body, "request_id": request_id}


def status_hint(error: GatewayError) -> int:
    """The status of an error wherever no dialect has another for it."""
    return error.status_hint


def error_response(
    error: GatewayError, envelope: Envelope, request_id: str, status_of: StatusOf = status_hint
) -> Response:
    """An error as an answer, with the headers its status calls for."""
    media_type = PROBLEM_TYPE if envelope is problem else JSON_TYPE
    return Response(to_json(envelope(error, request_id)), status_of(error), _headers(error), media_type)


def _headers(error: GatewayError) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = 'Bearer realm="comfygate"'
    if isinstance(error, BusyError) or error.retry_after_seconds is not None:
        seconds = RETRY_AFTER_SECONDS if error.retry_after_seconds is None else error.retry_after_seconds
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return headers


def from_http_exception(exception: HTTPException) -> GatewayError:
    """What the router or the framework said, as an error of ours; its own wording is dropped."""
    kind, sentence = _BY_STATUS.get(exception.status_code, (None, ""))
    if kind is not None:
        return kind(sentence)
    return (
        InternalServerError()
        if exception.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        else CallerError("The request is malformed.")
    )

"""How the dialect ``comfy_v2`` says no: its codes, its statuses, its envelope; pure.

The contract names a status for each way an operation can end, and has one for a request that is wrong in itself: 422.
What other dialects tell by 400, 413 or 415 is 422 here, so that clients made for the contract know what to do with it.
Codes that the contract has no word for are those of its reference proxy, else ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from gateway.errors import (
    CallerError,
    ConcurrencyLimitedError,
    GatewayError,
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    IdempotencyReuseError,
    InvalidInputError,
    InvalidKeyError,
    JobError,
    QueueFullError,
    RateLimitedError,
    SourceUnreachableError,
    StorageFullError,
    TaskUnavailableError,
    TemplateError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedMediaError,
)

INVALID_REQUEST: Final = "invalid_request"
UPSTREAM_ERROR: Final = "upstream_error"

#: Our codes -> the contract's. What does not stand here is called as it is everywhere.
CODES: Final[Mapping[str, str]] = {
    CallerError.code: INVALID_REQUEST,
    InvalidInputError.code: INVALID_REQUEST,
    SourceUnreachableError.code: INVALID_REQUEST,
    TaskUnavailableError.code: INVALID_REQUEST,
    UnsupportedMediaError.code: INVALID_REQUEST,
    TooLargeError.code: "payload_too_large",
    InvalidKeyError.code: UnauthorizedError.code,
    ConcurrencyLimitedError.code: RateLimitedError.code,
    IdempotencyMismatchError.code: IdempotencyReuseError.code,
    IdempotencyInFlightError.code: IdempotencyReuseError.code,
    GatewayError.code: UPSTREAM_ERROR,
    TemplateError.code: UPSTREAM_ERROR,
    JobError.code: UPSTREAM_ERROR,
}
_WRONG_IN_ITSELF: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
)


def status_of(error: GatewayError) -> int:
    """The contract's status for an error."""
    if isinstance(error, QueueFullError):
        return int(HTTPStatus.TOO_MANY_REQUESTS)
    if isinstance(error, StorageFullError):
        return int(HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, IdempotencyInFlightError) or error.status_hint in _WRONG_IN_ITSELF:
        return int(HTTPStatus.UNPROCESSABLE_ENTITY)
    return error.status_hint


def error_body(error: GatewayError, request_id: str) -> Mapping[str, object]:
    """The envelope of every HTTP error; an error's own details, or the field at fault, stand in ``details``."""
    del request_id  # stands in its header
    code = CODES.get(error.code, error.code)
    return {"error": {"code": code, "message": error.message, "details": _details(error)}}


def _details(error: GatewayError) -> Mapping[str, object] | None:
    details: Mapping[str, object] | None = getattr(error, "details", None)
    if details:
        return details
    return None if error.field is None else {"field": error.field}

"""How the dialect ``swaps_v1`` says no: its codes, its envelope, and what becomes of errors it has no word for; pure.

The document's table of codes is closed: clients switch on it. What it has no code for is told by the code that asks a
client to do the right thing: come back (``api_temporarily_disabled``, with ``Retry-After``), or mend the request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from gateway.errors import (
    ApiDisabledError,
    CallerError,
    ConsentRequiredError,
    GatewayError,
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    InvalidInputError,
    JobError,
    QueueFullError,
    ShuttingDownError,
    SourceUnreachableError,
    StorageFullError,
    TaskUnavailableError,
    TemplateError,
    TooLargeError,
    UnsafeContentError,
)
from gateway.safety import RefusedPlaceError

#: When to come back after something that an operator has to put right.
RETRY_AFTER_SECONDS: Final = 30

#: Our codes -> the document's. What stands here as itself is an addition of ours; ``docs/dialects.md`` lists it.
CODES: Final[Mapping[str, str]] = {
    CallerError.code: InvalidInputError.code,
    TooLargeError.code: "payload_too_large",
    TemplateError.code: "internal_error",
    JobError.code: "internal_error",
    "unavailable": ApiDisabledError.code,
    TaskUnavailableError.code: ApiDisabledError.code,
    QueueFullError.code: ApiDisabledError.code,
    ShuttingDownError.code: ApiDisabledError.code,
    StorageFullError.code: ApiDisabledError.code,
}


def error_body(error: GatewayError, request_id: str) -> Mapping[str, object]:
    """The envelope of every HTTP error. The sentence names the member, for the envelope has no place for it."""
    is_named = error.field is None or error.field in error.message
    message = error.message if is_named else f"{error.field}: {error.message}"
    return {"error": {"code": CODES.get(error.code, error.code), "message": message, "request_id": request_id}}


def disabled() -> ApiDisabledError:
    """The feature flag is off."""
    return ApiDisabledError("The v1 API is switched off here for now.", retry_after_seconds=RETRY_AFTER_SECONDS)


@contextmanager
def in_its_words() -> Iterator[None]:
    """Errors of the engine as errors that the document knows.

    Raises:
        ApiDisabledError: no upstream can run it, there is no room for it now, or its twin takes too long.
        InvalidInputError: an idempotency key was used for another request, or consent had to be said and was not.
        SourceUnreachableError: with the one sentence.
        GatewayError: whatever else it was.
    """
    try:
        yield
    except SourceUnreachableError as error:
        raise SourceUnreachableError(_url_sentence(error.field), field=error.field) from error
    except (TaskUnavailableError, StorageFullError) as error:
        sentence = "No worker can do this for now." if isinstance(error, TaskUnavailableError) else error.message
        raise ApiDisabledError(sentence, retry_after_seconds=RETRY_AFTER_SECONDS) from error
    except (IdempotencyMismatchError, ConsentRequiredError) as error:
        # A client of this API reads 422 as a verdict on its pictures.
        raise InvalidInputError(error.message, field=error.field) from error
    except IdempotencyInFlightError as error:
        raise ApiDisabledError(error.message, retry_after_seconds=error.retry_after_seconds) from error
    except TemplateError as error:
        # Of a create: no template does this task, so nothing here can.
        raise ApiDisabledError("No worker can do this for now.", retry_after_seconds=RETRY_AFTER_SECONDS) from error


@contextmanager
def of_detections() -> Iterator[None]:
    """What the document knows of swaps alone, as it is told of a detection.

    Raises:
        InvalidInputError: the picture was flagged. The document has 422 for creates of swaps only.
    """
    try:
        yield
    except UnsafeContentError as error:
        raise InvalidInputError(error.message, field=error.field) from error


@contextmanager
def of_urls() -> Iterator[None]:
    """Refusals of URLs by their text or their place, in the one sentence.

    Raises:
        InvalidInputError: it is malformed, or not https.
        SourceUnreachableError: it leads where we do not go.
    """
    try:
        yield
    except InvalidInputError as error:
        kind = SourceUnreachableError if isinstance(error, RefusedPlaceError) else InvalidInputError
        raise kind(_url_sentence(error.field), field=error.field) from error


def _url_sentence(field: str | None) -> str:
    """For every URL that is not fetched, whatever the reason: nobody learns from it what is behind us."""
    return f"{field} could not be fetched: it must be a public https URL that answers with the file."

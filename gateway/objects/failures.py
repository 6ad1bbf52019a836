"""What boto3 raises, as an error of ours: whether to try again, whether it is there, what to tell.

What is no answer of such a service at all (a page of a proxy's, half a document) boto3 takes for one as far as it can; then a
field is missing, or cannot be read. That is told as what it is, and tried again: whoever stands in between may go.

Sources: Amazon S3 API reference, "Error responses"; botocore 1.44, ``exceptions.py``. Other servers use the same codes.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, TypeAlias

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from gateway.errors import StorageUnreachableError

SENTENCE: Final = "The storage of files does not answer; try again later."
#: 4xx that say nothing against the request: bytes were lost or garbled on the way, or there were too many requests.
_PASSING: Final = frozenset(
    {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "Throttling", "TooManyRequests", "OperationAborted"}
)
_PASSING_STATUSES: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
#: What comes of an answer that is none: a field that is not there, a date that is no date, a document that is not whole.
NO_ANSWER: Final = (KeyError, ValueError, ResponseParserError)
_TLS: Final = re.compile(r"\[SSL: ([A-Z0-9_]+)\]")

Failure: TypeAlias = BotoCoreError | ClientError | KeyError | ValueError | ResponseParserError
FAILURES: Final = (BotoCoreError, ClientError, *NO_ANSWER)


class Kind(Enum):
    """What to do about a failure."""

    #: Try again.
    PASSING = auto()
    #: There is no such object.
    MISSING = auto()
    #: There is no such upload in parts, or no longer.
    UPLOAD_GONE = auto()
    #: The span that was asked for begins behind the end.
    PAST_THE_END = auto()
    #: It will answer the same again.
    REFUSAL = auto()


def kind_of(error: Failure) -> Kind:
    """What to do about it."""
    if isinstance(error, ClientError):
        return _kind_of_answer(*_answer(error))
    if isinstance(error, NoCredentialsError):
        return Kind.REFUSAL
    if isinstance(error, NO_ANSWER) and not isinstance(error, BotoCoreError):
        return Kind.PASSING
    broken = isinstance(error, NoConnectionError | HTTPClientError | IncompleteReadError | ResponseStreamingError)
    return Kind.PASSING if broken else Kind.REFUSAL


def _kind_of_answer(code: str, status: int) -> Kind:
    if code in _MISSING:
        return Kind.MISSING
    if code == "NoSuchUpload":
        return Kind.UPLOAD_GONE
    if code == "InvalidRange" or status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return Kind.PAST_THE_END
    if code in _PASSING or status in _PASSING_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Kind.PASSING
    return Kind.REFUSAL


def told(error: Failure) -> str:
    """What happened, for the log and the operator: a code or a kind, never words that may repeat a header."""
    if isinstance(error, ClientError):
        code, status = _answer(error)
        return f"{error.operation_name}: {code} (HTTP {status})"
    if not isinstance(error, BotoCoreError):
        return f"what answers there is no S3 service, or not all of the time ({type(error).__name__})"
    if isinstance(error, SSLError) and (said := _TLS.search(str(error))):
        return f"SSLError {said[1]}"
    return type(error).__name__


def as_ours(error: Failure) -> StorageUnreachableError:
    """The error that the rest of the house knows."""
    return StorageUnreachableError(SENTENCE, reason=told(error), is_refusal=kind_of(error) is Kind.REFUSAL)


def _answer(error: ClientError) -> tuple[str, int]:
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code, int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class UploadGoneError(StorageUnreachableError):
    """The storage knows no such upload in parts."""

    def __init__(self, cause: Failure) -> None:
        super().__init__(SENTENCE, reason=told(cause))
        self.cause = cause

"""Refusals of jobs in the words of the Comfy API v2: what other dialects call 400, 413, 415 or 503 has other names there.

A create is refused with 422 ``invalid_workflow`` for whatever is wrong with its body, and with 429 and ``Retry-After`` for
whatever is a matter of time: the official clients wait as long as they are told, and try again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import (
    BusyError,
    InvalidInputError,
    QueueFullError,
    TaskUnavailableError,
    TooLargeError,
    UnsupportedMediaError,
    WorkflowError,
)


class QueueFullHereError(QueueFullError):
    """As many jobs wait, or are being received, as may be."""

    status_hint = 429


class NotReadyError(BusyError):
    """Nothing can be taken for now: no worker has said yet what it can do, the gateway stops, the disk is full."""

    code = "deployment_not_ready"
    status_hint = 429


class TooManyStreamsError(BusyError):
    """As many streams are open as may be; polling goes on working."""

    code = "too_many_streams"
    status_hint = 429


@contextmanager
def of_a_create() -> Iterator[None]:
    """Around all that a create does.

    Raises:
        WorkflowError: something is wrong with the request.
        QueueFullHereError, NotReadyError: not now.
        GatewayError: whatever else it was.
    """
    try:
        yield
    except TaskUnavailableError as error:
        raise WorkflowError(error.message, details={"missing": list(error.missing)}) from error
    except (InvalidInputError, TooLargeError, UnsupportedMediaError) as error:
        details = {} if error.field is None else {"field": error.field}
        raise WorkflowError(error.message, details=details) from error
    except BusyError as error:
        kind = QueueFullHereError if isinstance(error, QueueFullError) else NotReadyError
        raise kind(error.message, retry_after_seconds=error.retry_after_seconds) from error

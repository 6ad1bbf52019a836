"""The error tree: every way the gateway says no, with a stable code.

::

    GatewayError
    ├── CallerError                 the request is at fault; trying it again unchanged will not help
    │   ├── InvalidInputError           validation_error        400
    │   ├── TaskUnavailableError        task_unavailable        400
    │   ├── SourceUnreachableError      source_unreachable      400
    │   ├── UnauthorizedError           unauthorized            401
    │   │   └── InvalidKeyError         invalid_api_key         401
    │   ├── InsufficientCreditsError    insufficient_credits    402
    │   ├── ForbiddenError              forbidden               403
    │   ├── NotFoundError               not_found               404
    │   │   └── BlobNotFoundError       blob_not_found          404
    │   ├── MethodNotAllowedError       method_not_allowed      405
    │   ├── ConflictError               conflict                409
    │   │   ├── HashMismatchError       hash_mismatch           409
    │   │   └── AssetInUseError         asset_in_use            409
    │   ├── IdempotencyInFlightError    idempotency_in_flight   409
    │   ├── TooLargeError               too_large               413
    │   ├── UnsupportedMediaError       unsupported_media_type  415
    │   ├── MisdirectedError            misdirected_request     421
    │   ├── IdempotencyMismatchError    idempotency_mismatch    422
    │   ├── IdempotencyReuseError       idempotency_key_reuse   422
    │   ├── WorkflowError               invalid_workflow        422
    │   │   ├── WorkflowFormatError         workflow_format_ui      422
    │   │   └── MissingAssetError           missing_asset           422
    │   ├── ConsentRequiredError        consent_required        422
    │   ├── UnsafeContentError          nsfw_content_detected   422
    │   ├── UpgradeRequiredError        upgrade_required        426
    │   └── RateLimitedError            rate_limited            429
    │       └── ConcurrencyLimitedError rate_limited_concurrent 429
    ├── BusyError                   the gateway is at fault for now; try again later
    │   ├── QueueFullError              queue_full              503
    │   ├── ShuttingDownError           shutting_down           503
    │   │   └── LeaseLostError          shutting_down           503, another gateway has taken over
    │   ├── ApiDisabledError            api_temporarily_disabled 503
    │   ├── StorageUnreachableError     unavailable             503, the object storage does not do as asked
    │   └── StorageFullError            storage_full            507
    ├── TemplateError                   template_error          500, a template on disk is at fault
    └── JobError                    why a job ended as failed; never an HTTP status of its own
        ├── NoFaceFoundError            no_face_found           caller
        ├── ResultUnchangedError        result_unchanged        caller
        ├── UnreadableInputError        unreadable_input        caller
        ├── ContentFlaggedError         content_flagged         caller, an upstream's own filter
        ├── ExpiredError                expired                 gateway
        ├── CredentialLostError         credential_lost         gateway
        ├── RejectedGraphError          graph_rejected          upstream
        ├── NodeFailedError             node_failed             upstream
        ├── UpstreamMemoryError         out_of_memory           upstream, another upstream may manage
        ├── ResultInvalidError          result_invalid          upstream
        ├── UpstreamLostError           upstream_lost           upstream, all attempts are used up
        ├── PoisonedError               poisoned                upstream, it took several of them down
        └── InternalJobError            internal_error          gateway

Only ``api/problems.py`` and the dialects turn these into HTTP. The sentence in ``str(error)`` is meant for the
client: it never holds a path, an address, a traceback or anything an upstream said word for word.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar


class Fault(StrEnum):
    """Whose fault an error is."""

    CALLER = "caller"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class GatewayError(Exception):
    """Root of the tree.

    Args:
        message: one sentence for the client.
        field: the request field at fault, as the client spells it.
        retry_after_seconds: when it makes sense to ask again.
    """

    code: ClassVar[str] = "internal_error"
    fault: ClassVar[Fault] = Fault.GATEWAY
    status_hint: ClassVar[int] = 500

    def __init__(self, message: str, *, field: str | None = None, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class CallerError(GatewayError):
    """The request is at fault."""

    code = "bad_request"
    fault = Fault.CALLER
    status_hint = 400


class InvalidInputError(CallerError):
    """A field is missing, malformed, out of range or contradicts another."""

    code = "validation_error"


class TaskUnavailableError(CallerError):
    """No upstream can run this task, and the client did not want to wait for one that could.

    Attributes:
        missing: what upstreams lack for it, one sentence each; no addresses. The message holds them too.
    """

    code = "task_unavailable"

    def __init__(self, message: str, *, field: str | None = None, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message, field=field)
        self.missing = missing

    @classmethod
    def of(cls, task: str, missing: tuple[str, ...]) -> TaskUnavailableError:
        """The refusal of a task, with the list of what is missing for it in its sentence."""
        return cls(f"No worker can run {task} now. Missing: {'; '.join(missing)}.", missing=missing)


class SourceUnreachableError(CallerError):
    """A URL input could not be fetched.

    One sentence for every cause (blocked, refused, timed out, not there), so that nobody can map a network with it.
    """

    code = "source_unreachable"


class UnauthorizedError(CallerError):
    """No credentials, or not in a form that we read."""

    code = "unauthorized"
    status_hint = 401


class InvalidKeyError(UnauthorizedError):
    """A key that opens nothing: unknown, revoked, past its time, mistyped. Nobody is told which."""

    code = "invalid_api_key"

    def __init__(self, message: str = "This key opens nothing here.") -> None:
        super().__init__(message)


class InsufficientCreditsError(CallerError):
    """The user's purses hold less than the job costs; nothing was taken from them."""

    code = "insufficient_credits"
    status_hint = 402


class ForbiddenError(CallerError):
    """The caller is known and may not do this, or the page that sent the request may not."""

    code = "forbidden"
    status_hint = 403


class NotFoundError(CallerError):
    """There is no such thing, or it is not the caller's: the two are told apart nowhere."""

    code = "not_found"
    status_hint = 404


class BlobNotFoundError(NotFoundError):
    """No bytes of this hash that the caller may use: nobody sent them, or somebody else did."""

    code = "blob_not_found"


class MethodNotAllowedError(CallerError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status_hint = 405


class ConflictError(CallerError):
    """The thing is in a state in which this cannot be done."""

    code = "conflict"
    status_hint = 409


class HashMismatchError(ConflictError):
    """What arrived is not what the client said it would send; nothing was kept."""

    code = "hash_mismatch"


class AssetInUseError(ConflictError):
    """A job needs this file, or made it; which one and how is not told."""

    code = "asset_in_use"


class IdempotencyInFlightError(CallerError):
    """The first request with this Idempotency-Key has not been answered yet."""

    code = "idempotency_in_flight"
    status_hint = 409


class TooLargeError(CallerError):
    """A limit was passed; the sentence names the limit."""

    code = "too_large"
    status_hint = 413


class UnsupportedMediaError(CallerError):
    """The bytes are not of a kind that is accepted here."""

    code = "unsupported_media_type"
    status_hint = 415


class MisdirectedError(CallerError):
    """The Host header names a host that this gateway does not serve."""

    code = "misdirected_request"
    status_hint = 421


class IdempotencyMismatchError(CallerError):
    """The Idempotency-Key was used before, for a request that said something else."""

    code = "idempotency_mismatch"
    status_hint = 422


class IdempotencyReuseError(CallerError):
    """The Idempotency-Key was used before, in an API where each is good for one request."""

    code = "idempotency_key_reuse"
    status_hint = 422


class WorkflowError(CallerError):
    """A client's own graph cannot be run.

    Attributes:
        details: what a program can read of it. ``node_errors``: node id -> a list of ``{field, reason, message}``;
            ``upstreams``: name of an upstream -> what it lacks, in sentences; ``missing_ids``: assets that are not the caller's.
    """

    code = "invalid_workflow"
    status_hint = 422

    def __init__(self, message: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details: Mapping[str, object] = details or {}


class WorkflowFormatError(WorkflowError):
    """The graph is in the editor's own format, not the one that runs."""

    code = "workflow_format_ui"


class MissingAssetError(WorkflowError):
    """The graph names a file that is not there, or not the caller's: the two are told apart nowhere."""

    code = "missing_asset"


class ConsentRequiredError(CallerError):
    """Faces are swapped here only where it is said that the people in the pictures agreed, and it was not said."""

    code = "consent_required"
    status_hint = 422


class UnsafeContentError(CallerError):
    """The safety check flagged an input; nothing of it was kept."""

    code = "nsfw_content_detected"
    status_hint = 422


class UpgradeRequiredError(CallerError):
    """The path speaks WebSocket only."""

    code = "upgrade_required"
    status_hint = 426


class RateLimitedError(CallerError):
    """Too many in too short a time; ``retry_after_seconds`` says when there is room again."""

    code = "rate_limited"
    status_hint = 429


class ConcurrencyLimitedError(RateLimitedError):
    """As many creates are in flight as the key may have; this one touched nothing."""

    code = "rate_limited_concurrent"


class BusyError(GatewayError):
    """Not now; nothing was stored."""

    code = "unavailable"
    status_hint = 503


class QueueFullError(BusyError):
    """As many jobs wait as may wait."""

    code = "queue_full"


class ShuttingDownError(BusyError):
    """The gateway is about to stop and takes nothing new."""

    code = "shutting_down"


class LeaseLostError(ShuttingDownError):
    """Another gateway has taken over what this one held: nothing was written, and this one is about to end."""


class ApiDisabledError(BusyError):
    """An API is switched off for now, or nothing that would do its work is there, the safety check among it."""

    code = "api_temporarily_disabled"


class StorageUnreachableError(BusyError):
    """Not now: nothing was stored, or the storage of files does not answer; the log has what it said.

    Attributes:
        reason: for the log and the operator: what it said, or how it could not be reached; never a secret.
        is_refusal: it answered, and will answer the same again: rights, a bucket that is not there.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_seconds: int | None = 10,
        reason: str = "",
        is_refusal: bool = False,
    ) -> None:
        super().__init__(message, field=field, retry_after_seconds=retry_after_seconds)
        self.reason = reason
        self.is_refusal = is_refusal


class StorageFullError(BusyError):
    """The disk has no room for this."""

    code = "storage_full"
    status_hint = 507


class TemplateError(GatewayError):
    """A template cannot be loaded or bound.

    Attributes:
        template: its name.
        node: title or id of the node at fault, or None.
        input_name: the node input at fault, or None.
        reason: what is wrong with it.
    """

    code = "template_error"

    def __init__(self, template: str, reason: str, *, node: str | None = None, input_name: str | None = None) -> None:
        self.template = template
        self.node = node
        self.input_name = input_name
        self.reason = reason
        where = f"template {template!r}"
        if node is not None:
            where += f", node {node!r}"
        if input_name is not None:
            where += f", input {input_name!r}"
        super().__init__(f"{where}: {reason}")


class JobError(GatewayError):
    """Why a job failed; its code and sentence are stored with the job."""

    code = "job_failed"


class NoFaceFoundError(JobError):
    """The engine found no face to swap, and said so."""

    code = "no_face_found"
    fault = Fault.CALLER


class ResultUnchangedError(JobError):
    """The result is the target: nothing was swapped, and nobody said why."""

    code = "result_unchanged"
    fault = Fault.CALLER


class UnreadableInputError(JobError):
    """An upstream could not decode an input that we could."""

    code = "unreadable_input"
    fault = Fault.CALLER


class ContentFlaggedError(JobError):
    """An upstream's own content filter took what it was given for something that it does not work on."""

    code = "content_flagged"
    fault = Fault.CALLER


class ExpiredError(JobError):
    """It waited longer than QUEUE_TTL."""

    code = "expired"


class CredentialLostError(JobError):
    """It came with a secret, which is in memory only, and the gateway was restarted before it was needed again."""

    code = "credential_lost"


class RejectedGraphError(JobError):
    """An upstream refused the graph; what it said is in the log."""

    code = "graph_rejected"
    fault = Fault.UPSTREAM


class NodeFailedError(JobError):
    """A node of the graph raised."""

    code = "node_failed"
    fault = Fault.UPSTREAM


class UpstreamMemoryError(JobError):
    """The upstream ran out of memory; a larger one may manage."""

    code = "out_of_memory"
    fault = Fault.UPSTREAM


class ResultInvalidError(JobError):
    """The result is not what it claims to be."""

    code = "result_invalid"
    fault = Fault.UPSTREAM


class UpstreamLostError(JobError):
    """Every attempt was lost with its upstream."""

    code = "upstream_lost"
    fault = Fault.UPSTREAM


class PoisonedError(JobError):
    """Upstreams died of it, one after the other, each alone; which and when is in the log and with the attempts."""

    code = "poisoned"
    fault = Fault.UPSTREAM


class InternalJobError(JobError):
    """Our own fault; the log has the rest under the job's id."""

    code = "internal_error"

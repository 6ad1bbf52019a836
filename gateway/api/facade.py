"""What the windows know of the engine: one facade, and nothing behind it.

``gateway/engine/service.py`` is the real one. It stands here as a Protocol, so that every window can be tried against a
fake, and so that a reader sees at a glance what a handler can reach. The values that pass through it are the engine's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from gateway.accounts import DEFAULT_TIER, Keyholder, User
from gateway.api.downloads import FileBytes
from gateway.asset_links import AssetLink
from gateway.audit import MediaKind
from gateway.consent import Attestation, ConsentRecord
from gateway.delivering import Delivery, DeliveryState, Destination
from gateway.engine.accounts import NewKey, Told
from gateway.engine.assets import Upload
from gateway.engine.claims import Done
from gateway.engine.credits import Statement
from gateway.engine.health import Health, HealthStatus
from gateway.engine.members import MemberView
from gateway.engine.purging import Purge
from gateway.engine.restarting import Restarts
from gateway.engine.submitting import Submission, SubmittedFile
from gateway.engine.task_types import TaskParameter, TaskType
from gateway.engine.template_views import TemplateView
from gateway.engine.waits import Wait
from gateway.engine.webhook_secrets import NewSecret
from gateway.engine.workflow_jobs import WorkflowSubmission
from gateway.events import Event, Progress
from gateway.faces import FaceReport
from gateway.idempotency import Answer, Claim, Wanted
from gateway.interfaces import Asset, Blob, BlobWriter, Clock, Minted, Subscription, Watcher
from gateway.job import Job, JobResult, JobState
from gateway.ledger import Account
from gateway.outbox import Answer as WebhookAnswer
from gateway.outbox import Message, MessageState

__all__ = [
    "Accounts",
    "Asset",
    "AssetLink",
    "Assets",
    "Claims",
    "Consents",
    "Credits",
    "Done",
    "Health",
    "HealthStatus",
    "InputBlobs",
    "MemberView",
    "Minted",
    "NewKey",
    "Purge",
    "Service",
    "ServiceBlobs",
    "Statement",
    "Stopping",
    "Submission",
    "SubmittedFile",
    "TaskParameter",
    "TaskType",
    "TemplateView",
    "Told",
    "Upload",
    "Wait",
    "Webhooks",
    "WorkflowSubmission",
]


class ServiceBlobs(FileBytes, Protocol):
    """The part of ``interfaces.Blobs`` that windows need: take bytes in, give bytes out."""

    async def writer(self, *, expected_bytes: int | None = None) -> BlobWriter:
        """A new writer; refuses with StorageFullError when ``expected_bytes`` surely do not fit."""
        ...


class Stopping(Protocol):
    """Set once, when the process is told to stop."""

    def is_set(self) -> bool:
        """Whether it was."""
        ...

    async def wait(self) -> object:
        """Return when it is."""
        ...


class Archive(Protocol):
    """What an operator may do with everything that is kept."""

    async def purge_job(self, job_id: str, *, consents: bool = False) -> Purge:
        """Forget an ended job and its files, whoever owns it. Raises NotFoundError, ConflictError.

        With ``consents`` what was said of the people in them as well; it stays otherwise.
        """
        ...

    async def purge_owner(self, owner: str, *, consents: bool = False) -> Purge:
        """Forget all jobs and files of an owner. Raises ConflictError while one has not ended."""
        ...

    def backup(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A tar of database and files, chunk by chunk. Raises BusyError, StorageFullError on entering."""
        ...


class Accounts(Protocol):
    """Users and keys."""

    async def keyholder(self, text: str) -> Keyholder | None:
        """Who presents this key; None when it opens nothing."""
        ...

    async def keyholder_with(self, key_id: str) -> Keyholder | None:
        """Who has the key with this id, while it opens anything."""
        ...

    async def create_user(self, name: str, *, tier: str = DEFAULT_TIER, email_verified: bool = False) -> User:
        """Make a user. Raises InvalidInputError, ConflictError."""
        ...

    async def users(self, *, after: str = "", limit: int = 100) -> Sequence[User]:
        """Those made after the one with the id ``after``, the oldest first."""
        ...

    async def create_key(self, new: NewKey) -> Told:
        """Make a key, whose text is told now and never again. Raises InvalidInputError, NotFoundError, ConflictError."""
        ...

    async def keys(self, *, after: str = "", limit: int = 100) -> Sequence[Keyholder]:
        """Those made after the one with the id ``after``, the oldest first; revoked ones too."""
        ...

    async def revoke_key(self, key_id: str) -> Keyholder:
        """Have a key open nothing from now on. Raises NotFoundError."""
        ...

    async def rotate_key(self, key_id: str, *, overlap_seconds: float = 0.0) -> Told:
        """Give a key a new text. Raises NotFoundError, ConflictError, InvalidInputError."""
        ...


class Credits(Protocol):
    """Users' credits."""

    async def account(self, user_id: str) -> Account:
        """A user's purses as they are by now."""
        ...

    async def require(self, user_id: str, least: int) -> None:
        """A user has so many. Raises InsufficientCreditsError."""
        ...

    async def statement(self, name: str) -> Statement:
        """What the user of this name has, and why. Raises NotFoundError."""
        ...

    async def grant(self, name: str, purse: str, amount: int) -> Statement:
        """Give credits to the user of this name. Raises InvalidInputError, NotFoundError."""
        ...


class Claims(Protocol):
    """Requests that are done once."""

    async def once(
        self,
        wanted: Wanted,
        make: Callable[[Claim], Awaitable[Answer]],
        *,
        room: Callable[[], AbstractContextManager[None]],
        until: float,
    ) -> Done:
        """The answer to a request that is done once: made now, waited for, or told again; see ``engine/claims.py``.

        Raises IdempotencyMismatchError, IdempotencyInFlightError, and what ``room`` and ``make`` raise.
        """
        ...

    async def require_unused(self, wanted: Wanted) -> None:
        """Refuse a key that ``single`` would refuse, before much is done for it. Raises IdempotencyReuseError."""
        ...

    def single(self, wanted: Wanted) -> AbstractAsyncContextManager[Claim]:
        """The claim of a key that is good for one request, for the length of a block; see ``engine/claims.py``.

        Raises IdempotencyReuseError on entering.
        """
        ...


class Assets(Protocol):
    """Files that clients send by themselves, and results by their ids."""

    async def upload(self, upload: Upload, *, claim: Claim | None = None) -> Minted:
        """Keep a received file; ``claim`` is used up by it. Raises HashMismatchError, IdempotencyInFlightError."""
        ...

    async def from_hash(
        self,
        owner: str,
        blob_hash: str,
        *,
        file_path: str | None = None,
        tags: tuple[str, ...] = (),
        expires_in_seconds: float | None = None,
    ) -> Minted:
        """An asset over bytes that the owner has already. Raises BlobNotFoundError."""
        ...

    async def by_hash(self, owner: str, blob_hash: str) -> Asset:
        """Something that the owner has of these bytes. Raises BlobNotFoundError."""
        ...

    async def get(self, asset_id: str, owner: str) -> Asset:
        """An owner's upload or result. Raises NotFoundError."""
        ...

    async def named(self, file_path: str, owner: str) -> Asset:
        """An owner's newest upload of this name. Raises NotFoundError."""
        ...

    async def opened(self, asset_id: str, expires: str, signature: str) -> Asset:
        """What a link opens. Raises ForbiddenError, NotFoundError."""
        ...

    def link(self, asset_id: str, until: float | None) -> AssetLink:
        """A link that opens an asset without a key, until it expires at the latest."""
        ...

    async def delete(self, asset_id: str, owner: str) -> None:
        """Forget an owner's upload. Raises NotFoundError, AssetInUseError."""
        ...


class Webhooks(Protocol):
    """The owners' side of webhooks."""

    async def messages(
        self, owner: str, *, state: MessageState | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[Message]:
        """An owner's messages, newest first."""
        ...

    async def redeliver(self, message_id: str, owner: str) -> Message:
        """Have a message sent again, under its id. Raises NotFoundError."""
        ...

    async def test(
        self, owner: str, account: str, url: str, body: Callable[[float], bytes]
    ) -> tuple[str, WebhookAnswer]:
        """One attempt with a message that means nothing; its id, and what came of it."""
        ...

    async def new_secret(self, account: str) -> NewSecret:
        """A new secret, told this once. Raises ConflictError."""
        ...


class Deliveries(Protocol):
    """Where finished files are put."""

    async def wish(self, destination: Destination, owner: str, *, field: str = ...) -> Mapping[str, object]:
        """What a job's ``extra`` holds of where its client wants its files, under ``delivering.FIELD``.

        Raises InvalidInputError on ``field``.
        """
        ...

    async def of(self, jobs: Sequence[Job]) -> Mapping[str, Sequence[Delivery]]:
        """Deliveries by job, of those jobs that have any."""
        ...

    async def is_pending(self, job_id: str) -> bool:
        """Whether one of a job's is not over."""
        ...

    async def listed(
        self, owner: str | None, *, state: DeliveryState | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[Delivery]:
        """An owner's, or with None everybody's, newest first."""
        ...

    async def redeliver(self, delivery_id: str, owner: str | None) -> Delivery:
        """Have one made now, and by the schedule from its beginning. Raises NotFoundError, ConflictError."""
        ...


class Consents(Protocol):
    """What was said of the people in the pictures."""

    def check(self, given: Attestation | None, task: str) -> None:
        """Before anything is fetched: may this task be asked for with this? Raises ConsentRequiredError."""
        ...

    async def record(self, job_id: str) -> ConsentRecord:
        """That of a job. Raises NotFoundError."""
        ...

    async def records(
        self, *, owner: str | None = None, since: float = 0.0, after: str | None = None, limit: int = 100
    ) -> Sequence[ConsentRecord]:
        """Oldest first; ``after`` is the job of the last one already seen. Raises InvalidInputError."""
        ...


class Service(Protocol):
    """The engine, as the windows see it. Every ``GatewayError`` it raises has a sentence fit for clients."""

    #: Of the gateway's own processes.
    restarts: Restarts

    @property
    def blobs(self) -> ServiceBlobs:
        """Where inputs go and results come from."""
        ...

    @property
    def clock(self) -> Clock:
        """The engine's time, so that what is shown agrees with what is stored."""
        ...

    @property
    def accounts(self) -> Accounts:
        """Users and keys."""
        ...

    @property
    def credits(self) -> Credits:
        """What users have."""
        ...

    @property
    def claims(self) -> Claims:
        """Idempotency keys."""
        ...

    @property
    def assets(self) -> Assets:
        """Files by their ids."""
        ...

    @property
    def webhooks(self) -> Webhooks:
        """What is told to webhooks."""
        ...

    @property
    def deliveries(self) -> Deliveries:
        """Where finished files are put."""
        ...

    @property
    def consents(self) -> Consents:
        """What was said of the people in the pictures."""
        ...

    @property
    def archive(self) -> Archive:
        """Purge and backup."""
        ...

    @property
    def stopping(self) -> Stopping:
        """Whoever sets it wakes every subscription afterwards, so that streams look at it at once."""
        ...

    def least_price(self, task: str, target: MediaKind) -> int:
        """Credits that a job of this task costs at least. Raises TemplateError, InvalidInputError."""
        ...

    async def submit(self, submission: Submission) -> Job:
        """Probe, choose a template, store. On a refusal the inputs' bytes are taken back.

        Raises InvalidInputError, TaskUnavailableError (``must_be_runnable``), QueueFullError and other GatewayErrors.
        """
        ...

    async def submit_workflow(self, submission: WorkflowSubmission) -> Job:
        """Judge a client's own graph and store it as a job.

        Raises WorkflowError and its kin with ``details``, BusyError while no upstream has said what it can do, and other
        GatewayErrors.
        """
        ...

    async def workflow(self, job: Job) -> Mapping[str, Any]:
        """The graph behind a job: as its client sent it, else its template's. Raises NotFoundError."""
        ...

    def workflow_price(self) -> int:
        """Credits that a job of a client's own graph costs."""
        ...

    async def discard(self, blobs: Iterable[Blob]) -> None:
        """Take back bytes that led to no job."""
        ...

    def check_url(self, url: str, *, field: str, https_only: bool = False) -> None:
        """The verdict on a URL that needs no network. Raises InvalidInputError."""
        ...

    def check_webhook(self, url: str, *, field: str, https_only: bool = False) -> None:
        """The verdict on a URL that is called when a job has ended; needs no network. Raises InvalidInputError."""
        ...

    async def vet_url(self, url: str, *, field: str) -> None:
        """The verdict on an https URL that is called later: a look-up, no connection.

        Raises InvalidInputError for its text, SourceUnreachableError for where it leads.
        """
        ...

    async def fetch_url(
        self,
        url: str,
        *,
        field: str,
        kinds: frozenset[MediaKind],
        https_only: bool = False,
        deadline_seconds: float | None = None,
    ) -> SubmittedFile:
        """Fetch a URL input into the blob store. Raises SourceUnreachableError and the errors of uploads."""
        ...

    async def job(self, job_id: str, owner: str) -> Job:
        """One job of ``owner``. Raises NotFoundError."""
        ...

    async def jobs(
        self,
        owner: str,
        *,
        states: frozenset[JobState] | None = None,
        task: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[Job]:
        """An owner's jobs, newest first. Raises InvalidInputError where ``before`` is none of them."""
        ...

    async def events_after(self, job_id: str, number: int) -> Sequence[Event]:
        """Durable events with a higher number, in order; ask again from the last one until none come."""
        ...

    def subscribe(self, job_id: str, *, previews: bool = False) -> Subscription:
        """Listen to a job from now on. Args: previews: be woken by them, too."""
        ...

    def watch(self, watcher: Watcher) -> None:
        """Have it called on every change of any job; it stays for good."""
        ...

    def progress(self, job_id: str) -> Progress | None:
        """The newest snapshot of a job that is at work."""
        ...

    async def faces(self, job: Job) -> FaceReport | None:
        """What a detection found; None while it has not ended well, and when its report is kept no longer."""
        ...

    def detectors(self) -> Sequence[str]:
        """By which detectors faces would be found now."""
        ...

    def is_preparing(self, job: Job) -> bool:
        """Whether a queued job's inputs are on their way to an upstream."""
        ...

    async def queue_position(self, job_id: str) -> int | None:
        """How many were queued before it, from 0; None when it does not wait."""
        ...

    async def why_waiting(self, job: Job) -> Wait | None:
        """Why a job waits; None when it does not."""
        ...

    async def result(self, link: str) -> tuple[Job, JobResult]:
        """A finished file by its capability name. Raises NotFoundError."""
        ...

    async def cancel(self, job_id: str, owner: str, from_states: frozenset[JobState] | None = None) -> Job:
        """Cancel (default: whatever has not ended). Raises NotFoundError, ConflictError."""
        ...

    def health(self) -> Health:
        """How everything is, from memory: no upstream is asked."""
        ...

    def upstreams(self) -> Sequence[MemberView]:
        """All upstreams."""
        ...

    async def set_draining(self, name: str, *, draining: bool) -> None:
        """Stop or resume giving an upstream work. Raises NotFoundError."""
        ...

    async def add_upstream(self, url: str, name: str | None = None) -> MemberView:
        """Take one more into the pool. Raises InvalidInputError, ConflictError."""
        ...

    async def remove_upstream(self, name: str) -> None:
        """Let one go. Raises NotFoundError, ConflictError."""
        ...

    def templates(self) -> Sequence[str]:
        """Names of the templates that serve."""
        ...

    def template_views(self) -> Sequence[TemplateView]:
        """The templates that serve, by name, with what keeps each from running now."""
        ...

    def task_types(self) -> Sequence[TaskType]:
        """What jobs can be asked for, by name, with what keeps each from running now."""
        ...


class InputBlobs:
    """Where uploads go: the blob store to write into, the engine to take bytes back, for it knows who else holds them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def writer(self, *, expected_bytes: int | None = None) -> BlobWriter:
        """A new writer; refuses with StorageFullError when ``expected_bytes`` surely do not fit."""
        return await self._service.blobs.writer(expected_bytes=expected_bytes)

    async def discard(self, blob: Blob) -> bool:
        """Take back a commit that led to nothing."""
        await self._service.discard([blob])
        return True

"""What the engine and the windows need of the workshops, as Protocol classes.

``engine/`` and ``api/`` know these and no concrete class; ``main.py`` puts the workshops in. Values that cross a seam
are frozen dataclasses from here or from the ground modules.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from gateway.accounts import Key as AccountKey
from gateway.accounts import Keyholder, User
from gateway.audit import KEEPS_ALL, Comparison, Keeps, MediaFacts, MediaKind, Survey
from gateway.comfy.messages import Message, OutputFile
from gateway.consent import Attestation, ConsentRecord
from gateway.delivering import Answer as UploadAnswer
from gateway.delivering import Delivery as OutputDelivery
from gateway.delivering import DeliveryState, Upload
from gateway.events import Event, Passing, PreviewImage, Progress
from gateway.idempotency import Answer, Claim, Standing, Wanted
from gateway.job import Cause, Job, JobInput, JobResult, JobState, RetryLimits, Task, TaskEvent
from gateway.ledger import Account, Entry, Purse
from gateway.outbox import Answer as WebhookAnswer
from gateway.outbox import Delivery, SealedSecret, Verdict
from gateway.outbox import Message as WebhookMessage
from gateway.outbox import MessageState as WebhookState
from gateway.poison import Trail
from gateway.screening import Opinion, Pending
from gateway.timings import Key, Row

# ---------------------------------------------------------------------------------------------------------------- time


class Clock(Protocol):
    """Time, handed in so that tests can freeze it."""

    def now(self) -> float:
        """Wall time in Unix seconds: for what is stored and shown."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: for time-outs."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Come back after ``seconds``."""
        ...


# --------------------------------------------------------------------------------------------------------------- blobs


@dataclass(frozen=True, slots=True)
class Blob:
    """Content-addressed bytes."""

    #: blake3 of the bytes, 64 lower-case hex digits.
    hash: str
    size_bytes: int


class BlobWriter(Protocol):
    """One blob on its way in. Leaving the context without ``commit`` leaves nothing behind."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def write(self, data: bytes) -> None:
        """Take bytes; returns when there is room for more. Raises StorageFullError."""
        ...

    async def commit(self) -> Blob:
        """Make it durable under its hash: synced, renamed, and touched if it was there already."""
        ...

    async def abort(self) -> None:
        """Drop what was written; harmless after ``commit``."""
        ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """What object storage did not do when it was asked last."""

    #: A code or a kind of failure, for the operator.
    reason: str
    #: It answered and refused; else it does not answer, or not as such a service does.
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class BlobsState:
    """How the place is where bytes live, from memory."""

    #: ``s3://bucket/prefix/``; None: the data directory.
    location: str | None = None
    trouble: Trouble | None = None

    @property
    def is_away(self) -> bool:
        """Whether nobody answers there."""
        return self.trouble is not None and not self.trouble.is_refusal


class Blobs(Protocol):
    """Where bytes live."""

    async def writer(self, *, expected_bytes: int | None = None) -> BlobWriter:
        """A new writer; refuses with StorageFullError when ``expected_bytes`` surely do not fit."""
        ...

    async def adopt(self, path: Path) -> Blob:
        """Make a finished file on this machine a blob, as a writer's commit does. Raises StorageFullError.

        The file is gone from ``path`` afterwards, also when that fails.
        """
        ...

    def held(self, blob_hash: str) -> AbstractAsyncContextManager[Path]:
        """A file with the bytes of a committed blob, for media work, that stays at least as long as the context.

        Where blobs lie elsewhere they are brought here on entering. Raises FileNotFoundError there, and StorageFullError and
        StorageUnreachableError; where they lie here, whoever opens the file finds out.
        """
        ...

    def stream(self, blob_hash: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from ``start`` up to but without ``end``."""
        ...

    async def exists(self, blob_hash: str) -> bool:
        """Whether it is there."""
        ...

    async def delete(self, blob_hash: str, *, untouched_since: float) -> bool:
        """Delete it unless it was committed or touched at or after ``untouched_since`` (Unix seconds)."""
        ...

    async def discard(self, blob: Blob) -> bool:
        """Take back a commit that led to nothing; the bytes stay where somebody else committed the same."""
        ...

    async def untouched(self, *, since: float) -> Sequence[str]:
        """Hashes of all blobs not committed or touched since (Unix seconds). Raises StorageUnreachableError."""
        ...

    async def tidy(self) -> None:
        """Finish what earlier calls, or a killed run, had to leave. Called with each sweep."""
        ...

    async def link(self, blob_hash: str, *, filename: str, content_type: str) -> str | None:
        """Where a client may fetch it without us, for a while, to be saved under that name; None: nowhere."""
        ...

    def state(self) -> BlobsState:
        """How the place is, from memory."""
        ...

    async def probe(self) -> None:
        """Ask the place how it is, so that ``state`` knows though nobody wants anything of it. Raises nothing."""
        ...


# ------------------------------------------------------------------------------------------------------ object storage


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a bucket."""

    #: Below the bucket's prefix.
    key: str
    size_bytes: int
    #: Unix seconds, by the storage's own clock; of a large one, on some servers, when its upload began.
    modified_at: float
    #: 64 hex digits, where ``Bucket.put`` has left them with the object; listings do not tell.
    sha256: str | None = None


class Bucket(Protocol):
    """One prefix of a bucket in object storage, which the operator has named. Keys are relative to it.

    Everything raises StorageUnreachableError, after a few tries within about half a minute where trying again can help.
    """

    def location(self, key: str) -> str:
        """How an operator finds an object: ``s3://bucket/prefix/key``."""
        ...

    async def put(
        self, key: str, path: Path, *, content_type: str = "application/octet-stream", filename: str | None = None
    ) -> StoredObject:
        """Have the bytes of a file stored, in memory that does not depend on their number; what is there is replaced.

        The object is there whole or not at all: its bytes are checked by their MD5 where they arrive, part by part, and
        its size is asked for afterwards. A canceled put leaves nothing, a killed one parts for ``abort_unfinished``.

        Args:
            key: its name.
            path: a file that nobody writes to.
            content_type: what it says of itself.
            filename: what it is to be called when somebody saves it; None: nothing is said.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    async def look(self, key: str) -> StoredObject | None:
        """What is there; None when nothing is."""
        ...

    async def copy(self, source: str, key: str, *, content_type: str, filename: str, sha256: str) -> None:
        """Have an object stored under another key, too, in place of what is there; its bytes do not come here.

        Args:
            source: the key of what is there, at most 5 GiB.
            key: the other name.
            content_type: as with ``put``.
            filename: as with ``put``.
            sha256: 64 hex digits, left with the object; nobody checks them.

        Raises:
            FileNotFoundError: there is nothing to copy.
        """
        ...

    async def sha256_found(self, key: str) -> str | None:
        """What the storage itself has worked out of an object's bytes, as 64 hex digits; None where it has not."""
        ...

    def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """Bytes from ``start`` up to but without ``end``, all of one object. Raises FileNotFoundError."""
        ...

    async def delete(self, key: str) -> None:
        """Have it gone; it may be gone already."""
        ...

    async def presigned_get(
        self, key: str, *, seconds: int, filename: str, content_type: str, disposition: str = "attachment"
    ) -> str:
        """A link that anybody may GET for a while, with type, name and disposition of our choice. Nothing is asked for it."""
        ...

    async def presigned_put(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        """A link that anybody may PUT bytes to for a while; with ``content_type``, only under a header of that type."""
        ...

    def listed(self, under: str = "") -> AsyncIterator[StoredObject]:
        """All objects whose key begins so, in the order of their keys."""
        ...

    async def abort_unfinished(self, *, older_than: float, under: str = "") -> int:
        """Drop uploads in parts, below such keys, that were begun before then (Unix seconds) and are none of this process.

        Returns:
            How many.
        """
        ...

    def trouble(self) -> Trouble | None:
        """What it does not do, as far as that was tried last; None when all went well, or nothing was asked yet."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads, once what was begun has ended."""
        ...


# --------------------------------------------------------------------------------------------------------------- media


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a copy of a result is."""

    facts: MediaFacts
    #: Whether its first frame alone shows that it is another picture than its target's; no says nothing.
    is_changed: bool = False


class Media(Protocol):
    """Decoding, in processes that may die of it."""

    async def probe(
        self, path: Path, *, field: str, accept: frozenset[MediaKind], size_bytes: int | None = None
    ) -> MediaFacts:
        """What the file is, fully checked. Raises InvalidInputError, UnsupportedMediaError, TooLargeError on ``field``.

        ``size_bytes``, where it is known, spares asking the disk.
        """
        ...

    async def compare(self, target: Path, result: Path, *, crf: int | None, all_frames: bool) -> Comparison:
        """Compare a result with its target; ``crf`` is that of the template's encoder, None for lossless."""
        ...

    async def survey(self, path: Path, *, source: Path | None) -> Survey:
        """What a result looks like, beside the still that it enlarges where there is one."""
        ...

    async def sample(self, path: Path, into: Path, *, field: str, most: int, longest_side: int) -> Sequence[Path]:
        """Write pictures of a probed input into a folder, as PNG without alpha: upright, made small, whole.

        Of what moves at most ``most`` frames, spread by time. Each that one can see through is written three times: with
        the colours that are hidden there, on white, on black. Raises InvalidInputError, BusyError.
        """
        ...

    async def skim(self, path: Path) -> MediaFacts | None:
        """What a video is by its index alone, nothing of it decoded; None where that does not say, or says that it is cut."""
        ...

    async def measure(self, path: Path) -> MediaFacts | None:
        """What a picture or video is that is passed on as it was made; None where it is not decoded here.

        Raises ResultInvalidError when it is damaged.
        """
        ...

    async def clean(
        self,
        path: Path,
        out: Path,
        *,
        like: Path | None = None,
        keeps: frozenset[Keeps] = KEEPS_ALL,
        is_compared: bool = False,
        crf: int | None = None,
        size_bytes: int | None = None,
    ) -> Cleaned:
        """Write a copy without the upstream's private metadata, pixels untouched; its facts.

        ``like`` is the target: a video gets its timing and its sound, a GIF its delays and its loop, as far as
        ``keeps`` names them; a PNG gets the colour profile of a still. With ``is_compared`` a first look is taken at
        whether it is changed, for which ``crf`` is as in ``compare``. ``size_bytes`` of the file and of ``like`` together,
        where it is known, spares asking the disk.
        """
        ...


# -------------------------------------------------------------------------------------------------------------- safety


class SafetyCheck(Protocol):
    """Says of pictures whether they should be worked on: a model of the operator's, or a service."""

    @property
    def name(self) -> str:
        """``model`` or ``service``."""
        ...

    async def look(self, picture: Path, *, reference: str) -> Opinion | Pending:
        """What it says of a PNG file. Bounded in time; never blocks the event loop.

        Args:
            picture: made by ``Media.sample``.
            reference: the same for the same picture of the same input, however often it is asked about.

        Raises:
            CheckFailedError: it cannot say anything.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


# --------------------------------------------------------------------------------------------------------------- store


@dataclass(frozen=True, slots=True)
class Promise:
    """What is told again to whoever repeats a request."""

    claim: Claim
    #: The answer that the request gets; called in the store's transaction, so it is quick and looks at nothing else.
    answer: Callable[[Job], Answer]


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """An entry of a user's ledger, as it lies in the store."""

    #: Unix seconds.
    at: float
    entry: Entry
    #: With holds, charges and refunds. The job may be forgotten by now.
    job_id: str | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a new job is stored with; one task for now."""

    id: str
    task_id: str
    owner: str
    submitter: str
    dialect: str
    task: str
    template: str
    template_version: str
    priority: int
    parameters: Mapping[str, object]
    inputs: Mapping[str, JobInput]
    output_name: str
    queue_deadline: float
    #: What an upstream must have for it, as one comparable key: same key, same needs.
    requirement: str
    #: Predicted GPU seconds; only their proportions matter.
    cost_seconds: float
    #: Credits, for the user whose key owns it.
    price: int = 0
    #: Kept in the transaction that creates it.
    promise: Promise | None = None
    #: The client's own graph and what belongs to it, in JSON; None for jobs of templates.
    workflow: str | None = None
    #: Told as events right after the first: code and sentence.
    warnings: tuple[tuple[str, str], ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)
    #: That the people in the pictures agreed, where it was said; recorded in the same transaction.
    consent: Attestation | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued task, as the scheduler sees it."""

    task_id: str
    job_id: str
    submitter: str
    requirement: str
    priority: int
    #: Unix seconds of the first time it was queued, so a retried task keeps its place.
    queued_at: float
    cost_seconds: float
    #: Hashes of the inputs, for affinity to where they are staged.
    blobs: frozenset[str]
    size_bytes: int
    attempt: int
    losses: int
    #: Upstream that lost it last, to be avoided where there is another.
    avoid: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What happened to a task, to be recorded in one transaction."""

    event: TaskEvent
    #: Attempt it happened in; None for events from outside (cancel, expiry, failing while queued). Stale: no change.
    attempt: int | None = None
    #: With DISPATCHED.
    upstream: str | None = None
    prompt_id: str | None = None
    engine: str | None = None
    #: With STARTED: raise the job's highest fraction to this in the same commit, as ``save_progress`` does.
    fraction: float | None = None
    #: With ATTEMPT_LOST and INTERRUPTED: for people, and what it was.
    reason: str = ""
    cause: Cause | None = None
    #: With FAILED and EXPIRED.
    error_code: str | None = None
    error_message: str | None = None
    #: With FAILED, where a node of the graph is known to be why.
    error_node_id: str | None = None
    error_node_class: str | None = None
    #: With SUCCEEDED; those that were kept before need not be among them.
    results: tuple[JobResult, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a write led to."""

    job: Job
    task: Task
    #: The durable events it caused, numbered.
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task that was dispatched when we looked."""

    job: Job
    task: Task
    #: What the upstream answered at its success, when it already had: node id -> files.
    outputs: Mapping[str, tuple[OutputFile, ...]] | None


@dataclass(frozen=True, slots=True)
class UpstreamRow:
    """What is remembered of an upstream across restarts."""

    name: str
    #: Our client id there: kept, so that its socket is recognised.
    client_id: str
    #: Set for one that was added while running; None for those from the settings.
    url: str | None
    removed: bool
    draining: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """What a retention sweep let go."""

    jobs: int
    assets: int
    #: Blobs that nothing refers to any more; the caller deletes their bytes.
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that its owner may name: one that was uploaded by itself, or a result of a job."""

    id: str
    owner: str
    #: blake3 of its bytes, 64 hex digits.
    blob: str
    size_bytes: int
    #: Of an upload as the client declared it, of a result as it was found to be.
    content_type: str
    #: What the client calls it; None where it has no name.
    file_path: str | None
    tags: tuple[str, ...]
    #: Unix seconds, as ``expires_at``.
    created_at: float
    expires_at: float | None
    #: The job that made it; None for an upload.
    job_id: str | None
    #: Of an upload by its first bytes alone, without measures: nobody has decoded it yet.
    facts: MediaFacts


@dataclass(frozen=True, slots=True)
class NewAsset:
    """What an upload is stored with."""

    id: str
    owner: str
    blob: Blob
    content_type: str
    file_path: str | None
    tags: tuple[str, ...]
    facts: MediaFacts
    #: Unix seconds.
    expires_at: float


@dataclass(frozen=True, slots=True)
class Minted:
    """An upload in the store, and what was there before it. Other owners' bytes count as not there."""

    asset: Asset
    #: The owner had nothing with these bytes.
    is_new_blob: bool
    #: The owner had no upload of these bytes and this name; else it is that one, kept for longer if need be.
    is_new_asset: bool


@dataclass(frozen=True, slots=True)
class LooseBlob:
    """A blob that nothing refers to any more, and that the store has forgotten."""

    hash: str
    #: Unix seconds when something last referred to it anew: bytes committed later are somebody else's.
    touched_at: float


@dataclass(frozen=True, slots=True)
class Purged:
    """What was forgotten because somebody asked."""

    jobs: int
    assets: int
    #: The caller deletes their bytes.
    blobs: tuple[LooseBlob, ...]


class AccountStore(Protocol):
    """Users and keys. Never sees a key's text. Every method is one transaction, as of ``Store``."""

    async def create_user(self, user: User) -> None:
        """Store a new user. Raises ConflictError when the name is taken."""
        ...

    async def users(self, *, after: str, limit: int) -> Sequence[User]:
        """Those with a higher id than ``after``, by id, which is by age."""
        ...

    async def user_named(self, name: str) -> User | None:
        """One by name."""
        ...

    async def create_key(self, key: AccountKey, key_hash: str, *, new_user: User | None = None) -> Keyholder:
        """Store a new key; of ``new_user``, who is made if need be, else of its ``user_id``.

        Raises ConflictError when the user has a live key of that name, NotFoundError when there is no such user.
        """
        ...

    async def keyholder(self, key_hash: str, *, now: float) -> Keyholder | None:
        """Whose key has this hash; None when nobody's, or when it is revoked or past its time."""
        ...

    async def key(self, key_id: str) -> Keyholder | None:
        """One key, revoked or not."""
        ...

    async def keys(self, *, after: str, limit: int) -> Sequence[Keyholder]:
        """Those with a higher id than ``after``, by id, which is by age; revoked ones too."""
        ...

    async def revoke_key(self, key_id: str, *, now: float) -> Keyholder | None:
        """Have it open nothing from now on; None when there is none. Again changes nothing."""
        ...

    async def rotate_key(
        self, key_id: str, key_hash: str, prefix: str, *, old_until: float, now: float
    ) -> Keyholder | None:
        """Give it a new text; the one before opens until ``old_until``, an older one no more. None when there is none.

        Raises ConflictError when it is revoked.
        """
        ...

    async def save_last_used(self, used: Mapping[str, float]) -> None:
        """When keys were used last: key id -> Unix seconds."""
        ...


class CreditStore(Protocol):
    """Users' purses. Every method is one transaction, as of ``Store``."""

    async def account(self, user_id: str, *, now: float) -> Account:
        """A user's purses as they are by now; empty ones for nobody."""
        ...

    async def entries(self, user_id: str, *, limit: int) -> Sequence[LedgerLine]:
        """The newest entries of a user, newest first."""
        ...

    async def grant(self, user_id: str, purse: Purse, amount: int, *, now: float) -> Account:
        """Give credits; the account after it. Raises InvalidInputError, NotFoundError."""
        ...


class ClaimStore(Protocol):
    """Idempotency keys. Every method is one transaction, as of ``Store``."""

    async def look(self, wanted: Wanted, *, now: float) -> Standing:
        """What became of a key. Raises IdempotencyMismatchError when it was used for something else."""
        ...

    async def claim(self, wanted: Wanted, token: str, *, now: float) -> Standing:
        """Take a key that is free, else change nothing; what it was. Raises IdempotencyMismatchError."""
        ...

    async def renew(self, held: Claim, *, now: float) -> bool:
        """Hold it for one more lease; False when it is no longer the holder's."""
        ...

    async def release(self, held: Claim) -> None:
        """Let go of it, unless it is done or somebody else's."""
        ...

    async def sweep(self, *, now: float) -> int:
        """Forget a batch of those past their time; how many."""
        ...


class AssetStore(Protocol):
    """Files that their owners name. Every method is one transaction, as of ``Store``."""

    async def add(
        self, new: NewAsset, *, now: float, claim: Claim | None = None, must_be_known: bool = False
    ) -> Minted:
        """Keep an upload whose bytes are committed.

        Args:
            new: the same bytes under the same name as an upload of this owner's are that upload again.
            now: Unix seconds.
            claim: of the idempotency key that the request came with; used up by this.
            must_be_known: only where the owner has these bytes already.

        Raises BlobNotFoundError, IdempotencyInFlightError when the claim was lost.
        """
        ...

    async def get(self, asset_id: str, owner: str | None, *, now: float) -> Asset | None:
        """An owner's upload or result; None for ``owner``: whoever's it is."""
        ...

    async def named(self, owner: str, file_path: str, *, now: float) -> Asset | None:
        """What an owner's upload of this name is: of several the one that was sent last."""
        ...

    async def by_hash(self, owner: str, blob_hash: str, *, now: float) -> Asset | None:
        """Something that an owner has of these bytes, an input of a job too; an upload before all else."""
        ...

    async def delete(self, asset_id: str, owner: str, *, now: float) -> bool:
        """Forget an owner's upload; False when there is none.

        Raises AssetInUseError when a job that has not ended was given it, or it is the result of one that is kept.
        """
        ...


class ConsentStore(Protocol):
    """Records of consent. They are begun and completed with their job, by ``Store.create_job`` and ``Store.record``."""

    async def record(self, job_id: str) -> ConsentRecord | None:
        """That of a job, if anything was said."""
        ...

    async def records(
        self, *, owner: str | None, since: float, after: str | None, limit: int
    ) -> Sequence[ConsentRecord]:
        """Oldest first; ``after`` is the job of the last one already seen. Raises InvalidInputError: it has none."""
        ...

    async def sweep(self, *, before: float) -> int:
        """Forget a batch of those whose jobs ended by then; how many."""
        ...

    async def forget(self, job_id: str) -> int:
        """Forget that of a job that has ended; how many."""
        ...

    async def forget_owner(self, owner: str) -> int:
        """Forget a batch of an owner's whose jobs have ended; how many."""
        ...


class WebhookStore(Protocol):
    """The outbox, and what signs its messages. Every method is one transaction, as of ``Store``."""

    async def due(
        self,
        *,
        now: float,
        without_owners: Collection[str] = (),
        without_endpoints: Collection[int] = (),
        limit: int,
        each: int,
    ) -> Sequence[WebhookMessage]:
        """What is due: at most ``each`` messages of at most ``limit`` endpoints, none of these; longest due first."""
        ...

    async def next_due(
        self, *, without_owners: Collection[str] = (), without_endpoints: Collection[int] = ()
    ) -> float | None:
        """When something is due, of others than these (Unix seconds); None when nothing will be."""
        ...

    async def record(self, message: WebhookMessage, answer: WebhookAnswer, verdict: Verdict, *, now: float) -> bool:
        """Keep what came of an attempt; False when the message has moved on: then no row changed."""
        ...

    async def postpone(self, endpoint: int, *, until: float) -> None:
        """Let an endpoint be until a time, or until there is something new for it."""
        ...

    async def messages(
        self, owner: str, *, state: WebhookState | None, before: str | None, limit: int
    ) -> Sequence[WebhookMessage]:
        """An owner's, newest first; ``before`` is the id of the last one already seen."""
        ...

    async def redeliver(self, message_id: str, owner: str, *, now: float) -> WebhookMessage | None:
        """Have an owner's message sent again, its endpoint enabled; None when there is none."""
        ...

    async def enable(self, owner: str, url: str) -> None:
        """An endpoint that had answered 410 is one again."""
        ...

    async def secrets(self, account: str, *, now: float) -> Sequence[SealedSecret]:
        """Those that sign now, newest first."""
        ...

    async def add_secret(
        self, account: str, sealed: bytes, *, old_until: float | None, now: float
    ) -> Sequence[SealedSecret]:
        """Keep a new secret; those that sign from now on, newest first.

        Args:
            account: whose.
            sealed: the secret, unreadable.
            old_until: how long the one before it signs beside it; None: it is kept only where there is none yet.
            now: Unix seconds.

        Raises ConflictError when too many sign already.
        """
        ...

    async def sweep(self) -> int:
        """Forget a batch of endpoints that no message names any more; how many."""
        ...


class DeliveryStore(Protocol):
    """Outputs on their way. Made with their job's success, by ``Store.record``. Every method is one transaction."""

    async def due(
        self,
        *,
        now: float,
        without_owners: Collection[str] = (),
        without_hosts: Collection[str] = (),
        without: Collection[str] = (),
        limit: int,
    ) -> Sequence[OutputDelivery]:
        """What is due and none of these (``without``: by id), what has waited longest first."""
        ...

    async def next_due(
        self,
        *,
        without_owners: Collection[str] = (),
        without_hosts: Collection[str] = (),
        without: Collection[str] = (),
    ) -> float | None:
        """When something is due that is none of these (Unix seconds); None when nothing will be."""
        ...

    async def record(
        self, delivery: OutputDelivery, answer: UploadAnswer, verdict: Verdict, *, now: float
    ) -> tuple[bool, Event | None]:
        """Keep what came of an attempt, and tell of it in an event when the delivery is over.

        False when the delivery has moved on since it was read: then no row changed.
        """
        ...

    async def of_jobs(self, job_ids: Sequence[str]) -> Sequence[OutputDelivery]:
        """Those of these jobs, each job's in the order of its outputs."""
        ...

    async def is_pending(self, job_id: str) -> bool:
        """Whether one of a job's is not over."""
        ...

    async def listed(
        self, owner: str | None, *, state: DeliveryState | None, before: str | None, limit: int
    ) -> Sequence[OutputDelivery]:
        """An owner's, or with None everybody's, newest first; ``before`` is the id of the last one already seen."""
        ...

    async def redeliver(self, delivery_id: str, owner: str | None, *, now: float) -> OutputDelivery | None:
        """Have a delivery made again from the beginning of the schedule; None when there is none.

        Raises ConflictError: it has been made, or its file is kept no longer.
        """
        ...


class Store(Protocol):
    """The durable truth. Every method is one transaction; a write has been committed when it returns."""

    @property
    def accounts(self) -> AccountStore:
        """Users and keys."""
        ...

    @property
    def credits(self) -> CreditStore:
        """Users' purses."""
        ...

    @property
    def claims(self) -> ClaimStore:
        """Idempotency keys."""
        ...

    @property
    def assets(self) -> AssetStore:
        """Uploads, and results by their ids."""
        ...

    @property
    def webhooks(self) -> WebhookStore:
        """The outbox."""
        ...

    @property
    def consents(self) -> ConsentStore:
        """What was said of the people in the pictures."""
        ...

    @property
    def deliveries(self) -> DeliveryStore:
        """Outputs on their way."""
        ...

    async def create_job(self, new: NewJob, *, max_queue: int, now: float) -> Recorded:
        """Store job, task, input assets and event 1 (queued), charge its price, keep its promise.

        Raises QueueFullError, InsufficientCreditsError, IdempotencyInFlightError.
        """
        ...

    async def job(self, job_id: str) -> Job | None:
        """One job, whoever owns it."""
        ...

    async def job_of(self, job_id: str, owner: str) -> Job | None:
        """One job, when it is this owner's."""
        ...

    async def jobs(
        self,
        owner: str,
        *,
        states: frozenset[JobState] | None,
        before: str | None,
        limit: int,
        task: str | None = None,
    ) -> Sequence[Job]:
        """An owner's jobs, newest first; ``before`` is the id of the last one already seen.

        Args:
            owner: whose.
            states: only those in one of these.
            before: raises InvalidInputError where it is no job of theirs.
            limit: most.
            task: only those that do this.
        """
        ...

    async def events_after(self, job_id: str, number: int, *, limit: int = 256) -> Sequence[Event]:
        """Durable events with a higher number, in order."""
        ...

    async def queue_position(self, job_id: str) -> int | None:
        """How many tasks were queued before it, from 0; None when it does not wait."""
        ...

    async def seconds_ahead(self, job_id: str) -> float | None:
        """Predicted seconds of the tasks queued before it; None when it does not wait."""
        ...

    async def counts(self) -> Mapping[JobState, int]:
        """How many jobs are in each state."""
        ...

    async def candidates(self, *, limit: int) -> Sequence[Candidate]:
        """Heads of the queue per submitter and requirement, found by index; at most ``limit``."""
        ...

    async def open_tasks(self) -> Sequence[OpenTask]:
        """All dispatched and running tasks, in the order they were sent."""
        ...

    async def queued_task(self, task_id: str) -> tuple[Job, Task] | None:
        """A task and its job, when it is still queued."""
        ...

    async def trails(self, task_ids: Sequence[str]) -> Mapping[str, Trail]:
        """Of each of these tasks, the upstreams that died while they ran it, and what else was lost around then."""
        ...

    async def note_outage(self, upstream: str, *, at: float) -> None:
        """An upstream that could be reached no longer can, since ``at`` (Unix seconds)."""
        ...

    async def record(self, task_id: str, report: Report, *, limits: RetryLimits, now: float) -> Recorded | None:
        """Apply an event by ``job.decide``; None when it is stale or refused: then no row changed."""
        ...

    async def record_outputs(
        self, task_id: str, attempt: int, outputs: Mapping[str, tuple[OutputFile, ...]], *, now: float
    ) -> Recorded | None:
        """The upstream succeeded: keep what it named, set finishing. None when stale."""
        ...

    async def keep_results(
        self, task_id: str, attempt: int, results: Sequence[JobResult], *, now: float
    ) -> Recorded | None:
        """Keep files that an attempt has made while it is at work, each once. None when stale, or being canceled.

        They are the job's when it succeeds, and gone when the attempt is lost.
        """
        ...

    async def request_cancel(self, job_id: str, from_states: frozenset[JobState], *, now: float) -> Recorded | None:
        """Cancel: queued ends canceled, live gets its flag. None when the job is in none of ``from_states``."""
        ...

    async def expire_queued(self, *, now: float) -> Sequence[Recorded]:
        """Fail what has waited past its deadline."""
        ...

    async def save_progress(self, rows: Sequence[tuple[str, float, str]], *, now: float) -> None:
        """Raise jobs' highest fraction and its sentence: (job id, fraction, step). Never lowers; not for ended jobs."""
        ...

    async def result_by_link(self, link: str, *, now: float) -> tuple[Job, JobResult] | None:
        """A finished file by its capability name, while it is kept."""
        ...

    async def face_report(self, owner: str, picture: str) -> str | None:
        """Hash of the newest report that a detection of an owner's made of the faces of a picture, by its hash."""
        ...

    async def workflow(self, job_id: str) -> str | None:
        """What ``NewJob.workflow`` said; None for jobs of templates, and for those that are forgotten."""
        ...

    async def save_template(self, name: str, version: str, toml: str, graph: str, *, now: float) -> None:
        """Keep a template version, so that jobs pinned to it survive an edit and a restart."""
        ...

    async def template(self, name: str, version: str) -> tuple[str, str] | None:
        """(toml, graph) of a kept version."""
        ...

    async def upstream(self, name: str, *, url: str | None = None, now: float) -> UpstreamRow:
        """The row of an upstream, made with a new client id when there is none."""
        ...

    async def upstreams(self) -> Sequence[UpstreamRow]:
        """All remembered upstreams."""
        ...

    async def set_upstream(
        self, name: str, *, removed: bool | None = None, draining: bool | None = None, now: float
    ) -> UpstreamRow | None:
        """Change what is remembered; None when there is no such upstream."""
        ...

    async def timings(self) -> Sequence[Row]:
        """All that was learned of how long nodes take."""
        ...

    async def save_timings(self, changed: Sequence[Row], gone: Sequence[Key], repriced: Mapping[str, float]) -> None:
        """Keep and forget learned rows; multiply the cost of what is queued of the templates in ``repriced``."""
        ...

    async def sweep(
        self,
        *,
        job_retention_seconds: float,
        blob_grace_seconds: float,
        now: float,
    ) -> Swept:
        """Forget expired assets, jobs past retention and blobs nobody refers to (committed longer ago than the grace)."""
        ...

    async def in_use(self, hashes: Collection[str], prompts: Collection[str]) -> frozenset[str]:
        """Of inputs, by hash, and attempts, by id, those that a job or a task which has not ended needs."""
        ...

    async def purge_job(self, job_id: str) -> Purged | None:
        """Forget an ended job, its files too; None when there is none. Raises ConflictError when it has not ended."""
        ...

    async def purge_owner(self, owner: str) -> Purged:
        """Forget one batch of an owner's jobs and files; come again while something went.

        Raises ConflictError, and changes nothing, while a job of the owner has not ended.
        """
        ...

    async def copy_to(self, path: Path) -> None:
        """Write a copy of one committed state to a new SQLite file, while others read and write."""
        ...

    async def blobs_of_copy(self, path: Path, *, after: str, limit: int) -> Sequence[Blob]:
        """The next blobs that assets in such a copy refer to, by hash."""
        ...

    async def forget_blob(self, blob_hash: str) -> bool:
        """Forget a blob that nothing refers to; True when its bytes may go."""
        ...

    async def touch_blob(self, blob: Blob, *, now: float) -> None:
        """Take note of a committed blob, so that the sweep knows it."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of the database."""
        ...


# ------------------------------------------------------------------------------------------------ webhooks, deliveries


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request with bytes to a URL that a client named."""

    method: str
    #: As the client wrote it.
    url: str
    content_type: str
    size_bytes: int
    content: bytes | AsyncIterable[bytes]
    #: For silence within it; and for all of it.
    patience_seconds: float
    deadline_seconds: float
    #: More header fields.
    fields: Mapping[str, str] = field(default_factory=dict)
    https_only: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What was answered to it."""

    status: int
    #: Of the field Retry-After.
    retry_after_seconds: float | None


class Sender(Protocol):
    """Carries requests to where clients name, guarded: nothing but what the policy of now allows is dialled."""

    async def send(self, outgoing: Outgoing) -> Heard:
        """Send it once, following nothing; what was answered.

        Raises:
            TimeoutError: not within its time.
            SourceUnreachableError: it may not be called, or nobody answers there as one should; not told apart.
            FileNotFoundError: of the content.
        """
        ...


class WebhookSender(Protocol):
    """Carries one message to one URL, guarded."""

    async def send(self, delivery: Delivery) -> WebhookAnswer:
        """One signed POST; what came of it. Raises nothing that depends on the other side."""
        ...


class UrlUploader(Protocol):
    """Puts one file to one URL, guarded."""

    async def put(self, upload: Upload) -> UploadAnswer:
        """One PUT; what came of it. Raises nothing that depends on the other side."""
        ...


class DeliveryTarget(Protocol):
    """A place that the operator has named."""

    async def put(self, key: str, blob_hash: str, *, content_type: str, file_name: str) -> UploadAnswer:
        """Put a file there under a key, in place of whatever was there; what came of it, and where it is."""
        ...

    def location(self, key: str) -> str:
        """Where a key is, fit to be shown."""
        ...


class Sealer(Protocol):
    """Makes secrets unreadable for whoever has the database alone."""

    def seal(self, account: str, secret: bytes) -> bytes:
        """The secret, sealed for an account."""
        ...

    def open(self, account: str, sealed: bytes) -> bytes | None:
        """What was sealed for this account; None when it was not, or not with our key."""
        ...


# ----------------------------------------------------------------------------------------------------------- upstreams


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an upstream can do, from its /object_info and /features."""

    #: class -> input -> allowed values, or None where any value of the type goes.
    classes: Mapping[str, Mapping[str, tuple[object, ...] | None]]
    #: Largest request body it takes, None when it does not say.
    max_upload_bytes: int | None
    #: What it said, for template checks.
    object_info: Mapping[str, object]


class Cleaning(StrEnum):
    """Whether an upstream deletes what our jobs leave there, when it is told to."""

    #: It was not asked yet.
    UNKNOWN = "unknown"
    WORKS = "works"
    #: We have no token that it could be asked with.
    NO_TOKEN = "no_token"  # noqa: S105 - a state, not a token
    #: It has no node pack, or one of an earlier version.
    NO_ROUTE = "no_route"
    #: Its token is another, or it has none.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """How an upstream is, without secrets."""

    name: str
    reachable: bool
    #: Why it is not reachable or not used, for people; "" when all is well.
    reason: str
    #: ComfyUI's version, when known.
    version: str | None
    #: "comfyui" or "preview" (the embedded worker).
    engine: str
    #: Prompts in its queue that are not ours.
    foreign_prompts: int
    #: "scheme://host:port", no credentials.
    address: str
    #: Prompts in its queue that are ours and that nobody waits for any more: they leave before anything else is sent.
    stale_prompts: int = 0
    #: Monotonic seconds of when it was first asked in vain; None while it is reachable, and until it first was.
    unreachable_since: float | None = None
    #: Whether what jobs leave there is deleted.
    cleaning: Cleaning = Cleaning.UNKNOWN


#: (hashes of inputs, ids of prompts) -> those of them that something which has not ended needs.
AskInUse = Callable[[Collection[str], Collection[str]], Awaitable[Collection[str]]]


class Upstream(Protocol):
    """One ComfyUI instance."""

    name: str
    #: Where our files lie, below its input, output and temp folders: ``gateway/<id>``.
    folder: str

    async def run_forever(self) -> None:
        """Keep the connection until ``close``; the pool owns the task."""
        ...

    async def close(self) -> None:
        """Let go of the connection; prompts there run on."""
        ...

    def status(self) -> UpstreamStatus:
        """How it is right now, from memory."""
        ...

    def capabilities(self) -> Capabilities | None:
        """What it can do; None until it has said so."""
        ...

    async def relearn(self) -> None:
        """Ask anew what it can do, unless that was asked a moment ago; back when it has said so or did not answer."""
        ...

    def staged(self) -> AbstractSet[str]:
        """Hashes of blobs believed to lie there."""
        ...

    async def stage(self, blob: Blob, path: Path, suffix: str) -> str:
        """Upload a blob unless it is there; returns what to put into a node's file input."""
        ...

    def doubt(self) -> None:
        """Forget what was staged: it said that a file is not there."""
        ...

    def run(
        self,
        prompt_id: str,
        graph: Mapping[str, object],
        *,
        job_id: str,
        attempt: int,
        secrets: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Message]:
        """Submit a prompt and follow it; the last message is its one Outcome.

        ``secrets`` go with it, for nodes that call paid services, and are kept, shown and logged nowhere.
        """
        ...

    def adopt(self, prompt_id: str) -> AsyncIterator[Message]:
        """Follow a prompt submitted before; the last message is its one Outcome."""
        ...

    async def cancel(self, prompt_id: str) -> None:
        """Dequeue and interrupt exactly this prompt, repeated until it left the server or the server is lost."""
        ...

    def fetch(self, file: OutputFile) -> AsyncIterator[bytes]:
        """The bytes of an output file. Raises FileNotFoundError when it is gone, ConnectionError when it broke."""
        ...

    async def tidy(self, in_use: AskInUse) -> int:
        """Delete our files there that are not in use; how many went, 0 where it cannot do that. Raises ConnectionError."""
        ...


@runtime_checkable
class Restartable(Protocol):
    """An upstream whose process is ours."""

    async def restart(self) -> None:
        """End its process, and have another started at once; what runs there is lost. Returns when the old one is gone."""
        ...


# ----------------------------------------------------------------------------------------------------------------- bus


class Subscription(Protocol):
    """One client's ear. Bounded: durable events are only announced, passing ones have one slot each."""

    async def wait(self, timeout_seconds: float) -> bool:
        """True when something is new since the last call; False after the time-out."""
        ...

    @property
    def last_number(self) -> int:
        """Highest durable number announced since subscribing, 0 when none."""
        ...

    def take_progress(self) -> Progress | None:
        """The newest snapshot not yet taken by this subscription."""
        ...

    def take_preview(self) -> PreviewImage | None:
        """The newest preview not yet taken by this subscription."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class Watcher(Protocol):
    """Hears of every change of any job."""

    def __call__(self, job_id: str | None, *, is_event: bool) -> None:
        """A job changed (None: any may have). Args: is_event: by a durable event, not by a snapshot."""
        ...


class Bus(Protocol):
    """Tells those who watch a job that there is something new."""

    def watch(self, watcher: Watcher) -> None:
        """Have it called on every change of any job, whoever caused it; it must be quick, and stays for good."""
        ...

    def doubt_all(self) -> None:
        """Jobs changed without an event."""
        ...

    def announce(self, job_id: str, number: int) -> None:
        """A durable event was committed."""
        ...

    def show(self, passing: Passing) -> None:
        """A passing event."""
        ...

    def latest(self, job_id: str) -> Progress | None:
        """The newest snapshot of a job that is at work."""
        ...

    def subscribe(self, job_id: str, *, previews: bool = False) -> Subscription:
        """Listen from now on; the latest snapshot counts as new. Args: previews: be woken by previews, too."""
        ...

    def forget(self, job_id: str) -> None:
        """The job has ended: drop its snapshot once nobody listens."""
        ...


OnChange = Callable[[], None]

"""What the windows may ask of the engine: submit, look, watch, cancel, fetch, and how the pool is.

The one door into the engine. It owns no loop; it checks, stores, and wakes those who do the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, TypeVar

import structlog

from gateway.audit import MediaKind
from gateway.binding import check_parameters
from gateway.engine.archive import Archive
from gateway.engine.bus import LocalBus
from gateway.engine.catalog import TARGET_ROLE, Catalog
from gateway.engine.dispatcher import Standing
from gateway.engine.needs import Need, requirement_of
from gateway.engine.pool import MemberView, Pool
from gateway.engine.recorder import Recorder
from gateway.engine.results import take_back
from gateway.engine.task_types import Lacks, TaskType, task_types, what_is_missing
from gateway.engine.timing import LearnedTimings
from gateway.engine.waits import Wait, Waits
from gateway.errors import (
    ConflictError,
    GatewayError,
    NotFoundError,
    ShuttingDownError,
    TaskUnavailableError,
    TooLargeError,
)
from gateway.events import Event, Progress
from gateway.interfaces import Blob, Blobs, Clock, Media, NewJob, Store, Subscription, Upstream, Watcher
from gateway.job import TERMINAL_JOB, Job, JobInput, JobResult, JobState
from gateway.naming import safe_output_name
from gateway.settings import Settings
from gateway.template import Template

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SubmittedFile:
    """An input that lies in the blob store, not yet probed."""

    blob: Blob
    #: The request field it came in, for error messages.
    field: str


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asks for, in our words."""

    owner: str
    submitter: str
    dialect: str
    #: By role: "target", "face"; none where the task makes something out of words.
    inputs: Mapping[str, SubmittedFile]
    #: By role, the kinds it may be.
    accepts: Mapping[str, frozenset[MediaKind]]
    task: str = "face_swap"
    parameters: Mapping[str, object] = field(default_factory=dict)
    #: As the client wrote it.
    output_name: str | None = None
    priority: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)
    #: Refuse it when upstreams have said what they can do and none of them, down or not, can run it.
    must_be_runnable: bool = False


class HealthStatus(StrEnum):
    """How the gateway is."""

    HEALTHY = "healthy"
    #: Something works, something does not.
    DEGRADED = "degraded"
    #: Nothing can run.
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Health:
    """How the gateway is, from memory: asking costs nobody anything."""

    status: HealthStatus
    #: "preview" when only embedded workers run jobs, else "comfyui"; None while none is reachable.
    engine: str | None
    upstreams: tuple[MemberView, ...]
    #: Template name -> what is wrong with it: its files, or that no upstream which works now fits it.
    template_problems: Mapping[str, str]
    #: Jobs per state, a few seconds old at most.
    jobs: Mapping[JobState, int]
    warnings: tuple[str, ...] = ()
    #: Templates of which jobs could run now, by name.
    ready_templates: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether any job could run now."""
        return self.status is not HealthStatus.UNAVAILABLE


#: Ids and links longer than any of ours are nobody's; they never reach the store.
MAX_ID_CHARACTERS = 64
MAX_LINK = 255

CancelAtWork: TypeAlias = Callable[[str], None]
NewId: TypeAlias = Callable[[], str]
_T = TypeVar("_T")
U = TypeVar("U")


class FetchedFile(Protocol):
    """What a fetch left in the blob store."""

    @property
    def blob(self) -> Blob:
        """The bytes."""
        ...


class Fetcher(Protocol[U]):
    """Judges and fetches URL inputs; ``U`` is a URL that was judged."""

    def check(self, url: str, *, field: str) -> U:
        """The verdict that needs no network. Raises InvalidInputError."""
        ...

    async def fetch(self, url: U, *, caps: Mapping[MediaKind, int], field: str) -> FetchedFile:
        """The bytes, stored. Raises SourceUnreachableError, TooLargeError, UnsupportedMediaError."""
        ...


class UpstreamFactory(Protocol):
    """Makes upstreams while running."""

    async def __call__(self, url: str, name: str | None, check_name: Callable[[str], None]) -> Upstream:
        """An upstream for a base URL, remembered under its name once ``check_name`` lets it pass.

        A worker of our own that was removed goes by its name in place of a URL.

        Raises:
            InvalidInputError: the URL is none, or the name is not plain.
        """
        ...


class Service:
    """The engine's door."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        media: Media,
        fetcher: Fetcher[Any],
        catalog: Catalog,
        pool: Pool,
        recorder: Recorder,
        bus: LocalBus,
        timings: LearnedTimings,
        clock: Clock,
        cancel_at_work: CancelAtWork,
        standing: Callable[[str], Standing | None],
        make_upstream: UpstreamFactory,
        new_id: NewId,
    ) -> None:
        self.settings = settings
        self.blobs = blobs
        self.clock = clock
        self.stopping = asyncio.Event()
        self.archive = Archive(store, blobs, clock, settings.data_dir / "scratch", on_purge=bus.doubt_all)
        self._store = store
        self._media = media
        self._fetcher = fetcher
        self._catalog = catalog
        self._pool = pool
        self._recorder = recorder
        self._bus = bus
        self._timings = timings
        self._waits = Waits(store, catalog, pool, timings, bus.latest, standing)
        self._cancel_at_work = cancel_at_work
        self._taking_back: set[asyncio.Task[None]] = set()
        self._make_upstream = make_upstream
        self._new_id = new_id
        self._counts: Mapping[JobState, int] = {}

    # ------------------------------------------------------------------------------------------------------ submitting

    async def submit(self, submission: Submission) -> Job:
        """Probe, choose the template, store; the job is durable when this returns.

        Raises:
            GatewayError: the request is at fault, the queue is full, or we are stopping. Nothing is left behind.
        """
        if self.stopping.is_set():
            raise ShuttingDownError("The gateway is about to stop.", retry_after_seconds=10)
        stored = False
        try:
            job = await self._submit(submission)
            stored = True
        finally:
            if not stored:
                await self.discard([given.blob for given in submission.inputs.values()])
        return job

    async def _submit(self, submission: Submission) -> Job:
        inputs = await self._probe(submission)
        target = inputs[TARGET_ROLE].facts if TARGET_ROLE in inputs else None
        template = self._catalog.for_task(submission.task, target.kind if target else None)
        if submission.must_be_runnable:
            self._refuse_what_none_can_run(template)
        parameters = check_parameters(template, submission.parameters, offered=self._pool.capabilities())
        self._refuse_what_fits_nowhere(inputs)
        now = self.clock.now()
        new = NewJob(
            id=self._new_id(),
            task_id=self._new_id(),
            owner=submission.owner,
            submitter=submission.submitter,
            dialect=submission.dialect,
            task=submission.task,
            template=template.name,
            template_version=template.version,
            priority=submission.priority,
            parameters=parameters,
            inputs=inputs,
            output_name=safe_output_name(submission.output_name, now),
            queue_deadline=now + self.settings.queue_ttl,
            requirement=requirement_of(template, parameters),
            cost_seconds=self._timings.cost_seconds(template, target),
            extra=submission.extra,
        )
        recorded = await self._recorder.create(new, max_queue=self.settings.max_queue)
        return recorded.job

    async def _probe(self, submission: Submission) -> dict[str, JobInput]:
        async def one(role: str, given: SubmittedFile) -> tuple[str, JobInput]:
            path = self.blobs.path(given.blob.hash)
            facts = await self._media.probe(path, field=given.field, accept=submission.accepts[role])
            return role, JobInput(self._new_id(), given.blob.hash, given.blob.size_bytes, facts)

        async with asyncio.TaskGroup() as group:
            probes = [
                group.create_task(_caught(one(role, given)), name=f"probe {role}")
                for role, given in submission.inputs.items()
            ]
        outcomes = [probe.result() for probe in probes]
        for outcome in outcomes:
            if isinstance(outcome, GatewayError):
                raise outcome
        return dict(outcome for outcome in outcomes if not isinstance(outcome, GatewayError))

    def _refuse_what_none_can_run(self, template: Template) -> None:
        if (lacks := self._lacks_of(template)) and (missing := what_is_missing([template], lambda _: lacks)):
            raise TaskUnavailableError.of(template.task, missing)

    def _lacks_of(self, template: Template) -> Lacks:
        return self._pool.lacking(template.requirement, Need(template, {}))

    def _refuse_what_fits_nowhere(self, inputs: Mapping[str, JobInput]) -> None:
        """An input that no upstream takes would wait for ever; one that has not said what it takes may take it."""
        limits = self._pool.upload_limits()
        largest = max((given.size_bytes for given in inputs.values()), default=0)
        if limits and all(limit is not None and largest > limit for limit in limits):
            most = max(limit for limit in limits if limit is not None)
            raise TooLargeError(f"no worker takes an input of {largest} bytes; the largest any takes is {most} bytes")

    async def discard(self, blobs: Iterable[Blob]) -> None:
        """Take back uploads that led to nothing; done to the end even when the caller is being canceled.

        The store is asked first: a client that left may have been cut off after its job was committed.
        """
        task = asyncio.create_task(take_back(self._store, self.blobs, tuple(blobs)), name="take back uploads")
        self._taking_back.add(task)
        task.add_done_callback(self._taking_back.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what callers that left have begun."""
        await asyncio.gather(*self._taking_back, return_exceptions=True)

    def check_url(self, url: str, *, field: str) -> None:
        """The verdict on a URL input that needs no network. Raises InvalidInputError."""
        self._fetcher.check(url, field=field)

    async def fetch_url(self, url: str, *, field: str, kinds: frozenset[MediaKind]) -> SubmittedFile:
        """Fetch a URL input, guarded."""
        largest = {
            MediaKind.IMAGE: int(self.settings.max_image),
            MediaKind.GIF: int(self.settings.max_gif),
            MediaKind.VIDEO: int(self.settings.max_video),
        }
        checked = self._fetcher.check(url, field=field)
        caps = {kind: largest[kind] for kind in kinds}
        fetched = await self._fetcher.fetch(checked, caps=caps, field=field)
        return SubmittedFile(fetched.blob, field)

    def begin_stopping(self) -> None:
        """Take nothing new and let every stream say goodbye; what runs is not touched."""
        self.stopping.set()
        self._bus.wake_all()

    # --------------------------------------------------------------------------------------------------------- looking

    async def job(self, job_id: str, owner: str) -> Job:
        """One job of an owner. Raises NotFoundError, also when it is somebody else's."""
        job = await self._store.job(job_id) if len(job_id) <= MAX_ID_CHARACTERS else None
        if job is None or job.owner != owner:
            raise NotFoundError("There is no such job.")
        return job

    async def jobs(
        self, owner: str, *, states: frozenset[JobState] | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[Job]:
        """An owner's jobs, newest first."""
        return await self._store.jobs(owner, states=states, before=before, limit=limit)

    async def events_after(self, job_id: str, number: int) -> Sequence[Event]:
        """Durable events after ``number``, in order; ask again from the last one until none come."""
        return await self._store.events_after(job_id, number)

    def subscribe(self, job_id: str) -> Subscription:
        """Listen to a job from now on; close it when done."""
        return self._bus.subscribe(job_id)

    def watch(self, watcher: Watcher) -> None:
        """Have it called on every change of any job; it stays for good."""
        self._bus.watch(watcher)

    def progress(self, job_id: str) -> Progress | None:
        """The newest snapshot of a job at work."""
        return self._bus.latest(job_id)

    async def queue_position(self, job_id: str) -> int | None:
        """How many were queued before it; None when it does not wait."""
        return await self._store.queue_position(job_id)

    async def why_waiting(self, job: Job) -> Wait | None:
        """Why a job waits; None when it does not."""
        return await self._waits.explain(job)

    async def result(self, link: str) -> tuple[Job, JobResult]:
        """A finished file by its capability name. Raises NotFoundError."""
        is_ours = len(link) <= MAX_LINK and link.isascii() and link.isprintable()
        found = await self._store.result_by_link(link, now=self.clock.now()) if is_ours else None
        if found is None:
            raise NotFoundError("There is no such file (any more).")
        return found

    # -------------------------------------------------------------------------------------------------------- canceling

    async def cancel(self, job_id: str, owner: str, from_states: frozenset[JobState] | None = None) -> Job:
        """Cancel a job that is in one of ``from_states`` (default: any that has not ended).

        Raises:
            NotFoundError: there is no such job of this owner.
            ConflictError: it is in none of these states.
        """
        await self.job(job_id, owner)
        states = frozenset(JobState) - TERMINAL_JOB if from_states is None else from_states
        recorded = await self._recorder.request_cancel(job_id, states)
        if recorded is None:
            job = await self.job(job_id, owner)
            raise ConflictError(f"The job has ended ({job.state.value}); there is nothing to cancel.")
        self._cancel_at_work(job_id)  # a queued job may be on its way to an upstream: that stops too
        return recorded.job

    # --------------------------------------------------------------------------------------------------------- the pool

    async def refresh_counts(self) -> None:
        """Bring the counts that ``health`` shows up to date."""
        self._counts = await self._store.counts()

    def health(self) -> Health:
        """How the gateway is."""
        views = self._pool.views()
        able = [view for view in views if view.available]
        templates = self._catalog.templates()
        unfit = self._pool.unfit(templates)
        # That nothing is available is said by the upstreams; it is no fault of the templates.
        problems = {**(unfit if able else {}), **self._catalog.problems()}
        ready = tuple(template.name for template in templates if template.name not in unfit)
        if not ready:
            status = HealthStatus.UNAVAILABLE
        elif len(able) < len(views) or problems or any(view.restraint for view in views):
            status = HealthStatus.DEGRADED
        else:
            status = HealthStatus.HEALTHY
        engines = {view.status.engine for view in able}
        engine = None if not engines else "comfyui" if "comfyui" in engines else "preview"
        return Health(status, engine, views, problems, self._counts, ready_templates=ready)

    def upstreams(self) -> tuple[MemberView, ...]:
        """How the pool's upstreams are."""
        return self._pool.views()

    async def set_draining(self, name: str, *, draining: bool) -> None:
        """Stop or resume giving an upstream work; remembered across restarts. Raises NotFoundError."""
        self._pool.set_draining(name, draining=draining)
        await self._store.set_upstream(name, draining=draining, now=self.clock.now())

    async def add_upstream(self, url: str, name: str | None = None) -> MemberView:
        """Take an upstream in, remembered across restarts. Raises InvalidInputError, ConflictError."""
        upstream = await self._make_upstream(url, name, self._refuse_taken)
        self._pool.add(upstream, embedded=upstream.name == url)
        return next(view for view in self._pool.views() if view.status.name == upstream.name)

    def _refuse_taken(self, name: str) -> None:
        if self._pool.get(name) is not None:
            raise ConflictError(f"there is an upstream named {name!r} already", field="name")

    async def remove_upstream(self, name: str) -> None:
        """Let an upstream go, remembered across restarts.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is at work; drain it first.
        """
        # Drained first: while the store is written, nothing may begin there.
        was_draining = self._pool.set_draining(name, draining=True)
        if self._pool.is_busy(name):
            self._pool.set_draining(name, draining=was_draining)
            raise ConflictError("It is at work: drain it, and remove it when its job has ended.")
        await self._store.set_upstream(name, removed=True, now=self.clock.now())
        await self._pool.remove(name)

    def templates(self) -> Sequence[str]:
        """Names of the templates that serve."""
        return self._catalog.names()

    def task_types(self) -> Sequence[TaskType]:
        """What jobs can be asked for, and what keeps each from running; by name."""
        return task_types(self._catalog.templates(), self._lacks_of)


async def _caught(work: Awaitable[_T]) -> _T | GatewayError:
    """The result or our own error as a value, so that one bad input does not cut short the other's probe."""
    try:
        return await work
    except GatewayError as error:
        return error

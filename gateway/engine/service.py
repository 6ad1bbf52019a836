"""What the windows may ask of the engine: submit, look, watch, cancel, fetch, and how the pool is.

The one door into the engine. It owns no loop; it checks, stores, and wakes those who do the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import structlog

from gateway.asset_links import AssetLinks
from gateway.audit import MediaKind
from gateway.binding import as_dispatched
from gateway.engine.accounts import Accounts
from gateway.engine.archive import Archive
from gateway.engine.assets import Assets
from gateway.engine.bus import LocalBus
from gateway.engine.catalog import Catalog
from gateway.engine.claims import Claims
from gateway.engine.consents import Consents
from gateway.engine.credits import Credits
from gateway.engine.deliveries import Deliveries
from gateway.engine.detection import detectors, read_faces
from gateway.engine.dispatcher import Standing
from gateway.engine.health import Health, judge
from gateway.engine.members import MemberView
from gateway.engine.pool import Pool
from gateway.engine.recorder import Recorder
from gateway.engine.restarting import Restarts
from gateway.engine.screening import Screening
from gateway.engine.submitting import Intake, NewId, Submission, SubmittedFile
from gateway.engine.taking_back import take_back
from gateway.engine.task_types import TaskType, task_types
from gateway.engine.template_views import TemplateView, template_views
from gateway.engine.timing import LearnedTimings
from gateway.engine.waits import Wait, Waits
from gateway.engine.webhooks import Webhooks
from gateway.engine.workflow_jobs import WorkflowIntake, WorkflowSubmission
from gateway.errors import ConflictError, InvalidInputError, NotFoundError, ShuttingDownError, TemplateError
from gateway.events import Event, Progress
from gateway.faces import FaceReport
from gateway.interfaces import Blob, Blobs, Clock, Media, Store, Subscription, Upstream, Watcher
from gateway.job import TERMINAL_JOB, Job, JobResult, JobState
from gateway.settings import Settings
from gateway.workflow import Workflow

log = structlog.get_logger(__name__)


#: Ids and links longer than any of ours are nobody's; they never reach the store.
MAX_ID_CHARACTERS = 64
MAX_LINK = 255

CancelAtWork: TypeAlias = Callable[[str], None]
U = TypeVar("U")


class FetchedFile(Protocol):
    """What a fetch left in the blob store."""

    @property
    def blob(self) -> Blob:
        """The bytes."""
        ...


class Fetcher(Protocol[U]):
    """Judges and fetches URL inputs; ``U`` is a URL that was judged."""

    def check(self, url: str, *, field: str, https_only: bool = False) -> U:
        """The verdict that needs no network. Raises InvalidInputError."""
        ...

    async def require_public(self, url: U, *, field: str) -> None:
        """The verdict that takes a look-up, and dials nobody. Raises SourceUnreachableError."""
        ...

    async def fetch(
        self,
        url: U,
        *,
        caps: Mapping[MediaKind, int],
        field: str,
        https_only: bool = False,
        deadline_seconds: float | None = None,
    ) -> FetchedFile:
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
        screening: Screening,
        fetcher: Fetcher[Any],
        catalog: Catalog,
        pool: Pool,
        recorder: Recorder,
        bus: LocalBus,
        timings: LearnedTimings,
        clock: Clock,
        cancel_at_work: CancelAtWork,
        standing: Callable[[str], Standing | None],
        is_at_work: Callable[[str], bool],
        make_upstream: UpstreamFactory,
        webhooks: Webhooks,
        deliveries: Deliveries,
        asset_links: AssetLinks,
        new_id: NewId,
    ) -> None:
        self.settings = settings
        self.blobs = blobs
        self.clock = clock
        self.stopping = asyncio.Event()
        self.accounts = Accounts(store.accounts, clock, new_id)
        self.credits = Credits(store.credits, store.accounts, clock)
        self.claims = Claims(store.claims, clock, new_id)
        self.assets = Assets(store.assets, clock, new_id, asset_links, retention_seconds=settings.upload_retention)
        self.webhooks = webhooks
        self.deliveries = deliveries
        self.archive = Archive(store, blobs, clock, settings.data_dir / "scratch", on_purge=bus.doubt_all)
        self.restarts = Restarts(pool, clock)
        self._store = store
        self._fetcher = fetcher
        self._catalog = catalog
        self._pool = pool
        self._screening = screening
        self._recorder = recorder
        self._bus = bus
        self._waits = Waits(store, catalog, pool, timings, bus.latest, standing)
        self._cancel_at_work = cancel_at_work
        self._is_at_work = is_at_work
        self._taking_back: set[asyncio.Task[None]] = set()
        self._make_upstream = make_upstream
        self._intake = Intake(
            settings=settings,
            blobs=blobs,
            media=media,
            screening=screening,
            catalog=catalog,
            pool=pool,
            recorder=recorder,
            deliveries=deliveries,
            timings=timings,
            clock=clock,
            new_id=new_id,
        )
        self.consents = Consents(store.consents, clock, settings.consent_retention, self._intake.requires_consent)
        self._workflow_intake = WorkflowIntake(
            settings=settings,
            store=store,
            blobs=blobs,
            media=media,
            screening=screening,
            pool=pool,
            recorder=recorder,
            deliveries=deliveries,
            timings=timings,
            clock=clock,
            new_id=new_id,
        )
        self._counts: Mapping[JobState, int] = {}

    # ------------------------------------------------------------------------------------------------------ submitting

    async def submit(self, submission: Submission) -> Job:
        """Probe, choose the template, store; the job is durable when this returns.

        Raises:
            GatewayError: the request is at fault, the queue is full, or we are stopping. Nothing is left behind.
        """
        self._refuse_when_stopping()
        stored = False
        try:
            job = await self._intake.submit(submission)
            stored = True
        finally:
            if not stored:
                await self.discard([given.blob for given in submission.inputs.values()])
        return job

    async def submit_workflow(self, submission: WorkflowSubmission) -> Job:
        """Judge a client's own graph and store it as a job, which is durable when this returns.

        Raises:
            WorkflowError: the graph cannot be run here; ``details`` say where and why.
            GatewayError: the queue is full, or we are stopping. Nothing is left behind.
        """
        self._refuse_when_stopping()
        return await self._workflow_intake.submit(submission)

    async def workflow(self, job: Job) -> Mapping[str, Any]:
        """The graph behind a job: its client's own as it was sent, else that of its template, without names of files.

        Raises:
            NotFoundError: it is not kept any more.
        """
        text = await self._store.workflow(job.id)
        if text is not None:
            return (await asyncio.to_thread(Workflow.from_json, text)).graph
        try:
            template = await self._catalog.pinned(job.template, job.template_version)
        except TemplateError:
            raise NotFoundError("The workflow of this job is not kept any more.") from None
        return as_dispatched(template, job.parameters).graph

    def workflow_price(self) -> int:
        """Credits that a job of a client's own graph costs."""
        return self._workflow_intake.price

    def least_price(self, task: str, target: MediaKind) -> int:
        """Credits that a job costs at least. Raises TemplateError: none does this; InvalidInputError: none takes that."""
        return self._intake.least_price(task, target)

    def _refuse_when_stopping(self) -> None:
        if self.stopping.is_set():
            raise ShuttingDownError("The gateway is about to stop.", retry_after_seconds=10)

    async def discard(self, blobs: Iterable[Blob]) -> None:
        """Take back uploads that led to nothing; done to the end even when the caller is being canceled.

        The store is asked first: a client that left may have been cut off after its job was committed.
        """
        task = asyncio.create_task(take_back(self._store, self.blobs, tuple(blobs)), name="take back uploads")
        self._taking_back.add(task)
        task.add_done_callback(self._taking_back.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what callers that left have begun, and store what is known in memory alone."""
        await asyncio.gather(*self._taking_back, return_exceptions=True)
        await self.restarts.close()
        await self.claims.close()
        await self.accounts.close()

    def check_url(self, url: str, *, field: str, https_only: bool = False) -> None:
        """The verdict on a URL input that needs no network. Raises InvalidInputError."""
        self._fetcher.check(url, field=field, https_only=https_only)

    def check_webhook(self, url: str, *, field: str, https_only: bool = False) -> None:
        """The verdict on a URL that is called when a job has ended: needs no network, and is asked again at each call.

        Raises:
            InvalidInputError: by its text, or because this gateway calls nobody.
        """
        if self.settings.url_inputs == "off":
            raise InvalidInputError("This gateway calls no webhooks.", field=field)
        self._fetcher.check(url, field=field, https_only=https_only)

    async def vet_url(self, url: str, *, field: str) -> None:
        """The whole verdict on an https URL that is called later: a look-up, no connection.

        Raises:
            InvalidInputError: by its text.
            SourceUnreachableError: its name has no address, or one that is refused.
        """
        await self._fetcher.require_public(self._fetcher.check(url, field=field, https_only=True), field=field)

    async def fetch_url(
        self,
        url: str,
        *,
        field: str,
        kinds: frozenset[MediaKind],
        https_only: bool = False,
        deadline_seconds: float | None = None,
    ) -> SubmittedFile:
        """Fetch a URL input, guarded."""
        largest = {
            MediaKind.IMAGE: int(self.settings.max_image),
            MediaKind.GIF: int(self.settings.max_gif),
            MediaKind.VIDEO: int(self.settings.max_video),
        }
        checked = self._fetcher.check(url, field=field, https_only=https_only)
        caps = {kind: largest[kind] for kind in kinds}
        fetched = await self._fetcher.fetch(
            checked, caps=caps, field=field, https_only=https_only, deadline_seconds=deadline_seconds
        )
        return SubmittedFile(fetched.blob, field)

    def begin_stopping(self) -> None:
        """Take nothing new and let every stream say goodbye; what runs is not touched."""
        self.stopping.set()
        self._bus.wake_all()

    # --------------------------------------------------------------------------------------------------------- looking

    async def job(self, job_id: str, owner: str) -> Job:
        """One job of an owner. Raises NotFoundError, also when it is somebody else's."""
        # The owner is part of the question: to the store another's job is no more than one that is not there.
        job = await self._store.job_of(job_id if len(job_id) <= MAX_ID_CHARACTERS else "", owner)
        if job is None:
            raise NotFoundError("There is no such job.")
        return job

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
        return await self._store.jobs(owner, states=states, task=task, before=before, limit=limit)

    async def events_after(self, job_id: str, number: int) -> Sequence[Event]:
        """Durable events after ``number``, in order; ask again from the last one until none come."""
        return await self._store.events_after(job_id, number)

    def subscribe(self, job_id: str, *, previews: bool = False) -> Subscription:
        """Listen to a job from now on, to its previews when asked; close it when done."""
        return self._bus.subscribe(job_id, previews=previews)

    def watch(self, watcher: Watcher) -> None:
        """Have it called on every change of any job; it stays for good."""
        self._bus.watch(watcher)

    def progress(self, job_id: str) -> Progress | None:
        """The newest snapshot of a job at work."""
        return self._bus.latest(job_id)

    def is_preparing(self, job: Job) -> bool:
        """Whether a job was given to an upstream that has not heard of it yet: its inputs are on their way there."""
        return job.state is JobState.QUEUED and self._is_at_work(job.id)

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

    async def faces(self, job: Job) -> FaceReport | None:
        """What a detection found; None while it has not ended well, and when its report is kept no longer."""
        reports = [result for result in job.results if result.facts.kind is MediaKind.FACES]
        return await read_faces(self.blobs, reports[0].blob) if reports else None

    def detectors(self) -> tuple[str, ...]:
        """By which detectors faces would be found now, the most preferred first; see ``detection.detectors``."""
        return detectors(self._catalog.templates(), self._pool.able_for)

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
        beside = (self._screening.state(), self.blobs.state())
        return judge(self._pool, self._catalog, self._counts, *beside, consent_required=self.settings.require_consent)

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
        self._pool.add(upstream, embedded=upstream.status().engine == "preview")
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

    def template_views(self) -> tuple[TemplateView, ...]:
        """The templates that serve, and what keeps each from running; by name."""
        return template_views(self._catalog.templates(), self._intake.lacks_of)

    def task_types(self) -> Sequence[TaskType]:
        """What jobs can be asked for, and what keeps each from running; by name."""
        return task_types(self._catalog.templates(), self._intake.lacks_of)

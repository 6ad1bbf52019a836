"""An engine in memory, for the windows: jobs that move only when a test says so.

Unrealistic: files are not probed (a test says what is refused), parameters are not checked, nothing expires,
``fetch_url`` needs no network, and a cancel ends a job at once. The bus is the real one.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from gateway.accounts import DEFAULT_SCOPES, RANDOM_BYTES, Key, KeyKind, User, hash_of, key_text, shown_prefix
from gateway.asset_links import AssetLinks
from gateway.audit import MediaFacts, MediaKind
from gateway.delivering import DeliveryState, Reason, planned
from gateway.engine.accounts import Accounts
from gateway.engine.assets import Assets
from gateway.engine.bus import LocalBus
from gateway.engine.claims import Claims
from gateway.engine.consents import Consents
from gateway.engine.credits import Credits
from gateway.engine.dispatcher import Standing
from gateway.engine.health import Health, HealthStatus
from gateway.engine.members import Judgment, MemberView
from gateway.engine.purging import Purge
from gateway.engine.submitting import Submission, SubmittedFile
from gateway.engine.task_types import TaskParameter, TaskType
from gateway.engine.template_views import TemplateView
from gateway.engine.waits import Wait
from gateway.engine.workflow_jobs import WorkflowSubmission
from gateway.errors import ConflictError, GatewayError, InvalidInputError, NotFoundError, TaskUnavailableError
from gateway.events import Event, EventKind, PreviewImage, Progress
from gateway.faces import Face, FaceReport
from gateway.interfaces import Blob, Promise, UpstreamStatus, Watcher
from gateway.job import TERMINAL_JOB, Job, JobInput, JobResult, JobState
from gateway.manifest import ParameterType
from gateway.naming import safe_output_name
from gateway.safety import UrlMode, UrlPolicy, parse_url
from gateway.settings import Settings
from gateway.store.queries.deliveries import told as told_of_delivery
from gateway.template import Template, load_template
from tests.fakes.accounts import MemoryAccounts
from tests.fakes.assets import MemoryAssets
from tests.fakes.clock import FrozenClock as MovableClock
from tests.fakes.consents import MemoryConsents
from tests.fakes.credits import MemoryClaims, MemoryCredits
from tests.fakes.receivers import FakeWebhooks
from tests.fakes.storage import MemoryDeliveries, deliveries_in_memory

NOW = 1_750_258_800.0
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


def shipped(name: str) -> Template:
    """A template that comes with the gateway."""
    toml, graph = WORKFLOWS / name / "template.toml", WORKFLOWS / name / "graph.json"
    return load_template(name, toml.read_text(encoding="utf-8"), graph.read_text(encoding="utf-8"))


#: The one place that URLs lead to.
LISTED = UrlPolicy(mode=UrlMode.ALLOWLIST, host_names=frozenset({"media.example.org"}))
VIDEO_FACTS = MediaFacts(
    MediaKind.VIDEO, "video/mp4", ".mp4", 640, 360, 269, Fraction(25), 10.76, has_audio=True, video_codec="h264"
)
IMAGE_FACTS = MediaFacts(
    MediaKind.IMAGE, "image/png", ".png", 512, 512, 1, None, None, has_audio=False, video_codec=None
)
PROMPT = TaskParameter("prompt", ParameterType.STRING, required=True, max_length=4000)
WIDTH = TaskParameter(
    "width", ParameterType.INT, required=False, default=1024, min=256, max=2048, multiple_of=8, unit="px"
)
NO_CHECKPOINT = ("image_creation: node 'Checkpoint' (CheckpointLoaderSimple), input 'ckpt_name': none of * is there",)
#: As of a pool of embedded workers.
TASKS = (
    TaskType("face_swap", (), can_run=True, missing=()),
    TaskType("image_creation", (PROMPT, WIDTH), can_run=False, missing=NO_CHECKPOINT),
    TaskType(
        "image_upscale",
        (TaskParameter("scale_factor", ParameterType.INT, required=False, default=2, min=2, max=4),),
        can_run=True,
        missing=(),
    ),
    TaskType(
        "video_creation",
        (
            PROMPT,
            TaskParameter("duration", ParameterType.INT, required=False, default=4, min=1, max=10, unit="s"),
            TaskParameter("fps", ParameterType.INT, required=False, default=24, min=1, max=60, unit="frames/s"),
        ),
        can_run=False,
        missing=(
            "video_creation: node 'Checkpoint' (CheckpointLoaderSimple): the upstream does not have this node class",
        ),
    ),
)
#: The first can run, the second nowhere.
VIEWS = (TemplateView(shipped("faceswap_image"), ()), TemplateView(shipped("image_creation"), NO_CHECKPOINT))
REPORT = FaceReport(
    "opencv",
    512,
    512,
    (Face(0, 200, 100.5, 80, 80, 6400.0), Face(1, 20, 96, 60.25, 61, 3675.25)),
)
STATE_AFTER = {
    EventKind.DISPATCHED: JobState.DISPATCHED,
    EventKind.STARTED: JobState.RUNNING,
    EventKind.REQUEUED: JobState.QUEUED,
    EventKind.FINISHING: JobState.FINISHING,
    EventKind.SUCCEEDED: JobState.SUCCEEDED,
    EventKind.FAILED: JobState.FAILED,
    EventKind.CANCELED: JobState.CANCELED,
}


class FrozenClock:
    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class MemoryWriter:
    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._data = bytearray()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._data.clear()

    async def write(self, data: bytes) -> None:
        self._data += data

    async def commit(self) -> Blob:
        name = hashlib.sha256(self._data).hexdigest()
        self._blobs.stored[name] = bytes(self._data)
        return Blob(name, len(self._data))

    async def abort(self) -> None:
        self._data.clear()


class MemoryBlobs:
    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    async def writer(self, *, expected_bytes: int | None = None) -> MemoryWriter:
        return MemoryWriter(self)

    async def exists(self, blob_hash: str) -> bool:
        return blob_hash in self.stored

    async def stream(self, blob_hash: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        yield self.stored[blob_hash][start:end]

    async def link(self, blob_hash: str, *, filename: str, content_type: str) -> str | None:
        return None


class FakeArchive:
    """Purges what the fake holds; a backup is a few bytes."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        #: Backups being sent.
        self.backups = 0

    async def purge_job(self, job_id: str, *, consents: bool = False) -> Purge:
        job = self._service.stored.get(job_id)
        if job is None:
            raise NotFoundError("There is no such job.")
        if job.state not in TERMINAL_JOB:
            raise ConflictError("The job has not ended.")
        del self._service.stored[job_id]
        forgotten = await self._service.consent_store.forget(job_id) if consents else 0
        return Purge(jobs=1, files=2, blobs=1, consents=forgotten)

    async def purge_owner(self, owner: str, *, consents: bool = False) -> Purge:
        gone = [job.id for job in self._service.stored.values() if job.owner == owner]
        for job_id in gone:
            del self._service.stored[job_id]
        return Purge(jobs=len(gone), consents=await self._service.consent_store.forget_owner(owner) if consents else 0)

    @asynccontextmanager
    async def backup(self) -> AsyncIterator[AsyncIterator[bytes]]:
        if self._service.refusal is not None:
            raise self._service.refusal

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a "
            yield b"tar"

        self.backups += 1
        try:
            yield chunks()
        finally:
            self.backups -= 1


class FakeRestarts:
    """Begins a restart, and never ends one."""

    def __init__(self, service: FakeService) -> None:
        self._service = service

    def begin(self, name: str) -> None:
        if name not in self._service.members:
            raise NotFoundError("There is no such upstream.")
        self._service.members[name] = replace(self._service.members[name], restarting=True)


class FakeService:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.blobs = MemoryBlobs()
        self.clock = FrozenClock()
        self.stopping = asyncio.Event()
        self.bus = LocalBus()
        self.stored: dict[str, Job] = {}
        self._facts: dict[str, MediaFacts] = {}
        self.told: dict[str, list[Event]] = {}
        self.submissions: list[Submission] = []
        self.workflow_submissions: list[WorkflowSubmission] = []
        #: By job, as submitted; nothing is judged.
        self.graphs: dict[str, Mapping[str, Any]] = {}
        #: The templates that serve.
        self.views: tuple[TemplateView, ...] = VIEWS
        #: Raised by the next submit or fetch.
        self.refusal: GatewayError | None = None
        self.fetch_refusal: GatewayError | None = None
        self.vet_refusal: GatewayError | None = None
        #: By which detectors faces would be found.
        self.found_by: tuple[str, ...] = ("opencv",)
        #: What every detection found.
        self.report: FaceReport | None = None
        #: Ids of queued jobs whose inputs are on their way to an upstream.
        self.preparing: set[str] = set()
        #: ``fetch_url`` waits for it when set.
        self.fetch_gate: asyncio.Event | None = None
        #: Events told to every new job right after ``queued``.
        self.script: list[tuple[EventKind, Mapping[str, Any]]] = []
        self.status = HealthStatus.HEALTHY
        #: What ``task_types`` says, and ``submit`` with ``must_be_runnable`` heeds.
        self.tasks: tuple[TaskType, ...] = TASKS
        self.members = {"gpu-1": self._member("gpu-1")}
        self._numbers = itertools.count(1)
        self.archive = FakeArchive(self)
        self.account_store = MemoryAccounts()
        ids = itertools.count(1)
        self.accounts = Accounts(self.account_store, self.clock, lambda: f"account-{next(ids)}")
        self.purses = MemoryCredits()
        #: What jobs cost at least, by task and kind of target.
        self.least: defaultdict[tuple[str, MediaKind], int] = defaultdict(int)
        self.credits = Credits(self.purses, self.account_store, self.clock)
        self.claim_store = MemoryClaims()
        #: Of leases and of those who wait for one, which a test may move.
        self.claim_clock = MovableClock(NOW)
        self.asset_store = MemoryAssets(self.claim_store)
        asset_ids = (f"019a0000-0000-7000-9000-{number:012x}" for number in itertools.count(1))
        self.assets = Assets(
            self.asset_store,
            self.clock,
            lambda: next(asset_ids),
            AssetLinks(bytes(32)),
            retention_seconds=settings.upload_retention,
        )
        self.webhooks = FakeWebhooks()
        self.delivery_store = MemoryDeliveries()
        self.deliveries = deliveries_in_memory(self.delivery_store, self.account_store, self.clock, LISTED)
        self.consent_store = MemoryConsents()
        self.consents = Consents(
            self.consent_store, self.clock, 86_400.0, lambda task: settings.require_consent and task == "face_swap"
        )
        self.restarts = FakeRestarts(self)
        self.claims = Claims(self.claim_store, self.claim_clock, lambda: f"token-{next(ids)}")

    # ------------------------------------------------------------------------------------------- what a test says

    def tell(self, job_id: str, kind: EventKind, **data: Any) -> Event:
        events = self.told.setdefault(job_id, [])
        event = Event(job_id, len(events) + 1, kind, NOW, data)
        events.append(event)
        job = self.stored[job_id]
        changes: dict[str, Any] = {"last_event": event.number, "updated_at": NOW}
        if kind in STATE_AFTER:
            changes["state"] = STATE_AFTER[kind]
        if kind is EventKind.SUCCEEDED:
            changes |= self._finish(job, data)
        if kind is EventKind.DISPATCHED and "upstream" in data:
            changes |= {"upstream": data["upstream"], "engine": data.get("engine")}
        if kind is EventKind.STARTED:
            changes["started_at"] = NOW
        if kind in {EventKind.REQUEUED, EventKind.CANCELED}:
            changes["results"] = ()
        if kind is EventKind.CANCEL_REQUESTED:
            changes["cancel_requested_at"] = NOW
        if event.is_terminal:
            changes["finished_at"] = NOW
        if kind is EventKind.FAILED:
            changes |= {"error_code": data["code"], "error_message": data["message"], "results": ()}
        self.stored[job_id] = replace(job, **changes)
        self.bus.announce(job_id, event.number)
        return event

    def show(self, job_id: str, fraction: float, **fields: Any) -> None:
        self.bus.show(Progress(job_id, fraction, fields.pop("message", "Working"), **fields))

    def show_preview(self, job_id: str, data: bytes, node: str | None = "3") -> None:
        self.bus.show(PreviewImage(job_id, "image/jpeg", data, node))

    def succeed(self, job_id: str, content: bytes = b"the swapped video") -> str:
        link = f"{self.stored[job_id].output_name}_{'0' * 25}1.mp4"
        name = hashlib.sha256(content).hexdigest()
        self.blobs.stored[name] = content
        self.tell(
            job_id,
            EventKind.SUCCEEDED,
            results=[{"link": link, "content_type": "video/mp4", "size_bytes": len(content)}],
            engine="preview",
            warnings=[],
        )
        return link

    def deliver(self, job_id: str, state: str = "delivered", *, reason: str = "answered", **changes: Any) -> None:
        """The outputs of a job that has succeeded are where they were to be put, or are not; and an event says so."""
        state_ = DeliveryState(state)
        changes["reason"] = Reason(reason)
        known = [one for one in self.delivery_store.stored if one.job_id != job_id]
        made = [
            replace(
                one, state=state_, attempts=1, last_at=NOW, next_at=NOW + 5 if state == "pending" else None, **changes
            )
            for one in planned(self.stored[job_id], NOW)
        ]
        self.delivery_store.stored = [*known, *made]
        for one in made:
            if state_ is not DeliveryState.PENDING:
                kind, data = told_of_delivery(one)
                self.tell(job_id, kind, **data)

    def output(
        self, job_id: str, node_id: str = "9", content: bytes = b"the picture", name: str = "cat_00001_.png"
    ) -> JobResult:
        """A job that runs a client's own graph has made a file."""
        blob = hashlib.sha256(content).hexdigest()
        self.blobs.stored[blob] = content
        job = self.stored[job_id]
        number = len(job.results)
        link = f"{job.output_name}_{number:032}.png"
        made = JobResult(
            f"asset-{job_id}-{number}", blob, len(content), IMAGE_FACTS, link, node_id, name, "attempt-1", name
        )
        self.stored[job_id] = replace(job, results=(*job.results, made))
        self.tell(
            job_id,
            EventKind.OUTPUT,
            asset_id=made.asset_id,
            node_id=node_id,
            name=name,
            link=link,
            content_type="image/png",
            size_bytes=len(content),
        )
        return made

    def give_key(self, **changes: Any) -> str:
        """Make the key ``key-1`` of the user ``user-1``; its text."""
        text = key_text(KeyKind.TEST, bytes(RANDOM_BYTES))
        key = Key(
            id="key-1",
            user_id="user-1",
            name="tester",
            prefix=shown_prefix(text),
            rate_limit=60,
            concurrency=4,
            scopes=DEFAULT_SCOPES,
            created_at=NOW,
        )
        self.account_store.by_name["tester"] = User("user-1", "tester", "free", email_verified=False, created_at=NOW)
        self.account_store.by_id["key-1"] = replace(key, **changes)
        self.account_store.hashes[hash_of(text)] = ("key-1", float("inf"))
        return text

    def stop(self) -> None:
        self.stopping.set()
        self.bus.wake_all()

    def put(
        self,
        facts: MediaFacts = VIDEO_FACTS,
        *,
        owner: str = "local",
        output_name: str | None = None,
        task: str = "face_swap",
        roles: Sequence[str] = ("target", "face"),
        parameters: Mapping[str, object] | None = None,
        extra: Mapping[str, object] | None = None,
        dialect: str = "faceswap",
        credit_cost: int = 0,
        priority: int = 0,
    ) -> Job:
        """A queued job; ``facts`` are its target's, or where it has none its result's."""
        job_id = f"019a0000-0000-7000-8000-{next(self._numbers):012x}"
        job = Job(
            id=job_id,
            owner=owner,
            submitter="127.0.0.1",
            dialect=dialect,
            task=task,
            template="faceswap_video" if task == "face_swap" else task,
            template_version="1",
            state=JobState.QUEUED,
            priority=priority,
            parameters=dict(parameters or {}),
            inputs={
                role: JobInput(f"asset-{role[0]}", role[0] * 64, 10, IMAGE_FACTS if role == "face" else facts)
                for role in roles
            },
            output_name=safe_output_name(output_name, NOW),
            created_at=NOW,
            updated_at=NOW,
            queue_deadline=NOW + 86_400,
            extra=dict(extra or {}),
            credit_cost=credit_cost,
        )
        self._facts[job_id] = facts
        self.stored[job_id] = job
        self.tell(job_id, EventKind.QUEUED)
        return self.stored[job_id]

    # ---------------------------------------------------------------------------------------------- the facade

    async def submit(self, submission: Submission) -> Job:
        await asyncio.sleep(0)
        if self.refusal is not None:
            await self.discard([given.blob for given in submission.inputs.values()])
            raise self.refusal
        if submission.must_be_runnable:
            await self._refuse_what_none_can_run(submission)
        self.submissions.append(submission)
        stills = MediaKind.IMAGE in submission.accepts.get("target", frozenset()) or submission.task == "image_creation"
        job = self.put(
            IMAGE_FACTS if stills else VIDEO_FACTS,
            owner=submission.owner,
            output_name=submission.output_name,
            task=submission.task,
            roles=tuple(submission.inputs),
            parameters=submission.parameters,
            extra=submission.extra,
            dialect=submission.dialect,
            priority=submission.priority,
        )
        return self._answered(job, submission.promise)

    def _answered(self, job: Job, promise: Promise | None) -> Job:
        if promise is not None:
            self.claim_store.keep(promise, job, self.claim_clock.now())
        for kind, data in self.script:
            self.tell(job.id, kind, **data)
        return job

    async def submit_workflow(self, submission: WorkflowSubmission) -> Job:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.workflow_submissions.append(submission)
        graph = submission.workflow
        assert isinstance(graph, Mapping)
        job = self.put(
            IMAGE_FACTS,
            owner=submission.owner,
            task="workflow",
            roles=(),
            extra=submission.extra,
            dialect=submission.dialect,
            priority=submission.priority,
        )
        self.graphs[job.id] = graph
        return self._answered(job, submission.promise)

    async def workflow(self, job: Job) -> Mapping[str, Any]:
        if job.id not in self.graphs:
            raise NotFoundError("The workflow of this job is not kept any more.")
        return self.graphs[job.id]

    def workflow_price(self) -> int:
        return 1

    async def discard(self, blobs: Iterable[Blob]) -> None:
        kept = {asset.blob for asset in self.asset_store.by_id.values()}
        for blob in blobs:
            if blob.hash not in kept:
                self.blobs.stored.pop(blob.hash, None)

    def check_url(self, url: str, *, field: str, https_only: bool = False) -> None:
        try:
            parse_url(url, LISTED, field=field, https_only=https_only)
        except InvalidInputError as error:
            raise type(error)("This URL is not accepted.", field=field) from None

    def check_webhook(self, url: str, *, field: str, https_only: bool = False) -> None:
        self.check_url(url, field=field, https_only=https_only)

    def least_price(self, task: str, target: MediaKind) -> int:
        return self.least[task, target]

    async def vet_url(self, url: str, *, field: str) -> None:
        self.check_url(url, field=field, https_only=True)
        if self.vet_refusal is not None:
            raise self.vet_refusal

    async def fetch_url(
        self,
        url: str,
        *,
        field: str,
        kinds: frozenset[MediaKind],
        https_only: bool = False,
        deadline_seconds: float | None = None,
    ) -> SubmittedFile:
        if self.fetch_gate is not None:
            await self.fetch_gate.wait()
        if self.fetch_refusal is not None:
            raise self.fetch_refusal
        name = hashlib.sha256(url.encode()).hexdigest()
        self.blobs.stored[name] = url.encode()
        return SubmittedFile(Blob(name, len(url)), field)

    async def job(self, job_id: str, owner: str) -> Job:
        job = self.stored.get(job_id)
        if job is None or job.owner != owner:
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
        own = [job for job in self.stored.values() if job.owner == owner and task in {None, job.task}]
        if before is not None and before not in {job.id for job in own}:
            raise InvalidInputError("The cursor names no job of yours.", field="cursor")
        found = [
            job
            for job in sorted(own, key=lambda job: job.id, reverse=True)
            if (states is None or job.state in states) and (before is None or job.id < before)
        ]
        return found[:limit]

    async def events_after(self, job_id: str, number: int) -> Sequence[Event]:
        await asyncio.sleep(0)
        return [event for event in self.told[job_id] if event.number > number][:3]

    def subscribe(self, job_id: str, *, previews: bool = False) -> Any:
        return self.bus.subscribe(job_id, previews=previews)

    def watch(self, watcher: Watcher) -> None:
        self.bus.watch(watcher)

    def progress(self, job_id: str) -> Progress | None:
        return self.bus.latest(job_id)

    async def faces(self, job: Job) -> FaceReport | None:
        return self.report if job.state is JobState.SUCCEEDED else None

    def detectors(self) -> Sequence[str]:
        return self.found_by

    def is_preparing(self, job: Job) -> bool:
        return job.state is JobState.QUEUED and job.id in self.preparing

    async def queue_position(self, job_id: str) -> int | None:
        return 2

    async def why_waiting(self, job: Job) -> Wait | None:
        if job.state is not JobState.QUEUED:
            return None
        judged = (Judgment("gpu-1", fits=True, reason="it works on another job"),)
        moves = self._facts[job.id].frames > 1
        return Wait(2, Standing("task", 1, 0, 0.0) if moves else None, judged, 34.56 if moves else None)

    async def result(self, link: str) -> tuple[Job, JobResult]:
        for job in self.stored.values():
            for result in job.results:
                if result.link == link:
                    return job, result
        raise NotFoundError("There is no such file (any more).")

    async def cancel(self, job_id: str, owner: str, from_states: frozenset[JobState] | None = None) -> Job:
        job = await self.job(job_id, owner)
        if job.state in TERMINAL_JOB or (from_states is not None and job.state not in from_states):
            raise ConflictError("The job has ended.")
        self.tell(job_id, EventKind.CANCELED)
        return self.stored[job_id]

    def health(self) -> Health:
        return Health(
            self.status,
            "preview",
            tuple(self.members.values()),
            {},
            {JobState.QUEUED: 1},
            consent_required=self.settings.require_consent,
        )

    def upstreams(self) -> tuple[MemberView, ...]:
        return tuple(self.members.values())

    async def set_draining(self, name: str, *, draining: bool) -> None:
        if name not in self.members:
            raise NotFoundError("There is no such upstream.")
        self.members[name] = replace(self.members[name], draining=draining)

    async def add_upstream(self, url: str, name: str | None = None) -> MemberView:
        view = self._member(name or "gpu-2")
        self.members[view.status.name] = view
        return view

    async def remove_upstream(self, name: str) -> None:
        if name not in self.members:
            raise NotFoundError("There is no such upstream.")
        del self.members[name]

    def template_views(self) -> Sequence[TemplateView]:
        return self.views

    def templates(self) -> Sequence[str]:
        return ["faceswap_image", "faceswap_video"]

    def task_types(self) -> Sequence[TaskType]:
        return self.tasks

    # ---------------------------------------------------------------------------------------------------- pieces

    async def _refuse_what_none_can_run(self, submission: Submission) -> None:
        missing = next((task.missing for task in self.tasks if task.name == submission.task), ())
        if missing:
            await self.discard([given.blob for given in submission.inputs.values()])
            raise TaskUnavailableError.of(submission.task, missing)

    def _finish(self, job: Job, data: Mapping[str, Any]) -> dict[str, Any]:
        facts = self._facts[job.id]
        blobs = list(self.blobs.stored)
        results = tuple(
            JobResult(f"asset-{number}", blobs[-1], result["size_bytes"], facts, result["link"])
            for number, result in enumerate(data["results"])
        )
        if job.results:  # made before the end
            results = job.results
        return {"results": results, "engine": data["engine"], "fraction": 1.0, "finished_at": NOW}

    @staticmethod
    def _member(name: str) -> MemberView:
        status = UpstreamStatus(name, True, "", "0.3.64", "preview", 0, "http://127.0.0.1:8188")
        return MemberView(status, draining=False, job_id=None)

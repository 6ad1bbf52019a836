"""The whole engine on fakes: real service, dispatcher, runner, store (in memory); fake time, upstreams, bytes, media."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.asset_links import AssetLinks
from gateway.audit import MediaKind
from gateway.blobs.placed import PlacedBlobs
from gateway.engine.arrivals import Arrivals
from gateway.engine.bus import LocalBus
from gateway.engine.carrier import Carrier
from gateway.engine.catalog import Catalog
from gateway.engine.courier import Courier
from gateway.engine.deliveries import Deliveries
from gateway.engine.dispatcher import Dispatcher
from gateway.engine.maintenance import Maintenance
from gateway.engine.pool import Pool
from gateway.engine.recorder import Recorder
from gateway.engine.results import Collector
from gateway.engine.runner import Runner
from gateway.engine.screening import Screening
from gateway.engine.service import Service
from gateway.engine.submitting import Submission, SubmittedFile
from gateway.engine.taking_back import take_back
from gateway.engine.timing import LearnedTimings
from gateway.engine.webhook_secrets import WebhookSecrets
from gateway.engine.webhooks import Webhooks
from gateway.engine.workflow_jobs import WorkflowSubmission
from gateway.job import RetryLimits
from gateway.screening import Policy, Rules
from gateway.settings import from_mapping
from gateway.store.sql_store import SqlStore
from gateway.template import load_template
from tests.fakes.blobs import FOLDER, MemoryBlobs
from tests.fakes.bucket import MemoryBucket
from tests.fakes.check import FakeCheck
from tests.fakes.clock import FrozenClock
from tests.fakes.media import FakeMedia
from tests.fakes.receivers import PlainSealer, Receivers
from tests.fakes.storage import Storage
from tests.fakes.upstream import FakeUpstream, capabilities_for
from tests.tools.templates import parsed_once

ROOT = Path(__file__).parents[2]
STALL_SECONDS = 600.0
#: Turns of the loop after which all that can happen has happened; the longest chain here takes about half of them.
TURNS = 200
ACCEPTS = {
    "target": frozenset({MediaKind.IMAGE, MediaKind.VIDEO, MediaKind.GIF}),
    "face": frozenset({MediaKind.IMAGE}),
}


class NoFetcher:
    def check(self, url, *, field, https_only=False):
        raise AssertionError("no URL is used here")

    async def require_public(self, url, *, field):
        raise AssertionError("no URL is used here")

    async def fetch(self, url, *, caps, field, https_only=False, deadline_seconds=None):
        raise AssertionError("no URL is used here")


@cache
def shipped_templates():
    folders = [path for path in sorted((ROOT / "workflows").iterdir()) if path.is_dir()]
    return [
        load_template(path.name, (path / "template.toml").read_text(), (path / "graph.json").read_text())
        for path in folders
    ]


class Engine:
    """One process's engine. ``restart`` throws it away as a kill would, and starts another on the same store."""

    def __init__(self, folder: Path, **settings):
        self.folder = folder
        self.settings = from_mapping({"upstreams": "", "stall_seconds": STALL_SECONDS, "poison_after": 0, **settings})
        self.clock = FrozenClock()
        self.blobs = MemoryBlobs(self.clock)
        self.media = FakeMedia(self._read)
        #: What looks at inputs, where the settings name anything that does.
        self.check = FakeCheck()
        self.store = SqlStore.in_memory()
        self.upstreams: dict[str, FakeUpstream] = {}
        #: Targets to which upstreams put videos themselves.
        self.direct: dict[str, MemoryBucket] = {}
        self.ids = (f"id-{number:06}" for number in itertools.count(1))
        self.workflows = ROOT / "workflows"
        self.loop = None
        self.receivers = Receivers(self.clock)
        self.storage = Storage(self.clock, self.blobs)

    def _read(self, path):
        return self.blobs.stored[path.name] if path.parent == FOLDER else path.read_bytes()

    async def start(self, *upstreams: FakeUpstream):
        await self._build()
        for upstream in upstreams:
            self.upstreams[upstream.name] = upstream
        await self.dispatcher.prepare()
        for upstream in self.upstreams.values():
            self.pool.add(upstream, embedded=upstream.state.engine == "preview")
        self.loop = asyncio.create_task(self.dispatcher.run(), name="dispatcher")
        await self.settle()
        return self

    async def _build(self):
        self.bus = LocalBus()
        self.catalog = Catalog(self.workflows, self.store, self.clock)
        await self.catalog.load()
        self.pool = Pool(self.clock, on_change=self._wake, chance=lambda: 0.0)
        limits = RetryLimits(self.settings.max_attempts)
        self._build_webhooks()
        self._build_deliveries()
        self.recorder = Recorder(
            self.store,
            self.bus,
            self.clock,
            limits=limits,
            on_queued=self._wake,
            on_message=self._post,
        )
        blobs = PlacedBlobs(self.blobs, self.direct, direct=tuple(self.direct), now=self.clock.now)

        async def back(blob):
            await take_back(self.store, blobs, [blob])

        self.arrivals = Arrivals(
            self.direct,
            self.media,
            self.folder,
            max_result_bytes=1000,
            may_act=self.receivers.may_act,
            take_back=back,
        )
        self.collector = Collector(
            self.store,
            blobs,
            self.media,
            self.folder,
            self.clock,
            self.arrivals,
            max_result_bytes=1000,
            new_id=lambda: next(self.ids),
        )
        self.timings = await LearnedTimings(self.store).__aenter__()
        self.runner = Runner(
            self.store,
            self.blobs,
            self.bus,
            self.catalog,
            self.pool,
            self.recorder,
            self.collector,
            self.timings,
            self.clock,
            stall_seconds=STALL_SECONDS,
        )
        self.dispatcher = Dispatcher(
            self.store,
            self.pool,
            self.catalog,
            self.recorder,
            self.runner,
            self.clock,
            chance=lambda: 0.0,
            poison_after=self.settings.poison_after,
        )
        rules = Rules(Policy(self.settings.safety_policy), self.settings.safety_threshold, self.settings.safety_frames)
        self.service = Service(
            settings=self.settings,
            store=self.store,
            blobs=self.blobs,
            media=self.media,
            screening=Screening(self.check, rules, self.media, self.blobs, self.folder),
            fetcher=NoFetcher(),
            catalog=self.catalog,
            pool=self.pool,
            recorder=self.recorder,
            bus=self.bus,
            timings=self.timings,
            clock=self.clock,
            cancel_at_work=self.dispatcher.cancel,
            standing=self.dispatcher.standing,
            is_at_work=self.dispatcher.is_at_work,
            make_upstream=self._make_upstream,
            webhooks=self.webhooks,
            deliveries=self.deliveries,
            asset_links=AssetLinks(bytes(32)),
            new_id=lambda: next(self.ids),
        )
        self.keeper = Maintenance(
            self.store,
            self.blobs,
            self.recorder,
            self.service,
            self.timings,
            self.clock,
            job_retention_seconds=self.settings.job_retention,
        )

    def _build_webhooks(self):
        self.secrets = WebhookSecrets(self.store.webhooks, PlainSealer(), self.clock)
        self.courier = Courier(
            self.store,
            self.receivers,
            self.secrets,
            self.clock,
            tell=lambda job: job.id.encode(),
            may_act=self.receivers.may_act,
            chance=lambda: 0.5,
        )
        self.webhooks = Webhooks(
            self.store.webhooks,
            self.secrets,
            self.receivers,
            self.clock,
            lambda: next(self.ids),
            on_message=self.courier.wake,
        )

    def _build_deliveries(self):
        self.carrier = Carrier(
            self.store,
            self.blobs,
            self.bus,
            self.storage,
            self.storage.targets,
            PlainSealer(),
            self.clock,
            may_act=self.receivers.may_act,
            chance=lambda: 0.5,
        )
        self.deliveries = Deliveries(
            self.store.deliveries,
            self.store.accounts,
            self.storage.targets,
            PlainSealer(),
            self.clock,
            guard=self.storage,
            on_delivery=self.carrier.wake,
            on_change=self.bus.doubt_all,
        )

    def _post(self):
        self.courier.wake()
        self.carrier.wake()

    def _wake(self):
        if hasattr(self, "dispatcher"):
            self.dispatcher.wake()

    async def _make_upstream(self, url, name, check_name):
        check_name(name)
        return self.new_upstream(name)

    async def stop(self):
        await self.dispatcher.stop()
        self.loop.cancel()
        await asyncio.gather(self.loop, return_exceptions=True)
        await self.pool.close()
        await self.service.close()

    async def restart(self):
        """As after a kill: nothing is saved or said, and whatever an upstream says meanwhile waits there."""
        await self.stop()
        await self.start()

    # -------------------------------------------------------------------------------------------------- what tests say

    def new_upstream(self, name="gpu-1", **how):
        engine = how.pop("engine", "comfyui")
        return FakeUpstream(name, capabilities_for(shipped_templates(), **how), engine=engine)

    def put(self, data: bytes, field: str) -> SubmittedFile:
        return SubmittedFile(self.blobs.put(data), field)

    async def submit(
        self,
        target=b"image:target",
        face=b"image:face",
        *,
        owner="local",
        submitter="ann",
        settle=True,
        roles=("target", "face"),
        **more,
    ):
        files = {"target": target} | {role: face for role in roles if role.startswith("face")}
        submission = Submission(
            owner=owner,
            submitter=submitter,
            dialect="faceswap",
            inputs={role: self.put(files[role], "image") for role in roles},
            accepts={role: ACCEPTS.get(role, ACCEPTS["face"]) for role in roles},
            **more,
        )
        job = await self.service.submit(submission)
        if settle:
            await self.settle()
        return job.id

    async def submit_workflow(self, graph, *, owner="local", submitter="ann", settle=True, **more):
        """A client's own graph."""
        submission = WorkflowSubmission(owner=owner, submitter=submitter, dialect="comfy_v2", workflow=graph, **more)
        job = await self.service.submit_workflow(submission)
        if settle:
            await self.settle()
        return job.id

    async def settle(self):
        """Let every task go on until all of them wait for a test or for time. Nothing here runs in a thread."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def until(self, state: str, job_id: str):
        """The job, which is in this state now."""
        await self.settle()
        job = await self.store.job(job_id)
        assert job.state.value == state, f"{job.state.value} ({job.error_code}: {job.error_message})"
        return job

    async def pass_time(self, seconds: float):
        self.clock.advance(seconds)
        await self.settle()

    async def job(self, job_id):
        return await self.store.job(job_id)

    async def kinds(self, job_id):
        return [event.kind.value for event in await self.store.events_after(job_id, 0)]

    async def task(self, job_id):
        """The open task of a job."""
        return next(found.task for found in await self.store.open_tasks() if found.job.id == job_id)

    def result_node(self, name="faceswap_image"):
        return next(iter(self.catalog.get(name).outputs.values())).node_id

    def finish(self, upstream, content=b"image:swapped", *, start=True):
        """The newest prompt of this upstream runs and succeeds."""
        if start:
            upstream.prompt.start()
        upstream.prompt.succeed(self.result_node(), content)


@pytest.fixture(autouse=True)
def logged():
    """What was logged; nothing is rendered, which would take longer than all the rest."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session", autouse=True)
def templates_are_parsed_once():
    with parsed_once():
        yield


class Inline(ThreadPoolExecutor):
    """Work for threads, done at once: the order of things is then the same in every run."""

    def submit(self, work, /, *arguments, **named):
        done = Future()
        try:
            done.set_result(work(*arguments, **named))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it, as from a real pool
            done.set_exception(error)
        return done


@pytest.fixture
async def engine(tmp_path):
    asyncio.get_running_loop().set_default_executor(Inline(max_workers=1))
    made = Engine(tmp_path)
    yield made
    if made.loop is not None:
        await made.stop()
    await made.store.close()


@pytest.fixture
def workflows(engine, tmp_path):
    """The shipped templates, for a test to change."""
    engine.workflows = shutil.copytree(ROOT / "workflows", tmp_path / "workflows")
    return engine.workflows

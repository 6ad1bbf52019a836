"""One simulated gateway process: the real engine and the real store's queries, until it is stopped or killed.

A kill is a kill: from that moment nothing the process still does reaches the store, the disk or the network, and none of
its clean-up counts. It comes at a random operation of the store or of the network, before or after that took effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.asset_links import AssetLinks
from gateway.audit import MediaKind
from gateway.engine.arrivals import Arrivals
from gateway.engine.assets import Upload
from gateway.engine.bus import LocalBus
from gateway.engine.catalog import Catalog
from gateway.engine.dispatcher import Dispatcher
from gateway.engine.pool import Pool
from gateway.engine.recorder import Recorder
from gateway.engine.results import Collector
from gateway.engine.runner import Runner
from gateway.engine.screening import Screening
from gateway.engine.service import Service
from gateway.engine.submitting import Submission, SubmittedFile
from gateway.engine.timing import LearnedTimings
from gateway.engine.workflow_jobs import WorkflowSubmission
from gateway.holding import TIMING, Keeper
from gateway.interfaces import Upstream
from gateway.job import Job, RetryLimits
from gateway.lease import DATA_DIR
from gateway.screening import Policy, Rules
from gateway.settings import Settings, from_mapping
from gateway.sniffing import ANY_FILE
from gateway.store.executors import InlineExecutor
from gateway.store.queries.leases import Claim
from gateway.store.sql_store import SqlStore
from gateway.template import Template, load_template
from gateway.upstreams.remote import RemoteUpstream
from tests.chaos.simulation.loop import OWNER, SimulatedTask, VirtualClock
from tests.fakes.receivers import Receivers, webhooks_of
from tests.fakes.storage import deliveries_of

if TYPE_CHECKING:
    from tests.chaos.simulation.world import World

ROOT = Path(__file__).parents[3]
#: How often what waited too long is looked for; seldom where nothing can have.
EXPIRE_SECONDS = 5.0
SELDOM_SECONDS = 60.0
LONG_SECONDS = 3600.0
#: A stop may take this long.
STOP_SECONDS = 20.0
ACCEPTS = {"target": frozenset({MediaKind.IMAGE}), "face": frozenset({MediaKind.IMAGE})}


#: ComfyUI's name for what nodes that call paid services need.
SECRET = "api_key_comfy_org"


def secret_of(number: int) -> str:
    """What the client of a request sends with it."""
    return f"the secret of {number}"


@cache
def the_template() -> Template:
    folder = ROOT / "workflows" / "faceswap_image"
    return load_template(folder.name, (folder / "template.toml").read_text(), (folder / "graph.json").read_text())


class OneTemplate(Catalog):
    """A catalog that read its folder once for all worlds."""

    async def load(self) -> None:
        self._serving = {the_template().name: the_template()}


class MortalExecutor:
    """Runs the real queries in memory, under a lease, for as long as its process lives."""

    def __init__(self, process: Process, inline: InlineExecutor) -> None:
        self._process = process
        self._inline = inline
        self.lease = inline.lease

    async def read(self, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        await self._process.takes_time()
        return await self._inline.read(query, *arguments, **named)

    async def write(self, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        await self._process.takes_time()
        result = await self._inline.write(query, *arguments, **named)
        self._process.world.checker.written(self._process, query, arguments, result)
        await self._process.takes_time()  # killed here, it was committed and nobody knows
        return result

    async def copy_to(self, path: Path) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """The database outlives the process."""


class ProcessClock(VirtualClock):
    """Time as one process has it: while it is stopped it does not wake."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.loop)
        self._process = process

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self._process.wakes()


class NoFetcher:
    def check(self, url: str, *, field: str, https_only: bool = False) -> None:
        raise NotImplementedError

    async def require_public(self, url: None, *, field: str) -> None:
        raise NotImplementedError

    async def fetch(
        self,
        url: None,
        *,
        caps: object,
        field: str,
        https_only: bool = False,
        deadline_seconds: float | None = None,
    ) -> SubmittedFile:
        raise NotImplementedError


class Process:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self.is_ready = False
        #: Stopped by SIGSTOP: whatever it waits for, it does not hear of it until it is woken.
        self.is_frozen = False
        #: Another has taken over.
        self.is_superseded = False
        self._thawed = asyncio.Event()
        #: Operations left until it is killed; None: it lives.
        self.fuse: int | None = None
        self.settings: Settings = from_mapping({"upstreams": "", "queue_ttl": world.plan.queue_ttl})
        self._loops: list[asyncio.Task[None]] = []
        #: Requests that were not answered yet.
        self.requests: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------------------------------------------- life and death

    def check(self) -> None:
        """Every operation on the world comes by here, before and after it took effect."""
        if self.fuse is not None and self.alive:
            self.fuse -= 1
            if self.fuse < 0:
                self.kill()
        if not self.alive:
            raise asyncio.CancelledError

    async def takes_time(self) -> None:
        self.check()
        chance = self.world.random.random()
        if chance < 0.2:
            await asyncio.sleep(chance * 30 if chance < 0.01 else chance / 20)
            self.check()
        await self.wakes()

    async def wakes(self) -> None:
        """Come back when the process is not stopped."""
        while self.is_frozen:
            await self._thawed.wait()
            self.check()

    def freeze(self) -> None:
        self.world.trace("gateway", "frozen")
        self.is_frozen = True
        self._thawed.clear()

    def thaw(self) -> None:
        if self.alive and self.is_frozen:
            self.world.trace("gateway", "woken, and taken over" if self.is_superseded else "woken")
            self.is_frozen = False
            self._thawed.set()

    def kill(self) -> None:
        """Nothing that it still does counts."""
        if self.alive:
            self.world.trace("gateway", "killed")
            self.alive = False
            for task in self.tasks():
                task.cancel()
            self.world.loop.call_soon(self.world.process_died, self, context=self.world.context)

    def tasks(self) -> list[SimulatedTask]:
        """Its tasks that have not ended, oldest first."""
        found = [task for task in asyncio.all_tasks(self.world.loop) if isinstance(task, SimulatedTask)]
        return sorted((task for task in found if task.owner is self), key=lambda task: task.number)

    def owns(self, work: Any, name: str) -> asyncio.Task[Any]:
        """Run something as a part of this process."""
        context = self.world.context.copy()
        context.run(OWNER.set, self)
        return self.world.loop.create_task(work, name=name, context=context)

    # -------------------------------------------------------------------------------------------------------- its parts

    async def start(self) -> None:
        """As ``gateway.main`` does: what is open is known before any upstream is connected."""
        await self._build()
        await self.catalog.load()
        await self.dispatcher.prepare()
        now = self.clock.now()
        for server in self.world.servers:
            row = await self.store.upstream(server.name, url=server.url, now=now)
            if not row.removed:
                self.pool.add(self._remote(server.name, server.url, row.client_id), draining=row.draining)
        self._loops = [
            asyncio.create_task(self.dispatcher.run(), name="dispatcher"),
            asyncio.create_task(self._expire(), name="maintenance"),
            asyncio.create_task(self.keeper.run(), name="lease"),
        ]
        self.is_ready = True
        self.world.trace("gateway", "started")

    async def _build(self) -> None:
        world = self.world
        self.clock = ProcessClock(self)
        self.bus = LocalBus()
        begun_at = self.clock.monotonic()
        claim = Claim(DATA_DIR, world.new_id(), lambda: None)
        self.store = SqlStore(
            MortalExecutor(self, InlineExecutor(claim, beside=world.database)),
            result_retention_seconds=86_400.0,
            asset_retention_seconds=86_400.0,
            new_client_id=world.new_id,
        )
        self.keeper = Keeper(self.store, self.clock, TIMING, taken_at=begun_at)
        self.catalog = OneTemplate(ROOT / "workflows", self.store, self.clock)
        self.pool = Pool(self.clock, on_change=self._wake, chance=world.random.random)
        limits = RetryLimits(world.plan.max_attempts)
        self.recorder = Recorder(self.store, self.bus, self.clock, limits=limits, on_queued=self._wake)
        arrivals = Arrivals(
            {},
            world.media,
            world.scratch,
            max_result_bytes=1000,
            may_act=self.keeper.verified,
            take_back=world.blobs.discard,
        )
        self.collector = Collector(
            self.store,
            world.blobs,
            world.media,
            world.scratch,
            self.clock,
            arrivals,
            max_result_bytes=1000,
            new_id=world.new_id,
        )
        self.timings = await LearnedTimings(self.store).__aenter__()
        self.runner = Runner(
            self.store,
            world.blobs,
            self.bus,
            self.catalog,
            self.pool,
            self.recorder,
            self.collector,
            self.timings,
            self.clock,
            stall_seconds=world.stall_seconds,
        )
        self.dispatcher = Dispatcher(
            self.store,
            self.pool,
            self.catalog,
            self.recorder,
            self.runner,
            self.clock,
            chance=world.random.random,
            poison_after=world.plan.poison_after,
        )
        self.service = Service(
            settings=self.settings,
            store=self.store,
            blobs=world.blobs,
            media=world.media,
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
            webhooks=webhooks_of(self.store, self.clock, Receivers(self.clock)),
            deliveries=deliveries_of(self.store, self.clock),
            screening=Screening(None, Rules(Policy.OFF), world.media, world.blobs, world.scratch),
            asset_links=AssetLinks(bytes(32)),
            new_id=world.new_id,
        )

    def _wake(self) -> None:
        if hasattr(self, "dispatcher"):
            self.dispatcher.wake()

    def _remote(self, name: str, url: str, client_id: str) -> RemoteUpstream:
        return RemoteUpstream(
            name,
            url,
            client_id=client_id,
            clock=self.clock,
            on_change=self._wake,
            live_prompts=self._live_prompts,
            may_act=self.keeper.verified,
        )

    def _live_prompts(self) -> Collection[str]:
        return self.runner.live_prompts()

    async def _make_upstream(self, url: str, name: str | None, check_name: Callable[[str], None]) -> Upstream:
        assert name is not None
        check_name(name)
        row = await self.store.upstream(name, url=url, now=self.clock.now())
        if row.removed:
            await self.store.set_upstream(name, removed=False, now=self.clock.now())
        return self._remote(name, url, row.client_id)

    async def _expire(self) -> None:
        seconds = EXPIRE_SECONDS if self.world.plan.queue_ttl < LONG_SECONDS else SELDOM_SECONDS
        while True:
            await self.recorder.expire()
            await self.clock.sleep(seconds)

    # --------------------------------------------------------------------------------------------------- what it is told

    async def submit(self, number: int) -> Job:
        """A client's request, up to its acknowledgement."""
        target, face = f"image:target {number % 3}".encode(), b"image:face"
        inputs = {
            "target": SubmittedFile(self.world.blobs.put(target), "target"),
            "face": SubmittedFile(self.world.blobs.put(face), "face"),
        }
        submission = Submission(
            owner="local", submitter=f"client-{number % 2}", dialect="faceswap", inputs=inputs, accepts=ACCEPTS
        )
        return await self.service.submit(submission)

    async def submit_workflow(self, number: int) -> Job:
        """The same for a client's own graph: a file, and two nodes that each make one."""
        photo = Upload("local", self.world.blobs.put(b"a photo"), ANY_FILE, "image/png", "photo.png")
        asset = (await self.service.assets.upload(photo)).asset
        reference = {"__type": "core/ASSET", "info": {"id": asset.id}}
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": reference}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "cat"}},
        }
        secrets = {SECRET: secret_of(number)} if number in self.world.plan.secret else {}
        submission = WorkflowSubmission(
            owner="local",
            submitter=f"client-{number % 2}",
            dialect="comfy_v2",
            workflow=graph,
            extra={"number": number},
            secrets=secrets,
        )
        return await self.service.submit_workflow(submission)

    async def stop(self) -> None:
        """As at SIGTERM: take nothing new, let go of what runs, close."""
        self.is_ready = False
        self.service.begin_stopping()
        if self.requests:  # as the server does
            await asyncio.wait(self.requests)
        await self.dispatcher.stop()
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.pool.close()
        await self.service.close()
        await self.timings.__aexit__(None, None, None)

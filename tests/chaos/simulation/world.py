"""One world: a plan carried out on simulated servers and gateway processes around one database, then peace, then judgement.

The same seed gives the same world to the last message: one source of chance, a virtual loop, queries in the caller's
thread.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import gc
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from traceback import format_exception
from typing import Any
from unittest.mock import patch

import orjson
import structlog

from gateway.comfy.protocol import DEAD_SECONDS
from gateway.errors import ConflictError, GatewayError, LeaseLostError
from gateway.events import Event, EventKind
from gateway.holding import TIMING
from gateway.store.executors import InlineExecutor
from gateway.upstreams import remote
from gateway.upstreams.client import Answer
from gateway.upstreams.socket import Socket
from tests.chaos.simulation.checker import STALL_SECONDS, Checker
from tests.chaos.simulation.comfyui import SimulatedComfyUI
from tests.chaos.simulation.loop import StuckLoopError, VirtualClock, VirtualLoop
from tests.chaos.simulation.plan import Action, Plan, draw
from tests.chaos.simulation.process import ROOT, STOP_SECONDS, Process, the_template
from tests.chaos.simulation.wire import Connect, SimulatedClient
from tests.fakes.blobs import FOLDER, MemoryBlobs
from tests.fakes.media import FakeMedia
from tests.fakes.upstream import capabilities_for

#: After peace begins, everything has ended within this time: three stalls with their removals, rests and runs for each
#: of six jobs on one server are the worst that a plan can leave behind.
PEACE_SECONDS = 900.0
#: A power cut takes all servers within this time.
CUT_SECONDS = 6.0
#: How often the driver looks around.
LOOK_SECONDS = 2.0
#: A client gives up on a gateway that does not come back.
CLIENT_SECONDS = 60.0
#: Number of the event of a job's first dispatch; later ones follow a lost attempt.
FIRST_DISPATCH = 2
ECHO = Action(0.0, "echo")
MOST_PUSHES = 20
#: What the engine must never have to log: something it did not foresee went wrong.
BROKEN = frozenset(
    {
        "runner_broke",
        "dispatch_round_failed",
        "staging_ahead_broke",
        "upstream_task_failed",
        "engine_loop_failed",
        "attempt_broke",
        "early_output_broke",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a world came out."""

    seed: int
    violations: tuple[str, ...]
    #: (virtual seconds, who, what), when it was asked for.
    trace: tuple[tuple[float, str, str], ...]
    virtual_seconds: float
    #: Job id -> the kinds of its events.
    histories: dict[str, tuple[str, ...]]


@cache
def _database() -> tuple[InlineExecutor, bytes]:
    """One engine for all worlds, since it keeps the compiled statements; and an empty database to begin with."""
    executor = InlineExecutor()
    return executor, _raw(executor).serialize()


def _raw(executor: InlineExecutor) -> Any:
    return executor._connection.connection.driver_connection


@cache
def _object_info() -> Answer:
    classes = capabilities_for([the_template()]).classes
    info = {
        name: {"input": {"required": {key: [list(allowed)] if allowed else ["ANY"] for key, allowed in inputs.items()}}}
        for name, inputs in classes.items()
    }
    return Answer(200, orjson.dumps(info | _clients_classes()))


def _clients_classes() -> dict[str, Any]:
    """Those that clients' own graphs use, as a real server tells of them."""
    real = orjson.loads((ROOT / "tests/data/object_info/real.json").read_bytes())
    shown = {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True}
    return {"LoadImage": real["LoadImage"], "SaveImage": real["SaveImage"], "PreviewImage": shown}


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class World:
    """See the module."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        # Chance that can be replayed is the point of it.
        self.random = Random(seed)  # noqa: S311 - nothing here is a secret
        self.plan: Plan = draw(seed, self.random)
        self.stall_seconds = STALL_SECONDS
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop)
        self.context = contextvars.copy_context()
        self.tracing = tracing
        self.told: list[tuple[float, str, str]] = []
        self.checker = Checker(self)
        self.object_info = _object_info()
        self.scratch = _scratch()
        self.database, blank = _database()
        _raw(self.database).deserialize(blank)
        self.blobs = MemoryBlobs(self.clock)
        self.media = FakeMedia(
            lambda path: self.blobs.stored[path.name] if path.parent == FOLDER else path.read_bytes()
        )
        self._ids = 0
        self.servers = [SimulatedComfyUI(self, f"gpu-{number}") for number in range(1, self.plan.servers + 1)]
        self.process: Process | None = None
        #: Since when a process has been ready without a break.
        self.ready_since = 0.0
        #: (when, what) of what happened to the gateway itself.
        self.own_faults: list[tuple[float, str]] = []
        self.is_at_peace = False
        #: Prompts of which a server accepted only a part -> when its answer arrived, which said so.
        self.partly: dict[str, float] = {}
        self.zombies: list[Process] = []
        self.jobs: dict[int, str] = {}
        self.cancel_sent: set[str] = set()
        self._down_seconds = 1.0
        self._clients: list[asyncio.Task[None]] = []

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids:06}"

    def server_at(self, url: str) -> SimulatedComfyUI:
        return next(server for server in self.servers if server.url == url)

    def is_poisonous(self, job_id: str) -> bool:
        """Whether a job kills what runs it: in peace, too."""
        return job_id in self.checker.seen and self.checker.seen[job_id].number in self.plan.poisonous

    def trace(self, who: str, what: str) -> None:
        if self.tracing:
            self.told.append((self.loop.time(), who, what))

    def draw_habit(self) -> str:
        """How the next prompt goes wrong; in peace none does."""
        if self.is_at_peace:
            return ""
        for habit, share in self.plan.habits.items():
            if self.random.random() < share:
                return habit
        return ""

    # -------------------------------------------------------------------------------------------------------- its course

    async def live(self) -> None:
        """The plan, then peace, then judgement."""
        self._start_gateway()
        for action in self.plan.actions:
            await self._pass_until(action.at)
            self.trace("plan", f"{action.kind} {action.subject} {action.seconds:.1f}")
            getattr(self, f"_{action.kind}")(action)
        await self._pass_until(self.plan.peace_at)
        await self._make_peace()
        end = self.loop.time() + PEACE_SECONDS
        while (self.checker.open_jobs or self._holds_ours() or not self._clients_done()) and self.loop.time() < end:
            await self._pass_until(min(self.loop.time() + LOOK_SECONDS, end))
            if self.checker.violations:
                break
        if self.checker.open_jobs:
            self.checker.fail("every job ends", f"{self.checker.open_jobs} have not, {PEACE_SECONDS:.0f} s into peace")
        await self._stop_for_good()
        self.checker.at_the_end()

    async def _pass_until(self, moment: float) -> None:
        while self.loop.time() < moment:
            await asyncio.sleep(min(LOOK_SECONDS, moment - self.loop.time()))
            self.checker.look()

    def _holds_ours(self) -> bool:
        return any(prompt.job_id is not None for server in self.servers for prompt in server.held())

    def _clients_done(self) -> bool:
        return all(client.done() for client in self._clients)

    async def _make_peace(self) -> None:
        self.trace("plan", "peace")
        self.is_at_peace = True
        for server in self.servers:
            server.weather_until = server.http_blocked_until = server.frames_blocked_until = self.loop.time()
            while server.partitions:
                self._heal(server)
            if server.running is not None and server.running.habit == "deaf":
                server.kill()  # an operator would have to, too
            server.start()
        self.blobs.is_full = False
        for process in [*self.zombies, *([self.process] if self.process else [])]:
            process.fuse = None
            process.thaw()
        await self._until_ready()
        for server in self.servers:
            await self._operate(partial(self._put_back, server))

    async def _until_ready(self) -> None:
        while self.process is None or not self.process.is_ready or self.process.is_frozen:  # noqa: ASYNC110 - whichever it is in the end
            await asyncio.sleep(0.5)

    async def _put_back(self, server: SimulatedComfyUI) -> None:
        assert self.process is not None
        service = self.process.service
        if self.process.pool.get(server.name) is None:
            await service.add_upstream(server.url, server.name)
        await service.set_draining(server.name, draining=False)

    async def _stop_for_good(self) -> None:
        process = self.process
        assert process is not None
        await self._stop_gently(process)
        self.process = None

    # ------------------------------------------------------------------------------------------------------- the gateway

    def _start_gateway(self) -> None:
        process = self.process = Process(self)

        async def start() -> None:
            await process.start()
            self.ready_since = self.loop.time()

        process.owns(start(), "start")

    def process_died(self, process: Process) -> None:
        """It was killed, by its fuse or by an action; another comes."""
        self.own_faults.append((self.loop.time(), "killed"))
        if self.process is process:
            self.process = None
            self.loop.call_later(self._down_seconds, self._start_gateway)

    async def _stop_gently(self, process: Process) -> None:
        self.own_faults.append((self.loop.time(), "stopped"))
        begun = self.loop.time()
        await asyncio.wait({process.owns(process.stop(), "stop")})
        if self.loop.time() - begun > STOP_SECONDS:
            self.checker.fail("a stop is quick", f"it took {self.loop.time() - begun:.1f} s")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if process.alive and (left := [task.get_name() for task in process.tasks()]):
            self.checker.fail("no task is left behind", f"{left}")
        process.alive = False

    def _kill_gateway(self, action: Action) -> None:
        process = self.process
        if process is None or process.is_frozen:
            return
        self._down_seconds = action.seconds
        process.fuse = self.random.randrange(60)
        self.loop.call_later(self.random.uniform(0.0, 5.0), self._kill_now, process)

    def _kill_now(self, process: Process) -> None:
        if not self.is_at_peace:
            process.kill()

    def _freeze_gateway(self, action: Action) -> None:
        """SIGSTOP, SIGCONT; another gateway waits beside it and takes over when it has stood still."""
        process = self.process
        if process is None or not process.is_ready or process.is_frozen:
            return
        self.own_faults.append((self.loop.time(), "stopped in its tracks"))
        process.freeze()
        self.loop.call_later(action.seconds, process.thaw, context=self.context)
        self.loop.call_later(TIMING.still_seconds + self.random.random(), self._take_over, process)

    def _take_over(self, process: Process) -> None:
        if process.is_frozen and process.alive and self.process is process:
            self.trace("gateway", "taken over")
            process.is_superseded = True
            process.fuse = None
            self.zombies.append(process)
            self._do(self._see_off(process), "a zombie")
            self._start_gateway()

    async def _see_off(self, process: Process) -> None:
        """Once woken it finds out, and ends by itself."""
        while process.is_frozen:  # noqa: ASYNC110 - it is simulated time
            await asyncio.sleep(1.0)
        begun = self.loop.time()
        await asyncio.wait({process.owns(process.keeper.lost.wait(), "the end")}, timeout=STOP_SECONDS)
        if not process.keeper.lost.is_set():
            self.checker.fail("who was taken over ends", f"not {self.loop.time() - begun:.0f} s after it was woken")
        await self._stop_gently(process)

    def _stop_gateway(self, action: Action) -> None:
        process = self.process
        if process is None or not process.is_ready or process.is_frozen:
            return
        self._down_seconds = action.seconds

        async def stop() -> None:
            await self._stop_gently(process)
            if self.process is process:
                self.process = None
                self.loop.call_later(action.seconds, self._start_gateway)

        self._do(stop(), "stopping")

    def _do(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._clients.append(self.loop.create_task(work, name=name))

    async def _operate(self, what: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Ask the gateway for something, as a client does: what it refuses, or dies of, is the client's loss."""
        process = self.process
        if process is None or not process.is_ready or process.is_frozen:
            return
        task = process.owns(what(), "a request")
        process.requests.add(task)
        task.add_done_callback(process.requests.discard)
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, GatewayError):
            self.checker.fail("only known errors", f"{type(error).__name__}: {error}")

    # ------------------------------------------------------------------------------------------------------- its clients

    def _submit(self, action: Action) -> None:
        async def ask() -> None:
            assert self.process is not None
            is_workflow = action.subject in self.plan.workflows
            submit = self.process.submit_workflow if is_workflow else self.process.submit
            job = await submit(action.subject)
            self.jobs[action.subject] = job.id
            self.checker.acknowledged.add(job.id)

        async def insist() -> None:
            until = self.loop.time() + CLIENT_SECONDS
            while action.subject not in self.jobs and self.loop.time() < until:
                await self._operate(ask)
                await asyncio.sleep(1.0)

        self._do(insist(), "a client")

    def _cancel(self, action: Action) -> None:
        if action.subject in self.jobs:
            self._cancel_job(self.jobs[action.subject])

    def _cancel_job(self, job_id: str) -> None:
        async def ask() -> None:
            assert self.process is not None
            self.cancel_sent.add(job_id)
            try:
                await self.process.service.cancel(job_id, "local")
            except ConflictError:
                return
            self.trace(job_id, "cancel acknowledged")
            self.checker.seen[job_id].cancel_acknowledged = True

        self._do(self._operate(ask), "a canceling client")

    def told_of(self, event: Event, number: int) -> None:
        """A job has an event: a trap may be waiting for it."""
        if event.kind is EventKind.DISPATCHED and event.number > FIRST_DISPATCH and self.random.random() < 0.5:
            self.loop.call_later(self.random.uniform(0.0, 3.0), self._echo, ECHO, context=self.context)
        # For the first time only: a job whose every attempt is cut short there would not end well.
        first = self.checker.seen[event.job_id].history.count(EventKind.OUTPUT.value) == 1
        is_output = event.kind is EventKind.OUTPUT and first
        trap = (self.plan.output_traps if is_output else self.plan.traps).get(number)
        if trap is None or trap.on != event.kind.value or self.is_at_peace:
            return
        if trap.what == "cancel":
            self.loop.call_later(trap.after_seconds, self._cancel_job, event.job_id, context=self.context)
        elif trap.what == "cancel neighbours":
            self.loop.call_later(trap.after_seconds, self._cancel_neighbours, event.job_id, context=self.context)
        elif trap.what == "kill server":
            self.loop.call_later(trap.after_seconds, self._kill_server_of, event.job_id, context=self.context)
        elif trap.what == "strand":
            self.loop.call_later(trap.after_seconds, self._strand, event.job_id, context=self.context)
        elif self.process is not None and self.process.fuse is None and not self.process.is_frozen:
            self.process.fuse = self.random.randrange(12)

    def _cancel_neighbours(self, job_id: str) -> None:
        name = self.checker.seen[job_id].task.upstream
        for other in list(self.checker.seen.values()):
            if other.task.upstream == name is not None and other.job.id != job_id and not self.is_at_peace:
                self._cancel_job(other.job.id)

    def _kill_server_of(self, job_id: str) -> None:
        server = next((found for found in self.servers if found.running and found.running.job_id == job_id), None)
        if server is not None and not self.is_at_peace:
            self._kill_server(Action(self.loop.time(), "kill_server", self.servers.index(server), 5.0))

    def _strand(self, job_id: str) -> None:
        """Its upstream is cut off for longer than an attempt waits for one, and comes back with the prompt alive."""
        server = next((found for found in self.servers if found.running and found.running.job_id == job_id), None)
        if server is None or server.running is None or self.is_at_peace:
            return
        server.strand(server.running)
        seconds = DEAD_SECONDS + self.random.uniform(10.0, 40.0)
        self._partition(Action(self.loop.time(), "partition", self.servers.index(server), seconds))

    def _drain(self, action: Action) -> None:
        name = self.servers[action.subject].name

        async def drain(draining: bool) -> None:  # noqa: FBT001 - it is what is set
            assert self.process is not None
            await self.process.service.set_draining(name, draining=draining)

        async def both() -> None:
            await self._operate(partial(drain, True))
            await asyncio.sleep(action.seconds)
            await self._operate(partial(drain, False))

        self._do(both(), "an operator")

    def _remove(self, action: Action) -> None:
        server = self.servers[action.subject]

        async def remove() -> None:
            assert self.process is not None
            await self.process.service.remove_upstream(server.name)
            self.own_faults.append((self.loop.time(), f"removed {server.name}"))

        async def both() -> None:
            await self._operate(remove)
            await asyncio.sleep(action.seconds)
            await self._operate(partial(self._put_back, server))

        self._do(both(), "an operator")

    def _disk_full(self, action: Action) -> None:
        self.own_faults.append((self.loop.time(), "disk full"))
        self.blobs.is_full = True

        def freed() -> None:
            self.blobs.is_full = False

        self.loop.call_later(action.seconds, freed)

    def _echo(self, action: Action) -> None:
        """A report of an attempt that is over comes again, as from a process that does not know."""
        del action
        old = [echo for echo in self.checker.reports if self.checker.is_over(echo)]
        if not old:
            return
        echo = self.random.choice(old)
        self.trace(echo.job_id, f"hears again: {echo.report}")
        try:
            with self.database._connection.begin():
                changed = echo.write(self.database._connection, self.clock.now())
        except sqlite3.IntegrityError as error:
            changed = error  # only the database stood in its way
        if changed is not None:
            self.checker.fail("stale reports change nothing", f"{echo.job_id} took {echo.report} of {echo.attempt}")

    # ------------------------------------------------------------------------------------------------------- the servers

    def _kill_server(self, action: Action) -> None:
        server = self.servers[action.subject]
        server.kill()
        self.loop.call_later(action.seconds, server.start)

    def _power_cut(self, action: Action) -> None:
        if action.at + CUT_SECONDS > self.plan.peace_at:
            return  # it would hit some of them only, one by one
        for server in self.servers:
            self.loop.call_later(self.random.uniform(0.0, CUT_SECONDS), self._cut_power, server)

    def _cut_power(self, server: SimulatedComfyUI) -> None:
        server.kill()
        self.loop.call_later(self.random.choice((1.0, 10.0, 50.0)) * self.random.random(), server.start)

    def _partition(self, action: Action) -> None:
        server = self.servers[action.subject]
        server.blame(f"cut off for {action.seconds:.1f} s", is_hard=True)
        server.partitions += 1
        for connection in server.connections:
            self.loop.call_later(self.random.uniform(20.0, 40.0), self._ping_fails, server, connection)
        self.loop.call_later(action.seconds, self._heal, server)

    def _ping_fails(self, server: SimulatedComfyUI, connection: Any) -> None:
        if server.partitions and connection in server.connections:
            connection.break_off("no answer to a ping", notice=False)
            server.held_back.append(partial(server.handler_ended, connection.client_id, connection))

    def _heal(self, server: SimulatedComfyUI) -> None:
        if server.partitions == 0:
            return
        server.partitions -= 1
        if server.partitions:
            return
        server.blame("healed", is_hard=True)
        held_back, server.held_back = server.held_back, []
        for call in held_back:
            self.loop.call_later(self.random.uniform(0.0, 3.0), call)
        for connection in server.connections:
            connection.healed()

    def _drop_socket(self, action: Action) -> None:
        server = self.servers[action.subject]
        late = self.random.choice((0.01, 0.5, 0.9, 8.0))
        for connection in list(server.connections):
            server.blame(f"socket dropped, noticed {late} s later")
            connection.break_off("dropped", late_seconds=late)

    def _mute_socket(self, action: Action) -> None:
        server = self.servers[action.subject]
        server.blame("forgets its sockets")
        server.sockets.clear()

    def _block_frames(self, action: Action) -> None:
        server = self.servers[action.subject]
        server.blame(f"frames held up for {action.seconds:.1f} s")
        server.frames_blocked_until = self.loop.time() + action.seconds

    def _block_http(self, action: Action) -> None:
        server = self.servers[action.subject]
        server.blame(f"answers nothing for {action.seconds:.1f} s", is_hard=True)
        server.http_blocked_until = self.loop.time() + action.seconds

    def _bad_weather(self, action: Action) -> None:
        server = self.servers[action.subject]
        server.blame(f"replies go wrong for {action.seconds:.1f} s")
        server.weather_until = self.loop.time() + action.seconds

    def _foreign_prompt(self, action: Action) -> None:
        self.servers[action.subject].add_foreign()

    def _foreign_interrupt(self, action: Action) -> None:
        self.servers[action.subject].interrupt_by_others()

    def _foreign_delete(self, action: Action) -> None:
        self.servers[action.subject].delete_by_others()

    def _wipe_disk(self, action: Action) -> None:
        server = self.servers[action.subject]
        server.blame("its files are gone")
        server.wiped |= set(server.inputs)
        server.inputs.clear()
        server.outputs.clear()


# ------------------------------------------------------------------------------------------------------------- running it


@contextmanager
def _logging(world: World) -> Iterator[None]:
    """What the engine logs is traced, and held against it where it says that something broke."""

    def heard(_: object, level: str, entry: MutableMapping[str, Any]) -> str:
        what = entry.pop("event")
        error = entry.pop("exc_info", None)
        # Who was taken over breaks on every write: that is how it ends.
        if what in BROKEN and not isinstance(error, asyncio.CancelledError | LeaseLostError):
            world.checker.fail("nothing breaks", f"{what}: {type(error).__name__}: {error} {entry}")
        world.trace("log", f"{what} {entry}" if error is None else f"{what} {entry} {error!r}")
        raise structlog.DropEvent

    before = structlog.get_config()
    level = 0 if world.tracing else 40
    structlog.configure(
        processors=[heard], wrapper_class=structlog.make_filtering_bound_logger(level), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def run(seed: int, *, tracing: bool = False) -> Verdict:
    """Live one world from its seed."""
    world = World(seed, tracing=tracing)
    ids = world.random.getrandbits

    def next_uuid() -> uuid.UUID:
        return uuid.UUID(int=ids(128), version=4)

    with ExitStack() as stack:
        gc.disable()  # a world is small, and gone as a whole
        stack.callback(gc.enable)
        stack.enter_context(_logging(world))
        stack.enter_context(patch.object(uuid, "uuid4", next_uuid))
        stack.enter_context(patch.object(remote, "UpstreamClient", SimulatedClient))
        stack.enter_context(patch.object(remote, "Socket", partial(Socket, connector=Connect)))
        try:
            world.loop.run_until_complete(world.live())
        except StuckLoopError as error:
            world.checker.fail("the loop goes on", str(error))
        except Exception as error:  # noqa: BLE001 - the world's own: it is told with its seed like anything else
            world.checker.fail("the world goes on", "".join(format_exception(error)))
        _bury(world)
    for context in world.loop.errors:
        world.checker.fail("no error is left behind", f"{context.get('message')}: {context.get('exception')!r}")
    return Verdict(
        seed,
        tuple(world.checker.violations),
        tuple(world.told),
        world.loop.time(),
        {job_id: tuple(seen.history) for job_id, seen in world.checker.seen.items()},
    )


def _bury(world: World) -> None:
    """End what is left, so that one world costs the next nothing."""
    world.loop.is_ending = True
    for process in [*world.zombies, *([world.process] if world.process else [])]:
        process.alive = False
    # Some note down what ended them and wait for something else: each gets as many pushes as it needs.
    for _ in range(MOST_PUSHES):
        left = asyncio.all_tasks(world.loop)
        if not left:
            break
        for task in left:
            task.cancel()
        world.loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    world.loop.run_until_complete(world.loop.shutdown_asyncgens())
    world.loop.close()

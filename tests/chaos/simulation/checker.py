"""What must hold in every world, looked at with each commit, each request to a server, and at the end.

The checker knows what really happened on both sides: what was committed, and what each simulated server did or had done
to it. So it can tell a loss that had a cause from one that had none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from gateway.errors import (
    CredentialLostError,
    ExpiredError,
    NodeFailedError,
    PoisonedError,
    RejectedGraphError,
    UpstreamLostError,
    UpstreamMemoryError,
)
from gateway.events import Event, EventKind
from gateway.interfaces import Recorded, Report
from gateway.job import LIVE, TERMINAL_JOB, Cause, Job, JobState, Task, TaskEvent, TaskState
from gateway.poison import OUTAGE_SECONDS
from gateway.store.queries import recording
from gateway.store.schema import assets, attempts, blobs, events, jobs, tasks
from gateway.template import WORKFLOW
from tests.chaos.simulation.loop import NOON
from tests.chaos.simulation.process import SECRET, secret_of

if TYPE_CHECKING:
    from tests.chaos.simulation.comfyui import Prompt, SimulatedComfyUI
    from tests.chaos.simulation.process import Process
    from tests.chaos.simulation.world import World

#: Silence after which an attempt is taken back.
STALL_SECONDS = 60.0
#: A fault bears on what happens this much later: dead after 60 s, rests of 30, stalls, removal of stale prompts.
BLAME_SECONDS = 150.0
#: What HTTP tells the truth about is settled within this time.
SETTLE_SECONDS = 30.0
#: A cancel is asked again every 5 s at least, and a node heeds it within 2.
HEED_SECONDS = 12.0
#: So long after a server can be talked to again its socket is back; with the time to heed, less than 30 s.
CALM_SECONDS = 15.0
#: What happens this far apart is not taken for one outage, and this close together always is, however long it takes until
#: a look at a server fails.
APART_SECONDS = OUTAGE_SECONDS + 20.0
TOGETHER_SECONDS = OUTAGE_SECONDS / 2
LOSSES = {TaskEvent.ATTEMPT_LOST, TaskEvent.INTERRUPTED}


@dataclass(frozen=True, slots=True)
class Echo:
    """A report that was made, to be made again."""

    job_id: str
    attempt: int
    report: str
    query: Callable[..., Any]
    arguments: tuple[Any, ...]

    def write(self, connection: Connection, now: float) -> object:
        """As it was made, but now."""
        # Looked up anew, so that a test may have changed what recording does.
        return getattr(recording, self.query.__name__, self.query)(connection, *self.arguments[:-1], now)


@dataclass(frozen=True, slots=True)
class Death:
    """A server died of the prompt that it ran."""

    at: float
    server: str
    job_id: str
    attempt: int
    #: Whether its start was heard of, and since it was dispatched nothing else was wrong with server and gateway.
    is_clear: bool


@dataclass(slots=True)
class Seen:
    """What was seen of a job."""

    job: Job
    task: Task
    #: In the order in which jobs were stored.
    number: int
    last_event: int = 0
    ended: bool = False
    cancel_acknowledged: bool = False
    #: When the newest attempt was dispatched, virtual seconds.
    dispatched_at: float = 0.0
    #: Since when the server of the live attempt says the truth and does not have its prompt.
    gone_since: float | None = None
    #: Since when a server that says the truth holds the prompt of a job whose cancel was acknowledged.
    unheeded_since: float | None = None
    history: list[str] = field(default_factory=list)
    #: Asset ids of outputs that were told of and not taken back.
    shown: set[str] = field(default_factory=set)


class Checker:
    """See the module. Violations are collected: one raised inside the engine would be taken for the engine's."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.seen: dict[str, Seen] = {}
        self.acknowledged: set[str] = set()
        self.reports: list[Echo] = []
        #: Prompts that were taken from a server while their neighbour was interrupted.
        self.pulled_back: set[str] = set()
        #: By server, since when a prompt that nobody wants is there while the server can be talked to.
        self.stale_since: dict[str, dict[str, float]] = {}
        self.deaths: list[Death] = []

    def fail(self, rule: str, what: str) -> None:
        """Something happened that must not."""
        self.violations.append(f"{rule}: {what}")
        self.world.trace("CHECKER", f"{rule}: {what}")

    # --------------------------------------------------------------------------------------------------- what was written

    def written(self, process: Process, query: Callable[..., Any], arguments: tuple[Any, ...], result: object) -> None:
        """A transaction was committed."""
        if process.is_superseded:
            self.fail("who was taken over writes nothing", query.__name__)
        report = next((argument for argument in arguments if isinstance(argument, Report)), None)
        if isinstance(result, Recorded):
            self._remember(query, arguments, report, result)
        for recorded in result if isinstance(result, list) else [result]:
            if isinstance(recorded, Recorded):
                self._recorded(recorded, report)

    def _remember(
        self, query: Callable[..., Any], arguments: tuple[Any, ...], report: Report | None, recorded: Recorded
    ) -> None:
        if report is not None and report.attempt is not None:
            self.reports.append(Echo(recorded.job.id, report.attempt, report.event.value, query, arguments))
        elif query.__name__ == recording.record_outputs.__name__:
            self.reports.append(Echo(recorded.job.id, arguments[1], "outputs", query, arguments))
        elif query.__name__ == recording.keep_results.__name__:
            self.reports.append(Echo(recorded.job.id, arguments[1], "files", query, arguments))

    def is_over(self, echo: Echo) -> bool:
        """Whether the attempt that was reported of has ended."""
        task = self.seen[echo.job_id].task
        return task.attempt > echo.attempt or task.state not in LIVE

    def _recorded(self, recorded: Recorded, report: Report | None) -> None:
        job, task, now = recorded.job, recorded.task, self.world.loop.time()
        seen = self.seen.setdefault(job.id, Seen(job, task, len(self.seen)))
        for event in recorded.events:
            self._event(seen, event)
        self._look_at_outputs(seen, job)
        if report is not None and report.event in LOSSES and recorded.events:
            self._lost(seen, report, now)
        if report is not None and report.event is TaskEvent.DISPATCHED:
            seen.dispatched_at = now
        seen.job, seen.task, seen.gone_since = job, task, None
        self.world.trace(job.id, f"{job.state} {report.event if report else ''} {task.attempt}/{task.losses}")

    def _event(self, seen: Seen, event: Event) -> None:
        if event.number != seen.last_event + 1:
            self.fail("numbers are dense", f"{event.job_id} went from {seen.last_event} to {event.number}")
        if seen.ended:
            self.fail("nothing after the end", f"{event.job_id} was told {event.kind} after its end")
        seen.last_event = event.number
        seen.ended = seen.ended or event.is_terminal
        seen.history.append(event.kind.value)
        if event.kind is EventKind.OUTPUT:
            seen.shown.add(str(event.data["asset_id"]))
        gone = event.data.get("dropped", ())
        seen.shown -= set(gone) if isinstance(gone, list) else set()
        self.world.told_of(event, seen.number)

    def _look_at_outputs(self, seen: Seen, job: Job) -> None:
        """What a client's own graph has made is what was told of it, at any moment; what did not succeed has made nothing."""
        kept = [result.asset_id for result in job.results if result.node_id is not None]
        shown = seen.shown if job.state not in {JobState.FAILED, JobState.CANCELED} else set()
        if sorted(kept) != sorted(shown):
            self.fail("outputs are those told of", f"{job.id} has {kept}, and {sorted(shown)} were told")

    def _lost(self, seen: Seen, report: Report, now: float) -> None:
        """An attempt is lost only where something happened; interrupted at no cost also where we did it."""
        name = seen.task.upstream
        since = seen.dispatched_at - BLAME_SECONDS
        server = next((server for server in self.world.servers if server.name == name), None)
        if server is not None and server.was_at_fault_since(since):
            return
        ours = seen.task.prompt_id in self.pulled_back or any(at >= since for at, _ in self.world.own_faults)
        if not (ours and report.event is TaskEvent.INTERRUPTED):
            self.fail(
                "no loss without a cause", f"{seen.job.id} {report.event} on {name} at {now:.1f}: {report.reason}"
            )

    # ------------------------------------------------------------------------------------------------ what servers heard

    def prompt_arrived(self, server: SimulatedComfyUI, prompt: Prompt) -> None:
        """POST /prompt was acted on."""
        now = self.world.loop.time()
        seen = self.seen.get(prompt.job_id or "")
        if seen is None or seen.task.attempt < prompt.attempt:
            self.fail("stored before sent", f"{server.name} got {prompt.id[:8]}, which no attempt in the store names")
        elif seen.task.attempt == prompt.attempt and seen.task.prompt_id not in {prompt.id, None}:
            self.fail("stored before sent", f"{server.name} got {prompt.id[:8]}, and another is stored")
        self._look_at_secret(server, prompt)
        since = now - BLAME_SECONDS
        for other in self.world.servers:
            twins = [held for held in other.held() if held.job_id == prompt.job_id]
            if twins and not other.was_unreachable_since(since):
                self.fail("one place at a time", f"{prompt.job_id} came to {server.name} while on {other.name}")
        if seen is not None and seen.dispatched_at > server.unreachable_at:
            for held in server.held():
                if held.job_id is not None and not self._is_live(held):
                    self.fail("stale prompts leave first", f"{server.name} got {prompt.id[:8]} beside {held.id[:8]}")
        # One runs, and while it is about to end the next one may wait there already.
        if sum(held.job_id is not None for held in server.held()) > 1 and not server.was_unreachable_since(since):
            self.fail("one waits at a server", f"{server.name} got {prompt.id[:8]} beside two of ours")

    def _look_at_secret(self, server: SimulatedComfyUI, prompt: Prompt) -> None:
        """A prompt has the secret that its job came with, and no other."""
        seen = self.seen.get(prompt.job_id or "")
        number = seen.job.extra.get("number") if seen is not None else None
        wanted = secret_of(number) if isinstance(number, int) and number in self.world.plan.secret else None
        if prompt.extra.get(SECRET) != wanted:
            self.fail("secrets go with their job", f"{server.name} got {prompt.extra.get(SECRET)} with {prompt.id[:8]}")

    def prompt_removed(self, server: SimulatedComfyUI, prompt: Prompt, *, beside: Prompt) -> None:
        """A prompt that is there is being deleted or interrupted at our request, which was made for ``beside``."""
        if prompt.job_id is None:
            self.fail("never another's prompt", f"{prompt.id} on {server.name} was removed")
            return
        seen = self.seen[prompt.job_id]
        if self._is_unwanted(prompt) or server.was_unreachable_since(seen.dispatched_at - BLAME_SECONDS):
            return
        # What waits is pulled back while its neighbour is interrupted, lest the interrupt hits it.
        if beside is not prompt and self._is_unwanted(beside):
            self.pulled_back.add(prompt.id)
            return
        # Behind the prompts of others it may wait until its silence is too long: then it is taken back.
        if prompt is server.running or self.world.loop.time() - seen.dispatched_at < STALL_SECONDS:
            self.fail("never a prompt that is wanted", f"{prompt.id[:8]} on {server.name} was removed")

    def died_of(self, server: SimulatedComfyUI, prompt: Prompt) -> None:
        """The server dies of the prompt that it runs."""
        seen, now, process = self.seen[prompt.job_id or ""], self.world.loop.time(), self.world.process
        since = seen.dispatched_at
        is_clear = (
            self._is_live(prompt)
            and seen.task.state is TaskState.RUNNING
            and not server.was_at_fault_since(since)
            and process is not None
            and process.is_ready
            and not process.is_frozen
            and not any(at >= since for at, _ in self.world.own_faults)
        )
        self.deaths.append(Death(now, server.name, seen.job.id, prompt.attempt, is_clear))

    def _is_unwanted(self, prompt: Prompt) -> bool:
        """Whether we may have it removed for its own sake."""
        seen = self.seen[prompt.job_id or ""]
        is_live = seen.task.attempt == prompt.attempt and seen.task.state in LIVE
        return not is_live or seen.task.cancel_requested or seen.job.is_terminal or prompt.habit == "partly"

    def look(self) -> None:
        """Now and then: where HTTP has told the truth for long enough, nothing hangs in the air."""
        now, process = self.world.loop.time(), self.world.process
        truthful_since = now - SETTLE_SECONDS
        is_steady = process is not None and process.is_ready and self.world.ready_since < truthful_since
        for seen in self.seen.values():
            if seen.task.state in LIVE and not seen.task.finishing and is_steady:
                self._look_at(seen, now)
            else:
                seen.gone_since = None
            if seen.cancel_acknowledged:
                self._look_at_canceled(seen, now, is_steady=is_steady)
        for server in self.world.servers:
            self._look_at_stale(server, now, is_steady=is_steady)

    def _look_at_stale(self, server: SimulatedComfyUI, now: float, *, is_steady: bool) -> None:
        """What nobody wants any more leaves a server that can be talked to."""
        stale = {prompt.id for prompt in server.held() if prompt.job_id is not None and not self._is_wanted(prompt)}
        blocked_until = max(server.weather_until, server.frames_blocked_until)
        if not is_steady or server.was_unreachable_since(now - CALM_SECONDS) or blocked_until > now - CALM_SECONDS:
            stale.clear()
        since = self.stale_since[server.name] = {
            prompt_id: self.stale_since.get(server.name, {}).get(prompt_id, now) for prompt_id in sorted(stale)
        }
        for prompt_id, begun in since.items():
            if now - begun > HEED_SECONDS:
                self.fail("stale prompts leave", f"{server.name} still holds {prompt_id[:8]}, which nobody wants")

    def _is_wanted(self, prompt: Prompt) -> bool:
        return self._is_live(prompt) or prompt.habit in {"deaf", "late_success"}

    def _is_live(self, prompt: Prompt) -> bool:
        seen = self.seen.get(prompt.job_id or "")
        return seen is not None and seen.task.state in LIVE and seen.task.attempt == prompt.attempt

    def _look_at_canceled(self, seen: Seen, now: float, *, is_steady: bool) -> None:
        holders = [server for server in self.world.servers for held in server.held() if held.job_id == seen.job.id]
        if not is_steady or not holders or any(server.was_at_fault_since(now - SETTLE_SECONDS) for server in holders):
            seen.unheeded_since = None
            return
        held = next(held for held in holders[0].held() if held.job_id == seen.job.id)
        seen.unheeded_since = now if seen.unheeded_since is None else seen.unheeded_since
        if now - seen.unheeded_since > HEED_SECONDS and held.habit not in {"deaf", "late_success"}:
            self.fail("a cancel is heeded", f"{seen.job.id} was canceled, and {holders[0].name} still holds it")

    def _look_at(self, seen: Seen, now: float) -> None:
        server = next((server for server in self.world.servers if server.name == seen.task.upstream), None)
        lies = (
            server is None or not server.is_reachable or server.http_blocked_until > now or server.weather_until > now
        )
        if server is None or lies or server.find(seen.task.prompt_id or "") is not None:
            seen.gone_since = None
            return
        seen.gone_since = now if seen.gone_since is None else seen.gone_since
        if now - max(seen.gone_since, server.changed_at, server.posts_open_until) > SETTLE_SECONDS:
            self.fail(
                "settled in 30 s", f"{seen.job.id} is {seen.task.state} on {server.name}, which knows nothing of it"
            )

    # ---------------------------------------------------------------------------------------------------------- the end

    @property
    def open_jobs(self) -> list[str]:
        return [job_id for job_id, seen in self.seen.items() if not seen.ended]

    def at_the_end(self) -> None:
        """After a time of peace: the database as it is, the servers, the files."""
        connection = self.world.database._connection
        rows = connection.execute(select(jobs)).all()
        told: dict[str, list[Any]] = {}
        for row in connection.execute(select(events).order_by(events.c.job_id, events.c.number)):
            told.setdefault(row.job_id, []).append(row)
        tried: dict[str, list[Any]] = {}
        for row in connection.execute(
            select(attempts, tasks.c.job_id).join(tasks, tasks.c.id == attempts.c.task_id).order_by(attempts.c.number)
        ):
            tried.setdefault(row.job_id, []).append(row)
        connection.rollback()
        for row in rows:
            self._job(row, told.get(row.id, []), tried.get(row.id, []))
        for job_id in self.acknowledged - {row.id for row in rows}:
            self.fail("nothing acknowledged is lost", f"{job_id} is gone")
        for server in self.world.servers:
            self._server(server)

        self._files()

    def _files(self) -> None:
        """Where no process was killed, all bytes are somebody's, or known to be nobody's any more."""
        if any(what == "killed" for _, what in self.world.own_faults):
            return
        inputs = {given.blob for seen in self.seen.values() for given in seen.job.inputs.values()}
        results = {result.blob for seen in self.seen.values() for result in seen.job.results}
        known = inputs | results | self._kept_or_loose()
        # Who was taken over can take nothing back. What it fetched early is on no record; the sweep of strays takes it.
        spared = b"file:" if self.world.zombies else b"\0"
        stored = self.world.blobs.stored
        if stray := [stored[name] for name in stored if name not in known and not stored[name].startswith(spared)]:
            self.fail("no stray bytes", f"{stray} belong to nobody")

    def _kept_or_loose(self) -> set[str]:
        """Bytes of uploads, and those that the next sweep takes: of outputs that went with a lost attempt."""
        connection = self.world.database._connection
        found = {row.blob for row in connection.execute(select(assets.c.blob).where(assets.c.kind == "upload"))}
        found |= {row.hash for row in connection.execute(select(blobs.c.hash).where(blobs.c.loose))}
        connection.rollback()
        return found

    def _job(self, row: Any, told: list[Any], tried: list[Any]) -> None:
        if [event.number for event in told] != list(range(1, len(told) + 1)):
            self.fail("numbers are dense", f"{row.id}: {[event.number for event in told]}")
        ends = [event.kind for event in told if event.kind in {state.value for state in TERMINAL_JOB}]
        if ends != [row.state] or told[-1].kind != row.state:
            self.fail("one end", f"{row.id} is {row.state} and was told {[event.kind for event in told]}")
        lost = [attempt for attempt in tried if attempt.outcome == TaskEvent.ATTEMPT_LOST]
        if len(lost) > self.world.plan.max_attempts:
            self.fail("no more attempts than allowed", f"{row.id} had {len(lost)} losses")
        if [attempt.number for attempt in tried] != list(range(1, len(tried) + 1)):
            self.fail("attempts are numbered", f"{row.id}: {[attempt.number for attempt in tried]}")
        seen = self.seen[row.id]
        if seen.cancel_acknowledged and row.state != JobState.CANCELED:
            self.fail("a cancel wins", f"{row.id} ended {row.state} after its cancel was acknowledged")
        if row.state == JobState.CANCELED and row.id not in self.world.cancel_sent:
            self.fail("canceled only when asked", f"{row.id} ended canceled")
        if row.state == JobState.SUCCEEDED:
            self._result(row, tried[-1])
        if row.state == JobState.FAILED:
            self._failure(row, len(lost), tried)
        self._poison(row, tried)

    def _poison(self, row: Any, tried: list[Any]) -> None:
        """After two upstreams have died of it, each alone, it is not tried again."""
        if not self.world.plan.poison_after:
            return
        blamed: set[str] = set()
        for attempt in tried:
            if len(blamed) >= self.world.plan.poison_after:
                self.fail("poison stops after two", f"{row.id} was sent to {attempt.upstream} after {sorted(blamed)}")
                return
            death = next((d for d in self.deaths if (d.job_id, d.attempt) == (row.id, attempt.number)), None)
            if death is not None and self._tells_against(death, attempt, tried):
                blamed.add(death.server)
                if attempt.cause != Cause.DIED:
                    self.fail("a death is noted", f"{row.id} lost {death.server}, and its cause is {attempt.cause}")
        is_used_up = sum(attempt.outcome == TaskEvent.ATTEMPT_LOST for attempt in tried) >= self.world.plan.max_attempts
        ends = {PoisonedError.code, ExpiredError.code, *({UpstreamLostError.code} if is_used_up else ())}
        if len(blamed) >= self.world.plan.poison_after and row.state == JobState.FAILED and row.error_code not in ends:
            self.fail("poison is told", f"{row.id} ended as {row.error_code} after {sorted(blamed)}")

    def _tells_against(self, death: Death, attempt: Any, tried: list[Any]) -> bool:
        """Whether nothing else can have been the cause, and the gateway was there to see it."""
        found_at = attempt.ended_at - NOON
        if not death.is_clear or attempt.outcome != TaskEvent.ATTEMPT_LOST:
            return False
        if any(death.at <= at <= found_at for at, _ in self.world.own_faults):
            return False
        # Of a death that fell into its own absence the gateway only knows that an upstream was lost.
        seen = {attempt.number for attempt in tried if attempt.cause == Cause.DIED}
        own = {
            (other.at, other.server)
            for other in self.deaths
            if (other.job_id, other.attempt in seen) == (death.job_id, True)
        }
        return not any(
            abs(at - death.at) <= APART_SECONDS and what != "started" and (at, server.name) not in own
            for server in self.world.servers
            if server.name != death.server
            for at, what in server.faults
        )

    def _killed_by(self, job_id: str) -> set[tuple[float, str]]:
        return {(death.at, death.server) for death in self.deaths if death.job_id == job_id}

    def _may_be_poisoned(self, job_id: str, tried: list[Any]) -> bool:
        """Whether enough upstreams have died under it for which nothing else that the gateway saw can be blamed.

        Of it, or of a blow that came just then to that one alone: from outside the two look alike.
        """
        own = self._killed_by(job_id) | self._killed_under(tried)
        lost = [(at, server.name) for server in self.world.servers for at in server.killed_at]
        blamed = {
            name
            for at, name in own
            if not any(
                name != other and abs(at - then) < TOGETHER_SECONDS and (then, other) not in own for then, other in lost
            )
            or any(abs(at - then) < APART_SECONDS for then, _ in self.world.own_faults)
        }
        return len(blamed) >= self.world.plan.poison_after > 0

    def _killed_under(self, tried: list[Any]) -> set[tuple[float, str]]:
        servers = {server.name: server for server in self.world.servers}
        return {
            (at, attempt.upstream)
            for attempt in tried
            if attempt.upstream in servers and attempt.ended_at is not None
            for at in servers[attempt.upstream].killed_at
            if attempt.dispatched_at <= NOON + at <= attempt.ended_at
        }

    def _result(self, row: Any, last: Any) -> None:
        results = self.seen[row.id].job.results
        found = [self.world.blobs.stored.get(result.blob) for result in results]
        made = [f"image:{last.id}".encode()]
        if row.task == WORKFLOW:
            found.sort(key=str)
            made = [f"file:{last.id}:{node}".encode() for node in ("2", "3")]
        if found != made:
            self.fail("the last attempt's result", f"{row.id} has {found}, its last attempt was {last.id}")
        told_at = self.world.partly.get(last.id)
        ended_at = last.ended_at - NOON
        # Only its answer told: who was killed with it, or was stopped when it came, cannot know.
        if told_at is not None and not any(
            told_at - APART_SECONDS <= at <= ended_at for at, _ in self.world.own_faults
        ):
            self.fail("a part is no result", f"{row.id} succeeded by {last.id}, of which only a part was accepted")
        if last.outcome != TaskEvent.SUCCEEDED:
            self.fail("the last attempt's result", f"{row.id} succeeded, its last attempt {last.outcome}")

    def _failure(self, row: Any, losses: int, tried: list[Any]) -> None:
        habits = self.world.plan.habits
        causes = {
            ExpiredError.code: self.world.plan.queue_ttl < 3600.0,
            NodeFailedError.code: "error" in habits,
            UpstreamMemoryError.code: "oom" in habits,
            RejectedGraphError.code: any(
                "accepts a part" in what for server in self.world.servers for _, what in server.faults
            ),
            UpstreamLostError.code: losses >= self.world.plan.max_attempts,
            CredentialLostError.code: bool(self.world.plan.secret) and bool(self.world.own_faults),
            PoisonedError.code: self._may_be_poisoned(row.id, tried),
        }
        if not causes.get(row.error_code, False):
            self.fail(
                "no failure without a cause", f"{row.id}: {row.error_code}: {row.error_message} ({len(tried)} tries)"
            )

    def _server(self, server: SimulatedComfyUI) -> None:
        if ours := [prompt.id[:8] for prompt in server.held() if prompt.job_id is not None]:
            self.fail("nothing of ours stays", f"{server.name} still holds {ours}")
        foreign = [prompt.id for prompt in server.held() if prompt.job_id is None]
        if len(server.foreign_ends) + len(foreign) != server.foreign_sent:
            self.fail("never another's prompt", f"{server.name} had {server.foreign_sent}, {server.foreign_ends} ended")


def first_of(violations: Iterable[str]) -> str:
    """The rule that the first violation broke."""
    return next(iter(violations), "").partition(":")[0]

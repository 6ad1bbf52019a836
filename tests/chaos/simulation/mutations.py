"""Guards of the state machine, the store, the engine and the talk with upstreams, each taken away by itself.

A simulation that finds nothing proves nothing until it is shown to find something: with any one of these gone, a seed
among the first thousand must fail. The seeds noted here failed when they were noted; a change of the engine may move
them, so they are only where the search begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from sqlalchemy import update

from gateway import job, poison
from gateway.comfy import answers, protocol
from gateway.comfy.messages import Lost
from gateway.engine import following, quarantine
from gateway.engine.canceling import Cancellations
from gateway.engine.credentials import Credentials
from gateway.engine.dispatcher import Dispatcher
from gateway.engine.endings import Ending
from gateway.engine.following import Attempt
from gateway.engine.outages import Outages
from gateway.engine.quarantine import Quarantine
from gateway.engine.results import Collector
from gateway.engine.runner import Runner
from gateway.events import Event, EventKind
from gateway.interfaces import Report
from gateway.job import LIVE, TERMINAL, Decision, RetryLimits, Task, TaskEvent, TaskState
from gateway.lease import Lease
from gateway.store import executors, schema
from gateway.store.queries import leases, recording
from gateway.upstreams.client import UpstreamClient
from gateway.upstreams.remote import RemoteUpstream
from tests.chaos.simulation.world import Verdict, run

#: Within so many seeds each must be found.
SEARCH_SEEDS = 1000
Patches = list[AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A guard, and how to take it away."""

    name: str
    #: What the guard is for.
    guard: str
    patches: Callable[[], Patches]

    @property
    def seed(self) -> int:
        """One that found it."""
        return FOUND_BY[self.name]


def first_seed_that_fails(mutation: Mutation, seeds: Iterable[int]) -> Verdict | None:
    """What came of the first seed that finds the guard missing; None when none does."""
    with ExitStack() as stack:
        for change in mutation.patches():
            stack.enter_context(change)
        return next((verdict for verdict in map(run, seeds) if verdict.violations), None)


Decide = Callable[[Task, TaskEvent, RetryLimits], Decision | None]


def _deciding(change: Callable[[Decide, Task, TaskEvent, RetryLimits], Decision | None]) -> Patches:
    """Another table or other guards for the store to decide by."""
    real = job.decide
    return [patch.object(recording, "decide", lambda task, event, limits: change(real, task, event, limits))]


def _terminal_moves(real: Decide, task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    if task.state in TERMINAL:
        task = replace(task, state=TaskState.RUNNING)
    return real(task, event, limits)


def _cancel_loses_at_success(real: Decide, task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    if event is TaskEvent.SUCCEEDED:
        task = replace(task, cancel_requested=False)
    return real(task, event, limits)


def _canceled_goes_back(real: Decide, task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    if event in {TaskEvent.ATTEMPT_LOST, TaskEvent.INTERRUPTED}:
        task = replace(task, cancel_requested=False)
    return real(task, event, limits)


def _losses_do_not_count(real: Decide, task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    decision = real(task, event, limits)
    if decision is not None and event is TaskEvent.ATTEMPT_LOST:
        decision = real(task, TaskEvent.INTERRUPTED, limits)
    return decision


def _interruptions_count(real: Decide, task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    return real(task, TaskEvent.ATTEMPT_LOST if event is TaskEvent.INTERRUPTED else event, limits)


def _flag_is_lost(real: Decide, task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    decision = real(task, event, limits)
    if decision is not None and event is TaskEvent.STARTED:
        decision = replace(decision, cancel_requested=False)
    return decision


def _dispatched_twice(real: Decide, task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    if event is TaskEvent.DISPATCHED and task.state in LIVE:
        task = replace(task, state=TaskState.QUEUED)
    return real(task, event, limits)


def _two_runners() -> Patches:
    """The store lets a task be dispatched twice, and the dispatcher forgets what it has given out."""

    async def all_of_them(self: Dispatcher) -> list[Any]:
        return list(await self._store.candidates(limit=256))

    return [*_deciding(_dispatched_twice), patch.object(Dispatcher, "_candidates", all_of_them)]


def _events_unnumbered() -> Patches:
    def say(self: Any, kind: Any, data: Any) -> None:
        number = self.job.last_event + 2 if kind is EventKind.REQUEUED else self.job.last_event + 1
        self.job = replace(self.job, last_event=number)
        self.events.append(Event(self.job.id, number, kind, self.now, data))

    return [patch.object(recording._Story, "say", say)]


def _stale_is_believed() -> Patches:
    return [patch.object(recording, "_is_stale", lambda task, report: False)]


def _stale_outputs_are_believed() -> Patches:
    real = recording.record_outputs

    def believed(connection: Any, task_id: str, attempt: int, outputs: Any, now: float) -> Any:
        story = recording._load(connection, task_id, now)
        number = attempt if story is None else story.task(task_id).attempt
        return real(connection, task_id, number, outputs, now)

    return [patch.object(recording, "record_outputs", believed)]


def _stale_files_are_believed() -> Patches:
    real = recording.keep_results

    def believed(connection: Any, task_id: str, attempt: int, results: Any, now: float) -> Any:
        story = recording._load(connection, task_id, now)
        number = attempt if story is None else story.task(task_id).attempt
        return real(connection, task_id, number, results, now)

    return [patch.object(recording, "keep_results", believed)]


def _id_is_not_stored() -> Patches:
    real = recording.record

    def recorded(connection: Any, task_id: str, report: Report, *more: Any) -> Any:
        if report.event is TaskEvent.DISPATCHED:
            report = replace(report, prompt_id=f"{(report.prompt_id or '')[:-4]}beef")
        return real(connection, task_id, report, *more)

    return [patch.object(recording, "record", recorded)]


def _parsing(change: Callable[[answers.Submission], answers.Submission]) -> Patches:
    real = answers.parse_submission
    return [patch.object(answers, "parse_submission", lambda status, body: change(real(status, body)))]


def _unclear_is_refused(answer: answers.Submission) -> answers.Submission:
    return answers.TurnedAway(answer.status) if isinstance(answer, answers.Unclear) else answer


def _part_is_enough(answer: answers.Submission) -> answers.Submission:
    return replace(answer, faults=()) if isinstance(answer, answers.Accepted) else answer


def _no_reply_is_lost() -> Patches:
    def lost(self: protocol.Session, prompt: Any) -> None:
        self._end(Lost(prompt.id, "no clear answer"))

    return [patch.object(protocol.Session, "_unclear", lost)]


def _no_last_word() -> Patches:
    real = protocol.Session.queue_answered

    def answered(self: protocol.Session, status: int, body: bytes, *, now: float) -> None:
        real(self, status, body, now=now)
        for prompt in list(self._prompts.values()):
            if prompt.question is protocol._Question.LAST_WORD:
                self._gone(prompt, now)

    return [patch.object(protocol.Session, "queue_answered", answered)]


def _silence_is_loss() -> Patches:
    def held(self: protocol.Session, prompt: Any, queue: Any, now: float) -> None:
        del queue, now
        self._end(Lost(prompt.id, "nothing was heard of it"))

    return [patch.object(protocol.Session, "_queue_holds", held)]


def _blind_interrupt() -> Patches:
    async def remove(self: RemoteUpstream, prompt_id: str) -> frozenset[str]:
        await self._client.post("/queue", {"delete": [prompt_id]})
        await self._client.post("/interrupt", {})
        return frozenset()

    return [patch.object(RemoteUpstream, "_remove", remove)]


async def _nothing(*_: object) -> None:
    pass


def _clears_all() -> Patches:
    """Whatever of ours is found on a server is taken for stale."""

    async def clear(self: RemoteUpstream) -> None:
        queue = await self._ask_queue()
        for item in (*queue.pending, *queue.running) if queue is not None else ():
            if self._is_ours(item):
                await self._remove(item.prompt_id)

    return [patch.object(RemoteUpstream, "clear_stale", clear)]


def _stale_is_left() -> Patches:
    """Only that: it goes on counting as busy until the prompt has ended by itself."""
    return [patch.object(RemoteUpstream, "clear_stale", _nothing)]


def _stale_is_no_matter() -> Patches:
    """It is removed, and meanwhile work is sent there."""
    real = RemoteUpstream.status
    return [patch.object(RemoteUpstream, "status", lambda self: replace(real(self), stale_prompts=0))]


def _nobody_is_suspect() -> Patches:
    async def review(self: Quarantine, queued: Any) -> dict[str, float]:
        del self, queued
        return {}

    return [patch.object(Quarantine, "review", review)]


def _each_death_counts() -> Patches:
    """Also when it is the same upstream that died each time."""

    def is_poisoned(trail: poison.Trail, poison_after: int) -> bool:
        return 0 < poison_after <= len(poison.own_deaths(trail))

    return [patch.object(quarantine, "is_poisoned", is_poisoned)]


def _one_death_is_enough() -> Patches:
    return [patch.object(quarantine, "is_poisoned", lambda trail, _: bool(poison.own_deaths(trail)))]


def _an_outage_excuses_nobody() -> Patches:
    return [patch.object(poison, "own_deaths", lambda trail: tuple(trail.deaths))]


def _who_is_idle_is_not_counted() -> Patches:
    return [patch.object(Outages, "note", _nothing)]


def _own_deaths_excuse_one_another() -> Patches:
    return [patch.object(poison, "_is_of", lambda *_: False)]


def _cause_is_not_kept() -> Patches:
    real = recording.record

    def recorded(connection: Any, task_id: str, report: Report, *more: Any) -> Any:
        return real(connection, task_id, replace(report, cause=None), *more)

    return [patch.object(recording, "record", recorded)]


def _never_takes_up() -> Patches:
    async def take_up(self: Dispatcher, found: Any) -> None:
        del self, found

    return [patch.object(Dispatcher, "_take_up", take_up)]


def _forgets_at_restart() -> Patches:
    """What is found open at a start is taken for interrupted, though it may run."""

    async def adopt(self: Runner, found: Any, *more: Any) -> Ending:
        del more
        report = Report(TaskEvent.INTERRUPTED, attempt=found.task.attempt, reason="It was left over.")
        await self._recorder.record(found.task.id, report)
        return Ending.SETTLED

    return [patch.object(Runner, "adopt", adopt)]


def _stalls_for_ever() -> Patches:
    async def watch(self: Any) -> None:
        del self
        await asyncio.Event().wait()

    return [patch.object(following._Watchdog, "watch", watch)]


def _watched_or_not() -> Patches:
    """An attempt that was gone before we came back is counted as lost under our eyes."""
    real = Runner._lost

    async def lost(self: Runner, attempt: Any, *more: Any) -> Ending:
        attempt.heard = True
        return await real(self, attempt, *more)

    return [patch.object(Runner, "_lost", lost)]


def _nothing_is_pulled_back() -> Patches:
    async def remove(self: RemoteUpstream, prompt_id: str) -> frozenset[str]:
        await self._client.post("/queue", {"delete": [prompt_id]})
        await self._client.post("/interrupt", {"prompt_id": prompt_id})
        return frozenset()

    return [patch.object(RemoteUpstream, "_remove", remove)]


def _same_token() -> Patches:
    real = leases.take

    def take(connection: Any, claim: leases.Claim) -> Lease:
        taken = real(connection, claim)
        connection.execute(update(schema.leases).values(token=1))
        return replace(taken, token=1)

    return [patch.object(leases, "take", take)]


MUTATIONS = (
    Mutation("terminal state moves", "nothing leaves a terminal state", lambda: _deciding(_terminal_moves)),
    Mutation("stale report", "what an older attempt says changes no row", _stale_is_believed),
    Mutation("stale outputs", "what an older attempt made is not kept", _stale_outputs_are_believed),
    Mutation("stale files", "what an older attempt made early is not kept", _stale_files_are_believed),
    Mutation(
        "files outlive their attempt",
        "a lost attempt takes along what it made early",
        lambda: [patch.object(recording, "_drop_results", lambda *_: {})],
    ),
    Mutation(
        "files are doubled",
        "what was kept early is not kept again",
        lambda: [
            patch.object(job.JobResult, "key", property(lambda result: result.asset_id)),
            patch.object(Attempt, "note_kept", lambda *_: None),
        ],
    ),
    Mutation(
        "secret is kept back",
        "a job's secret goes with each attempt",
        lambda: [patch.object(Credentials, "require", lambda *_: None)],
    ),
    Mutation("cancel loses at success", "a cancel wins until the commit", lambda: _deciding(_cancel_loses_at_success)),
    Mutation("canceled goes back", "a canceled task is not queued again", lambda: _deciding(_canceled_goes_back)),
    Mutation("flag is lost", "a cancel's flag stays", lambda: _deciding(_flag_is_lost)),
    Mutation("losses do not count", "attempts are limited", lambda: _deciding(_losses_do_not_count)),
    Mutation("interruptions count", "our own stop costs no attempt", lambda: _deciding(_interruptions_count)),
    Mutation("left over is lost", "what we did not watch costs no attempt", _watched_or_not),
    Mutation("two runners", "a task is dispatched once at a time", _two_runners),
    Mutation("a number is left out", "event numbers are dense", _events_unnumbered),
    Mutation("id is not stored", "the prompt's id is stored before it is sent", _id_is_not_stored),
    Mutation("unclear is refused", "a 500 may have queued it", lambda: _parsing(_unclear_is_refused)),
    Mutation("no reply is lost", "a lost reply is looked up", _no_reply_is_lost),
    Mutation("a part is enough", "200 with node_errors is a refusal", lambda: _parsing(_part_is_enough)),
    Mutation("no last word", "history is asked again after the queue", _no_last_word),
    Mutation("silence is loss", "what the queue shows is slow, not lost", _silence_is_loss),
    Mutation("blind interrupt", "an interrupt names its prompt", _blind_interrupt),
    Mutation("all is stale", "what somebody wants is not removed", _clears_all),
    Mutation("stale is left", "what nobody wants is removed", _stale_is_left),
    Mutation("stale is no matter", "nothing is sent where something stale is", _stale_is_no_matter),
    Mutation("nobody is suspect", "what kills its upstreams is stopped", _nobody_is_suspect),
    Mutation("each death counts", "one bad upstream is no verdict", _each_death_counts),
    Mutation("one death is enough", "a verdict takes as many deaths as are set", _one_death_is_enough),
    Mutation("outages excuse nobody", "what died in a common outage died of that", _an_outage_excuses_nobody),
    Mutation(
        "the idle do not count", "who is lost in an outage need not have been at work", _who_is_idle_is_not_counted
    ),
    Mutation(
        "own deaths excuse", "the second death of a task does not excuse the first", _own_deaths_excuse_one_another
    ),
    Mutation("cause is not kept", "a death is known as one", _cause_is_not_kept),
    Mutation(
        "open tasks unknown at start",
        "open prompts are expected before connecting",
        lambda: [patch.object(Dispatcher, "prepare", _nothing)],
    ),
    Mutation("nothing is taken up", "open tasks are followed after a restart", _never_takes_up),
    Mutation("started anew at restart", "what runs is adopted, not run again", _forgets_at_restart),
    Mutation("stalls for ever", "silence has an end", _stalls_for_ever),
    Mutation(
        "cancel is not heard",
        "a cancel reaches the upstream",
        lambda: [patch.object(Cancellations, "request", lambda *_: None)],
    ),
    Mutation(
        "refused results stay",
        "a result that was not recorded leaves no bytes",
        lambda: [patch.object(Collector, "drop", _nothing)],
    ),
    Mutation("nothing is pulled back", "an interrupt cannot hit the next prompt", _nothing_is_pulled_back),
    Mutation(
        "store asks for no lease",
        "who was taken over writes nothing",
        lambda: [patch.object(executors, "_check", lambda *_: None)],
    ),
    Mutation("same token", "each holder's token is higher", _same_token),
    Mutation(
        "acts without leave",
        "who was stopped asks before it acts",
        lambda: [patch.object(UpstreamClient, "_ask_leave", _nothing)],
    ),
)

FOUND_BY = {
    "terminal state moves": 5,
    "stale report": 4,
    "stale outputs": 169,
    "stale files": 384,
    "files outlive their attempt": 119,
    "files are doubled": 2,
    "secret is kept back": 21,
    "cancel loses at success": 202,
    "canceled goes back": 15,
    "flag is lost": 31,
    "losses do not count": 1,
    "interruptions count": 1,
    "left over is lost": 44,
    "two runners": 1,
    "a number is left out": 0,
    "id is not stored": 0,
    "unclear is refused": 16,
    "no reply is lost": 16,
    "a part is enough": 21,
    "no last word": 833,
    "silence is loss": 5,
    "blind interrupt": 0,
    "all is stale": 6,
    "stale is left": 75,
    "stale is no matter": 14,
    "nobody is suspect": 790,
    "each death counts": 142,
    "one death is enough": 142,
    "outages excuse nobody": 383,
    "the idle do not count": 274,
    "own deaths excuse": 183,
    "cause is not kept": 35,
    "open tasks unknown at start": 168,
    "nothing is taken up": 0,
    "started anew at restart": 6,
    "stalls for ever": 22,
    "cancel is not heard": 42,
    "refused results stay": 130,
    "nothing is pulled back": 132,
    "store asks for no lease": 4,
    "same token": 4,
    "acts without leave": 4,
}

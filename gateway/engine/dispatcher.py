"""Gives queued tasks to free upstreams, and owns the runners that follow them.

Wakes when a task was queued or an upstream may have become free; asks the store for a bounded window of candidates,
``scheduling.assign`` for the answer, and starts a runner per assignment. While an upstream works, the inputs of what
would run there next are staged. At start it takes up what an earlier process left running; a runner that breaks is taken
up in the same way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import structlog

from gateway import scheduling
from gateway.breaker import Fault
from gateway.engine.catalog import Catalog
from gateway.engine.endings import Ending, Stages
from gateway.engine.needs import Need
from gateway.engine.outages import Outages
from gateway.engine.pool import Pool, Room
from gateway.engine.quarantine import Quarantine
from gateway.engine.recorder import Recorder
from gateway.engine.runner import Runner
from gateway.errors import ShuttingDownError, TemplateError
from gateway.interfaces import Candidate, Clock, OpenTask, Report, Store
from gateway.job import Cause, TaskEvent

log = structlog.get_logger(__name__)

#: Candidates looked at a round: far more than upstreams, far less than a backlog.
WINDOW = 256
#: Nothing is known to need this tick; it bounds how long an event we failed to foresee can hold up the queue.
TICK_SECONDS = 5.0
#: A task whose runner broke waits this long, longer each time, and is given up when it broke that often: it would only
#: break again.
BREAK_SECONDS = (6.0, 12.0, 30.0, 30.0)
MAX_BREAKS = len(BREAK_SECONDS) + 1
#: Tasks that lost an attempt and are tried again may be at work at the same time: one, or this part of all. Beyond it
#: they wait in the queue. What failed for want of a working pool would else take the place of all that is new.
RETRY_SHARE = 0.2
#: A lost task waits a random part of 2, 4, 8 … seconds, this long at most, so that those lost together do not come back
#: together.
MAX_RETRY_SECONDS = 30.0

_FAULTS = {
    Ending.UNPLACED: Fault.UNREACHABLE,
    Ending.LOST: Fault.LOST,
    Ending.SILENT: Fault.SILENT,
    Ending.OUT_OF_MEMORY: Fault.MEMORY,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a queued job stands by fair share, as of the last look at the queue."""

    task_id: str
    #: Jobs of the same submitter that would be given work before it.
    ahead_own: int
    #: Jobs of other submitters that would, because those have had less of the pool of late.
    ahead_others: int
    #: Seconds until it may be tried again after an attempt was lost; 0 when it need not wait for that.
    retry_in_seconds: float


@dataclass(frozen=True, slots=True)
class _Break:
    times: int
    #: Monotonic seconds before which it is let be.
    until: float


class Dispatcher:
    """The queue's motor. ``run`` until ``stop``."""

    def __init__(
        self,
        store: Store,
        pool: Pool,
        catalog: Catalog,
        recorder: Recorder,
        runner: Runner,
        clock: Clock,
        *,
        chance: Callable[[], float] = random.random,
        poison_after: int = 0,
    ) -> None:
        self._store = store
        self._pool = pool
        self._catalog = catalog
        self._recorder = recorder
        self._runner = runner
        self._clock = clock
        self._quarantine = Quarantine(store, recorder, clock, poison_after=poison_after)
        self._outages = Outages(store, pool, clock)
        self._shares = scheduling.Shares()
        self._wake = asyncio.Event()
        self._stopping = False
        self._at_work: dict[str, asyncio.Task[Ending]] = {}
        #: The window of the last round, to answer questions about it without asking the store.
        self._seen: Sequence[Candidate] = ()
        self._staging: dict[str, asyncio.Task[None]] = {}
        self._chance = chance
        #: Tasks whose runner broke.
        self._breaks: dict[str, _Break] = {}
        #: Tasks that lost an attempt here -> monotonic seconds before which they are not tried again. Those of them that
        #: end otherwise are forgotten when their time is over.
        self._retry_at: dict[str, float] = {}
        #: Of what is at work, what lost an attempt before.
        self._retries: set[str] = set()

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def prepare(self) -> None:
        """Let upstreams know which prompts are awaited, before any of them is connected."""
        for found in await self._store.open_tasks():
            self._runner.prompts.expect(found.task)

    async def run(self) -> None:
        """Take up what is open, then assign until stopped."""
        for found in await self._store.open_tasks():
            await self._take_up(found)
        while not self._stopping:
            self._wake.clear()
            try:
                await self._outages.note()
                await self._mend()
                await self._round()
            except ShuttingDownError:
                return  # nothing can be stored any more: whoever serves next goes on
            except Exception as error:
                log.error("dispatch_round_failed", exc_info=error)
            await self._sleep()

    async def _sleep(self) -> None:
        now = self._clock.monotonic()
        waits = [*self._retry_at.values(), *(found.until for found in self._breaks.values())]
        if (admission := self._pool.next_admission()) is not None:
            waits.append(admission)
        seconds = min([TICK_SECONDS, *(moment - now for moment in waits if moment > now)])
        alarm = asyncio.create_task(self._ring(seconds), name="dispatcher's tick")
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()
            await asyncio.gather(alarm, return_exceptions=True)

    async def _ring(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self.wake()

    async def stop(self) -> None:
        """Assign nothing more and let go of the runners: prompts run on and are taken up at the next start."""
        self._stopping = True
        self.wake()
        tasks = [*self._at_work.values(), *self._staging.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cancel(self, job_id: str) -> None:
        """A job's cancel was recorded."""
        self._runner.cancel(job_id)

    def is_at_work(self, job_id: str) -> bool:
        """Whether a job was given to an upstream, from before that one hears of it."""
        return job_id in self._runner.canceling

    def standing(self, job_id: str) -> Standing | None:
        """Where a queued job stands; None when it is too far back in its own queue to have been looked at."""
        candidate = next((seen for seen in self._seen if seen.job_id == job_id), None)
        if candidate is None:
            return None
        now = self._clock.monotonic()
        queue = [seen for seen in self._seen if seen.task_id not in self._at_work]
        shares = self._shares.snapshot({seen.submitter for seen in queue}, now)
        order = scheduling.fair_order(queue, shares)
        ahead = list(takewhile(lambda other: other.task_id != candidate.task_id, order))
        own = sum(other.submitter == candidate.submitter for other in ahead)
        retry_at = self._retry_at.get(candidate.task_id, now)
        return Standing(candidate.task_id, own, len(ahead) - own, max(retry_at - now, 0.0))

    # ------------------------------------------------------------------------------------------------------ one round

    async def _round(self) -> None:
        if not (len(self._pool) and (candidates := await self._candidates())):
            return
        needs = await self._needs(candidates)
        if self._stopping:
            return
        now = self._clock.monotonic()
        refusals = self._refusals(candidates, needs)
        for room in Room:
            slots = self._pool.slots(needs, room)
            shares = self._shares.snapshot({candidate.submitter for candidate in candidates}, now)
            assigned = scheduling.assign(self._within_budget(candidates), slots, shares, refusals)
            for assignment in assigned:
                self._give(assignment, room, now)
            taken = {assignment.candidate.task_id for assignment in assigned}
            candidates = [candidate for candidate in candidates if candidate.task_id not in taken]

    def _give(self, assignment: scheduling.Assignment, room: Room, now: float) -> None:
        if room is Room.LATER:
            self._stage_ahead(assignment)
        else:
            self._shares.charge(assignment.candidate.submitter, assignment.candidate.cost_seconds, now)
            self._start(assignment, is_ahead=room is Room.SOON)

    async def _candidates(self) -> list[Candidate]:
        self._seen = found = await self._store.candidates(limit=WINDOW)
        free = [candidate for candidate in found if candidate.task_id not in self._at_work]
        verdicts = await self._quarantine.review(free)
        now = self._clock.monotonic()
        for task_id, due in verdicts.items():
            self._retry_at[task_id] = max(due, self._retry_at.get(task_id, due))
        self._retry_at = {task_id: moment for task_id, moment in self._retry_at.items() if moment > now}
        waiting = self._retry_at.keys() | {task_id for task_id, broken in self._breaks.items() if broken.until > now}
        return [candidate for candidate in free if candidate.task_id not in waiting | verdicts.keys()]

    def _within_budget(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Without the retries there is no budget for now; they keep their place in the queue."""
        left = max(1, int(RETRY_SHARE * len(self._at_work))) - len(self._retries)
        retries = [candidate for candidate in candidates if candidate.losses]
        over = {candidate.task_id for candidate in sorted(retries, key=lambda c: c.queued_at)[max(left, 0) :]}
        return [candidate for candidate in candidates if candidate.task_id not in over]

    async def _needs(self, candidates: Iterable[Candidate]) -> dict[str, Need]:
        """Needs by requirement; a task whose template cannot be loaded any more fails here."""
        needs: dict[str, Need] = {}
        for candidate in candidates:
            if candidate.requirement not in needs:
                try:
                    needs[candidate.requirement] = await self._catalog.need_of_candidate(candidate)
                except TemplateError as error:
                    await self._fail(candidate, error)
        return needs

    async def _fail(self, candidate: Candidate, error: TemplateError) -> None:
        log.error("template_unusable", requirement=candidate.requirement, reason=error.reason)
        message = "The template this job was accepted with can no longer be used."
        report = Report(TaskEvent.FAILED, error_code=error.code, error_message=message)
        await self._recorder.record(candidate.task_id, report)

    def _refusals(self, candidates: Iterable[Candidate], needs: Mapping[str, Need]) -> scheduling.Refusals:
        """Who has refused whom, as long as there is another: the last one there is gets it again, and has the last word."""
        known = self._pool.refusals
        return {
            candidate.task_id: known[candidate.task_id]
            for candidate in candidates
            if candidate.task_id in known
            and candidate.requirement in needs
            and self._pool.could_take(candidate.task_id, candidate.requirement, needs[candidate.requirement])
        }

    def _start(self, assignment: scheduling.Assignment, *, is_ahead: bool) -> None:
        candidate, name = assignment.candidate, assignment.upstream
        upstream = self._pool.get(name)
        if upstream is None:  # removed since the slots were listed
            return
        stages = self._stages(name, candidate.task_id)
        work = self._runner.run(candidate.task_id, upstream, stages, is_ahead=is_ahead)
        self._own(candidate.task_id, candidate.job_id, name, work, charged=candidate)

    def _stages(self, name: str, task_id: str) -> Stages:
        return Stages(
            dispatched=self.wake,
            ending=partial(self._pool.prompt_ending, name, task_id),
            ended=partial(self._pool.prompt_ended, name, task_id),
        )

    def _stage_ahead(self, assignment: scheduling.Assignment) -> None:
        name = assignment.upstream
        upstream = self._pool.get(name)
        if upstream is None or name in self._staging or assignment.candidate.blobs <= upstream.staged():
            return
        task = asyncio.create_task(
            self._runner.stage_ahead(assignment.candidate.task_id, upstream), name=f"staging for {name}"
        )
        self._staging[name] = task

        def ended(done: asyncio.Task[None]) -> None:
            self._staging.pop(name, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("staging_ahead_broke", upstream=name, exc_info=error)

        task.add_done_callback(ended)

    # -------------------------------------------------------------------------------------------------------- runners

    def _own(
        self,
        task_id: str,
        job_id: str,
        name: str,
        work: Coroutine[Any, Any, Ending],
        *,
        charged: Candidate | None = None,
    ) -> None:
        self._pool.claim(name, task_id, job_id)
        if charged is not None and charged.losses:
            self._retries.add(task_id)
        task = asyncio.create_task(work, name=f"task {task_id} on {name}")
        self._at_work[task_id] = task

        def ended(done: asyncio.Task[Ending]) -> None:
            self._at_work.pop(task_id, None)
            self._retries.discard(task_id)
            if not done.cancelled():
                self._learn(done, task_id, name, charged)
            self._pool.release(name, task_id)
            self.wake()

        task.add_done_callback(ended)

    def _learn(self, done: asyncio.Task[Ending], task_id: str, name: str, charged: Candidate | None) -> None:
        """Before the upstream is free again: what it says of the upstream, and what was charged for nothing."""
        now = self._clock.monotonic()
        if (error := done.exception()) is not None:
            if isinstance(error, ShuttingDownError):
                return  # whoever serves next takes the task up
            log.error("runner_broke", task=task_id, upstream=name, exc_info=error)
            times = self._breaks[task_id].times if task_id in self._breaks else 0
            self._breaks[task_id] = _Break(times + 1, now + BREAK_SECONDS[min(times, len(BREAK_SECONDS) - 1)])
            return
        ending = done.result()
        self._breaks.pop(task_id, None)
        if ending in {Ending.REFUSED, Ending.UNPLACED, Ending.GIVEN_BACK} and charged is not None:
            self._shares.charge(charged.submitter, -charged.cost_seconds, now)
        if ending is Ending.SETTLED:
            self._pool.note_success(name)
        elif ending in _FAULTS:
            self._pool.note_fault(name, _FAULTS[ending])
            losses = charged.losses if charged is not None else 0
            self._retry_at[task_id] = now + self._chance() * min(2.0 ** (losses + 1), MAX_RETRY_SECONDS)
        elif ending is Ending.NOT_STORED:
            self._pool.note_success(name)
            self._retry_at[task_id] = now + MAX_RETRY_SECONDS  # the disk is full: it gets time to be emptied

    # ------------------------------------------------------------------------------------------------------ taking up

    async def _take_up(self, found: OpenTask) -> None:
        name = found.task.upstream or ""
        upstream = self._pool.get(name)
        if upstream is None:
            self._runner.prompts.let_go(found.task.id)
            reason = "Its upstream is no longer in the pool."
            report = Report(TaskEvent.INTERRUPTED, attempt=found.task.attempt, reason=reason, cause=Cause.UNSEEN)
            await self._recorder.record(found.task.id, report)
            return
        self._runner.prompts.expect(found.task)
        log.info("task_taken_up", task=found.task.id, job=found.job.id, upstream=name)
        stages = self._stages(name, found.task.id)
        self._own(found.task.id, found.job.id, name, self._runner.adopt(found, upstream, stages))

    async def _mend(self) -> None:
        """Take up tasks whose runner broke, lest they stay dispatched with nobody to follow them."""
        now = self._clock.monotonic()
        broken = {task_id: found for task_id, found in self._breaks.items() if task_id not in self._at_work}
        if not broken:
            return
        open_tasks = {found.task.id: found for found in await self._store.open_tasks()}
        for task_id, found in broken.items():
            if found.until > now:
                continue  # whatever broke it gets time to pass
            if found.times >= MAX_BREAKS:
                await self._runner.give_up(task_id)
                del self._breaks[task_id]
            elif task_id in open_tasks:
                await self._take_up(open_tasks[task_id])
            elif await self._store.queued_task(task_id) is None:
                self._runner.prompts.let_go(task_id)
                del self._breaks[task_id]

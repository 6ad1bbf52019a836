"""Gives queued tasks to free upstreams, and owns the runners that follow them.

Wakes when a task was queued or an upstream may have become free; asks the store for a bounded window of candidates,
``scheduling.assign`` for the answer, and starts a runner per assignment. While an upstream works, the inputs of what
would run there next are staged. At start it takes up what an earlier process left running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence

import structlog

from gateway import scheduling
from gateway.engine.catalog import Catalog
from gateway.engine.pool import Pool
from gateway.engine.recorder import Recorder
from gateway.engine.runner import Runner
from gateway.errors import GatewayError, TemplateError
from gateway.interfaces import Candidate, Clock, OpenTask, Report, Store
from gateway.job import TaskEvent
from gateway.template import Template

log = structlog.get_logger(__name__)

#: Candidates looked at a round: far more than upstreams, far less than a backlog.
WINDOW = 256
#: Nothing is known to need this tick; it bounds how long an event we failed to foresee can hold up the queue.
TICK_SECONDS = 5.0


class Dispatcher:
    """The queue's motor. ``run`` until ``stop``."""

    def __init__(
        self, store: Store, pool: Pool, catalog: Catalog, recorder: Recorder, runner: Runner, clock: Clock
    ) -> None:
        self._store = store
        self._pool = pool
        self._catalog = catalog
        self._recorder = recorder
        self._runner = runner
        self._clock = clock
        self._shares = scheduling.Shares()
        self._wake = asyncio.Event()
        self._stopping = False
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._staging: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Take up what is open, then assign until stopped."""
        await self._adopt()
        while not self._stopping:
            self._wake.clear()
            try:
                await self._round()
            except GatewayError as error:
                log.error("dispatch_round_failed", code=error.code, exc_info=error)
            await self._sleep()

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def stop(self) -> None:
        """Assign nothing more and let go of the runners: prompts run on and are taken up at the next start."""
        self._stopping = True
        self._wake.set()
        tasks = [*self._at_work.values(), *self._staging.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cancel(self, job_id: str) -> None:
        """A cancel was recorded for a live job."""
        self._runner.cancel(job_id)

    # ------------------------------------------------------------------------------------------------------ one round

    async def _round(self) -> None:
        if not (self._pool.views() and (candidates := await self._candidates())):
            return
        templates = await self._templates(candidates)
        slots = self._pool.slots(templates)
        now = self._clock.monotonic()
        shares = self._shares.snapshot({candidate.submitter for candidate in candidates}, now)
        assigned = scheduling.assign(candidates, slots, shares)
        for assignment in assigned:
            self._shares.charge(assignment.candidate.submitter, assignment.candidate.cost_seconds, now)
            self._start(assignment)
        taken = {assignment.candidate.task_id for assignment in assigned}
        left = [candidate for candidate in candidates if candidate.task_id not in taken]
        shares = self._shares.snapshot({candidate.submitter for candidate in left}, now)
        for assignment in scheduling.assign(left, self._pool.slots(templates, busy=True), shares):
            self._stage_ahead(assignment)

    async def _candidates(self) -> list[Candidate]:
        found = await self._store.candidates(limit=WINDOW)
        return [candidate for candidate in found if candidate.task_id not in self._at_work]

    async def _templates(self, candidates: Iterable[Candidate]) -> dict[str, Template]:
        """Templates by requirement; a task whose template cannot be loaded any more fails here."""
        templates: dict[str, Template] = {}
        for requirement in {candidate.requirement for candidate in candidates}:
            name, _, version = requirement.rpartition("@")
            try:
                templates[requirement] = await self._catalog.pinned(name, version)
            except TemplateError as error:
                await self._fail_all(requirement, candidates, error)
        return templates

    async def _fail_all(self, requirement: str, candidates: Iterable[Candidate], error: TemplateError) -> None:
        log.error("template_unusable", requirement=requirement, reason=error.reason)
        for candidate in candidates:
            if candidate.requirement == requirement:
                message = "The template this job was accepted with can no longer be used."
                report = Report(TaskEvent.FAILED, error_code=error.code, error_message=message)
                await self._recorder.record(candidate.task_id, report)

    def _start(self, assignment: scheduling.Assignment) -> None:
        candidate, name = assignment.candidate, assignment.upstream
        upstream = self._pool.get(name)
        if upstream is None:  # removed since the slots were listed
            return
        self._own(candidate.task_id, candidate.job_id, name, self._runner.run(candidate.task_id, upstream))

    def _own(self, task_id: str, job_id: str, name: str, work: Coroutine[object, object, None]) -> None:
        self._pool.claim(name, task_id, job_id)
        task = asyncio.create_task(work, name=f"task {task_id} on {name}")
        self._at_work[task_id] = task

        def ended(done: asyncio.Task[None]) -> None:
            self._at_work.pop(task_id, None)
            self._pool.release(name, task_id)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("runner_failed", task=task_id, upstream=name, exc_info=error)
            self.wake()

        task.add_done_callback(ended)

    def _stage_ahead(self, assignment: scheduling.Assignment) -> None:
        name = assignment.upstream
        upstream = self._pool.get(name)
        if upstream is None or name in self._staging or assignment.candidate.blobs <= upstream.staged():
            return
        task = asyncio.create_task(
            self._runner.stage_ahead(assignment.candidate.task_id, upstream), name=f"staging for {name}"
        )
        self._staging[name] = task
        task.add_done_callback(lambda _: self._staging.pop(name, None))

    # ------------------------------------------------------------------------------------------------------- adoption

    async def _adopt(self) -> None:
        open_tasks: Sequence[OpenTask] = await self._store.open_tasks()
        for found in open_tasks:
            name = found.task.upstream or ""
            upstream = self._pool.get(name)
            if upstream is None:
                reason = "Its upstream is no longer in the pool."
                report = Report(TaskEvent.INTERRUPTED, attempt=found.task.attempt, reason=reason)
                await self._recorder.record(found.task.id, report)
                continue
            log.info("task_adopted", task=found.task.id, job=found.job.id, upstream=name)
            self._own(found.task.id, found.job.id, name, self._runner.adopt(found, upstream))

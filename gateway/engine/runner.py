"""One attempt from its staged inputs to its recorded end: stage, bind, dispatch, follow, settle.

The attempt's id is chosen and stored before the upstream hears of it, so a lost reply or our own death leaves something
to ask for. What the upstream says last (``Outcome``) is settled here into one report; what each outcome means for the
task's attempts is told beside ``_settle``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import assert_never

import structlog

from gateway.binding import Bound, as_dispatched
from gateway.comfy.messages import Failed, Interrupted, Lost, Message, Outcome, Succeeded
from gateway.comfy.progress import Tracker
from gateway.engine.bars import Bars
from gateway.engine.canceling import Cancellations, unless_canceled
from gateway.engine.catalog import Catalog
from gateway.engine.early import EarlyOutputs, maker_of
from gateway.engine.endings import Ending, Stages
from gateway.engine.following import Attempt, Follower
from gateway.engine.needs import bound_on, need_of, work_of_job
from gateway.engine.outputs import reported
from gateway.engine.pool import Pool
from gateway.engine.prompts import LivePrompts
from gateway.engine.recorder import Recorder
from gateway.engine.results import Collector, Files, ResultLostError, Warnings
from gateway.engine.storage_watch import once_storage_takes
from gateway.engine.timing import LearnedTimings
from gateway.errors import (
    BusyError,
    GatewayError,
    InternalJobError,
    JobError,
    TemplateError,
    TooLargeError,
    UpstreamMemoryError,
)
from gateway.interfaces import Blob, Blobs, Bus, Clock, OpenTask, Recorded, Report, Store, Upstream
from gateway.job import Cause, Job, JobInput, JobResult, Task, TaskEvent, TaskState
from gateway.template import Template

log = structlog.get_logger(__name__)


#: Nodes; a graph with more is bound in a thread: it takes tens of microseconds a node.
LARGE_GRAPH = 200


class Runner:
    """Runs attempts; the dispatcher owns the tasks that call it."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        bus: Bus,
        catalog: Catalog,
        pool: Pool,
        recorder: Recorder,
        collector: Collector,
        timings: LearnedTimings,
        clock: Clock,
        *,
        stall_seconds: float,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._catalog = catalog
        self._pool = pool
        self._recorder = recorder
        self._collector = collector
        self._timings = timings
        self._clock = clock
        self.canceling = Cancellations()
        self.prompts = LivePrompts()
        self.bars = Bars(store, bus, clock)
        self._early = EarlyOutputs(collector, recorder)
        self._follower = Follower(recorder, bus, self.bars, clock, stall_seconds=stall_seconds)

    def cancel(self, job_id: str) -> None:
        """The job's cancel was recorded: stop what is being done for it, and see that its prompt leaves the upstream."""
        self.canceling.request(job_id)

    def live_prompts(self) -> frozenset[str]:
        """Prompts that somebody waits for; others of ours are stale wherever they are found."""
        return self.prompts.all()

    # ---------------------------------------------------------------------------------------------- an attempt's start

    async def stage_ahead(self, task_id: str, upstream: Upstream) -> None:
        """Upload a queued task's inputs while the upstream is busy with another; failing is no event."""
        found = await self._recorder.waiting.look(task_id)
        if found is None:
            return
        try:
            await self._stage(found[0], upstream)
        except (GatewayError, OSError) as error:
            log.info("staging_ahead_failed", task=task_id, upstream=upstream.name, error=type(error).__name__)

    async def run(self, task_id: str, upstream: Upstream, stages: Stages, *, is_ahead: bool = False) -> Ending:
        """Run a queued task on an upstream; comes back when it has ended, is queued again, or was canceled.

        Args:
            task_id: the task.
            upstream: where.
            stages: told on the way.
            is_ahead: sent while another is about to end there, behind which it waits.
        """
        found = await self._recorder.waiting.take(task_id)
        if found is None:
            return Ending.WITHDRAWN
        job, task = found
        prompt_id = str(uuid.uuid4())
        async with self._live(task, prompt_id) as canceling:
            attempt = await self._placed(job, task, upstream, prompt_id, canceling)
            if isinstance(attempt, Ending):
                return attempt
            attempt.is_ahead = is_ahead
            attempt.on_ending = stages.ending
            stages.dispatched()
            if canceling.is_set():  # before a byte of it went out
                return await self._canceled(attempt)
            graph, number, secrets = attempt.bound.graph, attempt.number, self._recorder.credentials.of(job.id)
            messages = upstream.run(attempt.prompt_id, graph, job_id=job.id, attempt=number, secrets=secrets)
            return await self._see_through(attempt, messages, stages)

    async def adopt(self, found: OpenTask, upstream: Upstream, stages: Stages) -> Ending:
        """Take up what an earlier process, or an earlier run that broke, has dispatched."""
        async with self._live(found.task, found.task.prompt_id or "") as canceling:
            # Read again: a cancel that was recorded before anybody listened is found here.
            job = await self._store.job(found.job.id)
            if job is None or job.is_terminal:
                return Ending.WITHDRAWN
            if job.cancel_requested_at is not None:
                canceling.set()
            try:
                template = await self._catalog.of_job(job)
            except TemplateError as error:
                return await self._fail(found.task, found.task.attempt, error)
            bound, prompt_id = as_dispatched(template, job.parameters, upstream.capabilities()), found.task.prompt_id
            attempt = self._attempt(job, found.task, upstream, prompt_id or "", template, bound, canceling)
            attempt.adopted = True
            attempt.on_ending = stages.ending
            if found.outputs is not None:
                stages.ended()
                return await self._finish(attempt, found.outputs)
            return await self._see_through(attempt, upstream.adopt(attempt.prompt_id), stages)

    @asynccontextmanager
    async def _live(self, task: Task, prompt_id: str) -> AsyncIterator[asyncio.Event]:
        """While it is worked on; the flag of its job's cancel."""
        try:
            with self.canceling.listen(task.job_id) as canceling, self.prompts.at_work(task.id, prompt_id):
                yield canceling
        finally:
            await self.bars.rest(task.job_id)

    async def give_up(self, task_id: str) -> None:
        """End a task that we cannot run, as our own fault."""
        self.prompts.let_go(task_id)
        sentence = "The job could not be run as accepted."
        report = Report(TaskEvent.FAILED, error_code=InternalJobError.code, error_message=sentence)
        await self._recorder.record(task_id, report)

    async def _stage(self, job: Job, upstream: Upstream) -> dict[str, str]:
        sent = (self._sent(given, upstream) for given in job.inputs.values())
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return dict(zip(job.inputs, map(str, outcomes), strict=True))

    async def _sent(self, given: JobInput, upstream: Upstream) -> str:
        async with self._blobs.held(given.blob) as path:
            return await upstream.stage(Blob(given.blob, given.size_bytes), path, given.facts.suffix)

    async def _staged(
        self, job: Job, task: Task, upstream: Upstream, canceling: asyncio.Event
    ) -> dict[str, str] | None:
        """Role -> what a node must say of its file there; None when the job was canceled meanwhile."""
        if {given.blob for given in job.inputs.values()} <= upstream.staged():
            # Most often they were sent while another ran. So nothing is, and tasks would take longer than all the rest.
            return {role: await self._sent(given, upstream) for role, given in job.inputs.items()}
        return await unless_canceled(canceling, self._stage(job, upstream), name=f"staging {task.id}")

    async def _placed(
        self, job: Job, task: Task, upstream: Upstream, prompt_id: str, canceling: asyncio.Event
    ) -> Attempt | Ending:
        """The attempt, staged, bound and stored; or why there is none."""
        # At 0, which is stored already: to store a step of the bar first would take as long as most uploads.
        await self.bars.show(job, task, 0.0, f"Sending the {'inputs' if job.inputs else 'job'} to the worker")
        try:
            return await self._place(job, task, upstream, prompt_id, canceling)
        except TooLargeError as error:
            return await self._too_large(job, task, upstream, error)
        except OSError as error:
            log.warning("staging_failed", task=task.id, upstream=upstream.name, error=type(error).__name__)
            if not await self._has_inputs(job):
                return await self._fail(task, None, InternalJobError("An input of the job is gone."))
            return Ending.UNPLACED
        except BusyError as error:
            log.warning("staging_failed", task=task.id, upstream=upstream.name, error=error.code)
            return Ending.UNPLACED
        except GatewayError as error:
            return await self._fail(task, None, error)

    async def _place(
        self, job: Job, task: Task, upstream: Upstream, prompt_id: str, canceling: asyncio.Event
    ) -> Attempt | Ending:
        self._recorder.credentials.require(job)
        staged = await self._staged(job, task, upstream, canceling)
        if staged is None:
            self.bars.forget(job.id)
            return Ending.WITHDRAWN
        template = await self._catalog.of_job(job)
        capabilities = upstream.capabilities()
        if capabilities is None:
            raise ConnectionError("the upstream went away while inputs were staged")
        work = partial(bound_on, template, capabilities, job, staged, prompt_id, upstream.folder)
        if template.workflow is None and self._pool.lacks(upstream.name, *need_of(template, job)) == ():
            work = partial(work, is_known_to_fit=True)
        bound = await asyncio.to_thread(work) if len(template.nodes) > LARGE_GRAPH else work()
        if isinstance(bound, str):
            log.info("upstream_changed", task=task.id, upstream=upstream.name, reason=bound)
            return Ending.REFUSED  # what it lists now says so too, so the next round looks elsewhere
        bound = await self._collector.arrivals.invited(job, bound, capabilities, prompt_id, upstream.name)
        report = Report(
            TaskEvent.DISPATCHED, upstream=upstream.name, prompt_id=prompt_id, engine=upstream.status().engine
        )
        recorded = await self._recorder.record(task.id, report)
        if recorded is None:  # canceled or expired while it was being staged
            self.bars.forget(job.id)
            return Ending.WITHDRAWN
        return self._attempt(recorded.job, recorded.task, upstream, prompt_id, template, bound, canceling)

    async def _too_large(self, job: Job, task: Task, upstream: Upstream, error: TooLargeError) -> Ending:
        """An upstream refused the inputs for their size: another may take them, and only where none could the job fails."""
        log.info("inputs_refused", task=task.id, upstream=upstream.name)
        self._pool.note_refusal(task.id, upstream.name)
        template = await self._catalog.of_job(job)
        if self._pool.could_take(task.id, *need_of(template, job)):
            return Ending.REFUSED
        return await self._fail(task, None, error)

    async def _has_inputs(self, job: Job) -> bool:
        return all([await self._blobs.exists(given.blob) for given in job.inputs.values()])

    def _attempt(
        self,
        job: Job,
        task: Task,
        upstream: Upstream,
        prompt_id: str,
        template: Template,
        bound: Bound,
        canceling: asyncio.Event,
    ) -> Attempt:
        facts = work_of_job(template, job)
        return Attempt(
            job=job,
            task=task,
            number=task.attempt,
            prompt_id=prompt_id,
            upstream=upstream,
            template=template,
            bound=bound,
            tracker=Tracker(
                self._timings.plan(template.name, bound.graph, facts, upstream.name), self._clock.monotonic()
            ),
            canceling=canceling,
            after_seconds=self._timings.results_seconds(template.name, facts, upstream.name),
        )

    # --------------------------------------------------------------------------------------------------- settling it

    async def _see_through(self, attempt: Attempt, messages: AsyncIterator[Message], stages: Stages) -> Ending:
        async with self._early.beside(attempt):
            outcome = await self._follower.follow(attempt, messages)
        if isinstance(outcome, Succeeded):
            stages.ended()  # what is left is ours to do: the upstream need not wait for it
        return await self._settle(attempt, outcome)

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> Ending:
        """Turn an outcome into a report.

        * Succeeded: results are fetched, audited, stored (``_finish``).
        * Failed: final, but out of memory is tried on another upstream where there is one.
        * Interrupted: canceled when we asked. Else somebody at the upstream did it, and the attempt is lost; but one that
          never began, or whose inputs were not there any more, has cost nothing.
        * Lost: the attempt is lost when we watched it; what was gone before we came back, or went with a worker that was
          stopped, or had not begun behind another, was interrupted.
        """
        match outcome:
            case Succeeded(outputs=outputs):
                files = reported(attempt.bound, outputs, attempt.lines, is_followed=not attempt.adopted)
                if await self._recorder.record_outputs(attempt.task.id, attempt.number, files) is None:
                    return Ending.SETTLED
                return await self._finish(attempt, files)
            case Failed():
                return await self._failed(attempt, outcome)
            case Interrupted():
                return await self._stopped_there(attempt)
            case Lost():
                return await self._gone(attempt, outcome)
            case _:
                assert_never(outcome)

    async def _gone(self, attempt: Attempt, outcome: Lost) -> Ending:
        log.warning("attempt_lost", job=attempt.job.id, attempt=attempt.number, reason=outcome.reason)
        if outcome.by_our_stop:
            return await self._interrupted(attempt, "The worker that ran it was stopped.", Cause.STOPPED)
        if attempt.is_ahead and not attempt.started:
            await self._interrupted(attempt, "The worker was lost before it began.", Cause.DIED)
            return Ending.GIVEN_BACK
        reason = "The worker that ran it was lost."
        if attempt.is_stalled:
            return await self._lost(attempt, reason, Cause.STALLED, Ending.SILENT)
        return await self._lost(attempt, reason, Cause.DIED, Ending.LOST)

    async def _stopped_there(self, attempt: Attempt) -> Ending:
        if attempt.canceling.is_set():
            return await self._canceled(attempt)
        if attempt.started:
            return await self._lost(attempt, "It was interrupted on the worker.", Cause.TAKEN_BACK, Ending.WITHDRAWN)
        cause = Cause.STALLED if attempt.is_stalled else Cause.TAKEN_BACK
        await self._interrupted(attempt, "The worker gave it back before it began.", cause)
        # What waits behind nothing at all, and does not begin, waits for a server that hangs.
        is_behind = attempt.is_ahead or attempt.upstream.status().foreign_prompts
        return Ending.SILENT if attempt.is_stalled and not is_behind else Ending.GIVEN_BACK

    async def _failed(self, attempt: Attempt, outcome: Failed) -> Ending:
        log.warning(
            "attempt_failed",
            job=attempt.job.id,
            attempt=attempt.number,
            upstream=attempt.upstream.name,
            code=outcome.code,
            node_class=outcome.node_class,
            detail=outcome.detail[:500],
        )
        if self._collector.arrivals.has_broken(outcome, attempt.upstream.name):
            return await self._interrupted(attempt, "The worker could not send its result.", Cause.RESULT_LOST)
        is_out_of_memory = outcome.code == UpstreamMemoryError.code
        if is_out_of_memory and self._may_manage_elsewhere(attempt):
            reason = "The worker ran out of memory; another one will try."
            report = Report(TaskEvent.ATTEMPT_LOST, reason=reason, cause=Cause.OUT_OF_MEMORY)
        else:
            report = Report(
                TaskEvent.FAILED,
                error_code=outcome.code,
                error_message=outcome.message,
                error_node_id=outcome.node_id,
                error_node_class=outcome.node_class,
            )
        await self._record(attempt, report)
        return Ending.OUT_OF_MEMORY if is_out_of_memory else Ending.SETTLED

    def _may_manage_elsewhere(self, attempt: Attempt) -> bool:
        """Whether another upstream that works now could take it, and an attempt is left for it."""
        self._pool.note_refusal(attempt.task.id, attempt.upstream.name)
        has_attempts = attempt.task.losses + 1 < self._recorder.limits.max_attempts
        need = need_of(attempt.template, attempt.job)
        return has_attempts and self._pool.could_take(attempt.task.id, *need, now=True)

    async def _lost(self, attempt: Attempt, reason: str, cause: Cause, ending: Ending) -> Ending:
        if attempt.adopted and not attempt.heard:
            return await self._interrupted(attempt, reason, Cause.UNSEEN)
        await self._record(attempt, Report(TaskEvent.ATTEMPT_LOST, reason=reason, cause=cause))
        return ending

    async def _interrupted(self, attempt: Attempt, reason: str, cause: Cause) -> Ending:
        await self._record(attempt, Report(TaskEvent.INTERRUPTED, reason=reason, cause=cause))
        return Ending.WITHDRAWN

    async def _canceled(self, attempt: Attempt) -> Ending:
        await self._record(attempt, Report(TaskEvent.CANCELED))
        return Ending.WITHDRAWN

    async def _finish(self, attempt: Attempt, files: Files) -> Ending:
        """Fetch, audit, store, and say so. A cancel stops it at once; a result that was not recorded leaves no bytes."""
        sentence, left, began = "Checking and storing the result", attempt.after_seconds, self._clock.monotonic()
        await self.bars.show(
            attempt.job, attempt.task, attempt.run_to, sentence, snapshot=attempt.tracker.snapshot(), left=left
        )
        waits = partial(self.bars.show, attempt.job, attempt.task, attempt.run_to)
        work = once_storage_takes(partial(self._collect, attempt, files), self._blobs, self._clock, waits)
        try:
            collected = await unless_canceled(attempt.canceling, work, name=f"collecting {attempt.prompt_id}")
        except JobError as error:
            await self._fail(attempt.task, attempt.number, error)
            return Ending.SETTLED
        except ResultLostError as error:
            log.warning("results_lost", job=attempt.job.id, attempt=attempt.number, reason=str(error))
            return await self._lost(attempt, "The result could not be fetched.", Cause.RESULT_LOST, Ending.LOST)
        except (OSError, BusyError) as error:
            # Our own disk, most likely full: no fault of the worker's nor of the job's.
            log.error("results_not_stored", job=attempt.job.id, attempt=attempt.number, exc_info=error)
            await self._interrupted(attempt, "The result could not be stored.", Cause.NOT_STORED)
            return Ending.NOT_STORED
        except GatewayError as error:
            await self._fail(attempt.task, attempt.number, error)
            return Ending.SETTLED
        if collected is None:
            await self._canceled(attempt)
            return Ending.SETTLED
        results, warnings = collected
        recorded = await self._record(attempt, Report(TaskEvent.SUCCEEDED, results=results, warnings=warnings))
        has_succeeded = recorded is not None and recorded.task.state is TaskState.SUCCEEDED
        got = recorded.job.results if recorded is not None and has_succeeded else ()
        await self._collector.drop([result for result in results if result not in got])
        if has_succeeded and not attempt.adopted:
            self._learn(attempt, self._clock.monotonic() - began)
        return Ending.SETTLED

    async def _collect(self, attempt: Attempt, files: Files) -> tuple[tuple[JobResult, ...], Warnings]:
        """What is still to be kept at the end of an attempt, and what the client should know."""
        if attempt.template.workflow is not None:
            return await self._collector.rest(maker_of(attempt, attempt.template.workflow), files, attempt.kept), ()
        job, bound, prompt_id = attempt.job, attempt.bound, attempt.prompt_id
        if attempt.adopted:
            # When it was taken up, its upstream had not said yet what it has: which models stood in shows by that alone.
            bound = as_dispatched(attempt.template, job.parameters, attempt.upstream.capabilities())
        return await self._collector.collect(job, bound, attempt.upstream, prompt_id, files, attempt.lines)

    def _learn(self, attempt: Attempt, results_seconds: float) -> None:
        """Only what was watched from its start: of an attempt that was taken up, the times are those of our return."""
        laps = attempt.tracker.laps()
        if laps:
            facts = work_of_job(attempt.template, attempt.job)
            self._timings.learn(attempt.template.name, attempt.upstream.name, facts, laps, results_seconds)

    async def _record(self, attempt: Attempt, report: Report) -> Recorded | None:
        return await self._recorder.record(attempt.task.id, replace(report, attempt=attempt.number))

    async def _fail(self, task: Task, attempt: int | None, error: GatewayError) -> Ending:
        """End a task as failed; what is not a job's own error is ours, and the log has it."""
        if not isinstance(error, JobError | TooLargeError):
            log.error("attempt_broke", task=task.id, code=error.code, exc_info=error)
            error = InternalJobError("The job could not be run as accepted.")
        report = Report(TaskEvent.FAILED, attempt=attempt, error_code=error.code, error_message=error.message)
        await self._recorder.record(task.id, report)
        return Ending.WITHDRAWN

"""One attempt from its staged inputs to its recorded end: stage, bind, dispatch, follow, settle.

The attempt's id is chosen and stored before the upstream hears of it, so a lost reply or our own death leaves something
to ask for. What the upstream says last (``Outcome``) is settled here into one report; what each outcome means for the
task's attempts is told beside ``_settle``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import structlog

from gateway.binding import Bound, as_dispatched, bind
from gateway.comfy.messages import (
    Failed,
    Interrupted,
    LogLine,
    Lost,
    Message,
    Outcome,
    Preview,
    PromptStarted,
    Succeeded,
)
from gateway.comfy.progress import RUN_FROM, RUN_TO, Plan, Snapshot, Tracker, plan_for, whole_job
from gateway.engine.catalog import Catalog
from gateway.engine.recorder import Recorder
from gateway.engine.results import Collector, Files
from gateway.errors import GatewayError, InternalJobError, JobError, UpstreamMemoryError
from gateway.events import PreviewImage, Progress
from gateway.interfaces import Blob, Blobs, Bus, Clock, OpenTask, Report, Store, Upstream
from gateway.job import Job, Task, TaskEvent
from gateway.template import missing_on

log = structlog.get_logger(__name__)

#: Log lines of the upstream kept of one attempt: the sentence we look for is among the last ones.
LOG_LINES = 200
#: A cancel is asked for again and again by the upstream's own cancel; past this the attempt is given up.
CANCEL_SECONDS = 30.0


@dataclass(slots=True)
class Attempt:
    """What is known of the attempt at work."""

    job: Job
    task: Task
    number: int
    prompt_id: str
    upstream: Upstream
    bound: Bound
    tracker: Tracker
    #: Set when the job's cancel was recorded.
    canceling: asyncio.Event
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    heard: bool = False
    adopted: bool = False


class Runner:
    """Runs attempts; the dispatcher owns the tasks that call it."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        bus: Bus,
        catalog: Catalog,
        recorder: Recorder,
        collector: Collector,
        clock: Clock,
        *,
        stall_seconds: float,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._bus = bus
        self._catalog = catalog
        self._recorder = recorder
        self._collector = collector
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._canceling: dict[str, asyncio.Event] = {}
        #: job id -> (fraction, sentence) not yet written; ``maintenance`` writes them in batches.
        self.unsaved: dict[str, tuple[float, str]] = {}

    def cancel(self, job_id: str) -> None:
        """The job's cancel was recorded: see that its prompt leaves the upstream."""
        flag = self._canceling.get(job_id)
        if flag is not None:
            flag.set()

    # ---------------------------------------------------------------------------------------------- an attempt's start

    async def stage_ahead(self, task_id: str, upstream: Upstream) -> None:
        """Upload a queued task's inputs while the upstream is busy with another; failing is no event."""
        found = await self._store.queued_task(task_id)
        if found is None:
            return
        try:
            await self._stage(found[0], upstream)
        except (GatewayError, OSError) as error:
            log.info("staging_ahead_failed", task=task_id, upstream=upstream.name, error=type(error).__name__)

    async def run(self, task_id: str, upstream: Upstream) -> None:
        """Run a queued task on an upstream; comes back when it has ended, is queued again, or was canceled."""
        found = await self._store.queued_task(task_id)
        if found is None:
            return
        job, task = found
        self._show(job, None, RUN_FROM / 2, "Sending the inputs to the worker")
        try:
            attempt = await self._dispatch(job, task, upstream)
        except OSError as error:
            # Not dispatched, so nothing is lost but time; the dispatcher tries again when the pool has looked around.
            log.warning("staging_failed", task=task_id, upstream=upstream.name, error=type(error).__name__)
            await self._clock.sleep(1.0)
            return
        except GatewayError as error:
            await self._fail(task, None, error)
            return
        if attempt is None:
            return
        messages = upstream.run(attempt.prompt_id, attempt.bound.graph, job_id=job.id, attempt=attempt.number)
        await self._see_through(attempt, messages)

    async def adopt(self, found: OpenTask, upstream: Upstream) -> None:
        """Take up what an earlier process dispatched."""
        job, task = found.job, found.task
        template = await self._catalog.pinned(job.template, job.template_version)
        attempt = self._attempt(job, task, upstream, task.prompt_id or "", as_dispatched(template))
        attempt.adopted = True
        if task.cancel_requested:
            attempt.canceling.set()
        if found.outputs is None:
            await self._see_through(attempt, upstream.adopt(attempt.prompt_id))
            return
        try:
            await self._finish(attempt, found.outputs)
        finally:
            self._canceling.pop(job.id, None)

    async def _stage(self, job: Job, upstream: Upstream) -> dict[str, str]:
        staged = {}
        for role, given in job.inputs.items():
            blob = Blob(given.blob, given.size_bytes)
            staged[role] = await upstream.stage(blob, self._blobs.path(given.blob), given.facts.suffix)
        return staged

    async def _dispatch(self, job: Job, task: Task, upstream: Upstream) -> Attempt | None:
        """Stage, bind, and store the attempt; None when the task was canceled meanwhile."""
        staged = await self._stage(job, upstream)
        capabilities = upstream.capabilities()
        if capabilities is None:
            raise ConnectionError("the upstream went away while inputs were staged")
        template = await self._catalog.pinned(job.template, job.template_version)
        if missing := missing_on(template, capabilities, job.parameters):
            raise ConnectionError(f"the upstream no longer has what it had: {missing[0]}")
        prompt_id = str(uuid.uuid4())
        bound = bind(
            template,
            inputs=staged,
            parameters=job.parameters,
            output_prefix=f"gateway/{prompt_id}/out",
            capabilities=capabilities,
        )
        # Registered before the dispatch is recorded: a cancel recorded after it finds us.
        attempt = self._attempt(job, task, upstream, prompt_id, bound)
        report = Report(
            TaskEvent.DISPATCHED, upstream=upstream.name, prompt_id=prompt_id, engine=upstream.status().engine
        )
        recorded = await self._recorder.record(task.id, report)
        if recorded is None:
            self._canceling.pop(job.id, None)
            return None
        attempt.job, attempt.task, attempt.number = recorded.job, recorded.task, recorded.task.attempt
        return attempt

    def _attempt(self, job: Job, task: Task, upstream: Upstream, prompt_id: str, bound: Bound) -> Attempt:
        target = job.inputs.get("target")
        plan: Plan = plan_for(bound.graph, frames=target.facts.frames if target else 1)
        canceling = self._canceling.setdefault(job.id, asyncio.Event())
        return Attempt(job, task, task.attempt, prompt_id, upstream, bound, Tracker(plan), canceling)

    # ------------------------------------------------------------------------------------------------ following it

    async def _see_through(self, attempt: Attempt, messages: AsyncIterator[Message]) -> None:
        try:
            outcome = await self._follow(attempt, messages)
            await self._settle(attempt, outcome)
        finally:
            self._canceling.pop(attempt.job.id, None)

    async def _follow(self, attempt: Attempt, messages: AsyncIterator[Message]) -> Outcome:
        canceler = asyncio.create_task(self._cancel_when_asked(attempt), name=f"canceler {attempt.prompt_id}")
        try:
            while True:
                try:
                    async with asyncio.timeout(self._stall_seconds):
                        message = await anext(messages)
                except TimeoutError:
                    return await self._stalled(attempt)
                except StopAsyncIteration:
                    return Lost(attempt.prompt_id, "the upstream's messages ended without an outcome")
                if isinstance(message, Outcome):
                    return message
                await self._hear(attempt, message)
        finally:
            canceler.cancel()
            await asyncio.gather(canceler, return_exceptions=True)

    async def _cancel_when_asked(self, attempt: Attempt) -> None:
        await attempt.canceling.wait()
        log.info("canceling", job=attempt.job.id, attempt=attempt.number, upstream=attempt.upstream.name)
        await attempt.upstream.cancel(attempt.prompt_id)

    async def _stalled(self, attempt: Attempt) -> Outcome:
        log.warning("attempt_stalled", job=attempt.job.id, attempt=attempt.number, upstream=attempt.upstream.name)
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await attempt.upstream.cancel(attempt.prompt_id)
        except TimeoutError:
            log.warning("stalled_prompt_stays", job=attempt.job.id, upstream=attempt.upstream.name)
        return Lost(attempt.prompt_id, f"nothing was heard of it for {self._stall_seconds:.0f} s")

    async def _hear(self, attempt: Attempt, message: Message) -> None:
        attempt.heard = True
        match message:
            case PromptStarted():
                await self._recorder.record(attempt.task.id, Report(TaskEvent.STARTED, attempt=attempt.number))
            case LogLine(text=text):
                attempt.lines.append(text)
                return
            case Preview(content_type=kind, data=data):
                self._bus.show(PreviewImage(attempt.job.id, kind, data))
                return
            case _:
                pass
        if attempt.tracker.feed(message):
            snapshot = attempt.tracker.snapshot()
            self._show(attempt.job, snapshot, whole_job(snapshot.fraction), self._sentence(attempt, snapshot))

    @staticmethod
    def _sentence(attempt: Attempt, snapshot: Snapshot) -> str:
        if snapshot.node is None:
            return "Working"
        sentence = attempt.bound.titles.get(snapshot.node, snapshot.node_class or "Working")
        if snapshot.steps and snapshot.steps > 1:
            sentence += f": {snapshot.step} of {snapshot.steps}"
            if snapshot.passes and snapshot.passes > 1:
                sentence += f", pass {snapshot.pass_number} of {snapshot.passes}"
        return sentence

    def _show(self, job: Job, snapshot: Snapshot | None, fraction: float, sentence: str) -> None:
        """Tell how far it is; after a lost attempt the bar waits at the highest it had shown, and says so."""
        latest = self._bus.latest(job.id)
        shown = max(job.fraction, latest.fraction if latest else 0.0)
        if fraction < shown:
            sentence = f"Catching up after a lost attempt. {sentence}"
        fraction = min(max(fraction, shown), 0.999)
        self.unsaved[job.id] = (fraction, sentence)
        self._bus.show(_progress(job.id, snapshot, fraction, sentence))

    # --------------------------------------------------------------------------------------------------- settling it

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Turn an outcome into a report.

        * Succeeded: results are fetched, audited, stored (``_finish``).
        * Failed: final, but out of memory is tried on another upstream where there is one, and an input that the
          upstream says it does not have is sent again at no cost.
        * Interrupted: canceled when we asked; else somebody at the upstream did it, and the attempt is lost.
        * Lost: the attempt is lost when we watched it; what was gone before we came back was interrupted.
        """
        match outcome:
            case Succeeded(outputs=outputs):
                files = {node: output.files for node, output in outputs.items()}
                recorded = await self._recorder.record_outputs(attempt.task.id, attempt.number, files)
                if recorded is not None:
                    await self._finish(attempt, files)
            case Failed():
                await self._failed(attempt, outcome)
            case Interrupted() if attempt.canceling.is_set():
                await self._report(attempt, Report(TaskEvent.CANCELED))
            case Interrupted():
                await self._lost(attempt, "It was interrupted on the worker.")
            case Lost(reason=reason):
                log.warning("attempt_lost", job=attempt.job.id, attempt=attempt.number, reason=reason)
                await self._lost(attempt, "The worker that ran it was lost.")

    async def _failed(self, attempt: Attempt, outcome: Failed) -> None:
        log.warning(
            "attempt_failed",
            job=attempt.job.id,
            attempt=attempt.number,
            upstream=attempt.upstream.name,
            code=outcome.code,
            node_class=outcome.node_class,
            detail=outcome.detail[:500],
        )
        if outcome.code == "graph_rejected" and "Invalid" in outcome.detail and "file" in outcome.detail:
            attempt.upstream.doubt()
            await self._report(attempt, Report(TaskEvent.INTERRUPTED, reason="The worker had lost the inputs."))
        elif outcome.code == UpstreamMemoryError.code and self._collector.others(attempt.upstream.name):
            await self._report(attempt, Report(TaskEvent.ATTEMPT_LOST, reason="The worker ran out of memory."))
        else:
            report = Report(TaskEvent.FAILED, error_code=outcome.code, error_message=outcome.message)
            await self._report(attempt, report)

    async def _lost(self, attempt: Attempt, reason: str) -> None:
        watched = attempt.heard or not attempt.adopted
        event = TaskEvent.ATTEMPT_LOST if watched else TaskEvent.INTERRUPTED
        await self._report(attempt, Report(event, reason=reason))

    async def _finish(self, attempt: Attempt, files: Files) -> None:
        self._show(attempt.job, None, RUN_TO, "Checking and storing the result")
        try:
            results, warnings = await self._collector.collect(
                attempt.job, attempt.bound, attempt.upstream, files, attempt.lines
            )
        except JobError as error:
            await self._fail(attempt.task, attempt.number, error)
            return
        except (OSError, GatewayError) as error:
            log.warning("results_lost", job=attempt.job.id, attempt=attempt.number, error=type(error).__name__)
            await self._report(attempt, Report(TaskEvent.ATTEMPT_LOST, reason="The result could not be fetched."))
            return
        await self._report(attempt, Report(TaskEvent.SUCCEEDED, results=results, warnings=warnings))

    async def _report(self, attempt: Attempt, report: Report) -> None:
        self.unsaved.pop(attempt.job.id, None)
        await self._recorder.record(attempt.task.id, replace(report, attempt=attempt.number))

    async def _fail(self, task: Task, attempt: int | None, error: GatewayError) -> None:
        """End a task as failed; what is not a job's own error is ours, and the log has it."""
        if not isinstance(error, JobError):
            log.error("attempt_broke", task=task.id, code=error.code, exc_info=error)
            error = InternalJobError("The job could not be run as accepted.")
        self.unsaved.pop(task.job_id, None)
        report = Report(TaskEvent.FAILED, attempt=attempt, error_code=error.code, error_message=error.message)
        await self._recorder.record(task.id, report)


def _progress(job_id: str, snapshot: Snapshot | None, fraction: float, sentence: str) -> Progress:
    if snapshot is None:
        return Progress(job_id, fraction, sentence)
    return Progress(
        job_id,
        fraction,
        sentence,
        nodes_done=snapshot.nodes_done,
        nodes_total=snapshot.nodes_total,
        node=snapshot.node,
        node_class=snapshot.node_class,
        step=snapshot.step,
        steps=snapshot.steps,
        pass_number=snapshot.pass_number,
        passes=snapshot.passes,
    )

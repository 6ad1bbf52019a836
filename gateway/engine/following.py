"""Follows one attempt from its first message to its outcome: progress, cancel, silence.

It shows what it hears and records that the attempt has started; what the outcome means is for ``runner.py``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from gateway.binding import Bound
from gateway.comfy.messages import (
    Interrupted,
    LogLine,
    Lost,
    Message,
    NodeOutput,
    NodeProgress,
    Outcome,
    Preview,
    PromptStarted,
)
from gateway.comfy.progress import RUN_FROM, Tracker, run_to, whole_job
from gateway.engine.bars import Bars, describe
from gateway.engine.recorder import Recorder
from gateway.engine.streams import closing
from gateway.errors import GatewayError
from gateway.events import MAX_PREVIEW_BYTES, PreviewImage
from gateway.interfaces import Bus, Clock, Report, Upstream
from gateway.job import Job, JobResult, Task, TaskEvent
from gateway.template import Template

log = structlog.get_logger(__name__)

#: Log lines of the upstream kept of one attempt: the sentence we look for is among the last ones.
LOG_LINES = 200
#: A silent upstream gets this long to let go of a prompt.
LET_GO_SECONDS = 30.0
#: With this much left by the estimate an attempt is about to end. Enough for the way to an upstream, where the next one
#: then waits, and little to wait should a better one become free meanwhile.
ENDING_SECONDS = 2.0
#: ``Upstream.cancel`` comes back when the prompt is gone, or when the upstream is. Until the outcome is known it is asked
#: again this long afterwards.
CANCEL_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class Attempt:
    """What is known of the attempt at work."""

    job: Job
    task: Task
    number: int
    prompt_id: str
    upstream: Upstream
    template: Template
    bound: Bound
    tracker: Tracker
    #: Set when the job's cancel was recorded.
    canceling: asyncio.Event
    #: Taken up from an earlier process.
    adopted: bool = False
    #: Sent while another was about to end on its upstream.
    is_ahead: bool = False
    #: Called while it is about to end.
    on_ending: Callable[[], None] = lambda: None
    #: Told what nodes have made.
    on_output: Callable[[NodeOutput], None] = lambda _: None
    #: (node id, source) of files that it made and that are kept already.
    kept: set[tuple[str | None, str | None]] = field(default_factory=set)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    #: The upstream said anything of it, so that we watched it.
    heard: bool = False
    #: The upstream took it off its queue.
    started: bool = False
    #: It was taken back because nothing was heard of it for too long.
    is_stalled: bool = False
    #: Predicted seconds from the upstream's success to the job's; None where nothing was learned.
    after_seconds: float | None = None
    #: Where the job's bar stands when the upstream is done.
    run_to: float = field(init=False)

    def __post_init__(self) -> None:
        """Divide the job's bar."""
        self.run_to = run_to(self.tracker.predicted_seconds, self.after_seconds)
        self.note_kept(self.job.results)

    def note_kept(self, results: Iterable[JobResult]) -> None:
        """Take note of what the job has by now: an earlier process may have kept it."""
        self.kept |= {(result.node_id, result.source) for result in results if result.attempt_id == self.prompt_id}

    def with_results(self, left: float | None) -> float | None:
        """Seconds to the job's end from those to the prompt's: as predicted, else by their part of the bar."""
        if left is None:
            return None
        if self.after_seconds is not None:
            return left + self.after_seconds
        run_part, rest = self.run_to - RUN_FROM, 1.0 - self.run_to
        fraction_left = self.tracker.fraction_left
        return left * (fraction_left * run_part + rest) / (fraction_left * run_part) if fraction_left > 0 else None


class Follower:
    """Follows attempts."""

    def __init__(self, recorder: Recorder, bus: Bus, bars: Bars, clock: Clock, *, stall_seconds: float) -> None:
        self._recorder = recorder
        self._bus = bus
        self._bars = bars
        self._clock = clock
        self._stall_seconds = stall_seconds

    async def follow(self, attempt: Attempt, messages: AsyncIterator[Message]) -> Outcome:
        """The attempt's outcome; ``messages`` are closed when it is known."""
        async with closing(messages), self._canceler(attempt):
            try:
                async with asyncio.timeout(None) as limit:
                    return await self._listen(attempt, messages, limit)
            except TimeoutError:
                if not limit.expired():
                    raise
                return await self._stalled(attempt)

    async def _listen(self, attempt: Attempt, messages: AsyncIterator[Message], limit: asyncio.Timeout) -> Outcome:
        async with self._watchdog(attempt, limit) as watchdog:
            async for message in messages:
                watchdog.heard_at = now = self._clock.monotonic()
                if isinstance(message, Outcome):
                    return message
                await self._hear(attempt, message, now)
        return Lost(attempt.prompt_id, "the upstream's messages ended without an outcome")

    async def _hear(self, attempt: Attempt, message: Message, now: float) -> None:
        attempt.heard = True
        match message:
            case NodeProgress():
                pass
            case PromptStarted():
                await self._note_start(attempt, now)
            case NodeOutput():
                attempt.on_output(message)
            case LogLine(text=text):
                attempt.lines.append(text)
            case Preview(content_type=kind, data=data, node_id=node) if len(data) <= MAX_PREVIEW_BYTES:
                self._bus.show(PreviewImage(attempt.job.id, kind, data, node))
            case _:
                pass
        if attempt.tracker.feed(message, now):
            snapshot = attempt.tracker.snapshot()
            prompt_left = attempt.tracker.seconds_left(now)
            left = attempt.with_results(prompt_left)
            title = attempt.bound.titles.get(snapshot.node or "")
            fraction, sentence = whole_job(snapshot.fraction, attempt.run_to), describe(title, snapshot)
            await self._bars.show(
                attempt.job, attempt.task, fraction, sentence, snapshot=snapshot, title=title, left=left
            )
            if attempt.started and prompt_left is not None and prompt_left <= ENDING_SECONDS:
                attempt.on_ending()

    async def _note_start(self, attempt: Attempt, now: float) -> None:
        attempt.started = True
        left = attempt.with_results(attempt.tracker.seconds_left(now))
        ceiling = self._bars.first_ceiling(attempt.job.id, left)
        report = Report(TaskEvent.STARTED, attempt=attempt.number, fraction=ceiling)
        if await self._recorder.record(attempt.task.id, report) is not None and ceiling is not None:
            self._bars.note_ceiling(attempt.job.id, ceiling)

    # ---------------------------------------------------------------------------------------------------------- cancel

    @asynccontextmanager
    async def _canceler(self, attempt: Attempt) -> AsyncIterator[None]:
        task = asyncio.create_task(self._cancel_when_asked(attempt), name=f"canceler {attempt.prompt_id}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _cancel_when_asked(self, attempt: Attempt) -> None:
        await attempt.canceling.wait()
        log.info("canceling", job=attempt.job.id, attempt=attempt.number, upstream=attempt.upstream.name)
        while True:
            try:
                await attempt.upstream.cancel(attempt.prompt_id)
            except (OSError, GatewayError) as error:
                log.warning("cancel_failed", job=attempt.job.id, error=type(error).__name__)
            await self._clock.sleep(CANCEL_AGAIN_SECONDS)

    # --------------------------------------------------------------------------------------------------------- silence

    @asynccontextmanager
    async def _watchdog(self, attempt: Attempt, limit: asyncio.Timeout) -> AsyncIterator[_Watchdog]:
        watchdog = _Watchdog(self._clock, self._stall_of(attempt), limit, heard_at=self._clock.monotonic())
        task = asyncio.create_task(watchdog.watch(), name=f"watchdog {attempt.prompt_id}")
        try:
            yield watchdog
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _stall_of(self, attempt: Attempt) -> float:
        """Seconds of silence that are too long: as the template says, for there are nodes that say nothing for long."""
        return attempt.template.stall_seconds or self._stall_seconds

    async def _stalled(self, attempt: Attempt) -> Outcome:
        """Silence: take it back. One that never began has cost nothing; one that ran is lost."""
        attempt.is_stalled = True
        log.warning("attempt_stalled", job=attempt.job.id, attempt=attempt.number, upstream=attempt.upstream.name)
        try:
            async with asyncio.timeout(LET_GO_SECONDS):
                await attempt.upstream.cancel(attempt.prompt_id)
        except (OSError, GatewayError) as error:  # a time-out is an OSError too
            log.warning("stalled_prompt_stays", job=attempt.job.id, error=type(error).__name__)
        if not attempt.started:
            return Interrupted(attempt.prompt_id)
        return Lost(attempt.prompt_id, f"nothing was heard of it for {self._stall_of(attempt):.0f} s")


@dataclass(slots=True)
class _Watchdog:
    """Ends a wait when nothing was heard for too long: one sleeper per attempt, not one timer per message."""

    clock: Clock
    stall_seconds: float
    limit: asyncio.Timeout
    #: Monotonic seconds.
    heard_at: float

    async def watch(self) -> None:
        while (left := self.heard_at + self.stall_seconds - self.clock.monotonic()) > 0:
            await self.clock.sleep(left)
        self.limit.reschedule(asyncio.get_running_loop().time())

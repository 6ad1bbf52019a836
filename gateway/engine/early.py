"""Outputs that appear while a job runs: a node's files are fetched and kept as soon as it has told of them.

One task beside each attempt that runs a client's own graph, one file at a time. It never ends an attempt: what cannot be
fetched or kept early is fetched at the end like everything else. It is gone before the attempt's end is acted on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import structlog

from gateway.comfy.messages import NodeOutput, OutputFile
from gateway.engine.following import Attempt
from gateway.engine.outputs import MAX_FILES, all_of, each_file, source_of
from gateway.engine.recorder import Recorder
from gateway.engine.results import Collector, Maker, ResultLostError
from gateway.errors import GatewayError, ShuttingDownError
from gateway.job import JobResult
from gateway.workflow import Workflow

log = structlog.get_logger(__name__)

#: Outputs that wait to be fetched; what comes beyond is fetched at the end.
MAX_WAITING: Final = 64

#: What one node made, under its id.
Made: TypeAlias = dict[str, tuple[OutputFile, ...]]


def maker_of(attempt: Attempt, workflow: Workflow) -> Maker:
    """Who makes the files of an attempt."""
    return Maker(attempt.job, workflow, attempt.upstream, attempt.prompt_id)


class EarlyOutputs:
    """Keeps what an attempt makes while it is at work."""

    def __init__(self, collector: Collector, recorder: Recorder) -> None:
        self._collector = collector
        self._recorder = recorder

    @asynccontextmanager
    async def beside(self, attempt: Attempt) -> AsyncIterator[None]:
        """For the length of the block, whatever ``attempt.on_output`` is told is fetched and kept."""
        workflow = attempt.template.workflow
        if workflow is None:
            yield
            return
        maker = maker_of(attempt, workflow)
        waiting, more = deque[Made](), asyncio.Event()

        def heard(output: NodeOutput) -> None:
            if len(waiting) < MAX_WAITING and (files := all_of(output)):
                waiting.append({output.node_id: files})
                more.set()

        attempt.on_output = heard
        task = asyncio.create_task(self._work(attempt, maker, waiting, more), name=f"early outputs {attempt.prompt_id}")
        try:
            yield
        finally:
            attempt.on_output = lambda _: None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _work(self, attempt: Attempt, maker: Maker, waiting: deque[Made], more: asyncio.Event) -> None:
        while True:
            await more.wait()
            more.clear()
            while waiting:
                try:
                    await self._keep(attempt, maker, waiting.popleft())
                except ShuttingDownError:
                    return  # nothing can be stored any more
                except Exception as error:  # the edge of a task that nobody waits for
                    log.error("early_output_broke", job=attempt.job.id, exc_info=error)

    async def _keep(self, attempt: Attempt, maker: Maker, made: Made) -> None:
        if len(attempt.kept) >= MAX_FILES:
            return
        results: list[JobResult] = []
        try:
            for node_id, file in each_file(made):
                if (node_id, source_of(file)) not in attempt.kept:
                    results.append(await self._collector.as_made(maker, node_id, file))
        except (ResultLostError, GatewayError, OSError) as error:
            log.info("early_output_not_fetched", job=attempt.job.id, error=type(error).__name__)
        except BaseException:
            await self._collector.drop(results)
            raise
        if results:
            await _to_its_end(self._record(attempt, results), name=f"keeping outputs {attempt.prompt_id}")

    async def _record(self, attempt: Attempt, results: Sequence[JobResult]) -> None:
        """Make them the job's, or take their bytes back."""
        try:
            recorded = await self._recorder.keep_results(attempt.task.id, attempt.number, results)
        except BaseException:
            await self._collector.drop(results)
            raise
        kept = recorded.job.results if recorded else ()
        attempt.note_kept(kept)
        await self._collector.drop([result for result in results if result not in kept])


async def _to_its_end(work: Coroutine[Any, Any, None], *, name: str) -> None:
    """Wait for it, also when canceled: half of it would leave bytes that are nobody's."""
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise

"""Workers that live and die with the gateway: starts them, watches them, starts them again, removes them on exit.

A ``ManagedUpstream`` is an ``Upstream`` like any other, over one child process at a time. The child takes a free loopback
port and a token made for this start, says so in one line of JSON on its standard output, and ends by itself when its
standard input closes, which happens however we end. What runs there when the child dies is lost at once: nobody has to
wait for a socket to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

from gateway.comfy.messages import Lost, Message, Outcome, OutputFile
from gateway.interfaces import Blob, Capabilities, Clock, OnChange, Upstream, UpstreamStatus

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
STOP_SECONDS = 5.0
#: Waits between starts: a child that keeps dying must not keep a core busy.
BACKOFF_SECONDS = (0.2, 1.0, 5.0, 15.0, 30.0)
#: A child that lived this long has its backoff forgiven.
STEADY_SECONDS = 30.0
#: One line of a child's log is cut here, so that it cannot fill ours.
LOG_LINE_BYTES = 2000


class WorkerStartError(RuntimeError):
    """A worker could not be started; the sentence says why, as the worker put it."""


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How to start a worker."""

    #: Program and arguments; the directory is appended.
    arguments: tuple[str, ...] = (sys.executable, "-m", "gateway.embedded", "--port", "0", "--parent-watch")
    #: Added to the environment, beside the token.
    environment: Mapping[str, str] | None = None


MakeRemote = Callable[[str, str], Upstream]


class ManagedUpstream:
    """One worker process, over and over.

    Args:
        name: of the upstream, e.g. "embedded-1".
        directory: where the worker keeps its files.
        make_remote: (base URL, token) -> the upstream that speaks to it.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        make_remote: MakeRemote,
        *,
        clock: Clock,
        on_change: OnChange,
        command: WorkerCommand | None = None,
    ) -> None:
        self.name = name
        self._directory = directory
        self._make_remote = make_remote
        self._clock = clock
        self._on_change = on_change
        self._command = command or WorkerCommand()
        self._remote: Upstream | None = None
        self._died = asyncio.Event()
        self._reason = "starting"
        self._closing = False
        self._first_start: asyncio.Future[None] | None = None

    # ----------------------------------------------------------------------------------------------- the child's life

    async def run_forever(self) -> None:
        """Keep a worker running until ``close``."""
        deaths = 0
        while not self._closing:
            born = self._clock.monotonic()
            try:
                await self._live_once()
            except (WorkerStartError, OSError) as error:
                self._reason = str(error) if isinstance(error, WorkerStartError) else "could not be started"
                log.error("worker_start_failed", worker=self.name, error=str(error))
            deaths = 0 if self._clock.monotonic() - born >= STEADY_SECONDS else deaths + 1
            self._on_change()
            if not self._closing:
                await self._clock.sleep(BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS)) - 1] if deaths else 0.0)

    async def _live_once(self) -> None:
        token = secrets.token_urlsafe(24)
        process = await self._spawn(token)
        errors = asyncio.create_task(self._relay_log(process), name=f"log of {self.name}")
        try:
            port = await self._port(process)
            died = self._died = asyncio.Event()
            remote = self._remote = self._make_remote(f"http://127.0.0.1:{port}", token)
            self._reason = ""
            log.info("worker_started", worker=self.name, pid=process.pid)
            speaking = asyncio.create_task(remote.run_forever(), name=f"connection to {self.name}")
            try:
                await process.wait()
                log.warning("worker_ended", worker=self.name, status=process.returncode)
            finally:
                self._remote, self._reason = None, "its process ended; starting another"
                died.set()
                await remote.close()
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
        finally:
            await _end(process)
            errors.cancel()
            await asyncio.gather(errors, return_exceptions=True)

    async def _spawn(self, token: str) -> asyncio.subprocess.Process:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {**os.environ, **(self._command.environment or {}), "COMFYGATE_WORKER_TOKEN": token}
        return await asyncio.create_subprocess_exec(
            *self._command.arguments,
            "--directory",
            str(self._directory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )

    async def _port(self, process: asyncio.subprocess.Process) -> int:
        if process.stdout is None:  # pragma: no cover - asked for above
            raise WorkerStartError("it has no output")
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise WorkerStartError(f"it did not start within {START_SECONDS:.0f} s") from error
        try:
            return int(orjson.loads(line)["port"])
        except (ValueError, KeyError, TypeError) as error:
            raise WorkerStartError("it ended before it was ready; the log says why") from error

    async def _relay_log(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:  # pragma: no cover - asked for above
            return
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # longer than the reader's buffer: the reader has dropped it
                continue
            if not line:
                return
            log.debug("worker_says", worker=self.name, line=line[:LOG_LINE_BYTES].decode(errors="replace").rstrip())

    async def close(self) -> None:
        """Start no other worker; the owner cancels ``run_forever``, which ends the one that runs."""
        self._closing = True

    # ---------------------------------------------------------------------------------------- an upstream like others

    def status(self) -> UpstreamStatus:
        """The child's, or why there is none."""
        if self._remote is not None:
            return self._remote.status()
        return UpstreamStatus(
            name=self.name,
            reachable=False,
            reason=self._reason,
            version=None,
            engine="preview",
            foreign_prompts=0,
            address="http://127.0.0.1",
        )

    def capabilities(self) -> Capabilities | None:
        """The child's."""
        return self._remote.capabilities() if self._remote else None

    def staged(self) -> frozenset[str]:
        """The child's."""
        return self._remote.staged() if self._remote else frozenset()

    def doubt(self) -> None:
        """Forget what was staged."""
        if self._remote:
            self._remote.doubt()

    async def stage(self, blob: Blob, path: Path, suffix: str) -> str:
        """Upload to the child. Raises ConnectionError when there is none."""
        return await self._there().stage(blob, path, suffix)

    def run(self, prompt_id: str, graph: Mapping[str, object], *, job_id: str, attempt: int) -> AsyncIterator[Message]:
        """Submit to the child and follow until an outcome or its death."""
        remote = self._remote
        if remote is None:
            return _gone(prompt_id)
        return _until(self._died, remote.run(prompt_id, graph, job_id=job_id, attempt=attempt), prompt_id)

    async def adopt(self, prompt_id: str) -> AsyncIterator[Message]:
        """A new child knows nothing of what an earlier one ran."""
        yield Lost(prompt_id, "the worker that ran it is gone")

    async def cancel(self, prompt_id: str) -> None:
        """Cancel on the child; with it gone there is nothing to cancel."""
        if self._remote is not None:
            await self._remote.cancel(prompt_id)

    def fetch(self, file: OutputFile) -> AsyncIterator[bytes]:
        """Bytes of an output file. Raises ConnectionError when there is no child."""
        return self._there().fetch(file)

    def _there(self) -> Upstream:
        if self._remote is None:
            raise ConnectionError(f"{self.name} is not running")
        return self._remote


async def _gone(prompt_id: str) -> AsyncIterator[Message]:
    yield Lost(prompt_id, "the worker is not running")


async def _until(died: asyncio.Event, messages: AsyncIterator[Message], prompt_id: str) -> AsyncIterator[Message]:
    """``messages``, cut short by a ``Lost`` when the process dies first."""
    death = asyncio.create_task(died.wait(), name=f"death watch of {prompt_id}")
    try:
        while True:
            coming = asyncio.ensure_future(anext(messages))
            try:
                await asyncio.wait({coming, death}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    yield Lost(prompt_id, "the worker's process ended")
                    return
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
            message = coming.result()
            yield message
            if isinstance(message, Outcome):
                return
    except StopAsyncIteration:
        return
    finally:
        death.cancel()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its input, which tells it to go; kill it when it does not."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is not None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

"""Workers that live and die with the gateway: starts them, watches them, starts them again, removes them on exit.

A ``ManagedUpstream`` is an ``Upstream`` like any other, over one child process at a time: an embedded worker, or the
launcher of a ComfyUI (``launcher.py``). The child takes a free loopback port and a token made for this start, says so in one
line of JSON on its standard output, and ends by itself when its standard input closes, which happens however we end. What
runs there when the child dies is lost at once: nobody has to wait for a socket to notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

from gateway.comfy.messages import Lost, Message, Outcome, OutputFile
from gateway.interfaces import AskInUse, Blob, Capabilities, Clock, OnChange, Upstream, UpstreamStatus
from gateway.upstreams.waiting import nap

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
STOP_SECONDS = 5.0
#: Waits between starts: a child that keeps dying must not keep a core busy.
BACKOFF_SECONDS = (0.2, 1.0, 5.0, 15.0, 30.0)
#: A child that served this long has its backoff forgiven.
STEADY_SECONDS = 30.0
REMEMBERED_PROMPTS = 16
#: How a child ends that somebody stopped or killed, and not what it was doing.
STOPPED = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
#: Variables that stay with us: our own settings, with tokens and the credentials of other upstreams, and those of storage.
OURS = ("GATEWAY_", "AWS_")
#: One line of a child's log is cut here, so that it cannot fill ours.
LOG_LINE_BYTES = 2000


class WorkerStartError(RuntimeError):
    """A worker could not be started; the sentence says why, as the worker put it."""


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How to start a worker."""

    #: Program and arguments; the directory is appended.
    arguments: tuple[str, ...] = (
        *(sys.executable, "-m", "gateway.embedded"),
        *("--port", "0", "--parent-watch", "--preview-method", "auto"),
    )
    #: Added to the environment, beside the token.
    environment: Mapping[str, str] | None = None
    #: How long it may take until it says its port.
    start_seconds: float = START_SECONDS
    #: What runs there, as ``UpstreamStatus.engine`` has it.
    engine: str = "preview"
    #: Where else to look for what it said; "" where our own log has it all.
    log_file: str = ""


MakeRemote = Callable[[str, str], Upstream]


class ManagedUpstream:
    """One worker process, over and over.

    Args:
        name: of the upstream, e.g. "embedded-1".
        directory: where the worker keeps its files.
        make_remote: (base URL, token) -> the upstream that speaks to it.
        folder: where our files lie there, as that one says.
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
        folder: str,
    ) -> None:
        self.name = name
        self.folder = folder
        self._directory = directory
        self._make_remote = make_remote
        self._clock = clock
        self._on_change = on_change
        self._command = command or WorkerCommand()
        self._remote: Upstream | None = None
        #: Waits for a message of the child that runs now; its death ends them.
        self._waits: set[asyncio.Timeout] = set()
        #: The newest prompts that the child that runs now was given.
        self._prompts: deque[str] = deque(maxlen=REMEMBERED_PROMPTS)
        self._was_stopped = False
        self._reason = "starting"
        #: When the last child that ran ended, monotonic seconds.
        self._ended_at: float | None = None
        self._closing = False
        self._process: asyncio.subprocess.Process | None = None
        #: Set from when another child is wanted until it is being started.
        self._restart = asyncio.Event()
        #: When the child that ran last began to serve; None: it never did.
        self._served_from: float | None = None

    # ----------------------------------------------------------------------------------------------- the child's life

    async def run_forever(self) -> None:
        """Keep a worker running until ``close``."""
        deaths = 0
        while not self._closing:
            self._restart.clear()
            self._served_from = None
            try:
                await self._live_once()
            except (WorkerStartError, OSError) as error:
                self._reason = str(error) if isinstance(error, WorkerStartError) else "could not be started"
                log.error("worker_start_failed", worker=self.name, error=str(error), log_file=self._command.log_file)
            deaths = 0 if self._was_steady or self._restart.is_set() else deaths + 1
            self._on_change()
            if not self._closing:
                seconds = BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS)) - 1] if deaths else 0.0
                await nap(self._clock, self._restart, seconds)

    @property
    def _was_steady(self) -> bool:
        """Starting does not count: one that takes a minute for it and then dies would never be left alone."""
        return self._served_from is not None and self._clock.monotonic() - self._served_from >= STEADY_SECONDS

    async def restart(self) -> None:
        """End the child, and have another started at once; what runs there is lost. Returns when the old one is gone."""
        self._restart.set()
        if (process := self._process) is not None:
            await _end(process)

    async def _live_once(self) -> None:
        token = secrets.token_urlsafe(24)
        process = self._process = await self._spawn(token)
        errors = asyncio.create_task(self._relay_log(process), name=f"log of {self.name}")
        try:
            port = await self._port(process)
            await self._speak(process, self._make_remote(f"http://127.0.0.1:{port}", token))
        finally:
            self._process = None
            await _end(process)
            errors.cancel()
            await asyncio.gather(errors, return_exceptions=True)

    async def _speak(self, process: asyncio.subprocess.Process, remote: Upstream) -> None:
        """Be the child's upstream until it dies, or until nothing speaks with it any more."""
        self._prompts.clear()
        self._remote, self._reason = remote, ""
        self._served_from = self._clock.monotonic()
        log.info("worker_started", worker=self.name, pid=process.pid)
        speaking = asyncio.create_task(remote.run_forever(), name=f"connection to {self.name}")
        dying = asyncio.create_task(process.wait(), name=f"death of {self.name}")
        try:
            await asyncio.wait({speaking, dying}, return_when=asyncio.FIRST_COMPLETED)
            log.warning("worker_ended", worker=self.name, status=process.returncode, log_file=self._command.log_file)
        finally:
            self._remote, self._reason = None, "its process ended; starting another"
            self._ended_at = self._clock.monotonic()
            # None: it is us who end it, or nothing speaks with it any more.
            self._was_stopped = self._restart.is_set() or process.returncode is None or process.returncode in STOPPED
            self._end_waits()
            await remote.close()
            for task in (speaking, dying):
                task.cancel()
            outcomes = await asyncio.gather(speaking, dying, return_exceptions=True)
            if isinstance(outcomes[0], Exception):
                log.error("worker_connection_broke", worker=self.name, exc_info=outcomes[0])

    def _end_waits(self) -> None:
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    async def _spawn(self, token: str) -> asyncio.subprocess.Process:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Custom nodes are other people's programs, and print what they like.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment = {**inherited, **(self._command.environment or {}), "COMFYGATE_WORKER_TOKEN": token}
        # From the event loop's thread, which is the process's main thread: the kernel ends the child with the *thread*
        # that started it.
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
            async with asyncio.timeout(self._command.start_seconds):
                line = await process.stdout.readline()
            return int(orjson.loads(line)["port"])
        except TimeoutError as error:
            raise WorkerStartError(f"it did not start within {self._command.start_seconds:.0f} s") from error
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
            engine=self._command.engine,
            foreign_prompts=0,
            address="http://127.0.0.1",
            unreachable_since=self._ended_at,
        )

    def capabilities(self) -> Capabilities | None:
        """The child's."""
        return self._remote.capabilities() if self._remote else None

    async def relearn(self) -> None:
        """The child's."""
        if self._remote:
            await self._remote.relearn()

    def staged(self) -> AbstractSet[str]:
        """The child's."""
        return self._remote.staged() if self._remote else frozenset()

    def doubt(self) -> None:
        """Forget what was staged."""
        if self._remote:
            self._remote.doubt()

    async def stage(self, blob: Blob, path: Path, suffix: str) -> str:
        """Upload to the child. Raises ConnectionError when there is none."""
        return await self._there().stage(blob, path, suffix)

    def run(
        self,
        prompt_id: str,
        graph: Mapping[str, object],
        *,
        job_id: str,
        attempt: int,
        secrets: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Message]:
        """Submit to the child and follow until an outcome or its death."""
        remote = self._remote
        if remote is None:
            return _gone(prompt_id)
        self._prompts.append(prompt_id)
        messages = remote.run(prompt_id, graph, job_id=job_id, attempt=attempt, secrets=secrets)
        return self._while_it_lives(messages, prompt_id)

    def adopt(self, prompt_id: str) -> AsyncIterator[Message]:
        """Follow what the child was given before; what an earlier child ran is gone with it."""
        remote = self._remote
        if remote is None or prompt_id not in self._prompts:
            return _gone(prompt_id)
        return self._while_it_lives(remote.adopt(prompt_id), prompt_id)

    async def _while_it_lives(self, messages: AsyncIterator[Message], prompt_id: str) -> AsyncIterator[Message]:
        """``messages``, cut short by a ``Lost`` when the process dies first.

        They come by the thousand, so waiting for one costs a timer that is never set, and no task.
        """
        remote = self._remote
        try:
            while self._remote is remote:
                try:
                    async with asyncio.timeout(None) as wait:
                        self._waits.add(wait)
                        try:
                            message = await anext(messages)
                        finally:
                            self._waits.discard(wait)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not wait.expired():
                        raise
                    break
                yield message
                if isinstance(message, Outcome):
                    return
        finally:
            await _close(messages)
        yield Lost(prompt_id, "the worker's process ended", by_our_stop=self._was_stopped)

    async def cancel(self, prompt_id: str) -> None:
        """Cancel on the child; with it gone there is nothing to cancel."""
        if self._remote is not None:
            await self._remote.cancel(prompt_id)

    def fetch(self, file: OutputFile) -> AsyncIterator[bytes]:
        """Bytes of an output file. Raises ConnectionError when there is no child."""
        return self._there().fetch(file)

    async def tidy(self, in_use: AskInUse) -> int:
        """Clean the child's folder; nothing while there is none."""
        return await self._remote.tidy(in_use) if self._remote else 0

    def _there(self) -> Upstream:
        if self._remote is None:
            raise ConnectionError(f"{self.name} is not running")
        return self._remote


async def _gone(prompt_id: str) -> AsyncIterator[Message]:
    yield Lost(prompt_id, "the worker that ran it is gone", by_our_stop=True)


async def _close(messages: AsyncIterator[Message]) -> None:
    close = getattr(messages, "aclose", None)
    if close is not None:
        await close()


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

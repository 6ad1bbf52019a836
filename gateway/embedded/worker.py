"""The worker itself: one execution thread between the queue and the sockets.

Order of an end, which clients rely on: ``execution_success`` (or error, or interrupted), history written, ``status``,
``executing`` with node null.

Source: ComfyUI a125cd84, ``main.py`` (prompt_worker); recorded sequences.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from gateway.embedded.cache import ResultCache
from gateway.embedded.execution import Executor
from gateway.embedded.faults import Faults
from gateway.embedded.files import Folders
from gateway.embedded.node import NodeType
from gateway.embedded.previews import Preview
from gateway.embedded.quirks import Quirks
from gateway.embedded.registry import REGISTRY
from gateway.embedded.sockets import Hub
from gateway.embedded.state import PromptQueue, QueuedPrompt

logger = structlog.get_logger(__name__)

LOG_ENTRIES = 300
SWEEP_INTERVAL_SECONDS = 600
_TERMINAL_SIZE = {"cols": 80, "rows": 24}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the worker takes at most, and whether it shows its work."""

    #: One batch of images; also what may stay cached between two prompts.
    image_bytes: int = 2 * 2**30
    #: A whole request body.
    body_bytes: int = 1100 * 2**20
    #: Files older than this are deleted between prompts.
    file_age_seconds: float = 24 * 3600
    #: Whether clients are shown what nodes make.
    sends_previews: bool = False


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class LogRing:
    """The last lines of the worker's log; clients that subscribed get each one as a ``logs`` frame."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._entries: deque[dict[str, str]] = deque(maxlen=LOG_ENTRIES)
        self._subscribers: set[str] = set()
        self._size_told = False
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Add a line, its newline included."""
        entry = {"t": datetime.now(UTC).replace(tzinfo=None).isoformat(), "m": line}
        with self._lock:
            self._entries.append(entry)
            subscribers = list(self._subscribers)
            if not subscribers:
                return
            size = None if self._size_told else _TERMINAL_SIZE
            self._size_told = True
        for client_id in subscribers:
            self._hub.send("logs", {"entries": [entry], "size": size}, client_id)

    def subscribe(self, client_id: str, *, enabled: bool) -> None:
        """Start or stop sending lines to a client."""
        with self._lock:
            (self._subscribers.add if enabled else self._subscribers.discard)(client_id)

    def entries(self) -> list[dict[str, str]]:
        """What is kept, oldest first."""
        with self._lock:
            return list(self._entries)


class Worker:
    """Everything one worker process holds. Make it on the running loop, then ``start``."""

    def __init__(self, folders: Folders, quirks: Quirks, faults: Faults, limits: Limits) -> None:
        self.folders = folders
        self.quirks = quirks
        self.faults = faults
        self.limits = limits
        self.registry: Mapping[str, NodeType] = REGISTRY
        self.features = {"supports_preview_metadata": True, "max_upload_size": limits.body_bytes}
        self.hub = Hub(quirks, faults, self.features)
        self.log = LogRing(self.hub)
        self.queue = PromptQueue(self._queue_changed, error_on_same_number=quirks.error_on_same_number)
        self.cache = ResultCache(limits.image_bytes)
        self.executor = Executor(
            registry=self.registry,
            folders=folders,
            quirks=quirks,
            faults=faults,
            cache=self.cache,
            image_limit_bytes=limits.image_bytes,
            log=self.log.write,
            clock=time.monotonic,
            now_ms=now_ms,
        )
        self._free = threading.Event()
        self._swept_seconds = float("-inf")
        # A daemon: a node deep in a codec must not keep the process from ending.
        self._thread = threading.Thread(target=self._run_prompts, name="embedded-execution", daemon=True)

    def start(self) -> None:
        """Begin to run what is queued."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what runs and let the thread end; does not wait for it."""
        self.queue.close()

    def free_memory(self) -> None:
        """Empty the cache before the next prompt."""
        self._free.set()

    def _queue_changed(self, remaining: int) -> None:
        self.hub.send("status", {"status": {"exec_info": {"queue_remaining": remaining}}})

    def _run_prompts(self) -> None:
        while (prompt := self.queue.get()) is not None:
            if self._free.is_set():
                self._free.clear()
                self.cache.clear()
            self._run(prompt)
            self._sweep()

    def _sweep(self) -> None:
        """Delete old files, now and then. Only between prompts, so that none loses what it reads."""
        if time.monotonic() - self._swept_seconds < SWEEP_INTERVAL_SECONDS:
            return
        self._swept_seconds = time.monotonic()
        try:
            deleted = self.folders.sweep(time.time() - self.limits.file_age_seconds)
        except OSError as error:
            logger.warning("embedded_sweep_failed", kind=type(error).__name__)
            return
        if deleted:
            # What is cached may name a file that is gone.
            self.cache.clear()

    def _run(self, prompt: QueuedPrompt) -> None:
        prompt.started_ms = now_ms()
        started = time.monotonic()
        client_id = prompt.client_id

        def emit(kind: str, data: dict[str, Any], to_all: bool) -> None:  # noqa: FBT001 - the shape of Emit
            if client_id is not None or (to_all and self.quirks.broadcast_clientless):
                self.hub.send(kind, data, client_id)

        def show(preview: Preview) -> None:
            if client_id is not None or self.quirks.broadcast_clientless:
                self.hub.send_preview(preview, client_id)

        try:
            entry = self.executor.execute(prompt, emit, show if self.limits.sends_previews else None)
        except Exception as error:  # noqa: BLE001 - see below
            # The edge of the execution thread: nodes' errors were handled inside, so this is a fault of ours. The
            # prompt must still leave the queue, and the thread must live.
            logger.error("embedded_execution_broke", prompt_id=prompt.prompt_id, kind=type(error).__name__)
            self.executor.current_node = None
            entry = {"outputs": {}, "status": {"status_str": "error", "completed": False, "messages": []}, "meta": {}}
        self.log.write(f"Prompt executed in {time.monotonic() - started:.2f} seconds\n")
        self.queue.finish(prompt, entry)
        if client_id is not None:
            self.hub.send("executing", {"node": None, "prompt_id": prompt.prompt_id}, client_id)

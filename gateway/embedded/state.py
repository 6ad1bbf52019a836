"""What waits, what runs, what was: the worker's memory. Nothing of it survives the process, as with ComfyUI.

Thread-safe: HTTP handlers and the execution thread meet here, under one lock. In one thing it is better than ComfyUI on
purpose: what runs is chosen and made interruptible in one step, so an interrupt by id hits that prompt or nothing.

Source: ComfyUI a125cd84, ``execution.py`` (PromptQueue).
"""

from __future__ import annotations

import copy
import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.embedded.node import Graph

HISTORY_LIMIT = 10_000
#: Never kept in history. ComfyUI does show them in /queue; this worker does not.
SECRET_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")


class SameNumberError(Exception):
    """A prompt with this id and number waits already; ComfyUI's heap cannot compare the two, but holds both."""


@dataclass(slots=True)
class QueuedPrompt:
    """One submission."""

    number: float
    prompt_id: str
    graph: Graph
    extra_data: dict[str, Any]
    outputs: list[str]
    #: When it was submitted, began and ended, in milliseconds since 1970; for /api/jobs.
    created_ms: int = 0
    started_ms: int | None = None
    interrupted: threading.Event = field(default_factory=threading.Event)

    @property
    def client_id(self) -> Any:
        """Who gets its frames; None for nobody."""
        return self.extra_data.get("client_id")

    def as_item(self) -> list[Any]:
        """The tuple that /queue and /history show."""
        extra = {key: value for key, value in self.extra_data.items() if key not in SECRET_KEYS}
        return [self.number, self.prompt_id, self.graph, extra, self.outputs]


class PromptQueue:
    """The queue, the running prompt and the history.

    Args:
        changed: called, under the lock, after each change with the number of prompts not yet finished.
        error_on_same_number: see ``Quirks``.
    """

    def __init__(self, changed: Callable[[int], None], *, error_on_same_number: bool = False) -> None:
        self._changed = changed
        self._error_on_same_number = error_on_same_number
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._heap: list[tuple[float, str, int, QueuedPrompt]] = []
        self._pushed = 0
        self._counter = 0
        self._running: QueuedPrompt | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._closed = False

    def take_number(self, *, front: bool) -> int:
        """The number of the next submission; a failed validation has used its number too."""
        with self._lock:
            number = self._counter
            self._counter += 1
        return -number if front else number

    def put(self, prompt: QueuedPrompt) -> None:
        """Queue a prompt.

        Raises:
            SameNumberError: only with that quirk; it *is* queued.
        """
        with self._lock:
            same = any(number == prompt.number and id_ == prompt.prompt_id for number, id_, _, _ in self._heap)
            heapq.heappush(self._heap, (prompt.number, prompt.prompt_id, self._pushed, prompt))
            self._pushed += 1
            self._filled.notify()
            if same and self._error_on_same_number:
                # ComfyUI's comparison fails after the push and before it says "status".
                raise SameNumberError(prompt.prompt_id)
            self._changed(self.remaining())

    def get(self) -> QueuedPrompt | None:
        """Wait for a prompt and make it the running one; None once the queue is closed."""
        with self._filled:
            while not self._heap:
                if self._closed:
                    return None
                self._filled.wait()
            if self._closed:
                return None
            self._running = heapq.heappop(self._heap)[3]
            self._changed(self.remaining())
            return self._running

    def close(self) -> None:
        """Let ``get`` return None from now on, and interrupt what runs."""
        with self._lock:
            self._closed = True
            self.interrupt(None)
            self._filled.notify_all()

    def finish(self, prompt: QueuedPrompt, entry: dict[str, Any]) -> None:
        """Write history, then tell of the change: whoever hears of the end finds it there."""
        with self._lock:
            self._running = None
            if len(self._history) > HISTORY_LIMIT:
                del self._history[next(iter(self._history))]
            self._history[prompt.prompt_id] = {"prompt": prompt.as_item(), **entry}
            self._changed(self.remaining())

    def interrupt(self, prompt_id: str | None) -> bool:
        """Interrupt what runs, if it is ``prompt_id`` or that is None. True when something was hit."""
        with self._lock:
            if self._running is None or (prompt_id is not None and self._running.prompt_id != prompt_id):
                return False
            self._running.interrupted.set()
            return True

    def delete(self, prompt_id: Any) -> bool:
        """Take the first pending prompt with this id off the queue."""
        with self._lock:
            for index, (_, id_, _, _) in enumerate(self._heap):
                if id_ == prompt_id:
                    del self._heap[index]
                    heapq.heapify(self._heap)
                    self._changed(self.remaining())
                    return True
        return False

    def clear(self) -> None:
        """Drop everything that waits."""
        with self._lock:
            self._heap.clear()
            self._changed(self.remaining())

    def remaining(self) -> int:
        """How many prompts wait or run."""
        with self._lock:
            return len(self._heap) + (self._running is not None)

    def running(self) -> QueuedPrompt | None:
        """What runs now."""
        with self._lock:
            return self._running

    def pending(self) -> list[QueuedPrompt]:
        """What waits, in heap order: not sorted, as ComfyUI shows it."""
        with self._lock:
            return [prompt for _, _, _, prompt in self._heap]

    def history(self, prompt_id: str | None = None) -> dict[str, dict[str, Any]]:
        """Entries by prompt id, oldest first; one or none when ``prompt_id`` is given."""
        with self._lock:
            if prompt_id is None:
                return dict(self._history)
            return {prompt_id: copy.copy(self._history[prompt_id])} if prompt_id in self._history else {}

    def forget(self, prompt_id: Any) -> None:
        """Drop one history entry, if there is one."""
        with self._lock:
            if isinstance(prompt_id, str):
                self._history.pop(prompt_id, None)

    def forget_all(self) -> None:
        """Drop the history."""
        with self._lock:
            self._history.clear()


def page_of_history(
    entries: dict[str, dict[str, Any]], max_items: int | None, offset: int
) -> dict[str, dict[str, Any]]:
    """What ``/history?max_items=&offset=`` shows: the last n, n from an index on, or all from it on."""
    if offset < 0 and max_items is not None:
        offset = len(entries) - max_items
    items = list(entries.items())[max(offset, 0) :]
    if max_items is not None:
        items = items[: max(max_items, 0)] if max_items > 0 else []
    return dict(items)

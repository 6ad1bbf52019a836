"""Runs one prompt: in order, from the cache where it can, with ComfyUI's frames on the way.

Blocking, in the worker's one execution thread. It knows nothing of sockets: frames go to a function. Time is handed in.

Source: ComfyUI a125cd84, ``execution.py`` (PromptExecutor.execute_async, execute), ``comfy_execution/progress.py``,
``main.py`` (hijack_progress); recorded sequences for images, videos, cached runs, errors and interrupts.
"""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.embedded.cache import ResultCache, signatures
from gateway.embedded.faults import Faults
from gateway.embedded.files import Folders
from gateway.embedded.node import InterruptedRunError, NodeResult, NodeType, OutOfMemoryError, RunContext
from gateway.embedded.ordering import RunOrder
from gateway.embedded.previews import Show, preview_of
from gateway.embedded.quirks import Quirks
from gateway.embedded.state import QueuedPrompt
from gateway.embedded.validation import is_link

#: kind, data, whether it goes to everybody when the prompt has no client.
Emit = Callable[[str, dict[str, Any], bool], None]
#: Throttled servers send no two ticks of a pass closer together than this …
TICK_INTERVAL_SECONDS = 0.1
#: … nor for less progress than this part of the whole.
TICK_FRACTION = 0.005


class NodeProgress:
    """Counters of the nodes started so far, and the two frames that each tick makes."""

    def __init__(self, prompt_id: str, emit: Emit, clock: Callable[[], float], *, throttled: bool) -> None:
        self._prompt_id = prompt_id
        self._emit = emit
        self._clock = clock
        self._throttled = throttled
        self._nodes: dict[str, dict[str, Any]] = {}
        self._last_seconds = 0.0
        self._last_value: int | None = None

    def _set(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        self._emit("progress_state", {"prompt_id": self._prompt_id, "nodes": dict(self._nodes)}, True)

    def start(self, node_id: str) -> None:
        """A node begins."""
        self._last_value = None
        self._set(node_id, 0.0, 1.0, "running")

    def tick(self, node_id: str, value: int, maximum: int) -> None:
        """A node counted on; a lower value than before is a new pass."""
        if self._throttled and not self._due(value, maximum):
            return
        self._set(node_id, value, maximum, "running")
        tick = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": node_id}
        self._emit("progress", tick, True)

    def _due(self, value: int, maximum: int) -> bool:
        if value == 0:
            self._last_value = None
            return False
        now, last = self._clock(), self._last_value
        small = last is not None and 0 <= value - last < maximum * TICK_FRACTION
        early = last is not None and value >= last and now - self._last_seconds < TICK_INTERVAL_SECONDS
        if value < maximum and (small or early):
            return False
        self._last_seconds, self._last_value = now, value
        return True

    def finish(self, node_id: str) -> None:
        """A node is done; one that came from the cache shows 1 of 1."""
        maximum = self._nodes[node_id]["max"] if node_id in self._nodes else 1
        self._set(node_id, maximum, maximum, "finished")


@dataclass(slots=True)
class _Run:
    """What one prompt's run gathers."""

    prompt: QueuedPrompt
    emit: Emit
    progress: NodeProgress
    show: Show | None = None
    executed: list[str] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@dataclass(slots=True)
class Executor:
    """Runs prompts, one at a time.

    Attributes:
        current_node: what runs now; a client that connects again is told.
    """

    registry: Mapping[str, NodeType]
    folders: Folders
    quirks: Quirks
    faults: Faults
    cache: ResultCache
    image_limit_bytes: int
    log: Callable[[str], None]
    #: Monotonic seconds, for throttling.
    clock: Callable[[], float]
    #: Milliseconds since 1970, for frames.
    now_ms: Callable[[], int]
    current_node: str | None = None

    def execute(self, prompt: QueuedPrompt, emit: Emit, show: Show | None = None) -> dict[str, Any]:
        """Run a prompt to its end, whatever that is.

        Args:
            prompt: validated.
            emit: sends a frame.
            show: is given a picture of what each node made.

        Returns:
            The history entry without ``prompt``: outputs, meta, status.
        """
        throttled = self.quirks.throttled_progress
        run = _Run(prompt, emit, NodeProgress(prompt.prompt_id, emit, self.clock, throttled=throttled), show)
        self._tell(run, "execution_start", {})
        self.cache.begin(signatures(prompt.graph, self.registry, self.folders))
        cached = [node_id for node_id in prompt.graph if self.cache.get(node_id) is not None]
        self._tell(run, "execution_cached", {"nodes": cached})
        succeeded = self._run_all(run)
        self.current_node = None
        entry = self._history_entry(run, succeeded=succeeded)
        self.cache.trim()
        return entry

    def _run_all(self, run: _Run) -> bool:
        graph = run.prompt.graph
        order = RunOrder(graph, run.prompt.outputs, lambda id_: self.cache.get(id_) is not None, self._is_output(graph))
        known: dict[str, NodeResult] = {}
        while order:
            node_id = order.next()
            inputs: dict[str, Any] = {}
            try:
                self._run_node(run, node_id, known, inputs)
            except InterruptedRunError:
                self.log("Processing interrupted\n")
                self._tell(run, "execution_interrupted", self._where(run, node_id), to_all=True)
                return False
            except Exception as error:  # noqa: BLE001 - a node may raise anything; the client is told of it
                self.log(f"!!! Exception during processing !!! {error}\n")
                self._tell(run, "execution_error", self._what_went_wrong(run, node_id, error, inputs))
                return False
            order.done(node_id)
        self._tell(run, "execution_success", {})
        return True

    def _is_output(self, graph: Mapping[str, Any]) -> Callable[[str], bool]:
        return lambda node_id: self.registry[graph[node_id]["class_type"]].is_output

    def _run_node(self, run: _Run, node_id: str, known: dict[str, NodeResult], inputs: dict[str, Any]) -> None:
        ids = {"node": node_id, "display_node": node_id}
        if (cached := self.cache.get(node_id)) is not None:
            if self.faults.loses_files(is_fresh=False):
                self._lose_files(cached)
            self._send(run, "executed", {**ids, "output": cached.ui})
            run.progress.finish(node_id)
            return
        run.progress.start(node_id)
        for name, value in run.prompt.graph[node_id]["inputs"].items():
            inputs[name] = self._value(run, value, known)
        self.current_node = node_id
        self._send(run, "executing", ids)
        result = self._call(run, node_id, inputs)
        if self.quirks.asset_ids:
            _add_asset_ids(result)
        if run.show is not None and (preview := preview_of(run.prompt.prompt_id, node_id, result)) is not None:
            run.show(preview)
        known[node_id] = result
        self.cache.set(node_id, result)
        if result.ui is not None:
            if self.faults.loses_files(is_fresh=True):
                self._lose_files(result)
            self._send(run, "executed", {**ids, "output": result.ui})
        run.progress.finish(node_id)
        run.executed.append(node_id)

    def _value(self, run: _Run, value: Any, known: Mapping[str, NodeResult]) -> Any:
        if not is_link(value) or value[0] not in run.prompt.graph:
            return value
        result = known.get(value[0]) or self.cache.get(value[0])
        if result is None:
            raise RuntimeError(f"the result of node {value[0]} is gone")
        return result.outputs[int(value[1])]

    def _call(self, run: _Run, node_id: str, inputs: Mapping[str, Any]) -> NodeResult:
        node_type = self.registry[run.prompt.graph[node_id]["class_type"]]

        def check_interrupted() -> None:
            if run.prompt.interrupted.is_set() and not self.faults.is_deaf():
                raise InterruptedRunError

        def tick(value: int, maximum: int) -> None:
            check_interrupted()
            run.progress.tick(node_id, value, maximum)
            self.faults.crash_if_due(node_type.name, value)

        check_interrupted()
        if self.faults.hangs(node_type.name):
            threading.Event().wait()
        if self.faults.runs_out_of_memory(node_type.name):
            raise OutOfMemoryError("Allocation on device, as --faults demands.")
        context = RunContext(
            folders=self.folders,
            node_id=node_id,
            graph=run.prompt.graph,
            extra_data=run.prompt.extra_data,
            image_limit_bytes=self.image_limit_bytes,
            tick=tick,
            check_interrupted=check_interrupted,
            log=self.log,
        )
        declared = node_type.inputs(self.folders)
        names = {name for part in ("required", "optional") for name in declared.get(part, {})}
        names |= node_type.extra_inputs
        return node_type.run(context, {name: value for name, value in inputs.items() if name in names})

    def _lose_files(self, result: NodeResult) -> None:
        for items in (result.ui or {}).values():
            for item in items:
                if isinstance(item, dict) and "filename" in item:
                    self.folders.view(item["filename"], item["type"], item["subfolder"]).unlink(missing_ok=True)

    def _send(self, run: _Run, kind: str, data: dict[str, Any], *, to_all: bool = False) -> None:
        run.emit(kind, {**data, "prompt_id": run.prompt.prompt_id}, to_all)

    def _tell(self, run: _Run, kind: str, data: dict[str, Any], *, to_all: bool = False) -> None:
        """Send a message that history keeps too."""
        message = {**data, "prompt_id": run.prompt.prompt_id, "timestamp": self.now_ms()}
        run.messages.append((kind, message))
        run.emit(kind, message, to_all)

    def _where(self, run: _Run, node_id: str) -> dict[str, Any]:
        class_type = run.prompt.graph[node_id]["class_type"]
        return {"node_id": node_id, "node_type": class_type, "executed": list(run.executed)}

    def _what_went_wrong(self, run: _Run, node_id: str, error: Exception, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **self._where(run, node_id),
            "exception_message": f"{error}\n{getattr(error, 'tips', '')}",
            "exception_type": _type_name(error),
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_plain(value)] for name, value in inputs.items()},
            "current_outputs": [id_ for id_ in run.prompt.graph if self.cache.get(id_) is not None],
        }

    def _history_entry(self, run: _Run, *, succeeded: bool) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        meta: dict[str, Any] = {}
        for node_id in run.prompt.graph:
            result = self.cache.get(node_id)
            if result is not None and result.ui is not None:
                outputs[node_id] = result.ui
                meta[node_id] = {
                    "node_id": node_id,
                    "display_node": node_id,
                    "parent_node": None,
                    "real_node_id": node_id,
                }
        status = {
            "status_str": "success" if succeeded else "error",
            "completed": succeeded,
            "messages": [list(message) for message in run.messages],
        }
        return {"outputs": outputs, "status": status, "meta": meta}


def _add_asset_ids(result: NodeResult) -> None:
    """Give each file of an output an id, as servers with an asset database do."""
    for items in (result.ui or {}).values():
        for item in items:
            if isinstance(item, dict) and "filename" in item:
                item["id"] = str(uuid.uuid4())


def _type_name(error: Exception) -> str:
    named = getattr(error, "exception_type", None)
    if isinstance(named, str):
        return named
    module = type(error).__module__
    return type(error).__qualname__ if module == "builtins" else f"{module}.{type(error).__qualname__}"


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

"""What the frames about one prompt tell, without telling anything twice.

Each tick comes in two frames, ``progress_state`` repeats everything, a start may be missed, and nodes that a subgraph
expanded into bear ids that our graph does not know. Out come messages with ids of our graph, each fact once.

Source: ComfyUI a125cd84, ``execution.py``, ``comfy_execution/progress.py``, ``main.py`` (``hijack_progress``).
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.comfy import frames
from gateway.comfy.messages import Message, NodeFinished, NodeProgress, NodesCached, NodeStarted, PromptStarted


class Narrator:
    """Tells one prompt's messages."""

    def __init__(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        self.has_started = False
        #: Node id -> display node id, for nodes that were expanded.
        self._display: dict[str, str] = {}
        self._started: set[str] = set()
        self._finished: set[str] = set()
        #: Node id -> last counter told.
        self._counters: dict[str, tuple[float, float]] = {}

    def display(self, node_id: str) -> str:
        """The node of our graph that stands for this one."""
        return self._display.get(node_id, node_id)

    def start(self) -> Iterator[Message]:
        """It runs, whoever said so."""
        if not self.has_started:
            self.has_started = True
            yield PromptStarted(self.prompt_id)

    def tell(self, frame: frames.PromptFrame) -> Iterator[Message]:
        """What a frame about this prompt says that was not said before."""
        match frame:
            case frames.ExecutionStart():
                yield from self.start()
            case frames.ExecutionCached():
                yield from self.start()
                yield NodesCached(self.prompt_id, frame.node_ids)
            case frames.Executing():
                yield from self.start()
                yield from self._node_started(frame)
            case frames.ProgressTick():
                yield from self.start()
                if (counted := self.count(frame)) is not None:
                    yield counted
            case frames.ProgressState():
                yield from self.start()
                yield from self._node_states(frame.nodes)
            case frames.Executed():
                yield from self.start()
                yield frame.output
            case frames.ExecutionEnded():
                pass  # a hint; history tells how

    def _node_started(self, frame: frames.Executing) -> Iterator[Message]:
        if frame.node_id is None:
            return
        display = frame.display_node_id or self.display(frame.node_id)
        if display != frame.node_id:
            self._display[frame.node_id] = display
        if display not in self._started:
            self._started.add(display)
            yield NodeStarted(self.prompt_id, display)

    def count(self, frame: frames.ProgressTick) -> NodeProgress | None:
        """What a step of a counter says once the prompt has started; None when it was said before."""
        node_id = self._display.get(frame.node_id, frame.node_id)
        counter = (frame.value, frame.maximum)
        if self._counters.get(node_id) == counter:
            return None
        self._counters[node_id] = counter
        return NodeProgress(self.prompt_id, node_id, frame.value, frame.maximum)

    def _node_states(self, states: tuple[frames.NodeState, ...]) -> Iterator[Message]:
        # Counters are taken from `progress`, which follows each tick of this one; what only this frame says is that a
        # node ended, and whose part a node is.
        self._display.update(
            {state.node_id: state.display_node_id for state in states if state.node_id != state.display_node_id}
        )
        unfinished = {state.display_node_id for state in states if not state.is_finished}
        for state in states:
            node_id = state.display_node_id
            if state.is_finished and node_id not in unfinished and node_id not in self._finished:
                self._finished.add(node_id)
                yield NodeFinished(self.prompt_id, node_id)

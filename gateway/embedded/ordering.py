"""Which node runs next: everything an output needs, output nodes as soon as they can.

Pure. Independent nodes come in ComfyUI's order, not the numeric one, so that a client sees the sequences it would see there.

Source: ComfyUI a125cd84, ``comfy_execution/graph.py`` (TopologicalSort, ExecutionList), run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.embedded.node import Graph
from gateway.embedded.validation import is_link


class RunOrder:
    """The nodes still to run.

    Args:
        graph: a valid graph.
        outputs: the output nodes to run, in this order.
        is_cached: a cached node needs nothing before it; only outputs are visited though cached.
        is_output: is the node an output node?
    """

    def __init__(
        self, graph: Graph, outputs: Iterable[str], is_cached: Callable[[str], bool], is_output: Callable[[str], bool]
    ) -> None:
        self._is_output = is_output
        #: node → the nodes it waits for; in order of discovery.
        self._waits_for: dict[str, set[str]] = {}
        self._needed_by: dict[str, list[str]] = {}
        for output in outputs:
            self._discover(graph, output, is_cached)

    def _discover(self, graph: Graph, output: str, is_cached: Callable[[str], bool]) -> None:
        stack = [output]
        while stack:
            node_id = stack.pop()
            if node_id in self._waits_for:
                continue
            before = [value[0] for value in graph[node_id]["inputs"].values() if is_link(value) and value[0] in graph]
            needed = [source for source in before if not is_cached(source)]
            self._waits_for[node_id] = set(needed)
            for source in needed:
                self._needed_by.setdefault(source, []).append(node_id)
            stack += needed

    def __bool__(self) -> bool:
        return bool(self._waits_for)

    def next(self) -> str:
        """The node to run now; ``done`` it before asking again."""
        ready = [node_id for node_id, sources in self._waits_for.items() if not sources]
        for distance in range(3):
            for node_id in ready:
                if self._leads_to_output(node_id, distance):
                    return node_id
        return ready[0]

    def _leads_to_output(self, node_id: str, distance: int) -> bool:
        if distance == 0:
            return self._is_output(node_id)
        return any(self._leads_to_output(after, distance - 1) for after in self._needed_by.get(node_id, ()))

    def done(self, node_id: str) -> None:
        """Let go the nodes that waited for this one."""
        del self._waits_for[node_id]
        for after in self._needed_by.pop(node_id, ()):
            self._waits_for[after].discard(node_id)

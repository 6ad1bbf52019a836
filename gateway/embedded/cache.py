"""Which results of the last prompt may be used again.

A result is known by its node's class, inputs, fingerprint and everything before it; the node's id does not count. Only
the last prompt's results are kept, and of those no more than fits the image limit, so that an idle worker holds a bounded
amount of memory.

Source: ComfyUI a125cd84, ``comfy_execution/caching.py`` (classic cache), read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.embedded.files import Folders
from gateway.embedded.node import Graph, NodeResult, NodeType
from gateway.embedded.validation import is_link


def signatures(graph: Graph, registry: Mapping[str, NodeType], folders: Folders) -> dict[str, str]:
    """Node id → what its result depends on, as a hash. Nodes that cannot run get one too; it is never asked for."""
    found: dict[str, str] = {}

    def sign(node_id: str) -> str:
        if node_id in found:
            return found[node_id]
        found[node_id] = f"open:{node_id}"  # stops at a cycle between nodes that no output needs
        node = graph[node_id]
        inputs = node["inputs"] if isinstance(node.get("inputs"), dict) else {}
        node_type = registry[node["class_type"]]
        parts: list[Any] = [node["class_type"], _fingerprint(node_type, folders, inputs)]
        for name in sorted(inputs):
            value = inputs[name]
            linked = is_link(value) and value[0] in graph
            parts.append([name, [sign(value[0]), value[1]] if linked else value])
        if "unique_id" in node_type.inputs(folders).get("hidden", {}):
            parts.append(["unique_id", node_id])
        found[node_id] = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
        return found[node_id]

    for node_id in graph:
        sign(node_id)
    return found


def _fingerprint(node_type: NodeType, folders: Folders, inputs: Mapping[str, Any]) -> str:
    try:
        return node_type.fingerprint(folders, inputs)
    except OSError:
        # The file went away after validation. The node will say so when it runs.
        return "unreadable"


class ResultCache:
    """Results by signature, for the node ids of the current prompt."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._results: dict[str, NodeResult] = {}
        self._signatures: dict[str, str] = {}

    def begin(self, signatures_of_prompt: dict[str, str]) -> None:
        """Start a prompt: results that none of its nodes has use for are dropped."""
        self._signatures = signatures_of_prompt
        wanted = set(signatures_of_prompt.values())
        self._results = {key: result for key, result in self._results.items() if key in wanted}

    def get(self, node_id: str) -> NodeResult | None:
        """The result of a node of this prompt, if it is known."""
        return self._results.get(self._signatures[node_id])

    def set(self, node_id: str, result: NodeResult) -> None:
        """Keep a result."""
        self._results[self._signatures[node_id]] = result

    def trim(self) -> None:
        """After a prompt: drop the largest results until what is left fits the limit."""
        sizes = {key: _size_bytes(result) for key, result in self._results.items()}
        total = sum(sizes.values())
        for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if total <= self._limit_bytes:
                return
            total -= sizes[key]
            del self._results[key]

    def clear(self) -> None:
        """Forget everything (POST /free)."""
        self._results.clear()


def _size_bytes(result: NodeResult) -> int:
    return sum(value.nbytes for value in result.outputs if isinstance(value, np.ndarray))

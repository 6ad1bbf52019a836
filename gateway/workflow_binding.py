"""A client's own graph as one upstream gets it: files and prefixes written in, and nothing sent that need not be.

Only nodes that run are sent, each with its class, its inputs and its title. ``binding.py`` checks the names that are
written; sending is for ``engine/runner.py``. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from gateway.comfy.graph import Link, Node
from gateway.interfaces import Capabilities
from gateway.workflow_classes import Classes
from gateway.workflow_judging import MAX_SENTENCES, Finding, findings_on
from gateway.workflow_reading import is_asset
from gateway.workflow_values import At, Workflow

#: Classes of ComfyUI a125cd84 that write into its temp folder, under names that nobody chooses.
PREVIEWS: Final = frozenset({"PreviewImage", "MaskPreview", "PreviewAudio"})
#: An input that none of them has, and that ComfyUI passes over but for its cache: with the attempt in it, no later prompt is
#: shown a file that was deleted. The node pack deletes those files alone that nodes with this mark have made.
MARK: Final = "gateway_attempt"


def workflow_findings(workflow: Workflow, nodes: Mapping[str, Node], capabilities: Capabilities) -> Iterator[Finding]:
    """What an upstream lacks to run it; nothing when it can.

    A place where this upstream takes a file and no file of the job goes is among it, so that no word of a client's ever
    reaches one, whatever an upstream installs later.
    """
    files = set(workflow.files.values())
    yield from islice(findings_on(nodes, Classes(capabilities), files, _prefix_places(workflow)), MAX_SENTENCES)


def _prefix_places(workflow: Workflow) -> set[At]:
    return {(node_id, name) for node_id, (name, _) in workflow.prefixes.items()}


def fill(
    workflow: Workflow,
    nodes: Mapping[str, Node],
    capabilities: Capabilities,
    inputs: Mapping[str, str],
    output_prefix: str,
) -> dict[str, Any]:
    """The graph of one attempt on one upstream, the caller's own copy.

    Each node that writes files gets a prefix of its own, the number of the node within the graph: two that write to one
    prefix would count their files up together.

    Args:
        workflow: as the job keeps it.
        nodes: of its graph.
        capabilities: of the upstream, which lacks nothing of it.
        inputs: role -> name of the staged file; checked.
        output_prefix: unique to the attempt; checked.
    """
    graph = running_graph(nodes, capabilities)
    for role, (node_id, name) in workflow.files.items():
        if node_id in graph:
            graph[node_id]["inputs"][name] = inputs[role]
    for number, node_id in enumerate(nodes, 1):
        if node_id in graph and node_id in workflow.prefixes:
            graph[node_id]["inputs"][workflow.prefixes[node_id][0]] = f"{output_prefix}/{number}"
    for node in graph.values():
        if node["class_type"] in PREVIEWS:
            node["inputs"][MARK] = output_prefix
    return graph


def running_graph(nodes: Mapping[str, Node], capabilities: Capabilities | None) -> dict[str, Any]:
    """The nodes that run on an upstream, all where it is not known; without files."""
    classes = None if capabilities is None else Classes(capabilities)
    running = frozenset(nodes) if classes is None else classes.reached(nodes)
    return {node.id: _sent(node, classes) for node in nodes.values() if node.id in running}


def _sent(node: Node, classes: Classes | None) -> dict[str, Any]:
    known = None if classes is None else classes.get(node.class_type)
    seen = None if known is None else known.inputs_of(node)
    inputs = {
        name: [value.node_id, value.slot] if isinstance(value, Link) else copy.deepcopy(value)
        for name, value in node.inputs.items()
        if not is_asset(value) and (seen is None or seen.sends(name, value))
    }
    return {"class_type": node.class_type, "inputs": inputs, "_meta": {"title": node.title or node.class_type}}

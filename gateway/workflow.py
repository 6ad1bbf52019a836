"""A client's own graph, from what was sent to what an upstream gets: the whole of it, in the order in which it is used.

``read_workflow`` checks the shape, ``file_references`` says which files it names, ``judge`` whether it can run here,
``resolved`` makes of it what the job keeps, ``template_of`` the template that runs it. The parts are in the modules of
this name; here they are put together. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.audit import MediaKind
from gateway.comfy.graph import Link, Node
from gateway.comfy.specs import COMBO
from gateway.interfaces import Capabilities
from gateway.manifest import InputEntry
from gateway.pricing import Pricing
from gateway.template import WORKFLOW, InputRole, Place, Template
from gateway.workflow_classes import Classes, Inputs
from gateway.workflow_files import file_references, prefixes_of
from gateway.workflow_judging import findings_on, judge
from gateway.workflow_reading import read_workflow
from gateway.workflow_rules import DEFAULT_DENY, NodeRules
from gateway.workflow_values import At, Draft, FileReference, Workflow

__all__ = [
    "DEFAULT_DENY",
    "Draft",
    "FileReference",
    "NodeRules",
    "Workflow",
    "file_references",
    "judge",
    "read_workflow",
    "requirement_of_workflow",
    "resolved",
    "template_of",
]

_DIGITS: Final = 16


def resolved(draft: Draft, roles: Mapping[At, str], known: Iterable[Capabilities]) -> Workflow:
    """What a job keeps of a graph.

    Args:
        draft: the graph.
        roles: place of each of its ``file_references`` -> role of the job's input that goes there.
        known: what the upstreams of the pool can do.
    """
    pool = [Classes(capabilities) for capabilities in known]
    files = {role: at for at, role in roles.items()}
    if len(files) != len(roles):
        raise ValueError("every place of a file has a role of its own")
    prefixes = prefixes_of(draft.nodes, pool)
    return Workflow(draft.graph, files, prefixes, _version(draft.nodes, roles.keys(), prefixes, pool))


def requirement_of_workflow(workflow: Workflow) -> str:
    """One comparable key for what an upstream must have to run it; as ``Template.requirement``.

    The same for graphs that differ only in words, seeds and numbers that every upstream takes.
    """
    return f"{WORKFLOW}@{workflow.version}"


def template_of(workflow: Workflow, pricing: Pricing) -> Template:
    """The template that runs a client's own graph; it has no parameters, and its outputs are whatever comes."""
    nodes = read_workflow(workflow.graph).nodes
    kinds = frozenset(MediaKind)
    inputs = {
        role: InputRole(
            role,
            Place(node_id, node_id, nodes[node_id].class_type, name),
            InputEntry(node_id=node_id, input=name, accepts=kinds),
        )
        for role, (node_id, name) in workflow.files.items()
    }
    return Template(
        name=WORKFLOW,
        version=workflow.version,
        title="Workflow",
        task=WORKFLOW,
        swaps_faces=False,
        pricing=pricing,
        stall_seconds=None,
        inputs=inputs,
        parameters={},
        derived={},
        outputs={},
        repeats={},
        licences=(),
        stand_in=None,
        optional=False,
        deliver_to=None,
        swap_nodes=(),
        nodes=nodes,
        graph=workflow.graph,
        toml_text="",
        graph_text="",
        workflow=workflow,
    )


def _version(
    nodes: Mapping[str, Node], files: Iterable[At], prefixes: Mapping[str, At], pool: Iterable[Classes]
) -> str:
    """16 hex digits over all that decides where a graph can run."""
    every, file_places = list(pool), set(files)
    prefix_places = {(node_id, name) for node_id, (name, _) in prefixes.items()}
    at_fault = {
        (finding.node_id, finding.field)
        for classes in every
        for finding in findings_on(nodes, classes, file_places, prefix_places)
    }
    taken = file_places | prefix_places
    needs: list[object] = [sorted(file_places), sorted(prefix_places)]
    for node in nodes.values():
        known = [each for classes in every if (each := classes.get(node.class_type)) is not None]
        seen = [each.inputs_of(node) for each in known]
        inputs = {
            name: None
            if (node.id, name) in taken
            else _need(name, value, seen, is_at_fault=(node.id, name) in at_fault)
            for name, value in node.inputs.items()
        }
        needs.append([node.id, node.class_type, inputs])
    return hashlib.sha256(json.dumps(needs, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _need(name: str, value: object, seen: Iterable[Inputs], *, is_at_fault: bool) -> object:
    """What an input asks of an upstream: a link and a choice as they stand, of other values that there is one."""
    if isinstance(value, Link):
        return ["link", value.node_id, value.slot]
    is_choice = any(name in each.widgets or (name in each.specs and each.specs[name].type == COMBO) for each in seen)
    return ["value", value] if is_choice or is_at_fault else None

"""Graphs in ComfyUI's API format: what they hold, what they need, whether they can be one at all.

A graph is ``{node_id: {"class_type": str, "inputs": {name: literal | [node_id, slot]}, "_meta": {"title": str}}}``.
Only its own shape is judged here; whether an upstream has its classes and models is for whoever compares
``requirements`` with what /object_info says.

Source: ComfyUI a125cd84, ``execution.py`` (``validate_prompt``), front end *Save (API format)*.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Link:
    """An input that takes another node's output."""

    node_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph."""

    id: str
    class_type: str
    #: Input name -> literal or Link.
    inputs: Mapping[str, object]
    #: What the author called it; None where the export has no title.
    title: str | None

    def links(self) -> Iterator[tuple[str, Link]]:
        """Its linked inputs: (input name, link)."""
        for name, value in self.inputs.items():
            if isinstance(value, Link):
                yield name, value


@dataclass(frozen=True, slots=True)
class Requirements:
    """What an upstream must have to run a graph."""

    classes: frozenset[str]
    #: (class, input name, value): string literals, so every model, format and mode by name. Which of them are choices
    #: at all, and are there, only the upstream's /object_info tells.
    choices: frozenset[tuple[str, str, str]] = field(default=frozenset())


class GraphError(ValueError):
    """This is no graph in API format.

    Attributes:
        node_id: the node at fault, or None.
        reason: what is wrong.
    """

    def __init__(self, reason: str, node_id: str | None = None) -> None:
        self.node_id = node_id
        self.reason = reason
        super().__init__(reason if node_id is None else f"node {node_id!r}: {reason}")


def parse_graph(raw: object) -> dict[str, Node]:
    """Check the shape of a graph and read its nodes, in the order in which they stand.

    Args:
        raw: parsed JSON.

    Raises:
        GraphError: it is a graph in the editor's format, or malformed, or links lead nowhere or in a circle.
    """
    if not isinstance(raw, Mapping):
        raise GraphError(f"a graph is an object, not {type(raw).__name__}")
    if isinstance(raw.get("nodes"), list) and "links" in raw:
        raise GraphError("this is the editor's own format; export it with Save (API format)")
    if not raw:
        raise GraphError("it has no nodes")
    graph = {str(node_id): _parse_node(str(node_id), node) for node_id, node in raw.items()}
    for node in graph.values():
        for name, link in node.links():
            if link.node_id not in graph:
                raise GraphError(f"input {name!r} is linked to node {link.node_id!r}, which does not exist", node.id)
    execution_order(graph)
    return graph


def _parse_node(node_id: str, raw: object) -> Node:
    if not isinstance(raw, Mapping):
        raise GraphError("it is not an object", node_id)
    class_type, inputs, meta = raw.get("class_type"), raw.get("inputs"), raw.get("_meta")
    if not isinstance(class_type, str) or not class_type:
        raise GraphError("it has no class_type", node_id)
    if not isinstance(inputs, Mapping):
        raise GraphError("it has no inputs", node_id)
    title = meta.get("title") if isinstance(meta, Mapping) else None
    values = {str(name): as_link(value) or value for name, value in inputs.items()}
    return Node(node_id, class_type, values, title if isinstance(title, str) else None)


def as_link(value: object) -> Link | None:
    """The link that an input's value is, or None for a literal.

    A list of a string and a whole number is a link; ComfyUI knows no other lists as input values.
    """
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - a link has two parts
        return None
    node_id, slot = value
    if not isinstance(node_id, str) or not isinstance(slot, int) or isinstance(slot, bool) or slot < 0:
        return None
    return Link(node_id, slot)


def execution_order(graph: Mapping[str, Node]) -> tuple[str, ...]:
    """Node ids, every one after all that it takes something from.

    Raises:
        GraphError: the links form a circle.
    """
    sorter = graphlib.TopologicalSorter(
        {node.id: [link.node_id for _, link in node.links()] for node in graph.values()}
    )
    try:
        return tuple(sorter.static_order())
    except graphlib.CycleError as error:
        raise GraphError("its links form a circle", str(error.args[1][0])) from error


def nodes_by_title(graph: Mapping[str, Node], title: str) -> tuple[Node, ...]:
    """The nodes that bear this title; titles need not be unique."""
    return tuple(node for node in graph.values() if node.title == title)


def requirements(graph: Mapping[str, Node]) -> Requirements:
    """What an upstream must have to run the graph."""
    return Requirements(
        frozenset(node.class_type for node in graph.values()),
        frozenset(
            (node.class_type, name, value)
            for node in graph.values()
            for name, value in node.inputs.items()
            if isinstance(value, str)
        ),
    )


def allowed_values(entry: Mapping[str, Any]) -> dict[str, tuple[object, ...] | None]:
    """Input name -> its choices, or None where any value of the type goes.

    Args:
        entry: one class of /object_info. Choices come as ``[[…], {…}]``, in V3 nodes as ``["COMBO", {"options": […]}]``.
    """
    sections = entry.get("input")
    found: dict[str, tuple[object, ...] | None] = {}
    for section in ("required", "optional"):
        inputs = sections.get(section) if isinstance(sections, Mapping) else None
        for name, spec in inputs.items() if isinstance(inputs, Mapping) else ():
            found[str(name)] = _choices(spec)
    return found


def _choices(spec: object) -> tuple[object, ...] | None:
    if not isinstance(spec, list) or not spec:
        return None
    if isinstance(spec[0], list):
        return tuple(spec[0])
    options = spec[1].get("options") if len(spec) > 1 and isinstance(spec[1], Mapping) else None
    return tuple(options) if isinstance(options, list) and spec[0] == "COMBO" else None


def output_nodes(graph: Mapping[str, Node], object_info: Mapping[str, object]) -> tuple[Node, ...]:
    """The nodes for whose sake a graph runs, by what /object_info says of their classes."""
    return tuple(node for node in graph.values() if _is_output(object_info.get(node.class_type)))


def _is_output(entry: object) -> bool:
    return isinstance(entry, Mapping) and entry.get("output_node") is True

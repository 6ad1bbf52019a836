"""The classes of one upstream, as a client's own graph meets them: inputs, outputs, and which inputs name files.

Read from what the upstream said, each class when it is first asked for. Judges nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.comfy.graph import Node
from gateway.comfy.specs import InputSpec, format_widgets, hidden_inputs, input_specs, is_output, output_types
from gateway.interfaces import Capabilities
from gateway.workflow_places import Place, place_of

#: What the server fills in; it overwrites whatever a client writes there.
_RESERVED: Final = frozenset(
    {"PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG"}
)


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One class as an upstream has it."""

    name: str
    specs: Mapping[str, InputSpec]
    #: Hidden inputs that only the server may fill.
    reserved: frozenset[str]
    outputs: tuple[object, ...]
    is_output: bool
    #: Input -> what it names; those alone that name something.
    places: Mapping[str, Place]

    def widgets(self, node: Node) -> Mapping[str, InputSpec]:
        """Inputs that it has only because of what another one says."""
        return format_widgets(node.inputs, self.specs)

    @property
    def prefix_input(self) -> str | None:
        """The input that says what its files are called."""
        return next((name for name, place in self.places.items() if place is Place.PREFIX), None)


class Classes:
    """All classes of one upstream."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._entries = capabilities.object_info
        self._read: dict[str, NodeClass | None] = {}

    def get(self, name: str) -> NodeClass | None:
        """The class of this name, or None where the upstream has none."""
        if name not in self._read:
            entry = self._entries.get(name)
            self._read[name] = _read(name, entry) if isinstance(entry, Mapping) else None
        return self._read[name]

    def reached(self, nodes: Mapping[str, Node]) -> frozenset[str]:
        """Ids of the nodes that run: those that an output node takes something from, and these. Others ComfyUI passes over."""
        left = [node.id for node in nodes.values() if (known := self.get(node.class_type)) and known.is_output]
        found = set(left)
        while left:
            node = nodes[left.pop()]
            ahead = {link.node_id for _, link in node.links()} - found
            found |= ahead
            left += ahead
        return frozenset(found)


def reached_anywhere(nodes: Mapping[str, Node], pool: Iterable[Classes]) -> frozenset[str]:
    """Ids of the nodes that run on one of these upstreams at least."""
    return frozenset[str]().union(*(classes.reached(nodes) for classes in pool))


def _read(name: str, entry: Mapping[str, object]) -> NodeClass:
    specs, writes = input_specs(entry), is_output(entry)
    places = {key: place for key, spec in specs.items() if (place := place_of(name, key, spec, is_output=writes))}
    reserved = frozenset(key for key, word in hidden_inputs(entry).items() if word in _RESERVED)
    return NodeClass(name, specs, reserved, output_types(entry), writes, _with_one_prefix(places))


def _with_one_prefix(places: dict[str, Place]) -> dict[str, Place]:
    """Files of a node get one name of ours; whatever else names them stays as its author set it."""
    prefixes = [name for name, place in places.items() if place is Place.PREFIX]
    kept = "filename_prefix" if "filename_prefix" in prefixes else next(iter(prefixes), None)
    return {name: Place.CLOSED if name in prefixes and name != kept else place for name, place in places.items()}

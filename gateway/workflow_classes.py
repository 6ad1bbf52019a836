"""The classes of one upstream, as a client's own graph meets them: inputs, outputs, and which inputs name files.

Read from what the upstream said, each class when it is first asked for. Judges nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from gateway.comfy.graph import Link, Node
from gateway.comfy.specs import (
    InputSpec,
    format_widgets,
    grown,
    grows,
    hidden_inputs,
    input_specs,
    is_output,
    output_types,
)
from gateway.interfaces import Capabilities
from gateway.workflow_places import Place, may_name, place_of, sounds_like_path

#: What the server fills in; it overwrites whatever a client writes there.
_RESERVED: Final = frozenset(
    {"PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG"}
)

_VHS_LOADERS: Final = frozenset(
    {"VHS_LoadVideo", "VHS_LoadVideoPath", "VHS_LoadVideoFFmpeg", "VHS_LoadVideoFFmpegPath", "VHS_LoadImagePath"}
)
#: VideoHelperSuite 4ee72c0 has types that compare equal to more than they are called (``utils.py``, MultiInput), which
#: /object_info cannot show: (class, input) -> what it takes too.
ALSO_TAKES: Final[Mapping[tuple[str, str], str]] = {
    ("VHS_VideoCombine", "images"): "LATENT",
    ("VHS_VideoCombine", "frame_rate"): "INT",
    **{(loader, "force_rate"): "INT" for loader in _VHS_LOADERS},
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a class as one node has them."""

    specs: Mapping[str, InputSpec]
    #: Input -> what it names; those alone that name something.
    places: Mapping[str, Place]
    #: Inputs that a class of VideoHelperSuite has only because of the format chosen.
    widgets: Mapping[str, InputSpec]
    #: Whether the class takes whatever it is sent, and uses it: what is not listed is then never sent.
    is_closed: bool

    def sends(self, name: str, value: object) -> bool:
        """Whether an input is sent. Most classes pass over one that they do not list; a few take it, and mean it."""
        if name in self.specs or name in self.widgets:
            return True
        return not self.is_closed and not (sounds_like_path(name) if isinstance(value, Link) else may_name(name, value))


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One class as an upstream has it."""

    name: str
    #: Hidden inputs that only the server may fill.
    reserved: frozenset[str]
    outputs: tuple[object, ...]
    is_output: bool
    #: The input that says what its files are called.
    prefix_input: str | None
    #: Its inputs before any of them grows.
    plain: Inputs

    def inputs_of(self, node: Node) -> Inputs:
        """Its inputs, for what this node says."""
        plain = self.plain
        if plain.is_closed:
            return replace(plain, widgets=format_widgets(node.inputs, plain.specs))
        if not grows(plain.specs):
            return plain
        specs = grown(plain.specs, node.inputs)
        return replace(
            plain, specs=specs, places=_places(self.name, specs, self.prefix_input, is_output=self.is_output)
        )


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
    prefixes = [key for key, spec in specs.items() if place_of(name, key, spec, is_output=writes) is Place.PREFIX]
    prefix = "filename_prefix" if "filename_prefix" in prefixes else next(iter(prefixes), None)
    reserved = frozenset(key for key, word in hidden_inputs(entry).items() if word in _RESERVED) - specs.keys()
    is_closed = any("formats" in spec.options for spec in specs.values())
    plain = Inputs(specs, _places(name, specs, prefix, is_output=writes), {}, is_closed)
    outputs = output_types(entry)
    if name in _VHS_LOADERS:
        outputs = tuple("IMAGE,LATENT" if kind == "IMAGE" else kind for kind in outputs)
    return NodeClass(name, reserved, outputs, writes, prefix, plain)


def _places(name: str, specs: Mapping[str, InputSpec], prefix: str | None, *, is_output: bool) -> dict[str, Place]:
    found: dict[str, Place] = {}
    for key, spec in specs.items():
        place = place_of(name, key, spec, is_output=is_output)
        if place is not None:
            # Files of a node get one name of ours; whatever else names them stays as its author set it.
            found[key] = Place.CLOSED if place is Place.PREFIX and key != prefix else place
    return found

"""What a job's lists and switches do to a graph: nodes put in once for each item, inputs left out, files by role.

A repeat turns one node of a template into a chain: each copy takes what the one before it made, has a file of its own,
loaded by a copy of that input's node, and its own values; whatever took from the node takes from the last copy. Written
after all that every copy has in common, since a copy is a copy of what stands there then. Pure.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.audit import Keeps, MediaFacts
from gateway.comfy.graph import as_link
from gateway.errors import InvalidInputError, TemplateError
from gateway.manifest import ParameterEntry, Switch
from gateway.template import InputRole, Place, Repeat, Template
from gateway.values import check_value

#: Item of a list, as stored: what it may hold, by name.
Item = Mapping[str, object]
Graph = dict[str, Any]

#: Nothing is asked of a frame's exact instant: a time is taken for the frame that begins this much later, too.
_EARLY_SECONDS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Copies:
    """A repeat in one graph."""

    repeat: Repeat
    items: tuple[Item, ...]
    #: Ids of the node and its copies, in the order of the chain.
    node_ids: tuple[str, ...]
    #: Ids of the nodes that load a file for each.
    loader_ids: tuple[str, ...]
    #: What the first of them is fed, as the graph says it.
    source: Any

    def roles(self) -> Iterator[tuple[str, str]]:
        """(role, id of the node that loads its file)."""
        for number, loader_id in enumerate(self.loader_ids):
            yield role_name(self.repeat, number), loader_id


def role_name(repeat: Repeat, number: int) -> str:
    """Role of the file that the item of this number brings."""
    return f"{repeat.entry.role}_{number}"


# ------------------------------------------------------------------------------------------------------ what a job sends


def check_items(repeat: Repeat, value: object) -> tuple[dict[str, object], ...]:
    """A job's list, checked and completed with defaults.

    Raises:
        InvalidInputError: it is no such list; ``field`` says which item and which of its values.
    """
    name = repeat.name
    if not isinstance(value, Sequence) or isinstance(value, str) or not 1 <= len(value) <= repeat.entry.max:
        raise InvalidInputError(f"{name} must be a list of 1 to {repeat.entry.max} items.", field=name)
    items = [_check_item(repeat, f"{name}[{number}]", item) for number, item in enumerate(value)]
    for number, item in enumerate(items):
        if any(_aim(item) == _aim(other) for other in items[:number]):
            raise InvalidInputError(f"{name}[{number}] aims at the same as one before it.", field=f"{name}[{number}]")
    return tuple(items)


def _aim(item: Item) -> Item:
    """What an item is about, without what it switches: two of the same would undo each other."""
    return {name: value for name, value in item.items() if not isinstance(value, bool)}


def _check_item(repeat: Repeat, where: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{where} must be an object.", field=where)
    for name in value:
        if name not in repeat.parameters:
            raise InvalidInputError(f"There is no {where}.{str(name)[:64]}.", field=where)
    checked: dict[str, object] = {}
    for name, parameter in repeat.parameters.items():
        given = value.get(name)
        given = parameter.entry.default if given is None else given
        field = f"{where}.{name}"
        if given is not None:
            checked[name] = check_value(parameter.entry, field, given)
        elif parameter.entry.required:
            raise InvalidInputError(f"{field} is missing.", field=field)
    return checked


def used_repeats(template: Template, parameters: Mapping[str, object]) -> Iterator[tuple[Repeat, tuple[Item, ...]]]:
    """Those repeats that a job has a list for; ``parameters`` as ``check_parameters`` gave them."""
    for repeat in template.repeats.values():
        items = parameters.get(repeat.name)
        if isinstance(items, Sequence):
            yield repeat, tuple(items)


def copies_of(template: Template, parameters: Mapping[str, object]) -> int:
    """How often the work of a template is done for a job: once, or once for each item of its list."""
    return sum(len(items) for _, items in used_repeats(template, parameters)) or 1


def wanted_roles(template: Template, parameters: Mapping[str, object]) -> dict[str, InputRole]:
    """The files that a job must bring, and no others; ``parameters`` as ``check_parameters`` gave them."""
    roles = dict(template.inputs)
    for repeat, items in used_repeats(template, parameters):
        role = roles.pop(repeat.entry.role)
        roles |= {role_name(repeat, number): role for number in range(len(items))}
    return roles


# ----------------------------------------------------------------------------------------------------- into the graph


def write_value(
    graph: Graph, place: Place, entry: ParameterEntry, value: object, facts: Mapping[str, MediaFacts]
) -> None:
    """Write one parameter's value as the node takes it: an int as text where the graph has text, a time as a frame."""
    inputs = graph[place.node_id]["inputs"]
    if entry.frame_of is not None:
        value = frame_at(facts.get(entry.frame_of), value)
    elif isinstance(value, int) and not isinstance(value, bool) and isinstance(inputs.get(place.input_name), str):
        value = str(value)
    inputs[place.input_name] = value


def frame_at(facts: MediaFacts | None, seconds: object) -> int:
    """Number of the frame that is shown at a time, by the average rate; the last one for any time after the end."""
    if facts is None or facts.fps is None or not isinstance(seconds, int | float):
        return 0
    return min(math.floor((seconds + _EARLY_SECONDS) * facts.fps), facts.frames - 1)


def switch_off(graph: Graph, node_id: str, switch: Switch) -> None:
    """Do to a node what a switch does."""
    inputs = graph[node_id]["inputs"]
    inputs.update(switch.set)
    for name in switch.drop:
        inputs.pop(name, None)


def released(template: Template, parameters: Mapping[str, object]) -> frozenset[Keeps]:
    """What the results of a job need not keep, for what it switched off."""
    off = [item.entry.off for item in template.parameters.values() if parameters.get(item.name) is False]
    return frozenset(keep for switch in off if switch is not None for keep in switch.releases)


def put_in(template: Template, graph: Graph, repeat: Repeat, items: tuple[Item, ...]) -> Copies:
    """Put a node in once for each item, chained; values and files are for the caller to write."""
    node_id, loader_id = repeat.place.node_id, repeat.role_node_id
    source = copy.deepcopy(graph[node_id]["inputs"][repeat.place.input_name])
    takers = [
        (other["inputs"], name)
        for other_id, other in graph.items()
        if other_id != node_id
        for name, value in other["inputs"].items()
        if (link := as_link(value)) and link.node_id == node_id and link.slot == repeat.entry.slot
    ]
    node_ids, loader_ids = [node_id], [loader_id]
    for number in range(1, len(items)):
        loader_ids.append(_copied(graph, loader_id, number))
        node_ids.append(_copied(graph, node_id, number))
        inputs = graph[node_ids[-1]]["inputs"]
        for name, value in inputs.items():
            if (link := as_link(value)) and link.node_id == loader_id:
                inputs[name] = [loader_ids[-1], link.slot]
        inputs[repeat.place.input_name] = [node_ids[-2], repeat.entry.slot]
    for inputs, name in takers:
        inputs[name] = [node_ids[-1], repeat.entry.slot]
    if len(graph) > _MOST_NODES:
        raise TemplateError(template.name, f"with {len(items)} copies the graph has {len(graph)} nodes")
    return Copies(repeat, items, tuple(node_ids), tuple(loader_ids), source)


#: Nodes of a graph, copies included; a bound on what is sent, far above what any template has.
_MOST_NODES: Final = 5_000


def _copied(graph: Graph, node_id: str, number: int) -> str:
    # ComfyUI takes any string for an id, but gives dots and colons a meaning of their own.
    new_id = f"{node_id}_{number + 1}"
    while new_id in graph:
        new_id += "_"
    node = copy.deepcopy(graph[node_id])
    if title := node.get("_meta", {}).get("title"):
        node["_meta"]["title"] = f"{title} {number + 1}"
    graph[new_id] = node
    return new_id


def drop_unused(graph: Graph, template: Template) -> None:
    """Take out nodes that fed something and now feed nothing: what is not needed would be judged, and perhaps loaded."""
    fed = {link.node_id for node in template.nodes.values() for _, link in node.links()}
    while True:
        linked = (as_link(value) for node in graph.values() for value in node["inputs"].values())
        feeding = {link.node_id for link in linked if link}
        idle = (fed & graph.keys()) - feeding
        if not idle:
            return
        for node_id in idle:
            del graph[node_id]

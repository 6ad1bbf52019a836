"""A workflow template: a ``template.toml`` and a ``graph.json`` made one.

``manifest.py`` reads the TOML, ``comfy/graph.py`` the graph; here every name in the first is found in the second, or
the template is refused with node, input and reason. ``lacks.py`` says what an upstream lacks to run it, ``fitness.py``
looks closer, ``binding.py`` fills it, ``engine/catalog.py`` reads the files. Pure.

Titles and ids are those that ComfyUI's *Save (API format)* writes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.audit import Keeps, MediaKind
from gateway.comfy.graph import GraphError, Link, Node, nodes_by_title, parse_graph
from gateway.errors import InvalidInputError, TemplateError
from gateway.manifest import (
    DerivedEntry,
    InputEntry,
    LicenceEntry,
    Manifest,
    NodeRef,
    OutputEntry,
    ParameterEntry,
    ParameterType,
    RepeatEntry,
    Switch,
    WarningEntry,
)
from gateway.manifest_reading import parse_manifest
from gateway.pricing import Pricing
from gateway.strictjson import loads_object
from gateway.values import check_value
from gateway.workflow_values import Workflow

#: Name and task of the template that each client's own graph is made into; no folder and no task is called so.
WORKFLOW: Final = "workflow"

#: Folder name of a template, which is its name.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

#: Node inputs that name files or folders of the upstream. LoadImage, the VHS loaders and ReActor's SaveFaceModel take
#: absolute and ``..`` paths there, and their lists hold what others uploaded: no job may fill one with words or choices.
FILE_INPUT: Final = re.compile(
    r"image|video|audio|mask|file|url|face_model_name|(.*_)?(path|paths|dir|directory|folder|subfolder|prefix|filename)"
)


@dataclass(frozen=True, slots=True)
class Place:
    """One input of one node."""

    node_id: str
    #: Title of the node, or its id where it has none: for people.
    node: str
    node_class: str
    input_name: str


@dataclass(frozen=True, slots=True)
class InputRole:
    """A file that a job brings, and where its staged name goes."""

    name: str
    place: Place
    entry: InputEntry


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that a job may set, and where it goes."""

    name: str
    #: None where only derived values and promises are made of it.
    place: Place | None
    entry: ParameterEntry
    #: Of its node; None where it has none.
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """A value that is worked out from others, and where it goes."""

    name: str
    place: Place
    entry: DerivedEntry


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """A node whose file is a result, and what that file must be."""

    name: str
    #: The node's id, title and class; the input is the one that takes the output prefix, "" where none does.
    place: Place
    #: What the file is.
    kind: MediaKind
    #: Role of the input that it is a changed copy of; None where it is made out of words.
    of: str | None
    #: What the copy has in common with it.
    keeps: frozenset[Keeps]
    #: Quality setting of the encoder, None where the file is lossless.
    crf: int | None
    #: Whether it must differ from what it is a copy of.
    swaps_faces: bool
    #: What it must measure, as told in ``entry``.
    entry: OutputEntry

    @property
    def node_id(self) -> str:
        """Under which id the upstream reports the file."""
        return self.place.node_id

    @property
    def title(self) -> str:
        """What the node is called."""
        return self.place.node


@dataclass(frozen=True, slots=True)
class Repeat:
    """A node that is put in once for each item of a list."""

    name: str
    #: The input through which the copies are chained.
    place: Place
    #: Id of the node that loads the file which each copy has of its own.
    role_node_id: str
    #: What each item may hold; places are those of the node that is copied.
    parameters: Mapping[str, Parameter]
    entry: RepeatEntry


@dataclass(frozen=True)
class Template:
    """A workflow that jobs can be made of. Made by ``load_template`` only; never changed."""

    name: str
    #: 16 hex digits over both files: another content is another version.
    version: str
    title: str
    #: What it does, for example "face_swap".
    task: str
    swaps_faces: bool
    #: What a job costs.
    pricing: Pricing
    #: Of silence after which a running job of it is given up; None: as the gateway's setting says.
    stall_seconds: float | None
    inputs: Mapping[str, InputRole]
    parameters: Mapping[str, Parameter]
    derived: Mapping[str, Derived]
    outputs: Mapping[str, OutputSpec]
    repeats: Mapping[str, Repeat]
    licences: tuple[LicenceEntry, ...]
    #: Where it stands in for another that no upstream can run: what its jobs are told.
    stand_in: WarningEntry | None
    #: Whether a pool that cannot run it lacks nothing.
    optional: bool
    #: Name of the target that its jobs' outputs are put to; None: they stay with us.
    deliver_to: str | None
    #: Ids of the nodes that do the work.
    swap_nodes: tuple[str, ...]
    #: Node id -> node, read.
    nodes: Mapping[str, Node]
    #: The graph as it stands in the file; ``bind`` copies it.
    graph: Mapping[str, Any] = field(repr=False)
    #: Both files, for the store.
    toml_text: str = field(repr=False)
    graph_text: str = field(repr=False)
    #: The client's own graph that it was made of; None for one that lies on disk.
    workflow: Workflow | None = None

    @property
    def settable(self) -> frozenset[str]:
        """Names that a job may set: parameters, and lists for what repeats."""
        return frozenset(self.parameters) | frozenset(self.repeats)

    @property
    def placed_parameters(self) -> Iterator[tuple[Parameter, Place]]:
        """Those parameters that are written somewhere as they are, and where."""
        for parameter in self.parameters.values():
            if parameter.place is not None:
                yield parameter, parameter.place

    @property
    def titles(self) -> Mapping[str, str]:
        """Node id -> what to call it: its title, else its class."""
        return {node.id: node.title or node.class_type for node in self.nodes.values()}

    @property
    def placeholders(self) -> frozenset[tuple[str, str]]:
        """(node id, input) of files, output prefixes and derived values: what stands there in the file means nothing."""
        places = [
            *(role.place for role in self.inputs.values()),
            *(output.place for output in self.outputs.values() if output.place.input_name),
            *(derived.place for derived in self.derived.values()),
        ]
        return frozenset((place.node_id, place.input_name) for place in places)

    @property
    def model_places(self) -> frozenset[tuple[str, str]]:
        """(node id, input) of what each upstream gets from its own lists: nothing there is the template's."""
        return frozenset(
            (place.node_id, place.input_name)
            for item, place in self.placed_parameters
            if item.entry.choices_from is not None
        )

    @property
    def requirement(self) -> str:
        """One comparable key for what an upstream must have: same key, same answer of ``missing_on``."""
        return f"{self.name}@{self.version}"


def load_template(name: str, toml_text: str, graph_text: str) -> Template:
    """A template from its two files.

    Args:
        name: of its folder.
        toml_text: ``template.toml``.
        graph_text: ``graph.json``, ComfyUI's *Save (API format)*.

    Raises:
        TemplateError: anything that does not fit together; says which node, which input and why.
    """
    if not NAME.fullmatch(name):
        raise TemplateError(name, "a template's folder is named in lower-case letters, digits, - and _")
    manifest = parse_manifest(name, toml_text)
    if WORKFLOW in {name, manifest.task}:
        raise TemplateError(name, f"{WORKFLOW!r} is what clients' own graphs are called; choose another name and task")
    graph, nodes = _read_graph(name, graph_text)
    places = _Places(name, nodes)
    template = Template(
        name=name,
        version=hashlib.sha256(f"{toml_text}\0{graph_text}".encode()).hexdigest()[:16],
        title=manifest.title,
        task=manifest.task,
        swaps_faces=manifest.swaps_faces,
        pricing=Pricing(manifest.price, manifest.price_per, manifest.free_below_bytes),
        stall_seconds=manifest.stall_seconds,
        inputs={
            key: InputRole(key, places.literal(entry, entry.input), entry) for key, entry in manifest.inputs.items()
        },
        parameters={key: places.parameter(key, entry) for key, entry in manifest.parameters.items()},
        derived={
            key: Derived(key, places.literal(entry, entry.input), entry) for key, entry in manifest.derived.items()
        },
        outputs={
            key: places.output(key, entry, swaps_faces=manifest.swaps_faces) for key, entry in manifest.outputs.items()
        },
        repeats={key: places.repeat(key, entry, manifest.inputs) for key, entry in manifest.repeats.items()},
        licences=manifest.licences,
        stand_in=manifest.stand_in,
        optional=manifest.optional,
        deliver_to=manifest.deliver_to,
        swap_nodes=_swap_nodes(manifest, places),
        nodes=nodes,
        graph=graph,
        toml_text=toml_text,
        graph_text=graph_text,
    )
    _refuse_shared_places(template)
    return template


def _read_graph(name: str, text: str) -> tuple[dict[str, Any], dict[str, Node]]:
    try:
        raw = loads_object(text.encode())
        return raw, parse_graph(raw)
    except InvalidInputError as error:
        raise TemplateError(name, f"graph.json: {error.message}") from error
    except GraphError as error:
        raise TemplateError(name, f"graph.json: {error.reason}", node=error.node_id) from error


class _Places:
    """Finds what a manifest names in the graph."""

    def __init__(self, template: str, nodes: Mapping[str, Node]) -> None:
        self._template = template
        self._nodes = nodes

    def node(self, ref: NodeRef) -> Node:
        if (ref.node is None) == (ref.node_id is None):
            raise TemplateError(self._template, "template.toml must name a node by either node (its title) or node_id")
        if ref.node_id is not None:
            if ref.node_id not in self._nodes:
                raise TemplateError(self._template, "the graph has no node of this id", node=ref.node_id)
            return self._nodes[ref.node_id]
        found = nodes_by_title(self._nodes, str(ref.node))
        if len(found) > 1:
            ids = ", ".join(node.id for node in found)
            raise TemplateError(self._template, f"nodes {ids} all have this title; name them apart", node=ref.node)
        if not found:
            raise TemplateError(self._template, "the graph has no node of this title", node=ref.node)
        return found[0]

    def literal(self, ref: NodeRef, input_name: str) -> Place:
        """An input that holds a value of its own, so that it can be given another."""
        place = self._place(ref, input_name)
        if isinstance(self._nodes[place.node_id].inputs[input_name], Link):
            raise self._error(place, "it is linked to another node, so nothing can be written there")
        return place

    def parameter(self, name: str, entry: ParameterEntry) -> Parameter:
        place = self._parameter_place(entry)
        is_open = entry.type is ParameterType.STRING or entry.choices_from is not None
        if place is not None and is_open and FILE_INPUT.fullmatch(place.input_name):
            raise self._error(place, f"this input names a file or folder, so parameters.{name} cannot be bound to it")
        if entry.default is not None:
            try:
                check_value(entry, name, entry.default)
            except InvalidInputError as error:
                reason = f"parameters.{name}.default: {error.message}"
                raise self._error(place, reason) if place else TemplateError(self._template, reason) from error
        for other in entry.fallback.set if entry.fallback else ():
            self.literal(entry, other)
        is_named = entry.node is not None or entry.node_id is not None
        return Parameter(name, place, entry, self.node(entry).id if is_named else None)

    def _parameter_place(self, entry: ParameterEntry) -> Place | None:
        if entry.off is not None:
            self._check_switch(entry, entry.off)
        if entry.input is None:
            return None
        if entry.where_missing is None:
            return self.literal(entry, entry.input)
        node = self.node(entry)
        place = Place(node.id, node.title or node.id, node.class_type, entry.input)
        if entry.input in node.inputs:
            raise self._error(place, "the graph has it, so no upstream may lack it")
        return place

    def _check_switch(self, entry: ParameterEntry, switch: Switch) -> None:
        for name in switch.set:
            self.literal(entry, name)
        for name in switch.drop:
            place = self._place(entry, name)
            if not isinstance(self._nodes[place.node_id].inputs[name], Link):
                raise self._error(place, "it is not linked, so there is nothing to drop")

    def output(self, name: str, entry: OutputEntry, *, swaps_faces: bool) -> OutputSpec:
        if entry.prefix_input is None:
            node = self.node(entry)
            place = Place(node.id, node.title or node.id, node.class_type, "")
        else:
            place = self.literal(entry, entry.prefix_input)
        written = self._nodes[place.node_id].inputs.get("crf", entry.crf)
        if written != entry.crf:
            raise self._error(place, f"outputs.{name}.crf is {entry.crf}, and the graph's is {written}")
        return OutputSpec(name, place, entry.kind, entry.of, entry.keeps, entry.crf, swaps_faces, entry)

    def repeat(self, name: str, entry: RepeatEntry, inputs: Mapping[str, InputEntry]) -> Repeat:
        place = self._place(entry, entry.chain)
        repeated = self._nodes[place.node_id]
        fed_by = repeated.inputs[entry.chain]
        if not isinstance(fed_by, Link):
            raise self._error(place, f"repeats.{name}.chain must be an input that is linked")
        loader = self.node(inputs[entry.role])
        takers = {node.id for node in self._nodes.values() for _, link in node.links() if link.node_id == loader.id}
        if takers != {repeated.id} or loader.id == fed_by.node_id:
            reason = f"repeats.{name}.role: {loader.title or loader.id!r} must feed this node and no other"
            raise self._error(place, reason)
        parameters = {key: self.parameter(key, item) for key, item in entry.items()}
        taken = [parameter.place.input_name for parameter in parameters.values() if parameter.place]
        if doubled := {each for each in taken if taken.count(each) > 1}:
            raise self._error(place, f"repeats.{name}: two parameters are bound to {min(doubled)}")
        return Repeat(name, place, loader.id, parameters, entry)

    def _place(self, ref: NodeRef, input_name: str) -> Place:
        node = self.node(ref)
        place = Place(node.id, node.title or node.id, node.class_type, input_name)
        if input_name not in node.inputs:
            raise self._error(place, f"this {node.class_type} has no such input in the graph")
        return place

    def _error(self, place: Place, reason: str) -> TemplateError:
        return TemplateError(self._template, reason, node=place.node, input_name=place.input_name)


def _swap_nodes(manifest: Manifest, places: _Places) -> tuple[str, ...]:
    return tuple(places.node(NodeRef(node=title)).id for title in manifest.swap_nodes)


def _refuse_shared_places(template: Template) -> None:
    """No input may be written twice: the later would win, and a client's value might be it."""
    taken: dict[tuple[str, str], str] = {}
    for what, place, others in _written(template):
        for input_name in (place.input_name, *others):
            key = (place.node_id, input_name)
            if key in taken:
                raise TemplateError(
                    template.name,
                    f"both {taken[key]} and {what} are bound to it",
                    node=place.node,
                    input_name=input_name,
                )
            taken[key] = what


def _written(template: Template) -> Iterator[tuple[str, Place, tuple[str, ...]]]:
    """Everything that binding writes: (what, where, further inputs of the same node)."""
    for role in template.inputs.values():
        yield f"inputs.{role.name}", role.place, ()
    for parameter, place in template.placed_parameters:
        fallback = parameter.entry.fallback
        yield f"parameters.{parameter.name}", place, tuple(fallback.set) if fallback else ()
    for derived in template.derived.values():
        yield f"derived.{derived.name}", derived.place, ()
    for output in template.outputs.values():
        if output.place.input_name:
            yield f"outputs.{output.name}", output.place, ()

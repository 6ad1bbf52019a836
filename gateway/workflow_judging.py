"""Whether an upstream can run a client's own graph, and whether nothing in it reaches what is not the client's.

Values are held against /object_info as ComfyUI does it, so that what it would take is taken: numbers from strings, 1 for
true, anything where it does not look. It differs where ComfyUI looks less closely than is safe. ``docs/workflows.md`` lists
the differences and the words for what is wrong. Pure.

Source: ComfyUI a125cd84, ``execution.py`` (``validate_inputs``), ``comfy_execution/validation.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from gateway.comfy.graph import Link, Node
from gateway.comfy.specs import COMBO, InputSpec, types_of
from gateway.errors import WorkflowError
from gateway.interfaces import Capabilities
from gateway.workflow_classes import ALSO_TAKES, Classes, NodeClass
from gateway.workflow_files import file_references, means_none, prefixes_of
from gateway.workflow_literals import LINKED_ONLY, fits, literal_fault
from gateway.workflow_places import WORDY, Place
from gateway.workflow_reading import NodeErrors, cut, is_asset
from gateway.workflow_rules import NodeRules
from gateway.workflow_values import At, Draft, Reason

#: Sentences of what an upstream lacks, in an error.
MAX_SENTENCES: Final = 20
#: Of one upstream; a graph that is wrong everywhere has no use for more.
MAX_FINDINGS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that keeps a graph from running on an upstream."""

    node_id: str
    node_class: str
    #: Name of an input, "class_type", or "".
    field: str
    reason: Reason
    sentence: str

    def __str__(self) -> str:
        where = f"input {cut(self.field)!r}: " if self.field and self.field != "class_type" else ""
        who = f"node {cut(self.node_id)} ({cut(self.node_class)}): " if self.node_id else ""
        return f"{who}{where}{self.sentence}"


# ------------------------------------------------------------------------------------------------------------ judging


def judge(draft: Draft, known: Mapping[str, Capabilities], rules: NodeRules) -> None:
    """Refuse a graph that no upstream can run, or that may not run here.

    Args:
        draft: the graph.
        known: name of an upstream -> what it can do; those that have not said it are left out.
        rules: which classes may be used.

    Raises:
        WorkflowError: ``details`` has ``node_errors`` for what is wrong everywhere, and ``upstreams`` for who lacks what.
    """
    errors = NodeErrors()
    denied = {name for name in {node.class_type for node in draft.nodes.values()} if not rules.permits(name)}
    for node in draft.nodes.values():
        if node.class_type in denied:
            errors.add(
                node.id, "class_type", Reason.CLASS_DENIED, "this node class may not be used here", node.class_type
            )
    errors.raise_any()
    files = {reference.at for reference in file_references(draft, known.values())}
    prefixes = set(prefix_places(draft.nodes, known.values()))
    findings = {
        name: list(islice(findings_on(draft.nodes, Classes(capabilities), files, prefixes), MAX_FINDINGS))
        for name, capabilities in known.items()
    }
    if all(findings.values()) and findings:
        raise _nowhere(findings)


def prefix_places(nodes: Mapping[str, Node], known: Iterable[Capabilities]) -> Iterator[At]:
    """Where the prefixes of outputs stand."""
    for node_id, (name, _) in prefixes_of(nodes, [Classes(capabilities) for capabilities in known]).items():
        yield node_id, name


def _nowhere(findings: Mapping[str, list[Finding]]) -> WorkflowError:
    first, *others = findings.values()
    others_have = frozenset[Finding].intersection(*map(frozenset, others)) if others else frozenset(first)
    everywhere = [finding for finding in first if finding in others_have]
    details = {"upstreams": {name: [str(each) for each in found[:MAX_SENTENCES]] for name, found in findings.items()}}
    errors = NodeErrors()
    for finding in everywhere:
        if finding.node_id:
            errors.add(finding.node_id, finding.field, finding.reason, finding.sentence, finding.node_class)
    try:
        errors.raise_any(details)
    except WorkflowError as error:
        return error
    if everywhere:
        return WorkflowError(f"The workflow cannot be run: {everywhere[0]}.", details=details)
    return WorkflowError("No upstream can run this workflow: each lacks something of it.", details=details)


def findings_on(
    nodes: Mapping[str, Node], classes: Classes, files: Collection[At], prefixes: Collection[At]
) -> Iterator[Finding]:
    """Everything that keeps a graph from running on one upstream.

    Args:
        nodes: of the graph.
        classes: of the upstream.
        files: where the names of staged files will be written.
        prefixes: where prefixes of ours will be written.
    """
    for node in nodes.values():
        if classes.get(node.class_type) is None:
            yield Finding(node.id, node.class_type, "class_type", Reason.UNKNOWN_CLASS, "there is no such node class")
    running = classes.reached(nodes)
    if not running:
        yield Finding("", "", "", Reason.NO_OUTPUT, "it has no output node")
    for node in nodes.values():
        known = classes.get(node.class_type)
        if node.id in running and known is not None:
            yield from _Node(node, known, nodes, classes, files, prefixes).findings()


@dataclass(frozen=True, slots=True)
class _Node:
    """One node, held against its class."""

    node: Node
    known: NodeClass
    nodes: Mapping[str, Node]
    classes: Classes
    files: Collection[At]
    prefixes: Collection[At]

    def findings(self) -> Iterator[Finding]:
        inputs = self.known.inputs_of(self.node)
        for name, wanted in inputs.specs.items():
            if wanted.required and name not in self.node.inputs and (self.node.id, name) not in self.prefixes:
                is_linked = wanted.types <= LINKED_ONLY
                yield self._finding(
                    name, Reason.MISSING_INPUT, f"it is required and {'not linked' if is_linked else 'not there'}"
                )
        for name, value in self.node.inputs.items():
            spec = inputs.specs.get(name)
            if name in self.known.reserved:
                yield self._finding(name, Reason.HIDDEN_INPUT, "only the server fills this input")
            elif spec is not None and name in inputs.places:
                yield from self._at_place(name, value, spec, inputs.places[name])
            elif spec is not None:
                yield from self._value(name, value, spec)
            elif name in inputs.widgets:
                yield from self._widget(name, value, inputs.widgets[name])

    def _finding(self, name: str, reason: Reason, sentence: str) -> Finding:
        return Finding(self.node.id, self.node.class_type, name, reason, sentence)

    def _at_place(self, name: str, value: object, spec: InputSpec, place: Place) -> Iterator[Finding]:
        """Where no word of the client's may stand, literal or linked."""
        at = (self.node.id, name)
        if place is Place.PREFIX and at in self.prefixes and not is_asset(value):
            return
        if isinstance(value, Link):
            if self._brings_no_words(value, spec):
                yield from self._value(name, value, spec)
            else:
                yield self._finding(name, Reason.FILE_LINKED, "it names a file, so it cannot be linked")
        elif (place is Place.FILE and at in self.files) or self._is_harmless(value, spec, place):
            return
        elif place is Place.FILE:
            yield self._finding(name, Reason.PATH_NOT_ALLOWED, "it must be an asset, or the name of one")
        else:
            sentence = "it names a path or a URL of the worker, which nobody may choose"
            yield self._finding(name, Reason.PATH_NOT_ALLOWED, sentence)

    def _is_harmless(self, value: object, spec: InputSpec, place: Place) -> bool:
        """What stands for no file, and in a node that writes what its author wrote there."""
        if place is Place.FILE:
            return means_none(value, spec)
        if value is None:
            return not spec.required
        return self.known.is_output and "default" in spec.options and value == spec.options["default"]

    def _brings_no_words(self, link: Link, spec: InputSpec) -> bool:
        """Whether the link brings a picture or the like, where a class takes that in place of a name."""
        given = self._given(link)
        return isinstance(given, str) and bool(types_of(given) & spec.types - WORDY) and not types_of(given) & WORDY

    def _given(self, link: Link) -> object:
        """Type of what a link brings; None where the upstream cannot say."""
        source = self.classes.get(self.nodes[link.node_id].class_type)
        return source.outputs[link.slot] if source is not None and link.slot < len(source.outputs) else None

    def _value(self, name: str, value: object, spec: InputSpec) -> Iterator[Finding]:
        if spec.decides and not isinstance(value, str):
            # Which further inputs there are, and what may stand there, is known only while this is.
            yield self._finding(name, Reason.INVALID_VALUE, "it must be one of the choices, as it stands in the list")
            return
        if isinstance(value, Link):
            yield from self._link(name, value, spec)
            return
        if isinstance(value, list):
            yield self._finding(name, Reason.BAD_LINK, "a list is a link of a node id and a slot, and this is none")
            return
        if (self.node.id, name) in self.files:
            if spec.types & {COMBO, "INT", "FLOAT", "BOOLEAN"} or spec.types <= LINKED_ONLY:
                yield self._finding(name, Reason.ASSET_MISPLACED, f"it takes {cut(spec.type)}, and no file")
            return
        if isinstance(value, Mapping) and "__value__" in value:
            value = value["__value__"]
        fault = literal_fault(value, spec)
        if fault is not None:
            yield self._finding(name, *fault)

    def _link(self, name: str, link: Link, spec: InputSpec) -> Iterator[Finding]:
        source = self.classes.get(self.nodes[link.node_id].class_type)
        if source is None:
            return  # unknown_class says so
        if link.slot >= len(source.outputs):
            yield self._finding(name, Reason.BAD_LINK, f"node {cut(link.node_id)} has no output {link.slot}")
        elif not fits(given := source.outputs[link.slot], spec) and given != ALSO_TAKES.get((self.known.name, name)):
            what = given if isinstance(given, str) else "one of a list"
            yield self._finding(
                name, Reason.TYPE_MISMATCH, f"it takes {cut(spec.type)}, and the link gives {cut(what)}"
            )

    def _widget(self, name: str, value: object, spec: InputSpec) -> Iterator[Finding]:
        """VideoHelperSuite 4ee72c0 puts these into ffmpeg's arguments and filters as they are, unchecked."""
        if isinstance(value, Link):
            given = self._given(value)
            is_number = isinstance(given, str) and types_of(given) <= {"INT", "FLOAT", "BOOLEAN"}
            if spec.type in {COMBO, "STRING"} or not is_number:
                yield self._finding(name, Reason.TYPE_MISMATCH, "this input of a format cannot be linked")
        elif spec.type in {"INT", "FLOAT", "BOOLEAN"}:
            if not isinstance(value, int | float):
                yield self._finding(name, Reason.INVALID_VALUE, "it must be a number, or true or false")
            elif (fault := literal_fault(value, spec)) is not None:
                yield self._finding(name, *fault)
        elif spec.choices is None or not isinstance(value, str) or value not in spec.choices:
            yield self._finding(name, Reason.VALUE_NOT_IN_LIST, f"{cut(str(value))!r} is not among the values it takes")

"""Everything in which a template and an upstream do not fit, for people who write templates and run upstreams.

``lacks.missing_on`` answers the scheduler's question, whether it can run there; this looks further, at all that
/object_info says. It asks no upstream. Pure.

Rules from ComfyUI a125cd84, ``execution.py`` (``validate_inputs``): what it checks when a prompt arrives, and what it
does not. Inputs that a class does not know are ignored in silence; literals are cast, ``"false"`` to true; choices of
V3 nodes are not compared at all; the format widgets of VHS_VideoCombine (VideoHelperSuite 4ee72c0) fail in ffmpeg only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.comfy.graph import Link, Node, allowed_values, output_nodes
from gateway.comfy.specs import InputSpec, format_widgets, input_specs
from gateway.lacks import Problem, ProblemKind, missing_problems, not_offered, problem_of, unknown_input
from gateway.manifest import ParameterEntry, ParameterType
from gateway.template import Derived, Parameter, Template


def check(template: Template, object_info: Mapping[str, Any]) -> list[Problem]:
    """Everything in which a template and an upstream's /object_info do not fit, for people.

    Finds what ``missing_on`` finds, and what would only show when the graph runs: inputs that are missing or unknown,
    literals and links of the wrong type, values out of range, format widgets, an output node that is none.

    Args:
        template: what to check.
        object_info: class -> entry, as GET /object_info gives it.
    """
    entries = {name: entry for name, entry in object_info.items() if isinstance(entry, Mapping)}
    found = list(missing_problems(template, {name: allowed_values(entry) for name, entry in entries.items()}, {}))
    for node in template.nodes.values():
        if node.class_type in entries:
            found += _check_node(node, template, entries)
    found += _check_outputs(template, entries)
    for parameter, place in template.placed_parameters:
        found += _check_parameter(parameter, template.nodes[place.node_id], place.input_name, entries)
    for repeat in template.repeats.values():
        for parameter in repeat.parameters.values():
            if parameter.place is not None:
                node = template.nodes[parameter.place.node_id]
                found += _check_parameter(parameter, node, parameter.place.input_name, entries)
    for derived in template.derived.values():
        found += _check_derived(derived, template.nodes[derived.place.node_id], entries)
    return list(dict.fromkeys(found))


# -------------------------------------------------------------------------------------------------------- what is wrong


def _check_node(node: Node, template: Template, entries: Mapping[str, Any]) -> Iterator[Problem]:
    specs = input_specs(entries[node.class_type])
    for name, spec in specs.items():
        if spec.required and name not in node.inputs:
            yield problem_of(ProblemKind.INPUT_MISSING, node, name, "it is required, and the graph has none")
    specs |= format_widgets(node.inputs, specs)
    bound = template.placeholders | template.model_places
    for name, value in node.inputs.items():
        if name not in specs:
            yield unknown_input(node, name)
        elif isinstance(value, Link):
            yield from _check_link(node, name, specs[name].type, template.nodes[value.node_id], value, entries)
        elif (node.id, name) not in bound:
            yield from _check_literal(node, name, value, specs[name])


_LITERALS: Final[Mapping[str, tuple[type, ...]]] = {
    "INT": (int,),
    "FLOAT": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
}


def _check_literal(node: Node, name: str, value: object, spec: InputSpec) -> Iterator[Problem]:
    if spec.type == "COMBO":
        yield from not_offered(node, name, value, spec.choices)
        return
    types = _LITERALS.get(spec.type, ())
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        yield problem_of(ProblemKind.TYPE_MISMATCH, node, name, f"it takes {spec.type}, and the graph has {value!r}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        least, most = _range(spec)
        if not least <= value <= most:
            yield problem_of(ProblemKind.OUT_OF_RANGE, node, name, f"{value} is not from {least} to {most}")


def _range(spec: InputSpec) -> tuple[float, float]:
    least, most = spec.options.get("min"), spec.options.get("max")
    return (
        least if isinstance(least, int | float) else float("-inf"),
        most if isinstance(most, int | float) else float("inf"),
    )


def _check_link(
    node: Node, name: str, wanted: str, source: Node, link: Link, entries: Mapping[str, Any]
) -> Iterator[Problem]:
    entry = entries.get(source.class_type)
    outputs = entry.get("output") if isinstance(entry, Mapping) else None
    if not isinstance(outputs, list):
        return  # its class is missing, which is said elsewhere
    giver = f"node {source.title or source.id!r}"
    if link.slot >= len(outputs):
        reason = f"it is linked to slot {link.slot} of {giver}, which has {len(outputs)}"
        yield problem_of(ProblemKind.TYPE_MISMATCH, node, name, reason)
    # A type may be a list of types; "*" goes with everything; an output that is a choice is spelled as its values.
    elif (
        isinstance(given := outputs[link.slot], str)
        and not _types(wanted) & _types(given)
        and "*" not in wanted + given
    ):
        reason = f"it takes {wanted}, and slot {link.slot} of {giver} gives {given}"
        yield problem_of(ProblemKind.TYPE_MISMATCH, node, name, reason)


def _types(text: str) -> set[str]:
    return {part.strip() for part in text.split(",")}


def _check_outputs(template: Template, entries: Mapping[str, Any]) -> Iterator[Problem]:
    saving = {node.id for node in output_nodes(template.nodes, entries)}
    for output in template.outputs.values():
        if output.node_id not in saving and output.place.node_class in entries:
            node = template.nodes[output.node_id]
            yield problem_of(ProblemKind.NOT_AN_OUTPUT, node, None, "it is no output node, so it would save nothing")


_INPUT_TYPES: Final[Mapping[ParameterType, frozenset[str]]] = {
    ParameterType.BOOL: frozenset({"BOOLEAN"}),
    ParameterType.INT: frozenset({"INT", "FLOAT"}),
    ParameterType.FLOAT: frozenset({"FLOAT"}),
    ParameterType.STRING: frozenset({"STRING"}),
    ParameterType.CHOICE: frozenset({"COMBO", "STRING"}),
}


def _taking(entry: ParameterEntry, node: Node) -> frozenset[str]:
    """Types of inputs that take a parameter."""
    if entry.frame_of is not None:
        return _INPUT_TYPES[ParameterType.INT]  # a frame's number
    is_text = entry.type is ParameterType.INT and isinstance(node.inputs.get(entry.input or ""), str)
    return _INPUT_TYPES[ParameterType.STRING if is_text else entry.type]


def _spec_of(node: Node, input_name: str, entries: Mapping[str, Any]) -> InputSpec | None:
    specs = input_specs(entries.get(node.class_type, {}))
    return (specs | format_widgets(node.inputs, specs)).get(input_name)


def _check_derived(derived: Derived, node: Node, entries: Mapping[str, Any]) -> Iterator[Problem]:
    name = derived.place.input_name
    spec = _spec_of(node, name, entries)
    if spec is not None and spec.type not in _INPUT_TYPES[ParameterType.INT]:
        reason = f"derived value {derived.name!r} is a whole number, and the input takes {spec.type}"
        yield problem_of(ProblemKind.TYPE_MISMATCH, node, name, reason)


def _check_parameter(
    parameter: Parameter, node: Node, input_name: str, entries: Mapping[str, Any]
) -> Iterator[Problem]:
    """Whether every value that the template lets through would be taken."""
    entry = parameter.entry
    spec = _spec_of(node, input_name, entries)
    if spec is None:
        return  # class or input is missing, which is said elsewhere
    if spec.type not in _taking(entry, node) or (entry.choices_from is not None and spec.choices is None):
        reason = f"parameter {parameter.name!r} is a {entry.type}, and the input takes {spec.type}"
        yield problem_of(ProblemKind.TYPE_MISMATCH, node, input_name, reason)
    elif entry.type in {ParameterType.INT, ParameterType.FLOAT} and entry.frame_of is None:
        least, most = _range(spec)
        low = float("-inf") if entry.min is None else entry.min
        high = float("inf") if entry.max is None else entry.max
        if low < least or high > most:
            reason = f"parameter {parameter.name!r} may be {low} to {high}, the input takes {least} to {most}"
            yield problem_of(ProblemKind.OUT_OF_RANGE, node, input_name, reason)

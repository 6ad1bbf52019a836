"""What an upstream lacks to run a template: classes, inputs, values, models.

The scheduler's question, answered from what the upstream says it can do; ``fitness.py`` looks closer. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.comfy.graph import Link, Node
from gateway.interfaces import Capabilities
from gateway.manifest import ParameterEntry
from gateway.template import Parameter, Template
from gateway.values import preferred
from gateway.workflow_binding import workflow_findings

#: Class -> input -> the values it takes, or None where any of the type will do; as in ``Capabilities``.
Classes = Mapping[str, Mapping[str, tuple[object, ...] | None]]


class ProblemKind(StrEnum):
    """What is wrong between a template and an upstream."""

    CLASS_MISSING = "class_missing"
    #: The graph has an input that the class does not know: renamed, or of another version.
    INPUT_UNKNOWN = "input_unknown"
    #: The class needs an input that the graph does not have.
    INPUT_MISSING = "input_missing"
    VALUE_NOT_OFFERED = "value_not_offered"
    MODEL_MISSING = "model_missing"
    TYPE_MISMATCH = "type_mismatch"
    OUT_OF_RANGE = "out_of_range"
    NOT_AN_OUTPUT = "not_an_output"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a template from running well somewhere."""

    kind: ProblemKind
    #: Title of the node, or its id.
    node: str
    node_class: str
    #: None where the node as a whole is at fault.
    input_name: str | None
    reason: str

    def __str__(self) -> str:
        where = f"node {self.node!r} ({self.node_class})"
        return f"{where}, input {self.input_name!r}: {self.reason}" if self.input_name else f"{where}: {self.reason}"


def is_left_out(template: Template, problem: Problem) -> bool:
    """Whether this only means that an optional template does not run there: nobody did anything wrong."""
    return template.optional and problem.kind in {ProblemKind.CLASS_MISSING, ProblemKind.MODEL_MISSING}


def missing_on(
    template: Template, capabilities: Capabilities, parameters: Mapping[str, object] | None = None
) -> tuple[str, ...]:
    """Why an upstream cannot run a job of this template, in sentences; empty when it can.

    For one version and one upstream's capabilities the answer is always the same, so it can be kept. With ``parameters``,
    the models that a job chose itself count too.

    Args:
        template: pinned version of the job.
        capabilities: of the upstream.
        parameters: of the job, as ``check_parameters`` gave them.
    """
    if template.workflow is not None:
        return tuple(map(str, workflow_findings(template.workflow, template.nodes, capabilities)))
    return tuple(str(problem) for problem in missing_problems(template, capabilities.classes, parameters or {}))


def missing_problems(template: Template, classes: Classes, parameters: Mapping[str, object]) -> Iterator[Problem]:
    """What ``missing_on`` says of a template on disk, before it is put in words."""
    by_place = {(place.node_id, place.input_name): item for item, place in template.placed_parameters}
    placeholders = template.placeholders
    for node in template.nodes.values():
        known = classes.get(node.class_type)
        if known is None:
            yield problem_of(ProblemKind.CLASS_MISSING, node, None, "the upstream does not have this node class")
            continue
        for name, value in node.inputs.items():
            parameter = by_place.get((node.id, name))
            is_ours = (node.id, name) in placeholders
            if name not in known:
                # What is written or linked here must arrive. Other literals that it does not know, a class ignores.
                if parameter is not None or is_ours or isinstance(value, Link):
                    yield unknown_input(node, name)
            elif parameter is not None:
                yield from _parameter_missing(parameter, node, known[name], parameters)
            elif not is_ours and not isinstance(value, Link):
                yield from not_offered(node, name, value, known[name])
    yield from _switched_missing(template, classes)


def _switched_missing(template: Template, classes: Classes) -> Iterator[Problem]:
    """What switches would set, and the upstream does not take."""
    repeated = (parameter for repeat in template.repeats.values() for parameter in repeat.parameters.values())
    for parameter in (*template.parameters.values(), *repeated):
        if parameter.entry.off is None or parameter.node_id is None:
            continue
        node = template.nodes[parameter.node_id]
        known = classes.get(node.class_type, {})
        for name, value in parameter.entry.off.set.items():
            if name in known:
                yield from not_offered(node, name, value, known[name])


def _parameter_missing(
    parameter: Parameter, node: Node, offered: tuple[object, ...] | None, parameters: Mapping[str, object]
) -> Iterator[Problem]:
    entry, input_name = parameter.entry, parameter.entry.input or ""
    if entry.choices_from is None:
        for value in entry.choices:
            yield from not_offered(node, input_name, value, offered)
        return
    given = parameters.get(parameter.name)
    if given is not None and given not in (offered or ()):
        yield problem_of(ProblemKind.MODEL_MISSING, node, input_name, f"{given!r} is not there")
    elif given is None and preferred(entry, offered) is None:
        yield problem_of(ProblemKind.MODEL_MISSING, node, input_name, _no_model(entry))


def _no_model(entry: ParameterEntry) -> str:
    avoided = f" that is none of {', '.join(entry.avoid)}" if entry.avoid else ""
    return f"none of {', '.join(entry.prefer)}{avoided} is there"


def not_offered(node: Node, name: str, value: object, offered: tuple[object, ...] | None) -> Iterator[Problem]:
    """A problem, if ``value`` is not among ``offered``; None offers everything."""
    # ComfyUI compares choices as Python does, where 1 == True == 1.0: harmless there, but never what was meant.
    if offered is not None and not any(type(item) is type(value) and item == value for item in offered):
        yield problem_of(ProblemKind.VALUE_NOT_OFFERED, node, name, f"{value!r} is not among the values it takes")


def unknown_input(node: Node, name: str) -> Problem:
    """The problem of an input that the node's class does not have."""
    return problem_of(ProblemKind.INPUT_UNKNOWN, node, name, f"{node.class_type} has no such input; was it renamed?")


def problem_of(kind: ProblemKind, node: Node, input_name: str | None, reason: str) -> Problem:
    """A problem of this node, or of one input of it."""
    return Problem(kind, node.title or node.id, node.class_type, input_name, reason)

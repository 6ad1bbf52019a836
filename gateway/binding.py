"""From a template to the graph that an upstream gets: parameters checked, files, prefix and models written in.

``check_parameters`` judges what a client sent, once, when the job is made; ``bind`` fills the graph for one attempt on one
upstream. Of a client's words only checked parameters reach a graph: file names are those the upstream gave our uploads,
the prefix is ours, and a model is written only when the upstream lists exactly that name. Every miss is an error.

Pure; the template is never changed. Sending the graph is for ``engine/runner.py``.
"""

from __future__ import annotations

import copy
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.audit import MediaFacts
from gateway.errors import InvalidInputError, TemplateError
from gateway.interfaces import Capabilities
from gateway.lacks import missing_on
from gateway.manifest import ParameterEntry, check_value, preferred
from gateway.quantities import derived_value
from gateway.template import OutputSpec, Parameter, Place, Template

#: Draws a whole number from the first to the second, both included.
Draw = Callable[[int, int], int]

#: What an output prefix may be: folders and a name, no dots in front, no ``%`` (ComfyUI's nodes expand those).
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class Bound:
    """A graph ready to be submitted."""

    #: What it was made of.
    template: Template = field(repr=False)
    #: API format; the caller's own copy.
    graph: dict[str, Any] = field(repr=False)
    #: Node id under which the upstream will report a file -> what that file is.
    outputs: Mapping[str, OutputSpec]
    #: Ids of the nodes that do the work.
    swap_nodes: tuple[str, ...]
    #: Node id -> title, for people.
    titles: Mapping[str, str]
    #: Parameter -> the value taken from what this upstream offers: which models did it.
    models: Mapping[str, str]
    #: Where the first preference was not there: one sentence each, for the client.
    substitutions: tuple[str, ...]


def check_parameters(
    template: Template,
    parameters: Mapping[str, object],
    *,
    offered: Iterable[Capabilities] = (),
    draw: Draw | None = None,
) -> dict[str, object]:
    """A job's parameters, checked and completed with defaults; as stored with the job.

    Choices from object_info that the client leaves open stay out: each upstream takes its own first preference.

    Args:
        template: of the job.
        parameters: name -> value, as the client sent them; None means not sent.
        offered: capabilities of the pool. When there are any, a model must be listed by one of them, lest the job wait
            for what nobody has.
        draw: gives what is random and was left open; without it that is missing.

    Raises:
        InvalidInputError: unknown name, a required one is missing, or a value that is not allowed; ``field`` is the
            parameter.
    """
    for name in parameters:
        if name not in template.parameters:
            raise InvalidInputError(f"There is no parameter {name[:64]!r}.", field=name[:64])
    pool = tuple(offered)
    checked: dict[str, object] = {}
    for name, parameter in template.parameters.items():
        value = parameters.get(name)
        if value is None:
            value = parameter.entry.default
        if value is None and parameter.entry.random and draw is not None:
            value = _drawn(parameter.entry, draw)
        if value is None:
            if parameter.entry.required or parameter.entry.random:
                raise InvalidInputError(f"{name} is missing.", field=name)
            continue
        checked[name] = check_value(parameter.entry, name, value)
        if parameter.entry.choices_from is not None and parameter.place is not None and pool:
            _refuse_unknown_model(parameter, parameter.place, value, pool)
    return checked


def _drawn(entry: ParameterEntry, draw: Draw) -> int:
    return draw(int(entry.min or 0), int(entry.max or 0))


def _refuse_unknown_model(parameter: Parameter, place: Place, value: object, pool: tuple[Capabilities, ...]) -> None:
    known = {item for capabilities in pool for item in _offered(place, capabilities)}
    if value not in known:
        listed = ", ".join(sorted(str(item) for item in known)[:50]) or "nothing"
        raise InvalidInputError(f"{parameter.name} must be one of: {listed}.", field=parameter.name)


def _offered(place: Place, capabilities: Capabilities) -> tuple[object, ...]:
    return capabilities.classes.get(place.node_class, {}).get(place.input_name) or ()


def bind(
    template: Template,
    *,
    inputs: Mapping[str, str],
    parameters: Mapping[str, object],
    output_prefix: str,
    capabilities: Capabilities,
    facts: Mapping[str, MediaFacts] | None = None,
) -> Bound:
    """The graph of one attempt on one upstream.

    Args:
        template: pinned version of the job.
        inputs: role -> what ``Upstream.stage`` returned for its file; every role, and no other.
        parameters: of the job, as ``check_parameters`` gave them.
        output_prefix: where the upstream puts results, unique to the attempt; ComfyUI counts names up within a prefix
            and uses them again once files were deleted.
        capabilities: of the upstream, as they are now.
        facts: role -> what its file is; wanted where the template works numbers out of sizes.

    Raises:
        TemplateError: the upstream lacks something, or an input or the prefix is none; names node and input.
        InvalidInputError: a parameter is not allowed.
    """
    if missing := missing_on(template, capabilities, parameters):
        raise TemplateError(template.name, f"the upstream cannot run it: {'; '.join(missing)}")
    graph: dict[str, Any] = copy.deepcopy(dict(template.graph))
    _write_inputs(template, graph, inputs)
    checked = check_parameters(template, parameters)
    models = _write_parameters(template, graph, checked, capabilities)
    for derived in template.derived.values():
        _write(graph, derived.place, derived_value(template, derived.entry, checked, facts or {}))
    _write_prefixes(template, graph, output_prefix)
    return Bound(
        template=template,
        graph=graph,
        outputs={output.node_id: output for output in template.outputs.values()},
        swap_nodes=template.swap_nodes,
        titles=template.titles,
        models=models,
        substitutions=tuple(_substitutions(template, parameters, models)),
    )


def as_dispatched(template: Template) -> Bound:
    """What is needed to follow an attempt that an earlier process submitted: the graph as it stands on disk, unwritten.

    Its links, classes, titles and outputs are those of the graph that runs; it is not one to submit.
    """
    return Bound(
        template=template,
        graph=dict(template.graph),
        outputs={output.node_id: output for output in template.outputs.values()},
        swap_nodes=template.swap_nodes,
        titles=template.titles,
        models={},
        substitutions=(),
    )


def _write(graph: dict[str, Any], place: Place, value: object) -> None:
    graph[place.node_id]["inputs"][place.input_name] = value


def _write_inputs(template: Template, graph: dict[str, Any], inputs: Mapping[str, str]) -> None:
    if strangers := inputs.keys() - template.inputs.keys():
        raise TemplateError(template.name, f"it has no input {', '.join(sorted(strangers))}")
    for role in template.inputs.values():
        staged = inputs.get(role.name)
        place = role.place
        if staged is None or not _is_staged_name(staged):
            reason = "no file was staged for it" if staged is None else "this is no name of a staged file"
            raise TemplateError(template.name, reason, node=place.node, input_name=place.input_name)
        _write(graph, place, staged)


def _is_staged_name(value: str) -> bool:
    """A name below the upstream's input folder. Loaders there take absolute and climbing paths just as well."""
    parts = re.split(r"[/\\]", value)
    return value.isprintable() and all(part not in {"", ".", ".."} for part in parts) and ":" not in parts[0]


def _write_parameters(
    template: Template, graph: dict[str, Any], parameters: Mapping[str, object], capabilities: Capabilities
) -> dict[str, str]:
    models: dict[str, str] = {}
    for parameter, place in template.placed_parameters:
        value = parameters.get(parameter.name)
        if parameter.entry.choices_from is not None:
            # That there is one, missing_on has already said.
            value = str(value if value is not None else preferred(parameter.entry, _offered(place, capabilities)))
            models[parameter.name] = value
        _write(graph, place, value)
        fallback = parameter.entry.fallback
        if fallback is not None and value == fallback.value:
            graph[place.node_id]["inputs"].update(fallback.set)
    return models


def _substitutions(template: Template, parameters: Mapping[str, object], models: Mapping[str, str]) -> Iterator[str]:
    for name, value in models.items():
        first = template.parameters[name].entry.prefer[0]
        if parameters.get(name) is None and not fnmatch.fnmatchcase(value, first):
            yield f"{name}: {value} was used, because {first} was not there."


def _write_prefixes(template: Template, graph: dict[str, Any], output_prefix: str) -> None:
    if not _PREFIX.fullmatch(output_prefix):
        raise TemplateError(template.name, "the output prefix must be plain names separated by slashes")
    for output in template.outputs.values():
        own = output_prefix if len(template.outputs) == 1 else f"{output_prefix}-{output.name}"
        _write(graph, output.place, own)

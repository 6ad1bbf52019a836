"""From a template to the graph that an upstream gets: parameters checked, files, prefix and models written in.

``check_parameters`` judges what a client sent, once, when the job is made; ``bind`` fills the graph for one attempt on one
upstream. Of a client's words only checked parameters reach a graph: file names are those the upstream gave our uploads,
the prefix is ours, and a model is written only when the upstream lists exactly that name. Every miss is an error.

Pure; the template is never changed. Sending the graph is for ``engine/runner.py``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gateway.audit import MediaFacts, MediaKind
from gateway.errors import InvalidInputError, TemplateError
from gateway.interfaces import Capabilities
from gateway.lacks import missing_on
from gateway.manifest import ParameterEntry
from gateway.quantities import derived_value
from gateway.repeating import check_items, drop_unused, put_in, released, switch_off, used_repeats, write_value
from gateway.template import OutputSpec, Parameter, Place, Repeat, Template
from gateway.values import check_value, preferred
from gateway.workflow_binding import fill, running_graph

#: Draws a whole number from the first to the second, both included.
Draw = Callable[[int, int], int]

#: What an output prefix may be: folders and a name, no dots in front, no ``%`` (ComfyUI's nodes expand those).
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_BAD_PREFIX: Final = "the output prefix must be plain names separated by slashes"


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
    #: What the job asked for and this upstream cannot do: (code, sentence).
    warnings: tuple[tuple[str, str], ...] = ()
    #: Which detector the swap numbers faces by; None where the template does not say.
    detector: str | None = None


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
    _refuse_strangers(template, parameters)
    pool = tuple(offered)
    checked: dict[str, object] = {
        repeat.name: check_items(repeat, parameters[repeat.name])
        for repeat in template.repeats.values()
        if parameters.get(repeat.name) is not None
    }
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


def _refuse_strangers(template: Template, parameters: Mapping[str, object]) -> None:
    for name in parameters:
        if name not in template.parameters and name not in template.repeats:
            raise InvalidInputError(f"There is no parameter {name[:64]!r}.", field=name[:64])
    for repeat in template.repeats.values():
        if parameters.get(repeat.name) is None:
            continue
        for other in repeat.entry.instead_of:
            given = parameters.get(other)
            if given is not None and given != template.parameters[other].entry.default:
                raise InvalidInputError(f"{other} and {repeat.name} exclude each other.", field=other)


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
    is_known_to_fit: bool = False,
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
        is_known_to_fit: ``missing_on`` was asked of just these, and said nothing.

    Raises:
        TemplateError: the upstream lacks something, or an input or the prefix is none; names node and input.
        InvalidInputError: a parameter is not allowed.
    """
    if not is_known_to_fit and (missing := missing_on(template, capabilities, parameters)):
        raise TemplateError(template.name, f"the upstream cannot run it: {'; '.join(missing)}")
    if template.workflow is not None:
        _refuse_unusable(template, inputs, output_prefix)
        return _bound_workflow(template, fill(template.workflow, template.nodes, capabilities, inputs, output_prefix))
    graph: dict[str, Any] = _copied(dict(template.graph))
    checked = check_parameters(template, parameters)
    sizes = facts or {}
    models = _write_parameters(template, graph, checked, capabilities, sizes)
    for derived in template.derived.values():
        _write(graph, derived.place, derived_value(template, derived.entry, checked, sizes))
    _write_prefixes(template, graph, output_prefix)
    known = _Known(capabilities.classes)
    shape = _shaped(template, graph, checked, known, sizes)
    _write_inputs(template, graph, inputs, shape.loaders)
    return _bound(template, graph, checked, known, shape, models)


def as_dispatched(
    template: Template, parameters: Mapping[str, object] | None = None, capabilities: Capabilities | None = None
) -> Bound:
    """What is needed to follow an attempt that an earlier process submitted: its graph, without files and prefix.

    Its links, classes, titles and outputs are those of the graph that runs; it is not one to submit.

    Args:
        template: pinned version of the job.
        parameters: of the job, as ``check_parameters`` gave them.
        capabilities: of the upstream, where they are known yet: what to warn of is judged by them.
    """
    if template.workflow is not None:
        return _bound_workflow(template, running_graph(template.nodes, capabilities))
    graph: dict[str, Any] = _copied(dict(template.graph))
    checked = parameters or {}
    known = _Known({} if capabilities is None else capabilities.classes)
    shape = _shaped(template, graph, checked, known, {})
    models = {} if capabilities is None else _models(template, checked, capabilities)
    return _bound(template, graph, checked, known, shape, models)


def _bound_workflow(template: Template, graph: dict[str, Any]) -> Bound:
    """Of a client's own graph: it promises nothing, so whatever it puts out is a result."""
    titles = {node_id: _title(node) for node_id, node in graph.items()}
    return Bound(template, graph, outputs={}, swap_nodes=(), titles=titles, models={}, substitutions=())


def _refuse_unusable(template: Template, inputs: Mapping[str, str], output_prefix: str) -> None:
    """What is written into a client's own graph is looked at as closely as what goes into a template."""
    loaders = {role.name: role.place for role in template.inputs.values()}
    _refuse_bad_names(template, inputs, loaders)
    if not _PREFIX.fullmatch(output_prefix):
        raise TemplateError(template.name, _BAD_PREFIX)


def _bound(
    template: Template,
    graph: dict[str, Any],
    parameters: Mapping[str, object],
    known: _Known,
    shape: _Shape,
    models: Mapping[str, str],
) -> Bound:
    free = released(template, parameters)
    copied = [node_id for chain in shape.chains for node_id in chain[1:] if chain[0] in template.swap_nodes]
    return Bound(
        template=template,
        graph=graph,
        outputs={output.node_id: replace(output, keeps=output.keeps - free) for output in template.outputs.values()},
        swap_nodes=(*template.swap_nodes, *copied),
        titles={node_id: _title(node) for node_id, node in graph.items()},
        models=models,
        substitutions=tuple(_substitutions(template, graph, parameters, models)),
        warnings=tuple(_warnings(template, parameters, known)),
        detector=_detector(template, models),
    )


def _copied(value: Any) -> Any:
    """JSON, down to its last list: ``copy.deepcopy`` takes five times as long."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _write(graph: dict[str, Any], place: Place, value: object) -> None:
    graph[place.node_id]["inputs"][place.input_name] = value


def _write_inputs(
    template: Template, graph: dict[str, Any], inputs: Mapping[str, str], loaders: Mapping[str, Place]
) -> None:
    _refuse_bad_names(template, inputs, loaders)
    for role, place in loaders.items():
        _write(graph, place, inputs[role])


def _refuse_bad_names(template: Template, inputs: Mapping[str, str], loaders: Mapping[str, Place]) -> None:
    if strangers := inputs.keys() - loaders.keys():
        raise TemplateError(template.name, f"it has no input {', '.join(sorted(strangers))}")
    for role, place in loaders.items():
        staged = inputs.get(role)
        if staged is None or not _is_staged_name(staged):
            reason = "no file was staged for it" if staged is None else "this is no name of a staged file"
            raise TemplateError(template.name, reason, node=place.node, input_name=place.input_name)


def _is_staged_name(value: str) -> bool:
    """A name below the upstream's input folder. Loaders there take absolute and climbing paths just as well."""
    parts = re.split(r"[/\\]", value)
    return value.isprintable() and all(part not in {"", ".", ".."} for part in parts) and ":" not in parts[0]


def _write_parameters(
    template: Template,
    graph: dict[str, Any],
    parameters: Mapping[str, object],
    capabilities: Capabilities,
    facts: Mapping[str, MediaFacts],
) -> dict[str, str]:
    models = _models(template, parameters, capabilities)
    known = _Known(capabilities.classes)
    for parameter, place in template.placed_parameters:
        entry = parameter.entry
        value = models.get(parameter.name, parameters.get(parameter.name))
        if entry.where_missing is None or (value is not None and known.has(place)):
            write_value(graph, place, entry, value, facts)
        if entry.fallback is not None and value == entry.fallback.value:
            graph[place.node_id]["inputs"].update(entry.fallback.set)
    return models


def _models(template: Template, parameters: Mapping[str, object], capabilities: Capabilities) -> dict[str, str]:
    """What is taken of the upstream's own lists; that there is something, missing_on has said."""
    models: dict[str, str] = {}
    for parameter, place in template.placed_parameters:
        if parameter.entry.choices_from is not None:
            given = parameters.get(parameter.name)
            models[parameter.name] = str(
                given if given is not None else preferred(parameter.entry, _offered(place, capabilities))
            )
    return models


def _substitutions(
    template: Template, graph: Mapping[str, Any], parameters: Mapping[str, object], models: Mapping[str, str]
) -> Iterator[str]:
    if all(output.kind is MediaKind.FACES for output in template.outputs.values()):
        return  # a report names what made it
    for parameter, place in template.placed_parameters:
        name, value = parameter.name, models.get(parameter.name)
        if value is None or parameters.get(name) is not None or place.node_id not in graph:
            continue  # not of this kind, as the job wished, or switched off
        first = parameter.entry.prefer[0]
        if not fnmatch.fnmatchcase(value, first) and not _is_switched_off(template, place, parameters):
            yield f"{name}: {value} was used, because {first} was not there."


def _is_switched_off(template: Template, place: Place, parameters: Mapping[str, object]) -> bool:
    return any(
        item.entry.off is not None and item.node_id == place.node_id and place.input_name in item.entry.off.set
        for item in template.parameters.values()
        if parameters.get(item.name) is False
    )


def _detector(template: Template, models: Mapping[str, str]) -> str | None:
    for name, value in models.items():
        for pattern, detector in template.parameters[name].entry.detectors.items():
            if fnmatch.fnmatchcase(value, pattern):
                return detector
    return None


# ---------------------------------------------------------------------------------------------- lists and switches


@dataclass(frozen=True, slots=True)
class _Known:
    """Which inputs an upstream's classes have."""

    classes: Mapping[str, Mapping[str, object]]

    def has(self, place: Place) -> bool:
        return place.input_name in self.classes.get(place.node_class, {})


@dataclass(frozen=True, slots=True)
class _Shape:
    """What switches and lists made of a graph."""

    #: Role -> where the name of its file goes.
    loaders: Mapping[str, Place]
    #: Ids of each node that was put in several times, in the order of the chain.
    chains: tuple[tuple[str, ...], ...]


def _shaped(
    template: Template,
    graph: dict[str, Any],
    parameters: Mapping[str, object],
    known: _Known,
    facts: Mapping[str, MediaFacts],
) -> _Shape:
    """Do what switches and lists do to a graph."""
    for parameter in template.parameters.values():
        switch = parameter.entry.off
        if switch is not None and parameter.node_id is not None and parameters.get(parameter.name) is False:
            switch_off(graph, parameter.node_id, switch)
    loaders = {role.name: role.place for role in template.inputs.values()}
    chains = []
    for repeat, items in used_repeats(template, parameters):
        copies = put_in(template, graph, repeat, items)
        place = loaders.pop(repeat.entry.role)
        loaders |= {role: replace(place, node_id=loader_id) for role, loader_id in copies.roles()}
        chains.append(copies.node_ids)
        for node_id, item in zip(copies.node_ids, items, strict=True):
            _write_item(graph, repeat, node_id, item, known, facts)
            if repeat.entry.original is not None:
                original = replace(repeat.place, node_id=node_id, input_name=repeat.entry.original)
                if known.has(original):
                    _write(graph, original, list(copies.source))
    drop_unused(graph, template)
    return _Shape(loaders, tuple(chains))


def _write_item(
    graph: dict[str, Any],
    repeat: Repeat,
    node_id: str,
    item: Mapping[str, object],
    known: _Known,
    facts: Mapping[str, MediaFacts],
) -> None:
    for name, parameter in repeat.parameters.items():
        entry, value = parameter.entry, item.get(name)
        if entry.off is not None and value is False:
            switch_off(graph, node_id, entry.off)
        elif parameter.place is not None and value is not None:
            place = replace(parameter.place, node_id=node_id)
            if entry.where_missing is None or known.has(place):
                write_value(graph, place, entry, value, facts)


def _warnings(template: Template, parameters: Mapping[str, object], known: _Known) -> Iterator[tuple[str, str]]:
    """What the job asked for and the upstream's classes have no input for, each code once."""
    asked = [(parameter, parameters.get(parameter.name)) for parameter in template.parameters.values()]
    for repeat, items in used_repeats(template, parameters):
        asked += [(parameter, item.get(name)) for item in items for name, parameter in repeat.parameters.items()]
    told: dict[str, str] = {}
    for parameter, value in asked:
        warning, place = parameter.entry.where_missing, parameter.place
        if warning is not None and place is not None and value is not None and known.classes and not known.has(place):
            told.setdefault(warning.code, warning.sentence)
    yield from told.items()


def _title(node: Mapping[str, Any]) -> str:
    title = node.get("_meta", {}).get("title")
    return title if isinstance(title, str) and title else str(node["class_type"])


def _write_prefixes(template: Template, graph: dict[str, Any], output_prefix: str) -> None:
    if not _PREFIX.fullmatch(output_prefix):
        raise TemplateError(template.name, _BAD_PREFIX)
    for output in template.outputs.values():
        if not output.place.input_name:
            continue
        own = output_prefix if len(template.outputs) == 1 else f"{output_prefix}-{output.name}"
        _write(graph, output.place, own)

"""From the text of a ``template.toml`` to a ``Manifest``, or to the sentence that says what is wrong with it.

``manifest.py`` has the keys and their types; here are the rules between them that need no graph. Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Final

from pydantic import TypeAdapter, ValidationError

from gateway.audit import PICTURES, MediaKind
from gateway.errors import TemplateError
from gateway.manifest import (
    NAME,
    SCHEMA_VERSION,
    TASK_ROLES,
    Manifest,
    OutputEntry,
    ParameterEntry,
    ParameterType,
    Product,
    RepeatEntry,
)

_MANIFEST: Final = TypeAdapter(Manifest)


def parse_manifest(name: str, text: str) -> Manifest:
    """Read a ``template.toml``.

    Args:
        name: of the template, for the error.
        text: the file.

    Raises:
        TemplateError: no TOML, an unknown key, a value of the wrong type, or keys that contradict each other.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(name, f"template.toml is no TOML: {error}") from error
    if raw.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise TemplateError(name, f"template.toml has schema {raw['schema']!r}, this gateway reads {SCHEMA_VERSION}")
    try:
        manifest = _MANIFEST.validate_python(raw)
    except ValidationError as error:
        raise TemplateError(name, _first_fault(error)) from error
    for reason in _contradictions(manifest):
        raise TemplateError(name, f"template.toml: {reason}")
    return manifest


def _first_fault(error: ValidationError) -> str:
    # A misspelled key is two faults, one unknown and one missing; the unknown one says more.
    faults = error.errors(include_url=False, include_input=False)
    fault = min(faults, key=lambda fault: fault["type"] != "unexpected_keyword_argument")
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        return f"template.toml: {where} is no key that a template has"
    if fault["type"] == "missing":
        return f"template.toml: {where} is missing"
    return f"template.toml: {where}: {fault['msg']}"


def _contradictions(manifest: Manifest) -> list[str]:
    """What is wrong with it as a whole, in sentences."""
    named = [*manifest.inputs, *manifest.parameters, *manifest.derived, *manifest.outputs, *manifest.repeats]
    found = [f"{name!r} is no name: lower-case letters, digits and _" for name in named if not NAME.fullmatch(name)]
    missing = TASK_ROLES.get(manifest.task, frozenset()) - manifest.inputs.keys()
    found += [f"a {manifest.task} template needs inputs.{role}" for role in sorted(missing)]
    if manifest.swaps_faces and not manifest.swap_nodes:
        found.append("it swaps faces, so swap_nodes must name the nodes that do")
    found += [
        f"outputs.{name}.of names {output.of!r}, which is no input"
        for name, output in manifest.outputs.items()
        if output.of is not None and output.of not in manifest.inputs
    ]
    found += [
        f"outputs.{name}.keeps needs of" for name, output in manifest.outputs.items() if output.keeps and not output.of
    ]
    found += [
        f"inputs.{role}.accepts: {kind.value} is nothing that a template takes"
        for role, entry in manifest.inputs.items()
        for kind in sorted(entry.accepts - PICTURES)
    ]
    found += [
        f"outputs.{name}.kind: {output.kind.value} is nothing that a template makes"
        for name, output in manifest.outputs.items()
        if output.kind not in PICTURES | {MediaKind.FACES}
    ]
    for name, output in manifest.outputs.items():
        found += [f"outputs.{name}: {reason}" for reason in _output_contradictions(output)]
    if manifest.swaps_faces and any(output.of is None for output in manifest.outputs.values()):
        found.append("it swaps faces, so each output must say of which input")
    for where, product in _products(manifest):
        found += [f"{where}: {factor!r} is no factor" for factor in product if not _is_factor(manifest, factor)]
    for where, entry in _parameters(manifest):
        found += [f"{where}: {reason}" for reason in _parameter_contradictions(entry)]
        if entry.frame_of is not None and entry.frame_of not in manifest.inputs:
            found.append(f"{where}.frame_of names {entry.frame_of!r}, which is no input")
    for name, repeat in manifest.repeats.items():
        found += [f"repeats.{name}: {reason}" for reason in _repeat_contradictions(name, repeat, manifest)]
    return found


def _parameters(manifest: Manifest) -> Iterator[tuple[str, ParameterEntry]]:
    for name, entry in manifest.parameters.items():
        yield f"parameters.{name}", entry
    for repeat_name, repeat in manifest.repeats.items():
        for name, entry in repeat.items():
            yield f"repeats.{repeat_name}.parameters.{name}", entry


def _repeat_contradictions(name: str, repeat: RepeatEntry, manifest: Manifest) -> Iterator[str]:
    if repeat.role not in manifest.inputs:
        yield f"role names {repeat.role!r}, which is no input"
    if name in manifest.parameters:
        yield "there is a parameter of this name"
    strangers = [other for other in repeat.instead_of if other not in manifest.parameters]
    yield from (f"instead_of names {other!r}, which is no parameter" for other in strangers)
    for item, entry in repeat.parameters.items():
        if not NAME.fullmatch(item):
            yield f"{item!r} is no name: lower-case letters, digits and _"
        if entry.node is not None or entry.node_id is not None:
            yield f"{item} is written to the copy, so it names no node"
        if entry.choices_from is not None or entry.random or (entry.off is not None and entry.off.releases):
            yield f"{item} cannot be of this kind in a repeat"


def _output_contradictions(output: OutputEntry) -> Iterator[str]:
    is_report = output.kind is MediaKind.FACES
    if is_report != (output.prefix_input is None):
        yield "it takes no prefix_input" if is_report else "prefix_input is missing"
    if is_report and (output.of is None or output.keeps or output.width or output.height or output.crf is not None):
        yield "a report of faces is of an input, and has nothing else in common with it"


def _products(manifest: Manifest) -> Iterator[tuple[str, Product]]:
    for name, derived in manifest.derived.items():
        yield f"derived.{name}.product", derived.product
    for name, output in manifest.outputs.items():
        for what in ("width", "height", "frames", "fps"):
            yield f"outputs.{name}.{what}", getattr(output, what)


def _is_factor(manifest: Manifest, factor: str) -> bool:
    """Whether a number can always be had for it."""
    role, dot, side = factor.partition(".")
    if dot:
        return role in manifest.inputs and side in {"width", "height"}
    parameter = manifest.parameters.get(factor)
    return parameter is not None and parameter.type is ParameterType.INT


def _parameter_contradictions(entry: ParameterEntry) -> list[str]:
    is_number = entry.type in {ParameterType.INT, ParameterType.FLOAT}
    is_int, is_string = entry.type is ParameterType.INT, entry.type is ParameterType.STRING
    from_upstream = entry.choices_from is not None
    is_named = entry.node is not None or entry.node_id is not None
    rules = (
        (entry.off is None and is_named != (entry.input is not None), "node and input go together"),
        (entry.off is None and entry.input is None and not is_int, "only an int may go without a node"),
        (
            entry.off is not None and (entry.type is not ParameterType.BOOL or not is_named or entry.input is not None),
            "a switch is a bool that names a node and no input",
        ),
        (
            entry.where_missing is not None and (entry.input is None or entry.required or entry.default is not None),
            "where_missing needs an input, and leaves no room for a default",
        ),
        (entry.where_missing is not None and from_upstream, "where_missing and choices_from exclude each other"),
        (entry.frame_of is not None and entry.type is not ParameterType.FLOAT, "frame_of is for a float"),
        (bool(entry.detectors) and not from_upstream, "detectors needs choices_from"),
        (entry.multiple_of != 1 and not is_int, "multiple_of is for an int"),
        (
            entry.random and (not is_int or entry.min is None or entry.max is None or entry.multiple_of != 1),
            "only an int with min and max can be random",
        ),
        (entry.random and (entry.required or entry.default is not None), "what is random has no default"),
        ((entry.multiline or entry.pattern_means is not None) and not is_string, "this is for strings"),
        (bool(entry.avoid) and not from_upstream, "avoid needs choices_from"),
        (
            not is_number and (entry.min, entry.max, entry.unit) != (None, None, None),
            "min, max and unit are for numbers",
        ),
        (
            entry.min is not None and entry.max is not None and entry.min > entry.max,
            "min is greater than max",
        ),
        (entry.type is ParameterType.STRING and entry.pattern is None, "a string needs a pattern"),
        (entry.type is not ParameterType.STRING and entry.pattern is not None, "a pattern is for strings"),
        (entry.pattern is not None and not _compiles(entry.pattern), "pattern is no regular expression"),
        (
            entry.type is ParameterType.CHOICE and bool(entry.choices) == from_upstream,
            'a choice needs either choices or choices_from = "object_info"',
        ),
        (
            entry.type is not ParameterType.CHOICE and (bool(entry.choices) or from_upstream),
            "choices and choices_from are for choices",
        ),
        (from_upstream and not entry.prefer, "choices_from needs prefer"),
        (from_upstream and entry.default is not None, "prefer stands in place of default"),
        (
            not from_upstream and (bool(entry.prefer) or entry.fallback is not None),
            "prefer and fallback need choices_from",
        ),
        (entry.required and (from_upstream or entry.default is not None), "what is required has no default or prefer"),
        (
            not (from_upstream or entry.required or entry.random or entry.where_missing) and entry.default is None,
            "default is missing",
        ),
    )
    return [reason for broken, reason in rules if broken]


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True

"""What a ``template.toml`` may say: its keys, their types and the rules that need no graph.

It does not look at the graph; ``template.py`` does, and makes the two one. ``docs/templates.md`` explains every key to
whoever writes a template. Pure: text in, values out.
"""

from __future__ import annotations

import fnmatch
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from gateway.audit import Keeps, MediaKind
from gateway.errors import InvalidInputError, TemplateError
from gateway.pricing import PricePer

#: Value of the key ``schema``; raised when a key changes its meaning.
SCHEMA_VERSION: Final = 1

#: More is a slip of the hand; times the longest and largest video there is, it stays a number of 64 bits.
MAX_PRICE: Final = 1_000_000
#: Roles that a task cannot do without. Other tasks may name their roles as they like.
TASK_ROLES: Final[Mapping[str, frozenset[str]]] = {"face_swap": frozenset({"target", "face"})}

#: What a string of several lines may hold besides printable characters.
_BREAKS: Final = str.maketrans("\n\r\t", "   ")

#: Names of roles, parameters, outputs and repeats.
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

Text = Annotated[StrictStr, Field(min_length=1, max_length=500)]
#: Factors: names of int parameters, and ``<role>.width`` or ``<role>.height``.
Product = tuple[Text, ...]
Number = StrictInt | StrictFloat
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr

_CLOSED: Final = ConfigDict(extra="forbid")


class ParameterType(StrEnum):
    """What a parameter's value is."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    #: One of a list: the template's own, or what the upstream offers for that node input.
    CHOICE = "choice"


class ChoicesFrom(StrEnum):
    """Where the values of a choice come from when the template does not list them."""

    OBJECT_INFO = "object_info"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRef:
    """A node of the graph: by its title, or where it can have none by its id. Exactly one of the two."""

    #: ``_meta.title`` of the node; survives a re-export.
    node: Text | None = None
    #: Id of the node; changes when the author rebuilds the graph.
    node_id: Text | None = None

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class InputEntry(NodeRef):
    """``[inputs.<role>]``: a file that a job brings."""

    #: Name of the node input that takes the staged file.
    input: Text
    #: Kinds of files that fit.
    accepts: Annotated[frozenset[MediaKind], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """``[parameters.<name>.fallback]``: what a choice becomes where an upstream has none of the preferred values."""

    #: Written into the input; must be among what the upstream offers.
    value: Text
    #: Further literals of the same node, set whenever this value is the one in use.
    set: Mapping[Text, Scalar] = field(default_factory=dict)

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterEntry(NodeRef):
    """``[parameters.<name>]``: a value that a job may set."""

    #: Name of the node input it is written to. None, and no node, where it only serves derived values and promises.
    input: Text | None = None
    type: ParameterType
    #: Used where the job says nothing. Not for choices from object_info: there ``prefer`` decides.
    default: Scalar | None = None
    #: A job must say something; there is no default then.
    required: StrictBool = False
    #: Where the job says nothing, an int is drawn when it is accepted, so that each attempt has the same.
    random: StrictBool = False
    #: Least value of an int or float.
    min: Number | None = None
    #: Greatest value of an int or float.
    max: Number | None = None
    #: An int must be a multiple of it.
    multiple_of: Annotated[StrictInt, Field(ge=1)] = 1
    #: What an int or float counts, for people: "px", "s".
    unit: Text | None = None
    #: Values of a choice.
    choices: tuple[Text, ...] = ()
    choices_from: ChoicesFrom | None = None
    #: With ``choices_from``: names or patterns with ``*``, the first one that the upstream offers is taken.
    prefer: tuple[Text, ...] = ()
    #: With ``choices_from``: names or patterns, upper and lower case alike, that are taken only when a job asks for them.
    avoid: tuple[Text, ...] = ()
    fallback: Fallback | None = None
    #: Regular expression that the whole of a string must match.
    pattern: Text | None = None
    #: The sentence for a string that does not, after the parameter's name: "must not be empty".
    pattern_means: Text | None = None
    #: Whether a string may have line breaks and tabs.
    multiline: StrictBool = False
    #: Longest string, in characters.
    max_length: Annotated[StrictInt, Field(ge=1, le=10_000)] = 256
    #: For people.
    help: Text | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedEntry(NodeRef):
    """``[derived.<name>]``: a whole number that is worked out from others and written into a node."""

    #: Name of the node input it is written to.
    input: Text
    #: It is the product of these parameters and sizes of inputs (``target.width``).
    product: Annotated[Product, Field(min_length=1)]
    #: Raised to the next number that is ``plus`` more than a multiple of this.
    step: Annotated[StrictInt, Field(ge=1)] = 1
    plus: Annotated[StrictInt, Field(ge=0)] = 0
    #: Greatest product that a job may ask for.
    max: Annotated[StrictInt, Field(ge=1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputEntry(NodeRef):
    """``[outputs.<name>]``: a node whose file is a result."""

    #: What the file is.
    kind: MediaKind
    #: Node input that takes the output prefix.
    prefix_input: Text
    #: Role of the input that the result is a changed copy of; None where it is made out of words.
    of: Text | None = None
    #: What the copy has in common with it.
    keeps: frozenset[Keeps] = frozenset()
    #: What it must measure: each a product of parameters and of ``<role>.width`` and ``<role>.height``; () for anything.
    width: Product = ()
    height: Product = ()
    frames: Product = ()
    #: Frames per second.
    fps: Product = ()
    #: Most pixels of a side, and of the whole picture, that a job may ask for.
    max_side: Annotated[StrictInt, Field(ge=1)] | None = None
    max_pixels: Annotated[StrictInt, Field(ge=1)] | None = None
    #: Quality setting of the encoder, None where the file is lossless. Judges whether anything was changed.
    crf: Annotated[StrictInt, Field(ge=0, le=63)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatEntry(NodeRef):
    """``[repeats.<name>]``: a node that may be put in several times, one after the other."""

    #: The linked input through which the copies are chained.
    chain: Text
    #: Output slot of the node that feeds the next copy.
    slot: Annotated[StrictInt, Field(ge=0)] = 0
    #: Inputs that differ between the copies.
    vary: Annotated[tuple[Text, ...], Field(min_length=1)]
    #: Most copies.
    max: Annotated[StrictInt, Field(ge=2, le=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenceEntry:
    """``[[licences]]``: on which terms a model that the template may use was published."""

    #: File name, or a pattern with ``*``.
    model: Text
    licence: Text
    #: Whether these terms allow commercial use.
    commercial: StrictBool

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInEntry:
    """``[stand_in]``: it is used only where no upstream that works can run another template for the task."""

    #: The warning that its jobs end with, for programs and for people.
    code: Annotated[StrictStr, Field(pattern=f"^{_NAME.pattern}$")]
    sentence: Text

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole ``template.toml``."""

    schema: StrictInt
    title: Text
    #: What it does, as jobs name it: "face_swap".
    task: Text
    #: Whether a person's face is replaced, so that the rules for that apply.
    swaps_faces: StrictBool
    #: Titles of the nodes that do the work; the rest is loading and saving.
    swap_nodes: tuple[Text, ...] = ()
    #: Credits; 0: its jobs are free.
    price: Annotated[StrictInt, Field(ge=0, le=MAX_PRICE)] = 0
    #: What that is the price of.
    price_per: PricePer = PricePer.JOB
    #: A job whose target is smaller costs nothing.
    free_below_bytes: Annotated[StrictInt, Field(ge=0)] = 0
    #: A running job of it that says nothing for so long is given up; None: as the gateway's setting says.
    stall_seconds: Annotated[Number, Field(gt=0, le=7 * 86_400)] | None = None
    #: Whether a pool that cannot run it lacks nothing: it wants models that few have.
    optional: StrictBool = False
    stand_in: StandInEntry | None = None
    inputs: Mapping[str, InputEntry] = field(default_factory=dict)
    derived: Mapping[str, DerivedEntry] = field(default_factory=dict)
    outputs: Annotated[Mapping[str, OutputEntry], Field(min_length=1)]
    parameters: Mapping[str, ParameterEntry] = field(default_factory=dict)
    repeats: Mapping[str, RepeatEntry] = field(default_factory=dict)
    licences: tuple[LicenceEntry, ...] = ()

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


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
    found = [f"{name!r} is no name: lower-case letters, digits and _" for name in named if not _NAME.fullmatch(name)]
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
    if manifest.swaps_faces and any(output.of is None for output in manifest.outputs.values()):
        found.append("it swaps faces, so each output must say of which input")
    for where, product in _products(manifest):
        found += [f"{where}: {factor!r} is no factor" for factor in product if not _is_factor(manifest, factor)]
    for name, entry in manifest.parameters.items():
        found += [f"parameters.{name}: {reason}" for reason in _parameter_contradictions(entry)]
    return found


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
        (is_named != (entry.input is not None), "node and input go together"),
        (entry.input is None and not is_int, "only an int may go without a node"),
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
            not (from_upstream or entry.required or entry.random) and entry.default is None,
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


def check_value(entry: ParameterEntry, name: str, value: object) -> bool | int | float | str:
    """A parameter's value as the node input takes it.

    A choice from object_info is only looked at for its shape: which values there are, each upstream says for itself.

    Raises:
        InvalidInputError: wrong type, out of range, not one of the choices; ``field`` is the parameter.
    """
    if entry.type is ParameterType.BOOL:
        if isinstance(value, bool):
            return value
        raise InvalidInputError(f"{name} must be true or false.", field=name)
    if entry.type in {ParameterType.INT, ParameterType.FLOAT}:
        return _check_number(entry, name, value)
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string.", field=name)
    plain = value.translate(_BREAKS) if entry.multiline else value
    if len(value) > entry.max_length or not plain.isprintable():
        raise InvalidInputError(f"{name} must be printable text of at most {entry.max_length} characters.", field=name)
    if entry.pattern is not None and not re.fullmatch(entry.pattern, value, re.ASCII):
        means = entry.pattern_means or "does not have the form that it must have"
        raise InvalidInputError(f"{name} {means}.", field=name)
    if entry.choices and value not in entry.choices:
        raise InvalidInputError(f"{name} must be one of {', '.join(entry.choices)}.", field=name)
    return value


def _check_number(entry: ParameterEntry, name: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{name} must be a number.", field=name)
    if entry.type is ParameterType.INT and not isinstance(value, int):
        raise InvalidInputError(f"{name} must be a whole number.", field=name)
    above = entry.min is None or value >= entry.min
    below = entry.max is None or value <= entry.max
    unit = f" {entry.unit}" if entry.unit else ""
    if not above or not below or not math.isfinite(value):
        least, most = ("" if limit is None else f"{limit}{unit}" for limit in (entry.min, entry.max))
        allowed = f" from {least} to {most}" if least and most else f" of at least {least}" if least else ""
        allowed = allowed or (f" of at most {most}" if most else "")
        raise InvalidInputError(f"{name} must be a number{allowed}.", field=name)
    if isinstance(value, int) and value % entry.multiple_of:
        raise InvalidInputError(f"{name} must be a multiple of {entry.multiple_of}.", field=name)
    return value


def preferred(entry: ParameterEntry, offered: tuple[object, ...] | None) -> str | None:
    """The value to take of what an upstream offers: the first preference that is there, else the fallback, else None.

    A pattern takes the first match in alphabetical order, so that two upstreams with the same files agree.
    """
    names = sorted(value for value in offered or () if isinstance(value, str) and not _is_avoided(entry, value))
    for wanted in entry.prefer:
        for name in names:
            if fnmatch.fnmatchcase(name, wanted):
                return name
    return entry.fallback.value if entry.fallback is not None and entry.fallback.value in names else None


def _is_avoided(entry: ParameterEntry, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in entry.avoid)

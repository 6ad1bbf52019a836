"""What a ``template.toml`` may say: its keys, their types and the rules that need no graph.

It does not look at the graph; ``template.py`` does, and makes the two one. ``docs/templates.md`` explains every key to
whoever writes a template. Pure: text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from gateway.audit import Keeps, MediaKind
from gateway.delivering import NAME as TARGET_NAME
from gateway.pricing import PricePer

#: Value of the key ``schema``; raised when a key changes its meaning.
SCHEMA_VERSION: Final = 1

#: More is a slip of the hand; times the longest and largest video there is, it stays a number of 64 bits.
MAX_PRICE: Final = 1_000_000
#: Roles that a task cannot do without. Other tasks may name their roles as they like.
TASK_ROLES: Final[Mapping[str, frozenset[str]]] = {"face_swap": frozenset({"target", "face"})}

#: Names of roles, parameters, outputs and repeats.
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

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
class Switch:
    """``off`` of a parameter: what becomes of its node where a job says false; nothing where it says true."""

    #: Literals of the node that are then set, whatever else would be written there.
    set: Mapping[Text, Scalar] = field(default_factory=dict)
    #: Linked inputs of the node that are then left out.
    drop: tuple[Text, ...] = ()
    #: What the results then need not keep.
    releases: frozenset[Keeps] = frozenset()

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningEntry:
    """A warning that a job ends with, for programs and for people."""

    code: Annotated[StrictStr, Field(pattern=f"^{NAME.pattern}$")]
    sentence: Text

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterEntry(NodeRef):
    """``[parameters.<name>]``: a value that a job may set."""

    #: Name of the node input it is written to. None where it only serves derived values and promises, and then it has no
    #: node; and where it is a switch.
    input: Text | None = None
    #: With a bool: it is no value but switches something off.
    off: Switch | None = None
    #: The input is one that not every upstream's class has, and none the graph has. Where the class lacks it, nothing is
    #: written, and a job that set the parameter is warned.
    where_missing: WarningEntry | None = None
    #: With a float: seconds into the input of this role; the node gets the number of the frame that is shown then.
    frame_of: Text | None = None
    #: With ``choices_from``: by which detector faces are numbered with a value; names or patterns, the first that fits.
    detectors: Mapping[Text, Text] = field(default_factory=dict)
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
    #: Node input that takes the output prefix; None where the node tells a report in place of a file.
    prefix_input: Text | None = None
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
    """``[repeats.<name>]``: a node that is put in once for each item of a list that a job sends under this name."""

    #: The linked input through which the copies are chained.
    chain: Text
    #: Output slot of the node that feeds the next copy.
    slot: Annotated[StrictInt, Field(ge=0)] = 0
    #: Role of the input that each copy has of its own: its node is copied too, and the job brings ``<role>_0``,
    #: ``<role>_1`` and so on, one for each item.
    role: Text
    #: An input that takes what the first copy is fed, where the upstream's class has it.
    original: Text | None = None
    #: Parameters of the template that a job with such a list cannot set.
    instead_of: tuple[Text, ...] = ()
    #: Name in an item -> what it is; the node is the copy's.
    parameters: Annotated[Mapping[str, ParameterEntry], Field(min_length=1)]
    #: Most copies.
    max: Annotated[StrictInt, Field(ge=2, le=64)]

    def items(self) -> Iterator[tuple[str, ParameterEntry]]:
        """(name, entry) of what an item may hold, with the node filled in."""
        for name, entry in self.parameters.items():
            yield name, replace(entry, node=self.node, node_id=self.node_id)


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
    #: Name of the target that its jobs' outputs are put to, unless the job or its key says otherwise.
    deliver_to: Annotated[StrictStr, Field(pattern=rf"^{TARGET_NAME.pattern}$")] | None = None
    #: Whether a pool that cannot run it lacks nothing: it wants models that few have.
    optional: StrictBool = False
    #: ``[stand_in]``: it is used only where no upstream that works can run another template for the task, and says so.
    stand_in: WarningEntry | None = None
    inputs: Mapping[str, InputEntry] = field(default_factory=dict)
    derived: Mapping[str, DerivedEntry] = field(default_factory=dict)
    outputs: Annotated[Mapping[str, OutputEntry], Field(min_length=1)]
    parameters: Mapping[str, ParameterEntry] = field(default_factory=dict)
    repeats: Mapping[str, RepeatEntry] = field(default_factory=dict)
    licences: tuple[LicenceEntry, ...] = ()

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

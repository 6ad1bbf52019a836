"""A client's own graph as values: just read, with its files named, and as a job keeps it.

Nothing is judged here: ``workflow_reading.py`` reads one, ``workflow_judging.py`` says where it can run, ``workflow.py``
makes a template of it. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.comfy.graph import Node

#: (node id, input name).
At = tuple[str, str]


class Reason(StrEnum):
    """What is wrong with a graph, in a word for programs. ``docs/workflows.md`` says what each means."""

    MALFORMED = "malformed"
    BAD_NAME = "bad_name"
    BAD_LINK = "bad_link"
    CYCLE = "cycle"
    TOO_DEEP = "too_deep"
    ASSET_MISPLACED = "asset_misplaced"
    CLASS_DENIED = "class_denied"
    UNKNOWN_CLASS = "unknown_class"
    NO_OUTPUT = "no_output"
    MISSING_INPUT = "missing_input"
    VALUE_NOT_IN_LIST = "value_not_in_list"
    TYPE_MISMATCH = "type_mismatch"
    INVALID_VALUE = "invalid_value"
    OUT_OF_RANGE = "out_of_range"
    PATH_NOT_ALLOWED = "path_not_allowed"
    FILE_LINKED = "file_linked"
    HIDDEN_INPUT = "hidden_input"


@dataclass(frozen=True, slots=True)
class Draft:
    """A graph whose shape is right; no upstream was asked."""

    #: As sent, references to assets still in it.
    graph: Mapping[str, Any] = field(repr=False)
    nodes: Mapping[str, Node] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file that a graph names."""

    node_id: str
    input_name: str
    #: Of a ``core/ASSET`` reference; None where a name stands there.
    asset_id: str | None = None
    #: As the reference says it: a hint only, which never overrides the id.
    hash: str | None = None
    #: A plain file name; None where a reference stands there.
    name: str | None = None

    @property
    def at(self) -> At:
        """Where it stands."""
        return self.node_id, self.input_name


@dataclass(frozen=True, slots=True)
class Workflow:
    """A graph as a job keeps it: all that was decided about it when it was accepted."""

    #: As sent, references to assets still in it.
    graph: Mapping[str, Any] = field(repr=False)
    #: Role of the job's input -> where the name of its staged file goes. A role may have one place only.
    files: Mapping[str, At]
    #: Node id -> (input, what the client called its files): every prefix of outputs.
    prefixes: Mapping[str, At]
    #: 16 hex digits over what it needs of an upstream; see ``workflow.requirement_of_workflow``.
    version: str

    def to_json(self) -> str:
        """For the store."""
        kept = {"graph": self.graph, "files": self.files, "prefixes": self.prefixes, "version": self.version}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Workflow:
        """What ``to_json`` wrote."""
        kept = json.loads(text)
        return cls(kept["graph"], _places(kept["files"]), _places(kept["prefixes"]), kept["version"])


def _places(kept: Mapping[str, list[str]]) -> dict[str, At]:
    return {key: (first, second) for key, (first, second) in kept.items()}

"""Which files a client's own graph names, and what it calls its outputs.

A file is named by a reference to an asset, or by its plain name. What cannot be the name of an uploaded file (a path, a
URL, a name in another folder of the upstream) is refused here, before anybody looks for it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.comfy.graph import Node
from gateway.comfy.specs import InputSpec
from gateway.interfaces import Capabilities
from gateway.workflow_classes import Classes, reached_anywhere
from gateway.workflow_places import KNOWN, Place
from gateway.workflow_reading import MAX_NAME_CHARS, NodeErrors, cut, is_asset
from gateway.workflow_values import Draft, FileReference, Reason

#: A choice that means that there is no file.
_NO_FILE: Final = frozenset({"none", "(none)", "[none]"})
_ANNOTATED: Final = re.compile(r"(.*\S) \[(\w+)\]", re.DOTALL)


def file_references(draft: Draft, known: Iterable[Capabilities]) -> tuple[FileReference, ...]:
    """Every file that a graph names: each literal where any upstream takes a file, and each reference wherever it stands.

    Names at nodes that run nowhere do not count: they are never sent.

    Args:
        draft: the graph.
        known: what the upstreams of the pool can do.

    Raises:
        WorkflowError: a name that no uploaded file can have: a path, a URL, a name in another folder.
    """
    pool = [Classes(capabilities) for capabilities in known]
    running = reached_anywhere(draft.nodes, pool) if pool else frozenset(draft.nodes)
    errors = NodeErrors()
    found = []
    for node in draft.nodes.values():
        for name, value in node.inputs.items():
            if is_asset(value):
                found.append(_asset(node, name, value))
            elif isinstance(value, str) and node.id in running and _names_file(node, name, value, pool):
                plain = _plain_name(value)
                if plain is None:
                    sentence = f"{cut(value)!r} is no name of an uploaded file"
                    errors.add(node.id, name, Reason.PATH_NOT_ALLOWED, sentence, node.class_type)
                else:
                    found.append(FileReference(node.id, name, name=plain))
    errors.raise_any()
    return tuple(found)


def _asset(node: Node, name: str, value: Any) -> FileReference:
    return FileReference(node.id, name, asset_id=value["info"]["id"], hash=value["info"].get("hash"))


def _names_file(node: Node, name: str, value: str, pool: Iterable[Classes]) -> bool:
    if KNOWN.get((node.class_type, name)) is Place.FILE:
        return True
    for classes in pool:
        known = classes.get(node.class_type)
        inputs = None if known is None else known.inputs_of(node)
        if inputs and inputs.places.get(name) is Place.FILE and not means_none(value, inputs.specs[name]):
            return True
    return False


def means_none(value: object, spec: InputSpec) -> bool:
    """Whether this says that there is no file, in a way that the class itself offers."""
    if value is None:
        return not spec.required
    if not isinstance(value, str):
        return False
    if spec.choices is not None:
        return value in spec.choices and value.lower() in _NO_FILE
    return value == "" and spec.options.get("default", "" if not spec.required else None) == ""


def _plain_name(value: str) -> str | None:
    """The name of an uploaded file, as its owner wrote it; None for what cannot be one.

    ComfyUI reads ``name [input]`` as a name in the input folder, which is where every file of a job goes.
    """
    if (annotated := _ANNOTATED.fullmatch(value)) and annotated[2] in {"input", "output", "temp"}:
        if annotated[2] != "input":
            return None
        value = annotated[1]
    parts = re.split(r"[/\\]", value)
    is_plain = len(value) <= MAX_NAME_CHARS and cut(value, MAX_NAME_CHARS) == value and ":" not in parts[0]
    return value if is_plain and not {"", ".", "..", "~"}.intersection(parts) else None


def prefixes_of(nodes: Mapping[str, Node], pool: Iterable[Classes]) -> dict[str, tuple[str, str]]:
    """Node id -> (input that says what its files are called, what the client calls them)."""
    found: dict[str, tuple[str, str]] = {}
    for classes in pool:
        for node in nodes.values():
            known = classes.get(node.class_type)
            if node.id not in found and known is not None and known.prefix_input is not None:
                given = node.inputs.get(
                    known.prefix_input, known.plain.specs[known.prefix_input].options.get("default")
                )
                found[node.id] = known.prefix_input, given if isinstance(given, str) and given else "ComfyUI"
    return found

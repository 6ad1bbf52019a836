"""Reads a client's own graph: its shape and its bounds, before any upstream is asked.

Everything is bounded here, so that nobody behind has to be afraid of a graph: how many nodes, how deep, how long, which
characters. It is read once, without recursion, in time that grows with its size. Every node at fault is named.

Whether a pool has its classes, and what its inputs name, is for ``workflow_judging.py``. Pure.

Source: ComfyUI a125cd84, ``execution.py`` (``validate_prompt``, ``validate_inputs``), front end *Save (API format)*.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.comfy.graph import GraphError, Link, Node, as_link, execution_order
from gateway.errors import MissingAssetError, WorkflowError, WorkflowFormatError
from gateway.strictjson import MAX_DEPTH, MAX_INT_DIGITS, SURROGATE
from gateway.workflow_values import Draft, Reason

#: Far above any workflow that people draw (the largest shared ones have some hundreds). While a graph runs, ComfyUI tells the
#: state of all its nodes with each tick: at 4 000 that is 0.8 MB and 10 ms of the loop a tick.
MAX_NODES: Final = 2_000
#: One behind the other. ComfyUI a125cd84 was seen to run 975 and to refuse 1 000.
MAX_CHAIN: Final = 950
#: Of all nodes together: keys and values, however deep.
MAX_VALUES: Final = 500_000
#: Of one string; pictures come as base64 in some nodes, larger ones as assets.
MAX_STRING_CHARS: Final = 4 * 1024 * 1024
#: Of all strings together: a job keeps the graph, and every answer about it reads it.
MAX_TEXT_CHARS: Final = 8 * 1024 * 1024
#: Of node ids, names of classes and inputs, and titles.
MAX_NAME_CHARS: Final = 200
#: Nodes that an error names.
MAX_NODE_ERRORS: Final = 100
ASSET_TAG: Final = "core/ASSET"

_MAX_INT: Final = 10**MAX_INT_DIGITS
#: Overrides and isolates turn the text around them about; marks are harmless in a script that needs them, but no name does.
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def read_workflow(raw: object) -> Draft:
    """A graph whose shape is right.

    Args:
        raw: parsed JSON.

    Raises:
        WorkflowFormatError: it is in the editor's own format.
        MissingAssetError: it holds a reference to an asset that is none.
        WorkflowError: it is malformed, too large, or its links lead nowhere or in a circle; ``details`` names the nodes.
    """
    if not isinstance(raw, Mapping):
        raise WorkflowError("A workflow is an object of nodes.")
    if isinstance(raw.get("nodes"), list):
        raise WorkflowFormatError("This workflow is in the editor's own format; export it with Save (API format).")
    if not raw:
        raise WorkflowError("The workflow has no nodes.")
    if len(raw) > MAX_NODES:
        raise WorkflowError(f"The workflow has more than {MAX_NODES} nodes.")
    _refuse_excess(raw)
    _refuse_malformed_assets(raw)
    errors = NodeErrors()
    nodes = {node_id: node for node_id, value in raw.items() if (node := _node(node_id, value, errors)) is not None}
    errors.raise_any()
    for node in nodes.values():
        for name, link in node.links():
            if link.node_id not in nodes:
                errors.add(
                    node.id, name, Reason.BAD_LINK, f"it is linked to node {cut(link.node_id)}, which does not exist"
                )
    errors.raise_any()
    try:
        _refuse_long_chains(nodes, execution_order(nodes), errors)
    except GraphError as error:
        errors.add(error.node_id or "", "", Reason.CYCLE, "its links form a circle")
    errors.raise_any()
    return Draft(raw, nodes)


def _refuse_long_chains(nodes: Mapping[str, Node], order: Iterable[str], errors: NodeErrors) -> None:
    """ComfyUI follows links by recursion, and refuses what it cannot follow with a sentence that names another cause."""
    length: dict[str, int] = {}
    for node_id in order:
        length[node_id] = 1 + max((length[link.node_id] for _, link in nodes[node_id].links()), default=0)
        if length[node_id] > MAX_CHAIN:
            errors.add(node_id, "", Reason.TOO_DEEP, f"it is the end of a chain of more than {MAX_CHAIN} nodes")
            return


class NodeErrors:
    """What is wrong with the nodes of a graph, gathered as ``details`` tells it."""

    def __init__(self) -> None:
        self._found: dict[str, list[dict[str, str]]] = {}
        self._first = ""
        self._count = 0

    def add(self, node_id: str, field: str, reason: Reason, sentence: str, class_type: str = "") -> None:
        """One more. ``field`` is an input's name, "class_type", or "" for the node as a whole."""
        self._count += 1
        if len(self._found) >= MAX_NODE_ERRORS and node_id not in self._found:
            return
        told = self._found.setdefault(cut(node_id, MAX_NAME_CHARS), [])
        if len(told) < MAX_NODE_ERRORS:
            told.append({"field": cut(field, MAX_NAME_CHARS), "reason": reason.value, "message": sentence})
        if not self._first:
            what = f" ({cut(class_type)})" if class_type else ""
            where = f"input {cut(field)!r}: " if field and field != "class_type" else ""
            self._first = f"Node {cut(node_id)}{what}: {where}{sentence}"

    def raise_any(self, details: Mapping[str, object] | None = None) -> None:
        """Raise them as one error, if there are any."""
        if self._count == 0:
            return
        more = f", and {self._count - 1} more" if self._count > 1 else ""
        raise WorkflowError(f"{self._first}{more}.", details={"node_errors": self._found, **(details or {})})


def is_asset(value: object) -> bool:
    """Whether this claims to be a reference to an asset."""
    return isinstance(value, Mapping) and value.get("__type") == ASSET_TAG


def cut(text: str, limit: int = 64) -> str:
    """Text of a client's for a sentence: short, on one line, and not turned about."""
    plain = "".join(char if char.isprintable() and char not in _BIDI else "?" for char in text[: limit + 1])
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


# ------------------------------------------------------------------------------------------------------------- bounds


def _refuse_excess(raw: Mapping[str, Any]) -> None:
    """Walks everything once, level by level, with no stack at stake."""
    level: list[object] = [raw]
    values = text = 0
    for _ in range(MAX_DEPTH + 1):
        following: list[object] = []
        for value in level:
            if isinstance(value, str):
                text += len(value)
                if len(value) > MAX_STRING_CHARS:
                    raise WorkflowError(f"The workflow holds a string of more than {MAX_STRING_CHARS} characters.")
                if not value.isascii() and SURROGATE.search(value):
                    raise WorkflowError("The workflow holds half of a surrogate pair.")
            elif isinstance(value, Mapping | list):
                values += len(value)
                if values > MAX_VALUES:
                    raise WorkflowError(f"The workflow holds more than {MAX_VALUES} values.")
                following += _inside(value)
            else:
                _refuse_odd(value)
            if text > MAX_TEXT_CHARS:
                raise WorkflowError(f"The workflow holds more than {MAX_TEXT_CHARS} characters.")
        level = following
        if not level:
            return
    raise WorkflowError(f"The workflow is nested deeper than {MAX_DEPTH} levels.")


def _inside(value: Mapping[str, object] | list[object]) -> Iterator[object]:
    if isinstance(value, list):
        yield from value
        return
    for key, item in value.items():
        if not isinstance(key, str):
            raise WorkflowError("The workflow holds a key that is no string.")
        yield key
        yield item


def _refuse_odd(value: object) -> None:
    """What JSON has no word for, and numbers that no two programs read alike."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int) and abs(value) >= _MAX_INT:
        raise WorkflowError(f"The workflow holds an integer of more than {MAX_INT_DIGITS} digits.")
    if isinstance(value, float) and not math.isfinite(value):
        raise WorkflowError("The workflow holds a number that is not finite.")
    if not isinstance(value, int | float):
        raise WorkflowError("The workflow holds a value that is not of JSON.")


# ------------------------------------------------------------------------------------------------------------- assets


def _refuse_malformed_assets(raw: Mapping[str, Any]) -> None:
    """Whatever claims to be a reference must be one, wherever it stands."""
    malformed = sorted({cut(name) for value in _walk(raw) if is_asset(value) and (name := _fault(value)) is not None})
    if malformed:
        raise MissingAssetError(
            "The workflow holds a reference to an asset without a usable id.",
            details={"missing_ids": malformed[:MAX_NODE_ERRORS]},
        )


def _fault(reference: Any) -> str | None:
    """What to call a reference that is none; None for a good one."""
    info = reference.get("info")
    if not isinstance(info, Mapping):
        return "(no info)"
    asset_id, hint = info.get("id"), info.get("hash")
    if not isinstance(asset_id, str) or not asset_id:
        return "(no id)"
    is_good = _is_name(asset_id) and (hint is None or isinstance(hint, str))
    return None if is_good else asset_id


def _walk(root: object) -> Iterator[object]:
    """Everything in it, without recursion; its depth is bounded already."""
    left = [root]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list):
            left += value


# -------------------------------------------------------------------------------------------------------------- nodes


def _node(node_id: str, raw: object, errors: NodeErrors) -> Node | None:
    if not node_id or not _is_name(node_id):
        errors.add(node_id, "", Reason.BAD_NAME, f"an id is at most {MAX_NAME_CHARS} printable characters")
        return None
    if not isinstance(raw, Mapping) or is_asset(raw):
        errors.add(node_id, "", Reason.MALFORMED, "it is not an object with class_type and inputs")
        return None
    class_type, inputs, meta = raw.get("class_type"), raw.get("inputs"), raw.get("_meta")
    if not isinstance(class_type, str) or not class_type or not _is_name(class_type):
        errors.add(node_id, "class_type", Reason.MALFORMED, "it has no class_type")
        return None
    if not isinstance(inputs, Mapping) or is_asset(inputs):
        errors.add(node_id, "inputs", Reason.MALFORMED, "it has no inputs", class_type)
        return None
    if any(is_asset(value) for key, rest in raw.items() if key != "inputs" for value in _walk(rest)):
        errors.add(node_id, "", Reason.ASSET_MISPLACED, "an asset can only be the value of an input", class_type)
    values = {name: as_link(value) or value for name, value in inputs.items()}
    for name, value in values.items():
        if fault := _input_fault(name, value):
            errors.add(node_id, name, *fault, class_type)
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return Node(node_id, class_type, values, cut(title, MAX_NAME_CHARS) if isinstance(title, str) else None)


def _input_fault(name: str, value: object) -> tuple[Reason, str] | None:
    """(reason, sentence) of what is wrong with an input whatever its class says."""
    if not _is_name(name):
        return Reason.BAD_NAME, f"a name is at most {MAX_NAME_CHARS} printable characters"
    if isinstance(value, Link):
        return None
    inner = value.get("__value__") if isinstance(value, Mapping) else None
    # ComfyUI takes the wrapping off before it looks for links, so that one would slip by every check of them.
    if _looks_like_link(value) or _looks_like_link(inner):
        return Reason.BAD_LINK, "a link is a node id and a slot, which is a whole number from 0"
    if not is_asset(value) and any(is_asset(item) for item in _walk(value)):
        return Reason.ASSET_MISPLACED, "an asset can only be the whole value of an input"
    return None


def _looks_like_link(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2  # noqa: PLR2004 - a link has two parts
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def _is_name(text: str) -> bool:
    """Whether it can be shown and compared: no control characters, nothing that turns text about, not too long.

    Joiners stay: names of classes have emoji that are made of several.
    """
    if len(text) > MAX_NAME_CHARS:
        return False
    return not any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or char in _BIDI for char in text)

"""What comes over an upstream's WebSocket, as types: text and binary frames.

Parsing never raises. Rubbish, unknown types and frames that lack what they need become None: custom nodes may send
whatever they like, and none of it may stop a prompt. What leaks (tracebacks, node inputs, server paths) is dropped
here, so nothing behind this module has seen it.

What a frame *means* for a prompt is decided in ``protocol.py``; HTTP answers are parsed in ``answers.py``.

Source: ComfyUI a125cd84, ``server.py`` (``send_*``), ``execution.py``, ``comfy_execution/progress.py``,
``protocol.py`` (binary event numbers); VHS 4ee72c0, ``latent_preview.py`` (its longer preview header).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from gateway.comfy.messages import NodeOutput, OutputFile

# ---------------------------------------------------------------------------------------------------------- text frames


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """``status``: the length of the queue; sent to every socket. ``client_id`` stands in a socket's first one only."""

    queue_remaining: int
    client_id: str | None


@dataclass(frozen=True, slots=True)
class FeatureFlags:
    """``feature_flags``: the answer to ours, so the proof that this socket is the one the server writes to."""

    max_upload_bytes: int | None


@dataclass(frozen=True, slots=True)
class ExecutionStart:
    """``execution_start``: the prompt left the queue."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ExecutionCached:
    """``execution_cached``: nodes that need not run."""

    prompt_id: str
    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executing:
    """``executing``: a node began, or (``node_id`` None) the prompt left the server.

    ``prompt_id`` is None in the one frame that a reconnecting client gets as its whole replay.
    """

    prompt_id: str | None
    node_id: str | None
    display_node_id: str | None


class ProgressTick(NamedTuple):
    """``progress``: the running node's counter. Half of all frames are these, so it is a tuple: quicker to make."""

    prompt_id: str
    node_id: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node of a ``progress_state``."""

    node_id: str
    display_node_id: str
    is_finished: bool
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class ProgressState:
    """``progress_state``: every node that was started so far."""

    prompt_id: str
    nodes: tuple[NodeState, ...]


@dataclass(frozen=True, slots=True)
class Executed:
    """``executed``: an output node spoke. ``output.node_id`` is the display node."""

    prompt_id: str
    output: NodeOutput


class Ending(StrEnum):
    """How a prompt says that it ended; only a hint, history decides."""

    SUCCESS = "execution_success"
    ERROR = "execution_error"
    INTERRUPTED = "execution_interrupted"


@dataclass(frozen=True, slots=True)
class ExecutionEnded:
    """``execution_success``, ``execution_error`` or ``execution_interrupted``."""

    prompt_id: str
    ending: Ending


@dataclass(frozen=True, slots=True)
class Logs:
    """``logs``: lines of the server's log, colours removed."""

    lines: tuple[str, ...]


# -------------------------------------------------------------------------------------------------------- binary frames


@dataclass(frozen=True, slots=True)
class PreviewPicture:
    """A preview. Ids are None in the old kind (event 1)."""

    prompt_id: str | None
    node_id: str | None
    content_type: str
    data: bytes


#: Frames about one prompt; ``prompt_id`` is None in one kind of ``Executing``.
PromptFrame = ExecutionStart | ExecutionCached | Executing | ProgressTick | ProgressState | Executed | ExecutionEnded
TextFrame = QueueStatus | FeatureFlags | Logs | PromptFrame

# Colour and cursor sequences: the log is written for a terminal.
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MAX_LOG_LINES = 1000
_MAX_LOG_LINE_CHARACTERS = 2000


def parse_text(frame: str | bytes) -> TextFrame | None:
    """The frame, or None for what is unknown, incomplete or not JSON."""
    outer = load_json(frame)
    if not isinstance(outer, dict):
        return None
    kind, data = outer.get("type"), outer.get("data")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None or not isinstance(data, dict):
        return None
    return reader(data)


def _status(data: dict[str, Any]) -> QueueStatus | None:
    status = data.get("status")
    info = status.get("exec_info") if isinstance(status, dict) else None
    remaining = info.get("queue_remaining") if isinstance(info, dict) else None
    if not isinstance(remaining, int):
        return None
    return QueueStatus(remaining, as_id(data.get("sid")))


def _feature_flags(data: dict[str, Any]) -> FeatureFlags:
    return FeatureFlags(as_size(data.get("max_upload_size")))


def _execution_start(data: dict[str, Any]) -> ExecutionStart | None:
    prompt_id = as_id(data.get("prompt_id"))
    return ExecutionStart(prompt_id) if prompt_id is not None else None


def _execution_cached(data: dict[str, Any]) -> ExecutionCached | None:
    prompt_id, nodes = as_id(data.get("prompt_id")), data.get("nodes")
    if prompt_id is None or not isinstance(nodes, list):
        return None
    return ExecutionCached(prompt_id, tuple(node for node in nodes if isinstance(node, str)))


def _executing(data: dict[str, Any]) -> Executing | None:
    prompt_id, node_id = as_id(data.get("prompt_id")), as_id(data.get("node"))
    if prompt_id is None and node_id is None:
        return None
    if node_id is None and data.get("node", "") is not None:
        return None  # an end marker says null; a number or an object is rubbish
    return Executing(prompt_id, node_id, as_id(data.get("display_node")) or node_id)


def _progress(data: dict[str, Any]) -> ProgressTick | None:
    prompt_id, node_id = as_id(data.get("prompt_id")), as_id(data.get("node"))
    value, maximum = as_number(data.get("value")), as_number(data.get("max"))
    if prompt_id is None or node_id is None or value is None or maximum is None:
        return None
    return ProgressTick(prompt_id, node_id, value, maximum)


def _progress_state(data: dict[str, Any]) -> ProgressState | None:
    prompt_id, nodes = as_id(data.get("prompt_id")), data.get("nodes")
    if prompt_id is None or not isinstance(nodes, dict):
        return None
    states = (_node_state(node_id, state) for node_id, state in nodes.items())
    return ProgressState(prompt_id, tuple(state for state in states if state is not None))


def _node_state(node_id: str, state: object) -> NodeState | None:
    if not isinstance(state, dict):
        return None
    value, maximum = as_number(state.get("value")), as_number(state.get("max"))
    if value is None or maximum is None:
        return None
    display = as_id(state.get("display_node_id")) or node_id
    return NodeState(node_id, display, state.get("state") == "finished", value, maximum)


def _executed(data: dict[str, Any]) -> Executed | None:
    prompt_id, node_id = as_id(data.get("prompt_id")), as_id(data.get("node"))
    if prompt_id is None or node_id is None:
        return None
    node_id = as_id(data.get("display_node")) or node_id
    return Executed(prompt_id, node_output(prompt_id, node_id, data.get("output")))


def _ended(ending: Ending) -> Callable[[dict[str, Any]], ExecutionEnded | None]:
    def read(data: dict[str, Any]) -> ExecutionEnded | None:
        prompt_id = as_id(data.get("prompt_id"))
        return ExecutionEnded(prompt_id, ending) if prompt_id is not None else None

    return read


def _logs(data: dict[str, Any]) -> Logs | None:
    entries = data.get("entries")
    if not isinstance(entries, list):
        return None
    texts = (entry.get("m") for entry in entries[:_MAX_LOG_LINES] if isinstance(entry, dict))
    lines = (line for text in texts if isinstance(text, str) for line in _ANSI.sub("", text).splitlines())
    return Logs(tuple(line.strip()[:_MAX_LOG_LINE_CHARACTERS] for line in lines if line.strip()))


_READERS: Mapping[str, Callable[[dict[str, Any]], TextFrame | None]] = {
    "status": _status,
    "feature_flags": _feature_flags,
    "execution_start": _execution_start,
    "execution_cached": _execution_cached,
    "executing": _executing,
    "progress": _progress,
    "progress_state": _progress_state,
    "executed": _executed,
    "logs": _logs,
    **{ending.value: _ended(ending) for ending in Ending},
}

_EVENT_PREVIEW = 1
_EVENT_PREVIEW_WITH_METADATA = 4
# A picture is believed by how it begins, never by what the header calls it.
_MAGIC = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))
# VHS puts 24 bytes (type, index, padded node id) before the JPEG where ComfyUI puts 4.
_LONGEST_PREVIEW_HEADER = 64


def parse_binary(frame: bytes) -> PreviewPicture | None:
    """The preview in a binary frame, or None: other events and what is no picture are ignored."""
    if len(frame) < 8:  # noqa: PLR2004 - two big-endian 32-bit words: event and what it is about
        return None
    event, second = struct.unpack_from(">II", frame)
    if event == _EVENT_PREVIEW:
        return _picture(frame[4:], None, None)
    if event == _EVENT_PREVIEW_WITH_METADATA:
        return _picture_with_metadata(frame[8 : 8 + second], frame[8 + second :])
    return None


def _picture_with_metadata(header: bytes, body: bytes) -> PreviewPicture | None:
    metadata = load_json(header)
    if not isinstance(metadata, dict):
        return None
    node_id = as_id(metadata.get("display_node_id")) or as_id(metadata.get("node_id"))
    return _picture(body, as_id(metadata.get("prompt_id")), node_id)


def _picture(body: bytes, prompt_id: str | None, node_id: str | None) -> PreviewPicture | None:
    head = body[:_LONGEST_PREVIEW_HEADER]
    for magic, content_type in _MAGIC:
        start = head.find(magic)
        if start >= 0:
            return PreviewPicture(prompt_id, node_id, content_type, body[start:])
    return None


# --------------------------------------------------------------------------------------------- shared with answers.py


def load_json(text: str | bytes) -> Any:
    """What Python's json module would have written; None for what it would not.

    ComfyUI writes NaN and Infinity, which are no JSON: nodes that must always run return NaN as their ``IS_CHANGED``,
    which ends up in /history, and limits in /object_info may be infinite. The fast parser refuses both.
    """
    try:
        return orjson.loads(text)
    except ValueError:  # lone surrogates and too deep nesting included
        pass
    try:
        return json.loads(text, parse_int=_parse_int)
    except (ValueError, RecursionError):
        return None


def _parse_int(digits: str) -> int | float:
    # As the fast parser does: what 64 bits cannot hold is a float, never a number that float() refuses.
    return int(digits) if len(digits) <= 18 else float(digits)  # noqa: PLR2004 - 18 digits always fit


_FOLDERS = frozenset({"output", "temp", "input"})
# What tells of a file, and is none to be fetched: our own node's (comfy_nodes/upload_node.py).
_REPORTS = frozenset({"gateway_upload"})
# Server paths, and the name of a PNG that holds the whole prompt.
_LEAKS = frozenset({"fullpath", "workflow"})


@dataclass(slots=True)
class _Sorted:
    files: list[OutputFile] = field(default_factory=list)
    data: dict[str, object] = field(default_factory=dict)


def node_output(prompt_id: str, node_id: str, output: object) -> NodeOutput:
    """A node's UI output, sorted into files and the rest; without the server's paths."""
    found = _Sorted()
    for kind, items in output.items() if isinstance(output, dict) else ():
        _sort_output(found, str(kind), items)
    return NodeOutput(prompt_id, node_id, tuple(found.files), found.data)


def _sort_output(found: _Sorted, kind: str, items: object) -> None:
    if kind in _REPORTS:
        found.data[kind] = items
        return
    rest: list[object] = []
    for item in items if isinstance(items, list) else [items]:
        file = _output_file(kind, item)
        if file is not None:
            found.files.append(file)
        else:
            rest.append(_without_leaks(item))
    if rest:
        found.data[kind] = rest if isinstance(items, list) else rest[0]


def _output_file(kind: str, item: object) -> OutputFile | None:
    if not isinstance(item, dict):
        return None
    filename, subfolder, folder = item.get("filename"), item.get("subfolder", ""), item.get("type", "output")
    if not isinstance(filename, str) or not filename or not isinstance(subfolder, str) or folder not in _FOLDERS:
        return None
    file_format = item.get("format")
    return OutputFile(filename, subfolder, folder, kind, file_format if isinstance(file_format, str) else None)


def _without_leaks(item: object) -> object:
    if not isinstance(item, dict):
        return item
    return {key: value for key, value in item.items() if key not in _LEAKS}


def as_id(value: object) -> str | None:
    """A prompt, node or client id: any string but the empty one."""
    return value if isinstance(value, str) and value else None


def as_number(value: object) -> float | None:
    """A finite JSON number; booleans are none."""
    if type(value) is int:  # what counters are; a bool is of another type
        return float(value)
    return value if isinstance(value, float) and math.isfinite(value) else None


def as_size(value: object) -> int | None:
    """A size in bytes, or None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

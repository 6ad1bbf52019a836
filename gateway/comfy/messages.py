"""What ComfyUI says, as types: the messages of one prompt's life, and the four ways it ends.

``protocol.py`` makes these from frames and HTTP answers; ``progress.py`` and the runner read them. They are ours, not
ComfyUI's: one type says the same thing whichever frame, history entry or version it came from.

Source: ComfyUI a125cd84 (0.3.64), ``server.py``, ``execution.py``, ``comfy_execution/progress.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file that an output node names; fetched by ``GET /view``."""

    #: Name on the upstream, no folder in it.
    filename: str
    #: Folder below ``type``'s folder, possibly "".
    subfolder: str
    #: "output", "temp" or "input".
    type: str
    #: The key it stood under in the node's UI output: "images", "gifs", "audio", …
    kind: str
    #: What VHS calls the format, e.g. "video/h264-mp4"; None where the node does not say.
    format: str | None = None
    #: What the node said itself, in place of a file; then there is nothing to fetch, and no name.
    text: str | None = None


@dataclass(frozen=True, slots=True)
class PromptStarted:
    """The upstream took the prompt off its queue."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class NodesCached:
    """These nodes will not run: their outputs are known. May be empty."""

    prompt_id: str
    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node began. ``node_id`` is the *display* node, so an id of our graph even under subgraph expansion."""

    prompt_id: str
    node_id: str


class NodeProgress(NamedTuple):
    """A node's own counter. It may fall: then a new pass began.

    Most of all messages are these; a tuple is made in half the time of a frozen dataclass.
    """

    prompt_id: str
    node_id: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """A node ended well."""

    prompt_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """An output node's UI output; ``files`` are the ones to fetch, ``data`` is everything else it said."""

    prompt_id: str
    node_id: str
    files: tuple[OutputFile, ...]
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of the work in progress. ``prompt_id`` and ``node_id`` are None on old servers."""

    prompt_id: str | None
    node_id: str | None
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the upstream's log, colours removed, said while this prompt ran."""

    prompt_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The end: history says success. ``outputs`` maps node id to its output, in the graph's order of execution."""

    prompt_id: str
    outputs: Mapping[str, NodeOutput]


@dataclass(frozen=True, slots=True)
class Failed:
    """The end: a node raised, or the graph was refused.

    ``code`` is one of ``errors.py``: node_failed, out_of_memory, unreadable_input, graph_rejected.
    ``message`` is a sentence of ours, safe for clients; ``detail`` is what the upstream said, for the log only.
    """

    prompt_id: str
    code: str
    message: str
    node_id: str | None = None
    node_class: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The end: somebody interrupted or dequeued it."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The end, as far as we can know: the upstream no longer knows the prompt, or no longer answers."""

    prompt_id: str
    reason: str
    #: Whether a process that lives and dies with us was stopped or killed: nobody's fault but ours.
    by_our_stop: bool = False


Outcome = Succeeded | Failed | Interrupted | Lost
Message = (
    PromptStarted | NodesCached | NodeStarted | NodeProgress | NodeFinished | NodeOutput | Preview | LogLine | Outcome
)

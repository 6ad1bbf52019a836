"""What an upstream answers over HTTP, as types.

Parsing never raises: a body that is not what the route promises becomes None (or, for POST /prompt, ``Unclear``), and
the caller decides what not knowing means. Secrets of others in /queue and tracebacks are dropped here.

Source: ComfyUI a125cd84, ``server.py`` (routes), ``execution.py`` (``validate_prompt``, ``PromptQueue``); what later
versions add is marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.comfy.frames import as_id, as_number, as_size, load_json, node_output
from gateway.comfy.messages import NodeOutput

OK = 200
BAD_REQUEST = 400
PAYLOAD_TOO_LARGE = 413

#: ``extra_data`` keys under which a prompt of ours names its job, so that it is known again after any restart.
JOB_KEY = "gateway_job"
ATTEMPT_KEY = "gateway_attempt"
#: Another: our folder there. By it the node pack knows which prompts are ours.
FOLDER_KEY = "gateway_folder"

# What upstreams say word for word is kept for the log only, and not endlessly.
_MAX_DETAIL_CHARACTERS = 2000


# -------------------------------------------------------------------------------------------------------- POST /prompt


@dataclass(frozen=True, slots=True)
class NodeFault:
    """What validation says against one node's input."""

    node_id: str
    node_class: str
    #: ComfyUI's word, e.g. "value_not_in_list", "custom_validation_failed".
    type: str
    input_name: str | None
    #: What it said; for logs.
    detail: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """200: the prompt is queued. ``faults``: output nodes that were silently left out."""

    prompt_id: str
    number: float
    faults: tuple[NodeFault, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The prompt was surely not queued, and the graph is why."""

    #: ComfyUI's ``error.type``: "prompt_outputs_failed_validation", "invalid_prompt", "missing_node_type" (since
    #: 0.20), "invalid_prompt_id" (after 0.26), …; "too_large" for a 413.
    type: str
    detail: str
    faults: tuple[NodeFault, ...]


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The prompt was surely not queued, and the graph is not why: wrong credentials, not a ComfyUI."""

    status: int


@dataclass(frozen=True, slots=True)
class Unclear:
    """Nobody knows: a 500 from ComfyUI is no proof that the prompt was not queued, nor is any proxy's 5xx."""

    status: int


Submission = Accepted | Refused | TurnedAway | Unclear


def parse_submission(status: int, body: bytes) -> Submission:
    """What POST /prompt answered."""
    answer = load_json(body)
    if status == OK and isinstance(answer, dict):
        prompt_id, number = as_id(answer.get("prompt_id")), as_number(answer.get("number"))
        if prompt_id is not None:
            return Accepted(prompt_id, number or 0.0, _node_faults(answer.get("node_errors")))
    if status == BAD_REQUEST and isinstance(answer, dict):
        return _refused(answer)
    if status == PAYLOAD_TOO_LARGE:
        return Refused("too_large", "the request body is larger than the upstream takes", ())
    if BAD_REQUEST < status < 500 and status != 408:  # noqa: PLR2004 - client errors; 408 may come after the body
        return TurnedAway(status)
    return Unclear(status)


def _refused(answer: dict[str, Any]) -> Refused:
    error = answer.get("error")
    if not isinstance(error, dict):  # before structured errors, and some proxies: a plain string
        return Refused("unknown", str(error)[:_MAX_DETAIL_CHARACTERS], _node_faults(answer.get("node_errors")))
    said = f"{error.get('message', '')} {error.get('details', '')}".strip()
    kind = as_id(error.get("type")) or "unknown"
    return Refused(kind, said[:_MAX_DETAIL_CHARACTERS], _node_faults(answer.get("node_errors")))


def _node_faults(node_errors: object) -> tuple[NodeFault, ...]:
    if not isinstance(node_errors, dict):
        return ()
    return tuple(
        fault
        for node_id, node in node_errors.items()
        if isinstance(node, dict)
        for fault in _faults_of_node(str(node_id), node)
    )


def _faults_of_node(node_id: str, node: dict[str, Any]) -> tuple[NodeFault, ...]:
    node_class = as_id(node.get("class_type")) or ""
    errors = node.get("errors")
    found = (
        [_fault(node_id, node_class, error) for error in errors if isinstance(error, dict)]
        if isinstance(errors, list)
        else []
    )
    # A node that is named but says nothing is at fault all the same.
    return tuple(found) or (NodeFault(node_id, node_class, "unknown", None, ""),)


def _fault(node_id: str, node_class: str, error: dict[str, Any]) -> NodeFault:
    # extra_info is left behind: it may hold a traceback, and always holds what is said elsewhere already.
    extra = error.get("extra_info")
    input_name = as_id(extra.get("input_name")) if isinstance(extra, dict) else None
    said = f"{error.get('message', '')}: {error.get('details', '')}"[:_MAX_DETAIL_CHARACTERS]
    return NodeFault(node_id, node_class, as_id(error.get("type")) or "unknown", input_name, said)


# ---------------------------------------------------------------------------------------------------------- GET /queue


@dataclass(frozen=True, slots=True)
class QueueItem:
    """A prompt in the queue, without its graph and without the secrets that /queue shows of others."""

    prompt_id: str
    number: float
    client_id: str | None
    gateway_job: str | None


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """GET /queue; ``pending`` in the order in which they will run."""

    running: tuple[QueueItem, ...]
    pending: tuple[QueueItem, ...]

    def holds(self, prompt_id: str) -> bool:
        """Whether the prompt waits or runs."""
        return any(item.prompt_id == prompt_id for item in (*self.running, *self.pending))


def parse_queue(status: int, body: bytes) -> QueueSnapshot | None:
    """GET /queue's answer; None when it is none."""
    answer = load_json(body) if status == OK else None
    if not isinstance(answer, dict):
        return None
    running, pending = answer.get("queue_running"), answer.get("queue_pending")
    if not isinstance(running, list) or not isinstance(pending, list):
        return None
    waiting = sorted(_queue_items(pending), key=lambda item: item.number)  # it comes as a heap
    return QueueSnapshot(tuple(_queue_items(running)), tuple(waiting))


def _queue_items(items: list[Any]) -> list[QueueItem]:
    found = (_queue_item(item) for item in items)
    return [item for item in found if item is not None]


def _queue_item(item: object) -> QueueItem | None:
    # Five elements; six for what VHS requeues and on later versions. The first four always mean the same.
    if not isinstance(item, list) or len(item) < 4 or not isinstance(item[1], str):  # noqa: PLR2004 - told above
        return None
    extra = item[3] if isinstance(item[3], dict) else {}
    return QueueItem(item[1], as_number(item[0]) or 0.0, as_id(extra.get("client_id")), as_id(extra.get(JOB_KEY)))


# --------------------------------------------------------------------------------------------------- GET /history/{id}


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Why a prompt failed, without traceback and inputs. ``type`` and ``message`` are for logs and for deciding."""

    node_id: str | None
    node_class: str | None
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """How a prompt ended."""

    prompt_id: str
    succeeded: bool
    interrupted: bool
    error: ErrorReport | None
    outputs: Mapping[str, NodeOutput]


@dataclass(frozen=True, slots=True)
class NotInHistory:
    """``{}``: it has not ended, or is not known."""


def parse_history(prompt_id: str, status: int, body: bytes) -> HistoryEntry | NotInHistory | None:
    """What GET /history/{id} says of this prompt; None when it says nothing that can be understood."""
    answer = load_json(body) if status == OK else None
    if not isinstance(answer, dict):
        return None
    if not answer:
        return NotInHistory()
    entry = answer.get(prompt_id)
    if not isinstance(entry, dict):
        return None
    told = entry.get("status")
    record = told if isinstance(told, dict) else {}
    messages = _status_messages(record.get("messages"))
    return HistoryEntry(
        prompt_id,
        succeeded=record.get("status_str") == "success",
        interrupted="execution_interrupted" in messages,
        error=_error_report(messages.get("execution_error")),
        outputs=_history_outputs(prompt_id, entry),
    )


def _status_messages(messages: object) -> dict[str, dict[str, Any]]:
    pairs = messages if isinstance(messages, list) else []
    return {
        pair[0]: pair[1]
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict)  # noqa: PLR2004 - a pair
    }


def _error_report(payload: dict[str, Any] | None) -> ErrorReport | None:
    if payload is None:
        return None
    return ErrorReport(
        as_id(payload.get("node_id")),
        as_id(payload.get("node_type")),
        str(payload.get("exception_type", ""))[:_MAX_DETAIL_CHARACTERS],
        str(payload.get("exception_message", "")).strip()[:_MAX_DETAIL_CHARACTERS],
    )


def _history_outputs(prompt_id: str, entry: dict[str, Any]) -> Mapping[str, NodeOutput]:
    outputs, meta = entry.get("outputs"), entry.get("meta")
    if not isinstance(outputs, dict):
        return {}
    found: dict[str, NodeOutput] = {}
    for node_id, output in outputs.items():
        about = meta.get(node_id) if isinstance(meta, dict) else None
        display = as_id(about.get("display_node")) if isinstance(about, dict) else None
        new = node_output(prompt_id, display or node_id, output)
        old = found.get(new.node_id)
        # Nodes that a subgraph expanded into speak for the one node of our graph that shows them.
        found[new.node_id] = new if old is None else _merged(old, new)
    return found


def _merged(old: NodeOutput, new: NodeOutput) -> NodeOutput:
    return NodeOutput(old.prompt_id, old.node_id, old.files + new.files, {**old.data, **new.data})


# ------------------------------------------------------------------------------------------------------------ the rest


@dataclass(frozen=True, slots=True)
class SystemStats:
    """GET /system_stats, what of it matters here."""

    version: str | None
    #: The embedded worker says so; no ComfyUI does.
    is_embedded_worker: bool


def parse_system_stats(status: int, body: bytes) -> SystemStats | None:
    """GET /system_stats's answer; None when it is none: then this is no ComfyUI."""
    answer = load_json(body) if status == OK else None
    system = answer.get("system") if isinstance(answer, dict) else None
    if not isinstance(system, dict):
        return None
    return SystemStats(as_id(system.get("comfyui_version")), bool(system.get("embedded_worker")))


def parse_features(status: int, body: bytes) -> int | None:
    """The largest request body in bytes, from GET /features; None when it does not say."""
    answer = load_json(body) if status == OK else None
    return as_size(answer.get("max_upload_size")) if isinstance(answer, dict) else None


def parse_object_info(status: int, body: bytes) -> Mapping[str, Mapping[str, Any]] | None:
    """Node classes by name, from GET /object_info; entries that are no objects are left out."""
    answer = load_json(body) if status == OK else None
    if not isinstance(answer, dict):
        return None
    return {name: entry for name, entry in answer.items() if isinstance(entry, dict)}


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """Where an upload ended up; the name is the server's choice, not ours."""

    name: str
    subfolder: str

    @property
    def input_value(self) -> str:
        """What a node's file input must say to mean it."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name


def parse_upload(status: int, body: bytes) -> UploadedFile | None:
    """POST /upload/image's answer; what later versions add (``asset``) is not needed."""
    answer = load_json(body) if status == OK else None
    if not isinstance(answer, dict):
        return None
    name, subfolder = as_id(answer.get("name")), answer.get("subfolder")
    return UploadedFile(name, subfolder if isinstance(subfolder, str) else "") if name is not None else None


def parse_jobs_page(status: int, body: bytes) -> bool:
    """Whether GET /api/jobs was answered as 0.6.0 and later do; a 404 before that."""
    answer = load_json(body) if status == OK else None
    return isinstance(answer, dict) and isinstance(answer.get("jobs"), list)

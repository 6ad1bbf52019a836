"""Why a prompt failed, in our words: exception type and message in, code and sentence out.

What an upstream says word for word holds paths, tensors and users' strings; it goes to the log (``detail``), never to
a client. A rule matches on the exception's type or on its message; the first match wins.

Source: ComfyUI a125cd84 ``execution.py``; VHS 4ee72c0 ``load_video_nodes.py``; ReActor 6ad6b35 ``nodes.py``; what
Pillow, torch, onnxruntime and urllib raise beneath them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway import errors
from gateway.comfy.answers import ErrorReport, HistoryEntry, NodeFault, Refused
from gateway.comfy.messages import Failed, Interrupted, NodeOutput, Outcome, Succeeded


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    code: str
    sentence: str


def _rule(pattern: str, error: type[errors.JobError], sentence: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), error.code, sentence)


# Matched against "type: message".
_RULES = (
    _rule(
        r"^([\w.]*OutOfMemoryError|MemoryError|[\w.]*ArrayMemoryError)\b"
        r"|CUDA out of memory|out of memory|can't allocate memory|Allocation on device"
        r"|Failed to allocate memory|Unable to allocate \d",
        errors.UpstreamMemoryError,
        "The upstream ran out of memory; a smaller picture or a shorter video may work.",
    ),
    _rule(
        r"UnidentifiedImageError|could not be loaded with cv|No frames generated|cannot identify image file"
        r"|image file is truncated|No module named 'pi_heif'|Invalid data found when processing input",
        errors.UnreadableInputError,
        "The upstream could not decode one of the inputs.",
    ),
    _rule(
        r"\bURLError\b|HTTPError|ConnectionError: .*(huggingface|github)|LocalEntryNotFoundError"
        r"|onnxruntime.*(InvalidArgument|NoSuchFile|InvalidProtobuf|InvalidGraph)|^EOFError\b"
        r"|FileNotFoundError: .*(model|\.pth|\.onnx|\.safetensors)",
        errors.NodeFailedError,
        "The upstream lacks a model file that this needs, or its copy is damaged.",
    ),
)
_NODE_FAILED = "A node of the workflow failed on the upstream"
# A class name is shown to clients; a graph of a stranger may hold anything in its place.
_PLAIN_CLASS_NAME = re.compile(r"[\w .+()|-]{1,80}", re.ASCII)
# A sequence of pictures reports the pattern of its names, which is no file that one could fetch.
_PATTERN_NAME = re.compile(r"%0?\d*d")


def outcome_of(entry: HistoryEntry) -> Outcome:
    """How the prompt ended, from its history entry."""
    if entry.succeeded:
        return _unusable(entry.prompt_id, entry.outputs) or Succeeded(entry.prompt_id, entry.outputs)
    if entry.error is not None:
        return _node_failed(entry.prompt_id, entry.error)
    if entry.interrupted:
        return Interrupted(entry.prompt_id)
    return Failed(
        entry.prompt_id,
        errors.NodeFailedError.code,
        "The upstream ended this without saying how.",
        detail="history entry without a status",
    )


def _node_failed(prompt_id: str, report: ErrorReport) -> Failed:
    said = f"{report.type}: {report.message}"
    for rule in _RULES:
        if rule.pattern.search(said):
            return Failed(prompt_id, rule.code, rule.sentence, report.node_id, report.node_class, said)
    named = report.node_class is not None and _PLAIN_CLASS_NAME.fullmatch(report.node_class)
    sentence = f"{_NODE_FAILED} ({report.node_class})." if named else f"{_NODE_FAILED}."
    return Failed(prompt_id, errors.NodeFailedError.code, sentence, report.node_id, report.node_class, said)


def _unusable(prompt_id: str, outputs: Mapping[str, NodeOutput]) -> Failed | None:
    """Successes that hold no result we could fetch."""
    for output in outputs.values():
        if "unfinished_batch" in output.data:
            # VHS has queued the next slice under an id that it tells nobody; the session has it removed.
            return _graph_unusable(
                prompt_id,
                output.node_id,
                "The workflow cuts its input into batches (meta batch), which is not offered.",
            )
        if any(_PATTERN_NAME.search(file.filename) for file in output.files):
            return _graph_unusable(
                prompt_id, output.node_id, "The workflow writes a sequence of pictures, which is not offered."
            )
    return None


def _graph_unusable(prompt_id: str, node_id: str, sentence: str) -> Failed:
    return Failed(prompt_id, errors.RejectedGraphError.code, sentence, node_id)


def is_unfinished_batch(entry: HistoryEntry) -> bool:
    """Whether VHS has queued another prompt to go on with this one."""
    return any("unfinished_batch" in output.data for output in entry.outputs.values())


def refusal_of(prompt_id: str, refused: Refused) -> Failed:
    """What a refused graph means for the job."""
    if refused.type == "too_large":
        sentence = "The workflow is larger than the upstream takes."
    elif refused.type in {"invalid_prompt", "missing_node_type"}:  # the latter since 0.20
        sentence = "The upstream lacks a node that the workflow needs."
    else:
        sentence = "The upstream refused the workflow."
    return _rejected(prompt_id, sentence, f"{refused.type}: {refused.detail}", refused.faults)


def partly_accepted(prompt_id: str, faults: tuple[NodeFault, ...]) -> Failed:
    """A graph of which ComfyUI would have run only a part: as bad as refused."""
    return _rejected(prompt_id, "The upstream would have run only a part of the workflow.", "partly valid", faults)


def _rejected(prompt_id: str, sentence: str, detail: str, faults: tuple[NodeFault, ...]) -> Failed:
    first = faults[0] if faults else None
    said = "; ".join([detail, *(f"node {fault.node_id} {fault.type} {fault.detail}" for fault in faults)])
    return Failed(
        prompt_id,
        errors.RejectedGraphError.code,
        sentence,
        first.node_id if first else None,
        (first.node_class or None) if first else None,
        said[:4000],
    )


def names_missing_file(faults: tuple[NodeFault, ...]) -> bool:
    """Whether the refusal is about input files only: they were uploaded, so somebody removed them since."""
    return bool(faults) and all(
        fault.type == "custom_validation_failed" and "Invalid " in fault.detail and " file: " in fault.detail
        for fault in faults
    )

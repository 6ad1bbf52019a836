"""What ComfyUI still tells of a gateway's prompts that have ended: their entries in its history, their previews in temp.

An entry is a gateway's when the prompt was sent with that gateway's folder in its extra data. Previews have names of ComfyUI's own
choice, so those alone are deleted that the entry names, and of these those of nodes that carry the gateway's mark: by the mark no
later prompt is shown the same file from ComfyUI's cache.

Source: ComfyUI a125cd84, ``execution.py`` (PromptQueue.history: entries by prompt id, each with the queue's item, of which the
third part is the graph and the fourth the extra data, and the outputs by node).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .cleaning import GONE, REFUSED, ROOT, WAS_NOT_THERE, Reference, delete_preview

#: Key of the extra data: ``gateway/<id>``.
FOLDER_KEY = "gateway_folder"
#: An input that no class has; it begins with the same.
MARK = "gateway_attempt"
#: Told of in one answer.
MAX_PROMPTS = 1000


class History(NamedTuple):
    """The history of a ComfyUI."""

    #: All entries, by prompt id, as they are now.
    entries: Callable[[], Mapping[str, Any]]
    #: Drops one.
    forget: Callable[[str], None]


def own_prompts(history: History, gateway: str) -> list[str]:
    """Ids of a gateway's prompts that stand in the history, a thousand at most."""
    return [prompt_id for prompt_id, entry in history.entries().items() if _is_of(entry, gateway)][:MAX_PROMPTS]


def forget(history: History, roots: Mapping[str, str], gateway: str, prompt_id: str) -> str:
    """Delete the previews of a gateway's prompt, and its entry; what came of it."""
    entry = history.entries().get(prompt_id)
    if entry is None:
        return WAS_NOT_THERE
    if not _is_of(entry, gateway):
        return REFUSED
    for reference in _previews(entry, gateway):
        delete_preview(roots, reference)
    history.forget(prompt_id)
    return GONE


def _part(entry: Any, index: int) -> Mapping[str, Any]:
    item = entry.get("prompt") if isinstance(entry, Mapping) else None
    part = item[index] if isinstance(item, list | tuple) and len(item) > index else None
    return part if isinstance(part, Mapping) else {}


def _is_of(entry: Any, gateway: str) -> bool:
    return bool(_part(entry, 3).get(FOLDER_KEY) == f"{ROOT}/{gateway}")


def _previews(entry: Mapping[str, Any], gateway: str) -> Iterator[Reference]:
    graph, outputs = _part(entry, 2), entry.get("outputs")
    for node_id, told in outputs.items() if isinstance(outputs, Mapping) else ():
        node = graph.get(node_id)
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        mark = inputs.get(MARK) if isinstance(inputs, Mapping) else None
        if isinstance(mark, str) and mark.startswith(f"{ROOT}/{gateway}/"):
            yield from _temporary(told)


def _temporary(told: Any) -> Iterator[Reference]:
    for listed in told.values() if isinstance(told, Mapping) else ():
        for file in listed if isinstance(listed, list | tuple) else ():
            if isinstance(file, Mapping) and file.get("type") == "temp":
                subfolder, name = file.get("subfolder"), file.get("filename")
                if isinstance(subfolder, str) and isinstance(name, str):
                    yield "temp", subfolder, name

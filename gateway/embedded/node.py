"""What a node is to the worker: its input table, what it gives, how it runs, when its result may be reused.

The worker's IMAGE is a numpy array of uint8, shape (frames, height, width, 3), RGB. ComfyUI's is float32: at 12 bytes a
pixel instead of 3, a minute of 720p would be 20 GB before anything is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.embedded.files import Folders

Image = NDArray[np.uint8]
Graph = dict[str, Any]
InputTable = dict[str, dict[str, Any]]
BYTES_PER_PIXEL = 3


class InterruptedRunError(Exception):
    """The prompt was interrupted."""


class OutOfMemoryError(Exception):
    """A batch of images would pass the worker's limit."""

    #: Clients know an out-of-memory error by this name, so the worker uses it too.
    exception_type = "torch.OutOfMemoryError"
    tips = (
        "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might have "
        "accidentally set the batch_size to a large number."
    )


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a node is handed besides its inputs."""

    folders: Folders
    node_id: str
    #: The whole graph and what came with it; output nodes write them into their files.
    graph: Graph
    extra_data: Mapping[str, Any]
    image_limit_bytes: int
    #: value, maximum. Raises InterruptedRunError.
    tick: Callable[[int, int], None]
    #: Raises InterruptedRunError.
    check_interrupted: Callable[[], None]
    log: Callable[[str], None]

    def reserve(self, frames: int, height: int, width: int) -> None:
        """Ask for room for a batch.

        Raises:
            OutOfMemoryError: it would pass the limit.
        """
        size_bytes = frames * height * width * BYTES_PER_PIXEL
        if size_bytes > self.image_limit_bytes:
            raise OutOfMemoryError(
                f"{frames} frames of {width}x{height} take {size_bytes} bytes, allowed are {self.image_limit_bytes}."
            )

    def pnginfo_extra(self) -> Mapping[str, Any]:
        """``extra_data.extra_pnginfo``; empty when it is missing or no object."""
        extra = self.extra_data.get("extra_pnginfo")
        return extra if isinstance(extra, dict) else {}


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What a run gave: one value per output slot, and what the user interface is told (output nodes only)."""

    outputs: tuple[Any, ...] = ()
    ui: dict[str, list[Any]] | None = None


def _nothing_to_check(folders: Folders, inputs: Mapping[str, Any]) -> dict[str, str]:
    del folders, inputs
    return {}


def _never_changes(folders: Folders, inputs: Mapping[str, Any]) -> str:
    del folders, inputs
    return ""


@dataclass(frozen=True, slots=True)
class NodeType:
    """One class of node."""

    name: str
    display_name: str
    category: str
    #: Read anew at each request: combos of files change.
    inputs: Callable[[Folders], InputTable]
    run: Callable[[RunContext, Mapping[str, Any]], NodeResult]
    #: Output types and their names.
    outputs: tuple[tuple[str, str], ...] = ()
    is_output: bool = False
    python_module: str = "nodes"
    description: str = ""
    #: Inputs that take more link types than their own, as VHS's ``frame_rate`` takes INT.
    also_accepts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: Inputs that ``check`` judges, so that list and range rules do not apply to them.
    checked_inputs: frozenset[str] = frozenset()
    #: Inputs taken though the table does not name them, as VHS's format settings.
    extra_inputs: frozenset[str] = frozenset()
    #: input name → what is wrong with its literal value.
    check: Callable[[Folders, Mapping[str, Any]], dict[str, str]] = _nothing_to_check
    #: What else than its inputs a result depends on (ComfyUI's IS_CHANGED).
    fingerprint: Callable[[Folders, Mapping[str, Any]], str] = _never_changes

    @property
    def return_types(self) -> tuple[str, ...]:
        """The types of the output slots."""
        return tuple(kind for kind, _ in self.outputs)

    def object_info(self, folders: Folders) -> dict[str, Any]:
        """The entry of ``/object_info``. Source: ComfyUI a125cd84, ``server.py``, node_info."""
        table = self.inputs(folders)
        return {
            "input": table,
            "input_order": {part: list(names) for part, names in table.items()},
            "output": list(self.return_types),
            "output_is_list": [False] * len(self.outputs),
            "output_name": [name for _, name in self.outputs],
            "name": self.name,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": self.python_module,
            "category": self.category,
            "output_node": self.is_output,
        }

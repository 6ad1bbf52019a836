"""A worker's parts without sockets: folders in a temporary place, tiny pictures, a recording of frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gateway.embedded.cache import ResultCache
from gateway.embedded.execution import Executor
from gateway.embedded.faults import Faults, parse_faults
from gateway.embedded.files import Folders
from gateway.embedded.node import NodeResult, NodeType
from gateway.embedded.quirks import Quirks
from gateway.embedded.registry import REGISTRY
from gateway.embedded.state import QueuedPrompt


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    found = Folders(tmp_path / "worker")
    found.prepare()
    return found


@pytest.fixture
def picture(folders: Folders) -> str:
    pixels = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(pixels).save(folders.directory / "input" / "pic.png")
    return "pic.png"


@pytest.fixture
def image_graph(picture: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "job/out"}},
    }


def counting_node(passes: int, steps: int, on_tick: Callable[[int], None] = lambda _: None) -> NodeType:
    """An output node that ticks like ReActor: per pass 1..steps, then 0."""

    def run(context: Any, inputs: Any) -> NodeResult:
        for _ in range(passes):
            for value in [*range(1, steps + 1), 0]:
                context.tick(value, steps)
                on_tick(value)
        return NodeResult((), {"text": [inputs["text"]]})

    return NodeType(
        name="Counting",
        display_name="Counting",
        category="test",
        inputs=lambda _: {"required": {"text": ["STRING", {}]}},
        run=run,
        is_output=True,
    )


@dataclass
class Bench:
    """An executor on a frozen clock, and the frames it emitted."""

    executor: Executor
    frames: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    ids: Any = field(default_factory=itertools.count)

    def run(self, graph: dict[str, Any], outputs: list[str], prompt: QueuedPrompt | None = None) -> dict[str, Any]:
        self.frames.clear()
        prompt = prompt or self.prompt(graph, outputs)
        return self.executor.execute(prompt, lambda kind, data, _to_all: self.frames.append((kind, data)))

    def prompt(self, graph: dict[str, Any], outputs: list[str]) -> QueuedPrompt:
        return QueuedPrompt(0, f"prompt-{next(self.ids)}", graph, {"client_id": "c"}, outputs)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.frames]

    def executing(self) -> list[str]:
        return [data["node"] for kind, data in self.frames if kind == "executing"]

    def ticks(self) -> list[int]:
        return [data["value"] for kind, data in self.frames if kind == "progress"]

    def only(self, kind: str) -> dict[str, Any]:
        (found,) = [data for name, data in self.frames if name == kind]
        return found


@pytest.fixture
def make_bench(folders: Folders) -> Callable[..., Bench]:
    def make(
        *,
        quirks: Quirks = Quirks(),  # noqa: B008 - frozen
        faults: str = "",
        nodes: tuple[NodeType, ...] = (),
        clock: Callable[[], float] = lambda: 0.0,
        image_limit_bytes: int = 10**6,
    ) -> Bench:
        log: list[str] = []
        executor = Executor(
            registry={**REGISTRY, **{node.name: node for node in nodes}},
            folders=folders,
            quirks=quirks,
            faults=Faults(parse_faults(faults), folders.directory),
            cache=ResultCache(image_limit_bytes),
            image_limit_bytes=image_limit_bytes,
            log=log.append,
            clock=clock,
            now_ms=lambda: 1_000,
        )
        return Bench(executor, log=log)

    return make


@pytest.fixture
def count_node() -> Callable[..., NodeType]:
    return counting_node

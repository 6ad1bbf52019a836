"""The nodes of ``comfy_nodes``: ReActor's names and the pack's own.

Thin: tables and functions are the pack's, this module only hands them the worker's tick, interrupt and log. OpenCV is
imported by the pack when a node runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from comfy_nodes import nodes as pack
from comfy_nodes import reactor_nodes as reactor
from comfy_nodes import upload_node
from gateway.embedded.node import InputTable, NodeResult, NodeType, RunContext

REACTOR_MODULE = "custom_nodes.ComfyUI-ReActor"
PACK_MODULE = "custom_nodes.comfygate"


def _as_lists(table: Mapping[str, Mapping[str, Any]]) -> InputTable:
    """A table with lists where the pack has tuples, as JSON has them anyway."""
    return {
        part: {name: list(value) if isinstance(value, tuple) else value for name, value in names.items()}
        for part, names in table.items()
    }


def _reactor_log(context: RunContext) -> Callable[[str], None]:
    """A log that looks like ReActor's; clients search its lines for the reason why nothing was swapped."""

    def log(line: str) -> None:
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        context.log(f"[ReActor] {now} - \x1b[38;5;173mSTATUS\x1b[0m - {line}\n")

    return log


def _swap(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    _reserve_result(context, inputs)
    output = reactor.run_face_swap(
        inputs, on_tick=context.tick, check_interrupted=context.check_interrupted, log=_reactor_log(context)
    )
    return NodeResult((output.swapped_image, output.face_model, output.original_image))


def _reserve_result(context: RunContext, inputs: Mapping[str, Any]) -> None:
    frames, height, width = inputs["input_image"].shape[:3]
    context.reserve(frames, height, width)


def _options(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    del context
    return NodeResult(reactor.run_options(**inputs))


def _boost(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    del context
    return NodeResult(reactor.run_face_boost(**inputs))


def _preview_swap(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    _reserve_result(context, inputs)
    swapped = pack.run_cpu_face_swap(
        inputs, on_tick=context.tick, check_interrupted=context.check_interrupted, log=_reactor_log(context)
    )
    return NodeResult((swapped,))


def _detect(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    context.check_interrupted()
    report = json.dumps(pack.run_face_detect(inputs["image"], inputs["detector"]))
    return NodeResult((report,), {"text": [report]})


def _upload(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    def save_path(prefix: str, width: int, height: int) -> str:
        del width, height
        place = context.folders.save_path(prefix, "output")
        return str(place.folder / f"{place.filename}_{place.counter:05}_")

    report = upload_node.run_upload(
        inputs,
        upload_node.Places({kind: str(context.folders.root(kind)) for kind in ("output", "temp")}, save_path),
        os.environ,
        on_tick=context.tick,
        check_interrupted=context.check_interrupted,
    )
    return NodeResult((), {upload_node.REPORT: [report]})


def _swap_inputs(name: str) -> InputTable:
    """ReActor's table, and beside it what only this worker can do; the gateway asks for it where it is offered."""
    table = _as_lists(reactor.REACTOR_INPUTS[name])
    if name == "ReActorFaceSwap":
        table["optional"] |= _as_lists({"optional": reactor.TRACKING_INPUTS})["optional"]
    return table


def _reactor_node(name: str, run: Callable[[RunContext, Mapping[str, Any]], NodeResult]) -> NodeType:
    return NodeType(
        name=name,
        display_name=reactor.DISPLAY_NAMES[name],
        category=reactor.CATEGORY,
        inputs=lambda _: _swap_inputs(name),
        run=run,
        outputs=tuple(zip(reactor.RETURN_TYPES[name], reactor.RETURN_NAMES[name], strict=True)),
        python_module=REACTOR_MODULE,
    )


def _pack_node(name: str, run: Callable[[RunContext, Mapping[str, Any]], NodeResult], *, is_output: bool) -> NodeType:
    node: Any = pack.NODE_CLASS_MAPPINGS[name]
    return NodeType(
        name=name,
        display_name=pack.NODE_DISPLAY_NAME_MAPPINGS[name],
        category=node.CATEGORY,
        inputs=lambda _: _as_lists(node.INPUT_TYPES()),
        run=run,
        outputs=tuple(zip(node.RETURN_TYPES, getattr(node, "RETURN_NAMES", ()), strict=True)),
        is_output=is_output,
        python_module=PACK_MODULE,
        description=node.DESCRIPTION,
    )


FACE_NODES = (
    _reactor_node("ReActorFaceSwap", _swap),
    _reactor_node("ReActorFaceSwapOpt", _swap),
    _reactor_node("ReActorOptions", _options),
    _reactor_node("ReActorFaceBoost", _boost),
    _pack_node("GatewayCpuFaceSwap", _preview_swap, is_output=False),
    _pack_node("GatewayFaceDetect", _detect, is_output=True),
    _pack_node("GatewayUploadOutput", _upload, is_output=True),
)

"""ReActor's swap nodes for a real ComfyUI, over the CPU swap of ``comfy_nodes/``; for tests only.

Names, inputs and outputs come from ``comfy_nodes/reactor_nodes.py``. What is here is the registration, and the log:
lines go to standard output through a logger named like ReActor's, in its shape, so that ComfyUI's log routes hold
them as they hold ReActor's (6ad6b35, ``scripts/reactor_logger.py``).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

#: Where the pack lies when this folder is not inside the repository.
NODES_VARIABLE = "COMFYGATE_NODES"
_PACKAGE = "comfygate_nodes"

#: ReActor's own level, between INFO and WARNING, and the colour of its name.
_STATUS = logging.INFO + 5
_ORANGE, _PLAIN = "\033[38;5;173m", "\033[0m"


def _load_pack() -> ModuleType:
    """``comfy_nodes/``, under a name that clashes with nothing a ComfyUI loads."""
    # resolve() follows a link from custom_nodes back into the repository.
    default = Path(__file__).resolve().parents[3] / "comfy_nodes"
    init = Path(os.environ.get(NODES_VARIABLE, default)) / "__init__.py"
    spec = importlib.util.spec_from_file_location(_PACKAGE, init)
    if not init.is_file() or spec is None or spec.loader is None:
        raise ImportError(f"no comfy_nodes at {init.parent}: set {NODES_VARIABLE}")
    pack = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = pack
    spec.loader.exec_module(pack)
    return pack


def _make_logger() -> logging.Logger:
    logging.addLevelName(_STATUS, "STATUS")
    logger = logging.getLogger("ReActor")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        # ComfyUI keeps what is written to standard output; it has replaced the stream before it loads packs.
        handler = logging.StreamHandler(sys.stdout)
        shape = f"[%(name)s] %(asctime)s - {_ORANGE}%(levelname)s{_PLAIN} - %(message)s"
        handler.setFormatter(logging.Formatter(shape, datefmt="%H:%M:%S"))
        logger.addHandler(handler)
    return logger


_load_pack()
tables = importlib.import_module(f"{_PACKAGE}.reactor_nodes")
host = importlib.import_module(f"{_PACKAGE}.host")
_logger = _make_logger()


class _Node:
    FUNCTION = "execute"
    CATEGORY = tables.CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI prescribes the name
        return tables.REACTOR_INPUTS[cls.__name__]


class ReActorFaceSwap(_Node):
    RETURN_TYPES = tables.RETURN_TYPES["ReActorFaceSwap"]
    RETURN_NAMES = tables.RETURN_NAMES["ReActorFaceSwap"]

    def execute(self, **inputs: Any) -> tuple[Any, None, Any]:
        image = inputs["input_image"]
        array = host.to_array(image)
        inputs["input_image"] = array
        if inputs.get("source_image") is not None:
            inputs["source_image"] = host.to_array(inputs["source_image"])
        output = tables.run_face_swap(
            inputs,
            on_tick=host.progress_ticks(),
            check_interrupted=host.interrupt_check(),
            log=lambda line: _logger.log(_STATUS, line),
        )
        swapped = image if output.swapped_image is array else host.like_input(output.swapped_image, image)
        return swapped, None, image


class ReActorFaceSwapOpt(ReActorFaceSwap):
    pass


class ReActorOptions(_Node):
    RETURN_TYPES = tables.RETURN_TYPES["ReActorOptions"]
    RETURN_NAMES = tables.RETURN_NAMES["ReActorOptions"]

    def execute(self, **inputs: Any) -> tuple[dict[str, Any]]:
        return tables.run_options(**inputs)


class ReActorFaceBoost(_Node):
    RETURN_TYPES = tables.RETURN_TYPES["ReActorFaceBoost"]
    RETURN_NAMES = tables.RETURN_NAMES["ReActorFaceBoost"]

    def execute(self, **inputs: Any) -> tuple[dict[str, Any]]:
        return tables.run_face_boost(**inputs)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    node.__name__: node for node in (ReActorFaceSwap, ReActorFaceSwapOpt, ReActorOptions, ReActorFaceBoost)
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = dict(tables.DISPLAY_NAMES)

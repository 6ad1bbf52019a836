"""The nodes that users get: GatewayCpuFaceSwap and GatewayFaceDetect here, GatewayUploadOutput from ``upload_node.py``.

Thin registrations: tables here, work in ``swap.py`` and ``detectors.py``. ``run_cpu_face_swap`` and
``run_face_detect`` do the same on numpy arrays for a host that is not ComfyUI. Nothing heavy is imported before a
node runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .detectors import detectors, find
from .host import interrupt_check, like_input, logger, never_interrupted, no_log, no_tick, progress_ticks, to_array
from .options import DEFAULT_ORDER, FACES_ORDERS, PREVIEW_MODEL
from .reactor_nodes import options_of
from .upload_node import GatewayUploadOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INDEX = ("STRING", {"default": "0"})
_ORDERS = (list(FACES_ORDERS), {"default": DEFAULT_ORDER})
CATEGORY = "comfygate"


def run_cpu_face_swap(
    inputs: Mapping[str, Any],
    *,
    on_tick: Callable[[int, int], None] = no_tick,
    check_interrupted: Callable[[], None] = never_interrupted,
    log: Callable[[str], None] = no_log,
) -> NDArray[Any]:
    """Execute GatewayCpuFaceSwap on numpy images; see ``swap.swap_image_batch``."""
    from .swap import swap_image_batch

    swapped, _count = swap_image_batch(
        inputs["input_image"],
        inputs["source_image"],
        options_of(inputs),
        on_tick=on_tick,
        check_interrupted=check_interrupted,
        on_log=log,
    )
    return swapped


def run_face_detect(image: NDArray[Any], detector: str) -> dict[str, Any]:
    """Execute GatewayFaceDetect on a numpy batch.

    Args:
        image: (frames, height, width, 3), uint8 or float 0..1. Faces are looked for in the first frame.
        detector: one of ``detectors.detectors()``.

    Returns:
        ``detector``, ``width`` and ``height`` of the picture, and ``faces``: index (0 is the largest, ties left to
        right), box and eyes in pixels of the picture, and the area that the box has in the detector's eyes.
    """
    from .swap import to_bytes

    picture = to_bytes(image[0])
    height, width = picture.shape[:2]
    faces = [
        {
            "index": index,
            **{side: _plain(getattr(face, side)) for side in ("x", "y", "width", "height", "area")},
            "left_eye": None if face.eyes is None else [_plain(value) for value in face.eyes[0]],
            "right_eye": None if face.eyes is None else [_plain(value) for value in face.eyes[1]],
        }
        for index, face in enumerate(find(picture, detector))
    ]
    return {"detector": detector, "width": width, "height": height, "faces": faces}


def _plain(value: float) -> float:
    """Hundredths of a pixel, and whole numbers without a point."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


class GatewayCpuFaceSwap:
    """Puts the face of one picture on the faces of others; on the CPU, at preview quality."""

    DESCRIPTION = "Swaps faces on the CPU: a preview without any model file."
    CATEGORY = CATEGORY
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("SWAPPED_IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the editor offers."""
        return {
            "required": {
                "input_image": ("IMAGE",),
                "source_image": ("IMAGE",),
                "swap_model": ([PREVIEW_MODEL],),
                "input_faces_index": _INDEX,
                "source_faces_index": _INDEX,
                "input_faces_order": _ORDERS,
                "source_faces_order": _ORDERS,
            }
        }

    def execute(self, **inputs: Any) -> tuple[Any]:
        """Run by ComfyUI with the inputs by name."""
        image = inputs["input_image"]
        array = to_array(image)
        swapped = run_cpu_face_swap(
            {**inputs, "input_image": array, "source_image": to_array(inputs["source_image"])},
            on_tick=progress_ticks(),
            check_interrupted=interrupt_check(),
            log=logger.info,
        )
        return (image if swapped is array else like_input(swapped, image),)


class GatewayFaceDetect:
    """Tells where the faces of a picture are."""

    DESCRIPTION = "Finds faces and reports their boxes, largest first."
    CATEGORY = CATEGORY
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("faces_json",)
    OUTPUT_NODE: ClassVar[bool] = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the editor offers: those detectors that are there, the best one first."""
        return {"required": {"image": ("IMAGE",), "detector": (detectors(),)}}

    def execute(self, image: Any, detector: str) -> dict[str, Any]:
        """Run by ComfyUI; the report is text in the history, and a STRING for other nodes."""
        report = json.dumps(run_face_detect(to_array(image), detector))
        return {"ui": {"text": [report]}, "result": (report,)}


#: Class name → class, as ComfyUI's loader looks for it.
NODE_CLASS_MAPPINGS: dict[str, type] = {
    "GatewayCpuFaceSwap": GatewayCpuFaceSwap,
    "GatewayFaceDetect": GatewayFaceDetect,
    "GatewayUploadOutput": GatewayUploadOutput,
}

#: Class name → what the editor shows.
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "GatewayCpuFaceSwap": "Face Swap, CPU preview (comfygate)",
    "GatewayFaceDetect": "Face Detect (comfygate)",
    "GatewayUploadOutput": "Upload Output (comfygate)",
}

"""What ReActor's swap nodes take, return and do, over the preview swap: plain tables and functions.

Two registrations share it: the gateway's embedded worker and the stand-in pack that tests drop into a real ComfyUI.
It knows neither torch nor ComfyUI; images are numpy arrays (frames, height, width, 3), uint8 or float 0..1, and come
back as the type they came in. What it does not do: restoring faces, boosting them and telling genders. Asked for one
of these it says so in the log and goes on without.

Input names, types, defaults and ranges are facts of ReActor 6ad6b35, ``nodes.py``, as its ``/object_info`` gives them,
except the lists of model files: they hold what exists here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .host import never_interrupted, no_log, no_tick
from .options import DEFAULT_ORDER, FACES_ORDERS, PREVIEW_MODEL, SwapOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The only restorer and booster there is.
NO_MODEL = "none"

_SWITCH = ("BOOLEAN", {"default": True, "label_off": "OFF", "label_on": "ON"})
_GENDERS = (["no", "female", "male"], {"default": "no"})
_ORDERS = (list(FACES_ORDERS), {"default": DEFAULT_ORDER})
_INDEX = ("STRING", {"default": "0"})
_LOG_LEVELS = ([0, 1, 2], {"default": 1})
_VISIBILITY = ("FLOAT", {"default": 1, "min": 0.1, "max": 1, "step": 0.05})
_CODEFORMER_WEIGHT = ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1, "step": 0.05})

#: What both swap nodes require first, in ReActor's order. The four detectors are names in its code, not files; they
#: serve its restorer only, so that any of them is as good as another here.
_SWAP_REQUIRED = {
    "enabled": _SWITCH,
    "input_image": ("IMAGE",),
    "swap_model": ([PREVIEW_MODEL],),
    "facedetection": (["retinaface_resnet50", "retinaface_mobile0.25", "YOLOv5l", "YOLOv5n"],),
    "face_restore_model": ([NO_MODEL],),
    "face_restore_visibility": _VISIBILITY,
    "codeformer_weight": _CODEFORMER_WEIGHT,
}

#: What ReActor does not have: its swap node follows nobody, and numbers faces anew in every frame, and in what an earlier
#: node has swapped. A host offers these beside ReActor's own where it wants to do better.
REFERENCE_INPUT = "gateway_reference_frame"
ORIGINAL_INPUT = "gateway_original"
TRACKING_INPUTS: dict[str, Any] = {
    #: Frame whose faces ``input_faces_index`` numbers; they are followed from there.
    REFERENCE_INPUT: ("INT", {"default": 0, "min": 0, "max": 1_000_000}),
    #: The frames as they were before any swap; there faces are looked for.
    ORIGINAL_INPUT: ("IMAGE",),
}

#: Class name → what its ``INPUT_TYPES()`` answers.
REACTOR_INPUTS: dict[str, dict[str, dict[str, Any]]] = {
    "ReActorFaceSwap": {
        "required": {
            **_SWAP_REQUIRED,
            "detect_gender_input": _GENDERS,
            "detect_gender_source": _GENDERS,
            "input_faces_index": _INDEX,
            "source_faces_index": _INDEX,
            "console_log_level": _LOG_LEVELS,
        },
        "optional": {
            "source_image": ("IMAGE",),
            "face_model": ("FACE_MODEL",),
            "face_boost": ("FACE_BOOST",),
        },
        "hidden": {"faces_order": "FACES_ORDER"},
    },
    "ReActorFaceSwapOpt": {
        "required": dict(_SWAP_REQUIRED),
        "optional": {
            "source_image": ("IMAGE",),
            "face_model": ("FACE_MODEL",),
            "options": ("OPTIONS",),
            "face_boost": ("FACE_BOOST",),
        },
    },
    "ReActorOptions": {
        "required": {
            "input_faces_order": _ORDERS,
            "input_faces_index": _INDEX,
            "detect_gender_input": _GENDERS,
            "source_faces_order": _ORDERS,
            "source_faces_index": _INDEX,
            "detect_gender_source": _GENDERS,
            "console_log_level": _LOG_LEVELS,
            "restore_swapped_only": ("BOOLEAN", {"default": True, "label_off": "no", "label_on": "yes"}),
        },
    },
    "ReActorFaceBoost": {
        "required": {
            "enabled": _SWITCH,
            "boost_model": ([NO_MODEL],),
            "interpolation": (["Nearest", "Bilinear", "Bicubic", "Lanczos"], {"default": "Bicubic"}),
            "visibility": _VISIBILITY,
            "codeformer_weight": _CODEFORMER_WEIGHT,
            "restore_with_main_after": ("BOOLEAN", {"default": False}),
        },
    },
}

_SWAP_TYPES = ("IMAGE", "FACE_MODEL", "IMAGE")
_SWAP_NAMES = ("SWAPPED_IMAGE", "FACE_MODEL", "ORIGINAL_IMAGE")

#: Class name → types of its outputs, by slot.
RETURN_TYPES: dict[str, tuple[str, ...]] = {
    "ReActorFaceSwap": _SWAP_TYPES,
    "ReActorFaceSwapOpt": _SWAP_TYPES,
    "ReActorOptions": ("OPTIONS",),
    "ReActorFaceBoost": ("FACE_BOOST",),
}

#: Class name → names of its outputs, by slot.
RETURN_NAMES: dict[str, tuple[str, ...]] = {
    "ReActorFaceSwap": _SWAP_NAMES,
    "ReActorFaceSwapOpt": _SWAP_NAMES,
    "ReActorOptions": ("OPTIONS",),
    "ReActorFaceBoost": ("FACE_BOOST",),
}

#: Class name → what the editor shows.
DISPLAY_NAMES: dict[str, str] = {
    "ReActorFaceSwap": "ReActor 🌌 Fast Face Swap",
    "ReActorFaceSwapOpt": "ReActor 🌌 Fast Face Swap [OPTIONS]",
    "ReActorOptions": "ReActor 🌌 Options",
    "ReActorFaceBoost": "ReActor 🌌 Face Booster",
}

#: Where the editor lists them.
CATEGORY = "🌌 ReActor"

#: ReActor 6ad6b35, ``nodes.py``, ``execute``: neither a photo nor a stored face was linked.
LOG_NO_SOURCE = "Please provide 'source_image' or `face_model`"
#: ReActor 6ad6b35, ``nodes.py``: said before its first pass.
LOG_CHECKING = "Checking for any unsafe content..."
#: Ours: there is no model behind the boost node here.
LOG_BOOST_IGNORED = f"Face Boost is passed through: {PREVIEW_MODEL} has no model that could boost a face"
#: Ours: nothing here can tell.
LOG_GENDER_IGNORED = f"Gender filter ignored: {PREVIEW_MODEL} does not tell genders"
#: Ours: stored faces are vectors of a model that is not here.
LOG_FACE_MODEL_IGNORED = f"face_model ignored: {PREVIEW_MODEL} swaps pictures, link `source_image`"


class FaceSwapOutput(NamedTuple):
    """The three slots of both swap nodes, and what happened.

    The first slot *is* the input image object when no frame was changed.
    """

    swapped_image: NDArray[Any]
    face_model: None
    original_image: NDArray[Any]
    #: How many frames differ from the input.
    swapped_frames: int
    #: The lines that were logged.
    log: tuple[str, ...]


def run_options(**inputs: Any) -> tuple[dict[str, Any]]:
    """ReActorOptions: its inputs as one value of type OPTIONS."""
    return (dict(inputs),)


def run_face_boost(**inputs: Any) -> tuple[dict[str, Any]]:
    """ReActorFaceBoost: its inputs as one value of type FACE_BOOST."""
    return (dict(inputs),)


def run_face_swap(
    inputs: Mapping[str, Any],
    *,
    on_tick: Callable[[int, int], None] = no_tick,
    check_interrupted: Callable[[], None] = never_interrupted,
    log: Callable[[str], None] = no_log,
) -> FaceSwapOutput:
    """Execute ReActorFaceSwap or ReActorFaceSwapOpt.

    Unlike ReActor's (6ad6b35) it always fills all three slots, and remembers no options between two runs.

    Args:
        inputs: the node's inputs by name; images as arrays (frames, height, width, 3), uint8 or float 0..1. What
            ``options`` (from ReActorOptions) says wins over inputs of the same name.
        on_tick: called with (value, maximum) as ReActor's bar moves; see ``swap.swap_faces``.
        check_interrupted: called before each frame; whatever it raises ends the run.
        log: called with each line as it happens; a line holds no prompt id, path or picture data.
    """
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        log(line)

    image = inputs["input_image"]
    settings = {**inputs, **(inputs.get("options") or {})}
    source = inputs.get("source_image")
    if not settings.get("enabled", True):
        return FaceSwapOutput(image, None, image, 0, ())
    _say_what_is_missing(settings, source, say)
    if source is None:
        return FaceSwapOutput(image, None, image, 0, tuple(lines))

    from .swap import swap_image_batch

    say(LOG_CHECKING)
    swapped, count = swap_image_batch(
        image,
        source,
        options_of(settings),
        original=inputs.get(ORIGINAL_INPUT),
        on_tick=on_tick,
        check_interrupted=check_interrupted,
        on_log=say,
    )
    return FaceSwapOutput(swapped, None, image, count, tuple(lines))


def options_of(settings: Mapping[str, Any]) -> SwapOptions:
    """Which faces to swap, read from a swap node's inputs merged with those of ReActorOptions."""
    return SwapOptions(
        input_faces_index=str(settings.get("input_faces_index", "0")),
        source_faces_index=str(settings.get("source_faces_index", "0")),
        input_faces_order=str(settings.get("input_faces_order", DEFAULT_ORDER)),
        source_faces_order=str(settings.get("source_faces_order", DEFAULT_ORDER)),
        reference_frame=settings.get(REFERENCE_INPUT),
    )


def _say_what_is_missing(settings: Mapping[str, Any], source: object, say: Callable[[str], None]) -> None:
    if source is None:
        say(LOG_NO_SOURCE if settings.get("face_model") is None else LOG_FACE_MODEL_IGNORED)
        return
    boost = settings.get("face_boost")
    if boost is not None and boost.get("enabled", True):
        say(LOG_BOOST_IGNORED)
    if any(settings.get(f"detect_gender_{side}", "no") != "no" for side in ("input", "source")):
        say(LOG_GENDER_IGNORED)

"""VHS_LoadVideo, VHS_VideoInfo, VHS_VideoCombine: the three VideoHelperSuite nodes a video job needs, on PyAV.

Names, tables, file names and what is reported are those of VideoHelperSuite 4ee72c0. Left out: latents, meta batches and
all formats but ``image/gif`` and ``video/h264-mp4``. Sound is encoded anew as AAC, and ends with the pictures.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from gateway.embedded.files import Folders, SavePath
from gateway.embedded.node import Image, InputTable, NodeResult, NodeType, RunContext
from gateway.embedded.nodes_image import check_exists, find_file
from gateway.embedded.video import (
    FrameSelection,
    LazyAudio,
    VideoFacts,
    add_audio,
    encode_h264,
    exact_rate,
    load_frames,
)

CATEGORY = "Video Helper Suite 🎥🅥🅗🅢"
MODULE = "custom_nodes.ComfyUI-VideoHelperSuite"
GIF = "image/gif"
H264 = "video/h264-mp4"
_BIG = 9_007_199_254_740_991  # 2 ** 53 - 1, what VideoHelperSuite takes for "any number"
_COUNTER = r"_(\d+)"


@dataclass(frozen=True, slots=True)
class _LoadFormat:
    """What a ``format`` of the loader asks for: sides in multiples of ``align``, frames = remainder mod divisor."""

    align: int = 1
    divisor: int = 1
    remainder: int = 0


_LOAD_FORMATS = {
    "None": _LoadFormat(),
    "AnimateDiff": _LoadFormat(8),
    "Mochi": _LoadFormat(16, 6, 1),
    "LTXV": _LoadFormat(32, 8, 1),
    "Hunyuan": _LoadFormat(16, 4, 1),
    "Cosmos": _LoadFormat(16, 8, 1),
    "Wan": _LoadFormat(8, 4, 1),
}


def _count(default: int = 0, lowest: int = 0) -> list[Any]:
    return ["INT", {"default": default, "min": lowest, "max": _BIG, "step": 1}]


def _load_inputs(folders: Folders) -> InputTable:
    side = ["INT", {"default": 0, "min": 0, "max": 8192, "disable": 0}]
    return {
        "required": {
            "video": [folders.names("input", "video")],
            "force_rate": ["FLOAT", {"default": 0, "min": 0, "max": 60, "step": 1, "disable": 0}],
            "custom_width": side,
            "custom_height": side,
            "frame_load_cap": ["INT", {"default": 0, "min": 0, "max": _BIG, "step": 1, "disable": 0}],
            "skip_first_frames": _count(),
            "select_every_nth": _count(1, 1),
        },
        "optional": {"format": [list(_LOAD_FORMATS), {"default": "None"}]},
        "hidden": {"unique_id": "UNIQUE_ID"},
    }


def _fingerprint(folders: Folders, inputs: Mapping[str, Any]) -> str:
    path = find_file(folders, inputs.get("video"))
    return f"{path} {path.stat().st_mtime_ns}"


def target_size(size: tuple[int, int], custom_width: int, custom_height: int, align: int) -> tuple[int, int]:
    """(width, height) to load at: a side of 0 follows the other one, both 0 keep the source's."""
    width, height = map(float, size)
    if custom_width and custom_height:
        width, height = custom_width, custom_height
    elif custom_width:
        width, height = custom_width, height * custom_width / width
    elif custom_height:
        width, height = width * custom_height / height, custom_height
    return tuple(max(int(side / align + 0.5), 1) * align for side in (width, height))  # type: ignore[return-value] # two


def _fit(picture: Image, size: tuple[int, int]) -> Image:
    """Scale a frame to cover ``size`` and cut the middle out."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    scale = min(width / size[0], height / size[1])
    cut_x, cut_y = (width - size[0] * scale) / 2, (height - size[1] * scale) / 2
    box = (cut_x, cut_y, width - cut_x, height - cut_y)
    return np.asarray(PillowImage.fromarray(picture).resize(size, PillowImage.Resampling.LANCZOS, box))


def _load(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    path = find_file(context.folders, inputs["video"])
    wanted = _LOAD_FORMATS[inputs.get("format", "None")]
    selection = FrameSelection(
        force_rate=inputs["force_rate"],
        skip_first_frames=inputs["skip_first_frames"],
        select_every_nth=inputs["select_every_nth"],
        frame_load_cap=inputs["frame_load_cap"],
    )

    def resize(picture: Image) -> Image:
        size = (picture.shape[1], picture.shape[0])
        return _fit(picture, target_size(size, inputs["custom_width"], inputs["custom_height"], wanted.align))

    images, facts = load_frames(path, selection, resize=resize, reserve=context.reserve, tick=context.tick)
    if len(images) % wanted.divisor != wanted.remainder % wanted.divisor:
        images = images[: (len(images) - wanted.remainder) // wanted.divisor * wanted.divisor + wanted.remainder]
    interval = selection.source_interval(facts.fps)
    start = interval * selection.skip_first_frames
    interval *= selection.select_every_nth
    audio = LazyAudio(path, start, interval * len(images) if selection.frame_load_cap else Fraction(0))
    return NodeResult((images, len(images), audio, _video_info(facts, images, interval)))


def _video_info(facts: VideoFacts, images: Image, interval: Fraction) -> dict[str, Any]:
    return {
        "source_fps": float(facts.fps),
        "source_frame_count": facts.frame_count,
        "source_duration": float(facts.frame_count / facts.fps),
        "source_width": facts.width,
        "source_height": facts.height,
        "loaded_fps": float(1 / interval),
        "loaded_frame_count": len(images),
        "loaded_duration": float(len(images) * interval),
        "loaded_width": images.shape[2],
        "loaded_height": images.shape[1],
    }


_INFO_PARTS = (("FLOAT", "fps"), ("INT", "frame_count"), ("FLOAT", "duration"), ("INT", "width"), ("INT", "height"))
_INFO_SLOTS = tuple(
    (kind, f"{side}_{part}{mark}") for side, mark in (("source", "🟨"), ("loaded", "🟦")) for kind, part in _INFO_PARTS
)


def _info(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    del context
    facts = inputs["video_info"]
    return NodeResult(tuple(facts[name[:-1]] for _, name in _INFO_SLOTS))


_H264_SETTINGS = [
    ["pix_fmt", ["yuv420p", "yuv420p10le"]],
    ["crf", "INT", {"default": 19, "min": 0, "max": 100, "step": 1}],
    ["save_metadata", "BOOLEAN", {"default": True}],
    ["trim_to_audio", "BOOLEAN", {"default": False}],
]


def _combine_inputs(_: Folders) -> InputTable:
    return {
        "required": {
            "images": ["IMAGE"],
            "frame_rate": ["FLOAT", {"default": 8, "min": 1, "step": 1}],
            "loop_count": ["INT", {"default": 0, "min": 0, "max": 100, "step": 1}],
            "filename_prefix": ["STRING", {"default": "AnimateDiff"}],
            "format": [[GIF, H264], {"formats": {H264: _H264_SETTINGS}}],
            "pingpong": ["BOOLEAN", {"default": False}],
            "save_output": ["BOOLEAN", {"default": True}],
        },
        "optional": {"audio": ["AUDIO"]},
        "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO", "unique_id": "UNIQUE_ID"},
    }


def _combine(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    kind = "output" if inputs["save_output"] else "temp"
    place = context.folders.save_path(inputs["filename_prefix"], kind, _COUNTER)
    stem = f"{place.filename}_{place.counter:05}"
    extra = (context.pnginfo_extra().get("workflow") or {}).get("extra") or {}
    picture = place.folder / f"{stem}.png"
    if extra.get("VHS_MetadataImage", True) is not False:
        _save_first_frame(context, picture, inputs["images"][0])
    if inputs["format"] == GIF:
        files = [_write_gif(context, place, stem, inputs)]
    else:
        files = _write_video(context, place, stem, inputs)
    if extra.get("VHS_KeepIntermediate", True) is False:
        for intermediate in files[:-1]:
            intermediate.unlink(missing_ok=True)
    report = {
        "filename": files[-1].name,
        "subfolder": place.subfolder,
        "type": kind,
        "format": inputs["format"],
        "frame_rate": inputs["frame_rate"],
        "workflow": picture.name,
        "fullpath": str(files[-1]),
    }
    return NodeResult(((inputs["save_output"], [str(path) for path in (picture, *files)]),), {"gifs": [report]})


def _save_first_frame(context: RunContext, path: Path, image: Image) -> None:
    chunks = PngInfo()
    for name, value in _metadata(context).items():
        chunks.add_text(name, value)
    PillowImage.fromarray(image).save(path, pnginfo=chunks, compress_level=4)


def _metadata(context: RunContext) -> dict[str, str]:
    extra = {str(name): json.dumps(value) for name, value in context.pnginfo_extra().items()}
    return {"prompt": json.dumps(context.graph), **extra}


def _played(images: Image, *, pingpong: bool) -> list[int]:
    """Frame numbers in the order they are shown."""
    there = list(range(len(images)))
    return there + there[-2:0:-1] if pingpong else there


def _ticking(context: RunContext, images: Image, order: Sequence[int]) -> Iterator[Image]:
    for done, index in enumerate(order, 1):
        context.tick(done, len(order))
        yield images[index]


def _write_gif(context: RunContext, place: SavePath, stem: str, inputs: Mapping[str, Any]) -> Path:
    order = _played(inputs["images"], pingpong=inputs["pingpong"])
    frames = (PillowImage.fromarray(image) for image in _ticking(context, inputs["images"], order))
    path = place.folder / f"{stem}.gif"
    next(frames).save(
        path,
        format="GIF",
        save_all=True,
        append_images=frames,
        duration=round(1000 / inputs["frame_rate"]),
        loop=inputs["loop_count"],
        disposal=2,
    )
    return path


def _write_video(context: RunContext, place: SavePath, stem: str, inputs: Mapping[str, Any]) -> list[Path]:
    images: Image = inputs["images"]
    order = _played(images, pingpong=inputs["pingpong"])
    height, width = images.shape[1:3]
    fps = exact_rate(inputs["frame_rate"])
    # Only the first round counts in the progress bar, as in VideoHelperSuite.
    again = (images[index] for _ in range(inputs["loop_count"]) for index in order)
    shown = itertools.chain(_ticking(context, images, order), again)
    silent = place.folder / f"{stem}.mp4"
    frames = encode_h264(
        silent,
        (_even(image) for image in shown),
        fps=fps,
        size=(width + width % 2, height + height % 2),
        pix_fmt=inputs.get("pix_fmt", "yuv420p"),
        crf=int(inputs.get("crf", 19)),
        metadata=_metadata(context) if inputs.get("save_metadata", True) else {},
    )
    sound = inputs["audio"].load() if inputs.get("audio") is not None else None
    if sound is None:
        return [silent]
    context.check_interrupted()
    target = place.folder / f"{stem}-audio.mp4"
    add_audio(silent, target, sound, frames=frames, fps=fps, trim=bool(inputs.get("trim_to_audio", False)))
    return [silent, target]


def _even(image: Image) -> Image:
    """Odd sides get one more line of the edge's own pixels: H.264 halves its colours."""
    height, width = image.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return image
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


VIDEO_NODES = (
    NodeType(
        name="VHS_LoadVideo",
        display_name="Load Video (Upload) 🎥🅥🅗🅢",
        category=CATEGORY,
        inputs=_load_inputs,
        run=_load,
        outputs=(("IMAGE", "IMAGE"), ("INT", "frame_count"), ("AUDIO", "audio"), ("VHS_VIDEOINFO", "video_info")),
        python_module=MODULE,
        checked_inputs=frozenset({"video"}),
        check=lambda folders, inputs: check_exists("video", folders, inputs),
        fingerprint=_fingerprint,
    ),
    NodeType(
        name="VHS_VideoInfo",
        display_name="Video Info 🎥🅥🅗🅢",
        category=CATEGORY,
        inputs=lambda _: {"required": {"video_info": ["VHS_VIDEOINFO"]}},
        run=_info,
        outputs=_INFO_SLOTS,
        python_module=MODULE,
    ),
    NodeType(
        name="VHS_VideoCombine",
        display_name="Video Combine 🎥🅥🅗🅢",
        category=CATEGORY,
        inputs=_combine_inputs,
        run=_combine,
        outputs=(("VHS_FILENAMES", "Filenames"),),
        is_output=True,
        python_module=MODULE,
        also_accepts={"frame_rate": frozenset({"INT"})},
        extra_inputs=frozenset({"pix_fmt", "crf", "save_metadata", "trim_to_audio"}),
    ),
)

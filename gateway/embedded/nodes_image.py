"""LoadImage, SaveImage, PreviewImage, ImageScaleBy, ImageInvert: ComfyUI's own still-picture nodes, on bytes.

Source: ComfyUI a125cd84, ``nodes.py`` and ``comfy_extras/nodes_images.py``; tables as its /object_info gives them.
LoadImage's MASK is bytes too, as no node here reads it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import string
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from gateway.embedded.files import Folders
from gateway.embedded.node import Image, InputTable, NodeResult, NodeType, RunContext

#: The only decoders a picture is tried with.
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
#: Kinds whose frames become a batch. A JPEG with a second picture in it (MPO) is one picture.
_ANIMATED_FORMATS = frozenset({"GIF", "WEBP", "PNG", "AVIF"})
#: A picture of more pixels is refused before it is decoded; 100 megapixels are 300 MB here.
LARGEST_PICTURE_PIXELS = 100_000_000
_RESAMPLING = {
    "nearest-exact": PillowImage.Resampling.NEAREST,
    "bilinear": PillowImage.Resampling.BILINEAR,
    "area": PillowImage.Resampling.BOX,
    "bicubic": PillowImage.Resampling.BICUBIC,
    "lanczos": PillowImage.Resampling.LANCZOS,
}
_TEMP_LETTERS = 5


def open_picture(path: Path) -> PillowImage.Image:
    """Open a still or animated picture.

    Raises:
        PIL.UnidentifiedImageError: none of the allowed kinds.
        PIL.Image.DecompressionBombError: too many pixels.
    """
    with warnings.catch_warnings():
        # Pillow warns from a limit of its own on; ours is the one that counts.
        warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
        picture = PillowImage.open(path, formats=PICTURE_FORMATS)
    if picture.width * picture.height > LARGEST_PICTURE_PIXELS:
        picture.close()
        raise PillowImage.DecompressionBombError(f"more than {LARGEST_PICTURE_PIXELS} pixels")
    return picture


def _load_inputs(folders: Folders) -> InputTable:
    return {"required": {"image": [folders.names("input", "image"), {"image_upload": True}]}}


def check_exists(kind: str, folders: Folders, inputs: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with an input called ``kind`` that names a file."""
    value = inputs.get(kind)
    if value is None or folders.find(value) is not None:
        return {}
    return {kind: f"Invalid {kind} file: {value}"}


def find_file(folders: Folders, value: Any) -> Path:
    """The file an input names.

    Raises:
        FileNotFoundError: there is none (any more); the sentence holds no folder.
    """
    path = folders.find(value)
    if path is None:
        raise FileNotFoundError(f"No such file: {value}")
    return path


def _fingerprint(folders: Folders, inputs: Mapping[str, Any]) -> str:
    with find_file(folders, inputs.get("image")).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    images: list[Image] = []
    masks: list[Image] = []
    with open_picture(find_file(context.folders, inputs["image"])) as picture:
        frames = ImageSequence.Iterator(picture) if picture.format in _ANIMATED_FORMATS else [picture]
        for frame in frames:
            context.check_interrupted()
            upright = ImageOps.exif_transpose(frame)
            # Frames of another size than the first are left out, as ComfyUI does.
            if images and (upright.height, upright.width) != images[0].shape[:2]:
                continue
            context.reserve(len(images) + 1, upright.height, upright.width)
            if upright.mode == "I":
                # Clips as ComfyUI does: 16 bits end at 257, not at 255.
                upright = upright.point(lambda level: level * (1 / 255))
            images.append(np.asarray(upright.convert("RGB")))
            masks.append(_mask(upright))
    return NodeResult((np.stack(images), np.stack(masks)))


def _mask(picture: PillowImage.Image) -> Image:
    if "A" in picture.getbands():
        return 255 - np.asarray(picture.getchannel("A"))
    if picture.mode == "P" and "transparency" in picture.info:
        return 255 - np.asarray(picture.convert("RGBA").getchannel("A"))
    return np.zeros((64, 64), np.uint8)


def _save_png(context: RunContext, images: Image, prefix: str, kind: str, compress_level: int) -> NodeResult:
    height, width = images.shape[1:3]
    prefix = prefix.replace("%width%", str(width)).replace("%height%", str(height))
    place = context.folders.save_path(prefix, kind)
    chunks = PngInfo()
    chunks.add_text("prompt", json.dumps(context.graph))
    for name, value in context.pnginfo_extra().items():
        chunks.add_text(str(name), json.dumps(value))
    items = []
    for number, image in enumerate(images, place.counter):
        context.check_interrupted()
        name = f"{place.filename}_{number:05}_.png"
        PillowImage.fromarray(image).save(place.folder / name, pnginfo=chunks, compress_level=compress_level)
        items.append({"filename": name, "subfolder": place.subfolder, "type": kind})
    return NodeResult((), {"images": items})


def _save(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    return _save_png(context, inputs["images"], inputs["filename_prefix"], "output", 4)


def _preview(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(_TEMP_LETTERS))
    return _save_png(context, inputs["images"], f"ComfyUI_temp_{letters}", "temp", 1)


def _scale(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    images: Image = inputs["image"]
    height, width = (max(round(side * inputs["scale_by"]), 1) for side in images.shape[1:3])
    context.reserve(len(images), height, width)
    method = _RESAMPLING[inputs["upscale_method"]]
    scaled = np.empty((len(images), height, width, 3), np.uint8)
    for index, image in enumerate(images):
        context.check_interrupted()
        scaled[index] = np.asarray(PillowImage.fromarray(image).resize((width, height), method))
    return NodeResult((scaled,))


def _invert(context: RunContext, inputs: Mapping[str, Any]) -> NodeResult:
    del context
    inverted: Image = 255 - inputs["image"]
    return NodeResult((inverted,))


_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
_SAVE_DESCRIPTION = "Saves the input images to your ComfyUI output directory."

IMAGE_NODES = (
    NodeType(
        name="LoadImage",
        display_name="Load Image",
        category="image",
        inputs=_load_inputs,
        run=_load,
        outputs=(("IMAGE", "IMAGE"), ("MASK", "MASK")),
        checked_inputs=frozenset({"image"}),
        check=lambda folders, inputs: check_exists("image", folders, inputs),
        fingerprint=_fingerprint,
    ),
    NodeType(
        name="SaveImage",
        display_name="Save Image",
        category="image",
        inputs=lambda _: {
            "required": {
                "images": ["IMAGE", {"tooltip": "The images to save."}],
                "filename_prefix": ["STRING", {"default": "ComfyUI", "tooltip": "The prefix for the file to save."}],
            },
            "hidden": _HIDDEN,
        },
        run=_save,
        is_output=True,
        description=_SAVE_DESCRIPTION,
    ),
    NodeType(
        name="PreviewImage",
        display_name="Preview Image",
        category="image",
        inputs=lambda _: {"required": {"images": ["IMAGE"]}, "hidden": _HIDDEN},
        run=_preview,
        is_output=True,
        description=_SAVE_DESCRIPTION,
    ),
    NodeType(
        name="ImageScaleBy",
        display_name="Upscale Image By",
        category="image/upscaling",
        inputs=lambda _: {
            "required": {
                "image": ["IMAGE"],
                "upscale_method": [list(_RESAMPLING)],
                "scale_by": ["FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}],
            }
        },
        run=_scale,
        outputs=(("IMAGE", "IMAGE"),),
    ),
    NodeType(
        name="ImageInvert",
        display_name="Invert Image",
        category="image",
        inputs=lambda _: {"required": {"image": ["IMAGE"]}},
        run=_invert,
        outputs=(("IMAGE", "IMAGE"),),
    ),
)

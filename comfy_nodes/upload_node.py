"""GatewayUploadOutput: puts one finished file to a URL that the gateway has filled in, and tells what came of it.

So that a large result need not pass the gateway, which looks at what arrived and counts nothing by this report alone. A file that
could not be sent is no fault of the prompt's: the report says so, the file lies where it was made, and the gateway fetches it.
``uploading.py`` says which URLs and which files are taken at all.

Sources: ComfyUI a125cd84, ``folder_paths.py`` (get_save_image_path); VideoHelperSuite 4ee72c0, ``nodes.py``: its file names
are a pair of whether they lie in the output folder and all files that were written, the finished one last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from .host import interrupt_check, never_interrupted, no_tick, progress_ticks, to_array
from .uploading import FAILED, RefusedUrlError, Sent, check_file, check_url, send

#: No URL was filled in, so nothing was sent.
NOT_ASKED = "not_asked"
#: Key of the report in the history.
REPORT = "gateway_upload"
INPUT_TYPES: dict[str, Any] = {
    "required": {"url": ("STRING", {"default": "", "tooltip": "Filled in by the gateway. Empty: nothing is sent."})},
    "optional": {
        "filenames": ("VHS_FILENAMES",),
        "images": ("IMAGE",),
        "filename_prefix": ("STRING", {"default": "ComfyUI"}),
        "content_type": ("STRING", {"default": ""}),
    },
}


class Places(NamedTuple):
    """Where this ComfyUI keeps what it makes."""

    #: "output" and "temp" -> folder.
    roots: Mapping[str, str]
    #: Prefix, width and height of a picture -> the path that its file is to have, without the suffix.
    save_path: Callable[[str, int, int], str]


def run_upload(
    inputs: Mapping[str, Any],
    places: Places,
    environment: Mapping[str, str],
    *,
    on_tick: Callable[[int, int], None] = no_tick,
    check_interrupted: Callable[[], None] = never_interrupted,
) -> dict[str, Any]:
    """Execute the node; its report.

    Raises:
        ValueError: the graph gives it no file, or more than one.
    """
    path = _file_of(inputs, places)
    try:
        real = check_file(path, list(places.roots.values()))
    except RefusedUrlError as error:
        return {"filename": "", "subfolder": "", "type": "", **_told(Sent(FAILED, 0, "", str(error)))}
    where = _reference(real, places.roots)
    if not inputs.get("url"):
        return {**where, **_told(Sent(NOT_ASKED, os.path.getsize(real), "", ""))}  # noqa: PTH202 - a path as ComfyUI has it
    try:
        target = check_url(inputs["url"], environment)
    except RefusedUrlError as error:
        return {**where, **_told(Sent(FAILED, 0, "", str(error)))}
    content_type = str(inputs.get("content_type") or "")
    try:
        sent = send(real, target, content_type=content_type, on_tick=on_tick, check_interrupted=check_interrupted)
    except (
        OSError,
        ValueError,
    ) as error:  # the disk, or a name of a host that cannot be spelt: no fault of the prompt's
        sent = Sent(FAILED, 0, "", f"it could not be sent ({type(error).__name__})")
    return {**where, **_told(sent)}


def _told(sent: Sent) -> dict[str, Any]:
    return {"status": sent.status, "size_bytes": sent.size_bytes, "sha256": sent.sha256, "reason": sent.reason}


def _file_of(inputs: Mapping[str, Any], places: Places) -> str:
    filenames, images = inputs.get("filenames"), inputs.get("images")
    if (filenames is None) == (images is None):
        raise ValueError("connect either filenames or images")
    if filenames is None:
        return _save_picture(to_array(images), str(inputs.get("filename_prefix") or "ComfyUI"), places)
    _, files = filenames
    if not files:
        raise ValueError("no file was made")
    return str(files[-1])


def _save_picture(images: Any, prefix: str, places: Places) -> str:
    """As PNG, with nothing written beside the picture: it goes where nobody takes that out."""
    if len(images) != 1:
        raise ValueError(f"one picture goes to one URL, and these are {len(images)}")
    numpy, pictures = import_module("numpy"), import_module("PIL.Image")
    picture = images[0]
    if picture.dtype != numpy.uint8:
        picture = (numpy.clip(picture, 0.0, 1.0) * 255.0).round().astype(numpy.uint8)
    path = places.save_path(prefix, picture.shape[1], picture.shape[0]) + ".png"
    pictures.fromarray(picture).save(path, compress_level=4)
    return path


def _reference(path: str, roots: Mapping[str, str]) -> dict[str, str]:
    """A file as ComfyUI names it."""
    for kind, root in roots.items():
        relative = os.path.relpath(path, os.path.realpath(root)).replace(os.sep, "/")
        if not relative.startswith("../"):
            subfolder, _, filename = relative.rpartition("/")
            return {"filename": filename, "subfolder": subfolder, "type": kind}
    raise RefusedUrlError("the file does not lie in ComfyUI's output or temp folder")


class GatewayUploadOutput:
    """The node as ComfyUI loads it."""

    DESCRIPTION = "Puts a finished file to a URL that the gateway fills in; only to hosts that this machine's operator has listed."
    CATEGORY = "comfygate"
    FUNCTION = "execute"
    RETURN_TYPES = ()
    OUTPUT_NODE: ClassVar[bool] = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the editor offers."""
        return INPUT_TYPES

    def execute(self, **inputs: Any) -> dict[str, Any]:
        """Run by ComfyUI; the report stands in the history."""
        folders = import_module("folder_paths")

        def save_path(prefix: str, width: int, height: int) -> str:
            folder, name, counter, _, _ = folders.get_save_image_path(
                prefix, folders.get_output_directory(), width, height
            )
            return os.path.join(folder, f"{name}_{counter:05}_")  # noqa: PTH118 - a path as ComfyUI has it

        roots = {"output": folders.get_output_directory(), "temp": folders.get_temp_directory()}
        report = run_upload(
            inputs,
            Places(roots, save_path),
            os.environ,
            on_tick=progress_ticks(),
            check_interrupted=interrupt_check(),
        )
        return {"ui": {REPORT: [report]}}

"""``comfygate nodes install``: the node pack, copied into a ComfyUI on this machine.

It is copied and not linked: a ComfyUI must not lose its nodes when the gateway is moved or taken away. What a folder
must have to be a ComfyUI, and which folders it loads nodes from: ComfyUI a125cd84, ``nodes.py``,
init_external_custom_nodes. It skips names that end in ``.disabled``, and no others that could stand for "not yet".
"""

from __future__ import annotations

import filecmp
import importlib.resources
import shutil
from enum import StrEnum
from pathlib import Path

from gateway.data_dir import StartError

FOLDER = "comfygate_nodes"
_NEW = f"{FOLDER}.new.disabled"
_OLD = f"{FOLDER}.old.disabled"
#: A word in a file that every version of the pack had; by it a copy of ours is known.
_OURS = ("nodes.py", "GatewayCpuFaceSwap")
_IGNORED = shutil.ignore_patterns("__pycache__")


class Done(StrEnum):
    """What an installation came to."""

    INSTALLED = "Installed"
    UPDATED = "Updated"
    UNCHANGED = "Up to date"


def install(comfyui: Path) -> tuple[Done, Path]:
    """Put the pack into ``custom_nodes`` of a ComfyUI, or bring an earlier copy of it up to date.

    Args:
        comfyui: the folder with ComfyUI's ``main.py`` in it.

    Returns:
        What was done, and where the pack is now.

    Raises:
        StartError: that is no ComfyUI, or something else lies in the pack's place, or it cannot be written.
    """
    custom_nodes = comfyui / "custom_nodes"
    if not (comfyui / "main.py").is_file() or not custom_nodes.is_dir():
        raise StartError(f"{comfyui} is no ComfyUI: give the folder that has its main.py and custom_nodes.")
    place, source = custom_nodes / FOLDER, pack()
    is_update = place.exists() or place.is_symlink()
    if is_update and not _is_ours(place):
        raise StartError(f"{place} is not a copy of this pack: move it away first.")
    if is_update and _same(source, place):
        return Done.UNCHANGED, place
    try:
        _put(source, place)
    except OSError as error:
        raise StartError(f"{custom_nodes} cannot be written ({error.strerror or type(error).__name__}).") from error
    return (Done.UPDATED if is_update else Done.INSTALLED), place


def pack() -> Path:
    """Where the pack lies: it is installed beside the gateway, as plain files."""
    return Path(str(importlib.resources.files("comfy_nodes")))


def _is_ours(place: Path) -> bool:
    file_name, word = _OURS
    try:
        return not place.is_symlink() and word in (place / file_name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def _same(source: Path, place: Path) -> bool:
    files = _files(source)
    if files != _files(place):
        return False
    _, different, unreadable = filecmp.cmpfiles(source, place, sorted(files), shallow=False)
    return not (different or unreadable)


def _put(source: Path, place: Path) -> None:
    """Copy beside, then swap: a ComfyUI that starts meanwhile finds the old pack, the new one or none, never a half."""
    fresh, stale = place.with_name(_NEW), place.with_name(_OLD)
    for leftover in (fresh, stale):  # of a copy that was killed
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        shutil.copytree(source, fresh, ignore=_IGNORED)
        if place.exists():
            place.rename(stale)
        fresh.rename(place)
    finally:
        if not place.exists() and stale.exists():
            stale.rename(place)
        for leftover in (fresh, stale):
            shutil.rmtree(leftover, ignore_errors=True)

"""What a gateway has left on this ComfyUI: telling which files those are, and deleting them when it asks.

A gateway keeps to one folder, ``gateway/<its id>``, below ComfyUI's input, output and temp folders. Nothing outside that
folder is told of or deleted: names are looked at before anything is opened, links are never followed, and only plain
files are deleted. ``routes.py`` says who may ask. Standard library alone; blocking.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Folder of all gateways.
ROOT = "gateway"
KINDS = ("input", "output", "temp")
#: Files of one question or answer.
MAX_FILES = 1000
MAX_DEPTH = 8
MAX_NAME_BYTES = 255

GONE = "gone"
WAS_NOT_THERE = "was_not_there"
REFUSED = "refused"
#: It is ours and could not be deleted: in use (Windows), or not to be written.
FAILED = "failed"

_GATEWAY = re.compile(r"[a-z0-9]{8,40}")
#: Devices on Windows, whatever follows their dot.
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?: *\..*)?", re.IGNORECASE | re.DOTALL
)
_HAS_DESCRIPTORS = {os.open, os.stat, os.unlink, os.rmdir} <= os.supports_dir_fd
#: What opening a link without following it says; the second on FreeBSD.
_LOOPS = {errno.ELOOP, errno.EMLINK}
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)

#: Kind, folder with slashes, name: as ComfyUI names files.
Reference = tuple[str, str, str]


class NotOursError(ValueError):
    """A name that no gateway's file has."""


def check_gateway(value: object) -> str:
    """The id of a gateway. Raises NotOursError."""
    if not isinstance(value, str) or not _GATEWAY.fullmatch(value):
        raise NotOursError("the id of a gateway has 8 to 40 small letters and digits")
    return value


def parts_of(gateway: str, reference: Reference) -> tuple[str, ...]:
    """Folders and name of a file below its root folder. Raises NotOursError unless it lies in the gateway's own folder."""
    kind, subfolder, name = reference
    parts = (*subfolder.split("/"), name)
    if kind not in KINDS or parts[:2] != (ROOT, gateway) or len(parts) < 3 or len(parts) > MAX_DEPTH:  # noqa: PLR2004 - folder, id, name
        raise NotOursError("it does not lie in the gateway's own folder")
    if not all(_is_plain(part) for part in parts):
        raise NotOursError("a name in it means something else than a file")
    return parts


def _is_plain(part: str) -> bool:
    """Whether it names one file or folder on every system, and nothing else."""
    if not part or part in {".", ".."} or part[-1] in ". " or len(part.encode(errors="replace")) > MAX_NAME_BYTES:
        return False
    return not any(sign in '/\\:*?"<>|' or not sign.isprintable() for sign in part) and not _DEVICE.fullmatch(part)


# ------------------------------------------------------------------------------------------------------------- telling


def own_files(
    roots: Mapping[str, str], gateway: str, after: Reference | None = None, most: int = MAX_FILES
) -> tuple[list[Reference], bool]:
    """Files in a gateway's own folder, in a fixed order, and whether there are more.

    Args:
        roots: kind -> folder.
        gateway: its id.
        after: the last one already told.
        most: how many.
    """
    found: list[Reference] = []
    last = None if after is None else (KINDS.index(after[0]), parts_of(gateway, after))
    for number, kind in enumerate(KINDS):
        top = os.path.join(os.path.realpath(roots[kind]), ROOT, gateway)  # noqa: PTH118 - as os.walk has them
        for folders, name in _walk(top, (ROOT, gateway)):
            if last is not None and (number, (*folders, name)) <= last:
                continue
            if len(found) == most:
                return found, True
            found.append((kind, "/".join(folders), name))
    return found, False


def _walk(folder: str, folders: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Plain files below a folder; nothing of links, nor of names that could not be asked for again."""
    if os.path.realpath(folder) != folder or len(folders) >= MAX_DEPTH:
        return
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in ordered:
        if not _is_plain(entry.name):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, (*folders, entry.name))
            elif entry.is_file(follow_symlinks=False):
                yield folders, entry.name


# ------------------------------------------------------------------------------------------------------------ deleting


def clean(roots: Mapping[str, str], gateway: str, files: Sequence[Reference]) -> list[str]:
    """Delete files of a gateway, and the folders within its own that have become empty; what came of each."""
    return [_clean(roots, gateway, reference) for reference in files]


def _clean(roots: Mapping[str, str], gateway: str, reference: Reference) -> str:
    try:
        parts = parts_of(gateway, reference)
    except NotOursError:
        return REFUSED
    return _delete_below(roots[reference[0]], parts)


def delete_preview(roots: Mapping[str, str], reference: Reference) -> str:
    """Delete a file that ComfyUI itself has named as a temporary one; what came of it."""
    kind, subfolder, name = reference
    parts = (*filter(None, subfolder.split("/")), name)
    if kind != "temp" or len(parts) > MAX_DEPTH or not all(_is_plain(part) for part in parts):
        return REFUSED
    return _delete_below(roots[kind], parts)


def _delete_below(root: str, parts: Sequence[str]) -> str:
    try:
        real = os.path.realpath(root)
        return _by_descriptor(real, parts) if _HAS_DESCRIPTORS else by_path(real, parts)
    except FileNotFoundError:
        return WAS_NOT_THERE
    except OSError as error:
        # A link or a file where a folder was expected.
        is_none = isinstance(error, NotADirectoryError) or error.errno in _LOOPS
        return REFUSED if is_none else FAILED


def _by_descriptor(root: str, parts: Sequence[str]) -> str:
    """Down from folder to folder, each held open: what is swapped for a link on the way leads nowhere."""
    folder = os.open(root, _FOLDER_FLAGS)
    try:
        return _delete(folder, parts, depth=0)
    finally:
        os.close(folder)


def _delete(folder: int, parts: Sequence[str], depth: int) -> str:
    if len(parts) == 1:
        if not stat.S_ISREG(os.stat(parts[0], dir_fd=folder, follow_symlinks=False).st_mode):
            return REFUSED
        os.unlink(parts[0], dir_fd=folder)
        return GONE
    inner = os.open(parts[0], _FOLDER_FLAGS, dir_fd=folder)
    try:
        return _delete(inner, parts[1:], depth + 1)
    finally:
        os.close(inner)
        # The gateway's own folder stays: an upload may be about to write into it.
        if depth > 1:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(parts[0], dir_fd=folder)


def by_path(root: str, parts: Sequence[str]) -> str:
    """The same where folders cannot be held open (Windows): what resolves to another path is a link."""
    path = os.path.join(root, *parts)  # noqa: PTH118 - one kind of path here
    parent = os.path.dirname(path)  # noqa: PTH120 - likewise
    if os.path.normcase(os.path.realpath(parent)) != os.path.normcase(parent):
        return REFUSED
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return REFUSED
    os.unlink(path)  # noqa: PTH108 - likewise
    for depth in range(len(parts) - 1, 2, -1):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(os.path.join(root, *parts[:depth]))  # noqa: PTH106, PTH118 - likewise
    return GONE


# ------------------------------------------------------------------------------------------- as they come and go in JSON


def reference_from(value: Any) -> Reference:
    """A file as it is named in JSON. Raises NotOursError where it is none."""
    if isinstance(value, dict):
        kind, subfolder, name = value.get("type"), value.get("subfolder"), value.get("filename")
        if isinstance(kind, str) and isinstance(subfolder, str) and isinstance(name, str):
            return kind, subfolder, name
    raise NotOursError("a file is an object with type, subfolder and filename")


def as_json(reference: Reference) -> dict[str, str]:
    """A file as it is named in JSON."""
    kind, subfolder, name = reference
    return {"type": kind, "subfolder": subfolder, "filename": name}

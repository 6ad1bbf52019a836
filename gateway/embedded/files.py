"""The worker's three folders: which file a name means, under which name an upload is kept, what a save is called.

Unlike ComfyUI, nothing outside the folders is ever opened or said to exist: not by an absolute path, not by ``..``, not
through a symbolic link. Blocking; the server calls it in threads.

Source: ComfyUI a125cd84, ``server.py`` (image_upload, view_image), ``folder_paths.py`` (annotated names,
get_save_image_path); VideoHelperSuite 4ee72c0, ``nodes.py`` (counter of VHS_VideoCombine).
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO

FOLDER_TYPES = ("input", "output", "temp")
_ANNOTATION = re.compile(r"(?P<name>.*?) ?\[(?P<type>input|output|temp)\]", re.DOTALL)
MEDIA_SUFFIXES = {
    "image": frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff"}),
    "video": frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"}),
}


class OutsideFolderError(Exception):
    """A ``filename_prefix`` leads outside the folder; ComfyUI raises a plain Exception with this sentence."""

    exception_type = "Exception"

    def __init__(self) -> None:
        super().__init__("Saving image outside the output folder is not allowed.")


class RefusedPathError(Exception):
    """A name points outside its folder, or is malformed. ``status`` is what ComfyUI answers."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class SavePath:
    """Where an output node writes: ``folder / f"{filename}_{counter:05}…"``."""

    folder: Path
    filename: str
    subfolder: str
    counter: int


class Folders:
    """input, output and temp below one directory that belongs to this worker alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    def prepare(self) -> None:
        """Create the folders (0700) and empty temp."""
        shutil.rmtree(self.directory / "temp", ignore_errors=True)
        for path in (self.directory, *(self.directory / kind for kind in FOLDER_TYPES)):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)

    def sweep(self, oldest_seconds: float) -> int:
        """Delete files last written before this time (seconds since 1970); ComfyUI's protocol cannot delete any.

        Returns:
            How many were deleted.
        """
        deleted = 0
        for path in [path for kind in FOLDER_TYPES for path in self.root(kind).rglob("*")]:
            try:
                if path.is_file() and path.lstat().st_mtime < oldest_seconds:
                    path.unlink()
                    deleted += 1
            except FileNotFoundError:
                continue  # replaced or deleted meanwhile
        return deleted

    def root(self, kind: str) -> Path:
        """The folder of a type.

        Raises:
            KeyError: there is no such type.
        """
        if kind not in FOLDER_TYPES:
            raise KeyError(kind)
        return self.directory / kind

    def inside(self, kind: str, *parts: str) -> Path | None:
        """The path of ``parts`` below a folder, links resolved; None when it is outside."""
        root = self.root(kind)
        try:
            path = root.joinpath(*parts).resolve()
        except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, a loop of links
            return None
        return path if path.is_relative_to(root) else None

    def find(self, annotated: object) -> Path | None:
        """The file that a node input means (``"a.png"``, ``"sub/a.png [temp]"``); None when there is none inside."""
        if not isinstance(annotated, str):
            return None
        match = _ANNOTATION.fullmatch(annotated)
        name, kind = (match["name"], match["type"]) if match else (annotated, "input")
        path = self.inside(kind, name)
        try:
            return path if path is not None and path.is_file() else None
        except OSError:
            return None

    def names(self, kind: str, media: str) -> list[str]:
        """Top-level files of a folder that look like ``media`` ("image" or "video"), sorted: what a combo offers."""
        suffixes = MEDIA_SUFFIXES[media]
        with os.scandir(self.root(kind)) as entries:
            return sorted(
                entry.name for entry in entries if Path(entry.name).suffix.lower() in suffixes and entry.is_file()
            )

    def listing(self, kind: str) -> list[str]:
        """Top-level file names, newest first."""
        with os.scandir(self.root(kind)) as entries:
            files = [entry for entry in entries if entry.is_file()]
        return [entry.name for entry in sorted(files, key=lambda entry: -entry.stat().st_mtime)]

    def keep_upload(self, source: BinaryIO, filename: str, *, kind: str, subfolder: str, overwrite: bool) -> str:
        """Keep uploaded bytes and give back the name they got.

        The same bytes under the same name are kept once; other bytes become ``name (1).ext``.

        Raises:
            RefusedPathError: 400 outside the folder.
            OSError, KeyError, ValueError: what ComfyUI answers with 500 (no such folder, name too long or empty).
        """
        folder = self.inside(kind, os.path.normpath(subfolder))
        if folder is None:
            raise RefusedPathError(400)
        if not filename or filename.startswith("/"):
            raise ValueError("no usable file name")
        folder.mkdir(parents=True, exist_ok=True)
        if self.inside(kind, os.path.normpath(subfolder), filename) is None:
            raise RefusedPathError(400)
        stem, suffix = os.path.splitext(filename)  # noqa: PTH122 - a name with folders in it, kept as it was sent
        with NamedTemporaryFile(dir=folder, prefix=".upload-") as received:
            shutil.copyfileobj(source, received, 1 << 20)
            received.flush()
            name, number = filename, 0
            while not overwrite and (folder / name).exists():
                if filecmp.cmp(folder / name, received.name, shallow=False):
                    return name
                number += 1
                name = f"{stem} ({number}){suffix}"
            _publish(Path(received.name), folder / name)
        return name

    def view(self, filename: str, kind: str, subfolder: str | None) -> Path:
        """The file that ``GET /view`` means; it may not exist.

        Raises:
            RefusedPathError: 400 or 403, as ComfyUI tells them apart.
        """
        match = _ANNOTATION.fullmatch(filename)
        if match:
            filename, kind = match["name"], match["type"]
        if not filename or filename[0] == "/" or ".." in filename or kind not in FOLDER_TYPES:
            raise RefusedPathError(400)
        if subfolder and self.inside(kind, os.path.normpath(subfolder)) is None:
            raise RefusedPathError(403)
        # ComfyUI takes the base name here, so that "sub/file" is a 404 rather than a way down.
        path = self.inside(kind, os.path.normpath(subfolder or ""), os.path.basename(filename))  # noqa: PTH119
        if path is None:
            raise RefusedPathError(403)
        return path

    def save_path(self, prefix: str, kind: str, counter_pattern: str = r"_(\d+)_") -> SavePath:
        """Where an output node with this ``filename_prefix`` writes next: highest number so far + 1.

        Args:
            prefix: may hold folders; they are created.
            kind: "output" or "temp".
            counter_pattern: what follows the prefix in existing names; its group is the number.

        Raises:
            OutsideFolderError: the prefix leads outside the folder.
        """
        normal = os.path.normpath(prefix)
        subfolder, filename = os.path.split(normal)
        folder = self.inside(kind, subfolder)
        if folder is None:
            raise OutsideFolderError
        folder.mkdir(parents=True, exist_ok=True)
        pattern = re.compile(re.escape(filename) + counter_pattern + r"\D*\..+", re.IGNORECASE)
        numbers = [int(match[1]) for name in os.listdir(folder) if (match := pattern.fullmatch(name))]  # noqa: PTH208
        return SavePath(folder, filename, subfolder, max(numbers, default=0) + 1)


def _publish(received: Path, target: Path) -> None:
    """Put a received file in its place at once: a node never reads half an upload."""
    staging = received.with_name(received.name + ".done")
    os.link(received, staging)
    try:
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)

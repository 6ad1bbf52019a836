"""The folder of templates as it lies on disk: where it is, what stands in it, whether it changed.

One subfolder is one template. Everything here blocks and belongs in a thread. What serves is for ``catalog.py`` to say,
when to look for ``watching.py``; whether a template is any good says ``template.py``.
"""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import TemplateError
from gateway.template import NAME, Template, load_template

TOML_FILE: Final = "template.toml"
GRAPH_FILE: Final = "graph.json"

#: A graph of a thousand nodes is about 500 kB.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
#: Subfolders read.
MAX_TEMPLATES: Final = 256

#: Stands for the folder itself among the names of templates; no template can be called that.
FOLDER: Final = "."

#: What changes whenever a template's files do: nothing of it means anything but being equal or not.
Mark = tuple[object, ...]
_LEFT_OUT: Final[Mark] = ("left out",)


def shipped_workflows() -> Path:
    """The folder of templates that came with the gateway: inside the installed package, or beside it in a checkout."""
    # The package is always installed as plain files: templates are read by path, as those of ./workflows are.
    package = Path(str(importlib.resources.files("gateway")))
    installed = package / "workflows"
    return installed if installed.is_dir() else package.parent / "workflows"


def workflows_folder(configured: Path | None, here: Path | None = None) -> Path:
    """The folder of templates to serve: the one configured, else ``./workflows`` when it exists, else the shipped one.

    Args:
        configured: the setting WORKFLOWS_DIR.
        here: what ``.`` is; the working directory.
    """
    if configured is not None:
        return configured
    local = (here or Path.cwd()) / "workflows"
    return local if local.is_dir() else shipped_workflows()


# ------------------------------------------------------------------------------------------------------------- looking


def marks(folder: Path) -> dict[str, Mark]:
    """Name of each template that is there -> its mark. Where the folder cannot be listed, there is but the key FOLDER.

    Names with a dot or an underscore in front are no templates.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] not in "._" and _is_folder(entry))
    except OSError as error:
        return {FOLDER: (_cause(error),)}
    found = {name: _mark(folder / name) for name in names[:MAX_TEMPLATES]}
    return found | dict.fromkeys(names[MAX_TEMPLATES:], _LEFT_OUT)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return True  # then reading it says what is wrong


def _mark(path: Path) -> Mark:
    return tuple(_file_mark(path / name) for name in (TOML_FILE, GRAPH_FILE))


def _file_mark(path: Path) -> Mark | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    # With ctime, because copying tools keep the time of the original, and because a right that was given counts too.
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


# ------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of the folder, or of some templates in it, gave."""

    templates: Mapping[str, Template]
    #: Name, or FOLDER -> why it cannot be used.
    problems: Mapping[str, TemplateError]
    #: Of all templates, from before they were read: what is written meanwhile shows as a change at the next look.
    marks: Mapping[str, Mark]


def read_folder(folder: Path, only: Collection[str] | None = None) -> Reading:
    """The templates of a folder, or ``only`` those of these names that are there."""
    seen = marks(folder)
    templates: dict[str, Template] = {}
    problems: dict[str, TemplateError] = {}
    if FOLDER in seen:
        (cause,) = seen[FOLDER]
        problems[FOLDER] = TemplateError(folder.name, f"the folder of templates cannot be read ({cause})")
        return Reading({}, problems, seen)
    for name, mark in seen.items():
        if only is not None and name not in only:
            continue
        try:
            templates[name] = _read_template(folder / name, mark)
        except TemplateError as error:
            problems[name] = error
    return Reading(templates, problems, seen)


def _read_template(path: Path, mark: Mark) -> Template:
    if mark == _LEFT_OUT:
        raise TemplateError(path.name, f"more than {MAX_TEMPLATES} templates; this one is left out")
    if not NAME.fullmatch(path.name):
        raise TemplateError(path.name, "a template's folder is named in lower-case letters, digits, - and _")
    return load_template(path.name, _read_text(path, TOML_FILE), _read_text(path, GRAPH_FILE))


def _read_text(path: Path, file_name: str) -> str:
    try:
        with (path / file_name).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise TemplateError(path.name, f"{file_name} is larger than {MAX_FILE_BYTES} bytes")
        return data.decode("utf-8-sig")  # editors on Windows put a byte-order mark in front
    except OSError as error:
        raise TemplateError(path.name, f"{file_name} cannot be read ({_cause(error)})") from error
    except UnicodeDecodeError as error:
        raise TemplateError(path.name, f"{file_name} is not UTF-8") from error


def _cause(error: OSError) -> str:
    """What the system said, without the path."""
    return error.strerror or type(error).__name__

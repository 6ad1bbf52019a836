"""The templates that serve: read from a folder, kept by version.

One subfolder is one template. What cannot be loaded does not serve and is named with its reason (``problems``); a
template that served before goes on serving in its last good version. Jobs are pinned to a version, so every version
that ever served is kept in the store. Reading is done in a thread; nothing here blocks the loop.

It does not judge a template (``template.py``) nor fill one (``binding.py``).
"""

from __future__ import annotations

import asyncio
import importlib.resources
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gateway.audit import MediaKind
from gateway.errors import InvalidInputError, TemplateError
from gateway.interfaces import Clock, Store
from gateway.template import NAME, Template, load_template

log = structlog.get_logger(__name__)

TOML_FILE: Final = "template.toml"
GRAPH_FILE: Final = "graph.json"

#: A graph of a thousand nodes is about 500 kB.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
#: Subfolders looked at.
MAX_TEMPLATES: Final = 256
#: Old versions held in memory for the jobs pinned to them; the store has them all.
MAX_PINNED: Final = 64

#: Input whose kind tells which of a task's templates fits.
TARGET_ROLE: Final = "target"


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


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one look at the folder gave."""

    templates: Mapping[str, Template]
    #: Name -> why it could not be loaded.
    problems: Mapping[str, str]


class Catalog:
    """All templates by name, and any version of them that a job may be pinned to.

    Args:
        folder: one subfolder per template.
        store: keeps versions.
        clock: says when a version was first kept.
    """

    def __init__(self, folder: Path, store: Store, clock: Clock) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._serving: Mapping[str, Template] = {}
        self._problems: Mapping[str, str] = {}
        self._pinned: OrderedDict[tuple[str, str], Template] = OrderedDict()
        # Two reloads at once could otherwise end with what the slower one read first.
        self._reloading = asyncio.Lock()

    async def load(self) -> None:
        """Read the folder for the first time. A folder that is not there is a problem, not an error."""
        await self.reload()

    async def reload(self) -> None:
        """Read the folder again: good templates replace what served, bad ones leave it serving, removed ones stop.

        Every version is in the store before it serves.
        """
        async with self._reloading:
            found = await asyncio.to_thread(_read_folder, self._folder)
            for template in found.templates.values():
                await self._keep(template)
            last_good = {name: self._serving[name] for name in found.problems if name in self._serving}
            for name, reason in found.problems.items():
                if self._problems.get(name) != reason:
                    log.warning("template_refused", template=name, reason=reason, still_serving=name in last_good)
            self._problems = found.problems
            self._serving = dict(sorted({**last_good, **found.templates}.items()))

    async def _keep(self, template: Template) -> None:
        if template.version == _version(self._serving.get(template.name)):
            return
        await self._store.save_template(
            template.name, template.version, template.toml_text, template.graph_text, now=self._clock.now()
        )
        log.info("template_loaded", template=template.name, version=template.version)

    def names(self) -> tuple[str, ...]:
        """Names of the templates that serve, in order."""
        return tuple(self._serving)

    def templates(self) -> tuple[Template, ...]:
        """The templates that serve, by name."""
        return tuple(self._serving.values())

    def problems(self) -> Mapping[str, str]:
        """Name -> why its files cannot be used now, with node and input; the last good version may serve all the same."""
        return self._problems

    def get(self, name: str) -> Template:
        """The version that serves.

        Raises:
            TemplateError: there is none of this name.
        """
        if name not in self._serving:
            raise TemplateError(name, self._problems.get(name, "there is no such template"))
        return self._serving[name]

    def for_task(self, task: str, target_kind: MediaKind) -> Template:
        """The template for a task on a target of this kind; the first by name where several fit.

        Raises:
            TemplateError: no template does this task.
            InvalidInputError: none takes such a target; ``field`` is "target".
        """
        able = [template for template in self._serving.values() if template.task == task]
        if not able:
            raise TemplateError(task, "no template that can be used does this task")
        for template in able:
            if target_kind in _target_kinds(template):
                return template
        kinds = sorted({kind.value for template in able for kind in _target_kinds(template)})
        raise InvalidInputError(f"The target must be of kind {' or '.join(kinds)}.", field=TARGET_ROLE)

    async def pinned(self, name: str, version: str) -> Template:
        """A template in exactly this version: the one that serves, one remembered, or from the store.

        Raises:
            TemplateError: this version was never kept, or cannot be loaded any more.
        """
        serving = self._serving.get(name)
        if serving is not None and serving.version == version:
            return serving
        key = (name, version)
        if key in self._pinned:
            self._pinned.move_to_end(key)
            return self._pinned[key]
        kept = await self._store.template(name, version)
        if kept is None:
            raise TemplateError(name, f"version {version} is not known")
        template = await asyncio.to_thread(load_template, name, *kept)
        self._pinned[key] = template
        while len(self._pinned) > MAX_PINNED:
            self._pinned.popitem(last=False)
        return template


def _version(template: Template | None) -> str | None:
    return None if template is None else template.version


def _target_kinds(template: Template) -> frozenset[MediaKind]:
    role = template.inputs.get(TARGET_ROLE)
    return frozenset() if role is None else role.entry.accepts


def _read_folder(folder: Path) -> _Reading:
    """Blocking. Names with a dot or an underscore in front are no templates."""
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    except OSError as error:
        return _Reading({}, {folder.name: f"the folder of templates cannot be read ({_cause(error)})"})
    templates: dict[str, Template] = {}
    problems = {
        path.name: f"more than {MAX_TEMPLATES} templates; this one is left out" for path in found[MAX_TEMPLATES:]
    }
    for path in found[:MAX_TEMPLATES]:
        try:
            templates[path.name] = _read_template(path)
        except TemplateError as error:
            problems[path.name] = error.message
    return _Reading(templates, problems)


def _read_template(path: Path) -> Template:
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

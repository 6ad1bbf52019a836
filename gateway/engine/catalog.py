"""The templates that serve, kept by version.

What cannot be loaded does not serve and is named with its reason (``problems``); a template that served before goes on
serving in its last good version. Jobs are pinned to a version, so every version that ever served is kept in the store.
Reading is done in a thread; nothing here blocks the loop.

It does not read the files (``template_files.py``), nor judge a template (``template.py``), nor fill one
(``binding.py``). When to read again, ``watching.py`` says.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

import structlog

from gateway.audit import MediaKind
from gateway.engine.client_graphs import ClientGraphs
from gateway.engine.needs import TARGET_ROLE, Need, split_requirement
from gateway.engine.template_files import FOLDER, Mark, read_folder
from gateway.errors import InvalidInputError, TemplateError
from gateway.interfaces import Candidate, Clock, Store
from gateway.job import Job
from gateway.template import WORKFLOW, Template, load_template

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

#: Old versions held in memory for the jobs pinned to them; the store has them all.
MAX_PINNED: Final = 64


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
        self._problems: Mapping[str, TemplateError] = {}
        self._marks: Mapping[str, Mark] = {}
        self._graphs = ClientGraphs(store)
        self._pinned: OrderedDict[tuple[str, str], Template] = OrderedDict()
        # Two reloads at once could otherwise end with what the slower one read first.
        self._reloading = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """Where the templates lie."""
        return self._folder

    @property
    def marks(self) -> Mapping[str, Mark]:
        """What was there when each template was last read; see ``template_files.marks``."""
        return self._marks

    async def load(self) -> None:
        """Read the folder for the first time. A folder that is not there is a problem, not an error."""
        await self.reload()

    async def reload(self, only: Collection[str] | None = None) -> None:
        """Read the folder again: good templates replace what served, bad ones leave it serving, removed ones stop.

        Every version is in the store before it serves. Where the folder itself cannot be read, all serve on.

        Args:
            only: names of those that changed, FOLDER among them when it can be read again; by default all are read.
        """
        async with self._reloading:
            found = await asyncio.to_thread(read_folder, self._folder, only)
            for template in found.templates.values():
                await self._keep(template)
            names = found.marks.keys() | self._marks.keys() if only is None else set(only)
            if FOLDER in found.marks:
                names = {FOLDER}
            gone = names - found.marks.keys()
            serving = {name: template for name, template in self._serving.items() if name not in gone}
            self._serving = dict(sorted({**serving, **found.templates}.items()))
            self._tell(names, gone, found.problems)
            self._problems = _replaced(self._problems, names, found.problems)
            self._marks = _replaced(self._marks, names, found.marks)

    async def _keep(self, template: Template) -> None:
        if template.version == _version(self._serving.get(template.name)):
            return
        await self._store.save_template(
            template.name, template.version, template.toml_text, template.graph_text, now=self._clock.now()
        )
        log.info("template_loaded", template=template.name, version=template.version)

    def _tell(self, names: Collection[str], gone: Collection[str], problems: Mapping[str, TemplateError]) -> None:
        """Log what changed, each thing once."""
        for name in sorted(names):
            before, now = self._problems.get(name), problems.get(name)
            if now is not None:
                if before is None or before.message != now.message:
                    serves = bool(self._serving) if name == FOLDER else name in self._serving
                    log.warning("template_refused", template=now.template, reason=now.message, last_good_serves=serves)
            elif name in gone and name != FOLDER:
                log.info("template_removed", template=name)
            elif before is not None:
                log.info("template_mended", template=before.template)

    def names(self) -> tuple[str, ...]:
        """Names of the templates that serve, in order."""
        return tuple(self._serving)

    def templates(self) -> tuple[Template, ...]:
        """The templates that serve, by name."""
        return tuple(self._serving.values())

    def problems(self) -> Mapping[str, str]:
        """Name -> why its files cannot be used now, with node and input, and whether its last good version serves on."""
        return {problem.template: self._sentence(name, problem) for name, problem in self._problems.items()}

    def _sentence(self, name: str, problem: TemplateError) -> str:
        if name == FOLDER and self._serving:
            return f"{problem.message}; what was read before goes on serving"
        return f"{problem.message}; its last good version goes on serving" if name in self._serving else problem.message

    def get(self, name: str) -> Template:
        """The version that serves.

        Raises:
            TemplateError: there is none of this name.
        """
        if name in self._serving:
            return self._serving[name]
        problem = self._problems.get(name)
        if problem is None:
            raise TemplateError(name, "there is no such template")
        raise TemplateError(name, problem.reason, node=problem.node, input_name=problem.input_name)

    def for_task(self, task: str, target_kind: MediaKind | None) -> list[Template]:
        """The templates for a task on a target of this kind, None for no target: by name, those that stand in last.

        Raises:
            TemplateError: no template does this task.
            InvalidInputError: none takes such a target; ``field`` is "target".
        """
        able = [template for template in self._serving.values() if template.task == task]
        if not able:
            raise TemplateError(task, "no template that can be used does this task")
        fitting = [template for template in able if target_kind in _target_kinds(template)]
        if fitting:
            return sorted(fitting, key=lambda template: template.stand_in is not None)
        if target_kind is None:
            raise InvalidInputError("There is no target.", field=TARGET_ROLE)
        kinds = sorted({kind.value for template in able for kind in _target_kinds(template) if kind is not None})
        if not kinds:
            raise InvalidInputError(f"{task} takes no target.", field=TARGET_ROLE)
        raise InvalidInputError(f"The target must be of kind {' or '.join(kinds)}.", field=TARGET_ROLE)

    async def of_job(self, job: Job) -> Template:
        """What runs a job: its pinned template, or its client's own graph.

        Raises:
            TemplateError: it is not there any more, or cannot be loaded.
        """
        if job.template == WORKFLOW:
            return await self._graphs.of(job.id)
        return await self.pinned(job.template, job.template_version)

    async def need_of_candidate(self, candidate: Candidate) -> Need:
        """What a queued task needs of an upstream. Raises TemplateError as ``of_job``."""
        name, version, choices = split_requirement(candidate.requirement)
        if name == WORKFLOW:
            return Need(await self._graphs.of(candidate.job_id, candidate.requirement), choices)
        return Need(await self.pinned(name, version), choices)

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


def _target_kinds(template: Template) -> frozenset[MediaKind | None]:
    """Kinds of targets that it takes; only None where it takes no target."""
    role = template.inputs.get(TARGET_ROLE)
    return frozenset({None}) if role is None else frozenset(role.entry.accepts)


def _replaced(old: Mapping[str, _T], names: Collection[str], new: Mapping[str, _T]) -> Mapping[str, _T]:
    """``old``, and what it says of ``names`` replaced by what ``new`` says."""
    kept = {name: value for name, value in old.items() if name not in names}
    return kept | {name: value for name, value in new.items() if name in names}

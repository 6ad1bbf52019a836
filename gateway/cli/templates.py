"""``comfygate templates``: what templates need and which upstream lacks what; a copy of the shipped ones to be edited.

Needs no gateway. What does not fit is found by ``gateway.fitness``; here it is asked for and shown.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway import fitness
from gateway.comfy.answers import OK, parse_object_info
from gateway.data_dir import StartError
from gateway.engine.template_files import Reading, read_folder, shipped_workflows, workflows_folder
from gateway.errors import TemplateError
from gateway.lacks import Problem, ProblemKind, is_left_out
from gateway.settings import Settings
from gateway.template import Template
from gateway.upstreams.client import Answer, UpstreamClient, parse_address

#: Wide enough for the sentences; where output goes to a file or a pipe there is no width to ask for.
PIPED_COLUMNS = 200

#: What a problem is called in the table.
_WORDS: Mapping[ProblemKind, str] = {
    ProblemKind.CLASS_MISSING: "class missing",
    ProblemKind.INPUT_UNKNOWN: "input unknown",
    ProblemKind.INPUT_MISSING: "input missing",
    ProblemKind.VALUE_NOT_OFFERED: "value not offered",
    ProblemKind.MODEL_MISSING: "model missing",
    ProblemKind.TYPE_MISMATCH: "wrong type",
    ProblemKind.OUT_OF_RANGE: "out of range",
    ProblemKind.NOT_AN_OUTPUT: "saves nothing",
}


# ------------------------------------------------------------------------------------------------------------ checking


@dataclass(frozen=True, slots=True)
class UpstreamNodes:
    """What one upstream said of its nodes."""

    #: Scheme, host and port: never credentials.
    name: str
    #: Class -> entry, as GET /object_info gives it.
    object_info: Mapping[str, Any] = field(default_factory=dict)
    #: Why it could not be asked, in one sentence; None when it was.
    silence: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a template wants of every upstream."""

    kind: str
    name: str
    #: Node class; what its problems are found by.
    node_class: str
    #: None where the class itself is meant.
    input_name: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and on which upstream."""

    template: str
    upstream: str
    problem: Problem
    #: Whether something is to be put right; else an optional template does not run there, and need not.
    is_fault: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """The whole check."""

    reading: Reading
    upstreams: tuple[UpstreamNodes, ...]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is to be put right."""
        return tuple(finding for finding in self.findings if finding.is_fault)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, and everybody answered."""
        silent = any(upstream.silence for upstream in self.upstreams)
        return bool(self.reading.templates) and not (self.faults or self.reading.problems or silent)


def check(settings: Settings, urls: Sequence[str]) -> bool:
    """Check the templates that a gateway would serve here against upstreams, and print what was found.

    Args:
        settings: which folder, and which upstreams where ``urls`` has none.
        urls: of the upstreams to ask instead; may carry credentials.

    Returns:
        Whether everything fits.

    Raises:
        StartError: one of the URLs is none.
    """
    folder = workflows_folder(settings.workflows_dir)
    asked = asyncio.run(_ask_all(urls or settings.upstreams))
    report = examine(read_folder(folder), asked)
    _show(report, folder)
    return report.is_clean


def examine(reading: Reading, upstreams: Sequence[UpstreamNodes]) -> Report:
    """Everything that does not fit between these templates and these upstreams."""
    findings = [
        Finding(template.name, upstream.name, problem, is_fault=not is_left_out(template, problem))
        for template in reading.templates.values()
        for upstream in upstreams
        if upstream.silence is None
        for problem in fitness.check(template, upstream.object_info)
    ]
    return Report(reading, tuple(upstreams), tuple(findings))


def needs(template: Template) -> Iterator[Need]:
    """What a template wants: every class, every model, every choice that its graph made."""
    yield from (Need("class", name, name) for name in sorted({node.class_type for node in template.nodes.values()}))
    for parameter, place in template.placed_parameters:
        if parameter.entry.choices_from is not None:
            wanted = " or ".join(parameter.entry.prefer)
            if parameter.entry.fallback is not None:
                wanted += f" (else {parameter.entry.fallback.value})"
            yield Need("model", f"{parameter.name}: {wanted}", place.node_class, place.input_name)


# -------------------------------------------------------------------------------------------------------------- asking


async def _ask_all(urls: Sequence[str]) -> tuple[UpstreamNodes, ...]:
    return tuple(await asyncio.gather(*(_ask(url) for url in dict.fromkeys(urls))))


async def _ask(url: str) -> UpstreamNodes:
    try:
        address = parse_address(url)
    except ValueError as error:
        raise StartError(f"{error}, for example http://10.0.0.5:8188") from error
    # Reading all authorities takes longer than the rest of the check, and plain http has no use for them.
    client = UpstreamClient(address, {}, verify=address.base_url.startswith("https:"))
    try:
        answer = await client.get("/object_info")
    except ConnectionError as error:
        return UpstreamNodes(
            address.origin, silence=f"{address.origin} does not answer ({error}): start it, or see to its address."
        )
    finally:
        await client.close()
    return await asyncio.to_thread(_understand, address.origin, answer)


def _understand(name: str, answer: Answer) -> UpstreamNodes:
    if answer.status in {401, 403}:
        sentence = f"{name} wants credentials ({answer.status}): put them in its URL, as in http://user:password@host."
        return UpstreamNodes(name, silence=sentence)
    nodes = parse_object_info(answer.status, answer.body)
    if nodes:
        return UpstreamNodes(name, nodes)
    said = "but lists no nodes" if answer.status == OK else f"{answer.status} to /object_info"
    return UpstreamNodes(name, silence=f"{name} answers {said}: is it a ComfyUI?")


# ------------------------------------------------------------------------------------------------------------- showing


def _show(report: Report, folder: Path) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_COLUMNS)
    asked = [upstream for upstream in report.upstreams if upstream.silence is None]
    console.print(f"Templates in {folder}", markup=False, highlight=False)
    if report.reading.templates:
        console.print(_needs_table(report, asked))
    if report.faults or report.reading.problems:
        console.print(_problems_table(report))
    for upstream in report.upstreams:
        if upstream.silence is not None:
            console.print(upstream.silence, markup=False, highlight=False)
    console.print(_verdict(report, asked), markup=False, highlight=False)


def _needs_table(report: Report, asked: Sequence[UpstreamNodes]) -> Table:
    table = Table("template", "needs", "what", "lacking on", title="What each template needs", title_justify="left")
    for template in report.reading.templates.values():
        for need in needs(template):
            lacking = ", ".join(_lacking(report, template, need)) or ("-" if asked else "not asked")
            table.add_row(*(escape(text) for text in (template.name, need.kind, need.name, lacking)))
    return table


def _lacking(report: Report, template: Template, need: Need) -> Iterator[str]:
    places = {
        finding.upstream: None
        for finding in report.findings
        if finding.template == template.name
        and finding.problem.node_class == need.node_class
        and (
            finding.problem.kind is ProblemKind.CLASS_MISSING
            or (need.input_name is not None and finding.problem.input_name == need.input_name)
        )
    }
    yield from places


def _problems_table(report: Report) -> Table:
    table = Table("template", "upstream", "problem", "node", "input", "why", title="Problems", title_justify="left")
    for error in report.reading.problems.values():
        table.add_row(*(escape(text) for text in _broken(error)))
    for finding in report.faults:
        problem = finding.problem
        cells = (
            finding.template,
            finding.upstream,
            _WORDS[problem.kind],
            f"{problem.node} ({problem.node_class})",
            problem.input_name or "",
            problem.reason,
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _broken(error: TemplateError) -> tuple[str, ...]:
    """The row of a template that cannot be loaded anywhere."""
    return error.template, "any", "cannot be loaded", error.node or "", error.input_name or "", error.reason


def _verdict(report: Report, asked: Sequence[UpstreamNodes]) -> str:
    count = len(report.faults) + len(report.reading.problems)
    if count:
        return f"{count} problem{'s' if count > 1 else ''}."
    if not report.reading.templates:
        return "There is no template."
    if asked:
        absent = sorted({finding.template for finding in report.findings})
        optional = f" Optional, and not on every one of them: {', '.join(absent)}." if absent else ""
        return f"Everything fits on {len(asked)} of {len(report.upstreams)} upstreams.{optional}"
    why = "answered" if report.upstreams else "was asked: give --upstream, or set GATEWAY_UPSTREAMS"
    return f"The templates by themselves are sound; no upstream {why}."


# ------------------------------------------------------------------------------------------------------------- copying


def copy_shipped(into: Path) -> list[str]:
    """Copy the shipped templates into a folder, which is made if need be; nothing there is overwritten.

    Returns:
        Their names.

    Raises:
        StartError: one of them is there already, and then none is copied; or the folder cannot be written.
    """
    shipped = sorted(path for path in shipped_workflows().iterdir() if path.is_dir())
    taken = [path.name for path in shipped if (into / path.name).exists() or (into / path.name).is_symlink()]
    if taken:
        raise StartError(f"{into} has {' and '.join(taken)} already: nothing was copied; give another folder.")
    try:
        into.mkdir(parents=True, exist_ok=True)
        for path in shipped:
            # A gateway may be watching the folder. It does not look at names that begin with a dot.
            partial = into / f".{path.name}.{uuid.uuid4().hex}"
            try:
                shutil.copytree(path, partial)
                partial.rename(into / path.name)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise StartError(f"{into} cannot be written ({error.strerror or type(error).__name__}).") from error
    return [path.name for path in shipped]

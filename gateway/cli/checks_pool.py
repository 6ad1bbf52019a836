"""What can be wrong with templates and upstreams: each upstream is asked for its version and its nodes, nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.blobs.fetch import tls_context
from gateway.cli.findings import Finding, fail, ok, warn
from gateway.cli.leavings import KEEPS
from gateway.cli.reaching import DATABASE
from gateway.engine.template_files import FOLDER, read_folder, workflows_folder
from gateway.fitness import check
from gateway.lacks import Problem, ProblemKind, is_left_out
from gateway.naming import upstream_name
from gateway.settings import Settings
from gateway.template import Template
from gateway.upstreams.cleaning import Cleaner
from gateway.upstreams.client import Answer, UpstreamClient, parse_address
from gateway.upstreams.exchange import NoAnswerError, NotSentError
from gateway.upstreams.staging import Staging, folder_of

#: Custom nodes by how their classes' names begin, and where they come from.
PACKS = {
    "VHS_": "install ComfyUI-VideoHelperSuite into its custom_nodes",
    "ReActor": "install ComfyUI-ReActor into its custom_nodes, or the pack in comfy_nodes/",
}
#: Problems named per upstream and template; ``templates check`` names all.
MOST_NAMED = 3
HTTP_OK = 200


@dataclass(frozen=True, slots=True)
class Instance:
    """An upstream to be asked."""

    name: str
    #: May carry credentials: never shown.
    url: str


def check_templates(settings: Settings) -> tuple[list[Finding], Sequence[Template]]:
    """What is wrong with the folder of templates, and those that can serve."""
    folder = workflows_folder(settings.workflows_dir)
    read = read_folder(folder)
    templates = list(read.templates.values())
    report = warn if templates else fail
    found = [
        report(
            "templates",
            error.message if name == FOLDER else f"{name}: {error.message}",
            f"mend it in {folder}, or take it away",
        )
        for name, error in read.problems.items()
    ]
    if templates:
        names = ", ".join(template.name for template in templates)
        found.append(ok("templates", f"{names} can serve, from {folder}"))
    elif not found:
        found.append(
            fail("templates", f"{folder} holds no template", "unset GATEWAY_WORKFLOWS_DIR for the shipped ones")
        )
    return found, templates


def instances(settings: Settings) -> list[Instance]:
    """The upstreams of the settings, and those that were added while a gateway ran."""
    found = {}
    for url in settings.upstreams:
        try:
            found[upstream_name(url)] = Instance(upstream_name(url), url)
        except ValueError:
            found["?"] = Instance("?", url)
    return [*{**_added(settings.data_dir / DATABASE), **found}.values()]


def _added(database: Path) -> dict[str, Instance]:
    if not database.is_file():
        return {}
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT name, url FROM upstreams WHERE url IS NOT NULL AND NOT removed"
            ).fetchall()
    except sqlite3.Error:
        return {}  # the check of the database says so
    return {name: Instance(name, url) for name, url in rows}


async def check_upstreams(settings: Settings, templates: Sequence[Template]) -> AsyncIterator[Finding]:
    """Each upstream: there, of which version, and what templates miss on it; last whether each template fits anywhere."""
    known, verify = instances(settings), _authorities(settings.ca_file)
    reached = 0
    fitting: set[str] = set()
    token = settings.upstream_token.get_secret_value() if settings.upstream_token is not None else None
    for instance in known:
        finding, object_info = await _ask(instance, verify)
        yield finding
        if object_info is None:
            continue
        reached += 1
        async for finding in _check_cleaning(instance, verify, token):
            yield finding
        for template in templates:
            if problems := check(template, object_info):
                yield _unfit(instance, template, problems)
            else:
                fitting.add(template.name)
    if settings.embedded_worker_count:
        yield ok("upstream", f"embedded CPU workers: {settings.embedded_worker_count}; they run the shipped templates")
    elif not known and not settings.comfyui_devices:
        yield fail("upstream", "there is none", "set GATEWAY_UPSTREAMS to your ComfyUI instances")
    elif reached and not settings.comfyui_devices:
        for name in [template.name for template in templates if not template.optional and template.name not in fitting]:
            yield fail("templates", f"{name} fits no upstream", "mend one of the upstreams, as said above")


def _authorities(ca_file: Path | None) -> ssl.SSLContext | bool:
    try:
        return tls_context(ca_file) if ca_file is not None else True
    except OSError:
        return True  # the check of the settings says so


async def _ask(instance: Instance, verify: ssl.SSLContext | bool) -> tuple[Finding, Mapping[str, Any] | None]:  # noqa: FBT001 - httpx takes either
    """How an upstream is, and its /object_info when it gave one."""
    try:
        address = parse_address(instance.url)
    except ValueError as error:
        return fail("upstream", f"{error}", "write it as http://10.0.0.5:8188 in GATEWAY_UPSTREAMS"), None
    where = f"{instance.name} ({address.origin})"
    client = UpstreamClient(address, {}, verify=verify)
    try:
        stats, info = await client.get("/system_stats"), await client.get("/object_info")
    except NotSentError as error:
        remedy = "start ComfyUI with --listen and its port, and see that no firewall is between"
        return fail("upstream", f"{where} cannot be reached ({error})", remedy), None
    except NoAnswerError as error:
        remedy = "look into ComfyUI's own log; restart it if it hangs"
        return fail("upstream", f"{where} does not answer ({error})", remedy), None
    finally:
        await client.close()
    return _judge(where, stats, info)


async def _check_cleaning(
    instance: Instance,
    verify: ssl.SSLContext | bool,  # noqa: FBT001 - httpx takes either
    token: str | None,
) -> AsyncIterator[Finding]:
    """Whether it deletes what jobs leave there: it is asked for the files of a gateway that nobody has."""
    client, folder = UpstreamClient(parse_address(instance.url), {}, verify=verify), folder_of("")
    cleaner = Cleaner(instance.name, client, Staging(client, folder), folder, token)
    try:
        with contextlib.suppress(ConnectionError):
            await cleaner.tidy(_all_in_use)
    finally:
        await client.close()
    if (kept := KEEPS.get(cleaner.state)) is not None:
        yield warn("upstream", f"{instance.name}: {kept[0]}", kept[1])


async def _all_in_use(hashes: Collection[str], prompts: Collection[str]) -> Collection[str]:
    return {*hashes, *prompts}


def _judge(where: str, stats: Answer, info: Answer) -> tuple[Finding, Mapping[str, Any] | None]:
    if info.status in {401, 403}:
        remedy = "put user and password into its URL: http://user:password@host:8188"
        return fail("upstream", f"{where} wants credentials (status {info.status})", remedy), None
    version, object_info = _read(stats.body), _read(info.body)
    if info.status != HTTP_OK or object_info is None:
        return fail("upstream", f"{where} answers, and is no ComfyUI (status {info.status})", "see to its URL"), None
    system = (version or {}).get("system")
    said = system.get("comfyui_version") if isinstance(system, Mapping) else None
    finding = ok("upstream", f"{where}: ComfyUI {said or 'of unknown version'}, {len(object_info)} node classes")
    return finding, object_info


def _read(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _unfit(instance: Instance, template: Template, problems: Sequence[Problem]) -> Finding:
    if all(is_left_out(template, problem) for problem in problems):
        return ok("upstream", f"{instance.name} does without {template.name}, which is optional: {problems[0]}")
    named = "; ".join(str(problem) for problem in problems[:MOST_NAMED])
    more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
    return warn("upstream", f"{instance.name} does not fit {template.name}: {named}{more}", remedy_for(problems))


def remedy_for(problems: Sequence[Problem]) -> str:
    """What to do about problems, each remedy once."""
    remedies = []
    for problem in problems:
        pack = next((remedy for start, remedy in PACKS.items() if problem.node_class.startswith(start)), None)
        if problem.kind is ProblemKind.CLASS_MISSING:
            remedies.append(pack or f"install the custom node that brings {problem.node_class}")
        elif problem.kind is ProblemKind.MODEL_MISSING:
            remedies.append("put a model that the template names into its models folder, and restart it")
        else:
            remedies.append("bring its node packs to the version that the template was made with, or mend the template")
    return "; ".join(dict.fromkeys(remedies))

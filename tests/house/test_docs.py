"""What the pages name exists, and what exists is named on a page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import cyclopts
import pytest

from comfy_nodes import routes as pack_routes
from gateway import errors, job
from gateway.api.app import all_endpoints
from gateway.api.dialects import DIALECTS
from gateway.api.window import Endpoint
from gateway.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / "gateway" / "README.md"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        MAP,
        *ROOT.glob("workflows/*/README.md"),
        ROOT / "comfy_nodes" / "README.md",
    ]
)
#: Folders and files that come into being when something runs.
MADE_LATER = {
    "blobs/",
    "blobs/parts/",
    "storage/cache/",
    "storage/marks/",
    "storage/id",
    "storage/place",
    "scratch/",
    "input/gateway/",
    "output/gateway/",
}
#: Files of a template or of the operator's, media types.
NO_PATHS = {
    "graph.json", "template.toml", "example.json", "gateway.toml", "./workflows",
    "multipart/form-data", "application/x-www-form-urlencoded", "application/octet-stream", "image/png",
}  # fmt: skip
PATH = re.compile(r"`((?:\./)?[\w.-]+(?:/[\w.-]+)*/?)`")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


ALL_TEXT = "\n".join(text(page) for page in PAGES)

# --------------------------------------------------------------------------------------------------------------- paths


def looks_like_a_path(word: str) -> bool:
    return "/" in word or bool(re.search(r"\.(md|py|toml|sh|json)$", word))


def exists(word: str, page: Path) -> bool:
    bases = [ROOT, page.parent]
    if page == MAP:
        bases.append(ROOT / "gateway")
    return any((base / word).exists() for base in bases) or word in MADE_LATER


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_each_path_named_exists(page: Path) -> None:
    named = {word for word in PATH.findall(text(page)) if looks_like_a_path(word)}
    # Routes begin with a slash and so are no matches.
    assert {word for word in named if not exists(word, page)} - NO_PATHS == set()


# -------------------------------------------------------------------------------------------------------------- routes


def claims() -> set[tuple[str, str]]:
    return {
        (endpoint.method if isinstance(endpoint, Endpoint) else "WS", re.sub(r"\{[^}]*\}", "{}", endpoint.path))
        for endpoint in all_endpoints(DIALECTS)
    }


def documented_routes(source: str) -> set[tuple[str, str]]:
    found = re.findall(r"`(GET|HEAD|POST|PUT|PATCH|DELETE|WS) (/[^`\s?]*)`", source)
    return {(method, re.sub(r"\{[^}]*\}", "{}", path)) for method, path in found}


#: What ComfyUIs serve that have the node pack.
OF_THE_PACK = {("POST", path) for path in pack_routes.PATHS}


def test_each_route_named_is_served() -> None:
    assert documented_routes(ALL_TEXT) <= claims() | OF_THE_PACK


def test_each_route_served_is_named() -> None:
    assert claims() <= documented_routes(ALL_TEXT)


# -------------------------------------------------------------------------------------------------------------- errors


def error_classes() -> list[type[errors.GatewayError]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, errors.GatewayError)]


def refusals_and_failures() -> tuple[dict[str, int], set[str]]:
    refusals = {kind.code: kind.status_hint for kind in error_classes() if not issubclass(kind, errors.JobError)}
    failures = {kind.code for kind in error_classes() if issubclass(kind, errors.JobError)}
    # A job also fails with it, when the template that it is pinned to cannot be used any more.
    return refusals, failures | {errors.TemplateError.code}


def test_error_page_holds_each_code_with_its_status_and_no_other() -> None:
    first, second = text(ROOT / "docs" / "errors.md").split("## A job failed")
    refusals, failures = refusals_and_failures()
    assert {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d+) ", first, re.MULTILINE)} == refusals
    assert set(re.findall(r"^\| `(\w+)` ", second, re.MULTILINE)) == failures


def test_error_page_says_whose_fault_it_is() -> None:
    faults = {(kind.code, kind.fault.value) for kind in error_classes()}
    rows = re.findall(r"^\| `(\w+)` \|(?: \d+ \|)? (\w+) \|", text(ROOT / "docs" / "errors.md"), re.MULTILINE)
    assert set(rows) == faults


def test_tree_in_the_docstring_has_each_class_and_code() -> None:
    tree = errors.__doc__ or ""
    for kind in error_classes():
        assert kind.__name__ in tree
        if kind.__subclasses__() == [] and kind is not errors.GatewayError:
            assert kind.code in tree, kind


# ------------------------------------------------------------------------------------------------------------ commands


def commands(apps: cyclopts.App, prefix: str = "comfygate") -> set[str]:
    found = set()
    for name in apps:
        if not name.startswith("-"):
            found |= {f"{prefix} {name}"} | commands(apps[name], f"{prefix} {name}")
    return found


def test_each_command_is_documented() -> None:
    assert {command for command in commands(app) if f"`{command}" not in ALL_TEXT} == set()


def test_each_command_named_exists() -> None:
    known = commands(app)
    for line in re.findall(r"comfygate((?: [a-z]+)+)", "\n".join(re.findall(r"`[^`\n]+`", ALL_TEXT))):
        words = line.split()
        assert any(f"comfygate {' '.join(words[:count])}" in known for count in (1, 2)), line


# ------------------------------------------------------------------------------------------------------------- the map


def test_map_shows_the_table_of_the_life() -> None:
    assert job.picture() in text(MAP)


def test_docstring_of_the_life_says_what_the_table_does() -> None:
    head = [event.value for event in job.TaskEvent]
    lines = (job.__doc__ or "").splitlines()
    assert next(line for line in lines if line.strip().startswith("state \\ event")).split()[3:] == head
    for state in (job.TaskState.QUEUED, job.TaskState.DISPATCHED, job.TaskState.RUNNING):
        cells = next(line for line in lines if line.strip().startswith(f"{state.value} ")).split()[1:]
        for event, cell in zip(job.TaskEvent, cells, strict=True):
            target = job.next_state(state, event)
            expected = "-" if target is None else "(flag)" if target is state else target.value
            assert cell.rstrip("¹") == expected, (state, event)


def test_each_folder_of_the_package_is_on_the_map() -> None:
    folders = {path.name for path in (ROOT / "gateway").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {folder for folder in folders if f"{folder}/" not in text(MAP)} == set()


def test_each_dialect_has_its_section() -> None:
    page = text(ROOT / "docs" / "dialects.md")
    assert [dialect.name for dialect in DIALECTS if f"## {dialect.name}\n" not in page] == []

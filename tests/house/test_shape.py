"""How the house is built: sizes, mirrors, reasons, and what no file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("comfy_nodes/**/*.py")])
LONGEST_FUNCTION_LINES = 60
LONGEST_MODULE_LINES = 450

#: Modules that may be longer, each with the reason.
LONG_MODULES = {
    "gateway/interfaces.py": "every seam of the house in one place, half of it docstrings",
    "gateway/api/facade.py": "every door of the engine in one place, most of it docstrings",
    "gateway/errors.py": "the whole tree of errors, a few lines each",
    "gateway/comfy/protocol.py": "one state machine; its rules are read together",
    "gateway/upstreams/remote.py": "one class per connection, its tasks and its calls",
}
#: What is tested by a file of another name: the modules, the test file, and so what shows that they work.
TESTED_ELSEWHERE = {
    "gateway/api/dialects/*/*.py": "tests/contract/test_dialects.py",
    "gateway/api/health.py": "tests/contract/test_dialects.py",
    "gateway/api/openapi/*.py": "tests/house/test_openapi.py",
    "gateway/api/incoming.py": "tests/unit/api/test_uploads.py",
    "gateway/api/problems.py": "tests/contract/test_dialects.py",
    "gateway/api/websocket.py": "tests/contract/test_dialects.py",
    "gateway/api/shown.py": "tests/unit/api/test_ops.py",
    "gateway/cli/*.py": "tests/system/test_demo.py",
    "gateway/comfy/narration.py": "tests/unit/comfy/test_protocol.py",
    "gateway/engine/*.py": "tests/engine/test_life.py",
    "gateway/lacks.py": "tests/unit/test_template.py",
    "gateway/manifest_reading.py": "tests/unit/test_manifest.py",
    "gateway/values.py": "tests/unit/test_manifest.py",
    "gateway/workflow_*.py": "tests/unit/test_workflow.py",
    "gateway/media/extent.py": "tests/unit/media/test_movies.py",
    "gateway/media/limits.py": "tests/unit/media/test_movies.py",
    "gateway/media/process.py": "tests/unit/media/test_workers.py",
    "gateway/embedded/*.py": "tests/system/test_embedded_worker.py",
    "gateway/store/queries/*.py": "tests/contract/test_store.py",
    "gateway/store/sql_store.py": "tests/contract/test_store.py",
    "gateway/store/metadata.py": "tests/unit/store/test_schema.py",
    "gateway/store/schema_credits.py": "tests/contract/test_sql_credits.py",
    "gateway/store/schema_consents.py": "tests/contract/test_sql_consents.py",
    "gateway/store/sql_consents.py": "tests/contract/test_sql_consents.py",
    "gateway/store/schema_deliveries.py": "tests/contract/test_sql_deliveries.py",
    "gateway/store/sql_deliveries.py": "tests/contract/test_sql_deliveries.py",
    "gateway/store/schema_webhooks.py": "tests/contract/test_sql_webhooks.py",
    "gateway/store/migrations/running.py": "tests/unit/store/test_migrations.py",
    "gateway/store/migrations/versions/*.py": "tests/unit/store/test_migrations.py",
    "gateway/objects/s3.py": "tests/contract/test_bucket.py",
    "gateway/objects/reading.py": "tests/contract/test_bucket.py",
    "gateway/objects/threads.py": "tests/contract/test_bucket.py",
    "gateway/upstream_builder.py": "tests/unit/test_main.py",
    "gateway/upstreams/*.py": "tests/contract/test_upstream.py",
    "gateway/errors.py": "tests/house/test_docs.py",
    "comfy_nodes/alignment.py": "tests/unit/comfy_nodes/test_swap.py",
    "comfy_nodes/host.py": "tests/unit/comfy_nodes/test_nodes.py",
    "comfy_nodes/opencv.py": "tests/unit/comfy_nodes/test_detection.py",
}
#: Nothing to test in a file of its own: the reason.
NEEDS_NO_TEST = {
    "gateway/interfaces.py": "signatures; mypy checks them",
    "gateway/api/facade.py": "signatures; mypy checks them",
    "gateway/api/window.py": "values that every test of a window is made of",
    "gateway/clock.py": "three calls of the standard library",
    "gateway/comfy/messages.py": "values",
    "gateway/comfy/requests.py": "values",
    "gateway/httpclient.py": "names of a library",
}

#: Rules whose exceptions are all for one reason.
SILENCED_WITHOUT_REASON = {
    "PLR2004": "the line says what the figure counts",
    "PTH208": "names are wanted, not paths",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def mirrors(path: Path) -> list[Path]:
    """Where the tests of a module may stand."""
    inside = path.relative_to(ROOT / "gateway") if path.is_relative_to(ROOT / "gateway") else path.relative_to(ROOT)
    if inside.stem == "__init__":
        inside = inside.parent
    name = f"test_{inside.stem}.py"
    folders = (Path("unit") / inside.parent, Path("engine"), Path("contract"))
    return [ROOT / "tests" / folder / name for folder in folders]


@dataclass(frozen=True)
class Outline:
    """What one look through a module tells; its tree is not kept, which would be large."""

    has_something_to_test: bool
    says_what_it_is: bool
    too_long: tuple[str, ...]


@cache
def outline(path: Path) -> Outline:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return Outline(
        any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body),
        not source.strip() or bool(ast.get_docstring(tree)),
        tuple(node.name for node in functions if body_lines(node) > LONGEST_FUNCTION_LINES),
    )


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_each_module_has_its_test_file(path: Path) -> None:
    if (
        not outline(path).has_something_to_test
        or any(mirror.is_file() for mirror in mirrors(path))
        or name_of(path) in NEEDS_NO_TEST
    ):
        return
    assert any(path.match(pattern) for pattern in TESTED_ELSEWHERE), f"no tests for {name_of(path)}"


@pytest.mark.parametrize("pattern", TESTED_ELSEWHERE)
def test_lists_of_exceptions_are_true(pattern: str) -> None:
    assert list(ROOT.glob(pattern)), "nothing of that name is there"
    assert (ROOT / TESTED_ELSEWHERE[pattern]).is_file()


def test_lists_of_exceptions_name_what_is_there_and_needs_them() -> None:
    assert [name for name in {*LONG_MODULES, *NEEDS_NO_TEST} if not (ROOT / name).is_file()] == []
    assert [name for name in LONG_MODULES if len(lines(ROOT / name)) <= LONGEST_MODULE_LINES] == []


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_no_module_is_too_long(path: Path) -> None:
    if name_of(path) not in LONG_MODULES:
        assert len(lines(path)) <= LONGEST_MODULE_LINES


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a body, its docstring not counted."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_no_function_is_too_long(path: Path) -> None:
    if "migrations/versions" in name_of(path):
        return  # the description of a table is one statement
    assert outline(path).too_long == ()


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_each_module_says_what_it_is(path: Path) -> None:
    assert outline(path).says_what_it_is


def silenced() -> list[tuple[str, str, str]]:
    """(place, line, the line above) of each silenced warning."""
    found = []
    for path in CODE:
        source = ["", *lines(path)]
        for number, line in enumerate(source):
            if "# noqa" in line or "# type: ignore" in line:
                found.append((f"{name_of(path)}:{number}", line, source[number - 1].strip()))
    return found


def test_each_silenced_warning_says_which() -> None:
    named = re.compile(r"# noqa: [A-Z]+[0-9]+|# type: ignore\[[a-z, -]+\]")
    assert [place for place, line, _ in silenced() if not named.search(line)] == []


def test_each_silenced_warning_says_why() -> None:
    """Behind the code or in a comment above."""
    codes = "|".join(SILENCED_WITHOUT_REASON)
    reason = re.compile(rf"# noqa: ([A-Z0-9, ]+ - \S|({codes})$)|# type: ignore\[[a-z, -]+\] +# \S")
    assert [place for place, line, above in silenced() if not reason.search(line) and not above.startswith("#")] == []


def test_each_exception_of_ruff_has_its_reason() -> None:
    source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ruff = source[source.index("[tool.ruff.lint]") : source.index("[tool.ruff.lint.pydocstyle]")]
    reason_above = False
    for line in ruff.splitlines():
        if line.strip().startswith("#"):
            reason_above = True
        elif re.match(r'\s*("[A-Z]+[0-9]*",? ?)+', line) or re.search(r"= \[.*\]", line):
            assert "#" in line or reason_above or line.startswith("select"), f"no reason: {line}"
        else:
            reason_above = False


def test_licence_names_the_holder() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "Version 2.0" in licence
    assert "The comfygate authors" in licence
    assert "[name of copyright owner]" not in licence


# Put together here, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a package registry's host": re.compile(
        "|".join(["py" + "pi\\.org", "pythonhosted\\" + ".org", "registry\\." + "npmjs"])
    ),
    "a path of a person's machine": re.compile(
        r"(?<![\w.])/(?:"
        + "|".join(["ro" + "ot", "ho" + "me/\\w", "wo" + "rk/(?:main|shared)", "Us" + "ers/\\w"])
        + r")(?![\w-])"
    ),
    "a conflict mark": re.compile("^(?:<{7}|>{7}) ", re.MULTILINE),
}
BINARY = {".png", ".jpg", ".mp4", ".gif", ".webp", ".pem"}


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    found = [
        name_of(path)
        for path in tracked()
        if path.is_file() and path.suffix not in BINARY
        and FORBIDDEN[what].search(path.read_text(encoding="utf-8", errors="replace"))
    ]  # fmt: skip
    assert found == []


def test_scripts_can_be_run() -> None:
    for path in [*ROOT.glob("scripts/*"), *ROOT.glob("deploy/*.sh"), ROOT / ".ci" / "run"]:
        if path.is_file() and path.read_bytes().startswith(b"#!"):
            assert path.stat().st_mode & 0o111, path

"""The stairs go down only: who may import whom, deferred and type-checking imports counted."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gateway"

WORKSHOPS = frozenset({"upstreams", "embedded", "store", "blobs", "media", "moderation", "objects", "webhooks"})
#: Modules on the top of the package that stand on the roof; every other one there is ground.
ROOF = frozenset(
    {
        "main",
        "serving",
        "upstream_builder",
        "safety_builder",
        "storage_builder",
        "outgoing",
        "holding",
        "stopped_holder",
        "wire",
        "data_dir",
        "tls",
        "cli",
        "__main__",
    }
)
#: Ground that touches the world by its nature, each with its reason.
NOT_PURE = {
    "clock": "is the clock",
    "httpclient": "is where the HTTP library is named, once",
}
#: What makes a module impure when it is imported.
WORLD = frozenset(
    {
        "aiofiles", "anyio", "asyncio", "concurrent", "httpcore", "httpx", "multiprocessing", "os", "random", "requests",
        "secrets", "shutil", "socket", "sqlite3", "ssl", "starlette", "subprocess", "tempfile", "threading", "time",
        "uvicorn", "websockets",
    }
)  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that ``path`` names in an import statement, wherever it stands."""
    found: set[str] = set()
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found.add(base)
            found.update(
                f"{base}.{alias.name}" for alias in node.names if (PACKAGE.parent / base.replace(".", "/")).is_dir()
            )
    return frozenset(found)


def room(module: str) -> str:
    """The folder or top module below ``gateway`` that a dotted name belongs to; "" for others."""
    parts = module.split(".")
    return parts[1] if parts[0] == "gateway" and len(parts) > 1 else ""


def floor(name: str) -> int:
    if name in ROOF:
        return 5
    if name == "api":
        return 4
    if name == "engine":
        return 3
    if name in WORKSHOPS:
        return 2
    return 1


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_stairs_go_down_only(path: Path) -> None:
    here = room(dotted(path))
    if not here:
        return
    for module in imports(path):
        there = room(module)
        if there and there != here:
            assert floor(there) <= floor(here), f"{dotted(path)} (floor {floor(here)}) imports {module}"
            if floor(here) in {2, 3, 4}:
                assert floor(there) != 2, f"{dotted(path)} imports the workshop {module}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_ground_is_pure(path: Path) -> None:
    here = room(dotted(path))
    if not here or floor(here) != 1 or here in NOT_PURE:
        return
    named = {module.split(".")[0] for module in imports(path)}
    assert not named & WORLD, f"{dotted(path)} reaches for the world"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if here != "interfaces":
        assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))


@pytest.mark.parametrize("name", NOT_PURE)
def test_ground_is_called_impure_only_where_it_is(name: str) -> None:
    named = {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py")}
    assert named & WORLD


@pytest.mark.parametrize("path", sorted((PACKAGE / "comfy").glob("*.py")), ids=dotted)
def test_comfy_knows_nothing_of_ours_but_errors(path: Path) -> None:
    ours = {module for module in imports(path) if module.startswith("gateway")}
    assert all(room(module) in {"", "comfy", "errors"} for module in ours), ours


DIALECTS = PACKAGE / "api" / "dialects"


@pytest.mark.parametrize(
    "path", [path for path in sorted(DIALECTS.rglob("*.py")) if path != DIALECTS / "__init__.py"], ids=dotted
)
def test_dialects_are_strangers(path: Path) -> None:
    own = path.relative_to(DIALECTS).parts[0].removesuffix(".py")
    named = {module.split(".")[3] for module in imports(path) if module.startswith("gateway.api.dialects.")}
    assert named <= {own}


def test_node_pack_imports_nothing_of_the_gateway() -> None:
    for path in sorted((ROOT / "comfy_nodes").rglob("*.py")):
        assert not any(module.split(".")[0] == "gateway" for module in imports(path)), path


def test_http_library_is_named_in_one_module() -> None:
    users = {dotted(path) for path in modules() if any(m.split(".")[0] == "httpx" for m in imports(path))}
    assert users == {"gateway.httpclient"}


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "manager", "misc"}
    assert not [path for path in modules() if path.stem in drawers]

"""What is not run is told once, with its reason; where everything must run it is a failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SUITE = """
import pytest

def test_that_runs():
    pass

@pytest.mark.parametrize("number", range(2))
@pytest.mark.skipif(True, reason="Chromium is not here")
def test_in_a_browser(number):
    pass

def test_that_finds_out_late():
    pytest.skip("no PostgreSQL is here")

@pytest.mark.long
def test_that_takes_long():
    pass

@pytest.mark.xfail(reason="known")
def test_that_is_expected_to_fail():
    assert False
"""


def run_suite(folder: Path, ci: str, *, skip_module: bool = False) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_bytes(CONFTEST.read_bytes())
    (folder / "test_suite.py").write_text(SUITE)
    if skip_module:
        (folder / "test_module.py").write_text(
            'import pytest\npytest.skip("no Redis is here", allow_module_level=True)\n'
        )
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = long\n")
    environment = {**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--color=no", "."]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    return run_suite(tmp_path_factory.mktemp("home"), "", skip_module=True)


def test_each_reason_stands_once_with_its_count(at_home) -> None:
    assert at_home.returncode == 0, at_home.stdout
    table = at_home.stdout.split("not run here, and why", 1)[1]
    for line in ("2  Chromium is not here", "1  no PostgreSQL is here", "1  no Redis is here", "1  takes long .*"):
        assert len(re.findall(rf"^ +{line}$", table, re.MULTILINE)) == 1, table


def test_expected_failures_are_no_skips(at_home) -> None:
    assert "known" not in at_home.stdout.split("not run here, and why", 1)[1]


def test_every_skip_is_a_failure_where_ci_is_set(tmp_path) -> None:
    result = run_suite(tmp_path, "true")
    assert result.returncode != 0
    # A skip before a test begins is told as an error, one within it as a failure.
    assert "1 failed, 2 passed, 1 xfailed, 2 errors" in result.stdout
    assert "everything must run: Chromium is not here" in result.stdout


def test_a_module_that_skips_itself_is_a_failure_too(tmp_path) -> None:
    result = run_suite(tmp_path, "true", skip_module=True)
    assert result.returncode != 0
    assert "everything must run: no Redis is here" in result.stdout

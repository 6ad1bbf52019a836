"""What every test stands on: one asyncio backend, and the closing table of what was skipped and why.

A skip is told at the end, once per reason, with its count. Where ``CI`` is true in the environment nothing may be
skipped: whatever a test needs is installed there (``.ci/run``), so a skip is a failure. Tests marked ``long`` run there,
and where they are asked for with ``--long``.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
import structlog
from hypothesis import settings

# One profile for all: a slow machine must not fail a test for being slow.
EXAMPLES = os.environ.get("COMFYGATE_EXAMPLES") or ("60" if os.environ.get("CI") else "30")
settings.register_profile("comfygate", deadline=None, max_examples=int(EXAMPLES))
settings.load_profile("comfygate")
# As the gateway shows them; the default looks up the locals of every frame, a second each time.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def everything_must_run() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="Run the tests that take long, too.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if "long" in item.keywords and not (everything_must_run() or item.config.getoption("--long")):
        pytest.skip("takes long (CI runs it, and ./scripts/test --long does)")


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped: pytest keeps (file, line, "Skipped: why")."""
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too; that one did run.
    if everything_must_run() and report.skipped and not hasattr(report, "wasxfail"):
        reason = skip_reason(report)
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI is set, where everything must run: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    refuse_skip(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per reason."""
    reasons = Counter(skip_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if not reasons:
        return
    terminalreporter.section("not run here, and why")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:5d}  {reason}")

"""Node, Chromium and playwright-core for tests in a browser, and how a script is run in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
TOOLS = Path(os.environ.get("COMFYGATE_NODE_TOOLS", HERE.parents[1] / ".node-tools"))
CHROMIUM = os.environ.get("COMFYGATE_CHROMIUM") or next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
BROWSER_SECONDS = 240


def required_tools() -> str:
    """Node's path; skips with the reason where something is missing."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed (.ci/run installs it)")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (.ci/run installs it)")
    if not (TOOLS / "node_modules" / "playwright-core").is_dir():
        pytest.skip("playwright-core is not installed (.ci/run installs it)")
    return node


def run_script(name: str, on_word: Callable[[str], object] = str, **given: Any) -> Any:
    """What a script of this folder prints, given its input.

    Args:
        name: of the script.
        on_word: called with each line that the script says on its standard error while it runs.
        given: what it gets beside the tools.
    """
    node = required_tools()
    with tempfile.TemporaryFile("w+") as source, tempfile.TemporaryFile("w+") as output:
        json.dump({"tools": str(TOOLS), "chromium": CHROMIUM, **given}, source)
        source.seek(0)
        process = subprocess.Popen([node, HERE / name], stdin=source, stdout=output, stderr=subprocess.PIPE, text=True)
        # A script that hangs is ended, which ends its standard error and with it the loop.
        timer = threading.Timer(BROWSER_SECONDS, process.kill)
        timer.start()
        said = []
        try:
            with process:
                for line in process.stderr:
                    said.append(line)
                    on_word(line.strip())
        finally:
            process.kill()
            timer.cancel()
        assert process.returncode == 0, "".join(said)
        output.seek(0)
        return json.load(output)

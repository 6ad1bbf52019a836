"""What the scripts for people do to the environment of the Python that they start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_python_keeps_what_it_has_compiled_also_where_the_machine_forbids_it() -> None:
    """Packages are installed uncompiled: each of hundreds of processes would compile all that it loads anew."""
    told = subprocess.run(
        ["sh", "-euc", '. scripts/venv; echo "${PYTHONDONTWRITEBYTECODE-kept}"'],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "kept"

"""What lies in a folder that others are writing to and deleting from."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Every file below it. Unlike ``rglob`` it does not raise where a folder goes while it is looked at."""
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]


def folders_in(folder: Path) -> set[str]:
    """Names of the folders directly in it; none where it is not there."""
    return next(({*names} for _, names, _ in os.walk(folder)), set())


def contents_below(folder: Path) -> dict[Path, bytes]:
    """What every file below it holds; those that went meanwhile left out."""
    found = {}
    for path in files_below(folder):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.read_bytes()
    return found

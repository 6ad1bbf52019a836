"""A ComfyUI checkout on this machine: which Python runs it, what its instances are called, how the launcher is called.

Whether it can run at all is told in a sentence (``faults``); the start of the gateway and ``comfygate doctor`` both ask.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.upstreams.launcher import LOG
from gateway.upstreams.managed import WorkerCommand

#: What names of instances begin with.
PREFIX = "comfyui-"
#: Instances keep their folders below it, in the data directory.
FOLDER = "comfyui"
#: Custom nodes may fetch packages and models when they are loaded.
START_SECONDS = 600.0
#: Virtual environments that installers leave in a checkout.
ENVIRONMENTS = ("venv", ".venv")


def names(devices: Sequence[str]) -> dict[str, str]:
    """Name of each instance -> its device, in order; a device that is named again counts up: comfyui-0, comfyui-0.2."""
    seen: Counter[str] = Counter()
    found = {}
    for device in devices:
        seen[device] += 1
        found[f"{PREFIX}{device}" + (f".{seen[device]}" if seen[device] > 1 else "")] = device
    return found


def python_of(checkout: Path, chosen: Path | None) -> Path:
    """The interpreter: the one that was chosen, that of the checkout's own environment, or ours."""
    if chosen is not None:
        return chosen.absolute()
    own = (checkout.absolute() / name / "bin" / "python" for name in ENVIRONMENTS)
    return next((path for path in own if path.exists()), Path(sys.executable))


def faults(checkout: Path, python: Path) -> Iterator[str]:
    """What keeps it from being run, as far as that shows without running it, with the remedy."""
    if not (checkout / "main.py").is_file():
        yield f"GATEWAY_COMFYUI_DIR: {checkout} holds no main.py: name the folder of a ComfyUI checkout"
    if not os.access(python, os.X_OK) or python.is_dir():
        yield f"GATEWAY_COMFYUI_PYTHON: {python} is no program: name the Python that has ComfyUI's requirements"


def launcher(
    checkout: Path, python: Path, device: str, folder: Path, *, max_upload_mib: int, arguments: Sequence[str]
) -> WorkerCommand:
    """How an instance is started.

    Args:
        checkout: the folder with main.py.
        python: that runs it.
        device: of ``names``.
        folder: where the instance keeps its files.
        max_upload_mib: largest request body that it is to take.
        arguments: more of ComfyUI's own; they may not touch what keeps instances apart.
    """
    return WorkerCommand(
        (
            *(sys.executable, "-m", "gateway.upstreams.launcher"),
            *("--python", str(python), "--checkout", str(checkout.absolute()), "--device", device),
            *("--max-upload-mib", str(max_upload_mib)),
            *(f"--argument={argument}" for argument in arguments),
        ),
        start_seconds=START_SECONDS,
        engine="comfyui",
        log_file=str(folder / LOG),
    )

"""What can be wrong with a ComfyUI checkout that the gateway runs: its folder, its Python, the GPUs.

Its Python is run once, to ask PyTorch what it sees; that takes some seconds. ComfyUI itself is not started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import orjson

from gateway.cli.findings import Finding, fail, ok, warn
from gateway.settings import Settings
from gateway.upstreams import checkout
from gateway.upstreams.launcher import CPU

ANSWER_SECONDS = 120.0
#: Asks for what ComfyUI a125cd84 needs to get as far as its nodes, and for GPUs where some are wanted.
QUESTION = """
import importlib.util, json, sys
missing = [name for name in ("torch", "aiohttp", "yaml", "PIL") if importlib.util.find_spec(name) is None]
gpus = []
if not missing and "gpus" in sys.argv:
    import torch
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
print(json.dumps({"version": sys.version.split()[0], "missing": missing, "gpus": gpus}))
"""


async def check_comfyui(settings: Settings) -> AsyncIterator[Finding]:
    """The checkout, its Python, the GPUs; nothing where the gateway runs no ComfyUI."""
    directory = settings.comfyui_dir
    if directory is None:
        return
    python = checkout.python_of(directory, settings.comfyui_python)
    faults = list(checkout.faults(directory, python))
    for sentence in faults:
        fault, _, remedy = sentence.rpartition(": ")
        yield fail("comfyui", fault, remedy)
    if faults:
        return
    devices = settings.comfyui_devices
    yield ok("comfyui", f"{directory} is run {len(devices)} time{'s' * (len(devices) > 1)}: {', '.join(devices)}")
    for finding in judge(await ask(python, wants_gpus=set(devices) != {CPU}), python, devices):
        yield finding


async def ask(python: Path, *, wants_gpus: bool) -> bytes | None:
    """What an interpreter answers; None when it does not."""
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-c", QUESTION, *(["gpus"] if wants_gpus else [])),
        env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return said


def judge(said: bytes | None, python: Path, devices: Sequence[str]) -> Iterator[Finding]:
    """What the answer means for these devices."""
    try:
        answer = orjson.loads(said or b"")
    except orjson.JSONDecodeError:
        yield fail(
            "comfyui", f"{python} does not run", "set GATEWAY_COMFYUI_PYTHON to the Python that ComfyUI runs with"
        )
        return
    if answer["missing"]:
        names = ", ".join(answer["missing"])
        yield fail(
            "comfyui",
            f"{python} (Python {answer['version']}) lacks {names}",
            "install ComfyUI's requirements.txt there, or set GATEWAY_COMFYUI_PYTHON",
        )
        return
    yield ok("comfyui", f"{python} is Python {answer['version']} and has PyTorch")
    gpus = answer["gpus"]
    for device in dict.fromkeys(devices):
        if device == CPU:
            yield warn("comfyui", "an instance without a GPU is slow", "name GPUs in GATEWAY_COMFYUI_GPUS")
        elif not device.isdigit():
            yield ok("comfyui", f"GPU {device} is not looked for; PyTorch sees {len(gpus)}")
        elif int(device) < len(gpus):
            yield ok("comfyui", f"GPU {device} is {gpus[int(device)]}")
        else:
            yield fail(
                "comfyui",
                f"there is no GPU {device}: PyTorch sees {len(gpus)}",
                "see to the driver and to PyTorch's kind (nvidia-smi; CUDA or ROCm), or mend GATEWAY_COMFYUI_GPUS",
            )

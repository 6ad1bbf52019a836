"""``comfygate demo``: a whole gateway with its CPU worker, and one swap through its HTTP API."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from gateway import serving
from gateway.cli import demo_media
from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.submitting import submit_files
from gateway.data_dir import StartError
from gateway.settings import from_mapping

RESULT = "result.mp4"
NEEDS_EXTRA = "The demo needs more packages: pip install 'comfygate[demo]'."


def run(directory: Path, port: int, *, once: bool) -> None:
    """Run the demo; comes back after the swap with ``once``, else when stopped.

    Raises:
        StartError: something is missing or taken.
        ClientError: the swap failed.
    """
    target, face = _inputs(directory)
    settings = from_mapping(
        {"port": port, "data_dir": directory / "data", "embedded_workers": 1, "log_level": "warning"}
    )
    show: list[asyncio.Task[None]] = []

    def on_ready(_: Any, url: str) -> None:
        print(f"comfygate listens on {url}", flush=True)
        show.append(asyncio.create_task(_swap(url, target, face, directory / RESULT, once=once), name="demo"))

    serving.run(settings, on_ready=on_ready, waits=False)
    for task in show:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def _inputs(directory: Path) -> tuple[Path, Path]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return demo_media.write_inputs(directory)
    except ImportError as error:
        raise StartError(NEEDS_EXTRA) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StartError(
            f"{directory} cannot be used ({reason}): give --directory a folder you may write to."
        ) from error


async def _swap(url: str, target: Path, face: Path, result: Path, *, once: bool) -> None:
    print(f"Putting the face of {face} into {target}", flush=True)
    failed = True
    try:
        saved = await submit_files(GatewayClient(url), target, face, result)
        failed = False
        print(f"Swapped: {saved.resolve()}", flush=True)
        if not once:
            print(f"The server stays up: open {url} or press Ctrl+C.", flush=True)
    except ClientError as error:
        if not once:
            print(f"comfygate: {error}", flush=True)
        raise
    finally:
        if once or failed:
            os.kill(os.getpid(), signal.SIGTERM)

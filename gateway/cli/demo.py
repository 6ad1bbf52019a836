"""``comfygate demo``: a whole gateway with its CPU worker, one swap through its HTTP API, and a key for the v1 API."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from gateway import serving
from gateway.cli import demo_media, demo_v1
from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.submitting import submit_files
from gateway.data_dir import StartError
from gateway.errors import GatewayError
from gateway.main import Gateway
from gateway.settings import from_mapping

RESULT = "result.mp4"
NEEDS_EXTRA = "The demo needs more packages: pip install 'comfygate[demo]'."


def run(directory: Path, port: int, *, once: bool) -> None:
    """Run the demo; comes back after the swap with ``once``, else when stopped.

    Raises:
        StartError: something is missing or taken.
        ClientError: the swap failed.
    """
    settings = from_mapping(
        {"port": port, "data_dir": directory / "data", "embedded_workers": 1, "log_level": "warning"}
    )
    # A taken port is told at once; the clip takes seconds.
    serving.listen(settings.host, settings.port).close()
    target, face = _inputs(directory)
    show: list[asyncio.Task[None]] = []

    def on_ready(gateway: Gateway, url: str) -> None:
        print(f"comfygate listens on {url}", flush=True)
        show.append(asyncio.create_task(_show(gateway, url, target, face, directory / RESULT, once=once), name="demo"))

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


async def _show(gateway: Gateway, url: str, target: Path, face: Path, result: Path, *, once: bool) -> None:
    await _swap(gateway, url, target, face, result, once=once)
    if not once:
        await _tell_key(gateway, url)
        print(f"The server stays up: open {url} or press Ctrl+C.", flush=True)


async def _swap(gateway: Gateway, url: str, target: Path, face: Path, result: Path, *, once: bool) -> None:
    print(f"Putting the face of {face} into {target}", flush=True)
    failed = True
    try:
        saved = await submit_files(GatewayClient(url), target, face, result)
        failed = False
        print(f"Swapped: {saved.resolve()}", flush=True)
    except ClientError as error:
        if not once:
            print(f"comfygate: {error}", flush=True)
        raise
    finally:
        # While it stops, be it for a Ctrl-C that ended the swap, nobody listens to signals any more: it would just die.
        if (once or failed) and not gateway.service.stopping.is_set():
            os.kill(os.getpid(), signal.SIGTERM)


async def _tell_key(gateway: Gateway, url: str) -> None:
    """Print it; that it cannot be had is no reason to stop the server."""
    try:
        key = await demo_v1.fresh_key(gateway.service.accounts, gateway.service.credits)
    except GatewayError as error:
        print(f"comfygate: no key for the v1 API: {error}", flush=True)
        return
    print(f"The v1 API wants a key, here too; until the next start of the demo it is this one:\n\n  {key}\n")
    print(f"It has {demo_v1.CREDITS} credits. The second line puts the face of a portrait on the web on another:\n")
    print(f"{demo_v1.lines(url, key)}\n", flush=True)

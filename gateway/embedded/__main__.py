"""``python -m gateway.embedded``: start one worker on a loopback port.

The token comes in the environment variable ``COMFYGATE_WORKER_TOKEN``. When the worker answers, it prints one line of
JSON on stdout: ``{"port": 40123, "pid": 4711}``. Its log goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette

from comfy_nodes.opencv import OpenCVMissingError, load_cv2
from gateway.embedded.faults import Faults, parse_faults
from gateway.embedded.files import Folders
from gateway.embedded.gate import Gate
from gateway.embedded.lifeline import end_with_parent
from gateway.embedded.quirks import PROFILES, WELL_BEHAVED, Profile, Quirks
from gateway.embedded.server import make_app
from gateway.embedded.worker import Limits, Worker

TOKEN_VARIABLE = "COMFYGATE_WORKER_TOKEN"  # noqa: S105 - the name of the variable, not a token
HOST = "127.0.0.1"
_MIB = 2**20
#: What a socket may send in one message, as with ComfyUI.
_WS_MAX_BYTES = 4 * _MIB
_USAGE_STATUS = 2


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.embedded", description="A ComfyUI-like CPU worker.")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 is a random one")
    parser.add_argument("--directory", type=Path, required=True, help="holds input, output and temp; made if missing")
    parser.add_argument("--quirks", choices=[str(profile) for profile in Profile], help="show ComfyUI's harmful habits")
    parser.add_argument("--faults", default="", help="comma list, see gateway/embedded/faults.py; for tests")
    parser.add_argument("--parent-watch", action="store_true", help="end when stdin ends or the parent dies")
    parser.add_argument("--preview-method", choices=["none", "auto"], default="none", help="auto: show what nodes make")
    parser.add_argument("--image-limit-mib", type=int, default=2048, help="largest batch of images")
    parser.add_argument("--max-upload-mib", type=int, help="largest request body; 1100, with --quirks 100")
    parser.add_argument("--keep-hours", type=float, default=24, help="files older than this are deleted")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a worker until it is told to stop; gives the exit status."""
    options = parse_arguments(arguments)
    os.umask(0o077)  # what is uploaded and made here is nobody else's on this machine
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        return _refuse(f"Set the environment variable {TOKEN_VARIABLE} to a secret; every request must carry it.")
    try:
        faults = Faults(parse_faults(options.faults), options.directory)
        load_cv2()
    except (ValueError, OpenCVMissingError) as error:
        return _refuse(str(error))
    if options.parent_watch:
        end_with_parent()
    quirks = PROFILES[Profile(options.quirks)] if options.quirks else WELL_BEHAVED
    body_mib = options.max_upload_mib or (100 if options.quirks else 1100)
    limits = Limits(
        image_bytes=options.image_limit_mib * _MIB,
        body_bytes=body_mib * _MIB,
        file_age_seconds=options.keep_hours * 3600,
        sends_previews=options.preview_method == "auto",
    )
    try:
        folders = Folders(options.directory)
        folders.prepare()
        listener = socket.create_server((HOST, options.port), backlog=128)
    except OSError as error:
        return _refuse(f"Cannot start: {error.strerror}.")
    _serve(listener, token, folders, quirks, faults, limits)
    sys.stdout.flush()
    # The execution thread may sit in a codec; the interpreter's own end would pull the modules from under it.
    os._exit(0)


def _refuse(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return _USAGE_STATUS


def _serve(
    listener: socket.socket, token: str, folders: Folders, quirks: Quirks, faults: Faults, limits: Limits
) -> None:
    workers: list[Worker] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        worker = Worker(folders, quirks, faults, limits)
        workers.append(worker)
        worker.start()
        # The port listens already; what connects before the server accepts waits in the backlog.
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        yield
        worker.stop()
        await worker.hub.close()

    app = make_app(lambda: workers[0], lifespan, jobs_api=quirks.jobs_api)
    config = uvicorn.Config(
        Gate(app, token=token, max_body_bytes=limits.body_bytes, faults=faults),
        ws="websockets-sansio",
        ws_max_size=_WS_MAX_BYTES,
        # ComfyUI never pings; and deflate would cost the CPU that the swap needs.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # The gateway waits for a worker's end; open sockets must not hold it up.
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())

"""An embedded worker that stands on its own, as a ComfyUI in the network does: it outlives any gateway, wants no token,
and writes down who was to be started, dequeued or interrupted.

Run as a program: ``open_worker.py DIRECTORY LOG [FLAGS]``; it says its port as the embedded worker does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class OpenWorker:
    """One port, one folder, and the process that serves them while there is one."""

    folder: Path
    #: Of ``python -m gateway.embedded``.
    flags: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again on the same port; what it kept in memory is gone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        command = [sys.executable, str(Path(__file__)), str(self.folder / "worker"), str(self.log)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.flags],
            stdout=subprocess.PIPE,
            env=os.environ | {"COMFYGATE_WORKER_TOKEN": "unused"},
        )
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]

    def kill(self) -> None:
        """kill -9, also of a stopped one."""
        assert self.process is not None
        with self.process:
            self.process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP: its port listens on, and nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "asked.jsonl"

    def asked(self) -> list[tuple[str, Any]]:
        """(path, body) of each POST that starts or ends prompts, in the order of their coming."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]

    def ended(self) -> list[tuple[str, Any]]:
        """Those that take a prompt away."""
        return [asked for asked in self.asked() if asked[0] != "/prompt"]

    def started(self) -> list[str]:
        """Ids of the prompts that were handed in."""
        return [body["prompt_id"] for path, body in self.asked() if path == "/prompt"]


@contextmanager
def open_worker(folder: Path, *flags: str):
    worker = OpenWorker(folder, flags)
    worker.start()
    try:
        yield worker
    finally:
        worker.kill()


class Recorder:
    """In the place of the worker's gate: lets everybody in; of the gate's faults it has ``http-500``."""

    def __init__(self, app: Any, *, faults: Any, **_: Any) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self._faults.fails_request(scope["path"]):
            await send({"type": "http.response.start", "status": 500, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].startswith("/upload"):
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # whoever sent it was killed in the middle of it: nothing was asked
            body, more = body + message.get("body", b""), message.get("more_body", False)
        with Path(sys.argv[2]).open("a") as log:  # noqa: ASYNC230 - one line
            log.write(json.dumps([scope["path"], json.loads(body or b"null")]) + "\n")
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Any:
            return next(messages, None) or await receive()

        await self._app(scope, replay, send)


if __name__ == "__main__":
    from gateway.embedded import __main__ as program

    program.Gate = Recorder
    sys.exit(program.main(["--directory", sys.argv[1], *sys.argv[3:]]))

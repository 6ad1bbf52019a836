"""Stand-in ComfyUIs that compute nothing and cost next to nothing: one process, one port for each.

They queue prompts, run them one at a time for a given time, tick, and give back results that were made beforehand.
Everything is noted by ``time.monotonic_ns``, which all processes of a machine share: when a prompt arrived, started,
ended, and when each tick was handed to the socket. Two kinds of job: *timed* ones last ``seconds``; *held* ones tick
once, wait for ``/bench/go``, tick at a given rate, and end with ``/bench/finish``.

Where it is unrealistic: nothing is validated, uploads are dropped, a tick is one frame (ComfyUI sends ``progress_state``
beside it), the next prompt starts at once where a real one takes some 4 ms. Each of these makes the floors faster.
Source of shapes and order: ComfyUI a125cd84, ``server.py``, ``execution.py``.

Run: ``python -m benchmarks.upstream COUNT FOLDER``; prints {"ports": [...]}. Control is on every port below ``/bench/``.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import uvloop

from benchmarks.http_server import Incoming, Outgoing, ServerConnection, WebSocket

_NAME = re.compile(rb'filename="([^"]*)"')
_SUBFOLDER = re.compile(rb'name="subfolder"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r]*)\r\n')
_PIECE_BYTES = 256 * 1024
_SAVERS = {"SaveImage": "images", "VHS_VideoCombine": "gifs"}


@dataclass
class Script:
    """How prompts behave from now on."""

    #: How long a timed one lasts.
    seconds: float = 0.0
    #: Whether prompts wait for ``/bench/go`` and ``/bench/finish``.
    is_held: bool = False
    #: What the counter of the node at work ends at.
    maximum: int = 1


@dataclass
class Prompt:
    """One prompt, and what is noted of it; times in monotonic nanoseconds."""

    id: str
    #: The gateway's own key for the job, "" for prompts of others.
    job: str
    client_id: str
    worker: str
    saver: str
    kind: str
    graph: dict[str, Any]
    extra: dict[str, Any]
    received_ns: int
    number: int
    started_ns: int = 0
    ended_ns: int = 0
    #: Index is the counter's value; index 0 is never used.
    ticks_ns: list[int] = field(default_factory=lambda: [0])
    maximum: int = 1
    is_held: bool = False

    def told(self) -> dict[str, Any]:
        """What a report says of it."""
        names = ("id", "job", "received_ns", "started_ns", "ended_ns", "ticks_ns")
        return {name: getattr(self, name) for name in names}


class Instance:
    """One ComfyUI."""

    def __init__(self, fleet: Fleet, index: int) -> None:
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()
        self.index = index
        self.pending: deque[Prompt] = deque()
        self.running: Prompt | None = None
        self.history: dict[str, bytes] = {}
        self.done: list[Prompt] = []
        self._number = 0
        self._sockets: dict[str, WebSocket] = {}
        self._routes: dict[tuple[str, str], Callable[[Incoming], Outgoing]] = {
            ("POST", "/prompt"): self._post_prompt,
            ("POST", "/upload/image"): self._post_upload,
            ("GET", "/queue"): lambda _: self._queue(),
            ("GET", "/view"): self._view,
            ("GET", "/object_info"): lambda _: Outgoing(fleet.object_info),
            ("GET", "/system_stats"): lambda _: _json({"system": {"comfyui_version": "0.3.64"}, "devices": []}),
            ("GET", "/features"): lambda _: _json({"max_upload_size": 4 << 30}),
        }

    # ---------------------------------------------------------------------------------------------------- the application

    def handle(self, request: Incoming) -> Outgoing:
        """Answer a request."""
        path = request.path.removeprefix("/api") if request.path.startswith("/api/") else request.path
        route = self._routes.get((request.method, path))
        if route is not None:
            return route(request)
        if path.startswith("/history/"):
            return Outgoing(self.history.get(path.removeprefix("/history/"), b"{}"))
        if path.startswith("/bench/"):
            return self._fleet.control(path.removeprefix("/bench/"), request)
        known = path in {"/interrupt", "/queue"}
        return Outgoing(status=200 if known else 404)

    def opened(self, request: Incoming, socket: WebSocket) -> None:
        """A socket of a client; its first frame tells it who it is."""
        client_id = unquote(request.query.get("clientId", ""))
        self._sockets[client_id] = socket
        self._status(client_id, sid=client_id)

    def heard(self, socket: WebSocket, message: bytes) -> None:
        """``feature_flags`` is all that clients say."""
        if b"feature_flags" in message:
            socket.send_text(b'{"type":"feature_flags","data":{"max_upload_size":4294967296}}')

    def closed(self, socket: WebSocket) -> None:
        """A socket is gone."""
        self._sockets = {key: value for key, value in self._sockets.items() if value is not socket}

    # ------------------------------------------------------------------------------------------------------------ routes

    def _post_prompt(self, request: Incoming) -> Outgoing:
        now = time.monotonic_ns()
        body = json.loads(request.body)
        graph, extra = body["prompt"], body.get("extra_data", {})
        saver, kind = next(
            (key, _SAVERS[node["class_type"]]) for key, node in graph.items() if node["class_type"] in _SAVERS
        )
        worker = next((key for key, node in graph.items() if node["class_type"] == "ReActorFaceSwap"), saver)
        prompt = Prompt(
            id=body["prompt_id"],
            job=str(extra.get("gateway_job", "")),
            client_id=body.get("client_id", ""),
            worker=worker,
            saver=saver,
            kind=kind,
            graph=graph,
            extra=extra,
            received_ns=now,
            number=self._number,
        )
        self._number += 1
        self.pending.append(prompt)
        self._status(prompt.client_id)
        answer = {"prompt_id": prompt.id, "number": prompt.number, "node_errors": {}}
        return Outgoing(json.dumps(answer).encode(), afterwards=self._start_next)

    def _post_upload(self, request: Incoming) -> Outgoing:
        name, subfolder = _NAME.search(request.body), _SUBFOLDER.search(request.body)
        answer = {
            "name": name[1].decode() if name else "unnamed",
            "subfolder": subfolder[1].decode() if subfolder else "",
            "type": "input",
        }
        return _json(answer)

    def _queue(self) -> Outgoing:
        running = [_item(self.running)] if self.running is not None else []
        return _json({"queue_running": running, "queue_pending": [_item(prompt) for prompt in self.pending]})

    def _view(self, request: Incoming) -> Outgoing:
        path = self._fleet.result_of(request.query.get("filename", ""))
        if path is None:
            return Outgoing(status=404)
        size = path.stat().st_size
        if size <= _PIECE_BYTES:
            return Outgoing(self._fleet.small(path), content_type=b"application/octet-stream")
        return Outgoing(pieces=_pieces(path), length=size, content_type=b"application/octet-stream")

    # ------------------------------------------------------------------------------------------------------------ running

    def _start_next(self) -> None:
        if self.running is not None or not self.pending:
            return
        prompt = self.running = self.pending.popleft()
        script = self._fleet.script
        prompt.maximum = script.maximum
        prompt.started_ns = time.monotonic_ns()
        self._tell(prompt, "execution_start", timestamp=1)
        self._tell(prompt, "execution_cached", nodes=[], timestamp=1)
        prompt.is_held = script.is_held
        loaders = [] if prompt.is_held else [key for key in prompt.graph if key not in {prompt.worker, prompt.saver}]
        for node in (*loaders, prompt.worker):
            self._tell(prompt, "executing", node=node, display_node=node)
        self.tick(prompt)
        if script.is_held:
            return
        if script.seconds:
            self._loop.call_later(script.seconds, self.finish)
        else:
            self._loop.call_soon(self.finish)

    def tick(self, prompt: Prompt) -> None:
        """Count one on."""
        value = len(prompt.ticks_ns)
        frame = b'{"type":"progress","data":{"value":%d,"max":%d,"prompt_id":"%s","node":"%s"}}' % (
            value,
            prompt.maximum,
            prompt.id.encode(),
            prompt.worker.encode(),
        )
        socket = self._sockets.get(prompt.client_id)
        prompt.ticks_ns.append(time.monotonic_ns())
        if socket is not None:
            socket.send_text(frame)

    def finish(self) -> None:
        """The running prompt has ended; the next one begins."""
        prompt = self.running
        if prompt is None:
            return
        prompt.ended_ns = time.monotonic_ns()
        file = self._fleet.result_name(prompt.kind)
        output = {prompt.kind: [{"filename": file, "subfolder": "gateway", "type": "output"}]}
        if not prompt.is_held:  # a held one's viewers count ticks, and nothing else
            self._tell(prompt, "executing", node=prompt.saver, display_node=prompt.saver)
        self._tell(prompt, "executed", node=prompt.saver, display_node=prompt.saver, output=output)
        self._tell(prompt, "execution_success", timestamp=1)
        entry = {
            "prompt": [prompt.number, prompt.id, prompt.graph, prompt.extra, [prompt.saver]],
            "outputs": {prompt.saver: output},
            "status": {"status_str": "success", "completed": True, "messages": []},
            "meta": {},
        }
        self.history[prompt.id] = json.dumps({prompt.id: entry}).encode()
        self.done.append(prompt)
        self.running = None
        self._status(prompt.client_id)
        self._tell(prompt, "executing", node=None)
        self._start_next()

    def _tell(self, prompt: Prompt, kind: str, **data: object) -> None:
        socket = self._sockets.get(prompt.client_id)
        if socket is not None:
            socket.send_text(json.dumps({"type": kind, "data": {**data, "prompt_id": prompt.id}}).encode())

    def _status(self, client_id: str, **data: object) -> None:
        socket = self._sockets.get(client_id)
        if socket is not None:
            left = len(self.pending) + (self.running is not None)
            status = {"status": {"exec_info": {"queue_remaining": left}}, **data}
            socket.send_text(json.dumps({"type": "status", "data": status}).encode())


class Fleet:
    """All instances of the process, and their control."""

    def __init__(self, folder: Path) -> None:
        self.script = Script()
        self.instances: list[Instance] = []
        self.object_info = (folder / "object_info.json").read_bytes()
        self._folder = folder
        self._small: dict[Path, bytes] = {}
        self._ticking: asyncio.Task[None] | None = None

    def result_name(self, kind: str) -> str:
        """What a result of this kind is called."""
        return "result.png" if kind == "images" else "result.mp4"

    def result_of(self, name: str) -> Path | None:
        """Where the file lies."""
        path = self._folder / name
        return path if name in {"result.png", "result.mp4"} and path.is_file() else None

    def small(self, path: Path) -> bytes:
        """The bytes of a small file, read once."""
        if path not in self._small:
            self._small[path] = path.read_bytes()
        return self._small[path]

    def control(self, command: str, request: Incoming) -> Outgoing:
        """What the benchmarks ask for."""
        match command:
            case "script":
                self.script = Script(**json.loads(request.body))
            case "go":
                wanted = json.loads(request.body)
                self._ticking = asyncio.get_running_loop().create_task(
                    self._tick(wanted["count"], wanted["per_second"]), name="ticks"
                )
            case "finish":
                for instance in self.instances:
                    instance.finish()
            case "report":
                return _json([[prompt.told() for prompt in self._of(instance)] for instance in self.instances])
            case "counts":
                return _json(self._counts())
            case "forget":
                for instance in self.instances:
                    instance.done.clear()
            case _:
                return Outgoing(status=404)
        return _json(asdict(self.script))

    @staticmethod
    def _of(instance: Instance) -> list[Prompt]:
        return [*instance.done, *([instance.running] if instance.running is not None else [])]

    def _counts(self) -> dict[str, int | bool]:
        return {
            "pending": sum(len(instance.pending) for instance in self.instances),
            "running": sum(instance.running is not None for instance in self.instances),
            "done": sum(len(instance.done) for instance in self.instances),
            "is_ticking": self._ticking is not None and not self._ticking.done(),
        }

    async def _tick(self, count: int, per_second: float) -> None:
        """Tick on all running prompts ``count`` times, evenly staggered: instances are not synchronised."""
        loop = asyncio.get_running_loop()
        at_work = [(instance, instance.running) for instance in self.instances if instance.running is not None]
        if not at_work:
            return
        begun = loop.time() + 0.01
        step = 1 / per_second / len(at_work)
        for turn in range(count * len(at_work)):
            left = begun + turn * step - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            instance, prompt = at_work[turn % len(at_work)]
            instance.tick(prompt)


def _json(value: object) -> Outgoing:
    return Outgoing(json.dumps(value).encode())


def _item(prompt: Prompt) -> list[Any]:
    extra = {**prompt.extra, "client_id": prompt.client_id}
    return [prompt.number, prompt.id, prompt.graph, extra, [prompt.saver]]


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


async def serve(count: int, folder: Path) -> None:
    """Serve ``count`` instances until killed."""
    fleet = Fleet(folder)
    loop = asyncio.get_running_loop()
    ports = []
    for index in range(count):
        instance = Instance(fleet, index)
        fleet.instances.append(instance)
        server = await loop.create_server(partial(ServerConnection, instance), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps({"ports": ports}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), Path(sys.argv[2])))

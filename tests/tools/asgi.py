"""An ASGI application called directly, in the test's own event loop: answers, streams, sockets.

Unlike a test client in a thread, a test here moves the engine and the stream by turns, and nothing is buffered.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from starlette.applications import Starlette

from gateway.api.app import create_app
from gateway.api.dialects import DIALECTS
from gateway.settings import Settings, from_mapping
from tests.fakes.fake_service import FakeService
from tests.tools.conformance import conformance
from tests.tools.sse_parser import Parsed, parse

TOKEN = "the-admin-token"
HOST = "localhost:8000"


def make(**values: Any) -> tuple[Starlette, FakeService]:
    """An application over a fake engine; ``slots`` and ``dialects`` aside, values are settings.

    Whole answers of it are held against its OpenAPI document.
    """
    slots, dialects = values.pop("slots", None), values.pop("dialects", DIALECTS)
    settings: Settings = from_mapping({"auth": "open", **values})
    service = FakeService(settings)
    app = create_app(service, settings, admin_token=TOKEN, dialects=dialects, slots=slots)
    app.state.conformance = conformance(dialects)
    return app, service


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(kind: str, path: str, headers: dict[str, str], method: str = "GET", peer: str = "127.0.0.1") -> dict:
    raw_path, _, query = path.partition("?")
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http" if kind == "http" else "ws",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("utf-8", "replace"),
        "query_string": query.encode("utf-8", "replace"),
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode("latin-1", "replace"))
            for name, value in ({"host": HOST} | {k.lower(): v for k, v in headers.items()}).items()
            if value is not None
        ],
        "client": (peer, 50_000),
        "server": ("127.0.0.1", 8000),
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }


@dataclass
class Stream:
    """One HTTP exchange under way."""

    app: Any
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = "127.0.0.1"
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)

    async def __aenter__(self) -> Self:
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        self._is_body_sent = False
        headers = {"content-length": str(len(self.body)), **self.headers} if self.body else self.headers
        scope = scope_of("http", self.path, headers, self.method, self.peer)
        self.task = asyncio.create_task(self.app(scope, self._receive, self._send))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        async with asyncio.timeout(5):
            await asyncio.gather(self.task, return_exceptions=True)

    def leave(self) -> None:
        self._gone.set()

    async def until(self, *names: str) -> Parsed:
        """Read until events of all these names have come."""
        async with asyncio.timeout(5):
            while not set(names) <= set(self.parsed.names):
                await self._more()
        return self.parsed

    async def until_text(self, text: bytes) -> None:
        async with asyncio.timeout(5):
            while text not in self.received:
                await self._more()

    async def whole(self) -> Answer:
        """Read to the end."""
        async with asyncio.timeout(5):
            await self.task
        described = getattr(getattr(self.app, "state", None), "conformance", None)
        if described is not None:
            path = unquote(self.path.partition("?")[0])
            described.check(self.method, path, self.status, self.answer_headers, bytes(self.received))
        return Answer(self.status, self.answer_headers, bytes(self.received))

    @property
    def parsed(self) -> Parsed:
        return parse(bytes(self.received))

    async def _more(self) -> None:
        if self.task.done():
            self.task.result()
            raise AssertionError(f"the stream ended: {bytes(self.received)!r}")
        self._news.clear()
        waiter = asyncio.create_task(self._news.wait())
        await asyncio.wait({waiter, self.task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()

    async def _receive(self) -> dict:
        if not self._is_body_sent:
            self._is_body_sent = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answer_headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.received += message.get("body", b"")
        self._news.set()


async def ask(app: Any, method: str, path: str, body: bytes = b"", peer: str = "127.0.0.1", **headers: str) -> Answer:
    """One exchange from beginning to end; header names with underscores for dashes."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    async with Stream(app, method, path, spelled, body, peer) as stream:
        return await stream.whole()


def form(fields: dict[str, str | bytes], boundary: str = "limit") -> tuple[bytes, dict[str, str]]:
    """A multipart body: bytes are files, texts are fields."""
    parts = []
    for name, value in fields.items():
        filename = f'; filename="{name}.bin"' if isinstance(value, bytes) else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
        parts.append(head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"content_type": f"multipart/form-data; boundary={boundary}"}


class Socket:
    """One WebSocket under way."""

    def __init__(self, app: Any, path: str, **headers: str) -> None:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        self._scope = scope_of("websocket", path, spelled)
        # The server does the same with the header.
        offered = spelled.get("sec-websocket-protocol", "")
        self._scope["subprotocols"] = [name.strip() for name in offered.split(",") if name.strip()]
        self._app = app
        self._in: asyncio.Queue[dict] = asyncio.Queue()
        self._out: asyncio.Queue[dict] = asyncio.Queue()
        #: A peer that reads nothing: sends block until it is set.
        self.reads = asyncio.Event()
        self.reads.set()

    async def __aenter__(self) -> Self:
        await self._in.put({"type": "websocket.connect"})
        self.task = asyncio.create_task(self._app(self._scope, self._in.get, self._send))
        self.first = await self._next()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._in.put({"type": "websocket.disconnect", "code": 1006})
        self.reads.set()
        async with asyncio.timeout(5):
            await asyncio.gather(self.task, return_exceptions=True)

    async def say(self, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        await self._in.put({"type": "websocket.receive", "text": text})

    async def say_bytes(self, data: bytes) -> None:
        await self._in.put({"type": "websocket.receive", "bytes": data})

    async def hear(self) -> Any:
        """The next frame's body."""
        message = await self._next()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def hear_bytes(self) -> bytes:
        """The next frame, which is binary."""
        message = await self._next()
        assert message["type"] == "websocket.send", message
        return message["bytes"]

    async def closed(self) -> int:
        """The code it is closed with, after whatever else is said."""
        while (message := await self._next())["type"] == "websocket.send":
            pass
        assert message["type"] == "websocket.close", message
        return message["code"]

    async def _next(self) -> dict:
        async with asyncio.timeout(5):
            return await self._out.get()

    async def _send(self, message: dict) -> None:
        await self.reads.wait()
        await self._out.put(message)

"""Cheap clients: HTTP/1.1 on kept connections, readers of endless answers, and WebSockets, without a library between.

A load generator that costs as much as what it measures flatters it, so nothing is parsed while it counts: readers keep
(time, bytes) pairs and are read afterwards. Requests are prepared bytes. Only what our own processes, uvicorn and aiohttp
send is understood: Content-Length or chunked bodies, unfragmented frames. Source: RFC 9112, RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import time
from collections.abc import Mapping
from typing import Any, Self, cast

from benchmarks.processes import BenchmarkError

_HEAD_END = b"\r\n\r\n"
_PING, _PONG, _TEXT = 0x9, 0xA, 0x1
#: Nothing that is measured takes longer to answer.
ANSWER_SECONDS = 120.0


def request_bytes(
    method: str, path: str, *, body: bytes = b"", content_type: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole request."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if content_type:
        lines.append(f"content-type: {content_type}")
    if body or method not in {"GET", "HEAD"}:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_request(method: str, path: str, value: object, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request with a JSON body."""
    return request_bytes(
        method, path, body=json.dumps(value).encode(), content_type="application/json", headers=headers
    )


class Answer:
    """Status and body of an answer."""

    __slots__ = ("body", "status")

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    def json(self) -> Any:
        """The body as JSON. Raises BenchmarkError when it tells of a failure."""
        if not 200 <= self.status < 300:  # noqa: PLR2004 - success
            raise BenchmarkError(f"HTTP {self.status}: {self.body[:500].decode(errors='replace')}")
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None

    @classmethod
    async def open(cls, port: int) -> Self:
        """A connection to a port of this machine."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; whoever waits is told."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(BenchmarkError(f"the connection was lost before the answer ({exc})"))

    async def ask(self, request: bytes) -> Answer:
        """Send prepared bytes and wait for the whole answer."""
        assert self._transport is not None  # noqa: S101 - open() has connected it
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._waiter, ANSWER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Collect until the answer is whole."""
        self._buffer += data
        answer = whole_answer(self._buffer)
        if answer is not None and self._waiter is not None and not self._waiter.done():
            self._buffer.clear()
            self._waiter.set_result(answer)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def whole_answer(buffer: bytearray) -> Answer | None:
    """The answer that these bytes are; None while there are too few."""
    end = buffer.find(_HEAD_END)
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    status = int(head[9:12])
    start = end + len(_HEAD_END)
    mark = head.find(b"content-length:")
    if mark >= 0:
        length = int(head[mark + 15 :].partition(b"\r\n")[0])
        return Answer(status, bytes(buffer[start : start + length])) if len(buffer) >= start + length else None
    if b"transfer-encoding: chunked" in head:
        return Answer(status, _dechunked(bytes(buffer[start:]))) if buffer.endswith(b"0\r\n\r\n") else None
    return Answer(status, b"")


def _dechunked(body: bytes) -> bytes:
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        pieces.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(pieces)


async def ask_json(port: int, method: str, path: str, value: object = None, **headers: str) -> Any:
    """One request on a connection of its own, its answer as JSON. Raises BenchmarkError."""
    connection = await Connection.open(port)
    try:
        prepared = (
            request_bytes(method, path, headers=headers)
            if value is None
            else json_request(method, path, value, headers)
        )
        answer = await connection.ask(prepared)
    finally:
        connection.close()
    return answer.json() if answer.body else {}


class Viewer(asyncio.Protocol):
    """Somebody who watches an endless answer: keeps when which bytes came."""

    def __init__(self, opening: bytes, greeting: bytes = b"") -> None:
        self._opening = opening
        self._greeting = greeting
        self._transport: asyncio.Transport | None = None
        self.reads: list[tuple[int, bytes]] = []
        self.is_open = asyncio.get_running_loop().create_future()
        self.is_websocket = bool(greeting)
        self.has_ended = False

    @classmethod
    async def sse(cls, port: int, path: str) -> Self:
        """Watch Server-Sent Events; returns when the head of the answer is there."""
        return await cls._watch(port, request_bytes("GET", path, headers={"accept": "text/event-stream"}), b"")

    @classmethod
    async def websocket(cls, port: int, path: str, message: object) -> Self:
        """Open a WebSocket and say ``message``."""
        key = base64.b64encode(os.urandom(16)).decode()
        opening = request_bytes(
            "GET",
            path,
            headers={
                "upgrade": "websocket",
                "connection": "Upgrade",
                "sec-websocket-key": key,
                "sec-websocket-version": "13",
            },
        )
        return await cls._watch(port, opening, masked_frame(_TEXT, json.dumps(message).encode()))

    @classmethod
    async def _watch(cls, port: int, opening: bytes, greeting: bytes) -> Self:
        loop = asyncio.get_running_loop()
        _, viewer = await loop.create_connection(lambda: cls(opening, greeting), "127.0.0.1", port)
        await asyncio.wait_for(viewer.is_open, ANSWER_SECONDS)
        return viewer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open: ask."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._opening)

    def connection_lost(self, exc: Exception | None) -> None:
        """The answer has ended, or broke."""
        self.has_ended = True
        if not self.is_open.done():
            self.is_open.set_exception(BenchmarkError(f"a viewer was turned away ({exc})"))

    def data_received(self, data: bytes) -> None:
        """Keep it with the time; answer pings, without which a WebSocket is closed."""
        now = time.monotonic_ns()
        if self.is_open.done():
            self.reads.append((now, data))
            if self.is_websocket and data[0] & 0xF == _PING and self._transport is not None:
                self._transport.write(masked_frame(_PONG, data[2 : 2 + data[1]]))
            return
        head, _, rest = data.partition(_HEAD_END)
        wanted = b"101" if self.is_websocket else b"200"
        if head[9:12] != wanted:
            self.is_open.set_exception(BenchmarkError(f"a viewer was refused: {head[:200].decode(errors='replace')}"))
            return
        self.is_open.set_result(None)
        if self._transport is not None and self._greeting:
            self._transport.write(self._greeting)
        if rest:
            self.reads.append((now, rest))

    def messages(self) -> list[tuple[int, bytes]]:
        """(time in ns at which it was whole, message) of all that came so far."""
        return _frames(self.reads) if self.is_websocket else _blocks(self.reads)

    def close(self) -> None:
        """Stop watching."""
        if self._transport is not None:
            self._transport.abort()


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame; the mask is zero, which every server takes and nothing has to be computed for."""
    if len(payload) >= 126:  # noqa: PLR2004 - RFC 6455: longer ones have another head, and nothing here is longer
        raise BenchmarkError("a client's message is too long")
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def _blocks(reads: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Blocks of Server-Sent Events; heads of chunks stand between them and do no harm."""
    found, left = [], b""
    for at, data in reads:
        *whole, left = (left + data).split(b"\n\n")
        found += [(at, block) for block in whole]
    return found


def _frames(reads: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    found, left = [], b""
    for at, data in reads:
        left += data
        while (size := _frame_size(left)) is not None and len(left) >= sum(size):
            head, length = size
            if left[0] & 0xF == _TEXT:
                found.append((at, left[head : head + length]))
            left = left[head + length :]
    return found


def _frame_size(data: bytes) -> tuple[int, int] | None:
    """(bytes of the head, bytes of the payload) of a server's frame; None while the head is not whole."""
    if len(data) < 10 and (len(data) < 2 or data[1] >= 126):  # noqa: PLR2004 - the longest head, the short head
        return None if len(data) < 4 or data[1] == 127 else (4, struct.unpack_from(">H", data, 2)[0])  # noqa: PLR2004 - RFC 6455
    match data[1]:
        case 126:
            return 4, struct.unpack_from(">H", data, 2)[0]
        case 127:
            return 10, struct.unpack_from(">Q", data, 2)[0]
        case length:
            return 2, length

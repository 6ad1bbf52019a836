"""A small HTTP/1.1 and WebSocket server on bare asyncio, for the stand-in ComfyUI: it must never be what limits.

A request costs it some 15 microseconds, an eighth of what a framework takes. Bodies of uploads are counted and dropped
after their first bytes. It serves this package's own clients and the measured programs on loopback, nobody else: there
are no limits, and fragments of WebSocket messages are not put together. Source: RFC 9112, RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import parse_qsl

import httptools

#: What is kept of a body: all of a graph, the head of an upload.
KEPT_BODY_BYTES = 256 * 1024
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_REASONS = {200: b"OK", 404: b"Not Found", 500: b"Internal Server Error"}


@dataclass(slots=True)
class Incoming:
    """A request."""

    method: str = ""
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    #: Its first ``KEPT_BODY_BYTES``.
    body: bytearray = field(default_factory=bytearray)
    #: For a WebSocket's handshake.
    socket_key: bytes = b""


@dataclass(slots=True)
class Outgoing:
    """An answer."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = b"application/json"
    #: Instead of ``body``: pieces, and how many bytes they are.
    pieces: AsyncIterator[bytes] | None = None
    length: int = 0
    #: Called after the answer was written.
    afterwards: Callable[[], None] | None = None


class WebSocket:
    """The server's end of a WebSocket."""

    def __init__(self, transport: asyncio.Transport, heard: Callable[[WebSocket, bytes], None]) -> None:
        self._transport = transport
        self._heard = heard
        self._buffer = b""

    def send_text(self, payload: bytes) -> None:
        """Send a whole message at once."""
        self._send(_TEXT, payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:  # noqa: PLR2004 - RFC 6455, section 5.2: longer ones have another head
            head = bytes([0x80 | opcode, size])
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
        if not self._transport.is_closing():
            self._transport.write(head + payload)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def feed(self, data: bytes) -> None:
        """Bytes from the client: text is told, pings and goodbyes are answered."""
        self._buffer += data
        while (frame := self._take_frame()) is not None:
            opcode, payload = frame
            if opcode == _PING:
                self._send(_PONG, payload)
            elif opcode == _CLOSE:
                self._send(_CLOSE, payload[:2])
                self._transport.close()
            elif opcode == _TEXT:
                self._heard(self, payload)

    def _take_frame(self) -> tuple[int, bytes] | None:
        data = self._buffer
        head = 2 + 4
        if len(data) < head:
            return None
        size = data[1] & 0x7F
        if size == 126:  # noqa: PLR2004 - RFC 6455, section 5.2; clients say nothing longer here
            head += 2
            if len(data) < head:
                return None
            size = struct.unpack_from(">H", data, 2)[0]
        if len(data) < head + size:
            return None
        mask, payload = data[head - 4 : head], data[head : head + size]
        self._buffer = data[head + size :]
        return data[0] & 0xF, bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))


class Application(Protocol):
    """What answers."""

    def handle(self, request: Incoming) -> Outgoing:
        """The answer, at once."""
        ...

    def opened(self, request: Incoming, socket: WebSocket) -> None:
        """A WebSocket is open."""
        ...

    def heard(self, socket: WebSocket, message: bytes) -> None:
        """A text came."""
        ...

    def closed(self, socket: WebSocket) -> None:
        """It is gone."""
        ...


class ServerConnection(asyncio.Protocol):
    """One client."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._request = Incoming()
        self._url = b""
        self._socket: WebSocket | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._sending: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------------------- asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del exc
        self._can_write.set()
        if self._sending is not None:
            self._sending.cancel()
        if self._socket is not None:
            self._application.closed(self._socket)

    def pause_writing(self) -> None:
        """The client is slower than we."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        """Parse; after a handshake the bytes are a WebSocket's."""
        if self._socket is not None:
            self._socket.feed(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    # ------------------------------------------------------------------------------------------------------- the parser's

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = Incoming()
        self._url = b""

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Only a handshake's key is of interest."""
        if name.lower() == b"sec-websocket-key":
            self._request.socket_key = value

    def on_headers_complete(self) -> None:
        """The head is whole."""
        path, _, query = self._url.decode("ascii").partition("?")
        self._request.method = self._parser.get_method().decode("ascii")
        self._request.path = path
        self._request.query = dict(parse_qsl(query)) if query else {}

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        room = KEPT_BODY_BYTES - len(self._request.body)
        if room > 0:
            self._request.body += body[:room]

    def on_message_complete(self) -> None:
        """Answer."""
        if self._request.socket_key or self._transport is None:
            return
        answer = self._application.handle(self._request)
        length = answer.length if answer.pieces is not None else len(answer.body)
        head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (
            answer.status,
            _REASONS.get(answer.status, b"Answer"),
            answer.content_type,
            length,
        )
        self._transport.write(head + answer.body)
        if answer.pieces is not None:
            self._sending = asyncio.get_running_loop().create_task(self._send(answer.pieces), name="send a file")
        if answer.afterwards is not None:
            answer.afterwards()

    async def _send(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            await self._can_write.wait()
            if self._transport is None or self._transport.is_closing():
                return
            self._transport.write(piece)

    def _upgrade(self) -> None:
        assert self._transport is not None  # noqa: S101 - data came on it
        accept = base64.b64encode(hashlib.sha1(self._request.socket_key + _MAGIC).digest())  # noqa: S324 - RFC 6455 says SHA-1
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: %s\r\n\r\n" % accept
        )
        self._socket = WebSocket(self._transport, self._application.heard)
        self._application.opened(self._request, self._socket)

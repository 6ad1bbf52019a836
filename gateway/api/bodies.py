"""Reading a request's body within limits, and answering before it was read.

A server behind no proxy has no time-outs of its own for bodies: uvicorn waits for the next piece as long as the client
likes. ``Body`` counts and times; ``LingeringClose`` makes an early refusal arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.facade import Stopping
from gateway.errors import InvalidInputError, ShuttingDownError, TooLargeError, UnsupportedMediaError
from gateway.safety import spell_bytes

LINGER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class BodyPace:
    """How long a body may take."""

    #: An hour: 1 GiB over a line of 2.4 Mbit/s.
    deadline_seconds: float = 3600.0
    #: Longest silence between two pieces.
    idle_seconds: float = 30.0
    #: The body may be slower than the least rate for this long.
    slow_start_seconds: float = 10.0
    least_bytes_per_second: float = 16 * 1024


class Body:
    """A request's body: counted, timed, and over when the gateway stops.

    Raises:
        UnsupportedMediaError: it is compressed.
    """

    def __init__(self, request: Request, pace: BodyPace, monotonic: Callable[[], float], stopping: Stopping) -> None:
        self._request = request
        self._stopping = stopping
        self._pace = pace
        self._monotonic = monotonic
        announced = request.headers.get("content-length", "")
        self.announced_bytes = int(announced) if announced.isascii() and announced.isdigit() else None
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"identity", ""}:
            raise UnsupportedMediaError("The body is compressed; send it as it is.")

    def require_fit(self, cap: int) -> None:
        """Refuse by Content-Length, before anything is read."""
        if (self.announced_bytes or 0) > cap:
            raise too_large_body(cap)

    async def read(self, cap: int, objection: Exception | None = None) -> bytes:
        """All of it, at most ``cap`` bytes; else ``objection``, or TooLargeError."""
        if (self.announced_bytes or 0) > cap:
            raise objection or too_large_body(cap)
        received = bytearray()
        async for chunk in self.chunks():
            received += chunk
            if len(received) > cap:
                raise objection or too_large_body(cap)
        return bytes(received)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The pieces as they come.

        Raises:
            InvalidInputError: they come too slowly.
            ShuttingDownError: the gateway stops; what this would become could not be taken any more.
            ClientDisconnect: the client left; Starlette's.
        """
        started = self._monotonic()
        received = 0
        pieces = aiter(self._request.stream())
        while True:
            # Beside the watch in _next: pieces that are there at once leave it no turn of the loop.
            if received and received != self.announced_bytes and self._stopping.is_set():
                raise _stops()
            try:
                chunk = await self._next(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise (_stops() if self._stopping.is_set() else _too_slow()) from None
            received += len(chunk)
            self._require_pace(received, self._monotonic() - started)
            yield chunk

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes:
        """The next piece; TimeoutError when it is late, or at once when the gateway stops."""
        async with asyncio.timeout(self._pace.idle_seconds) as patience:
            # Ended here and not with the generator, which nobody closes when its reader refuses the body in the middle.
            watch = asyncio.create_task(_lose_patience(self._stopping, patience), name="body-stopping")
            try:
                return await anext(pieces)
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)

    def _require_pace(self, received: int, seconds: float) -> None:
        pace = self._pace
        is_slow = seconds > pace.slow_start_seconds and received < seconds * pace.least_bytes_per_second
        # The last piece may well be small and late; with everything there, nobody is kept waiting any more.
        if seconds > pace.deadline_seconds or (is_slow and received != self.announced_bytes):
            raise _too_slow()


class LingeringClose:
    """ASGI middleware: a response that begins before the body was read to its end closes the connection, gently.

    Closing while the client still sends makes the kernel reset the connection, and the reset can overtake the answer:
    the client then sees a broken pipe instead of "413, the limit is …". So the answer goes out with
    ``Connection: close``, then what still comes is dropped for a moment, then the connection is closed.
    """

    def __init__(self, app: ASGIApp, *, linger_seconds: float = LINGER_SECONDS) -> None:
        self._app = app
        self._linger_seconds = linger_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(Headers(scope=scope), receive, send, self._linger_seconds)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request with a body, and its response."""

    def __init__(self, headers: Headers, receive: Receive, send: Send, linger_seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._linger_seconds = linger_seconds
        # Nothing is asked for as long as nothing was received: asking would tell the client to begin sending.
        self._may_linger = headers.get("expect", "").lower() != "100-continue"
        self._is_body_over = False
        self._is_closing = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._may_linger = True
        self._is_body_over |= not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_body_over:
            self._is_closing = True
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and self._is_closing and self._may_linger and not self._is_body_over:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger_seconds):
                while not self._is_body_over:
                    await self.receive()


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def too_large_body(cap: int) -> TooLargeError:
    """The refusal of a body, naming the limit."""
    return TooLargeError(f"The body is larger than {spell_bytes(cap)}.")


async def _lose_patience(stopping: Stopping, patience: asyncio.Timeout) -> None:
    await stopping.wait()
    patience.reschedule(asyncio.get_running_loop().time())


def _stops() -> ShuttingDownError:
    return ShuttingDownError("The gateway is stopping; send this again in a moment.")


def _too_slow() -> InvalidInputError:
    return InvalidInputError("The body came too slowly.")

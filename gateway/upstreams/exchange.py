"""One HTTP/1.1 connection to an upstream: a request goes out, its answer comes back, and then perhaps the next.

A job makes half a dozen requests, and by a general library each took a quarter of a millisecond: headers that were checked
one by one, locks, scopes, generators within generators. Here a request goes out in one piece, the answer is parsed in the
turn of the loop in which it came (by httptools, which the server uses too), and what is waited for is one future and one
timer.

Of an answer, status and body are told; nobody asks for more. What is not spoken: pipelining, upgrades, compression (it is
not asked for). Source: RFC 9112, sections 6.3 (how long a body is) and 9.3 (which connection may be used again).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

#: Bytes of an answer's body that may lie here unread; the rest waits at the sender.
MOST_UNREAD_BYTES: Final = 256 * 1024
#: Bytes that may come without a byte of a body among them: a head, the heads of chunks, trailers.
MOST_BARE_BYTES: Final = 64 * 1024
_FIRST_FINAL_STATUS: Final = 200
#: What says where a body ends. An answer without either has one to the end of the connection.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class NotSentError(ConnectionError):
    """Not a byte of the request can have reached the upstream."""


class NoAnswerError(ConnectionError):
    """The request may have been acted on, or not: the answer never came, or was cut."""


class Connection(asyncio.Protocol):
    """One exchange after the other, by one task at a time: ``send``, ``answered``, ``piece`` until there is none.

    Whatever is raised is NoAnswerError, and then, as after an answer that was not read to its end, it is of no more use.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_full = False
        self._is_reading = True
        #: No more is coming, and why.
        self._reason: str | None = None
        self._parser: HttpResponseParser | None = None
        self._forget()

    def _forget(self) -> None:
        """Of the exchange before this one."""
        #: Of the answer; 0 until it is known.
        self._status = 0
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._bare_bytes = 0
        #: The whole request went out.
        self._is_sent = False
        #: The answer says itself where it ends; it came to that end; another may follow.
        self._is_framed = False
        self._is_complete = False
        self._is_kept_alive = False

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        """More of an answer."""
        if self._parser is None or self._is_complete:
            self._break("bytes that nobody asked for")
            return
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._break(type(error).__name__)
            return
        if self._bare_bytes > MOST_BARE_BYTES:
            self._break("a head that does not end")
        elif self._unread_bytes > MOST_UNREAD_BYTES and self._is_reading and self._transport is not None:
            self._transport.pause_reading()
            self._is_reading = False
        self._wake()

    def eof_received(self) -> None:
        """The other side sends no more."""
        self._end("the connection was closed")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._transport = None
        self._end("the connection was closed" if exc is None else type(exc).__name__, is_orderly=exc is None)

    def pause_writing(self) -> None:
        """Enough waits to be sent."""
        self._is_full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._is_full = False
        self._wake()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """An answer begins: the one that is awaited, also after others that only announce it."""
        if self._is_complete:
            self._is_kept_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        del value
        if name.lower() in _FRAMING:
            self._is_framed = True

    def on_headers_complete(self) -> None:
        """The head has ended."""
        status = self._parser.get_status_code() if self._parser is not None else 0
        if status >= _FIRST_FINAL_STATUS and not self._is_complete:
            self._status = status

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._bare_bytes = 0
        if not self._is_complete:
            self._unread.append(body)
            self._unread_bytes += len(body)

    def on_message_complete(self) -> None:
        """An answer has ended: the one that was awaited, or one that only announced it."""
        if self._status and not self._is_complete and self._parser is not None:
            self._is_complete = True
            self._is_kept_alive = self._parser.should_keep_alive()

    # Called by whoever asks.

    @property
    def is_idle(self) -> bool:
        """Whether another request may be sent: nothing is left of the one before, and the connection stands."""
        is_done = self._parser is None or (self._is_complete and self._is_kept_alive and self._is_sent)
        return is_done and not self._unread and self._reason is None and self._transport is not None

    async def send(self, head: bytes, body: bytes, piece_seconds: float) -> None:
        """Send a request; returns when there is room for more. Args: piece_seconds: as for ``send_pieces``."""
        self._begin(head + body)
        if self._is_full:
            await self._room(piece_seconds)
        self._is_sent = not self._is_full

    async def send_pieces(
        self, head: bytes, pieces: AsyncIterator[bytes], size_bytes: int, piece_seconds: float
    ) -> None:
        """Send a request whose body comes in pieces. Where it is answered meanwhile, the rest is left out.

        Args:
            head: of the request.
            pieces: of its body.
            size_bytes: of all of them, as the head says.
            piece_seconds: so long the other side may take nothing.
        """
        self._begin(head)
        left = size_bytes
        async for piece in pieces:
            await self._room(piece_seconds)
            if self._status or self._transport is None:
                return  # 413, most likely; and what was lost is told by whoever reads
            self._transport.write(piece)
            left -= len(piece)
        await self._room(piece_seconds)
        if left:
            raise NoAnswerError("the body is not as long as was said")
        self._is_sent = not self._is_full

    async def answered(self, seconds: float) -> int:
        """The answer's status. Args: seconds: so long nothing may come."""
        while not self._status:
            await self._more(seconds)
        return self._status

    async def piece(self, seconds: float) -> bytes:
        """The next bytes of the answer's body, b"" at its end. Args: seconds: so long nothing may come."""
        while not self._unread:
            if self._is_complete:
                return b""
            await self._more(seconds)
        data = self._unread.popleft()
        self._unread_bytes -= len(data)
        if not self._is_reading and not self._unread and self._transport is not None:
            self._transport.resume_reading()
            self._is_reading = True
        return data

    def abort(self) -> None:
        """Let go of it, in the loop's next turn; what was not sent yet is dropped."""
        if self._transport is not None:
            self._transport.abort()

    # Between them.

    def _begin(self, data: bytes) -> None:
        if self._transport is None:
            raise NoAnswerError(self._reason or "the connection was closed")
        self._forget()
        self._parser = HttpResponseParser(self)
        self._transport.write(data)

    async def _room(self, seconds: float) -> None:
        while self._is_full and not self._status and self._reason is None:
            await self._wait(seconds)

    async def _more(self, seconds: float) -> None:
        if self._reason is not None:
            raise NoAnswerError(self._reason)
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> None:
        """Until anything happens."""
        self._waiter = waiter = self._loop.create_future()
        timer = self._loop.call_later(seconds, _expire, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, reason: str, *, is_orderly: bool = True) -> None:
        if self._reason is None:
            self._reason = reason
            if is_orderly and self._status and not self._is_framed:
                self._is_complete = True
        self._wake()

    def _break(self, reason: str) -> None:
        """What came is no answer."""
        self._end(reason, is_orderly=False)
        self.abort()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(NoAnswerError("nothing came in time"))

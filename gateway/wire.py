"""How HTTP comes in from a socket: uvicorn's httptools protocol, with the limits that it leaves to a proxy.

httptools keeps an unfinished header whole and copies it with every piece that comes, so a client that needs no token
could take memory without end and hold the event loop for seconds. Here the head of a request (request line and header
fields, and the trailer fields of a chunked body alike) has a largest size, a largest number of fields and a deadline, and
a stop does not wait for a client that takes nothing. Bodies are counted and timed by ``api/bodies.py``; the idle time of
a kept connection stays uvicorn's ``timeout_keep_alive``.

Only hooks are overridden that uvicorn and httptools call by contract: those of ``asyncio.Protocol``, the parser's
callbacks, ``shutdown`` and ``send_400_response``. Sources: RFC 9110 section 15.5.9 (408), RFC 6585 section 5 (431), RFC
9457 (problems).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from enum import Enum
from http import HTTPStatus
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

log = structlog.get_logger(__name__)

#: ": " and the line's end.
_FIELD_OVERHEAD_BYTES = 4


class _Stage(Enum):
    """What the next byte belongs to."""

    BETWEEN = "between"
    HEAD = "head"
    BODY = "body"


class _HeadRefusedError(Exception):
    """Raised inside a parser's callback to make the parser stop."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Its limits are attributes of the class, so that a test makes them small in a subclass."""

    #: Twice what nginx takes by default (four buffers of 8 KiB); Apache takes 100 fields.
    max_head_bytes: ClassVar[int] = 64 * 1024
    max_fields: ClassVar[int] = 128
    #: From the first byte of a request (of a new connection: from its beginning) to the end of its head.
    head_seconds: ClassVar[float] = 10.0
    #: A refusal is waited for this long, so that what the client still sends does not reset it away.
    linger_seconds: ClassVar[float] = 2.0
    #: During a stop a client that takes nothing for this long is cut; well below the grace of ``serving.py``.
    stop_patience_seconds: ClassVar[float] = 5.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stage = _Stage.BETWEEN
        self._is_refused = False
        self._deadline: asyncio.TimerHandle | None = None
        #: Closes after a refusal, or looks during a stop whether the client still reads.
        self._end_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._fields = 0
        #: Bytes in a row after which the parser had nothing to tell: what it may be keeping.
        self._kept_bytes = 0
        self._has_told = False
        #: Requests in their order; the first that is not answered is being served.
        self._unanswered: deque[RequestResponseCycle] = deque()

    # --------------------------------------------------------------------------------------------------- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """A client is there; it has to say something in time."""
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_deadline()
        self._stop_end_timer()
        super().connection_lost(exc)
        # uvicorn tells only the newest of several pipelined requests, and the one being served would write on.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse, and bound what the parser keeps to the limit and one read."""
        if not self._is_refused:
            self._has_told = False
            super().data_received(data)
            self._bound(data)

    def _bound(self, data: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._kept_bytes = 0 if self._has_told else self._kept_bytes + len(data)
        if self._kept_bytes > self.max_head_bytes:
            self._refuse_head()
        elif self._stage is _Stage.HEAD or (self._stage is _Stage.BETWEEN and not self._has_told):
            # The second case is empty lines between requests: they end uvicorn's idle time-out and begin nothing.
            self._start_deadline()

    def shutdown(self) -> None:
        """The server stops: end after the response under way, and do not wait for who does not take it."""
        super().shutdown()
        self._stop_end_timer()
        self._await_reader()

    # ------------------------------------------------------------------------------------------------ parser's callbacks

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._stage = _Stage.HEAD
        self._head_bytes = self._fields = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; or a trailer field, which is counted and dropped."""
        self._fields += 1
        self._count(len(name) + len(value) + _FIELD_OVERHEAD_BYTES)
        if self._stage is _Stage.HEAD:  # uvicorn would add trailers to the headers of a request that is being served
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._has_told = True
        self._stage = _Stage.BODY
        self._stop_deadline()
        before: object = self.cycle
        super().on_headers_complete()
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        if self.cycle is not before:  # a WebSocket's handshake has no cycle
            self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._has_told = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is over; its response may be long in coming."""
        self._has_told = True
        self._stage = _Stage.BETWEEN
        super().on_message_complete()

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self.max_head_bytes or self._fields > self.max_fields:
            self._refuse_head()
            raise _HeadRefusedError

    # ----------------------------------------------------------------------------------------------------------- refusals

    def send_400_response(self, msg: str) -> None:
        """The parser gave up, unless it was we who made it."""
        if not self._is_refused:
            super().send_400_response(msg)

    def _refuse_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"The head of the request is larger than {self.max_head_bytes} bytes or has more than {self.max_fields} fields.",
        )

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer without the application, take nothing more, close."""
        self._is_refused = True
        self._stop_deadline()
        self._unset_keepalive_if_required()
        log.info("head_refused", status=int(status))
        if self._is_answering:
            self.transport.abort()  # an answer to an earlier request is under way; this one cannot overtake it
            return
        self.transport.write(self._answer(status, sentence))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._stop_end_timer()
        self._end_timer = self.loop.call_later(self.linger_seconds, self.transport.close)

    def _answer(self, status: HTTPStatus, sentence: str) -> bytes:
        body = json.dumps(
            {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": sentence},
            separators=(",", ":"),
        ).encode()
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        first = b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode())
        return first + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n" + body

    @property
    def _is_answering(self) -> bool:
        # uvicorn declares it as always there; before the first request it is None.
        cycle: object = self.cycle
        return cycle is not None and not self.cycle.response_complete

    # ----------------------------------------------------------------------------------------------------------- timers

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._meet_deadline)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _meet_deadline(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._is_answering:
            # We may be the ones who do not read: uvicorn pauses a connection whose requests wait for their turn.
            self._start_deadline()
        elif self._stage is _Stage.HEAD:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"The head of the request took over {self.head_seconds:g} s.")
        else:
            self.transport.close()

    def _await_reader(self) -> None:
        unsent_bytes = self.transport.get_write_buffer_size()
        self._end_timer = self.loop.call_later(self.stop_patience_seconds, self._check_reader, unsent_bytes)

    def _check_reader(self, unsent_bytes: int) -> None:
        if self not in self.connections:
            return  # a WebSocket since: uvicorn's other protocol has it
        is_stuck = self.transport.get_write_buffer_size() == unsent_bytes
        # Nothing unsent, closed by us and still here: a TLS client that does not answer our goodbye, idle ones mostly.
        if is_stuck and (unsent_bytes or self.transport.is_closing()):
            log.info("reader_cut", unsent_bytes=unsent_bytes)
            self.transport.abort()
        else:
            self._await_reader()

    def _stop_end_timer(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None

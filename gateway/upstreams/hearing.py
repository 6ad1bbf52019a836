"""A WebSocket whose messages are handed on in the turn of the loop in which they came.

The library puts each message into a queue and wakes a task for it; and it reads a frame by stepping three generators. Of
what comes from a ComfyUI nearly all are short frames that arrive whole, hundreds a second, and whoever hears them returns
at once. So those are read here, and no task is woken. All else (the handshake, fragments, pings, closing, limits, large
frames) the library reads, and what it makes of them takes the same way on.

The two never read the same frame: here is read only while every byte that the library was given belonged to a frame that
it has told of. Source: RFC 6455, section 5.2; websockets 17.4, ``asyncio/client.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedOK
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State

#: Messages kept until somebody hears them: the first ones come with the connection.
MAX_WAITING = 64

#: First bytes of a text and of a binary message that is one frame, without an extension.
_TEXT, _BINARY = 0x81, 0x82
#: In the second byte: the length stands in the next two bytes. Anything above is longer still, or masked.
_TWO_BYTES = 126
_HEAD_END = b"\r\n\r\n"


def connecting(url: str, **options: Any) -> AbstractAsyncContextManager[HearingConnection]:
    """The library's ``connect``, whose connection is one of ours."""
    made = connect(url, create_connection=HearingConnection, **options)
    return cast("AbstractAsyncContextManager[HearingConnection]", made)


class HearingConnection(ClientConnection):
    """One connection; of the library's own ways to receive none may be used."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._hear: Callable[[str | bytes], None] | None = None
        self._waiting: list[str | bytes] = []
        self._fault: Exception | None = None
        #: The newest piece of the answer to the handshake, after the end of the one before.
        self._head = b""
        #: Bytes given to the library that belong to no frame it has told of.
        self._pending_bytes = 0
        #: Of a message in several frames what has come, and which kind it is.
        self._message = bytearray()
        self._kind: Opcode | None = None

    async def hear(self, hear: Callable[[str | bytes], None]) -> None:
        """Have each message handed to ``hear``, which returns at once, until the connection is closed.

        A message of text that is no UTF-8 is left out.

        Raises:
            ConnectionClosedError: it was not closed as it should be.
            Exception: what ``hear`` raised; the connection is broken off.
        """
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            hear(message)
        self._hear = hear
        if self.protocol.state is State.OPEN:
            self.transport.resume_reading()
        await self.wait_closed()
        if self._fault is not None:
            raise self._fault
        if not isinstance(self.protocol.close_exc, ConnectionClosedOK):
            raise self.protocol.close_exc

    # ------------------------------------------------------------------------------------------------- what the loop calls

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.response is None:
            self._head = self._head[1 - len(_HEAD_END) :] + data
        else:
            if self._is_between_frames:
                data = data[self._read_frames(data) :]
                if not data:
                    return
            self._pending_bytes += len(data)
        super().data_received(data)

    @property
    def _is_between_frames(self) -> bool:
        return not self._pending_bytes and self._kind is None and self.protocol.state is State.OPEN

    def _read_frames(self, data: bytes) -> int:
        """Hand on the messages that are one short and whole frame each, up to the first that is not; where that begins."""
        at, size = 0, len(data)
        while size - at >= 2 and (kind := data[at]) in {_TEXT, _BINARY}:  # noqa: PLR2004 - the shortest head
            start, length = at + 2, data[at + 1]
            if length == _TWO_BYTES:
                start, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
            elif length > _TWO_BYTES:
                break
            if start + length > size:
                break
            at = start + length
            self._hand_on(data[start:at], is_text=kind == _TEXT)
        return at

    # ---------------------------------------------------------------------------------------------- what the library calls

    def process_event(self, event: Event) -> None:
        """The library read something: the answer to the handshake first, then frames."""
        if isinstance(event, Response):
            # Frames may have come behind it. Of a refusal that has a body the end is not found, nor needed.
            self._pending_bytes = len(self._head.partition(_HEAD_END)[2])
            self._head = b""
            super().process_event(event)
            return
        assert isinstance(event, Frame)  # noqa: S101 - there is no third kind; for the type checker
        self._pending_bytes -= _size_of(event)
        if event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._take(event)
        else:
            super().process_event(event)

    # --------------------------------------------------------------------------------------------------------- handing on

    def _take(self, frame: Frame) -> None:
        """A whole message, or a part of one: the library has seen to it that they come in order and are not too large."""
        if self._kind is None:
            self._kind = frame.opcode
        self._message += frame.data
        if frame.fin:
            message, is_text = bytes(self._message), self._kind is Opcode.TEXT
            self._message, self._kind = bytearray(), None
            self._hand_on(message, is_text=is_text)

    def _hand_on(self, message: bytes, *, is_text: bool) -> None:
        if self._fault is not None:
            return
        try:
            told = message.decode() if is_text else message
        except UnicodeDecodeError:
            return
        if self._hear is None:
            self._waiting.append(told)
            if len(self._waiting) == MAX_WAITING:
                self.transport.pause_reading()
            return
        try:
            self._hear(told)
        except Exception as error:  # noqa: BLE001 - here the loop would have it; it belongs to whoever waits in ``hear``
            self._fault = error
            self.transport.abort()


def _size_of(frame: Frame) -> int:
    """Bytes of a frame to us, written as short as can be. One that is written longer leaves a rest for good."""
    length = len(frame.data)
    return length + (2 if length < _TWO_BYTES else 4 if length < 1 << 16 else 10)

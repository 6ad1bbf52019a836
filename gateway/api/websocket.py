"""A WebSocket with limits: what comes in is small JSON text, what goes out waits for the one before it.

Nothing is queued for a slow peer: its next frame is asked for when the last one was taken, so a stream's own rules hold
here too (durable events in order from the store, progress as the newest snapshot). A peer that takes nothing for ten
seconds is left to the listening socket's TCP_USER_TIMEOUT: closing would wait for it once more.

Close codes: 1000 done, 1003 binary, 1008 not what was asked for, 1009 too big, 1011 our fault, 1012 the gateway stops,
1013 try again later, 4401 no key or one that opens nothing, 4404 no such job, 4408 silence, 4429 too
many. Source: RFC 6455 section 7.4 with the IANA registry; 4000-4999 are private.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.api.problems import to_json
from gateway.errors import InvalidInputError, RateLimitedError, UnauthorizedError
from gateway.strictjson import JsonValue, loads_object

FIRST_MESSAGE_SECONDS: Final = 10.0
SEND_SECONDS: Final = 10.0
MAX_MESSAGE_BYTES: Final = 64 * 1024


class Close(IntEnum):
    """Why a socket is closed."""

    DONE = 1000
    BINARY = 1003
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013
    UNAUTHORIZED = 4401
    NO_SUCH_JOB = 4404
    SILENCE = 4408
    LIMITED = 4429


def refusal_code(error: UnauthorizedError | RateLimitedError) -> Close:
    """What a page is told that is not let in."""
    return Close.UNAUTHORIZED if isinstance(error, UnauthorizedError) else Close.LIMITED


class HangUp(Exception):  # noqa: N818 - it ends a conversation as agreed, it is no error
    """The conversation is over.

    Attributes:
        code: to close with; None when the peer is gone already or takes nothing.
        error: told to the peer before closing.
    """

    def __init__(self, code: Close | None, error: InvalidInputError | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.error = error


class Peer:
    """One accepted WebSocket; every method raises ``HangUp`` when the conversation cannot go on."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._sending = asyncio.Lock()

    async def receive(self, timeout_seconds: float | None = None) -> dict[str, JsonValue]:
        """The next message: one JSON object. Without a time-out it waits as long as the socket lives."""
        try:
            async with asyncio.timeout(timeout_seconds):
                message = await self._websocket.receive()
        except TimeoutError:
            raise HangUp(Close.SILENCE) from None
        except WebSocketDisconnect:
            raise HangUp(None) from None
        if message["type"] == "websocket.disconnect":
            raise HangUp(None)
        text = message.get("text")
        if text is None:
            raise HangUp(Close.BINARY)
        return _read(text)

    async def send(self, body: dict[str, object]) -> None:
        """Send one message; returns when it is on its way."""
        await self.send_encoded(to_json(body))

    async def send_encoded(self, body: bytes) -> None:
        """Send one message that is JSON already."""
        await self._send({"type": "websocket.send", "text": body.decode()})

    async def send_bytes(self, body: bytes) -> None:
        """Send one binary message."""
        await self._send({"type": "websocket.send", "bytes": body})

    async def _send(self, message: dict[str, object]) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS), self._sending:
                await self._websocket.send(message)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            # Starlette raises a RuntimeError when the peer left between two frames.
            raise HangUp(None) from None

    async def close(self, code: Close) -> None:
        """Close, unless that was done already."""
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._websocket.close(code)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            return


def _read(text: str) -> dict[str, JsonValue]:
    # Four bytes at most per character: only what may be too long is encoded to find out.
    body = text[: MAX_MESSAGE_BYTES + 1].encode("utf-8", "surrogatepass")
    if len(body) > MAX_MESSAGE_BYTES:
        raise HangUp(Close.TOO_BIG)
    try:
        return loads_object(body)
    except InvalidInputError as error:
        raise HangUp(Close.POLICY, error) from None

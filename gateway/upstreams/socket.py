"""The one long-lived WebSocket to an upstream: kept open, read eagerly, opened again after every end.

What frames mean is for ``comfy/protocol.py``; here they are only handed on, in the turn of the loop in which they came
(``hearing.py``). ComfyUI never pings, so we do. A new socket is opened only after the old one is closed: two under one
client id would make both mute.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol
from urllib.parse import quote

from websockets.exceptions import WebSocketException

from gateway.interfaces import Clock
from gateway.upstreams.hearing import HearingConnection, connecting
from gateway.upstreams.waiting import nap

#: SaveImageWebsocket sends whole PNGs, an error the inputs of its node; 64 MiB holds an 8K picture.
MAX_FRAME_BYTES = 64 * 1024 * 1024
OPEN_SECONDS = 10.0
CLOSE_SECONDS = 5.0
PING_SECONDS = 20.0
#: How long to wait before the next try; the last one is repeated.
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)

#: All that connecting and reading may raise on the network's account.
SOCKET_ERRORS = (OSError, TimeoutError, WebSocketException, EOFError)

PROBE = '{"type":"feature_flags","data":{"supports_preview_metadata":true}}'


class Listener(Protocol):
    """Who hears what the socket says; must return at once."""

    async def opened(self) -> None:
        """The socket is open."""
        ...

    def closed(self, reason: str) -> None:
        """It is closed, or could not be opened."""
        ...

    def heard(self, frame: str | bytes) -> None:
        """A frame came."""
        ...


class Socket:
    """Keeps one connection open."""

    def __init__(
        self,
        url: str,
        client_id: str,
        headers: Mapping[str, str],
        *,
        clock: Clock,
        verify: ssl.SSLContext | None = None,
        connector: Callable[..., AbstractAsyncContextManager[HearingConnection]] = connecting,
    ) -> None:
        self._url = f"{url}?clientId={quote(client_id, safe='')}"
        self._headers = headers
        self._clock = clock
        self._verify = verify
        self._connector = connector
        self._connection: HearingConnection | None = None
        self._failures = 0
        self._hurried = asyncio.Event()

    async def keep_open(self, listener: Listener) -> None:
        """Connect and read until cancelled."""
        while True:
            try:
                await self._read_one(listener)
                reason = "the connection was closed"
            except SOCKET_ERRORS as error:
                reason = f"no connection ({type(error).__name__})"  # its text may name the address
            listener.closed(reason)
            self._hurried.clear()
            await nap(self._clock, self._hurried, BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)])
            self._failures += 1

    def hurry(self) -> None:
        """The upstream was seen alive: if we are waiting before the next try, try now."""
        self._hurried.set()

    async def _read_one(self, listener: Listener) -> None:
        async with self._connector(
            self._url,
            additional_headers=self._headers,
            user_agent_header="comfygate",
            origin=None,
            compression=None,  # it would cost more than it saves: the large frames are JPEGs
            proxy=None,  # never one from the environment
            ssl=self._verify if self._url.startswith("wss:") else None,
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            max_size=MAX_FRAME_BYTES,
        ) as connection:
            self._connection = connection
            try:
                await listener.opened()
                await connection.hear(partial(self._heard, listener))
            finally:
                self._connection = None

    def _heard(self, listener: Listener, frame: str | bytes) -> None:
        self._failures = 0
        listener.heard(frame)

    async def send_probe(self) -> None:
        """Send ``feature_flags``; nothing else is ever sent, so it is the first message."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(WebSocketException):  # closing: reading ends as well, and is where it is handled
                await connection.send(PROBE)

    async def close(self) -> None:
        """Close the connection and wait until it is closed; ``keep_open`` then opens another."""
        connection = self._connection
        if connection is not None:
            # The library bounds this by its close_timeout; the reader sees the end and opens the next one after it.
            await asyncio.shield(connection.close())

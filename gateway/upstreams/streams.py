"""Bytes to and from an upstream over the event loop's own transports, for httpcore2.

Its own backend goes through anyio: for each piece it opens a scope with a timer, and before each request it asks the
kernel about every kept connection, which lets go of the interpreter each time. Together that was a third of what a request
costs. Here the loop says by itself when a connection has ended, and a timer is set only where something is waited for.

For plain HTTP only: TLS stays with httpcore2's backend. Its exceptions are raised here, as ``client.py`` sorts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, cast

import httpcore2

#: Bytes of an answer that may lie here unread; the rest waits at the sender.
_MOST_UNREAD_BYTES: Final = 256 * 1024
#: Between the tries of two addresses of one name (RFC 8305, section 5).
_NEXT_ADDRESS_SECONDS: Final = 0.25


class LoopStream(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection; one task reads and one writes at a time. Made by ``LoopBackend``."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._is_reading = True
        #: No more is coming, and why.
        self._has_ended = False
        self._error: Exception | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_full = False

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        """More of an answer."""
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > _MOST_UNREAD_BYTES and self._is_reading and self._transport is not None:
            self._transport.pause_reading()
            self._is_reading = False
        _wake(self._arrived)

    def eof_received(self) -> bool:
        """The other side sends no more; what we are sending may still be taken."""
        self._has_ended = True
        _wake(self._arrived)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._has_ended = True
        self._error = exc or (None if self._unread else self._error)
        self._transport = None
        _wake(self._arrived)
        _wake(self._drained)

    def pause_writing(self) -> None:
        """Enough waits to be sent."""
        self._is_full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._is_full = False
        _wake(self._drained)

    # Called by httpcore2.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's signature
        """Bytes as they came, b"" at the end; more than ``max_bytes``, too, for whoever parses them takes any number.

        Raises:
            httpcore2.ReadTimeout: nothing came in time.
            httpcore2.ReadError: the connection broke.
        """
        del max_bytes
        if not self._unread and not self._has_ended:
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived
            except TimeoutError:
                raise httpcore2.ReadTimeout from None
            finally:
                self._arrived = None
        if not self._unread:
            if self._error is not None:
                raise httpcore2.ReadError(type(self._error).__name__)
            return b""
        data = self._unread.popleft()
        self._unread_bytes -= len(data)
        if not self._is_reading and not self._unread and self._transport is not None:
            self._transport.resume_reading()
            self._is_reading = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's signature
        """Hand bytes over; returns when there is room for more.

        Raises:
            httpcore2.WriteTimeout: the other side took nothing for that long.
            httpcore2.WriteError: the connection broke.
        """
        if self._transport is None or self._transport.is_closing():
            raise httpcore2.WriteError("the connection is closed")
        self._transport.write(buffer)
        if not self._is_full:
            return
        self._drained = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._drained
        except TimeoutError:
            raise httpcore2.WriteTimeout from None
        finally:
            self._drained = None
        if self._transport is None:
            raise httpcore2.WriteError("the connection was closed")

    async def aclose(self) -> None:
        """Let go of it; what was not sent yet is dropped."""
        if self._transport is not None:
            self._transport.abort()
            await asyncio.sleep(0)  # the loop closes it in its next turn

    def get_extra_info(self, info: str) -> Any:
        """``is_readable``: whether a kept connection is of no use any more, for nothing was asked. Nothing else is told."""
        return (bool(self._unread) or self._has_ended) if info == "is_readable" else None


class LoopBackend(httpcore2.AsyncNetworkBackend):
    """Connects by TCP."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address of a name that answers.

        Raises:
            httpcore2.ConnectTimeout: none did in time.
            httpcore2.ConnectError: none takes connections, or the name is not known.
        """
        del local_address, socket_options  # nobody here asks for any
        try:
            async with asyncio.timeout(timeout):
                return await _connected(await _addresses(host, port), port)
        except TimeoutError:
            raise httpcore2.ConnectTimeout from None
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(type(error).__name__) from None


async def _addresses(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _connected(addresses: list[str], port: int) -> LoopStream:
    """All tried, each a little after the one before; the first that answers is taken. Raises OSError."""
    loop = asyncio.get_running_loop()
    if len(addresses) == 1:
        return (await loop.create_connection(LoopStream, addresses[0], port))[1]
    tries: set[asyncio.Task[tuple[asyncio.Transport, LoopStream]]] = set()
    failure: OSError = ConnectionRefusedError()
    waiting = deque(addresses)
    try:
        while waiting or tries:
            if waiting:
                address = waiting.popleft()
                tries.add(asyncio.create_task(loop.create_connection(LoopStream, address, port), name=f"to {address}"))
            done, tries = await asyncio.wait(
                tries, timeout=_NEXT_ADDRESS_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for tried in done:
                error = tried.exception()
                if error is None:
                    return tried.result()[1]
                if not isinstance(error, OSError):
                    raise error
                failure = error
    finally:
        for tried in tries:
            tried.cancel()
        for late in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(late, tuple):
                late[0].abort()
    raise failure


def _wake(waiter: asyncio.Future[None] | None) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        if waiter is not None:
            waiter.set_result(None)

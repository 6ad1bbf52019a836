"""The connections to one upstream: so many at most, some of them kept for the next request.

What a name stands for is tried address by address, each a little after the one before; the first that answers is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from typing import Final

from gateway.upstreams.exchange import Connection, NotSentError

#: Between the tries of two addresses of one name (RFC 8305, section 5).
_NEXT_ADDRESS_SECONDS: Final = 0.25


class Connections:
    """Connections to one host and port; ``take`` one, and ``give_back`` each.

    Args:
        host: a name or an address.
        port: there.
        tls: what its certificate is checked with; None for plain HTTP.
        most: at a time; whoever wants another waits.
        most_kept: that nobody uses.
        kept_seconds: so long an unused one is kept.
        connect_seconds: patience with the host, and with those who use the others.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        most: int,
        most_kept: int,
        kept_seconds: float,
        connect_seconds: float,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._most_kept = most_kept
        self._kept_seconds = kept_seconds
        self._connect_seconds = connect_seconds
        self._room = asyncio.Semaphore(most)
        #: With the loop's time until which each is kept; the newest last.
        self._kept: deque[tuple[float, Connection]] = deque()
        self._taken: set[Connection] = set()
        self._is_closed = False

    async def take(self) -> Connection:
        """A connection to send on. Raises NotSentError."""
        await self._enter()
        try:
            connection = self._kept_one() or await self._new()
        except BaseException:
            self._room.release()
            raise
        self._taken.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next, where it can be used again; otherwise it is ended."""
        self._taken.discard(connection)
        self._room.release()
        if not connection.is_idle or self._is_closed:
            connection.abort()
            return
        now = asyncio.get_running_loop().time()
        self._kept.append((now + self._kept_seconds, connection))
        while self._kept and (len(self._kept) > self._most_kept or self._kept[0][0] <= now):
            self._kept.popleft()[1].abort()

    async def close(self) -> None:
        """End all of them; whoever waits for an answer gets none."""
        self._is_closed = True
        for connection in (*self._taken, *(kept for _, kept in self._kept)):
            connection.abort()
        self._kept.clear()
        await asyncio.sleep(0)  # the loop closes them in its next turn

    async def _enter(self) -> None:
        if self._is_closed:
            raise NotSentError("it was closed")
        if not self._room.locked():
            await self._room.acquire()  # at once
            return
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._room.acquire()
        except TimeoutError:
            raise NotSentError("all connections are in use") from None

    def _kept_one(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._kept:
            until, connection = self._kept.pop()
            if until > now and connection.is_idle:
                return connection
            connection.abort()
        return None

    async def _new(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._connected(await _addresses(self._host, self._port))
        except TimeoutError:
            raise NotSentError("no connection in time") from None
        except (OSError, UnicodeError) as error:
            raise NotSentError(type(error).__name__) from None  # its text may name the address

    async def _dial(self, address: str) -> Connection:
        name = self._host if self._tls is not None else None
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, address, self._port, ssl=self._tls, server_hostname=name))[1]

    async def _connected(self, addresses: list[str]) -> Connection:
        """All tried; the first that answers. Raises OSError."""
        if len(addresses) == 1:
            return await self._dial(addresses[0])
        tries: set[asyncio.Task[Connection]] = set()
        failure: OSError = ConnectionRefusedError()
        waiting = deque(addresses)
        try:
            while waiting or tries:
                if waiting:
                    address = waiting.popleft()
                    tries.add(asyncio.create_task(self._dial(address), name=f"to {address}"))
                done, tries = await asyncio.wait(
                    tries, timeout=_NEXT_ADDRESS_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for tried in done:
                    error = tried.exception()
                    if error is None:
                        return tried.result()
                    if not isinstance(error, OSError):
                        raise error
                    failure = error
        finally:
            await _given_up(tries)
        raise failure


async def _given_up(tries: set[asyncio.Task[Connection]]) -> None:
    for tried in tries:
        tried.cancel()
    for late in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(late, Connection):
            late.abort()


async def _addresses(host: str, port: int) -> list[str]:
    """What a name stands for; an address stands for itself, and nobody is asked."""
    with contextlib.suppress(OSError):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.inet_pton(family, host)
        return [host]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

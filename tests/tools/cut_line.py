"""A line to a server that can be cut: forwards connections on loopback, and after so many bytes breaks them off, or holds them."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum, auto
from typing import Self
from urllib.parse import urlsplit

PIECE_BYTES = 64 * 1024


class Then(Enum):
    """What happens to bytes when as many have passed as may."""

    #: Every connection is broken off, and each new one at once.
    CUT = auto()
    #: They are held, and their connections stay open.
    HOLD = auto()


class CutLine:
    """To an ``http://host:port``; ``endpoint`` is how it is reached through here."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._host, self._there = str(parts.hostname), int(parts.port or 80)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._then = Then.CUT
        self._left: int | None = None
        #: Set when the bytes that may pass have passed.
        self.reached = asyncio.Event()
        self._mended = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.mend()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def break_after(self, size_bytes: int, then: Then) -> None:
        """Let so many more bytes pass towards the server."""
        self._left, self._then = size_bytes, then
        self.reached, self._mended = asyncio.Event(), asyncio.Event()

    def mend(self) -> None:
        """Let everything pass again, on new connections; old ones that were held are broken off."""
        self._left = None
        self._mended.set()
        if self.reached.is_set():
            for writer in list(self._writers):
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._left is not None and self._left <= 0 and self._then is Then.CUT:
            writer.transport.abort()
            return
        back_reader, back_writer = await asyncio.open_connection(self._host, self._there)
        pair = {writer, back_writer}
        self._writers |= pair
        try:
            await asyncio.gather(
                self._pass(reader, back_writer, counts=True), self._pass(back_reader, writer, counts=False)
            )
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                if counts and self._left is not None:
                    self._left -= len(piece)
                    if self._left <= 0:
                        self.reached.set()
                        if self._then is Then.HOLD:
                            await self._mended.wait()
                            return
                        for each in list(self._writers):
                            each.transport.abort()
                        return
                writer.write(piece)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

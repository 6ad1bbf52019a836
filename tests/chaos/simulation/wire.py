"""The network between the gateway and a simulated ComfyUI, in the place of the HTTP client and of the socket's library.

It stands where ``gateway/upstreams/client.py`` and ``websockets`` stand, so everything above them is the real thing:
staging, reconnecting, the session, what is asked when. A request may be lost before it arrived, or after it was acted
on; a partition holds up what is under way, and may let it through after nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from gateway.upstreams.client import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    PIECE_SECONDS,
    Address,
    Answer,
    UpstreamClient,
)
from gateway.upstreams.exchange import NoAnswerError, NotSentError
from gateway.upstreams.socket import CLOSE_SECONDS, OPEN_SECONDS
from tests.chaos.simulation.loop import OWNER

if TYPE_CHECKING:
    from tests.chaos.simulation.comfyui import SimulatedComfyUI
    from tests.chaos.simulation.process import Process

#: Least time that a message takes, one way; the longest is each server's own.
LEAST_SECONDS = 0.0005
#: How often a request that a server's loop holds up is looked at again.
HELD_SECONDS = 1.0
_FILENAME = re.compile(rb'filename="([^"]+)"')
_SUBFOLDER = re.compile(rb'name="subfolder"\r\n\r\n([^\r]+)\r\n')


class SimulatedClient(UpstreamClient):
    """``UpstreamClient`` on the simulated network: only what leaves it is replaced. Made by a simulated process."""

    def __init__(self, address: Address, headers: Mapping[str, str], *, verify: object = True, **more: Any) -> None:
        # Without the real one's: building its connections takes longer than a whole world.
        del headers, verify
        self._may_act = more.get("may_act")
        self._process: Process = OWNER.get()
        self._world = self._process.world
        self._server: SimulatedComfyUI = self._world.server_at(address.base_url)

    async def close(self) -> None:
        """Nothing is held."""

    @asynccontextmanager
    async def stream(self, path: str, **params: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        answer = await self._exchange("GET", path, params, b"", PIECE_SECONDS)
        yield answer.status, self._pieces(answer.body)

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        generation, half = self._server.generation, len(body) // 2
        yield body[:half]
        await asyncio.sleep(self._latency())
        if not self._server.is_reachable or self._server.generation != generation:
            raise NoAnswerError("broke off")
        yield body[half:]

    async def _ask(self, method: str, path: str, **options: Any) -> Answer:
        content, answer_seconds = options.get("content", b""), options.get("answer_seconds", ANSWER_SECONDS)
        if not isinstance(content, bytes):  # an upload: its name is all that is looked at
            head = await anext(content)
            await content.aclose()
            found = _FILENAME.search(head)
            folder = _SUBFOLDER.search(head)
            assert found is not None
            assert folder is not None
            named = {"name": found[1].decode(), "subfolder": folder[1].decode()}
            return await self._exchange(method, path, named, b"", answer_seconds)
        return await self._exchange(method, path, options.get("params", {}), content, answer_seconds)

    async def _exchange(
        self, method: str, path: str, params: Mapping[str, Any], body: bytes, answer_seconds: float
    ) -> Answer:
        self._process.check()
        if method == "POST" and self._process.is_superseded:
            self._world.checker.fail("who was taken over acts no more", f"{path} on {self._server.name}")
        reply = self._world.loop.create_future()
        _Request(self._server, (method, path, params, body), reply, answer_seconds).send()
        try:
            answer: Answer = await reply
        finally:
            await self._process.wakes()
            self._process.check()
        return answer

    async def _ask_leave(self) -> None:
        await self._process.wakes()  # nothing is asked while it is stopped
        await super()._ask_leave()

    def _latency(self) -> float:
        return float(self._world.random.uniform(LEAST_SECONDS, self._server.latency_seconds))


class _Request:
    """One request on its way; goes on when whoever sent it is dead."""

    def __init__(
        self,
        server: SimulatedComfyUI,
        what: tuple[str, str, Mapping[str, Any], bytes],
        reply: asyncio.Future[Answer],
        answer_seconds: float,
    ) -> None:
        self._server = server
        self._world = server.world
        self._what = what
        self._reply = reply
        self._times_out_at = self._world.loop.time() + answer_seconds
        self._generation = server.generation
        self._is_held = False

    def _later(self, seconds: float, call: Any, *arguments: Any) -> None:
        self._world.loop.call_later(seconds, call, *arguments, context=self._world.context)

    def _latency(self) -> float:
        return float(self._world.random.uniform(LEAST_SECONDS, self._server.latency_seconds))

    def _fail(self, error: ConnectionError) -> None:
        if not self._reply.done():
            self._reply.set_exception(error)

    def _time_out(self) -> None:
        if self._what[1] == "/prompt":
            self._server.posts_open_until = max(self._server.posts_open_until, self._times_out_at)
        left = max(0.0, self._times_out_at - self._world.loop.time())
        self._later(left, self._fail, NoAnswerError("ReadTimeout"))

    def send(self) -> None:
        random = self._world.random
        if self._server.partitions:
            if random.random() < 0.5:
                self._later(CONNECT_SECONDS, self._fail, NotSentError("ConnectTimeout"))
                return
            # An old connection: the bytes lie in a buffer, and may get through when the network heals.
            self._time_out()
            if random.random() < 0.3:
                self._server.held_back.append(self._arrive)
        elif not self._server.is_up:
            self._later(self._latency(), self._fail, NotSentError("ConnectError"))
        elif random.random() < 0.01 and self._server.was_at_fault_since(self._world.loop.time() - 5.0):
            self._server.blame("a request goes wrong")
            self._later(self._latency(), self._fail, NoAnswerError("ReadError"))
        else:
            self._later(self._latency(), self._arrive)

    def _arrive(self) -> None:
        server, now = self._server, self._world.loop.time()
        if server.partitions:
            self._time_out()
        elif not server.is_up or server.generation != self._generation:
            self._fail(NoAnswerError("ReadError"))
        elif server.http_blocked_until > now:
            # Its loop is held up: it will read this later, whether anybody waits or not.
            if self._times_out_at < server.http_blocked_until and not self._is_held:
                self._time_out()
            self._is_held = True
            # Looked at again soon: peace ends the hold.
            self._later(min(server.http_blocked_until - now, HELD_SECONDS), self._arrive)
        else:
            self._act()

    def _act(self) -> None:
        method, path, params, body = self._what
        server, random = self._server, self._world.random
        answer = server.answer(method, path, params, body)
        if self._world.loop.time() < server.weather_until and random.random() < 0.2:
            server.blame(f"{method} {path[:16]}: reply goes wrong")
            fate = random.random()
            if fate < 0.4:
                answer = Answer(500, b"500 Internal Server Error")
            elif fate < 0.7:
                self._later(self._latency(), self._fail, NoAnswerError("RemoteProtocolError"))
                return
            else:
                self._time_out()
                return
        self._later(self._latency(), self._answered, answer)

    def _answered(self, answer: Answer) -> None:
        if self._server.partitions:
            self._time_out()
        elif self._server.generation != self._generation:
            self._fail(NoAnswerError("ReadError"))
        elif not self._reply.done():
            self._reply.set_result(answer)
            if self._what[1] == "/prompt" and b"value_smaller_than_min" in answer.body:
                self._world.partly[orjson.loads(answer.body)["prompt_id"]] = self._world.loop.time()


class Connection:
    """Both ends of one WebSocket."""

    def __init__(self, server: SimulatedComfyUI, client_id: str) -> None:
        self._server = server
        self._world = server.world
        self.client_id = client_id
        self._frames: list[str] = []
        self._held: list[str] = []
        self._wake: asyncio.Future[None] | None = None
        self._latency = self._world.random.uniform(LEAST_SECONDS, server.latency_seconds)
        self._close_error: Exception | None = None
        self._closed = asyncio.Event()
        self._process: Process = OWNER.get()
        server.connected(client_id, self)

    def _later(self, seconds: float, call: Any, *arguments: Any) -> None:
        self._world.loop.call_later(seconds, call, *arguments, context=self._world.context)

    # The server's end.

    def deliver(self, frame: str) -> None:
        """A frame goes out; frames of one connection never overtake one another."""
        wait = max(0.0, self._server.frames_blocked_until - self._world.loop.time())
        self._later(self._latency + wait, self._arrive, frame)

    def _arrive(self, frame: str) -> None:
        if self._close_error is not None:
            return
        if self._server.partitions:
            self._held.append(frame)
        else:
            self._frames.append(frame)
            self._ring()

    def healed(self) -> None:
        """The network is back: what was held up comes through."""
        self._frames += self._held
        self._held.clear()
        self._ring()

    def break_off(self, reason: str, *, notice: bool = True, late_seconds: float = 0.0) -> None:
        """The connection is gone. ``notice``: the server finds out, after a while."""
        del reason
        if self._close_error is None:
            self._close_error = ConnectionClosedError(None, None)
            self._ring()
        if notice:
            self._later(late_seconds, self._server.handler_ended, self.client_id, self)

    # The client's end.

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def hear(self, hear: Callable[[str], None]) -> None:
        while True:
            while not self._frames:
                if self._close_error is not None:
                    if not isinstance(self._close_error, ConnectionClosedOK):
                        raise self._close_error
                    if self._closed.is_set():
                        return
                self._wake = self._world.loop.create_future()
                await self._wake
            await self._process.wakes()
            hear(self._frames.pop(0))

    async def send(self, text: str) -> None:
        if self._close_error is not None:
            raise self._close_error
        assert "feature_flags" in text
        if not self._server.partitions:
            self._later(self._latency, self._server.heard, self.client_id, self)

    async def close(self) -> None:
        """Come back when the other end has closed too, or never will; whoever closes it as well waits as long."""
        if self._close_error is None:
            self._close_error = ConnectionClosedOK(None, None)
            if self._server.partitions:
                self._server.held_back.append(lambda: self._server.handler_ended(self.client_id, self))
                self._later(CLOSE_SECONDS, self._has_closed)
            else:
                self._later(self._latency, self._server.handler_ended, self.client_id, self)
                self._later(2 * self._latency, self._has_closed)
        elif not isinstance(self._close_error, ConnectionClosedOK):
            return
        await self._closed.wait()

    def _has_closed(self) -> None:
        self._closed.set()
        self._ring()

    def abandoned(self) -> None:
        """The process died: the kernel closes the socket, the server notices in its time."""
        seconds = self._world.random.choice((0.01, 0.5, 0.9))
        if self._close_error is None:
            self._close_error = ConnectionClosedError(None, None)
            self._later(seconds, self._server.handler_ended, self.client_id, self)


class Connect:
    """In the place of ``hearing.connecting``."""

    def __init__(self, url: str, **options: object) -> None:
        del options
        self._process: Process = OWNER.get()
        self._world = self._process.world
        parts = urlsplit(url)
        self._client_id = parse_qs(parts.query)["clientId"][0]
        self._server: SimulatedComfyUI = self._world.server_at(f"http://{parts.netloc}")
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        self._process.check()
        await self._process.wakes()
        if self._server.partitions:
            await asyncio.sleep(OPEN_SECONDS)
            raise TimeoutError
        await asyncio.sleep(self._world.random.uniform(LEAST_SECONDS, self._server.latency_seconds))
        self._process.check()
        if not self._server.is_reachable:
            raise ConnectionRefusedError
        self._connection = Connection(self._server, self._client_id)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection is None:
            return
        if self._process.alive:
            await self._connection.close()
        else:
            self._connection.abandoned()

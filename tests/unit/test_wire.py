"""The protocol on real sockets: a uvicorn server on a loopback port, in the test's own loop, with small limits."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager, suppress
from inspect import signature

import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from gateway.serving import _config
from gateway.wire import BoundedHttpProtocol

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class Small(BoundedHttpProtocol):
    """Limits a test can reach; its deadline is far off unless a test brings it near."""

    head_seconds = 60.0
    linger_seconds = 0.02
    stop_patience_seconds = 0.05


class Hasty(Small):
    head_seconds = 0.04


class Site:
    """What the server serves, and what it saw."""

    def __init__(self):
        self.connections = []
        self.gate = asyncio.Event()
        self.requests = []
        self.app = Starlette(
            routes=[
                Route("/", self.get),
                Route("/slow", self.slow),
                Route("/echo", self.echo, methods=["POST"]),
                Route("/endless", self.endless),
                Route("/large", self.large),
                Route("/waits", self.waits),
                WebSocketRoute("/socket", self.socket),
            ]
        )

    async def get(self, request):
        self.requests.append(request)
        return PlainTextResponse("hello")

    async def slow(self, request):
        self.requests.append(request)
        await self.gate.wait()
        return PlainTextResponse("at last")

    async def echo(self, request: Request):
        body = await request.body()
        names = sorted(name for name, _ in request.scope["headers"])
        return JSONResponse([len(body), [name.decode() for name in names]])

    async def endless(self, request):
        async def pieces():
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)  # uvicorn takes without waiting what nobody is there for any more

        return StreamingResponse(pieces())

    async def waits(self, request):
        self.requests.append(request)
        await request.receive()
        self.seen = await request.receive()
        return PlainTextResponse("nobody reads this")

    async def large(self, request):
        return PlainTextResponse(b"x" * 20_000_000)

    async def socket(self, websocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - uvicorn tells its state to nobody
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(protocol=Small):
    """The port, the site and the server."""
    site = Site()

    class Seen(protocol):
        def connection_made(self, transport):
            site.connections.append(self)
            super().connection_made(transport)

    config = uvicorn.Config(
        site.app, port=0, http=Seen, ws="websockets-sansio", lifespan="off", log_config=None, timeout_keep_alive=60
    )
    config.load()
    server = uvicorn.Server(config)
    # What Server.serve does, without its ticks of a tenth of a second: each test would wait for several.
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        async with asyncio.timeout(10):
            yield server.servers[0].sockets[0].getsockname()[1], site, server
    finally:
        site.gate.set()
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await until(lambda: is_idle(server))


def is_idle(server):
    return not server.server_state.tasks and not server.server_state.connections


@asynccontextmanager
async def dialed(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer_of(reader):
    """(status, headers, body) of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def refusal(port, data):
    """What is answered to these bytes; the connection must end after it."""
    async with dialed(port) as (reader, writer):
        writer.write(data)
        status, headers, body = await answer_of(reader)
        assert await reader.read() == b""
        assert headers["connection"] == "close"
        problem = json.loads(body)
        assert headers["content-type"] == "application/problem+json"
        assert problem["status"] == status
        return status


# ---------------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(70)) + b"\r\n",
        b"GET /?" + b"a" * 65_600 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(128)) + b"\r\n",  # with Host: 129
        HEAD + b"a" * 70_000,
        b"\r\n" * 40_000,
    ],
    ids=["one field", "many fields", "target", "129 fields", "a name without end", "empty lines"],
)
async def test_a_head_over_the_limit_gets_431(head):
    async with serving() as (port, site, _):
        assert await refusal(port, head) == 431
        assert site.requests == []


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"a" * 64_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(127)) + b"\r\n",  # with Host: 128
    ],
    ids=["size", "number"],
)
async def test_a_head_at_the_limit_is_served(head):
    async with serving() as (port, _, _), dialed(port) as (reader, writer):
        writer.write(head)
        assert (await answer_of(reader))[0] == 200


async def test_an_unfinished_field_is_kept_up_to_the_limit_and_one_read():
    fed = []

    class Counted(Small):
        def data_received(self, data):
            if not self._is_refused:
                fed.append(len(data))
            super().data_received(data)

    async with serving(Counted) as (port, site, _), dialed(port) as (_, writer):
        writer.write(HEAD + b"X: ")
        with suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"a" * 1024 * 1024)
                await writer.drain()
        await until(lambda: site.connections[0].parser is None)
        assert sum(fed) <= 64 * 1024 + max(fed)


async def test_a_head_that_comes_byte_by_byte_is_bounded_too():
    async with serving() as (port, _, _), dialed(port) as (reader, writer):
        writer.write(HEAD + b"X: ")
        for _ in range(70):
            writer.write(b"a" * 1000)
            await writer.drain()
            await asyncio.sleep(0)
        assert (await answer_of(reader))[0] == 431


async def test_trailers_are_counted_and_never_become_headers():
    begin = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with serving() as (port, _, _), dialed(port) as (reader, writer):
        writer.write(begin + b"0\r\nAuthorization: evil\r\n\r\n")
        assert json.loads((await answer_of(reader))[2]) == [3, ["host", "transfer-encoding"]]
        writer.write(begin + b"0\r\nX: " + b"a" * 400_000)
        # An answer is under way to whoever sent them, so there is none to give but the end.
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await answer_of(reader)


async def test_a_large_body_is_no_head():
    body = b"x" * 3_000_000
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving() as (port, _, _), dialed(port) as (reader, writer):
        for _ in range(2):
            writer.write(head + body)
            assert json.loads((await answer_of(reader))[2]) == [len(body), ["content-length", "host"]]


async def test_a_refusal_does_not_overtake_the_answer_before_it():
    async with serving() as (port, site, _), dialed(port) as (reader, writer):
        writer.write(HEAD.replace(b"/ ", b"/slow ") + b"\r\n")
        await until(lambda: site.requests)
        writer.write(HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(128)) + b"\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await answer_of(reader)


# ---------------------------------------------------------------------------------------------------------------- time


async def test_a_head_that_is_late_gets_408():
    async with serving(Hasty) as (port, _, _):
        assert await refusal(port, HEAD) == 408


async def test_a_second_head_that_is_late_gets_408():
    async with serving(Hasty) as (port, _, _), dialed(port) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await answer_of(reader))[0] == 200
        writer.write(b"GET ")
        assert (await answer_of(reader))[0] == 408
        assert await reader.read() == b""


@pytest.mark.parametrize("said", [b"", b"\r\n"])
async def test_a_new_connection_that_asks_nothing_is_closed(said):
    async with serving(Hasty) as (port, _, _), dialed(port) as (reader, writer):
        writer.write(said)
        assert await reader.read() == b""


async def test_empty_lines_do_not_hold_a_kept_connection():
    async with serving(Hasty) as (port, _, _), dialed(port) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await answer_of(reader))[0] == 200
        writer.write(b"\r\n")
        assert await reader.read() == b""


async def test_an_answer_may_take_longer_than_a_head():
    async with serving(Hasty) as (port, site, _), dialed(port) as (reader, writer):
        writer.write(HEAD.replace(b"/ ", b"/slow ") + b"\r\n" + HEAD)  # and a half one behind it
        await asyncio.sleep(3 * Hasty.head_seconds)
        site.gate.set()
        assert (await answer_of(reader))[2] == b"at last"


async def test_a_kept_connection_may_idle_longer_than_a_head_may_take():
    async with serving(Hasty) as (port, _, _), dialed(port) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            assert (await answer_of(reader))[0] == 200
            await asyncio.sleep(2 * Hasty.head_seconds)


async def test_no_timer_outlives_its_connection():
    async with serving() as (port, site, _):
        async with dialed(port) as (_, writer):
            writer.write(HEAD)
            await writer.drain()
        await until(lambda: site.connections[0].parser is None)
        assert (site.connections[0]._deadline, site.connections[0]._end_timer) == (None, None)


# ------------------------------------------------------------------------------------------------- what must not change


async def test_pipelined_requests_are_answered_in_order():
    async with serving() as (port, site, _), dialed(port) as (reader, writer):
        slow = HEAD.replace(b"/ ", b"/slow ") + b"\r\n"
        writer.write(slow + (HEAD + b"Pad: " + b"x" * 100 + b"\r\n\r\n") * 600)  # over 64 KiB, in many heads
        await until(lambda: site.requests)
        site.gate.set()
        assert (await answer_of(reader))[2] == b"at last"
        for _ in range(600):
            assert (await answer_of(reader))[2] == b"hello"


async def test_a_client_that_leaves_is_noticed_behind_pipelined_requests():
    async with serving() as (port, site, server):
        async with dialed(port) as (_, writer):
            writer.write(HEAD.replace(b"/ ", b"/waits ") + b"\r\n" + HEAD + b"\r\n")
            await until(lambda: site.requests)
        await until(lambda: is_idle(server))
        assert site.seen == {"type": "http.disconnect"}


async def test_a_websocket_lives_on_after_the_deadline():
    async with (
        serving(Hasty) as (port, _, _),
        websockets.connect(f"ws://127.0.0.1:{port}/socket", proxy=None) as connection,
    ):
        await asyncio.sleep(3 * Hasty.head_seconds)
        await connection.send("echo")
        assert await connection.recv() == "echo"


async def test_what_is_no_http_gets_400(caplog):
    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    async with serving() as (port, _, _), dialed(port) as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00\r\n\r\n")
        assert (await answer_of(reader))[0] == 400


# ------------------------------------------------------------------------------------------------------------- stopping


async def test_a_stop_does_not_wait_for_who_reads_nothing():
    async with serving() as (port, site, server), dialed(port) as (_, writer):
        writer.transport.pause_reading()
        writer.write(HEAD.replace(b"/ ", b"/endless ") + b"\r\n")
        await until(lambda: site.connections and site.connections[0].flow.write_paused)
        async with asyncio.timeout(5):  # uvicorn alone would wait for ever
            await server.shutdown()
        assert is_idle(server)


async def test_a_stop_does_not_wait_for_who_leaves_the_end_of_an_answer_unread():
    async with serving() as (port, site, server), dialed(port) as (_, writer):
        writer.transport.pause_reading()
        writer.write(HEAD.replace(b"/ ", b"/large ") + b"\r\n")
        await until(lambda: site.connections and site.connections[0].transport.get_write_buffer_size())
        async with asyncio.timeout(5):
            await server.shutdown()
        assert is_idle(server)


async def test_a_stop_waits_for_an_answer_that_is_under_way():
    async with serving() as (port, site, server), dialed(port) as (reader, writer):
        writer.write(HEAD.replace(b"/ ", b"/slow ") + b"\r\n")
        await until(lambda: site.requests)
        stop = asyncio.create_task(server.shutdown())
        await asyncio.sleep(4 * Small.stop_patience_seconds)
        site.gate.set()
        assert (await answer_of(reader))[2] == b"at last"
        await stop


def test_the_gateway_listens_with_these_limits():
    class Gateway:
        app = staticmethod(lambda: None)

    others = [None] * (len(signature(_config).parameters) - 1)  # whatever they are, they do not choose the protocol
    config = _config(Gateway(), *others)
    config.load()
    assert config.http_protocol_class is BoundedHttpProtocol
    assert (BoundedHttpProtocol.max_head_bytes, BoundedHttpProtocol.max_fields) == (65_536, 128)
    assert BoundedHttpProtocol.head_seconds == 10

"""The connection under upstream requests, against sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import httpcore2
import pytest

from gateway.upstreams import streams
from gateway.upstreams.streams import LoopBackend

SECONDS = 5.0
#: Shorter than anybody's patience, long enough for nothing to be slow by chance: only silence is waited for.
SOON = 0.02


class Server:
    """Hands each connection to the test."""

    def __init__(self):
        self.connections = asyncio.Queue()
        self.writers = []

    async def take(self, reader, writer):
        self.writers.append(writer)
        await self.connections.put((reader, writer))


@pytest.fixture
async def server():
    server = Server()
    async with await asyncio.start_server(server.take, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server
        for writer in server.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    await asyncio.sleep(0)


@pytest.fixture
async def ends(server):
    """Our stream, and the other side's reader and writer."""
    stream = await LoopBackend().connect_tcp("127.0.0.1", server.port, SECONDS)
    reader, writer = await server.connections.get()
    yield stream, reader, writer
    await stream.aclose()


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - the stream tells its state to nobody
            await asyncio.sleep(0)


async def read_all(stream):
    return b"".join([piece async for piece in _pieces(stream)])


async def _pieces(stream):
    while piece := await stream.read(65536, SECONDS):
        yield piece


async def test_bytes_go_both_ways(ends):
    stream, reader, writer = ends
    await stream.write(b"question", SECONDS)
    assert await reader.readexactly(8) == b"question"
    writer.write(b"answer")
    assert await stream.read(65536, SECONDS) == b"answer"


async def test_an_end_comes_after_all_that_was_sent_before_it(ends):
    stream, _, writer = ends
    writer.write(b"x" * 3_000_000)
    writer.close()
    assert len(await read_all(stream)) == 3_000_000
    assert await stream.read(65536, SECONDS) == b""


async def test_an_answer_that_came_before_a_reset_is_read(ends):
    """413 while the body is still on its way: the server answers and breaks the connection."""
    stream, _, writer = ends
    writer.write(b"too large")
    await until(lambda: stream.get_extra_info("is_readable"))
    writer.transport.abort()
    assert await stream.read(65536, SECONDS) == b"too large"


async def test_a_reset_is_an_error_of_whoever_reads(ends):
    stream, _, writer = ends
    reading = asyncio.create_task(stream.read(65536, SECONDS))
    await asyncio.sleep(0)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # closes by RST
    writer.transport.abort()
    with pytest.raises(httpcore2.ReadError):
        await reading
    with pytest.raises(httpcore2.WriteError):
        await stream.write(b"more", SECONDS)


async def test_silence_is_waited_for_as_long_as_was_said(ends):
    stream, _, writer = ends
    with pytest.raises(httpcore2.ReadTimeout):
        await stream.read(65536, SOON)
    writer.write(b"late")
    assert await stream.read(65536, SECONDS) == b"late"


async def test_who_takes_nothing_is_waited_for_as_long_as_was_said(ends):
    stream, _, writer = ends
    writer.transport.pause_reading()
    with pytest.raises(httpcore2.WriteTimeout):
        await stream.write(b"x" * 50_000_000, SOON)


async def test_a_write_that_waits_for_room_ends_when_there_is_some(ends):
    stream, reader, _ = ends
    sent = asyncio.create_task(stream.write(b"x" * 20_000_000, SECONDS))
    assert len(await reader.readexactly(20_000_000)) == 20_000_000
    await sent


async def test_what_nobody_reads_stays_at_the_sender(ends, monkeypatch):
    stream, _, writer = ends
    writer.write(b"x" * 50_000_000)
    await until(lambda: not stream._is_reading)
    for _ in range(100):
        await asyncio.sleep(0)
    assert stream._unread_bytes < 2 * streams._MOST_UNREAD_BYTES
    writer.close()
    assert len(await read_all(stream)) == 50_000_000


async def test_a_kept_connection_says_by_itself_that_it_is_of_no_use(ends):
    stream, _, writer = ends
    assert not stream.get_extra_info("is_readable")
    writer.close()
    await until(lambda: stream.get_extra_info("is_readable"))


async def test_a_port_where_nobody_listens_is_an_error_of_connecting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(httpcore2.ConnectError):
            await LoopBackend().connect_tcp("127.0.0.1", taken.getsockname()[1], SECONDS)


async def test_a_name_that_is_not_known_is_an_error_of_connecting(monkeypatch):
    async def unknown(*_given, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(httpcore2.ConnectError):
        await LoopBackend().connect_tcp("nowhere.example", 80, SECONDS)


async def test_a_name_with_an_address_that_refuses_is_reached_by_its_next(server, monkeypatch):
    monkeypatch.setattr(streams, "_addresses", _say(["127.0.0.9", "127.0.0.1"]))
    stream = await LoopBackend().connect_tcp("name", server.port, SECONDS)
    await server.connections.get()
    await stream.aclose()


async def test_a_name_with_an_address_that_is_silent_is_reached_by_its_next(server, monkeypatch):
    """As an IPv6 address is behind a router that drops it; the try that is left over is ended."""
    loop = asyncio.get_running_loop()
    connect, given_up = loop.create_connection, []

    async def dial(factory, address, port):
        if address == "silent":
            try:
                await asyncio.Event().wait()
            finally:
                given_up.append(address)
        return await connect(factory, address, port)

    monkeypatch.setattr(loop, "create_connection", dial)
    monkeypatch.setattr(streams, "_NEXT_ADDRESS_SECONDS", 0.0)
    monkeypatch.setattr(streams, "_addresses", _say(["silent", "127.0.0.1"]))
    stream = await LoopBackend().connect_tcp("name", server.port, SECONDS)
    assert given_up == ["silent"]
    await stream.aclose()


async def test_addresses_that_are_all_silent_are_waited_for_as_long_as_was_said(monkeypatch):
    async def dial(*_given):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", dial)
    monkeypatch.setattr(streams, "_addresses", _say(["silent", "silent too"]))
    with pytest.raises(httpcore2.ConnectTimeout):
        await LoopBackend().connect_tcp("name", 1, SOON)


def test_it_works_on_the_loop_that_is_served_by():
    """uvloop's transports are of no class of asyncio's."""
    uvloop = pytest.importorskip("uvloop")

    async def ask():
        server = Server()
        async with await asyncio.start_server(server.take, "127.0.0.1", 0) as listening:
            stream = await LoopBackend().connect_tcp("127.0.0.1", listening.sockets[0].getsockname()[1], SECONDS)
            reader, writer = await server.connections.get()
            sending = asyncio.create_task(stream.write(b"x" * 20_000_000, SECONDS))
            assert len(await reader.readexactly(20_000_000)) == 20_000_000
            await sending
            writer.write(b"y" * 3_000_000)
            writer.close()
            assert len(await read_all(stream)) == 3_000_000
            await stream.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


def _say(addresses):
    async def found(_host, _port):
        return addresses

    return found


async def test_requests_over_it_share_a_connection(server):
    async def answer():
        reader, writer = await server.connections.get()
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    answering = asyncio.create_task(answer())
    async with httpcore2.AsyncConnectionPool(network_backend=LoopBackend()) as pool:
        for _ in range(3):
            assert (await pool.request("GET", f"http://127.0.0.1:{server.port}/queue")).content == b"{}"
    await answering
    assert len(server.writers) == 1

"""The connections to one upstream: reaching it, keeping some, and never more than may be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
import trustme

from gateway.upstreams import connections as module
from gateway.upstreams.connections import Connections
from gateway.upstreams.exchange import NoAnswerError, NotSentError

SECONDS = 5.0
SOON = 0.02
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Server:
    """Answers everything, and counts who came."""

    def __init__(self):
        self.writers = []
        self.port = 0

    async def serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(tls=None):
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server
        for writer in server.writers:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
    await asyncio.sleep(0)


@pytest.fixture
async def server():
    async with serving() as server:
        yield server


def to(port, host="127.0.0.1", tls=None, **options):
    chosen = {"most": 3, "most_kept": 2, "kept_seconds": SECONDS, "connect_seconds": SECONDS} | options
    return Connections(host, port, tls, **chosen)


async def ask(connections):
    connection = await connections.take()
    try:
        await connection.send(HEAD, b"", SECONDS)
        assert await connection.answered(SECONDS) == 200
        assert await connection.piece(SECONDS) == b"{}"
    finally:
        connections.give_back(connection)
    return connection


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - a closed transport tells nobody
            await asyncio.sleep(0)


def say(*addresses):
    async def found(_host, _port):
        return list(addresses)

    return found


async def test_requests_share_a_connection(server):
    connections = to(server.port)
    assert await ask(connections) is await ask(connections)
    assert len(server.writers) == 1
    await connections.close()


async def test_one_that_the_other_side_has_closed_is_not_used(server):
    connections = to(server.port)
    first = await ask(connections)
    server.writers[0].close()
    await until(lambda: not first.is_idle)
    assert await ask(connections) is not first
    await connections.close()


async def test_one_that_was_kept_for_too_long_is_not_used(server):
    connections = to(server.port, kept_seconds=0.0)
    first = await ask(connections)
    assert await ask(connections) is not first
    await until(lambda: first._transport is None)
    await connections.close()


async def test_one_whose_answer_was_not_read_is_not_used(server):
    connections = to(server.port)
    first = await connections.take()
    await first.send(HEAD, b"", SECONDS)
    connections.give_back(first)
    assert await ask(connections) is not first
    await connections.close()


async def test_only_some_are_kept(server):
    connections = to(server.port)
    taken = [await connections.take() for _ in range(3)]
    for connection in taken:
        connections.give_back(connection)
    await until(lambda: taken[0]._transport is None)
    assert [connection.is_idle for connection in taken] == [False, True, True]
    await connections.close()


async def test_who_wants_one_too_many_waits_for_another_to_be_given_back(server):
    connections = to(server.port, most=1)
    first = await connections.take()
    waiting = asyncio.create_task(connections.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    connections.give_back(first)
    connections.give_back(await waiting)
    await connections.close()


async def test_who_waits_for_one_in_vain_has_sent_nothing(server):
    connections = to(server.port, most=1, connect_seconds=SOON)
    taken = await connections.take()
    with pytest.raises(NotSentError):
        await connections.take()
    connections.give_back(taken)
    await ask(connections)
    await connections.close()


async def test_closing_ends_all_and_gives_no_more(server):
    connections = to(server.port)
    kept, used = await connections.take(), await connections.take()
    connections.give_back(kept)
    await used.send(HEAD, b"", SECONDS)
    answering = asyncio.create_task(used.answered(SECONDS))
    await connections.close()
    with pytest.raises(NotSentError):
        await connections.take()
    with contextlib.suppress(NoAnswerError):
        await answering
    connections.give_back(used)
    await until(lambda: (kept._transport, used._transport) == (None, None))


# ----------------------------------------------------------------------------------------------------------- reaching it


async def test_a_port_where_nobody_listens_has_been_sent_nothing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        connections = to(taken.getsockname()[1], most=1)
        for _ in range(2):  # and what failed takes no place
            with pytest.raises(NotSentError):
                await connections.take()


async def test_a_name_that_is_not_known_has_been_sent_nothing(monkeypatch):
    async def unknown(*_given, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "not known: secret.example")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(NotSentError) as refusal:
        await to(80, "secret.example").take()
    assert "secret" not in str(refusal.value)


async def test_nobody_is_asked_what_an_address_stands_for(server, monkeypatch):
    async def asked(*_given, **_options):
        pytest.fail("it was")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", asked)
    assert await module._addresses("::1", 80) == ["::1"]
    assert await module._addresses("127.0.0.1", 80) == ["127.0.0.1"]


async def test_a_name_with_an_address_that_refuses_is_reached_by_its_next(server, monkeypatch):
    monkeypatch.setattr(module, "_addresses", say("127.0.0.9", "127.0.0.1"))
    connections = to(server.port, "name")
    await ask(connections)
    await connections.close()


async def test_a_name_with_an_address_that_is_silent_is_reached_by_its_next(server, monkeypatch):
    """As an IPv6 address is behind a router that drops it; the try that is left over is ended."""
    loop = asyncio.get_running_loop()
    connect, given_up = loop.create_connection, []

    async def dial(factory, address, port, **options):
        if address == "silent":
            try:
                await asyncio.Event().wait()
            finally:
                given_up.append(address)
        return await connect(factory, address, port, **options)

    monkeypatch.setattr(loop, "create_connection", dial)
    monkeypatch.setattr(module, "_NEXT_ADDRESS_SECONDS", 0.0)
    monkeypatch.setattr(module, "_addresses", say("silent", "127.0.0.1"))
    connections = to(server.port, "name")
    await ask(connections)
    assert given_up == ["silent"]
    await connections.close()


async def test_addresses_that_are_all_silent_are_waited_for_as_long_as_was_said(monkeypatch):
    async def dial(*_given, **_options):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", dial)
    monkeypatch.setattr(module, "_addresses", say("silent", "silent too"))
    with pytest.raises(NotSentError):
        await to(1, "name", connect_seconds=SOON).take()


# ------------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def client_tls(authority=None):
    context = ssl.create_default_context()
    if authority is not None:
        authority.configure_trust(context)
    return context


@contextlib.asynccontextmanager
async def serving_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("comfy.example").configure_cert(context)
    async with serving(context) as server:
        yield server


async def test_over_tls_the_name_is_checked_and_not_the_address(authority, monkeypatch):
    monkeypatch.setattr(module, "_addresses", say("127.0.0.1"))
    async with serving_tls(authority) as server:
        connections = to(server.port, "comfy.example", client_tls(authority))
        assert await ask(connections) is await ask(connections)
        await connections.close()
        await asyncio.sleep(0.01)  # TLS takes some turns of the loop to end


@pytest.mark.parametrize("fault", ["another name", "unknown authority"])
async def test_over_tls_nothing_is_sent_to_somebody_else(authority, monkeypatch, fault):
    monkeypatch.setattr(module, "_addresses", say("127.0.0.1"))
    async with serving_tls(authority) as server:
        name = "other.example" if fault == "another name" else "comfy.example"
        tls = client_tls(authority if fault == "another name" else None)
        with pytest.raises(NotSentError):
            await to(server.port, name, tls).take()

from __future__ import annotations

import asyncio
import contextlib
import warnings

import pytest
import uvicorn
from websockets import exceptions as websockets_exceptions

from gateway.upstreams import client as module
from gateway.upstreams.client import UpstreamClient, parse_address
from gateway.upstreams.connections import Connections
from gateway.upstreams.exchange import Connection, NoAnswerError
from gateway.upstreams.remote import WATCH_SECONDS
from gateway.upstreams.socket import SOCKET_ERRORS


def test_every_failure_of_the_websocket_library_is_caught():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        kinds = [getattr(websockets_exceptions, name) for name in websockets_exceptions.__all__]
    assert kinds
    # ConcurrencyError is a mistake of ours (two readers), not the network's.
    strays = {kind.__name__ for kind in kinds if not issubclass(kind, SOCKET_ERRORS)} - {"ConcurrencyError"}
    assert strays == set()


@pytest.mark.parametrize(
    ("url", "base", "socket"),
    [
        ("http://host:8188", "http://host:8188", "ws://host:8188/ws"),
        ("http://host:8188/", "http://host:8188", "ws://host:8188/ws"),
        ("https://host:443/comfy/", "https://host/comfy", "wss://host/comfy/ws"),
        ("http://[::1]:8188", "http://[::1]:8188", "ws://[::1]:8188/ws"),
        (" http://host ", "http://host", "ws://host/ws"),
        ("http://gpü.example:8188", "http://xn--gp-yka.example:8188", "ws://xn--gp-yka.example:8188/ws"),
    ],
)
def test_addresses_are_taken_apart(url, base, socket):
    address = parse_address(url)
    assert (address.base_url, address.socket_url, address.headers) == (base, socket, {})


def test_credentials_leave_the_url():
    address = parse_address("https://us%40er:p%3Ass@host:8188/comfy")
    assert address.headers == {"Authorization": "Basic dXNAZXI6cDpzcw=="}
    assert address.base_url == "https://host:8188/comfy"
    assert address.origin == "https://host:8188"
    assert "dXNA" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:8188",
        "ftp://secret@host",
        "http://",
        "http://secret@host:port",
        "http://secret@host/?a=1",
        "http://secret..x",
    ],
)
def test_other_urls_are_refused_without_repeating_them(url):
    with pytest.raises(ValueError, match="URL of an upstream") as refusal:
        parse_address(url)
    assert "secret" not in str(refusal.value)


def test_an_idle_connection_is_given_up_before_a_server_would():
    """Closed by the server as we send on it, it looks like an upstream that does not answer."""
    patience_seconds = uvicorn.Config(None).timeout_keep_alive
    assert min(patience_seconds, WATCH_SECONDS) > 2 * module.KEPT_SECONDS


# ------------------------------------------------------------------------------------------------ what nobody foresaw


async def test_what_nobody_meant_to_raise_is_no_answer(monkeypatch):
    """It may name addresses, and it may have come after the first byte."""

    async def reset(connections):
        del connections
        raise AttributeError("'NoneType' object at http://user:secret@host has no attribute 'getpeername'")

    monkeypatch.setattr(Connections, "take", reset)
    client = UpstreamClient(parse_address("http://127.0.0.1:1"), {})
    with pytest.raises(NoAnswerError) as failure:
        await client.get("/queue")
    assert "secret" not in str(failure.value)
    with pytest.raises(NoAnswerError):
        async with client.stream("/view"):
            pass


async def answer_all(reader, writer):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has left
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
    writer.close()


@pytest.fixture
async def server():
    async with await asyncio.start_server(answer_all, "127.0.0.1", 0, limit=2**22) as server:
        yield server


@pytest.fixture
async def client(server):
    client = UpstreamClient(parse_address(url_of(server)), {"X-Worker": "7"})
    yield client
    await client.close()


def url_of(server):
    return f"http://us:er@127.0.0.1:{server.sockets[0].getsockname()[1]}/below it"


@pytest.fixture
def sent(monkeypatch):
    """(head, body) of each request; one in pieces counts as a list of them."""
    sent = []
    send, send_pieces = Connection.send, Connection.send_pieces

    async def whole(connection, head, body, seconds):
        sent.append((head, body))
        await send(connection, head, body, seconds)

    async def in_pieces(connection, head, pieces, size_bytes, seconds):
        listed = [piece async for piece in pieces]
        sent.append((head, listed))

        async def again():
            for piece in listed:
                yield piece

        await send_pieces(connection, head, again(), size_bytes, seconds)

    monkeypatch.setattr(Connection, "send", whole)
    monkeypatch.setattr(Connection, "send_pieces", in_pieces)
    return sent


async def test_a_question_says_who_asks_and_what(client, sent):
    answer = await client.get("/view", filename="a b/ü.png", subfolder="x")
    assert (answer.status, answer.body) == (200, b"{}")
    [(head, body)] = sent
    first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    assert first == "GET /below%20it/view?filename=a%20b%2F%C3%BC.png&subfolder=x HTTP/1.1"
    assert {"X-Worker: 7", "Authorization: Basic dXM6ZXI=", "Accept-Encoding: identity"} <= set(lines)
    assert any(line.startswith("Host: 127.0.0.1:") for line in lines)
    assert not any(line.startswith("Content-Length") for line in lines)
    assert body == b""


@pytest.mark.parametrize("method", ["post", "patch"])
async def test_a_value_is_sent_as_json(client, sent, method):
    assert (await getattr(client, method)("/prompt", {"a": "ü"})).status == 200
    [(head, body)] = sent
    assert body == '{"a":"ü"}'.encode()
    assert head.startswith(method.upper().encode() + b" /below%20it/prompt HTTP/1.1\r\n")
    assert b"Content-Type: application/json\r\n" in head
    assert head.endswith(b"Content-Length: %d\r\n\r\n" % len(body))


@pytest.mark.parametrize(("size_bytes", "is_whole"), [(100, True), (2**20 + 1, False)])
async def test_a_short_body_is_sent_as_one(client, sent, size_bytes, is_whole):
    async def pieces():
        yield b"x" * (size_bytes - 1)
        yield b"y"

    headers = {"Content-Length": str(size_bytes), "Content-Type": "x/y"}
    assert (await client.upload("/upload/image", pieces(), headers)).status == 200
    [(head, body)] = sent
    assert body == (b"x" * 99 + b"y" if is_whole else [b"x" * (size_bytes - 1), b"y"])
    assert head.count(b"Content-Length: %d\r\n" % size_bytes) == 1


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "ü", "a\0b"])
async def test_a_header_that_would_be_more_than_one_is_refused(client, sent, value):
    with pytest.raises(ValueError, match="header"):
        UpstreamClient(parse_address("http://127.0.0.1:1"), {"X-Worker": value})
    with pytest.raises(NoAnswerError):
        await client.post("/prompt", {}, headers={"X": value})
    assert sent == []


async def test_an_answer_that_is_too_long_is_none(client, monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)

    async def endless(connection, seconds):
        del connection, seconds
        return b"x" * 400

    monkeypatch.setattr(Connection, "piece", endless)
    monkeypatch.setattr(Connection, "is_idle", False)
    with pytest.raises(NoAnswerError):
        await client.get("/object_info")


async def test_faults_of_whoever_reads_a_file_stay_what_they_are(client):
    async def read_and_break() -> None:
        async with client.stream("/view") as (status, pieces):
            assert (status, [piece async for piece in pieces]) == (200, [b"{}"])
            raise KeyError

    with pytest.raises(KeyError):
        await read_and_break()


async def test_requests_that_are_cancelled_anywhere_take_no_place_with_them(server, monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    client = UpstreamClient(parse_address(url_of(server)), {})
    for steps in range(20):
        requests = [asyncio.create_task(client.get("/queue")) for _ in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    assert (await client.get("/queue")).body == b"{}"
    await client.close()

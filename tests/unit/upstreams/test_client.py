from __future__ import annotations

import asyncio
import contextlib
import inspect
import warnings

import httpcore2
import pytest
import uvicorn
from websockets import exceptions as websockets_exceptions

from gateway.upstreams import client as module
from gateway.upstreams.client import (
    FAILURES,
    NoAnswerError,
    NotSentError,
    UpstreamClient,
    failure_of,
    parse_address,
)
from gateway.upstreams.remote import WATCH_SECONDS
from gateway.upstreams.socket import SOCKET_ERRORS

EXPORTED = [each for each in vars(httpcore2).values() if inspect.isclass(each) and issubclass(each, Exception)]


@pytest.mark.parametrize("kind", EXPORTED, ids=lambda kind: kind.__name__)
def test_every_failure_of_the_http_library_has_a_meaning(kind):
    assert kind in FAILURES


def test_only_failures_before_the_first_byte_count_as_not_sent():
    """Whoever is on this list may be submitted again without looking: each must be raised before anything is sent."""
    assert {kind.__name__ for kind, ours in FAILURES.items() if ours is NotSentError} == {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "UnsupportedProtocol",
        "ProxyError",
        "ConnectionNotAvailable",
    }


def test_unknown_failures_may_have_been_acted_on():
    class NewError(httpcore2.NetworkError):
        pass

    assert isinstance(failure_of(NewError("x")), NoAnswerError)


def test_failures_do_not_repeat_addresses():
    assert "secret" not in str(failure_of(httpcore2.ConnectError("http://user:secret@host")))


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


# ------------------------------------------------------------------------------------------- what the library lets slip


async def test_what_the_http_library_never_meant_to_raise_is_no_answer_either(monkeypatch):
    """A connection that is reset right after it was made is asked for its peer, which it has no more."""

    async def reset(pool, request):
        del pool, request
        raise AttributeError("'NoneType' object has no attribute 'getpeername'")

    monkeypatch.setattr(httpcore2.AsyncConnectionPool, "handle_async_request", reset)
    client = UpstreamClient(parse_address("http://127.0.0.1:1"), {})
    with pytest.raises(NoAnswerError):
        await client.get("/queue")
    with pytest.raises(NoAnswerError):
        async with client.stream("/view"):
            pass


async def answer_all(reader, writer):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has left
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
    writer.close()


@pytest.mark.parametrize(("size_bytes", "sent_as"), [(100, "one"), (2**20 + 1, "pieces")])
async def test_a_short_body_is_sent_as_one(monkeypatch, size_bytes, sent_as):
    seen = []

    def exchange(client, method, path, *, content, **options):
        seen.append(content)
        raise httpcore2.ConnectError

    async def pieces():
        yield b"x" * (size_bytes - 1)
        yield b"y"

    monkeypatch.setattr(UpstreamClient, "_exchange", exchange)
    client, content = UpstreamClient(parse_address("http://127.0.0.1:1"), {}), pieces()
    with pytest.raises(NotSentError):
        await client.upload("/upload/image", content, {"Content-Length": str(size_bytes)})
    assert seen == [b"x" * 99 + b"y" if sent_as == "one" else content]
    await content.aclose()


async def test_faults_of_whoever_reads_a_file_stay_what_they_are():
    async with await asyncio.start_server(answer_all, "127.0.0.1", 0) as server:
        client = UpstreamClient(parse_address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), {})

        async def read_and_break() -> None:
            async with client.stream("/view") as (status, pieces):
                assert (status, [piece async for piece in pieces]) == (200, [b"{}"])
                raise KeyError

        with pytest.raises(KeyError):
            await read_and_break()
        await client.close()


async def test_requests_that_are_cancelled_anywhere_take_no_place_in_the_pool_with_them(monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    async with await asyncio.start_server(answer_all, "127.0.0.1", 0) as server:
        client = UpstreamClient(parse_address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), {})
        for steps in range(20):
            requests = [asyncio.create_task(client.get("/queue")) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        assert (await client.get("/queue")).body == b"{}"
        await client.close()

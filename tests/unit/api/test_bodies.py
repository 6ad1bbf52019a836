import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from gateway.api.bodies import LingeringClose


class Wire:
    """One exchange with a client that sends ``pieces`` and then closes, or nothing more when it ``hangs``."""

    def __init__(self, *pieces, **headers):
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"type": "http", "method": "POST", "path": "/", "headers": raw, "asgi": {"spec_version": "2.4"}}
        self.incoming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if self.incoming:
            self.incoming[-1]["more_body"] = False
        self.log = []

    async def receive(self):
        self.log.append("receive")
        return self.incoming.pop(0) if self.incoming else {"type": "http.disconnect"}

    async def send(self, message):
        self.log.append("last" if message["type"].endswith("body") and not message.get("more_body") else "send")
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])

    async def run(self, app, **options):
        await LingeringClose(app, **options)(self.scope, self.receive, self.send)
        return self.headers.get(b"connection")


async def refuse_at_once(scope, receive, send):
    await PlainTextResponse("too large", 413)(scope, receive, send)


async def read_all(scope, receive, send):
    await Request(scope, receive).body()
    await PlainTextResponse("ok")(scope, receive, send)


async def read_one_piece(scope, receive, send):
    await anext(aiter(Request(scope, receive).stream()))
    await refuse_at_once(scope, receive, send)


@pytest.mark.parametrize("headers", [{}, {"content_length": "0"}])
async def test_request_without_body_keeps_its_connection(headers):
    wire = Wire(**headers)
    assert await wire.run(refuse_at_once) is None
    assert wire.log == ["send", "last"]


async def test_body_that_was_read_keeps_its_connection():
    wire = Wire(b"a", b"b", content_length="2")
    assert await wire.run(read_all) is None
    assert wire.log == ["receive", "receive", "send", "last"]


@pytest.mark.parametrize("headers", [{"content_length": "3"}, {"transfer_encoding": "chunked"}])
async def test_answer_goes_out_first_then_the_rest_is_dropped_then_the_connection_closes(headers):
    wire = Wire(b"a", b"b", b"c", **headers)
    assert await wire.run(refuse_at_once) == b"close"
    assert wire.log == ["send", "send", "receive", "receive", "receive", "last"]


async def test_body_read_in_part_is_closed_too():
    wire = Wire(b"a", b"b", content_length="2")
    assert await wire.run(read_one_piece) == b"close"
    assert wire.log == ["receive", "send", "send", "receive", "last"]


async def test_client_that_leaves_ends_the_wait():
    wire = Wire(content_length="99")
    assert await wire.run(refuse_at_once) == b"close"
    assert wire.log == ["send", "send", "receive", "last"]


async def test_client_that_waits_for_100_continue_is_not_invited_to_send():
    wire = Wire(b"a", content_length="1", expect="100-Continue")
    assert await wire.run(refuse_at_once) == b"close"
    assert wire.log == ["send", "last"]


async def test_client_that_sends_nothing_is_waited_for_only_so_long():
    wire = Wire(b"a", content_length="1")

    async def never():
        await asyncio.Event().wait()

    wire.receive = never
    assert await wire.run(refuse_at_once, linger_seconds=0.001) == b"close"
    assert wire.log == ["send", "send", "last"]


async def test_other_scopes_pass_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    await LingeringClose(app)({"type": "lifespan"}, len, print)
    assert seen == [({"type": "lifespan"}, len, print)]

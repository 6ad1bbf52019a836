from __future__ import annotations

import asyncio

from gateway.upstreams.socket import MAX_FRAME_BYTES, Socket


class HeldClock:
    """Time that never passes."""

    async def sleep(self, seconds):
        await asyncio.Event().wait()


class Listener:
    def __init__(self):
        self.reasons = []

    async def opened(self):
        raise AssertionError("nothing was opened")

    def closed(self, reason):
        self.reasons.append(reason)

    def heard(self, frame):
        raise AssertionError("nothing was said")


class Refusing:
    """A connector to a server that is not there."""

    def __init__(self):
        self.calls = []

    def __call__(self, url, **options):
        self.calls.append((url, options))
        return self

    async def __aenter__(self):
        raise ConnectionRefusedError("http://user:secret@host")

    async def __aexit__(self, *error):
        return None


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_refused_connection_is_told_without_its_address_and_tried_again_when_hurried():
    connector, listener = Refusing(), Listener()
    socket = Socket("ws://host/ws", "a b&c", {"Authorization": "x"}, clock=HeldClock(), connector=connector)
    keeping = asyncio.create_task(socket.keep_open(listener))
    await settle()
    assert len(connector.calls) == 1
    socket.hurry()
    await settle()
    assert len(connector.calls) == 2
    assert listener.reasons == ["no connection (ConnectionRefusedError)"] * 2
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_connection_is_plain_direct_and_bounded():
    connector = Refusing()
    socket = Socket("ws://host/ws", "a b&c", {"Authorization": "x"}, clock=HeldClock(), connector=connector)
    keeping = asyncio.create_task(socket.keep_open(Listener()))
    await settle()
    keeping.cancel()
    await asyncio.wait({keeping})
    ((url, options),) = connector.calls
    assert url == "ws://host/ws?clientId=a%20b%26c"
    assert options["additional_headers"] == {"Authorization": "x"}
    assert [options[name] for name in ("origin", "compression", "proxy", "ssl")] == [None] * 4
    assert options["max_size"] == MAX_FRAME_BYTES


async def test_sending_and_closing_without_a_connection_do_nothing():
    socket = Socket("ws://host/ws", "c", {}, clock=HeldClock())
    await socket.send_probe()
    await socket.close()

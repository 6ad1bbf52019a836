from __future__ import annotations

import asyncio
import json

import pytest
from starlette.websockets import WebSocketState

from gateway.embedded import sockets
from gateway.embedded.faults import Faults, parse_faults
from gateway.embedded.previews import Preview
from gateway.embedded.quirks import Quirks
from gateway.embedded.sockets import Hub


class FakeWebSocket:
    """Keeps what is sent; a stuck one never finishes its first send. It knows nothing of the handshake."""

    application_state = WebSocketState.CONNECTED

    def __init__(self, *, stuck: bool = False) -> None:
        self.sent: asyncio.Queue = asyncio.Queue()
        self.incoming: asyncio.Queue = asyncio.Queue()
        self.closed: asyncio.Future = asyncio.get_running_loop().create_future()
        self._stuck = stuck

    async def accept(self) -> None:
        return None

    async def receive(self):
        return await self.incoming.get()

    async def send_text(self, text: str) -> None:
        if self._stuck:
            await asyncio.Event().wait()
        self.sent.put_nowait(json.loads(text))

    async def send_bytes(self, frame: bytes) -> None:
        self.sent.put_nowait(frame)

    async def close(self, code: int) -> None:
        self.closed.set_result(code)

    async def next(self):
        return await asyncio.wait_for(self.sent.get(), 2)

    def say(self, message: object) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})


@pytest.fixture
async def open_socket():
    tasks = []

    async def connect(hub: Hub, client_id: str, **settings) -> FakeWebSocket:
        websocket = FakeWebSocket(**settings)
        tasks.append(asyncio.create_task(hub.serve(websocket, client_id, [("status", {"sid": client_id})])))
        if not settings:
            assert (await websocket.next())["data"] == {"sid": client_id}
        else:
            await asyncio.sleep(0)
        return websocket

    yield connect
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def hub_of(quirks: Quirks = Quirks(), faults: str = "") -> Hub:  # noqa: B008 - frozen
    return Hub(quirks, Faults(parse_faults(faults)), {"supports_preview_metadata": True})


async def test_frames_reach_their_client_in_order_and_nobody_else(open_socket):
    hub = hub_of()
    one, other = await open_socket(hub, "one"), await open_socket(hub, "other")
    for number in range(50):
        hub.send("progress", {"value": number}, "one")
    hub.send("status", {})
    assert [(await one.next())["data"].get("value") for _ in range(51)] == [*range(50), None]
    assert await other.next() == {"type": "status", "data": {}}


async def test_stuck_reader_stalls_nobody(open_socket):
    hub = hub_of()
    await open_socket(hub, "stuck", stuck=True)
    reader = await open_socket(hub, "reader")
    hub.send("status", {"n": 1})
    assert (await reader.next())["data"] == {"n": 1}


async def test_stuck_reader_stalls_everybody_with_the_quirk(open_socket):
    hub = hub_of(Quirks(single_send_loop=True))
    reader = await open_socket(hub, "reader")
    await open_socket(hub, "stuck", stuck=True)
    hub.send("status", {"n": 1})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.sent.get(), 0.02)
    await hub.close()


async def test_reader_that_falls_behind_too_far_loses_its_socket(open_socket, monkeypatch):
    monkeypatch.setattr(sockets, "LANE_FRAMES", 3)
    hub = hub_of()
    await open_socket(hub, "stuck", stuck=True)
    for number in range(10):
        hub.send("progress", {"value": number}, "stuck")
    await asyncio.sleep(0)
    assert not hub.has("stuck")


async def test_feature_flags_are_answered_as_first_message_only(open_socket):
    hub = hub_of()
    first, late = await open_socket(hub, "first"), await open_socket(hub, "late")
    first.say({"type": "feature_flags", "data": {}})
    assert await first.next() == {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    late.say({"type": "hello"})
    late.say({"type": "feature_flags", "data": {}})
    hub.send("status", {})
    assert (await late.next())["type"] == "status"
    assert late.sent.empty()


async def test_dropped_socket_is_closed_once_and_the_next_one_served(open_socket):
    hub = hub_of(faults="drop-socket:after=2")
    first = await open_socket(hub, "c")
    for _ in range(2):
        hub.send("status", {})
    await first.next()
    assert await asyncio.wait_for(first.closed, 2) == 1011
    second = await open_socket(hub, "c")
    hub.send("status", {})
    hub.send("status", {})
    assert [(await second.next())["type"] for _ in range(2)] == ["status", "status"]


async def test_preview_comes_with_metadata_to_those_who_said_that_they_take_it(open_socket):
    hub = hub_of()
    new, old = await open_socket(hub, "new"), await open_socket(hub, "old")
    new.say({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    old.say({"type": "feature_flags", "data": ["rubbish"]})
    await new.next()
    await old.next()
    preview = Preview("p", "3", b"\xff\xd8\xff")
    hub.send_preview(preview)
    assert await new.next() == preview.described()
    assert await old.next() == preview.plain()

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from gateway.upstreams.hearing import MAX_WAITING, HearingConnection

MAX_BYTES = 1 << 20


class Transport:
    """Keeps what is written; says what it was asked to do."""

    def __init__(self):
        self.written = []
        self.calls = []

    def write(self, data):
        self.written.append(data)

    def write_eof(self):
        self.calls.append("eof")

    def can_write_eof(self):
        return True

    def is_closing(self):
        return False

    def set_write_buffer_limits(self, *_):
        pass

    def get_extra_info(self, _name, default=None):
        return default

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")

    def close(self):
        self.calls.append("close")

    def abort(self):
        self.calls.append("abort")


class Wire:
    """A connection of ours, and the library's server at the other end of a wire that cuts as it is told."""

    def __init__(self, max_bytes=MAX_BYTES):
        self.server = ServerProtocol()
        self.connection = HearingConnection(
            ClientProtocol(parse_uri("ws://host/ws"), max_size=max_bytes), ping_interval=None
        )
        self.transport = Transport()
        self.connection.connection_made(self.transport)
        self.heard = []
        self._shaking = None
        self._hearing = None

    async def open(self, behind=b""):
        """Shake hands; ``behind`` comes in one piece with the answer."""
        self._shaking = asyncio.create_task(self.connection.handshake())
        await asyncio.sleep(0)
        self.server.receive_data(b"".join(self.transport.written))
        self.transport.written.clear()
        (request,) = self.server.events_received()
        self.server.send_response(self.server.accept(request))
        self.connection.data_received(self.sent() + behind)
        await self._shaking
        return self

    def hear(self, hear=None):
        self._hearing = asyncio.create_task(self.connection.hear(hear or self.heard.append))
        return self._hearing

    def sent(self):
        """What the server has to send."""
        return b"".join(self.server.data_to_send())

    def answered(self):
        """What was sent to the server, as it reads it."""
        self.server.receive_data(b"".join(self.transport.written))
        self.transport.written.clear()
        return self.server.events_received()

    async def lose(self):
        """The network ends the connection."""
        self.connection.connection_lost(None)
        if self._hearing is not None:
            with contextlib.suppress(ConnectionClosedError):
                await self._hearing


def bytes_of(server, message):
    """One message as the server writes it: a text, bytes, a ping, or a text in several frames."""
    if isinstance(message, str):
        server.send_text(message.encode())
    elif isinstance(message, bytes):
        server.send_binary(message)
    elif isinstance(message, int):
        server.send_ping(b"%d" % message)
    else:
        first, *others = message
        server.send_text(first.encode(), fin=not others)
        for number, part in enumerate(others, 1):
            server.send_ping(b"in between")
            server.send_continuation(part.encode(), fin=number == len(others))
    return b"".join(server.data_to_send())


#: Whose every fourth byte is where a message could begin.
LIKE_FRAMES = b"\x81\x02no" * 40

MESSAGES = st.lists(
    st.one_of(
        st.text(max_size=130),
        st.binary(max_size=130),
        st.sampled_from(["x" * 125, "x" * 126, "ü" * 4000, b"y" * 65_535, b"y" * 65_536, LIKE_FRAMES]),
        st.integers(0, 9),
        st.lists(st.text(max_size=5), min_size=2, max_size=4).map(tuple),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    messages=MESSAGES,
    cuts=st.lists(st.integers(1, 9) | st.integers(1, 70_000), max_size=25),
    with_handshake=st.booleans(),
)
def test_messages_come_whole_and_in_order_however_the_bytes_are_cut(messages, cuts, with_handshake):
    async def talk():
        wire = Wire()
        await wire.open()
        data = b"".join(bytes_of(wire.server, message) for message in messages)
        if with_handshake:
            again = Wire()
            cut = min(cuts, default=0)
            await again.open(data[:cut])
            wire, data = again, data[cut:]
        wire.hear()
        await asyncio.sleep(0)
        for size in cuts:
            piece, data = data[:size], data[size:]
            if piece:
                wire.connection.data_received(piece)
        if data:
            wire.connection.data_received(data)
        pings = [ping.data for ping in wire.answered()]
        await wire.lose()
        return wire.heard, pings

    heard, pings = asyncio.run(talk())
    assert heard == ["".join(m) if isinstance(m, tuple) else m for m in messages if not isinstance(m, int)]
    expected = []
    for message in messages:
        if isinstance(message, int):
            expected.append(b"%d" % message)
        elif isinstance(message, tuple):
            expected += [b"in between"] * (len(message) - 1)
    assert pings == expected


async def test_a_short_message_is_heard_in_the_turn_in_which_it_came_and_the_library_never_sees_it(monkeypatch):
    wire = await Wire().open()
    wire.hear()
    await asyncio.sleep(0)
    monkeypatch.setattr(wire.connection.protocol, "receive_data", None)
    wire.connection.data_received(bytes_of(wire.server, "one") + bytes_of(wire.server, b"two"))
    assert wire.heard == ["one", b"two"]
    await wire.lose()


async def test_what_comes_before_anybody_hears_waits_and_stops_the_reading_when_it_is_much():
    wire = await Wire().open()
    texts = [str(number) for number in range(MAX_WAITING)]
    for text in texts:
        assert wire.transport.calls == []
        wire.connection.data_received(bytes_of(wire.server, text))
    assert wire.transport.calls == ["pause"]
    wire.hear()
    await asyncio.sleep(0)
    assert wire.heard == texts
    assert wire.transport.calls == ["pause", "resume"]
    await wire.lose()


async def test_text_that_is_no_utf8_is_left_out():
    wire = await Wire().open()
    wire.hear()
    await asyncio.sleep(0)
    wire.server.send_text(b"\xff\xfe")
    wire.connection.data_received(wire.sent() + bytes_of(wire.server, "good"))
    assert wire.heard == ["good"]
    await wire.lose()


async def test_a_frame_that_breaks_the_protocol_ends_the_connection_though_good_ones_came_before():
    wire = await Wire().open()
    hearing = wire.hear()
    await asyncio.sleep(0)
    # A continuation of nothing, then what would be a message.
    wire.connection.data_received(bytes_of(wire.server, "good") + b"\x80\x01x" + bytes_of(wire.server, "late"))
    wire.connection.data_received(bytes_of(wire.server, "later"))
    assert wire.heard == ["good"]
    wire.connection.connection_lost(None)
    with pytest.raises(ConnectionClosedError):
        await hearing


async def test_bytes_in_the_middle_of_a_frame_are_no_frame_whatever_they_look_like():
    for size in (1, 2, 3, 4, 8):
        wire = await Wire().open()
        wire.hear()
        await asyncio.sleep(0)
        data = bytes_of(wire.server, LIKE_FRAMES)
        wire.connection.data_received(data[:size])
        wire.connection.data_received(data[size:])
        assert wire.heard == [LIKE_FRAMES]
        await wire.lose()


async def test_a_frame_that_begins_with_the_handshakes_answer_is_read_on():
    data = bytes_of((await Wire().open()).server, LIKE_FRAMES)
    wire = await Wire().open(data[:4])
    wire.hear()
    await asyncio.sleep(0)
    wire.connection.data_received(data[4:])
    assert wire.heard == [LIKE_FRAMES]
    await wire.lose()


async def test_a_new_message_inside_of_one_in_parts_ends_the_connection():
    wire = await Wire().open()
    hearing = wire.hear()
    await asyncio.sleep(0)
    wire.connection.data_received(b"\x01\x01x")
    wire.connection.data_received(b"\x81\x01y")
    wire.connection.connection_lost(None)
    with pytest.raises(ConnectionClosedError, match="1002"):
        await hearing
    assert wire.heard == []


async def test_masked_frames_and_compressed_ones_are_refused():
    for frame in (b"\x81\x83abcd123", b"\xc1\x01x"):
        wire = await Wire().open()
        hearing = wire.hear()
        await asyncio.sleep(0)
        wire.connection.data_received(frame)
        wire.connection.connection_lost(None)
        with pytest.raises(ConnectionClosedError):
            await hearing
        assert wire.heard == []


async def test_a_message_larger_than_allowed_is_refused_whole_and_in_parts():
    for message in ("x" * 200_001, ("x" * 100_000, "x" * 100_001)):
        wire = await Wire(max_bytes=200_000).open()
        hearing = wire.hear()
        await asyncio.sleep(0)
        wire.connection.data_received(bytes_of(wire.server, message))
        wire.connection.connection_lost(None)
        with pytest.raises(ConnectionClosedError, match="1009"):
            await hearing
        assert wire.heard == []


async def test_hearing_ends_quietly_when_the_server_closes_as_it_should():
    wire = await Wire().open()
    hearing = wire.hear()
    await asyncio.sleep(0)
    last = bytes_of(wire.server, "last")
    wire.server.send_close(1000)
    wire.connection.data_received(last + wire.sent())
    # RFC 6455 section 1.4: what comes after a close frame is discarded.
    wire.connection.data_received(b"\x81\x04late")
    wire.connection.connection_lost(None)
    await hearing
    assert wire.heard == ["last"]


async def test_a_fault_of_the_hearer_breaks_the_connection_off_and_comes_out_of_hear():
    wire = await Wire().open()
    heard = []

    def fail(message):
        heard.append(message)
        raise ZeroDivisionError

    hearing = wire.hear(fail)
    await asyncio.sleep(0)
    wire.connection.data_received(bytes_of(wire.server, "one") + bytes_of(wire.server, "two"))
    assert wire.transport.calls[-1] == "abort"
    wire.connection.connection_lost(None)
    with pytest.raises(ZeroDivisionError):
        await hearing
    assert heard == ["one"]

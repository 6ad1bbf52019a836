"""One HTTP connection to an upstream, against sockets on loopback whose every byte the test writes."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams import exchange
from gateway.upstreams.exchange import Connection, NoAnswerError

SECONDS = 5.0
#: Shorter than anybody's patience, long enough for nothing to be slow by chance: only silence is waited for.
SOON = 0.02
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Ends:
    """Our connection, and the other side's reader and writer."""

    def __init__(self, connection, reader, writer):
        self.connection, self.reader, self.writer = connection, reader, writer

    async def asked(self):
        """A request that the other side has read."""
        await self.connection.send(HEAD, b"", SECONDS)
        assert await self.reader.readexactly(len(HEAD)) == HEAD

    async def body(self):
        return b"".join([piece async for piece in pieces_of(self.connection)])

    async def settled(self):
        """What was written here has been read there, or its end has."""
        await until(lambda: self.connection._status or self.connection._reason)

    def reset(self):
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # closes by RST
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def both_ends():
    taken = asyncio.Queue()

    async def take(reader, writer):
        await taken.put((reader, writer))

    async with await asyncio.start_server(take, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        reader, writer = await taken.get()
        yield Ends(connection, reader, writer)
        connection.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    await asyncio.sleep(0)


@pytest.fixture
async def ends():
    async with both_ends() as ends:
        yield ends


async def pieces_of(connection):
    while piece := await connection.piece(SECONDS):
        yield piece


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - the connection tells its state to nobody
            await asyncio.sleep(0)


async def parts(*given):
    for part in given:
        yield part


async def test_a_request_is_answered_and_another_may_follow(ends):
    for _ in range(3):
        await ends.asked()
        ends.writer.write(ANSWER)
        assert await ends.connection.answered(SECONDS) == 200
        assert not ends.connection.is_idle, "its body is unread"
        assert await ends.body() == b"{}"
        assert ends.connection.is_idle


async def test_a_request_goes_out_with_its_body(ends):
    await ends.connection.send(b"head", b"body", SECONDS)
    assert await ends.reader.readexactly(8) == b"headbody"


async def test_a_body_in_pieces_goes_out_in_order(ends):
    await ends.connection.send_pieces(b"head", parts(b"one", b"two"), 6, SECONDS)
    assert await ends.reader.readexactly(10) == b"headonetwo"
    ends.writer.write(ANSWER)
    assert (await ends.connection.answered(SECONDS), await ends.body()) == (200, b"{}")
    assert ends.connection.is_idle


@pytest.mark.parametrize("size_bytes", [5, 7])
async def test_a_body_that_is_not_as_long_as_was_said_is_no_request(ends, size_bytes):
    with pytest.raises(NoAnswerError):
        await ends.connection.send_pieces(b"head", parts(b"one", b"two"), size_bytes, SECONDS)
    assert not ends.connection.is_idle


async def test_the_rest_of_a_body_is_left_out_once_it_is_answered(ends):
    """413: there is no use in sending a gigabyte to whoever has said no."""
    sent = []

    async def pieces():
        for number in range(3):
            if number == 1:
                ends.writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                await ends.settled()
            sent.append(number)
            yield b"x"

    await ends.connection.send_pieces(HEAD, pieces(), 3, SECONDS)
    assert sent == [0, 1]
    assert (await ends.connection.answered(SECONDS), await ends.body()) == (413, b"no")
    assert not ends.connection.is_idle, "the other side waits for the rest"


async def test_an_answer_that_came_before_a_reset_is_read(ends):
    """The server answers and breaks the connection, while the body is still on its way."""
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    await ends.settled()
    ends.reset()
    await until(lambda: ends.connection._transport is None)
    assert (await ends.connection.answered(SECONDS), await ends.body()) == (413, b"no")
    assert not ends.connection.is_idle


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:11\r\n\r\nhello world",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 11\r\n\r\nhello world",
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_answer_may_say_in_several_ways_where_it_ends(ends, answer, at_once):
    await ends.asked()
    for number in range(1 if at_once else len(answer)):
        ends.connection.data_received(answer if at_once else answer[number : number + 1])
    assert (await ends.connection.answered(SECONDS), await ends.body()) == (200, b"hello world")
    assert ends.connection.is_idle


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_can_have_no_body_has_none(ends, status):
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert (await ends.connection.answered(SECONDS), await ends.body()) == (status, b"")
    assert ends.connection.is_idle


async def test_an_answer_that_says_of_no_end_goes_to_the_end_of_the_connection(ends):
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert await ends.connection.answered(SECONDS) == 200
    ends.writer.close()
    assert await ends.body() == b"hello"
    assert not ends.connection.is_idle


async def test_an_answer_that_says_of_no_end_and_is_reset_was_cut(ends):
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
    await ends.settled()
    ends.reset()
    with pytest.raises(NoAnswerError):
        await ends.body()


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
async def test_an_answer_that_ends_early_was_cut(ends, framing):
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhe")
    assert await ends.connection.answered(SECONDS) == 200
    ends.writer.close()
    with pytest.raises(NoAnswerError):
        await ends.body()
    assert not ends.connection.is_idle


async def test_a_connection_that_is_to_be_closed_is_not_used_again(ends):
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
    assert (await ends.connection.answered(SECONDS), await ends.body()) == (200, b"{}")
    assert not ends.connection.is_idle


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x02",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (exchange.MOST_BARE_BYTES + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * (exchange.MOST_BARE_BYTES + 1),
    ],
    ids=["bytes", "two lengths", "negative", "upgrade", "endless head", "endless trailers"],
)
async def test_what_is_no_answer_ends_the_connection(ends, answer):
    await ends.asked()
    ends.writer.write(answer)

    async def read():
        await ends.connection.answered(SECONDS)
        return await ends.body()

    with pytest.raises(NoAnswerError):
        await read()
    assert not ends.connection.is_idle


async def test_an_answer_that_nobody_asked_for_is_nobodys(ends):
    """It would be taken for that of the next request."""
    assert ends.connection.is_idle
    ends.writer.write(ANSWER)
    await until(lambda: not ends.connection.is_idle)


async def test_a_second_answer_to_one_request_is_nobodys(ends):
    await ends.asked()
    ends.writer.write(ANSWER + ANSWER)
    assert (await ends.connection.answered(SECONDS), await ends.body()) == (200, b"{}")
    assert not ends.connection.is_idle


async def test_a_kept_connection_says_by_itself_that_it_is_of_no_use(ends):
    assert ends.connection.is_idle
    ends.writer.close()
    await until(lambda: not ends.connection.is_idle)


async def test_a_reset_is_no_answer(ends):
    await ends.asked()
    reading = asyncio.create_task(ends.connection.answered(SECONDS))
    await asyncio.sleep(0)
    ends.reset()
    with pytest.raises(NoAnswerError):
        await reading
    with pytest.raises(NoAnswerError):
        await ends.connection.send(HEAD, b"", SECONDS)


async def test_silence_is_waited_for_as_long_as_was_said(ends):
    await ends.asked()
    with pytest.raises(NoAnswerError):
        await ends.connection.answered(SOON)
    assert not ends.connection.is_idle, "the answer may come yet"


async def test_a_body_that_stops_is_waited_for_as_long_as_was_said(ends):
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
    assert await ends.connection.answered(SECONDS) == 200
    assert await ends.connection.piece(SECONDS) == b"hello"
    with pytest.raises(NoAnswerError):
        await ends.connection.piece(SOON)


async def test_who_takes_nothing_is_waited_for_as_long_as_was_said(ends):
    ends.writer.transport.pause_reading()
    with pytest.raises(NoAnswerError):
        await ends.connection.send_pieces(HEAD, parts(b"x" * 20_000_000), 20_000_000, SOON)


async def test_a_body_that_waits_for_room_is_sent_whole(ends):
    sent = asyncio.create_task(
        ends.connection.send_pieces(HEAD, parts(b"x" * 10_000_000, b"y" * 10_000_000), 20_000_000, SECONDS)
    )
    assert len(await ends.reader.readexactly(len(HEAD) + 20_000_000)) > 20_000_000
    await sent


async def test_what_nobody_reads_stays_at_the_sender(ends):
    await ends.asked()
    ends.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
    await until(lambda: not ends.connection._is_reading)
    for _ in range(100):
        await asyncio.sleep(0)
    assert ends.connection._unread_bytes < 2 * exchange.MOST_UNREAD_BYTES
    assert len(await ends.body()) == 20_000_000
    assert ends.connection.is_idle


def test_it_works_on_the_loop_that_is_served_by():
    """uvloop's transports are of no class of asyncio's."""
    uvloop = pytest.importorskip("uvloop")

    async def ask():
        async with both_ends() as ends:
            sending = asyncio.create_task(
                ends.connection.send_pieces(HEAD, parts(b"x" * 20_000_000), 20_000_000, SECONDS)
            )
            await ends.reader.readexactly(len(HEAD) + 20_000_000)
            await sending
            ends.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"y" * 3_000_000)
            assert await ends.connection.answered(SECONDS) == 200
            assert len(await ends.body()) == 3_000_000
            assert ends.connection.is_idle
            await ends.asked()
            ends.writer.close()
            with pytest.raises(NoAnswerError):
                await ends.connection.answered(SECONDS)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


class _Transport:
    def __init__(self):
        self.is_aborted = False

    def write(self, data):
        pass

    def abort(self):
        self.is_aborted = True

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


@given(body=st.binary(max_size=200), sizes=st.lists(st.integers(1, 40), max_size=30), cuts=st.lists(st.integers(1, 50)))
def test_a_chunked_answer_is_the_same_however_it_is_cut(body, sizes, cuts):
    wire, left = bytearray(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), body
    for size in [*sizes, len(body) or 1]:
        if left:
            wire += b"%x\r\n%s\r\n" % (len(left[:size]), left[:size])
            left = left[size:]
    wire += b"0\r\n\r\n"

    async def read():
        connection, rest = Connection(), bytes(wire)
        connection.connection_made(_Transport())
        await connection.send(HEAD, b"", SECONDS)
        for cut in cuts:
            if rest[:cut]:
                connection.data_received(rest[:cut])
            rest = rest[cut:]
        if rest:
            connection.data_received(rest)
        assert await connection.answered(SECONDS) == 200
        assert b"".join([piece async for piece in pieces_of(connection)]) == body
        assert connection.is_idle

    asyncio.run(read())

"""One attempt over a real socket on loopback, or over none where the guard says no."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest
from standardwebhooks import Webhook

from gateway.blobs.dialing import dial
from gateway.blobs.sending import MAX_ANSWER_BYTES, GuardedSender
from gateway.outbox import Answer, Delivery, Reason
from gateway.safety import UrlMode, UrlPolicy
from gateway.webhooks.delivery import Deliverer
from gateway.webhooks.signature import secret_text
from tests.fakes.clock import NOON, FrozenClock

SECRET = b"s" * 32
RECEIVER = "203.0.113.7"
UNREACHABLE = Answer(Reason.UNREACHABLE)


class Receiver:
    """A loopback server that keeps what it is sent and answers by script; the dialer leads every address to it."""

    def __init__(self):
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.heads, self.bodies, self.dialled = [], [], []
        self.addresses = {"hooks.lan": [[RECEIVER]]}
        self.port = 0
        self.sent = 0

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
            self.heads.append((head.split(b"\r\n")[0], {name.lower(): value for name, value in fields.items()}))
            self.bodies.append(await reader.readexactly(int(self.heads[-1][1]["content-length"])))
            pieces = self.answer if isinstance(self.answer, list) else [self.answer]
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                self.sent += len(piece)
            if self.answer == b"":
                await asyncio.Event().wait()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the sender left
        finally:
            writer.close()

    async def dial(self, address, port, timeout_seconds):
        self.dialled.append((address, port))
        return await dial("127.0.0.1", self.port, timeout_seconds)

    async def resolve(self, host, _port):
        answers = self.addresses.get(host, [[]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def deliverer(self, mode=UrlMode.PUBLIC, listed=("203.0.113.0/24",), **options):
        policy = UrlPolicy.from_settings(mode, listed)
        sender = GuardedSender(
            policy=lambda: policy,
            resolver=self.resolve,
            dialer=self.dial,
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            clock=FrozenClock(),
        )
        return Deliverer(sender, **options)

    async def send(self, url="http://hooks.lan/in?token=1", body=b'{"a":1}', at=int(NOON), **options):
        return await self.deliverer(**options).send(Delivery(url, "msg_1", at, body, (SECRET,)))


@pytest.fixture
async def receiver():
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def test_a_message_arrives_whole_with_nothing_beside_it(receiver):
    assert await receiver.send() == Answer(Reason.ANSWERED, 204)
    line, fields = receiver.heads[0]
    assert line == b"POST /in?token=1 HTTP/1.1"
    assert fields["host"] == "hooks.lan"
    assert fields["content-type"] == "application/json"
    assert "cookie" not in fields
    assert receiver.bodies == [b'{"a":1}']


async def test_official_library_takes_what_arrives(receiver):
    await receiver.send(at=int(time.time()), body='{"ä":"😀"}'.encode())
    assert Webhook(secret_text(SECRET)).verify(receiver.bodies[0], receiver.heads[0][1]) == {"ä": "😀"}


@pytest.mark.parametrize("status", [200, 301, 302, 307, 308, 404, 410, 500])
async def test_the_status_is_told_and_no_redirect_is_followed(receiver, status):
    receiver.answer = f"HTTP/1.1 {status} X\r\nLocation: http://hooks.lan/other\r\nContent-Length: 0\r\n\r\n".encode()
    assert (await receiver.send()).status == status
    assert len(receiver.heads) == 1


@pytest.mark.parametrize(("field", "seconds"), [("7", 7.0), ("Wed, 18 Jun 2025 12:01:00 GMT", 60.0), ("soon", None)])
async def test_patience_that_is_asked_for_is_told(receiver, field, seconds):
    receiver.answer = f"HTTP/1.1 503 X\r\nRetry-After: {field}\r\nContent-Length: 0\r\n\r\n".encode()
    assert await receiver.send() == Answer(Reason.ANSWERED, 503, seconds)


async def test_no_more_of_an_answer_is_read_than_its_beginning(receiver):
    receiver.answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n", *[b"x" * 65536] * 4000]
    assert await receiver.send() == Answer(Reason.ANSWERED, 200)
    assert receiver.sent < 64 * 1024 * 1024
    assert MAX_ANSWER_BYTES == 4096


async def test_an_answer_that_breaks_off_is_one(receiver):
    receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    assert await receiver.send() == Answer(Reason.ANSWERED, 200)


async def test_a_receiver_that_says_nothing_is_given_up(receiver):
    receiver.answer = b""
    assert await receiver.send(deadline_seconds=0.05) == Answer(Reason.TIMED_OUT)


@pytest.mark.parametrize("answer", [b"not HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_what_is_no_answer_is_none(receiver, answer):
    receiver.answer = answer
    assert await receiver.send() == UNREACHABLE


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1", "168.63.129.16"]
)
async def test_a_name_that_leads_inside_by_now_is_not_dialled(receiver, address):
    receiver.addresses["hooks.lan"] = [[RECEIVER], [address], [RECEIVER, address], [RECEIVER]]
    told = [await receiver.send() for _ in range(4)]
    assert told == [Answer(Reason.ANSWERED, 204), UNREACHABLE, UNREACHABLE, Answer(Reason.ANSWERED, 204)]
    assert receiver.dialled == [(RECEIVER, 80)] * 2


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "https://169.254.169.254/", "file:///etc/passwd", "https://nobody.example.net/", "no url"],
)
async def test_a_url_that_is_refused_by_the_policy_of_now_is_not_dialled(receiver, url):
    assert await receiver.send(url) == UNREACHABLE
    assert receiver.dialled == []


async def test_nobody_is_called_where_urls_are_switched_off(receiver):
    assert await receiver.send(mode=UrlMode.OFF) == UNREACHABLE
    assert receiver.dialled == []


async def test_a_proxy_in_the_environment_is_not_asked(receiver, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://198.51.100.1:3128")
        monkeypatch.setenv(name.lower(), "http://198.51.100.1:3128")
    await receiver.send()
    assert receiver.dialled == [(RECEIVER, 80)]

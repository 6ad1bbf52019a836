"""One PUT over a real TLS socket on loopback, or over none where the guard says no."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from functools import cache
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.blobs.dialing import dial
from gateway.blobs.fetch import tls_context
from gateway.blobs.putting import UrlPutter
from gateway.blobs.sending import GuardedSender
from gateway.delivering import Answer, Reason, Upload
from gateway.interfaces import Blob
from gateway.safety import UrlMode, UrlPolicy
from tests.fakes.blobs import MemoryBlobs
from tests.fakes.clock import FrozenClock

TLS = Path(__file__).with_name("tls")
PUBLIC = "93.184.215.14"
HOST = "files.example.com"
URL = f"https://{HOST}/results/one.png?X-Amz-Signature=secret"
UNREACHABLE = Answer(Reason.UNREACHABLE)
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


@cache
def trusting(ca):
    """Loading all of the system's authorities takes a tenth of a second."""
    return tls_context(TLS / ca if ca else None)


class Receiver:
    """A loopback server that keeps what it is sent and answers by script; the dialer leads every address to it."""

    def __init__(self):
        self.answer = CREATED
        #: Answers before it has the body.
        self.is_hasty = False
        self.heads, self.bodies, self.dialled = [], [], []
        self.addresses = {HOST: [[PUBLIC]]}
        self.port = 0
        self.sent = 0

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
            self.heads.append((head.split(b"\r\n")[0], {name.lower(): value for name, value in fields.items()}))
            if not self.is_hasty:
                self.bodies.append(await reader.readexactly(int(self.heads[-1][1]["content-length"])))
            for piece in self.answer if isinstance(self.answer, list) else [self.answer]:
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


class Chunked(MemoryBlobs):
    """Gives bytes in chunks, and counts how many were asked for."""

    def __init__(self):
        super().__init__(FrozenClock())
        self.chunks = 0

    async def stream(self, blob_hash, start=0, end=None):
        async for data in super().stream(blob_hash, start, end):
            for place in range(0, len(data), 65_536):
                self.chunks += 1
                yield data[place : place + 65_536]


class Bench:
    def __init__(self, receiver):
        self.receiver = receiver
        self.blobs = Chunked()

    async def put(self, data=b"picture", url=URL, *, mode=UrlMode.PUBLIC, listed=(), ca="ca.pem", **options):
        blob = self.blobs.put(data)
        policy = UrlPolicy.from_settings(mode, listed)
        sender = GuardedSender(
            policy=lambda: policy,
            resolver=self.receiver.resolve,
            dialer=self.receiver.dial,
            tls=trusting(ca),
            clock=FrozenClock(),
        )
        return await UrlPutter(self.blobs, sender, **options).put(
            Upload(url, blob.hash, blob.size_bytes, "image/png", "one.png")
        )


@pytest.fixture
async def bench():
    receiver = Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    yield Bench(receiver)
    server.close()


async def test_a_file_arrives_whole_with_nothing_beside_it(bench):
    assert await bench.put() == Answer(Reason.ANSWERED, 201)
    line, fields = bench.receiver.heads[0]
    assert line == b"PUT /results/one.png?X-Amz-Signature=secret HTTP/1.1"
    assert fields == {
        "host": HOST,
        "user-agent": "comfygate",
        "content-type": "image/png",
        "content-length": "7",
        "accept-encoding": "identity",
        "connection": "close",
    }
    assert bench.receiver.bodies == [b"picture"]
    assert bench.receiver.dialled == [(PUBLIC, 443)]


async def test_a_large_file_goes_in_chunks(bench):
    data = bytes(range(256)) * 8192
    assert (await bench.put(data)).status == 201
    assert hashlib.sha256(bench.receiver.bodies[0]).digest() == hashlib.sha256(data).digest()
    assert bench.blobs.chunks == 32


@pytest.mark.parametrize("status", [200, 301, 307, 403, 404, 500])
async def test_the_status_is_told_and_no_redirect_is_followed(bench, status):
    bench.receiver.answer = (
        f"HTTP/1.1 {status} X\r\nLocation: https://{HOST}/other\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert (await bench.put()).status == status
    assert len(bench.receiver.heads) == 1


async def test_a_refusal_that_comes_before_the_whole_file_is_heard(bench):
    bench.receiver.is_hasty = True
    bench.receiver.answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    answer = await bench.put(bytes(8 * 1024 * 1024))
    # Whether the answer is read before the connection breaks is for the network to say; it is never a success.
    assert answer in (Answer(Reason.ANSWERED, 403), UNREACHABLE)


async def test_patience_that_is_asked_for_is_told(bench):
    bench.receiver.answer = b"HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    assert await bench.put() == Answer(Reason.ANSWERED, 503, 7.0)


async def test_of_a_long_answer_a_little_is_read(bench):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    bench.receiver.answer = [head, *[bytes(65_536)] * 1000]
    assert (await bench.put()).status == 200
    assert bench.receiver.sent < 1000 * 65_536 / 2  # what lay in sockets' buffers


async def test_one_that_never_answers_is_left(bench):
    bench.receiver.answer = b""
    assert await bench.put(patience_seconds=0.2) == Answer(Reason.TIMED_OUT)


async def test_a_name_that_leads_elsewhere_by_now_is_not_dialled(bench):
    bench.receiver.addresses[HOST] = [[PUBLIC], ["10.0.0.7"]]
    assert (await bench.put()).status == 201
    with capture_logs() as lines:
        assert await bench.put() == UNREACHABLE
    assert bench.receiver.dialled == [(PUBLIC, 443)]
    assert "refused" in lines[0]["verdict"]
    assert "secret" not in str(lines)


@pytest.mark.parametrize("addresses", [[], ["127.0.0.1"], ["169.254.169.254"], [PUBLIC, "192.168.1.1"], ["::1"]])
async def test_no_other_address_is_dialled(bench, addresses):
    bench.receiver.addresses[HOST] = [addresses]
    assert await bench.put() == UNREACHABLE
    assert bench.receiver.dialled == []


@pytest.mark.parametrize("url", [f"http://{HOST}/x", "https://10.0.0.7/x", "ftp://files.example.com/x", "nonsense"])
async def test_what_was_never_to_be_called_is_not(bench, url):
    assert await bench.put(url=url, listed=(HOST,)) == UNREACHABLE
    assert bench.receiver.dialled == []


@pytest.mark.parametrize(("host", "ca"), [("wrong.example.com", "ca.pem"), (HOST, None)])
async def test_a_certificate_that_is_wrong_or_unknown_gets_no_file(bench, host, ca):
    bench.receiver.addresses[host] = [[PUBLIC]]
    assert await bench.put(url=f"https://{host}/x", ca=ca) == UNREACHABLE
    assert bench.receiver.heads == []


async def test_a_file_that_is_gone_is_said_to_be_gone(bench):
    bench.blobs.put = lambda data: Blob("0" * 64, len(data))
    assert await bench.put() == Answer(Reason.EXPIRED)


async def test_a_file_that_ends_early_is_no_success(bench):
    bench.blobs.put = lambda data: MemoryBlobs.put(bench.blobs, data)
    original = bench.blobs.stream

    async def short(blob_hash, start=0, end=None):
        async for chunk in original(blob_hash, start, end):
            yield chunk[:-1]

    bench.blobs.stream = short
    assert await bench.put() == Answer(Reason.EXPIRED)
    assert bench.receiver.bodies == []

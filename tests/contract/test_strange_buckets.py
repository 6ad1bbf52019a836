"""Against a server that answers what it is told to: what no S3 service says. ``test_bucket.py`` asks real ones."""

import socket
import socketserver
import ssl
import threading
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.errors import StorageUnreachableError
from gateway.object_url import parse_object_url
from gateway.objects.s3 import Pace, S3Bucket
from gateway.objects.session import open_client
from tests.tools.object_servers import know_us

TLS = Path(__file__).resolve().parents[1] / "unit" / "blobs" / "tls"
HOST = "files.example.com"
PACE = Pace(multipart_from_bytes=6, part_bytes=6, wait_seconds=(0.01,), give_up_seconds=0.02)
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\n\r\n<html><body>in</body></html>"[:-2]
NO_DATE = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: yesterday\r\nContent-Length: 0\r\n\r\n'
HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 12\r\n\r\n<A><B><C>one"
SENT_ON = b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n<Error><Code>AccessDenied</Code></Error>\n"
WHOLE = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: Wed, 18 Jun 2025 12:01:00 GMT\r\nContent-Length: 5\r\n\r\n'


class Server(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes."""

    daemon_threads = True
    answer = b""
    requests = 0


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            first = self.rfile.readline()
            self.server.requests += bool(first)
            fields = dict(line.lower().split(b": ", 1) for line in iter(self.rfile.readline, b"\r\n"))
            self.rfile.read(int(fields.get(b"content-length", 0)))
            answer = self.server.answer
            self.wfile.write(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if first.startswith(b"HEAD") else answer)
        except (ConnectionError, ssl.SSLError):
            pass  # who asks has left

    def finish(self):
        with suppress(ConnectionError, ssl.SSLError):
            super().finish()


@contextmanager
def running(tls=None):
    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def plain():
    """The server, and a client of it: to make one takes a third of a second."""
    with running() as server, pytest.MonkeyPatch.context() as patch:
        know_us(patch)
        place = parse_object_url(f"s3://faces/p?endpoint=http://127.0.0.1:{server.server_address[1]}", setting="X")
        yield server, S3Bucket(place, open_client(place, connections=4), PACE)


@pytest.fixture
def answering(plain):
    server, bucket = plain

    def answering(answer):
        server.answer, server.requests = answer, 0
        bucket._troubles._by_kind.clear()  # of tests before
        return bucket, server

    return answering


async def put(bucket, folder, data):
    path = folder / "file"
    path.write_bytes(data)
    await bucket.put("k", path)


async def listed(bucket):
    return [found async for found in bucket.listed()]


async def read(bucket, *span):
    return b"".join([chunk async for chunk in bucket.stream("k", *span)])


@pytest.mark.parametrize("answer", [PAGE, NO_DATE, HALF, SENT_ON], ids=["page", "no date", "half", "sent on"])
async def test_what_is_no_answer_of_such_a_service_is_told_and_never_believed(answer, tmp_path, answering):
    bucket, server = answering(answer)
    for work in (
        lambda: bucket.look("k"),
        lambda: listed(bucket),
        lambda: put(bucket, tmp_path, b"small"),
        lambda: put(bucket, tmp_path, b"in parts"),
        lambda: bucket.delete("k"),
    ):
        with pytest.raises(StorageUnreachableError):
            await work()
    # Nobody who sends us on is followed, nor asked where to.
    assert server.requests < 30


@pytest.mark.parametrize("span", [(), (1, 3)])
async def test_nothing_is_read_of_what_no_such_service_answers(span, answering):
    bucket, _ = answering(PAGE)
    with pytest.raises(StorageUnreachableError):
        await read(bucket, *span)


async def test_what_it_was_that_answered_is_told(answering):
    bucket, _ = answering(PAGE)
    with pytest.raises(StorageUnreachableError) as told:
        await bucket.look("k")
    assert told.value.reason == "what answers there is no S3 service, or not all of the time (KeyError)"
    assert not told.value.is_refusal


async def test_it_is_remembered_what_does_not_work_until_it_does(answering, tmp_path):
    bucket, server = answering(PAGE)
    with pytest.raises(StorageUnreachableError):
        await bucket.look("k")
    assert (bucket.trouble().reason.startswith("what answers there"), bucket.trouble().is_refusal) == (True, False)
    server.answer = REFUSED
    with pytest.raises(StorageUnreachableError):
        await put(bucket, tmp_path, b"small")
    assert (bucket.trouble().reason, bucket.trouble().is_refusal) == ("PutObject: AccessDenied (HTTP 403)", True)
    server.answer = WHOLE
    await bucket.look("k")
    # Somebody answers; that he takes what is put has not been seen.
    assert bucket.trouble().reason == "PutObject: AccessDenied (HTTP 403)"
    await put(bucket, tmp_path, b"small")
    assert bucket.trouble() is None


@pytest.fixture
async def trusting(monkeypatch):
    """Buckets on a server with a certificate of an authority that nobody knows, under its name."""
    look_up = socket.getaddrinfo

    def here(host, *arguments, **options):
        return look_up("127.0.0.1" if host == HOST else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    know_us(monkeypatch)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running(context))
        server.answer = WHOLE

        async def open_it(ca_file):
            place = parse_object_url(f"s3://faces/p?endpoint=https://{HOST}:{server.server_address[1]}", setting="X")
            bucket = await S3Bucket.open(place, ca_file=ca_file, pace=PACE)
            stack.push_async_callback(bucket.close)
            return bucket, server

        yield open_it


async def test_an_authority_of_the_operators_own_is_trusted_besides(trusting):
    bucket, _ = await trusting(TLS / "ca.pem")
    assert (await bucket.look("k")).size_bytes == 5
    context = bucket._client._endpoint.http_session._manager.connection_pool_kw["ssl_context"]
    assert context.cert_store_stats()["x509_ca"] > 1  # those that everybody trusts as well


async def test_a_certificate_of_nobody_known_is_refused_and_that_is_told(trusting):
    bucket, server = await trusting(None)
    with pytest.raises(StorageUnreachableError) as told:
        await bucket.look("k")
    assert told.value.reason == "SSLError CERTIFICATE_VERIFY_FAILED"
    assert server.requests == 0

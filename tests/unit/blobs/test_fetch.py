import asyncio
import gzip
import ssl
from pathlib import Path

import httpcore2
import pytest
from structlog.testing import capture_logs

from gateway.audit import MediaKind
from gateway.blobs.dialing import dial
from gateway.blobs.fetch import FetchLimits, UrlFetcher, tls_context
from gateway.blobs.local import LocalBlobs
from gateway.errors import InvalidInputError, SourceUnreachableError, TooLargeError, UnsupportedMediaError
from gateway.safety import UNREACHABLE, UrlMode, UrlPolicy

TLS = Path(__file__).parent / "tls"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 200
CAPS = {MediaKind.IMAGE: 100_000, MediaKind.GIF: 200_000}
FILES, OTHER = "203.0.113.7", "203.0.113.8"
ADDRESSES = {"files.lan": [FILES], "other.lan": [OTHER], "files.example.com": [FILES], "wrong.example.com": [FILES]}
ADDRESSES |= {"inside.lan": ["10.0.0.1"], "metadata.lan": ["169.254.169.254"], "localhost": ["127.0.0.1"]}


def answer(body=PNG, status="200 OK", **headers):
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Origin:
    """A loopback server that sends scripted bytes, and the dialler that leads every address to it."""

    def __init__(self):
        self.answers = []
        self.requests = []
        self.dialled = []
        self.port = 0
        self.serving = set()

    def hang_up(self):
        for task in self.serving:
            task.cancel()

    async def serve(self, reader, writer):
        self.serving.add(asyncio.current_task())
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            script = self.answers.pop(0)
            if isinstance(script, bytes):
                writer.write(script)
                await writer.drain()
            else:
                async for piece in script:
                    writer.write(piece)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, as it should in half of these tests
        finally:
            writer.close()

    async def dial(self, address, port, timeout_seconds):
        self.dialled.append((address, port))
        return await dial("127.0.0.1", self.port, timeout_seconds)


class Bench:
    """A fetcher, the origin it fetches from, and the folder it stores to."""

    def __init__(self, folder, origin, blobs):
        self.origin = origin
        self.blobs = blobs
        self.folder = folder
        self.seconds = 0.0
        self.seconds_per_look = 0.0

    def fetcher(self, tls=None, **limits):
        async def resolve(host, _port):
            return ADDRESSES.get(host, [])

        policy = UrlPolicy.from_settings(UrlMode.PUBLIC, ("203.0.113.0/24",))
        return UrlFetcher(
            self.blobs,
            policy=lambda: policy,
            resolver=resolve,
            tls=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            dialer=self.origin.dial,
            limits=FetchLimits(**limits),
            monotonic=self.monotonic,
        )

    def monotonic(self):
        self.seconds += self.seconds_per_look
        return self.seconds

    async def fetch(self, *answers, url="http://files.lan/a.png", caps=CAPS, tls=None, https_only=False, **limits):
        self.origin.answers = list(answers)
        fetcher = self.fetcher(tls, **limits)
        checked = fetcher.check(url, field="image_url", https_only=https_only)
        return await fetcher.fetch(checked, caps=caps, field="image_url", https_only=https_only)

    async def refuses(self, error, *answers, **options):
        with pytest.raises(error) as caught:
            await self.fetch(*answers, **options)
        assert caught.value.field == "image_url"
        assert self.files() == []
        return caught.value.message

    async def unreachable(self, *answers, **options):
        assert await self.refuses(SourceUnreachableError, *answers, **options) == UNREACHABLE

    def files(self):
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture
async def bench(tmp_path):
    origin = Origin()
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    blobs = LocalBlobs(tmp_path, free=lambda _folder: 10**12)
    await blobs.prepare()
    yield Bench(tmp_path, origin, blobs)
    # Not "async with": since 3.12 that waits for the handlers, and an origin that never answers never ends.
    server.close()
    origin.hang_up()
    await blobs.close()


# ------------------------------------------------------------------------------------------------------------- it works


async def test_file_is_stored_with_what_its_bytes_say_it_is(bench):
    fetched = await bench.fetch(answer(Content_Type="application/octet-stream"))
    assert bench.blobs.path(fetched.blob.hash).read_bytes() == PNG
    assert (fetched.blob.size_bytes, fetched.media_type.content_type) == (len(PNG), "image/png")
    assert bench.origin.dialled == [(FILES, 80)]


async def test_request_is_plain_and_carries_nothing_of_ours(bench, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    await bench.fetch(answer(Set_Cookie="a=b"), url="http://files.lan:8080/a%20b?x=1#frag")
    await bench.fetch(answer(), url="http://files.lan:8080/a%20b?x=1#frag")
    first, second = bench.origin.requests
    assert first == second
    lines = first.decode().split("\r\n")
    assert lines[0] == "GET /a%20b?x=1 HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in lines[1:] if line}
    assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert "Host: files.lan:8080" in lines
    assert "Accept-Encoding: identity" in lines


async def test_chunked_body_and_body_that_ends_with_the_connection_are_whole(bench):
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PNG), PNG)
    fetched = await bench.fetch(answer(chunked, Transfer_Encoding="chunked"))
    assert fetched.blob.size_bytes == len(PNG)
    fetched = await bench.fetch(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
    assert fetched.blob.size_bytes == len(PNG)


async def test_redirects_are_followed_three_times_each_hop_resolved_and_dialled_anew(bench):
    fetched = await bench.fetch(
        answer(b"", "302 Found", Location="/b"),
        answer(b"", "307 Temporary Redirect", Location="//other.lan/c"),
        answer(b"", "301 Moved", Location="http://files.lan:8080/d"),
        answer(),
    )
    assert fetched.blob.size_bytes == len(PNG)
    assert bench.origin.dialled == [(FILES, 80), (FILES, 80), (OTHER, 80), (FILES, 8080)]
    assert all(request.startswith(b"GET ") for request in bench.origin.requests)
    assert not any(b"Referer" in request or b"Authorization" in request for request in bench.origin.requests)


# ------------------------------------------------------------------------------------------------------------ redirects


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://10.0.0.1/",
        "//169.254.169.254/",
        "http://[::1]/",
        "http://inside.lan/",
        "http://metadata.lan/",
        "file:///etc/passwd",
        "http://localhost:6379/",
        "http://metadata.google.internal/",
        "http://user@files.lan/",
        "gopher://files.lan/",
    ],
)
async def test_redirect_to_a_bad_place_is_not_dialled(bench, location):
    await bench.unreachable(answer(b"", "302 Found", Location=location))
    assert bench.origin.dialled == [(FILES, 80)]


async def test_fourth_redirect_and_a_loop_end_it(bench):
    await bench.unreachable(*[answer(b"", "302 Found", Location="/a.png")] * 4, answer())
    assert len(bench.origin.dialled) == 4


@pytest.mark.parametrize("status", ["300 Multiple Choices", "304 Not Modified", "305 Use Proxy"])
async def test_other_3xx_and_redirects_without_location_are_errors(bench, status):
    await bench.unreachable(answer(b"", status, Location="/b"))
    await bench.unreachable(answer(b"", "302 Found"))


async def test_refresh_is_no_redirect(bench):
    fetched = await bench.fetch(answer(Refresh="0; url=http://other.lan/"))
    assert fetched.blob.size_bytes == len(PNG)
    assert len(bench.origin.dialled) == 1


# --------------------------------------------------------------------------------------------------------- bad answers


@pytest.mark.parametrize(
    "status",
    ["201 Created", "204 No Content", "206 Partial Content", "400 Bad", "404 Not Found", "418 x", "500 x", "503 x"],
)
async def test_other_statuses_are_no_file(bench, status):
    await bench.unreachable(answer(b"" if status.startswith("204") else PNG, status))


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        answer(b""),
        b"HTTP/1.1 200 OK\r\n\r\n",
        answer(PNG, Content_Length=len(PNG) + 1),
        answer(PNG[:100], Content_Length=1000),
        answer(PNG, Content_Length="x"),
        answer(b"ffff\r\n" + PNG, Transfer_Encoding="chunked"),
        answer(b"zz\r\n", Transfer_Encoding="chunked"),
        answer(PNG, Transfer_Encoding="gzip"),
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200 * 1024 + b"\r\n\r\n" + PNG,
    ],
    ids=lambda script: repr(script[:40]),
)
async def test_broken_and_cut_off_answers_are_unreachable(bench, script):
    await bench.unreachable(script)


async def test_body_beyond_its_announced_length_is_not_taken(bench):
    fetched = await bench.fetch(answer(PNG + b"<html>", Content_Length=len(PNG)))
    assert fetched.blob.size_bytes == len(PNG)


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><html>" + b" " * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"#EXTM3U\n",
        b"ffconcat version 1.0\nfile 'a'\n",
        b"MZ",
    ],
)
async def test_bytes_of_another_kind_are_refused(bench, body):
    await bench.refuses(UnsupportedMediaError, answer(body, Content_Type="image/png"))


async def test_kind_that_the_field_does_not_take_is_refused(bench):
    message = await bench.refuses(UnsupportedMediaError, answer(b"GIF89a" + b"\0" * 99), caps={MediaKind.IMAGE: 1000})
    assert "JPEG" in message


@pytest.mark.parametrize(
    "declared", ["text/html", "TEXT/HTML; charset=utf-8", "image/svg+xml", "application/xhtml+xml"]
)
async def test_picture_declared_as_markup_is_refused(bench, declared):
    await bench.refuses(UnsupportedMediaError, answer(PNG + b"<html>", Content_Type=declared))


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br", "identity, gzip"])
async def test_encoded_body_is_refused_and_never_decoded(bench, encoding):
    bomb = gzip.compress(gzip.compress(b"\0" * 5_000_000))
    for body in (bomb, PNG):
        assert "compressed" in await bench.refuses(UnsupportedMediaError, answer(body, Content_Encoding=encoding))


async def test_identity_encoding_is_none(bench):
    assert (await bench.fetch(answer(Content_Encoding="identity"))).blob.size_bytes == len(PNG)


# --------------------------------------------------------------------------------------------------------------- limits


async def test_announced_size_over_the_cap_is_refused_at_once_naming_the_limit(bench):
    sent = []

    async def script():
        yield answer(b"", Content_Length=10**9)
        sent.append(True)

    message = await bench.refuses(TooLargeError, script(), caps={MediaKind.IMAGE: 25 * 1024**2})
    assert "25 MiB" in message


async def test_cap_is_that_of_the_kind_found(bench):
    await bench.refuses(TooLargeError, answer(PNG + b"\0" * 150_000))
    assert (await bench.fetch(answer(b"GIF89a" + b"\0" * 150_000))).blob.size_bytes == 150_006


async def test_endless_body_is_cut_at_the_cap(bench):
    async def endless():
        yield b"HTTP/1.1 200 OK\r\n\r\n" + PNG
        while True:
            yield b"\0" * 10_000

    await bench.refuses(TooLargeError, endless())


async def test_exactly_the_cap_fits_and_one_byte_more_does_not(bench):
    caps = {MediaKind.IMAGE: len(PNG)}
    assert (await bench.fetch(answer(), caps=caps)).blob.size_bytes == len(PNG)
    other = PNG + b"\0"
    await bench.blobs.discard((await bench.fetch(answer(b"GIF89a..."), caps={MediaKind.GIF: 99})).blob)
    with pytest.raises(TooLargeError):
        await bench.fetch(b"HTTP/1.1 200 OK\r\n\r\n" + other, caps=caps)


async def drip(*pieces):
    """Sends the pieces and then nothing, for ever."""
    for piece in pieces:
        yield piece
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "pieces",
    [
        (b"",),
        (b"HTTP/1.1 200 OK\r\nX-A: b\r\n",),
        (answer(PNG, Content_Length=9999),),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50,),
    ],
)
async def test_deadline_ends_whatever_drips(bench, pieces):
    await bench.unreachable(drip(*pieces), image_deadline_seconds=0.05)


async def test_whoever_asks_for_less_time_gets_less(bench):
    bench.origin.answers = [drip(b"")]
    fetcher = bench.fetcher(image_deadline_seconds=60, video_deadline_seconds=60)
    checked = fetcher.check("http://files.lan/a.png", field="image_url")
    async with asyncio.timeout(10):
        with pytest.raises(SourceUnreachableError):
            await fetcher.fetch(checked, caps=CAPS, field="image_url", deadline_seconds=0.02)


async def test_nobody_gets_more_time_than_there_is(bench):
    bench.origin.answers = [drip(b"")]
    fetcher = bench.fetcher(image_deadline_seconds=0.02)
    checked = fetcher.check("http://files.lan/a.png", field="image_url")
    async with asyncio.timeout(10):
        with pytest.raises(SourceUnreachableError):
            await fetcher.fetch(checked, caps=CAPS, field="image_url", deadline_seconds=60)


@pytest.mark.parametrize("name", ["inside.lan", "metadata.lan", "localhost", "nowhere.lan"])
async def test_what_is_called_later_is_looked_up_now_and_not_dialled(bench, name):
    fetcher = bench.fetcher()
    await fetcher.require_public(fetcher.check("https://files.lan/hook", field="hook"), field="hook")
    with pytest.raises(SourceUnreachableError) as refused:
        await fetcher.require_public(fetcher.check(f"https://{name}/hook", field="hook"), field="hook")
    assert (refused.value.field, refused.value.message) == ("hook", UNREACHABLE)
    assert bench.origin.dialled == []


async def test_what_is_called_later_need_not_be_resolved_now(bench):
    async def nobody_answers(_host, _port):
        raise TimeoutError

    fetcher = bench.fetcher()
    fetcher._resolver = nobody_answers
    checked = fetcher.check("https://files.lan/hook", field="hook")
    await fetcher.require_public(checked, field="hook")
    with pytest.raises(SourceUnreachableError):
        await fetcher.fetch(checked, caps=CAPS, field="hook")
    assert bench.origin.dialled == []


async def test_endless_early_hints_end_at_the_deadline(bench):
    async def hints():
        while True:
            yield b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            await asyncio.sleep(0)

    await bench.unreachable(hints(), image_deadline_seconds=0.05)


async def test_silence_ends_before_the_deadline(bench):
    await bench.unreachable(drip(answer(PNG, Content_Length=9999)), slow_start_seconds=0.02, image_deadline_seconds=60)


async def test_body_slower_than_the_least_rate_is_given_up_after_its_slow_start(bench):
    async def slow():
        yield answer(PNG, Content_Length=9999)
        while True:
            yield b"\0"
            await asyncio.sleep(0)

    bench.seconds_per_look = 11.0
    await bench.unreachable(slow())


@pytest.mark.parametrize("ends", ["deadline", "cancel"])
async def test_whoever_stalls_in_the_handshake_is_hung_up_on(bench, ends):
    """A connection that nobody closes would be kept for ever: the other side need not even answer."""
    connected, hung_up = asyncio.Event(), asyncio.Event()

    async def stall(reader, writer):
        connected.set()
        while await reader.read(4096):
            pass
        hung_up.set()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    bench.origin.port = server.sockets[0].getsockname()[1]
    fetcher = bench.fetcher()
    checked = fetcher.check("https://files.example.com/a.png", field="image_url")
    seconds = 0.05 if ends == "deadline" else 60
    fetching = asyncio.create_task(
        fetcher.fetch(checked, caps=CAPS, field="image_url", deadline_seconds=seconds), name="fetching"
    )
    async with asyncio.timeout(10):
        await connected.wait()
        if ends == "cancel":
            fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        await hung_up.wait()
    server.close()


async def test_video_has_the_longer_deadline(bench):
    caps = {MediaKind.VIDEO: 1000}
    await bench.unreachable(drip(b""), caps=caps, image_deadline_seconds=60, video_deadline_seconds=0.02)


# ------------------------------------------------------------------------------------------------- who is on the line


async def test_refused_connection_reads_like_a_blocked_address(bench):
    bench.origin.port = 1
    await bench.unreachable()
    assert bench.origin.dialled == [(FILES, 80)]


async def test_failing_dialler_of_any_sort_is_unreachable(bench):
    for error in (httpcore2.ConnectTimeout(), httpcore2.ConnectError(), OSError(), TimeoutError()):

        async def fail(*_arguments, error=error):
            raise error

        bench.origin.dial = fail
        await bench.unreachable()


def tls_server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / certificate, TLS / "server.key")
    return context


async def over_tls(bench, certificate, url, tls):
    server = await asyncio.start_server(bench.origin.serve, "127.0.0.1", 0, ssl=tls_server_context(certificate))
    bench.origin.port = server.sockets[0].getsockname()[1]
    try:
        return await bench.fetch(answer(), url=url, tls=tls)
    finally:
        server.close()


async def test_certificate_is_checked_against_the_name_and_ca_file_is_trusted(bench):
    fetched = await over_tls(bench, "server.pem", "https://files.example.com/a.png", tls_context(TLS / "ca.pem"))
    assert fetched.blob.size_bytes == len(PNG)
    assert bench.origin.dialled == [(FILES, 443)]


@pytest.mark.parametrize(
    ("certificate", "host", "ca_file"),
    [
        ("server.pem", "wrong.example.com", TLS / "ca.pem"),
        ("expired.pem", "files.example.com", TLS / "ca.pem"),
        ("server.pem", "files.example.com", None),
    ],
)
async def test_wrong_expired_and_unknown_certificates_are_unreachable(bench, certificate, host, ca_file):
    with pytest.raises(SourceUnreachableError) as caught:
        await over_tls(bench, certificate, f"https://{host}/a.png", tls_context(ca_file))
    assert caught.value.message == UNREACHABLE
    assert bench.origin.requests == []


async def test_https_only_refuses_a_hop_to_http(bench):
    with pytest.raises(InvalidInputError):
        await bench.fetch(url="http://files.lan/a.png", https_only=True)
    assert bench.origin.dialled == []


async def test_log_tells_each_hop_and_never_a_path(bench):
    with capture_logs() as lines:
        await bench.fetch(
            answer(b"", "302 Found", Location="//other.lan/secret?t=1"), answer(), url="http://files.lan/private?k=2"
        )
    assert [(line["host"], line["address"], line["verdict"]) for line in lines] == [
        ("files.lan", FILES, "listed"),
        ("other.lan", OTHER, "listed"),
    ]
    assert "secret" not in str(lines)
    assert "private" not in str(lines)

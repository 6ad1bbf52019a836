"""The gateway behind nginx and behind Caddy, configured as ``docs/deploy.md`` says, in open mode so that addresses count."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
import websockets

from tests.tools.faceswap_client import ended, parts, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.proxies import HOST, LARGEST_BODY_MIB, Front, caddy, find, free_port, nginx
from tests.tools.sse_client import stream

pytestmark = [pytest.mark.system, pytest.mark.proxy]

MIB = 1024 * 1024
WORKER = "embedded-1"
#: The client of ``Front.client``; loopback is all one network, and the gateway believes only 127.0.0.1.
CLIENT = "127.0.0.2"
PAGE_ORIGIN = "https://app.example.org"
PROXIES = {"nginx": nginx, "caddy": caddy}
NGINX = ["nginx", "nginx /swap"]
FRONTS = [*NGINX, "caddy", "caddy /swap"]


def require(name: str) -> None:
    if find(name) is None:
        pytest.skip(f"{name} is not here")


@dataclass
class Site:
    """A gateway, the proxy before it, and which proxy that is."""

    gateway: GatewayProcess
    front: Front
    kind: str
    #: Its place among ``FRONTS``.
    number: int

    def face(self, material, variant: int) -> Path:
        """A portrait that its worker has not had from behind the other proxy."""
        return material.face(variant + 10 * self.number)

    async def pause(self, *, paused: bool) -> None:
        """Jobs wait, or go on."""
        verb = "drain" if paused else "resume"
        async with self.gateway.client(headers=self.gateway.bearer) as client:
            assert (await client.post(f"/-/upstreams/{WORKER}/{verb}")).status_code == HTTPStatus.OK


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """By prefix: a gateway, and the port at which it is told that a proxy listens, one after another."""
    with ExitStack() as stack:

        @cache
        def start(prefix: str) -> tuple[GatewayProcess, int]:
            port = free_port()
            settings = {
                "PUBLIC_URL": f"https://{HOST}:{port}{prefix}",
                "TRUSTED_PROXIES": "127.0.0.1",
                "CORS_ORIGINS": PAGE_ORIGIN,
                "MAX_UPLOAD": f"{LARGEST_BODY_MIB - 1} MiB",
            }
            return stack.enter_context(GatewayProcess(tmp_path_factory.mktemp("behind"), settings)), port

        yield start


@pytest.fixture(scope="module", params=FRONTS)
def site(request, behind):
    kind, _, prefix = request.param.partition(" ")
    require(kind)
    gateway, port = behind(prefix)
    with PROXIES[kind](port=port, gateway_port=gateway.port, prefix=prefix) as front:
        yield Site(gateway, front, kind, FRONTS.index(request.param))


@pytest.fixture
async def waiting(site):
    """Jobs wait as long as the test lets them."""
    await site.pause(paused=True)
    yield site
    await site.pause(paused=False)


async def test_events_arrive_when_they_happen(waiting, material):
    """Nothing follows ``queued`` until the worker is let go: kept in a buffer, it would never come."""
    async with waiting.front.client() as client:
        files = parts(video=material.long, image=waiting.face(material, 700))
        async with stream(client, "POST", "face-swap", files=files) as live:
            await live.until("queued")
            assert [message.event for message in live.parsed.messages] == ["queued"]
            await waiting.pause(paused=False)
            await live.until("progress")
            assert "completed" not in live.parsed.names
            told = await live.rest()
    assert told.names[-1] == "completed"
    assert told.names.count("progress") > 3


@pytest.mark.parametrize("site", ["nginx"], indirect=True)
async def test_a_buffering_proxy_would_be_noticed(waiting, material):
    """The same with what the page says turned round."""
    port = free_port()
    buffers = ("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;")
    options = {"port": port, "gateway_port": waiting.gateway.port, "prefix": waiting.front.prefix, "patch": buffers}
    with nginx(**options) as front:
        async with front.client() as client:
            files = parts(video=material.clip, image=waiting.face(material, 701))
            with pytest.raises((TimeoutError, httpx.ReadTimeout)):
                async with (
                    asyncio.timeout(2),
                    stream(client, "POST", "face-swap", files=files) as live,
                ):
                    await live.until("queued")


async def test_socket_opens_and_tells_the_job_to_its_end(waiting, material):
    async with waiting.front.client() as client:
        prompt_id = await submit(client, video=material.clip, image=waiting.face(material, 702))
    url = waiting.front.public_url.replace("https", "wss") + "/face-swap-ws"
    async with websockets.connect(url, origin=waiting.front.origin, **waiting.front.socket_options()) as connection:
        await connection.send(json.dumps({"prompt_id": prompt_id}))
        assert json.loads(await connection.recv())["event"] == "queued"
        await waiting.pause(paused=False)
        events = [json.loads(frame)["event"] async for frame in connection]
        assert (events[-1], connection.close_code) == ("completed", 1000)
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(url, origin="https://evil.example", **waiting.front.socket_options())
    assert refusal.value.response.status_code == HTTPStatus.FORBIDDEN


async def test_a_big_upload_passes_and_its_result_comes_in_ranges(site, material, tmp_path):
    big = tmp_path / "big.mp4"
    await asyncio.to_thread(pad, material.clip, big, 30 * MIB)
    async with site.front.client() as client:
        prompt_id = await submit(client, {"output_name": "mit Umlaut ä"}, video=big, image=site.face(material, 703))
        found = await ended(client, prompt_id)
        assert found["status"] == "SUCCESS", found
        path = found["result"]
        assert path.startswith(f"{site.front.prefix}/download/")
        whole = await client.get(site.front.origin.replace(HOST, "127.0.0.1") + path)
        assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
        part = await client.get(str(whole.url), headers={"Range": "bytes=100-299", "If-Range": whole.headers["etag"]})
        assert (part.status_code, part.content) == (206, whole.content[100:300])
        assert part.headers["content-range"] == f"bytes 100-299/{len(whole.content)}"
        last = await client.get(str(whole.url), headers={"Range": "bytes=-5"})
        assert last.content == whole.content[-5:]
        same = await client.get(str(whole.url), headers={"If-None-Match": whole.headers["etag"]})
        assert same.status_code == HTTPStatus.NOT_MODIFIED
    if site.kind == "nginx":
        log = (site.front.folder / "access.log").read_text()
        assert f"{CLIENT} [" in log
        assert path.rpartition("/")[2] not in log, "whoever reads the log could follow the link"
        assert "download" not in log


@pytest.mark.parametrize("site", NGINX, indirect=True)
async def test_too_large_for_the_gateway_is_said_by_the_gateway(site, material):
    body = b"x" * (LARGEST_BODY_MIB * MIB - MIB // 2)
    async with site.front.client() as client:
        answer = await client.post("face-swap", files={"video": ("a.mp4", body), "image": ("a.png", b"x")})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("site", NGINX, indirect=True)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "in chunks"])
async def test_too_large_for_the_proxy_is_said_too(site, material, tmp_path, is_chunked):
    begin = b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
    await asyncio.to_thread(pad, material.clip, tmp_path / "big.mp4", (LARGEST_BODY_MIB + 1) * MIB)
    body = begin + (tmp_path / "big.mp4").read_bytes()

    async def pieces():
        for start in range(0, len(body), MIB):
            yield body[start : start + MIB]

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with site.front.client() as client:
        answer = await client.post("face-swap", content=pieces() if is_chunked else body, headers=headers)
    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert answer.json()["detail"]


async def test_each_client_counts_as_itself_whatever_it_claims(site, material):
    forged = {"X-Forwarded-For": "6.6.6.6, 127.0.0.1", "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"}
    for address, face in ((CLIENT, 704), ("127.0.0.3", 705)):
        async with site.front.client(address) as client:
            client.headers.update(forged)
            prompt_id = await submit(client, video=material.clip, image=site.face(material, face))
        assert site.gateway.rows("SELECT submitter FROM jobs WHERE id = ?", prompt_id) == [(address,)]


async def test_a_proxy_that_nobody_configured_is_told_what_to_set(site):
    transport = httpx.AsyncHTTPTransport(local_address="127.0.0.3")
    async with httpx.AsyncClient(base_url=site.gateway.url, transport=transport) as client:
        assert (await client.get("/health")).status_code == HTTPStatus.OK
        answer = await client.get("/health", headers={"X-Forwarded-For": "127.0.0.1"})
    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert "GATEWAY_TRUSTED_PROXIES" in answer.json()["detail"]


async def test_pages_of_the_listed_origin_may_call_and_no_others(site):
    ask = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    async with site.front.client() as client:
        for origin, is_listed in ((PAGE_ORIGIN, True), ("https://evil.example", False), ("null", False)):
            foreign = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            preflight = await client.options("-/jobs/x", headers=foreign | ask)
            actual = await client.get("-/jobs", headers=foreign)
            assert actual.status_code == (200 if is_listed else 403)
            for answer in (preflight, actual):
                allowed = answer.headers.get_list("access-control-allow-origin")
                assert allowed == ([origin] if is_listed else []), origin
                assert "access-control-allow-credentials" not in answer.headers
            assert ("DELETE" in preflight.headers.get("access-control-allow-methods", "")) is is_listed


async def test_a_sub_path_is_taken_off_once(site):
    async with site.front.client() as client:
        assert (await client.get("health")).json()["status"] == "healthy"
        if site.front.prefix:
            root = site.front.origin.replace(HOST, "127.0.0.1")
            assert (await client.get(f"{root}/health")).headers.get("content-type") != "application/json"
            if site.kind == "nginx":
                moved = await client.get(root + site.front.prefix)
                assert (moved.status_code, moved.headers["location"]) == (308, f"{site.front.public_url}/")


async def test_a_gateway_that_is_away_is_said_in_json():
    require("nginx")
    with nginx(port=free_port(), gateway_port=free_port()) as front:
        async with front.client() as client:
            answer = await client.get("health")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == HTTPStatus.SERVICE_UNAVAILABLE


def pad(source: Path, target: Path, size_bytes: int) -> None:
    """The same video with a box at its end that says nothing (ISO/IEC 14496-12, ``free``)."""
    target.write_bytes(source.read_bytes() + size_bytes.to_bytes(4, "big") + b"free" + bytes(size_bytes - 8))

"""A whole gateway whose files lie in object storage, on ``rclone serve s3``, which checks signatures and keeps files on a disk.

``COMFYGATE_ASSET_MIB`` makes the large file larger: 2048 is the long form.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from http import HTTPStatus

import boto3
import httpx
import pytest

from tests.system.test_workflow_load import peak_mib
from tests.tools import faceswap_client
from tests.tools.cut_line import CutLine, Then
from tests.tools.gateway_process import GatewayProcess
from tests.tools.object_servers import ACCESS_KEY, BUCKET, SECRET_KEY, know_us, rclone
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

MIB = 1024**2
ASSET_MIB = int(os.environ.get("COMFYGATE_ASSET_MIB", "256"))
MOST_GROWTH_MIB = 96
BLOCK = bytes(range(256)) * 4096
#: What does not answer is given up after three seconds.
HURRY = "import functools; from gateway.objects import s3; s3.Pace = functools.partial(s3.Pace, give_up_seconds=3.0)"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    know_us(monkeypatch)


@pytest.fixture
def prefix(request):
    """Each test has a place of its own: the server lives as long as the module."""
    return request.node.name


@contextlib.asynccontextmanager
async def serving(folder, **settings):
    """A gateway without upstreams, and a client of it."""
    gateway = GatewayProcess(folder / "gateway", settings, workers=0, first=HURRY)
    await asyncio.to_thread(gateway.start, wait_for_workers=False)
    try:
        async with gateway.client() as client:
            yield gateway, client
    finally:
        await asyncio.to_thread(gateway.end)


class There:
    """What lies on the server, asked for without the gateway."""

    def __init__(self, server, prefix):
        self._client = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1")
        self._prefix = prefix

    def keys(self):
        found = self._client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self._prefix}/")
        keys = [each["Key"] for each in found.get("Contents", ())]
        return [key for key in keys if key != f"{self._prefix}/owner"]

    def unfinished(self):
        found = self._client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self._prefix}/")
        return [each["Key"] for each in found.get("Uploads", ())]


@pytest.fixture
def there(server, prefix):
    return There(server, prefix)


def form(mib):
    """A large file as a form, and the digest that it has once it was sent."""
    digest = hashlib.sha256()
    fields = "".join(
        f'--part\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("content_type", "application/octet-stream"), ("file_path", "large.bin"))
    )
    head = '--part\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'

    async def body() -> AsyncIterator[bytes]:
        yield (fields + head).encode()
        for number in range(mib):
            block = number.to_bytes(8) + BLOCK[8:]
            digest.update(block)
            yield block
        yield b"\r\n--part--\r\n"

    return body(), digest


async def upload(client, mib):
    body, digest = form(mib)
    answer = await client.post(
        "/api/v2/assets",
        content=body,
        headers={"content-type": "multipart/form-data; boundary=part"},
        timeout=600,
    )
    return answer, digest


async def digest_of(client, url, headers=None):
    got = hashlib.sha256()
    async with client.stream("GET", url, timeout=600, headers=headers) as response:
        async for piece in response.aiter_bytes():
            got.update(piece)
    return got.digest()


def run(gateway, *words):
    """A command of ours beside or after the gateway."""
    done = subprocess.run(
        [*gateway._program, *words],
        env=gateway._environment(),
        cwd=gateway.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_swap_goes_through_a_bucket_and_out_of_it_again(server, prefix, there, material, tmp_path):
    gateway = GatewayProcess(tmp_path, {"STORAGE_URL": server.url(prefix), "STORAGE_CACHE": "1", "LOG_LEVEL": "debug"})
    with gateway:
        async with gateway.client() as client:
            job = await faceswap_client.submit(client, image=material.face(), video=material.clip)
            found = await faceswap_client.ended(client, job)
            assert found["status"] == "SUCCESS", found
            assert len(there.keys()) == 3
            assert all(key.startswith(f"{prefix}/blobs/") for key in there.keys())  # noqa: SIM118 - no dict
            url = found["result"]
            whole = (await client.get(url)).content
            part = await client.get(url, headers={"Range": "bytes=10-19"})
            assert (part.status_code, part.content) == (HTTPStatus.PARTIAL_CONTENT, whole[10:20])
            assert not list(gateway.data_dir.glob("blobs/??/*"))
            status, told = await asyncio.to_thread(run, gateway, "backup", str(tmp_path / "all.tar"))
            assert status == 0, told
            status, told = await asyncio.to_thread(run, gateway, "doctor")
            assert f"ok    storage    s3://{BUCKET}/{prefix}/ can be written to" in told
            status, told = await asyncio.to_thread(run, gateway, "purge", "--job", job)
            assert "of which deleted 3" in told
            assert there.keys() == []
        assert SECRET_KEY not in gateway.log.read_text() + gateway.output.read_text()
        assert SECRET_KEY not in (await asyncio.to_thread(run, gateway, "config"))[1]
        assert ACCESS_KEY not in gateway.log.read_text()
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert len([member for member in tar if member.isfile()]) == 4


async def test_the_line_is_cut_in_the_middle_of_an_upload_and_nothing_is_half_there(server, prefix, there, tmp_path):
    async with CutLine(server.endpoint) as line:
        url = server.url(prefix, endpoint=line.endpoint)
        async with serving(tmp_path, STORAGE_URL=url, STORAGE_CACHE="1") as (_gateway, client):
            line.break_after(30 * MIB, Then.CUT)
            uploading = asyncio.create_task(upload(client, 64))
            await line.reached.wait()
            assert there.keys() == []
            assert len(there.unfinished()) == 1
            line.mend()
            answer, sent = await uploading
            assert answer.status_code == HTTPStatus.CREATED, answer.text
            assert len(there.keys()) == 1
            assert there.unfinished() == []
            assert await digest_of(client, answer.json()["url"]) == sent.digest()


async def test_a_kill_in_the_middle_of_an_upload_leaves_no_part_after_the_sweep(server, prefix, there, tmp_path):
    async with CutLine(server.endpoint) as line:
        url = server.url(prefix, endpoint=line.endpoint)
        async with serving(tmp_path, STORAGE_URL=url) as (gateway, client):
            line.break_after(30 * MIB, Then.HOLD)
            uploading = asyncio.create_task(upload(client, 64))
            await line.reached.wait()
            await asyncio.to_thread(gateway.kill)
            with pytest.raises(httpx.HTTPError):
                await uploading
            assert there.keys() == []
            assert len(there.unfinished()) == 1
            line.mend()
            await asyncio.to_thread(gateway.start, wait_for_workers=False)
            await wait_until(lambda: not there.unfinished(), what="the sweep")
            assert there.keys() == []
            assert list((gateway.data_dir / "storage" / "cache").glob("??/*")) == []


async def test_where_nobody_answers_it_is_told_and_nothing_is_kept(server, prefix, there, tmp_path):
    async with CutLine(server.endpoint) as line:
        url = server.url(prefix, endpoint=line.endpoint)
        async with serving(tmp_path, STORAGE_URL=url) as (gateway, client):
            first, _ = await upload(client, 1)
            line.break_after(0, Then.CUT)
            refused, _ = await upload(client, 2)
            assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE, refused.text
            assert refused.json()["error"]["code"] == "unavailable"
            assert int(refused.headers["Retry-After"]) > 0
            assert len(there.keys()) == 1
            assert first.status_code == HTTPStatus.CREATED
            assert "127.0.0.1" not in refused.text
            assert await digest_of(client, first.json()["url"]), "it lies in the cache"
        assert "maintenance_failed" not in gateway.log.read_text()


async def test_downloads_are_sent_on_to_the_bucket_where_that_is_wanted(server, prefix, tmp_path):
    async with serving(tmp_path, STORAGE_URL=server.url(prefix), STORAGE_DOWNLOADS="redirect") as (_gateway, client):
        answer, sent = await upload(client, 1)
        url = answer.json()["url"]
        told = await client.get(url)
        assert told.status_code == HTTPStatus.FOUND
        assert told.headers["location"].startswith(f"{server.endpoint}/{BUCKET}/{prefix}/blobs/")
        async with httpx.AsyncClient() as anybody:
            assert await digest_of(anybody, told.headers["location"]) == sent.digest()
            part = await anybody.get(told.headers["location"], headers={"Range": "bytes=8-17"})
            assert part.content == BLOCK[8:18]
        assert (await client.head(url)).headers["content-length"] == str(MIB)
        assert (await client.get(url, headers={"If-None-Match": told.headers.get("etag", "*")})).status_code == 304


@pytest.mark.long
async def test_a_large_file_goes_up_and_down_and_the_gateway_does_not_grow(server, prefix, there, tmp_path, capsys):
    settings = {"STORAGE_URL": server.url(prefix), "STORAGE_CACHE": "1", "MAX_UPLOAD": "4GiB"}
    async with serving(tmp_path, **settings) as (gateway, client):
        small, _ = await upload(client, 20)  # boto3 is imported, its threads are there
        assert small.status_code == HTTPStatus.CREATED, small.text
        before = peak_mib(gateway.process.pid)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer, sent = await upload(client, ASSET_MIB)
        up = loop.time() - begun
        assert answer.status_code == HTTPStatus.CREATED, answer.text
        grown_up = peak_mib(gateway.process.pid) - before
        assert list((gateway.data_dir / "storage" / "cache").glob("??/*")) == [], "it comes from the bucket"
        begun = loop.time()
        assert await digest_of(client, answer.json()["url"]) == sent.digest()
        down = loop.time() - begun
        grown = peak_mib(gateway.process.pid) - before
        with capsys.disabled():
            print(f"\n{ASSET_MIB} MiB up in {up:.1f} s (+{grown_up:.1f} MiB), down in {down:.1f} s (+{grown:.1f} MiB)")  # noqa: T201 - the figures are what the long form is run for
        assert grown < MOST_GROWTH_MIB

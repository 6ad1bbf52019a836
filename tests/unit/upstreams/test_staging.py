"""Uploads that outlive whoever asked for them."""

from __future__ import annotations

import asyncio
import gc
import json
import re

import pytest

from gateway.interfaces import Blob
from gateway.upstreams import staging as module
from gateway.upstreams.client import Answer
from gateway.upstreams.staging import Staging, folder_of

BLOB = Blob("ab" * 32, 5)


class ClientThatBreaks:
    """Fails an upload when it is told to."""

    def __init__(self):
        self.asked, self.told = asyncio.Event(), asyncio.Event()

    async def upload(self, path, content, headers):
        del content
        self.asked.set()
        await self.told.wait()
        raise ConnectionError("broke off")


async def test_an_upload_that_fails_after_all_have_left_is_no_forgotten_error(tmp_path):
    client = ClientThatBreaks()
    staging = Staging(client, "gateway/mine")
    forgotten = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: forgotten.append(context))
    (tmp_path / "file").write_bytes(b"12345")
    waiter = asyncio.create_task(staging.stage(BLOB, tmp_path / "file", ".png"))
    await client.asked.wait()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    client.told.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert staging._uploads == {}
    del waiter  # its traceback holds the upload
    gc.collect()
    assert forgotten == []


class ClientThatTakes:
    """Takes uploads, and remembers how many."""

    def __init__(self):
        self.uploads = 0

    async def upload(self, path, content, headers):
        self.uploads += 1
        body = b"".join([piece async for piece in content])
        name = body.split(b'filename="')[1].split(b'"')[0].decode()
        subfolder = body.split(b'name="subfolder"\r\n\r\n')[1].split(b"\r\n")[0].decode()
        return Answer(200, json.dumps({"name": name, "subfolder": subfolder, "type": "input"}).encode())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    return path


async def test_who_wants_a_file_that_is_being_deleted_waits_and_then_uploads_it(file):
    client = ClientThatTakes()
    staging = Staging(client, "gateway/mine")
    assert await staging.stage(BLOB, file, ".png") == f"gateway/mine/{BLOB.hash}.png"
    with staging.withheld({BLOB.hash, "cd" * 32}) as ours:
        assert ours == {BLOB.hash, "cd" * 32}
        wants = asyncio.create_task(staging.stage(BLOB, file, ".png"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not wants.done()
        staging.forget({BLOB.hash})
    assert await wants == f"gateway/mine/{BLOB.hash}.png"
    assert client.uploads == 2


async def test_what_was_withheld_and_not_deleted_is_still_there(file):
    client = ClientThatTakes()
    staging = Staging(client, "gateway/mine")
    await staging.stage(BLOB, file, ".png")
    with staging.withheld({BLOB.hash}):
        pass
    await staging.stage(BLOB, file, ".png")
    assert client.uploads == 1


async def test_what_is_being_uploaded_is_not_withheld(tmp_path):
    client = ClientThatBreaks()
    staging = Staging(client, "gateway/mine")
    uploading = asyncio.create_task(staging.stage(BLOB, tmp_path / "file", ".png"))
    await asyncio.sleep(0)
    with staging.withheld({BLOB.hash}) as ours:
        assert ours == frozenset()
    client.told.set()
    await asyncio.gather(uploading, return_exceptions=True)


def test_a_folder_is_the_gateways_own_and_does_not_tell_its_client_id():
    mine, theirs = folder_of("0" * 32), folder_of("1" * 32)
    assert mine == folder_of("0" * 32) != theirs
    assert "0" * 16 not in mine
    assert re.fullmatch(r"gateway/[0-9a-f]{16}", mine)


class Client:
    """Takes every upload, and keeps its body."""

    def __init__(self):
        self.bodies = []

    async def upload(self, path, content, headers):
        body = b"".join([piece async for piece in content])
        assert int(headers["Content-Length"]) == len(body)
        self.bodies.append(body)
        name = body.partition(b'filename="')[2].partition(b'"')[0].decode()
        return Answer(200, b'{"name": "%s", "subfolder": "gateway/mine", "type": "input"}' % name.encode())


@pytest.mark.parametrize("size_bytes", [5, 3_000_000])
async def test_the_file_is_sent_as_it_is_whatever_its_size(tmp_path, size_bytes):
    client = Client()
    staging, data = Staging(client, "gateway/mine"), bytes(range(250)) * (size_bytes // 250) or b"12345"
    (tmp_path / "file").write_bytes(data)
    blob = Blob("ab" * 32, len(data))
    assert await staging.stage(blob, tmp_path / "file", ".png") == f"gateway/mine/{blob.hash}.png"
    assert b"\r\n\r\n" + data + b"\r\n--" in client.bodies[0]
    await staging.stage(blob, tmp_path / "file", ".png")
    assert len(client.bodies) == 1


async def test_what_is_known_to_be_there_is_bounded_and_the_oldest_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_STAGED", 3)
    client = Client()
    staging = Staging(client, "gateway/mine")
    (tmp_path / "file").write_bytes(b"12345")
    blobs = [Blob(f"{number:064x}", 5) for number in range(4)]
    for blob in blobs[:3]:
        await staging.stage(blob, tmp_path / "file", ".png")
    await staging.stage(blobs[0], tmp_path / "file", ".png")  # used again: the next one to go is another
    await staging.stage(blobs[1], tmp_path / "file", ".jpg")  # the same bytes by another name: no more of them
    assert staging.staged() == {blob.hash for blob in blobs[:3]}
    await staging.stage(blobs[3], tmp_path / "file", ".png")
    assert staging.staged() == {blobs[0].hash, blobs[2].hash, blobs[3].hash}
    staging.doubt()
    assert staging.staged() == set()
    assert len(client.bodies) == 5

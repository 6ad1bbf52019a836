"""What every implementation of ``interfaces.Blobs`` does. A new one joins by a line in ``STORES``."""

import os

import pytest
from blake3 import blake3

from gateway.blobs.local import LocalBlobs
from gateway.interfaces import Blob


async def local_store(folder):
    store = LocalBlobs(folder / "blobs", free=lambda _folder: 10**12)
    await store.prepare()
    return store


STORES = {"local": local_store}


@pytest.fixture(params=STORES)
async def blobs(request, tmp_path):
    store = await STORES[request.param](tmp_path)
    yield store
    await store.close()


async def put(blobs, data):
    async with await blobs.writer(expected_bytes=len(data)) as writer:
        await writer.write(data)
        return await writer.commit()


async def read(blobs, blob, *span):
    return b"".join([chunk async for chunk in blobs.stream(blob.hash, *span)])


async def test_what_was_committed_is_there_under_its_hash(blobs):
    blob = await put(blobs, b"0123456789")
    assert blob == Blob(hash=blake3(b"0123456789").hexdigest(), size_bytes=10)
    assert await blobs.exists(blob.hash)
    assert await read(blobs, blob) == b"0123456789"
    assert blobs.path(blob.hash).read_bytes() == b"0123456789"


@pytest.mark.parametrize("span", [(0, 10), (3,), (3, 7), (9, 10), (10,), (5, 5)])
async def test_any_span_can_be_read(blobs, span):
    blob = await put(blobs, b"0123456789")
    assert await read(blobs, blob, *span) == b"0123456789"[slice(*span) if len(span) > 1 else slice(span[0], None)]


async def test_nothing_is_there_before_commit_or_after_abort(blobs):
    name = blake3(b"x").hexdigest()
    async with await blobs.writer() as writer:
        await writer.write(b"x")
        assert not await blobs.exists(name)
        await writer.abort()
    assert not await blobs.exists(name)


async def test_abort_after_commit_is_harmless(blobs):
    async with await blobs.writer() as writer:
        await writer.write(b"x")
        blob = await writer.commit()
        await writer.abort()
    assert await read(blobs, blob) == b"x"


async def test_a_finished_file_becomes_a_blob_as_by_a_commit(blobs, tmp_path):
    file = tmp_path / "finished"
    file.write_bytes(b"0123456789")
    blob = await blobs.adopt(file)
    assert blob == Blob(hash=blake3(b"0123456789").hexdigest(), size_bytes=10)
    assert await read(blobs, blob) == b"0123456789"
    assert not file.exists()
    assert await blobs.discard(blob)
    assert not await blobs.exists(blob.hash)


async def test_a_file_with_the_bytes_of_a_blob_counts_as_one_more_commit_of_it(blobs, tmp_path):
    first = await put(blobs, b"shared")
    os.utime(blobs.path(first.hash), (1000, 1000))
    file = tmp_path / "finished"
    file.write_bytes(b"shared")
    assert await blobs.adopt(file) == first
    assert not file.exists()
    assert not await blobs.delete(first.hash, untouched_since=2000.0), "it was touched"
    assert not await blobs.discard(first)
    assert await blobs.exists(first.hash)
    assert await blobs.discard(first)


async def test_a_file_that_is_not_there_becomes_no_blob(blobs, tmp_path):
    with pytest.raises(FileNotFoundError):
        await blobs.adopt(tmp_path / "missing")


async def test_reading_what_is_not_there_says_so(blobs):
    with pytest.raises(FileNotFoundError):
        await read(blobs, Blob(hash="0" * 64, size_bytes=1))


async def test_delete_obeys_the_time_of_the_last_commit(blobs):
    blob = await put(blobs, b"x")
    touched = blobs.path(blob.hash).stat().st_mtime
    assert not await blobs.delete(blob.hash, untouched_since=touched - 1)
    assert await blobs.delete(blob.hash, untouched_since=touched + 1)
    assert not await blobs.exists(blob.hash)


async def test_discard_takes_back_only_what_is_nobody_elses(blobs):
    mine = await put(blobs, b"mine")
    shared = await put(blobs, b"shared")
    await put(blobs, b"shared")
    assert await blobs.discard(mine)
    assert not await blobs.discard(shared)
    assert not await blobs.exists(mine.hash)
    assert await blobs.exists(shared.hash)


async def test_the_same_bytes_committed_twice_and_taken_back_twice_are_gone(blobs):
    blob = await put(blobs, b"one photo in two fields")
    await put(blobs, b"one photo in two fields")
    assert not await blobs.discard(blob)
    assert await blobs.discard(blob)
    assert not await blobs.exists(blob.hash)
    assert not await blobs.discard(blob)

"""What every implementation of ``interfaces.Blobs`` does, on two servers that speak S3 too. A new one joins by a line in ``STORES``."""

import hashlib
import os
import time
from functools import cache

import pytest
from blake3 import blake3

from gateway.blobs.bucket import BucketBlobs
from gateway.blobs.local import LocalBlobs
from gateway.interfaces import Blob
from gateway.object_url import ObjectUrl
from gateway.objects.s3 import Pace, S3Bucket
from gateway.objects.session import open_client
from tests.fakes.bucket import MemoryBucket
from tests.tools.object_servers import SERVERS

#: In a hurry.
PACE = Pace(part_bytes=5 * 1024**2, multipart_from_bytes=5 * 1024**2, wait_seconds=(0.01,), give_up_seconds=0.5)
client_for = cache(lambda endpoint: open_client(ObjectUrl("any", endpoint=endpoint), connections=4))


def local_store(folder, servers):
    return LocalBlobs(folder / "blobs", free=lambda _folder: 10**12), None


def over(bucket, folder, **options):
    return BucketBlobs(bucket, folder / "storage", **{"cache_bytes": 10**9, **options}), bucket


def memory_store(folder, servers):
    return over(MemoryBucket(time.time), folder)


def crowded_store(folder, servers):
    """Nothing stays here that is not in use."""
    return over(MemoryBucket(time.time), folder, cache_bytes=1)


def served_store(name):
    def make(folder, servers, **options):
        place = servers(name).place(folder.name)
        return over(S3Bucket(place, client_for(place.endpoint), PACE), folder, cache_bytes=1, **options)

    return make


STORES = {
    "local": local_store,
    "bucket": memory_store,
    "bucket without a cache": crowded_store,
    "moto": served_store("moto"),
    "rclone": served_store("rclone"),
}


@pytest.fixture(params=STORES)
async def blobs(request, tmp_path):
    # Servers are started for those alone who are served by one.
    servers = request.getfixturevalue("servers") if request.param in SERVERS else None
    store, bucket = STORES[request.param](tmp_path, servers)
    await store.prepare()
    yield store
    await store.close()
    if bucket is not None:
        await bucket.close()


def where_its_time_stands(blobs, blob):
    return blobs.path(blob.hash) if isinstance(blobs, LocalBlobs) else blobs._marks._path(blob.hash)


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
    async with blobs.held(blob.hash) as path:
        assert path.read_bytes() == b"0123456789"


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
    os.utime(where_its_time_stands(blobs, first), (1000, 1000))
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
    touched = where_its_time_stands(blobs, blob).stat().st_mtime
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


async def test_large_blobs_are_as_they_were_and_any_span_of_them_can_be_read(blobs):
    data = hashlib.shake_128(b"large").digest(12 * 1024**2 + 5)
    blob = await put(blobs, data)
    assert await read(blobs, blob) == data
    assert await read(blobs, blob, 7_000_000, 7_000_005) == data[7_000_000:7_000_005]
    async with blobs.held(blob.hash) as path:
        assert path.read_bytes() == data


async def test_a_file_is_held_for_as_many_as_want_it_at_once(blobs):
    blob = await put(blobs, b"shared")
    async with blobs.held(blob.hash) as one, blobs.held(blob.hash) as two:
        assert one.read_bytes() == two.read_bytes() == b"shared"
    async with blobs.held(blob.hash) as again:
        assert again.read_bytes() == b"shared"


async def test_what_is_untouched_is_told_and_nothing_else(blobs):
    old, new = await put(blobs, b"old"), await put(blobs, b"new")
    os.utime(where_its_time_stands(blobs, old), (1000, 1000))
    assert await blobs.untouched(since=2000.0) == [old.hash]
    await put(blobs, b"old")
    assert await blobs.untouched(since=2000.0) == []
    assert sorted(await blobs.untouched(since=time.time() + 60)) == sorted([old.hash, new.hash])


async def test_tidying_takes_nothing_that_is_whole(blobs):
    blob = await put(blobs, b"x")
    await blobs.tidy()
    assert await read(blobs, blob) == b"x"


async def test_what_is_kept_is_there_after_a_restart(blobs, tmp_path, request):
    blob = await put(blobs, b"kept")
    name = request.node.callspec.params["blobs"]
    if name == "local" or name in SERVERS:
        again, bucket = STORES[name](tmp_path, request.getfixturevalue("servers") if name in SERVERS else None)
    else:
        again, bucket = over(blobs._bucket, tmp_path)
    await again.prepare()
    assert await again.exists(blob.hash)
    assert await read(again, blob) == b"kept"
    assert await put(again, b"kept") == blob
    assert not await again.discard(blob), "it was there before"
    await again.close()
    if bucket is not None:
        await bucket.close()


@pytest.mark.parametrize("name", ["", "..", "x" * 64, "A" * 64])
async def test_what_is_no_hash_is_refused(blobs, name):
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        await blobs.exists(name)
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        await blobs.delete(name, untouched_since=0.0)

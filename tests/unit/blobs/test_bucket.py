"""Over a bucket in memory; what holds on servers too stands in the contract suite."""

import asyncio
import hashlib
import os
import threading
import time

import pytest
from structlog.testing import capture_logs

from gateway.blobs.bucket import BucketBlobs
from gateway.blobs.local import LocalBlobs
from gateway.blobs.marks import Copy, key_of
from gateway.errors import StorageFullError, StorageUnreachableError
from gateway.interfaces import Blob
from tests.fakes.bucket import Kept, MemoryBucket

AWAY = StorageUnreachableError("away", reason="EndpointConnectionError")


@pytest.fixture
def bucket():
    return MemoryBucket(time.time)


@pytest.fixture
def hold():
    """Whether the directory is held."""
    return {"is": True}


@pytest.fixture
async def make(tmp_path, bucket, hold):
    made = []

    async def make(**options):
        blobs = BucketBlobs(
            bucket, tmp_path / "storage", **{"cache_bytes": 1000, "holds": lambda: hold["is"], **options}
        )
        made.append(blobs)
        await blobs.prepare()
        return blobs

    yield make
    for blobs in made:
        await blobs.close()


async def put(blobs, data):
    async with await blobs.writer() as writer:
        await writer.write(data)
        return await writer.commit()


async def read(blobs, blob, *span):
    return b"".join([chunk async for chunk in blobs.stream(blob.hash, *span)])


def in_cache(tmp_path):
    return {path.name for path in (tmp_path / "storage" / "cache").glob("??/*")}


def parts(tmp_path):
    return list((tmp_path / "storage" / "cache" / "parts").iterdir())


def asked(bucket, what):
    return [key for name, key in bucket.asked if name == what]


def age(blobs, blob, at=1000.0):
    os.utime(blobs._marks._path(blob.hash), (at, at))


async def test_a_blob_lies_in_the_bucket_under_its_hash_and_a_generation(make, bucket):
    blob = await put(await make(), b"data")
    (key,) = bucket.kept
    assert key.startswith(f"blobs/{blob.hash[:2]}/{blob.hash}.")
    assert bucket.kept[key].data == b"data"


async def test_the_same_bytes_are_sent_once(make, bucket):
    blobs = await make()
    await put(blobs, b"data")
    await put(blobs, b"data")
    assert len(asked(bucket, "put")) == 1


async def test_the_same_bytes_at_once_are_sent_once(make, bucket):
    blobs = await make()
    one, two = await asyncio.gather(put(blobs, b"data"), put(blobs, b"data"))
    assert one == two
    assert len(asked(bucket, "put")) == 1
    assert not await blobs.discard(one)
    assert await blobs.discard(one)


async def test_what_rules_of_the_bucket_took_is_sent_again(make, bucket):
    blobs = await make()
    blob = await put(blobs, b"data")
    bucket.kept.clear()
    await put(blobs, b"data")
    assert len(bucket.kept) == 1
    assert not await blobs.discard(blob), "two committed it"


async def test_a_commit_that_the_bucket_does_not_take_leaves_nothing(make, bucket, tmp_path):
    blobs = await make()
    bucket.failure = AWAY
    with pytest.raises(StorageUnreachableError):
        await put(blobs, b"data")
    bucket.failure = None
    assert in_cache(tmp_path) == set()
    assert parts(tmp_path) == []
    assert not await blobs.exists(Blob("0" * 64, 4).hash)
    blob = await put(blobs, b"data")
    assert await blobs.discard(blob), "the first one counts for nothing"


async def test_one_of_two_commits_that_fails_takes_nothing_from_the_other(make, bucket, tmp_path, monkeypatch):
    blobs = await make()
    putting, failed = bucket.put, []

    async def fail_once(key, path, **options):
        if not failed:
            failed.append(key)
            while max(map(blobs._turns.wanted, blobs._turns._turns)) < 2:  # noqa: ASYNC110 - the other one comes by itself
                await asyncio.sleep(0)
            raise AWAY
        return await putting(key, path, **options)

    monkeypatch.setattr(bucket, "put", fail_once)
    outcomes = await asyncio.gather(put(blobs, b"data"), put(blobs, b"data"), return_exceptions=True)
    (blob,) = [outcome for outcome in outcomes if isinstance(outcome, Blob)]
    assert AWAY in outcomes
    async with blobs.held(blob.hash) as path:
        assert path.read_bytes() == b"data"


async def test_bytes_that_come_while_the_same_are_deleted_are_stored(make, bucket, monkeypatch):
    blobs = await make()
    blob = await put(blobs, b"data")
    finding = blobs._marks.doom

    loop = asyncio.get_running_loop()
    dooming, goes_on = asyncio.Event(), threading.Event()

    def doom(*arguments, **options):
        loop.call_soon_threadsafe(dooming.set)
        goes_on.wait()
        return finding(*arguments, **options)

    monkeypatch.setattr(blobs._marks, "doom", doom)
    deleting = asyncio.create_task(blobs.delete(blob.hash, untouched_since=time.time() + 60))
    await dooming.wait()
    committing = asyncio.create_task(put(blobs, b"data"))
    while blobs._turns.wanted(blob.hash) < 2:  # noqa: ASYNC110 - the other one comes by itself
        await asyncio.sleep(0)
    goes_on.set()
    assert await deleting
    assert await committing == blob
    assert await read(blobs, blob) == b"data"
    assert len(bucket.kept) == 1


async def test_a_canceled_commit_leaves_nothing(make, bucket, tmp_path, monkeypatch):
    blobs = await make()
    begun = asyncio.Event()

    async def put_slowly(*_arguments, **_options):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bucket, "put", put_slowly)
    committing = asyncio.create_task(put(blobs, b"data"))
    await begun.wait()
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    assert in_cache(tmp_path) == set()
    assert blobs._turns._turns == {}


async def test_a_commit_that_is_canceled_when_the_bucket_has_it_leaves_nothing_there_either(make, bucket, monkeypatch):
    blobs = await make()
    stored, putting = asyncio.Event(), bucket.put

    async def put_and_look(*arguments, **options):
        await putting(*arguments, **options)
        stored.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bucket, "put", put_and_look)
    committing = asyncio.create_task(put(blobs, b"data"))
    await stored.wait()
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    assert bucket.kept == {}


async def test_nothing_is_there_while_it_goes_up(make, bucket, monkeypatch):
    blobs = await make()
    putting = bucket.put

    async def look_and_put(key, path, **options):
        name = key.rpartition("/")[2].partition(".")[0]
        assert not await blobs.exists(name)
        return await putting(key, path, **options)

    monkeypatch.setattr(bucket, "put", look_and_put)
    assert await blobs.exists((await put(blobs, b"data")).hash)


async def test_the_local_disk_is_asked_for_room_first(tmp_path, bucket):
    local = LocalBlobs(tmp_path / "cache", free=lambda _folder: 0)
    blobs = BucketBlobs(bucket, tmp_path / "storage", cache_bytes=1, local=local)
    await blobs.prepare()
    with pytest.raises(StorageFullError):
        await blobs.writer(expected_bytes=2**20)
    with pytest.raises(StorageFullError):  # what is small asks as it is written
        await put(blobs, b"x")
    await blobs.close()


# -------------------------------------------------------------------------------------------------------------- the cache


async def test_what_was_sent_is_held_without_asking_the_bucket(make, bucket):
    blobs = await make()
    blob = await put(blobs, b"data")
    bucket.failure = AWAY
    async with blobs.held(blob.hash) as path:
        assert path.read_bytes() == b"data"
    assert await read(blobs, blob, 1, 3) == b"at"
    assert await blobs.exists(blob.hash)


async def test_what_is_held_stays_until_nobody_holds_it_and_then_goes(make, tmp_path):
    blobs = await make(cache_bytes=10)
    one = await put(blobs, b"1" * 8)
    async with blobs.held(one.hash) as path:
        two = await put(blobs, b"2" * 8)
        assert in_cache(tmp_path) == {one.hash}, "the newer one is in no use"
        assert path.exists()
        async with blobs.held(two.hash) as other:
            assert other.read_bytes() == b"2" * 8
            assert path.exists()
    assert len(in_cache(tmp_path)) == 1


async def test_many_who_want_the_same_bring_it_once(make, bucket):
    blobs = await make(cache_bytes=1)
    blob = await put(blobs, b"data")
    bucket.asked.clear()

    async def hold():
        async with blobs.held(blob.hash) as path:
            await asyncio.sleep(0)
            return path.read_bytes()

    assert await asyncio.gather(*(hold() for _ in range(5))) == [b"data"] * 5
    assert len(asked(bucket, "stream")) == 1


async def test_bytes_that_are_not_those_of_their_name_are_not_used(make, bucket, tmp_path):
    blobs = await make(cache_bytes=1)
    blob = await put(blobs, b"data")
    (key,) = bucket.kept
    (tmp_path / "other").write_bytes(b"evil")
    await bucket.put(key, tmp_path / "other")
    with capture_logs() as logs, pytest.raises(StorageUnreachableError) as damaged:
        async with blobs.held(blob.hash):
            pass
    assert damaged.value.is_refusal
    assert logs[0]["location"] == f"s3://memory/{key}"
    assert in_cache(tmp_path) == set()


async def test_a_file_that_somebody_took_out_of_the_cache_is_brought_again(make, tmp_path):
    blobs = await make()
    blob = await put(blobs, b"data")
    blobs._local.path(blob.hash).unlink()
    assert await read(blobs, blob) == b"data"
    async with blobs.held(blob.hash) as path:
        assert path.read_bytes() == b"data"


async def test_what_is_nowhere_is_not_there(make):
    blobs = await make()
    with pytest.raises(FileNotFoundError):
        async with blobs.held("0" * 64):
            pass


async def test_the_cache_is_there_after_a_restart_without_what_was_never_sent(make, bucket, tmp_path):
    blobs = await make()
    blob = await put(blobs, b"data")
    unsent = await blobs._local.adopt(file_of(tmp_path, b"unsent"))
    again = await make()
    assert in_cache(tmp_path) == {blob.hash}
    assert not await again.exists(unsent.hash)
    bucket.failure = AWAY
    assert await read(again, blob) == b"data"


def file_of(folder, data):
    path = folder / "file"
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------------------------------------------ going away


async def test_deleting_takes_it_from_the_bucket_and_from_here(make, bucket, tmp_path):
    blobs = await make()
    blob = await put(blobs, b"data")
    assert not await blobs.delete(blob.hash, untouched_since=time.time() - 60)
    assert await blobs.delete(blob.hash, untouched_since=time.time() + 60)
    assert bucket.kept == {}
    assert in_cache(tmp_path) == set()
    assert not await blobs.delete(blob.hash, untouched_since=time.time() + 60)


async def test_what_cannot_be_deleted_is_gone_for_us_and_deleted_later(make, bucket):
    blobs = await make()
    blob = await put(blobs, b"data")
    bucket.failure = AWAY
    assert not await blobs.delete(blob.hash, untouched_since=time.time() + 60)
    await blobs.tidy()
    bucket.failure = None
    assert len(bucket.kept) == 1
    await blobs.tidy()
    assert bucket.kept == {}


async def test_who_does_not_answer_is_asked_once_and_not_for_every_file(make, bucket):
    blobs = await make()
    doomed = [await put(blobs, bytes([number])) for number in range(20)]
    bucket.failure = AWAY
    bucket.asked.clear()
    for blob in doomed:
        assert not await blobs.delete(blob.hash, untouched_since=time.time() + 60)
    await blobs.tidy()
    assert [name for name, _ in bucket.asked] == ["delete", "listed"]
    assert blobs.state().is_away
    bucket.failure = None
    await blobs.tidy()
    assert bucket.kept == {}
    assert blobs.state().trouble is None


async def test_what_cannot_be_deleted_before_a_restart_is_deleted_after_it(make, bucket):
    blobs = await make()
    blob = await put(blobs, b"data")
    bucket.failure = AWAY
    await blobs.delete(blob.hash, untouched_since=time.time() + 60)
    bucket.failure = None
    await (await make()).tidy()
    assert bucket.kept == {}


async def test_bytes_that_come_again_are_not_hit_by_a_deletion_that_comes_late(make, bucket, monkeypatch):
    """A gateway decides, is stopped before it asks the bucket, and is taken over; the new one gets the same bytes."""
    old = await make()
    blob = await put(old, b"data")
    deleting, stopped, goes_on = bucket.delete, asyncio.Event(), asyncio.Event()

    async def delete_late(key):
        stopped.set()
        await goes_on.wait()
        await deleting(key)

    monkeypatch.setattr(bucket, "delete", delete_late)
    late = asyncio.create_task(old.delete(blob.hash, untouched_since=time.time() + 60))
    await stopped.wait()
    new = await make()
    await put(new, b"data")
    goes_on.set()
    await late
    assert await read(new, blob) == b"data"
    assert len(bucket.kept) == 1
    async with (await make(cache_bytes=1)).held(blob.hash) as path:
        assert path.read_bytes() == b"data"


async def test_who_has_lost_the_directory_deletes_nothing(make, bucket, hold):
    blobs = await make()
    blob = await put(blobs, b"data")
    hold["is"] = False
    assert not await blobs.delete(blob.hash, untouched_since=time.time() + 60)
    assert not await blobs.discard(blob)
    stray(bucket, Copy.new("c" * 64))
    assert not await blobs.delete("c" * 64, untouched_since=time.time() + 60)
    assert asked(bucket, "delete") == []


def stray(bucket, copy, data=b"stray", at=1000.0):
    """An object that a killed run has left."""
    bucket.kept[key_of(copy)] = Kept(data, at, "", None, hashlib.sha256(data).hexdigest())


async def test_objects_that_a_killed_run_left_are_found_and_deleted(make, bucket):
    blobs = await make()
    kept = await put(blobs, b"kept")
    old, young = Copy.new("a" * 64), Copy.new("b" * 64)
    stray(bucket, old)
    stray(bucket, young, at=5000.0)
    assert await blobs.untouched(since=2000.0) == [old.hash]
    assert await blobs.delete(old.hash, untouched_since=2000.0)
    assert not await blobs.delete(young.hash, untouched_since=2000.0)
    assert key_of(old) not in bucket.kept
    assert key_of(young) in bucket.kept
    assert await blobs.exists(kept.hash)


async def test_copies_that_another_took_the_place_of_go_unless_they_are_all_there_is(make, bucket):
    blobs = await make()
    blob = await put(blobs, b"data")
    (counts,) = bucket.kept
    stray(bucket, Copy.new(blob.hash), b"data")
    age(blobs, blob)
    assert await blobs.untouched(since=2000.0) == [blob.hash]
    assert list(bucket.kept) == [counts]
    stray(bucket, Copy.new(blob.hash), b"data")
    del bucket.kept[counts]
    await blobs.untouched(since=2000.0)
    assert len(bucket.kept) == 1
    async with (await make(cache_bytes=1)).held(blob.hash) as path:
        assert path.read_bytes() == b"data"


async def test_what_is_not_of_ours_in_the_bucket_is_left_alone(make, bucket, tmp_path):
    blobs = await make()
    for key in ("blobs/readme", "blobs/aa/" + "b" * 64 + ".12345678", "other/x"):
        await bucket.put(key, file_of(tmp_path, b"x"))
    assert await blobs.untouched(since=time.time() + 60) == []
    assert len(bucket.kept) == 3


async def test_a_restored_data_directory_reads_what_the_bucket_has(make, bucket, tmp_path):
    blob = await put(await make(), b"data")
    for mark in (tmp_path / "storage" / "marks").glob("??/*"):
        mark.unlink()
    again = await make()
    assert in_cache(tmp_path) == set()
    assert await read(again, blob) == b"data"
    async with again.held(blob.hash) as path:
        assert path.read_bytes() == b"data"
    await put(again, b"data")
    assert len(bucket.kept) == 2, "one without a mark is not relied on"


async def test_uploads_of_dead_runs_are_dropped_at_once_after_a_start_and_then_when_they_are_old(make, bucket):
    bucket.unfinished = {"blobs/aa/x": time.time() - 10, "other/x": 0.0}
    blobs = await make()
    await blobs.tidy()
    assert list(bucket.unfinished) == ["other/x"]
    bucket.unfinished["blobs/aa/y"] = 0.0
    await blobs.tidy()
    assert "blobs/aa/y" in bucket.unfinished, "asked once an hour"


# --------------------------------------------------------------------------------------------------- moving, and links


async def test_what_lay_on_the_disk_before_is_moved(tmp_path, bucket):
    local = LocalBlobs(tmp_path / "blobs")
    await local.prepare()
    blob = await put(local, b"before")
    await local.close()
    blobs = BucketBlobs(bucket, tmp_path / "storage", cache_bytes=1)
    bucket.failure = AWAY
    with pytest.raises(StorageUnreachableError):
        await blobs.prepare(earlier=tmp_path / "blobs")
    assert local.path(blob.hash).exists()
    bucket.failure = None
    assert await blobs.prepare(earlier=tmp_path / "blobs") == 1
    assert not local.path(blob.hash).exists()
    assert await read(blobs, blob) == b"before"
    assert await blobs.prepare(earlier=tmp_path / "blobs") == 0
    await blobs.close()


async def test_links_are_given_where_they_are_wanted_and_to_what_is_there(make, bucket):
    blob = await put(await make(), b"data")
    assert await (await make()).link(blob.hash, filename="a.png", content_type="image/png") is None
    linking = await make(links=True)
    link = await linking.link(blob.hash, filename="a.png", content_type="image/png")
    assert link == f"https://memory.test/{next(iter(bucket.kept))}?for=300&as=a.png&type=image/png&how=attachment"
    assert await linking.link("0" * 64, filename="a.png", content_type="image/png") is None

import asyncio
import errno
import os
import threading

import pytest
from blake3 import blake3

from gateway.blobs import parts
from gateway.blobs.local import READ_CHUNK_BYTES, WRITE_BATCH_BYTES, LocalBlobs
from gateway.errors import StorageFullError
from gateway.interfaces import Blob


@pytest.fixture
async def blobs(tmp_path):
    store = LocalBlobs(tmp_path / "blobs", floor_bytes=1000, free=lambda _folder: 10**12)
    await store.prepare()
    yield store
    await store.close()


def everything(tmp_path):
    return sorted(
        str(path.relative_to(tmp_path / "blobs")) for path in (tmp_path / "blobs").rglob("*") if path.is_file()
    )


async def put(blobs, data):
    async with await blobs.writer() as writer:
        await writer.write(data)
        return await writer.commit()


async def test_commit_puts_the_bytes_under_their_hash_readable_by_the_owner_only(blobs, tmp_path):
    blob = await put(blobs, b"hello")
    name = blake3(b"hello").hexdigest()
    assert blob == Blob(hash=name, size_bytes=5)
    assert everything(tmp_path) == [f"{name[:2]}/{name}"]
    assert blobs.path(name).read_bytes() == b"hello"
    assert blobs.path(name).stat().st_mode & 0o777 == 0o600
    for folder in (tmp_path / "blobs", tmp_path / "blobs" / "parts", blobs.path(name).parent):
        assert folder.stat().st_mode & 0o777 == 0o700


async def test_many_small_writes_are_hashed_and_kept_in_order(blobs):
    pieces = [bytes([number % 256]) * 7001 for number in range(300)]
    async with await blobs.writer() as writer:
        for piece in pieces:
            await writer.write(piece)
        blob = await writer.commit()
    whole = b"".join(pieces)
    assert len(whole) > 3 * WRITE_BATCH_BYTES
    assert blob.hash == blake3(whole).hexdigest()
    assert blobs.path(blob.hash).read_bytes() == whole


async def test_empty_blob_is_a_blob(blobs):
    async with await blobs.writer() as writer:
        blob = await writer.commit()
    assert blob.size_bytes == 0
    assert await blobs.exists(blob.hash)
    assert [chunk async for chunk in blobs.stream(blob.hash)] == []


@pytest.mark.parametrize("size_bytes", [0, 10, WRITE_BATCH_BYTES + 1])
async def test_leaving_without_commit_leaves_nothing(blobs, tmp_path, size_bytes):
    async with await blobs.writer() as writer:
        await writer.write(b"x" * size_bytes)
    assert everything(tmp_path) == []


async def test_error_inside_leaves_nothing(blobs, tmp_path):
    async def fail():
        async with await blobs.writer() as writer:
            await writer.write(b"x" * WRITE_BATCH_BYTES)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert everything(tmp_path) == []


async def test_cancel_while_a_thread_still_writes_leaves_nothing(blobs, tmp_path, monkeypatch):
    began, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    real = parts.write_all

    def slow(file, data):
        loop.call_soon_threadsafe(began.set)
        assert may_end.wait(5)
        real(file, data)

    monkeypatch.setattr(parts, "write_all", slow)

    async def upload():
        async with await blobs.writer() as writer:
            await writer.write(b"x" * WRITE_BATCH_BYTES)

    task = asyncio.create_task(upload(), name="upload")
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert everything(tmp_path) == []


@pytest.mark.parametrize("way", ["commit", "adopt"])
@pytest.mark.parametrize("was_there", [False, True])
async def test_a_commit_whose_caller_was_canceled_is_taken_back(blobs, tmp_path, monkeypatch, way, was_there):
    """Nobody heard of it, so nobody else could."""
    before = [(await put(blobs, b"x")).hash] if was_there else []
    began, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    real = blobs._adopt

    def slow(part, blob_hash):
        loop.call_soon_threadsafe(began.set)
        assert may_end.wait(5)
        real(part, blob_hash)

    monkeypatch.setattr(blobs, "_adopt", slow)
    ended, take_back = asyncio.Event(), blobs._take_back
    monkeypatch.setattr(blobs, "_take_back", lambda committed: (take_back(committed), ended.set()))
    (tmp_path / "result").write_bytes(b"x")
    work = put(blobs, b"x") if way == "commit" else blobs.adopt(tmp_path / "result")
    task = asyncio.create_task(work, name="commit")
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()
    await blobs.close()
    assert [name.rpartition("/")[2] for name in everything(tmp_path)] == before


async def test_write_after_commit_is_refused(blobs):
    async with await blobs.writer() as writer:
        await writer.commit()
        with pytest.raises(ValueError, match="committed"):
            await writer.write(b"x" * WRITE_BATCH_BYTES)
    async with await blobs.writer() as writer:
        await writer.abort()
        with pytest.raises(ValueError, match="dropped"):
            await writer.commit()


async def test_prepare_sweeps_parts_of_a_killed_run_and_nothing_else(blobs, tmp_path):
    blob = await put(blobs, b"kept")
    (tmp_path / "blobs" / "parts" / "0123.part").write_bytes(b"half")
    assert await LocalBlobs(tmp_path / "blobs").prepare() == 1
    assert everything(tmp_path) == [f"{blob.hash[:2]}/{blob.hash}"]


async def test_same_bytes_twice_are_one_file_with_a_new_time(blobs, tmp_path):
    blob = await put(blobs, b"twice")
    os.utime(blobs.path(blob.hash), (1, 1))
    assert await put(blobs, b"twice") == blob
    assert len(everything(tmp_path)) == 1
    assert blobs.path(blob.hash).stat().st_mtime > 1


async def test_stream_gives_any_part_in_bounded_chunks(blobs):
    data = bytes(range(256)) * 5000
    blob = await put(blobs, data)
    for start, end in [
        (0, None),
        (0, 0),
        (1, 2),
        (READ_CHUNK_BYTES - 1, READ_CHUNK_BYTES + 1),
        (len(data) - 3, len(data) + 9),
    ]:
        chunks = [chunk async for chunk in blobs.stream(blob.hash, start, end)]
        assert b"".join(chunks) == data[start:end]
        assert all(0 < len(chunk) <= READ_CHUNK_BYTES for chunk in chunks)


async def test_stream_notices_that_the_blob_was_deleted_midway(blobs):
    blob = await put(blobs, b"x" * (READ_CHUNK_BYTES + 1))
    stream = blobs.stream(blob.hash)
    await anext(stream)
    blobs.path(blob.hash).unlink()
    with pytest.raises(FileNotFoundError):
        await anext(stream)


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "g" * 64, "a/" + "b" * 62]
)
async def test_what_is_no_hash_never_becomes_a_path(blobs, name):
    with pytest.raises(ValueError, match="hex digits"):
        blobs.path(name)
    with pytest.raises(ValueError, match="hex digits"):
        await blobs.exists(name)


async def test_delete_spares_what_was_touched_since(blobs):
    blob = await put(blobs, b"x")
    os.utime(blobs.path(blob.hash), (1000, 1000))
    assert not await blobs.delete(blob.hash, untouched_since=1000.0)
    assert await blobs.exists(blob.hash)
    assert await blobs.delete(blob.hash, untouched_since=1000.5)
    assert not await blobs.exists(blob.hash)
    assert not await blobs.delete(blob.hash, untouched_since=1000.5)


async def test_discard_takes_back_a_commit_that_led_to_nothing(blobs, tmp_path):
    blob = await put(blobs, b"x")
    assert await blobs.discard(blob)
    assert everything(tmp_path) == []
    assert not await blobs.discard(blob)


async def test_discard_spares_bytes_that_were_there_before(blobs, tmp_path):
    blob = await put(blobs, b"x")
    again = LocalBlobs(tmp_path / "blobs", free=lambda _folder: 10**12)
    await again.prepare()
    await put(again, b"x")
    assert not await again.discard(blob)
    assert await blobs.exists(blob.hash)


async def test_discard_spares_bytes_that_somebody_committed_since(blobs):
    first = await put(blobs, b"x")
    await put(blobs, b"x")
    assert not await blobs.discard(first)
    assert await blobs.exists(first.hash)


async def former_holder(tmp_path, holds):
    """Blobs of a gateway that is taken over when it asks whether it still holds the folder: after its rename."""
    made = LocalBlobs(tmp_path / "blobs", free=lambda _folder: 10**12, holds=holds)
    await made.prepare()
    return made


@pytest.mark.parametrize("way", ["delete", "discard"])
@pytest.mark.parametrize("commits_again", [True, False])
async def test_former_holder_takes_no_bytes_from_the_new_one(tmp_path, blobs, way, commits_again):
    """Stopped between the rows and the bytes of a sweep, it must not delete what the new holder was given since."""

    def taken_over():
        if commits_again:
            asyncio.run(put(blobs, b"shared"))
        return False

    former = await former_holder(tmp_path, taken_over)
    blob = await put(former, b"shared")
    if way == "delete":
        assert not await former.delete(blob.hash, untouched_since=2.0**40)
    else:
        assert not await former.discard(blob)
    assert everything(tmp_path) == [f"{blob.hash[:2]}/{blob.hash}"]
    assert blobs.path(blob.hash).read_bytes() == b"shared"
    await former.close()


async def test_bytes_that_were_touched_while_they_went_come_back_as_new(tmp_path, blobs):
    blob = await put(blobs, b"shared")
    os.utime(blobs.path(blob.hash), (1000, 1000))

    def touched():
        [doomed] = (tmp_path / "blobs" / "parts").iterdir()
        os.utime(doomed, (3000, 3000))
        return True

    other = LocalBlobs(tmp_path / "blobs", holds=touched)
    assert not await other.delete(blob.hash, untouched_since=2000.0)
    assert blobs.path(blob.hash).stat().st_mtime > 3000
    await other.close()


async def test_former_holder_finds_its_parts_swept_by_the_new_one_and_lets_go(tmp_path, blobs):
    blob = await put(blobs, b"x")

    def swept():
        assert asyncio.run(LocalBlobs(tmp_path / "blobs").prepare()) == 1
        return True

    former = LocalBlobs(tmp_path / "blobs", holds=swept)
    assert not await former.delete(blob.hash, untouched_since=2.0**40)
    assert everything(tmp_path) == [f"{blob.hash[:2]}/{blob.hash}"], "the new one decides anew"
    await former.close()


async def test_deletion_that_a_kill_cut_short_is_undone_by_prepare(tmp_path, blobs):
    blob = await put(blobs, b"x")
    blobs.path(blob.hash).rename(tmp_path / "blobs" / "parts" / f"{blob.hash}.0123.doomed")
    (tmp_path / "blobs" / "parts" / "no hash.doomed").touch()
    assert await LocalBlobs(tmp_path / "blobs").prepare() == 2
    assert everything(tmp_path) == [f"{blob.hash[:2]}/{blob.hash}"]
    assert blobs.path(blob.hash).read_bytes() == b"x"


async def test_untouched_lists_old_blobs_only(blobs):
    old, new = await put(blobs, b"old"), await put(blobs, b"new")
    os.utime(blobs.path(old.hash), (1000, 1000))
    assert await blobs.untouched(since=2000.0) == [old.hash]
    assert sorted(await blobs.untouched(since=2**40)) == sorted([old.hash, new.hash])


@pytest.mark.parametrize(
    ("free", "expected", "fits"),
    [(999, None, False), (1000, None, True), (5_000_000, 2_500_000, True), (5_000_000, 2_500_001, False)],
)
async def test_room_is_asked_for_before_a_writer_is_given(tmp_path, free, expected, fits):
    blobs = LocalBlobs(tmp_path, floor_bytes=1000, free=lambda _folder: free)
    await blobs.prepare()
    if fits:
        await blobs.writer(expected_bytes=expected)
    else:
        with pytest.raises(StorageFullError) as caught:
            await blobs.writer(expected_bytes=expected)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(("free", "fits"), [(5000, True), (4999, False), (999, False)])
async def test_room_for_what_is_small_is_asked_for_when_it_is_written(tmp_path, free, fits):
    blobs = LocalBlobs(tmp_path / "blobs", floor_bytes=1000, free=lambda _folder: free)
    await blobs.prepare()
    async with await blobs.writer(expected_bytes=2500) as writer:
        await writer.write(b"x")
        if fits:
            await writer.commit()
        else:
            with pytest.raises(StorageFullError):
                await writer.commit()
    assert len(everything(tmp_path)) == fits


async def test_a_small_file_takes_one_step_in_the_threads(blobs, monkeypatch):
    steps = []
    submit = blobs._threads.submit
    monkeypatch.setattr(blobs._threads, "submit", lambda *work: steps.append(work) or submit(*work))
    async with await blobs.writer(expected_bytes=5) as writer:
        await writer.write(b"he")
        await writer.write(b"llo")
        assert (await writer.commit()).size_bytes == 5
    assert len(steps) == 1


async def test_disk_that_fills_up_ends_the_write_and_leaves_nothing(tmp_path):
    free = [10**9]
    blobs = LocalBlobs(tmp_path / "blobs", floor_bytes=1000, free=lambda _folder: free[0])
    await blobs.prepare()

    async def fill():
        async with await blobs.writer() as writer:
            free[0] = 999
            for _ in range(40):
                await writer.write(b"x" * WRITE_BATCH_BYTES)

    with pytest.raises(StorageFullError):
        await fill()
    assert everything(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_full_disk_is_told_as_such(blobs, tmp_path, monkeypatch, number):
    def full(_file, _data):
        raise OSError(number, "full")

    monkeypatch.setattr(parts, "write_all", full)
    with pytest.raises(StorageFullError):
        await put(blobs, b"x")
    assert everything(tmp_path) == []


async def test_other_disk_errors_are_not_called_full(blobs, tmp_path, monkeypatch):
    def broken(_file, _data):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(parts, "write_all", broken)
    with pytest.raises(OSError, match="broken"):
        await put(blobs, b"x")
    assert everything(tmp_path) == []

"""Purge and backup on the engine: rows, then bytes; a tar that unpacks to what was there."""

from __future__ import annotations

import io
import stat
import tarfile

import pytest

from gateway.blobs.local import LocalBlobs
from gateway.engine.archive import Archive
from gateway.engine.assets import Upload
from gateway.engine.backup import DamagedBlobError
from gateway.errors import BusyError, ConflictError, NotFoundError
from gateway.interfaces import Blob
from gateway.sniffing import ANY_FILE
from tests.fakes.clock import FrozenClock


async def finished(engine, **inputs):
    gpu = next(iter(engine.upstreams.values()))
    job_id = await engine.submit(**inputs)
    engine.finish(gpu, b"image:" + job_id.encode())
    await engine.until("succeeded", job_id)
    return job_id


async def test_purged_jobs_bytes_are_gone_at_once(engine):
    await engine.start(engine.new_upstream())
    job_id = await finished(engine)
    assert len(engine.blobs.stored) == 3
    purge = await engine.service.archive.purge_job(job_id)
    assert (purge.jobs, purge.files, purge.blobs) == (1, 3, 3)
    assert engine.blobs.stored == {}
    with pytest.raises(NotFoundError):
        await engine.service.archive.purge_job(job_id)


async def test_bytes_that_another_job_or_upload_needs_stay(engine):
    await engine.start(engine.new_upstream())
    first = await finished(engine, face=b"image:shared")
    second = await finished(engine, target=b"image:other", face=b"image:shared")
    engine.clock.advance(1)
    uploaded = engine.blobs.put(b"image:target")  # somebody sends the same again, and is not done yet
    await engine.service.archive.purge_job(first)
    left = set(engine.blobs.stored.values())
    assert left == {b"image:target", b"image:shared", b"image:other", b"image:" + second.encode()}
    assert await engine.store.forget_blob(uploaded.hash)


async def test_live_job_keeps_its_bytes(engine):
    await engine.start(engine.new_upstream())
    job_id = await engine.submit()
    for refused in (engine.service.archive.purge_job(job_id), engine.service.archive.purge_owner("local")):
        with pytest.raises(ConflictError):
            await refused
    assert len(engine.blobs.stored) == 2


async def test_owner_is_purged_whole(engine):
    await engine.start(engine.new_upstream())
    for number in range(3):
        await finished(engine, target=b"image:%d" % number)
    purge = await engine.service.archive.purge_owner("local")
    assert (purge.jobs, purge.blobs) == (3, 7)
    assert engine.blobs.stored == {}


async def test_owner_is_purged_with_uploads_and_nobody_elses(engine):
    await engine.start(engine.new_upstream())
    await finished(engine)
    for owner in ("local", "bob"):
        blob = engine.blobs.put(b"words of " + owner.encode())
        await engine.service.assets.upload(Upload(owner, blob, ANY_FILE, "text/plain", "words.txt"))
    purge = await engine.service.archive.purge_owner("local")
    assert (purge.jobs, purge.files, purge.blobs) == (1, 4, 4)
    assert set(engine.blobs.stored.values()) == {b"words of bob"}


# ---- the tar


class Copier:
    """A store of a few blobs, whose copy is a text."""

    def __init__(self, *blobs: Blob) -> None:
        self.blobs = sorted(blobs, key=lambda blob: blob.hash)

    async def copy_to(self, path):
        path.write_bytes(b"rows " * 1000)

    async def blobs_of_copy(self, path, *, after, limit):
        assert path.exists()
        return [blob for blob in self.blobs if blob.hash > after][:2]


@pytest.fixture
async def blobs(tmp_path):
    made = LocalBlobs(tmp_path / "blobs", floor_bytes=0)
    await made.prepare()
    yield made
    await made.close()


async def put(blobs, data):
    async with await blobs.writer() as writer:
        await writer.write(data)
        return await writer.commit()


async def whole(made):
    async with made.backup() as chunks:
        return [piece async for piece in chunks]


def archive(copier, blobs, tmp_path):
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return Archive(copier, blobs, FrozenClock(), tmp_path / "scratch")


async def test_tar_holds_database_and_blobs_for_their_owner_alone(blobs, tmp_path):
    files = {(await put(blobs, data)): data for data in (b"", b"x" * 512, b"y" * 513, b"z" * 3_000_000, b"w")}
    gone = Blob("a" * 64, 5)  # its retention ended while the tar was written
    made = archive(Copier(*files, gone), blobs, tmp_path)
    pieces = await whole(made)
    assert max(map(len, pieces)) <= 1024 * 1024
    assert list((tmp_path / "scratch").iterdir()) == []
    data = b"".join(pieces)
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
        assert tar.extractfile("gateway.db").read() == b"rows " * 1000
        for blob, content in files.items():
            assert tar.extractfile(f"blobs/{blob.hash[:2]}/{blob.hash}").read() == content
    assert {stat.S_IMODE(member.mode) for member in members.values() if member.isfile()} == {0o600}
    assert {stat.S_IMODE(member.mode) for member in members.values() if member.isdir()} == {0o700}
    assert len([member for member in members.values() if member.isfile()]) == 1 + len(files)


async def test_second_backup_waits_its_turn_and_one_broken_off_leaves_nothing(blobs, tmp_path):
    made = archive(Copier(), blobs, tmp_path)
    async with made.backup() as chunks:
        await anext(chunks)
        with pytest.raises(BusyError):
            async with made.backup():
                pass
    assert list((tmp_path / "scratch").iterdir()) == []
    async with made.backup():
        pass


async def test_file_shorter_than_the_database_says_breaks_the_backup(blobs, tmp_path):
    blob = await put(blobs, b"whole")
    blobs.path(blob.hash).write_bytes(b"who")
    made = archive(Copier(blob), blobs, tmp_path)
    with pytest.raises(DamagedBlobError):
        await whole(made)
    assert list((tmp_path / "scratch").iterdir()) == []

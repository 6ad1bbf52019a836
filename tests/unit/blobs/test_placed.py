"""A store that also answers for what lies at a delivery target only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.blobs.placed import SWEEP_SECONDS, PlacedBlobs
from gateway.direct import ARRIVAL_SECONDS, ARRIVALS
from gateway.errors import StorageUnreachableError
from gateway.interfaces import Blob
from gateway.placed import Placed
from tests.fakes.blobs import MemoryBlobs
from tests.fakes.bucket import MemoryBucket
from tests.fakes.clock import FrozenClock

PLACED = Placed("archive", "job/one.mp4", "ab" * 32)


class Stores:
    """Both, with one file in each."""

    def __init__(self, path, **options):
        self.clock = FrozenClock()
        self.inner = MemoryBlobs(self.clock)
        self.bucket = MemoryBucket(self.clock.now)
        self.path = path
        self.ours = self.inner.put(b"ours")
        buckets = {"archive": self.bucket}
        self.blobs = PlacedBlobs(self.inner, buckets, direct=("archive",), now=self.clock.now, **options)

    async def put(self, key, data):
        self.path.write_bytes(data)
        await self.bucket.put(key, self.path)
        # As of a storage that keeps no metadata.
        self.bucket.kept[key] = replace(self.bucket.kept[key], sha256=None)


@pytest.fixture
async def stores(tmp_path):
    made = Stores(tmp_path / "file")
    await made.put(PLACED.key, b"elsewhere")
    return made


async def read(blobs, name, *span):
    return b"".join([chunk async for chunk in blobs.stream(name, *span)])


async def test_both_are_there_and_are_read_in_spans(stores):
    for name, data in ((stores.ours.hash, b"ours"), (PLACED.name, b"elsewhere")):
        assert await stores.blobs.exists(name)
        assert await read(stores.blobs, name) == data
        assert await read(stores.blobs, name, 1, 3) == data[1:3]


async def test_what_its_owner_has_deleted_there_is_not_there(stores):
    await stores.bucket.delete(PLACED.key)
    assert not await stores.blobs.exists(PLACED.name)
    with pytest.raises(FileNotFoundError):
        await read(stores.blobs, PLACED.name)


async def test_another_file_in_its_place_is_not_it(stores, tmp_path):
    kept = stores.bucket.kept[PLACED.key]
    stores.bucket.kept[PLACED.key] = replace(kept, sha256=PLACED.sha256)
    assert await stores.blobs.exists(PLACED.name)
    stores.bucket.kept[PLACED.key] = replace(kept, sha256="cd" * 32)
    assert not await stores.blobs.exists(PLACED.name)
    linking = PlacedBlobs(stores.inner, {"archive": stores.bucket}, links=True)
    assert await linking.link(PLACED.name, filename="a.mp4", content_type="video/mp4") is None


async def test_nor_is_what_lies_at_a_target_that_the_settings_no_longer_name(stores):
    gone = Placed("gone", PLACED.key, PLACED.sha256).name
    assert not await stores.blobs.exists(gone)
    assert await stores.blobs.link(gone, filename="a.mp4", content_type="video/mp4") is None
    assert not await stores.blobs.discard(Blob(gone, 9))
    with pytest.raises(FileNotFoundError):
        await read(stores.blobs, gone)


async def test_no_file_here_can_be_worked_on(stores):
    async with stores.blobs.held(stores.ours.hash):
        pass
    with pytest.raises(FileNotFoundError):
        async with stores.blobs.held(PLACED.name):
            pass


async def test_retention_leaves_it_alone_and_what_no_job_got_is_deleted(stores):
    assert not await stores.blobs.delete(PLACED.name, untouched_since=float("inf"))
    assert PLACED.key in stores.bucket.kept
    assert await stores.blobs.untouched(since=float("inf")) == [stores.ours.hash]
    assert await stores.blobs.discard(Blob(PLACED.name, 9))
    assert PLACED.key not in stores.bucket.kept
    assert await stores.blobs.discard(stores.ours)


async def test_a_storage_that_is_away_keeps_it(stores):
    stores.bucket.failure = StorageUnreachableError("down", reason="down")
    assert not await stores.blobs.discard(Blob(PLACED.name, 9))


async def test_links_lead_there_where_downloads_are_sent_on(stores, tmp_path):
    assert await stores.blobs.link(PLACED.name, filename="a.mp4", content_type="video/mp4") is None
    sending = Stores(tmp_path / "file", links=True)
    assert await sending.blobs.link(PLACED.name, filename="a.mp4", content_type="video/mp4") is None, "it is not there"
    await sending.put(PLACED.key, b"elsewhere")
    link = await sending.blobs.link(PLACED.name, filename="a.mp4", content_type="video/mp4")
    assert link.startswith(f"https://memory.test/{PLACED.key}?")


async def test_arrivals_that_nobody_took_over_go_and_nothing_else_does(stores):
    await stores.put(f"{ARRIVALS}prompt/6", b"late")
    stores.clock.advance(ARRIVAL_SECONDS - 1)
    await stores.put(f"{ARRIVALS}prompt/7", b"new")
    await stores.blobs.tidy()
    assert len(stores.bucket.kept) == 3
    stores.clock.advance(SWEEP_SECONDS)
    await stores.blobs.tidy()
    assert set(stores.bucket.kept) == {PLACED.key, f"{ARRIVALS}prompt/7"}


async def test_a_target_that_is_away_holds_up_no_sweep(stores):
    stores.bucket.failure = StorageUnreachableError("down", reason="down")
    await stores.blobs.tidy()
    assert ("listed", ARRIVALS) in stores.bucket.asked
    before = len(stores.bucket.asked)
    await stores.blobs.tidy()
    assert len(stores.bucket.asked) == before, "it is asked once an hour"

"""Whose a prefix is, over a bucket in memory."""

import time

import pytest

from gateway.blobs.bucket import BucketBlobs
from gateway.blobs.claim import OWNER, Claim, TakenError
from gateway.errors import StorageUnreachableError
from tests.fakes.bucket import MemoryBucket


@pytest.fixture
def bucket():
    return MemoryBucket(time.time)


@pytest.fixture
def claim(bucket, tmp_path):
    def claim(name="a"):
        (tmp_path / name).mkdir(exist_ok=True)
        return Claim(bucket, tmp_path / name / "id")

    return claim


async def test_the_first_takes_it_and_keeps_it_over_restarts(bucket, claim):
    await claim().require()
    named = bucket.kept[OWNER].data
    await claim().require()
    assert bucket.kept[OWNER].data == named


async def test_another_is_refused_and_takes_nothing(bucket, claim):
    await claim("a").require()
    named = bucket.kept[OWNER].data
    with pytest.raises(TakenError) as told:
        await claim("b").require()
    assert told.value.is_refusal
    assert f"as {bucket.location(OWNER)} says" in told.value.reason
    assert bucket.kept[OWNER].data == named
    # Whoever knows that the first is gone takes its name away.
    await bucket.delete(OWNER)
    await claim("b").require()
    with pytest.raises(TakenError):
        await claim("a").require()


async def test_of_two_who_come_at_once_one_finds_that_the_other_has_it(bucket, claim, monkeypatch):
    putting = bucket.put

    async def slow(key, path, **options):
        """Somebody else comes between our look and our name."""
        monkeypatch.setattr(bucket, "put", putting)
        await claim("b").require()
        return await putting(key, path, **options)

    monkeypatch.setattr(bucket, "put", slow)
    await claim("a").require()
    with pytest.raises(TakenError):
        await claim("b").require()


async def test_who_cannot_ask_does_not_know(bucket, claim):
    bucket.failure = StorageUnreachableError("away", reason="EndpointConnectionError")
    with pytest.raises(StorageUnreachableError) as told:
        await claim().require()
    assert not isinstance(told.value, TakenError)


async def test_on_a_prefix_of_somebody_elses_nothing_is_told_to_be_nobodys(bucket, claim, tmp_path):
    await claim("b").require()
    blobs = BucketBlobs(bucket, tmp_path / "a" / "storage", cache_bytes=1000, claim=claim("a"))
    await blobs.prepare()
    bucket.unfinished["blobs/aa/x"] = 1.0
    bucket.asked.clear()
    with pytest.raises(TakenError):
        await blobs.untouched(since=time.time() + 60)
    await blobs.tidy()
    assert bucket.unfinished == {"blobs/aa/x": 1.0}
    assert {name for name, _ in bucket.asked} == {"stream"}
    await blobs.close()

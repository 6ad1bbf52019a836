import importlib.util
from contextlib import AsyncExitStack

import pytest

from gateway import storage_builder
from gateway.blobs.bucket import BucketBlobs
from gateway.blobs.local import LocalBlobs
from gateway.blobs.placed import PlacedBlobs
from gateway.data_dir import StartError
from gateway.errors import StorageUnreachableError
from gateway.object_url import parse_object_url
from gateway.settings import from_mapping
from gateway.storage_builder import open_blobs, open_bucket
from tests.fakes.bucket import MemoryBucket
from tests.tools.object_servers import know_us

PLACE = parse_object_url("s3://faces/p?endpoint=http://127.0.0.1:1", setting="X")


async def test_a_bucket_is_made_and_nobody_is_asked(monkeypatch):
    know_us(monkeypatch)
    bucket = await open_bucket(PLACE, setting="GATEWAY_STORAGE_URL", ca_file=None)
    assert bucket.location("k") == "s3://faces/p/k"
    await bucket.close()


async def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(StartError, match=r"GATEWAY_STORAGE_URL needs boto3: pip install 'comfygate\[s3\]'"):
        await open_bucket(PLACE, setting="GATEWAY_STORAGE_URL", ca_file=None)


async def test_missing_credentials_are_told_with_the_names_to_set(monkeypatch):
    know_us(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        StartError, match="GATEWAY_STORAGE_URL is set, and there are no credentials: set AWS_ACCESS_KEY_ID"
    ):
        await open_bucket(PLACE, setting="GATEWAY_STORAGE_URL", ca_file=None)


async def test_a_ca_file_that_is_none_is_told(monkeypatch, tmp_path):
    know_us(monkeypatch)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(StartError, match="GATEWAY_CA_FILE cannot be read or holds no certificate"):
        await open_bucket(PLACE, setting="GATEWAY_STORAGE_URL", ca_file=tmp_path / "ca.pem")


def settings(**values):
    return from_mapping(values)


URL = "s3://faces/p?endpoint=http://127.0.0.1:1"


async def opened(folder, **values):
    folder.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        blobs = await open_blobs(stack, settings(**values), folder)
        assert isinstance(blobs, PlacedBlobs)
        return type(blobs.inner)


@pytest.fixture
def bucket(monkeypatch):
    """What every URL leads to."""
    made = MemoryBucket()

    async def open_memory(_place, **_):
        return made

    monkeypatch.setattr(storage_builder, "open_bucket", open_memory)
    return made


async def test_files_lie_on_the_disk_unless_a_bucket_is_named(tmp_path, bucket):
    assert await opened(tmp_path) is LocalBlobs
    assert not (tmp_path / "storage").exists()
    assert await opened(tmp_path, storage_url=URL) is BucketBlobs
    assert (tmp_path / "storage" / "place").read_text() == "s3://faces/p/\n"
    assert list(bucket.kept) == ["owner"]


@pytest.mark.parametrize("other", [None, "s3://faces/q?endpoint=http://127.0.0.1:1"])
@pytest.mark.parametrize("mark", ["aa/" + "a" * 64, "doomed/" + "a" * 64 + ".0"])
async def test_a_data_directory_belongs_to_where_files_of_its_lie(tmp_path, bucket, other, mark):
    await opened(tmp_path, storage_url=URL)
    path = tmp_path / "storage" / "marks" / mark
    path.parent.mkdir(exist_ok=True)
    path.write_text("0" * 8)
    with pytest.raises(StartError, match=r"lie in s3://faces/p/: let GATEWAY_STORAGE_URL name that place"):
        await opened(tmp_path, storage_url=other)
    # The server may have another name by now.
    assert await opened(tmp_path, storage_url=URL.replace("127.0.0.1", "localhost")) is BucketBlobs


@pytest.mark.parametrize("other", [None, "s3://faces/q?endpoint=http://127.0.0.1:1"])
async def test_a_place_where_nothing_ever_lay_binds_nobody(tmp_path, bucket, other):
    await opened(tmp_path, storage_url=URL)
    await opened(tmp_path, storage_url=other)
    place = tmp_path / "storage" / "place"
    assert (place.read_text() if place.exists() else None) == (None if other is None else "s3://faces/q/\n")


async def test_a_prefix_of_another_data_directory_is_left_alone(tmp_path, bucket):
    await opened(tmp_path / "a", storage_url=URL)
    with pytest.raises(
        StartError, match=r"s3://faces/p/ holds the files of another data directory.*delete s3://faces/p/owner"
    ):
        await opened(tmp_path / "b", storage_url=URL)
    await opened(tmp_path / "a", storage_url=URL)


async def test_where_nobody_says_whose_it_is_the_gateway_starts_all_the_same(tmp_path, bucket):
    bucket.failure = StorageUnreachableError("away", reason="EndpointConnectionError")
    assert await opened(tmp_path, storage_url=URL) is BucketBlobs


async def test_what_lay_on_the_disk_must_be_moved_first(tmp_path, bucket):
    bucket.failure = StorageUnreachableError("away", reason="EndpointConnectionError")
    (tmp_path / "blobs" / "aa").mkdir(parents=True)
    (tmp_path / "blobs" / "aa" / ("a" * 64)).write_bytes(b"x")
    with pytest.raises(StartError, match=r"could not be moved to s3://faces/p/ \(EndpointConnectionError\)"):
        await opened(tmp_path, storage_url=URL)
    bucket.failure = None
    await opened(tmp_path, storage_url=URL)
    assert [kept.data for key, kept in bucket.kept.items() if key != "owner"] == [b"x"]

"""Against a bucket in memory, and nobody; ``tests/system/test_storage.py`` asks servers."""

import time
from types import SimpleNamespace

import pytest

from gateway.blobs.claim import Claim
from gateway.cli import checks_storage
from gateway.cli.checks_storage import check_storage, check_targets
from gateway.cli.findings import Level
from gateway.errors import StorageUnreachableError
from gateway.settings import from_mapping
from tests.fakes.bucket import MemoryBucket
from tests.tools.object_servers import know_us

URL = "s3://faces/p?endpoint=http://127.0.0.1:1"


async def findings(**settings):
    return [found async for found in check_storage(from_mapping({"storage_url": URL, **settings}))]


@pytest.fixture
def bucket(monkeypatch):
    made = MemoryBucket(time.time)

    async def open_bucket(_place, *, setting, ca_file, give_up_seconds):
        assert give_up_seconds < 10  # somebody waits
        return made

    monkeypatch.setattr(checks_storage, "open_bucket", open_bucket)
    return made


async def test_nothing_is_said_where_there_is_none():
    assert await findings(storage_url=None) == []


async def test_a_bucket_that_does_all_is_fine_and_is_left_as_it_was(bucket):
    (found,) = await findings()
    assert found.level is Level.OK
    assert bucket.kept == {}


@pytest.mark.parametrize(
    ("what", "reason", "is_refusal", "says", "remedy"),
    [
        ("listed", "ListObjectsV2: AccessDenied (HTTP 403)", True, "list", "s3:ListBucket"),
        ("put", "PutObject: AccessDenied (HTTP 403)", True, "write", "s3:PutObject"),
        ("stream", "GetObject: AccessDenied (HTTP 403)", True, "read", "s3:GetObject"),
        ("delete", "DeleteObject: AccessDenied (HTTP 403)", True, "delete", "s3:DeleteObject"),
        ("abort_unfinished", "ListMultipartUploads: AccessDenied (HTTP 403)", True, "unfinished", "s3:ListBucketM"),
        ("listed", "ListObjectsV2: NoSuchBucket (HTTP 404)", True, "list", "make the bucket"),
        ("listed", "ListObjectsV2: SignatureDoesNotMatch (HTTP 403)", True, "list", "AWS_SECRET_ACCESS_KEY"),
        ("listed", "ListObjectsV2: PermanentRedirect (HTTP 301)", True, "list", "region"),
        ("listed", "EndpointConnectionError", False, "list", "endpoint"),
        ("listed", "SSLError CERTIFICATE_VERIFY_FAILED", False, "list", "GATEWAY_CA_FILE"),
    ],
)
async def test_what_cannot_be_done_is_told_with_the_remedy(bucket, what, reason, is_refusal, says, remedy):
    asking = bucket._ask

    def ask(name, key):
        asking(name, key)
        if name == what:
            raise StorageUnreachableError("away", reason=reason, is_refusal=is_refusal)

    bucket._ask = ask
    (found,) = await findings()
    assert found.level is Level.FAIL
    assert says in found.sentence
    assert reason in found.sentence
    assert remedy in found.remedy


async def test_a_prefix_of_another_data_directory_is_told_and_one_of_nobodys_not_taken(bucket, tmp_path):
    (tmp_path / "storage").mkdir()
    (found,) = await findings(data_dir=tmp_path)
    assert (found.level, bucket.kept) == (Level.OK, {})
    await Claim(bucket, tmp_path / "elsewhere").require()
    (found,) = await findings(data_dir=tmp_path)
    assert found.level is Level.FAIL
    assert "belongs to another data directory, as s3://memory/owner says" in found.sentence
    (tmp_path / "elsewhere").rename(tmp_path / "storage" / "id")
    (found,) = await findings(data_dir=tmp_path)
    assert found.level is Level.OK


async def test_nobody_who_does_not_answer_is_asked_again_and_again(bucket):
    bucket.failure = StorageUnreachableError("away", reason="ConnectTimeoutError")
    (found,) = await findings()
    assert found.level is Level.FAIL
    assert [name for name, _ in bucket.asked] == ["listed"]


async def test_what_was_written_is_taken_away_though_it_cannot_be_read(bucket):
    asking = bucket._ask

    def ask(name, key):
        asking(name, key)
        if name == "stream":
            raise StorageUnreachableError("no", reason="AccessDenied", is_refusal=True)

    bucket._ask = ask
    (found,) = await findings()
    assert "read" in found.sentence
    assert bucket.kept == {}


async def targets(*templates, **settings):
    settings = from_mapping({"delivery_targets": "archive=s3://bucket/results", **settings})
    return [found async for found in check_targets(settings, templates)]


async def test_a_target_that_takes_what_is_put_is_fine_and_is_left_as_it_was(bucket):
    (found,) = await targets()
    assert (found.level, bucket.kept) == (Level.OK, {})
    assert "archive" in found.sentence


@pytest.mark.parametrize(("what", "level"), [("put", Level.FAIL), ("delete", Level.OK)])
async def test_a_target_need_not_let_anything_be_deleted(bucket, what, level):
    asking = bucket._ask

    def ask(name, key):
        asking(name, key)
        if name == what:
            raise StorageUnreachableError("away", reason="AccessDenied (HTTP 403)", is_refusal=True)

    bucket._ask = ask
    (found,) = await targets()
    assert found.level is level
    assert ("s3:PutObject" in found.remedy) == (what == "put")


async def test_a_target_that_does_not_answer_is_named_with_its_setting(bucket):
    bucket.failure = StorageUnreachableError("away", reason="EndpointConnectionError")
    (found,) = await targets()
    assert found.level is Level.FAIL
    assert "GATEWAY_DELIVERY_TARGETS (archive)" in found.remedy


async def test_a_template_that_names_a_target_that_is_not_there_is_told(bucket):
    astray = SimpleNamespace(name="mine", deliver_to="elsewhere")
    known, plain = SimpleNamespace(name="a", deliver_to="archive"), SimpleNamespace(name="b", deliver_to=None)
    _, found = await targets(known, astray, plain)
    assert (found.level, "mine" in found.sentence, "elsewhere" in found.sentence) == (Level.FAIL, True, True)
    assert await targets(plain, delivery_targets="") == []


async def test_missing_credentials_are_told(monkeypatch):
    know_us(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (found,) = await findings()
    assert found.level is Level.FAIL
    assert "AWS_ACCESS_KEY_ID" in found.remedy


DIRECT = {"delivery_direct": "archive"}


async def test_a_target_that_upstreams_put_to_is_tried_as_it_is_used_and_left_as_it_was(bucket):
    _, found = await targets(**DIRECT)
    assert (found.level, bucket.kept) == (Level.OK, {})
    assert tuple(name for name, _ in bucket.asked if name in {"copy", "listed"}) == ("copy", "listed")


@pytest.mark.parametrize(("what", "right"), [("copy", "s3:GetObject and s3:PutObject"), ("listed", "s3:ListBucket")])
async def test_a_right_that_is_missing_for_it_is_a_warning_since_files_are_fetched_then(bucket, what, right):
    asking = bucket._ask

    def ask(name, key):
        asking(name, key)
        if name == what:
            raise StorageUnreachableError("away", reason="AccessDenied (HTTP 403)", is_refusal=True)

    bucket._ask = ask
    plain, found = await targets(**DIRECT)
    assert (plain.level, found.level) == (Level.OK, Level.WARN)
    assert right in found.remedy
    assert bucket.kept == {}


async def test_a_target_that_cannot_be_written_to_is_told_once(bucket):
    bucket.failure = StorageUnreachableError("away", reason="AccessDenied (HTTP 403)", is_refusal=True)
    (found,) = await targets(**DIRECT)
    assert found.level is Level.FAIL

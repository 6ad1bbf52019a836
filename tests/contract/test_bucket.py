"""What every implementation of ``interfaces.Bucket`` does: the fake, and ours on two servers that speak S3."""

import asyncio
import base64
import hashlib
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache

import httpx
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError
from botocore.response import StreamingBody

from gateway.errors import StorageUnreachableError
from gateway.object_url import ObjectUrl
from gateway.objects.s3 import Pace, S3Bucket
from gateway.objects.session import open_client
from gateway.objects.spans import FileSpan
from tests.fakes.bucket import MemoryBucket
from tests.tools.object_servers import SECRET_KEY, SERVERS
from tests.tools.plain_http import NO_TLS

MIB = 1024**2
#: In a hurry; parts as small as servers take them.
PACE = Pace(part_bytes=5 * MIB, multipart_from_bytes=5 * MIB, wait_seconds=(0.01, 0.05), give_up_seconds=0.5)
LARGE = hashlib.shake_128(b"large").digest(12 * MIB + 5)


#: To make a client takes a third of a second, and it is the same for all prefixes.
client_for = cache(lambda endpoint: open_client(ObjectUrl("any", endpoint=endpoint), connections=4))


@asynccontextmanager
async def opened(servers, name, prefix):
    bucket = MemoryBucket(time.time)
    if name != "memory":
        place = servers(name).place(prefix)
        # It is there and answers, however late; what is asked is what becomes of its answers.
        bucket = S3Bucket(place, client_for(place.endpoint), replace(PACE, give_up_seconds=60.0))
    try:
        yield bucket
    finally:
        await bucket.close()


@pytest.fixture(params=["memory", *SERVERS])
async def bucket(request, servers):
    # Each test has a prefix of its own: the servers live as long as the module.
    async with opened(servers, request.param, request.node.name.replace("[", "-").replace("]", "")) as bucket:
        yield bucket


@pytest.fixture(params=SERVERS)
async def served(request, servers):
    """Ours on a server; not the fake."""
    async with opened(servers, request.param, request.node.name.replace("[", "-").replace("]", "")) as bucket:
        yield bucket


def file_of(folder, data):
    path = folder / "file"
    path.write_bytes(data)
    return path


async def fetch(link, method="GET", **options):
    async with httpx.AsyncClient(verify=NO_TLS) as client:
        return await client.request(method, link, **options)


async def read(bucket, key, *span):
    return b"".join([chunk async for chunk in bucket.stream(key, *span)])


@pytest.mark.parametrize("data", [b"", b"0123456789", LARGE], ids=["empty", "small", "in parts"])
async def test_what_was_put_is_there_as_it_was(bucket, tmp_path, data):
    before = time.time()
    put = await bucket.put("a/b", file_of(tmp_path, data), content_type="image/png", filename="Gesicht ü.png")
    assert (put.key, put.size_bytes, put.sha256) == ("a/b", len(data), hashlib.sha256(data).hexdigest())
    found = await bucket.look("a/b")
    # rclone keeps no metadata, so it cannot say afterwards.
    assert replace(found, sha256=found.sha256 or put.sha256) == put
    assert before - 2 < found.modified_at < time.time() + 2
    assert await read(bucket, "a/b") == data


@pytest.mark.parametrize("span", [(0, 10), (3,), (3, 7), (9, 10), (10,), (12, 14), (5, 5)])
async def test_any_span_can_be_read(bucket, tmp_path, span):
    await bucket.put("k", file_of(tmp_path, b"0123456789"))
    assert await read(bucket, "k", *span) == b"0123456789"[slice(*span) if len(span) > 1 else slice(span[0], None)]


async def test_what_is_put_again_takes_the_place_of_the_first(bucket, tmp_path):
    await bucket.put("k", file_of(tmp_path, b"first"))
    await bucket.put("k", file_of(tmp_path, b"second"))
    assert await read(bucket, "k") == b"second"


async def test_what_is_not_there_is_not_there(bucket, tmp_path):
    assert await bucket.look("nothing") is None
    with pytest.raises(FileNotFoundError):
        await read(bucket, "nothing")
    with pytest.raises(FileNotFoundError):
        await bucket.put("k", tmp_path / "no file")
    assert await bucket.look("k") is None


async def test_deleting_makes_it_gone_and_may_be_repeated(bucket, tmp_path):
    await bucket.put("k", file_of(tmp_path, b"x"))
    await bucket.delete("k")
    assert await bucket.look("k") is None
    await bucket.delete("k")


async def test_a_listing_has_all_below_a_name_in_order(bucket, tmp_path):
    for key in ("b/2", "a/1", "b/1", "bc"):
        await bucket.put(key, file_of(tmp_path, key.encode()))
    assert [(found.key, found.size_bytes) async for found in bucket.listed("b/")] == [("b/1", 3), ("b/2", 3)]
    assert [found.key async for found in bucket.listed()] == ["a/1", "b/1", "b/2", "bc"]
    assert [found async for found in bucket.listed("nothing/")] == []


async def test_a_listing_of_many_comes_in_pages(served, tmp_path, monkeypatch):
    listing = served._client.list_objects_v2
    monkeypatch.setattr(served._client, "list_objects_v2", lambda **wanted: listing(MaxKeys=2, **wanted))
    for number in range(5):
        await served.put(f"k{number}", file_of(tmp_path, b"x"))
    assert [found.key async for found in served.listed()] == [f"k{number}" for number in range(5)]


async def test_a_prefix_shuts_others_out(servers, tmp_path):
    async with opened(servers, "moto", "ours") as ours, opened(servers, "moto", "ours-too") as others:
        await others.put("k", file_of(tmp_path, b"theirs"))
        assert [found async for found in ours.listed()] == []
        assert await ours.look("k") is None
        assert others.location("k") == "s3://faces/ours-too/k"


async def test_a_link_gives_the_bytes_with_the_name_and_type_that_it_was_made_with(served, tmp_path):
    await served.put("k", file_of(tmp_path, b"0123456789"), content_type="application/octet-stream")
    link = await served.presigned_get("k", seconds=60, filename="swap ü.mp4", content_type="video/mp4")
    answer = await fetch(link, headers={"Range": "bytes=2-4"})
    assert answer.content == b"234"
    assert answer.headers["content-range"] == "bytes 2-4/10"
    whole = await fetch(link)
    assert whole.content == b"0123456789"
    assert SECRET_KEY not in link


async def test_a_link_names_type_and_disposition_in_what_is_signed(served):
    link = httpx.URL(await served.presigned_get("k", seconds=60, filename="swap ü.mp4", content_type="video/mp4"))
    assert link.params["response-content-type"] == "video/mp4"
    assert link.params["response-content-disposition"].startswith('attachment; filename="swap _.mp4"; ')
    assert link.params["X-Amz-Expires"] == "60"
    assert link.params["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"


async def test_moto_obeys_what_a_link_says_of_name_and_type(servers, tmp_path):
    async with opened(servers, "moto", "links") as bucket:
        await bucket.put("k", file_of(tmp_path, b"x"))
        link = await bucket.presigned_get("k", seconds=60, filename="a.mp4", content_type="video/mp4")
        headers = (await fetch(link)).headers
        assert headers["content-type"] == "video/mp4"
        assert headers["content-disposition"].startswith('attachment; filename="a.mp4"')


async def test_a_link_takes_bytes(served):
    answer = await fetch(
        await served.presigned_put("up", seconds=60, content_type="image/png"),
        "PUT",
        content=b"pushed",
        headers={"Content-Type": "image/png"},
    )
    assert answer.is_success
    assert await read(served, "up") == b"pushed"


async def test_a_copy_has_the_bytes_and_says_of_itself_what_it_is_told_to(bucket, tmp_path):
    data = b"made elsewhere"
    await bucket.put("incoming/x", file_of(tmp_path, data))
    await bucket.copy("incoming/x", "kept/a.mp4", content_type="video/mp4", filename="a.mp4", sha256="ab" * 32)
    await bucket.delete("incoming/x")
    assert await read(bucket, "kept/a.mp4") == data
    found = await bucket.look("kept/a.mp4")
    assert found.size_bytes == len(data)
    assert found.sha256 in {None, "ab" * 32}, "what it is told, not what it is; rclone forgets it"
    assert await bucket.sha256_found("kept/a.mp4") in {None, hashlib.sha256(data).hexdigest()}


async def test_what_is_not_there_cannot_be_copied(bucket):
    with pytest.raises(FileNotFoundError):
        await bucket.copy("nothing", "kept", content_type="video/mp4", filename="a.mp4", sha256="ab" * 32)
    with pytest.raises(FileNotFoundError):
        await bucket.sha256_found("nothing")


async def test_moto_works_out_the_hash_of_a_copy_and_is_believed(servers, tmp_path):
    async with opened(servers, "moto", "hashes") as bucket:
        await bucket.put("incoming", file_of(tmp_path, b"bytes"))
        assert await bucket.sha256_found("incoming") is None
        await bucket.copy("incoming", "kept", content_type="video/mp4", filename="a.mp4", sha256="ab" * 32)
        assert await bucket.sha256_found("kept") == hashlib.sha256(b"bytes").hexdigest()


async def test_rclone_refuses_a_link_that_was_tampered_with(servers, tmp_path):
    async with opened(servers, "rclone", "tampered") as bucket:
        await bucket.put("k", file_of(tmp_path, b"x"))
        await bucket.put("other", file_of(tmp_path, b"y"))
        link = await bucket.presigned_get("k", seconds=60, filename="a", content_type="image/png")
        assert (await fetch(link)).status_code == 200
        assert (await fetch(link.replace("/k?", "/other?"))).status_code == 403


async def test_rclone_refuses_somebody_with_another_secret_and_we_say_so(servers, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    bucket = await S3Bucket.open(servers("rclone").place("x"), pace=PACE)
    with pytest.raises(StorageUnreachableError) as refused:
        await bucket.put("k", file_of(tmp_path, b"x"))
    assert refused.value.is_refusal
    assert refused.value.reason == "PutObject: SignatureDoesNotMatch (HTTP 403)"
    assert refused.value.retry_after_seconds
    await bucket.close()


async def test_a_bucket_that_is_not_there_is_a_refusal(servers, tmp_path):
    place = replace(servers("moto").place(), bucket="nobodys")
    bucket = S3Bucket(place, client_for(place.endpoint), PACE)
    with pytest.raises(StorageUnreachableError) as refused:
        await bucket.put("k", file_of(tmp_path, b"x"))
    assert refused.value.is_refusal
    assert "NoSuchBucket" in refused.value.reason
    await bucket.close()


async def test_who_cannot_be_reached_is_told_as_such(servers, tmp_path):
    place = servers("moto").place(endpoint="http://127.0.0.1:1")
    bucket = S3Bucket(place, client_for(place.endpoint), PACE)
    with pytest.raises(StorageUnreachableError) as failed:
        await bucket.put("k", file_of(tmp_path, b"x"))
    assert not failed.value.is_refusal
    assert failed.value.reason == "EndpointConnectionError"
    assert "127.0.0.1" not in failed.value.message
    await bucket.close()


async def test_uploads_of_dead_runs_are_dropped_and_others_not(served, servers):
    client = served._client
    begun = client.create_multipart_upload(**served._at("dead"))
    client.upload_part(**served._at("dead"), UploadId=begun["UploadId"], PartNumber=1, Body=b"x" * 5 * MIB)
    foreign = client.create_multipart_upload(Bucket="faces", Key="elsewhere/k")
    if served._client.meta.endpoint_url != servers("moto").endpoint:  # moto says of each that it was begun in 2010
        assert await served.abort_unfinished(older_than=time.time() - 60) == 0, "too young"
    assert await served.abort_unfinished(older_than=time.time() + 60, under="other/") == 0
    assert await served.abort_unfinished(older_than=time.time() + 60) == 1
    assert await served.abort_unfinished(older_than=time.time() + 60) == 0
    assert await served.look("dead") is None
    client.abort_multipart_upload(Bucket="faces", Key="elsewhere/k", UploadId=foreign["UploadId"])


def unfinished(bucket):
    return bucket._unfinished("")


async def test_an_upload_whose_parts_are_refused_leaves_nothing(served, tmp_path, monkeypatch):
    sending = served._client.upload_part

    def upload_part(**wanted):
        if wanted["PartNumber"] == 2:
            raise ClientError(
                {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "UploadPart"
            )
        return sending(**wanted)

    monkeypatch.setattr(served._client, "upload_part", upload_part)
    with pytest.raises(StorageUnreachableError, match="does not answer"):
        await served.put("k", file_of(tmp_path, LARGE))
    assert await served.look("k") is None
    assert served._unfinished("") == []


async def test_an_upload_that_somebody_aborts_is_begun_anew(servers, tmp_path, monkeypatch):
    # On rclone's: moto answers 500 to a part of an upload that is gone.
    async with opened(servers, "rclone", "aborted") as bucket:
        sending, aborted = bucket._client.upload_part, []

        def upload_part(**wanted):
            if not aborted:
                aborted.append(wanted["UploadId"])
                bucket._client.abort_multipart_upload(**bucket._at("k"), UploadId=wanted["UploadId"])
            return sending(**wanted)

        monkeypatch.setattr(bucket._client, "upload_part", upload_part)
        await bucket.put("k", file_of(tmp_path, LARGE))
        assert await read(bucket, "k") == LARGE
        assert bucket._unfinished("") == []


async def test_a_part_and_a_completion_whose_answers_are_lost_are_asked_again(served, tmp_path, monkeypatch):
    """The request was heard: the part is there already, the upload is completed already."""
    lost = {"upload_part": 1, "complete_multipart_upload": 1}

    def losing(name):
        asked = getattr(served._client, name)

        def ask(**wanted):
            answer = asked(**wanted)
            if lost.pop(name, None):
                raise ConnectionClosedError(endpoint_url="http://lost")
            return answer

        monkeypatch.setattr(served._client, name, ask)

    for name in list(lost):
        losing(name)
    await served.put("k", file_of(tmp_path, LARGE))
    assert lost == {}
    assert await read(served, "k") == LARGE
    assert served._unfinished("") == []


async def test_a_canceled_put_in_parts_leaves_no_part(served, tmp_path, monkeypatch):
    sending, sent = served._client.upload_part, asyncio.Event()
    loop = asyncio.get_running_loop()

    def upload_part(**wanted):
        answer = sending(**wanted)
        loop.call_soon_threadsafe(sent.set)
        return answer

    monkeypatch.setattr(served._client, "upload_part", upload_part)
    path = file_of(tmp_path, hashlib.shake_128(b"x").digest(40 * MIB))
    putting = asyncio.create_task(served.put("k", path))
    await sent.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await served.look("k") is None
    assert served._unfinished("") == []


async def test_a_download_that_breaks_off_is_taken_up_where_it_broke(served, tmp_path, monkeypatch):
    await served.put("k", file_of(tmp_path, LARGE))
    reading, breaks = StreamingBody.read, [3, 1, 2]

    def read_some(body, amount=None):
        if breaks:
            breaks[0] -= 1
            if breaks[0] < 0:
                breaks.pop(0)
                raise ResponseStreamingError(error="broke")
        return reading(body, amount)

    monkeypatch.setattr(StreamingBody, "read", read_some)
    assert await read(served, "k") == LARGE
    assert breaks == []


async def test_a_download_whose_object_was_replaced_is_not_taken_up(servers, tmp_path, monkeypatch):
    async with opened(servers, "moto", "replaced") as bucket:
        await bucket.put("k", file_of(tmp_path, LARGE))
        chunks = bucket.stream("k")
        await anext(chunks)
        await bucket.put("k", file_of(tmp_path, LARGE[::-1]))
        reading, broken = StreamingBody.read, []

        def break_once(body, amount=None):
            if not broken:
                broken.append(True)
                raise ResponseStreamingError(error="broke")
            return reading(body, amount)

        monkeypatch.setattr(StreamingBody, "read", break_once)
        with pytest.raises(StorageUnreachableError) as failed:
            [chunk async for chunk in chunks]
        assert "412" in failed.value.reason


async def test_what_garbles_bytes_on_the_way_is_found_by_their_digest(servers, tmp_path, monkeypatch):
    async with opened(servers, "rclone", "garbled") as bucket:
        monkeypatch.setattr(FileSpan, "md5", lambda self: base64.b64encode(b"0" * 16).decode())
        with pytest.raises(StorageUnreachableError) as failed:
            await bucket.put("k", file_of(tmp_path, b"x"))
        assert "BadDigest" in failed.value.reason
        assert await bucket.look("k") is None

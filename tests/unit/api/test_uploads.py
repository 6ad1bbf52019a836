import asyncio
import base64
import json
import tracemalloc
from contextlib import suppress
from functools import partial

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import binary, integers, lists, sampled_from
from starlette.requests import ClientDisconnect, Request

from gateway.api import uploads
from gateway.api.bodies import BodyPace
from gateway.api.uploads import FormLimits
from gateway.audit import MediaKind
from gateway.blobs.local import LocalBlobs, LocalBlobWriter
from gateway.errors import (
    CallerError,
    InvalidInputError,
    ShuttingDownError,
    StorageFullError,
    TooLargeError,
    UnsupportedMediaError,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 4000
BOUNDARY = "----xYzZY"
LIMITS = FormLimits(
    max_body_bytes=100_000,
    max_json_bytes=5000,
    caps={MediaKind.IMAGE: 10_000, MediaKind.VIDEO: 20_000},
    max_field_bytes=1000,
)


class Running:
    """A gateway that does not stop."""

    def is_set(self):
        return False

    async def wait(self):
        await asyncio.Event().wait()


receive_form = partial(uploads.receive_form, stopping=Running())
receive_json = partial(uploads.receive_json, stopping=Running())
receive_lifted_json = partial(uploads.receive_lifted_json, stopping=Running())


@pytest.fixture
async def blobs(tmp_path):
    store = LocalBlobs(tmp_path / "blobs", free=lambda _folder: 10**12)
    await store.prepare()
    yield store
    await store.close()


def nothing_left(blobs):
    return not [path for path in blobs._root.rglob("*") if path.is_file()]


def field(name, value, *extra):
    return b"\r\n".join([f'Content-Disposition: form-data; name="{name}"'.encode(), *extra, b"", value])


def file(name, value, filename="a.bin", content_type="application/octet-stream"):
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'.encode()
    return b"\r\n".join([disposition, f"Content-Type: {content_type}".encode(), b"", value])


def multipart(*parts):
    return (
        b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + part + b"\r\n" for part in parts)
        + b"--"
        + BOUNDARY.encode()
        + b"--\r\n"
    )


def request(
    body, content_type=f"multipart/form-data; boundary={BOUNDARY}", *, step=65536, leaves_at=None, headers=None
):
    """A request whose body comes in pieces; with ``leaves_at`` the client is gone after so many bytes."""
    whole = body if leaves_at is None else body[:leaves_at]
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)] or [b""]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if leaves_at is None:
        messages[-1]["more_body"] = False
    else:
        messages.append({"type": "http.disconnect"})
    fields = (
        {"content-length": str(len(body))} | ({"content-type": content_type} if content_type else {}) | (headers or {})
    )
    raw = [(name.encode(), value.encode("latin-1")) for name, value in fields.items() if value is not None]
    reads = []

    async def receive():
        reads.append(1)
        return messages.pop(0)

    made = Request({"type": "http", "method": "POST", "headers": raw, "path": "/"}, receive)
    made.state.reads = reads
    return made


async def refused(error, blobs, sent, limits=LIMITS, **options):
    with pytest.raises(error) as caught:
        await receive_form(sent, blobs, limits, **options)
    assert nothing_left(blobs)
    return caught.value


# ------------------------------------------------------------------------------------------------------------ multipart


@pytest.mark.parametrize("step", [1, 7, 1000, 65536])
async def test_fields_and_files_arrive_whole_however_they_are_cut(blobs, step):
    body = multipart(file("video", MP4, "clip.mp4"), field("output_name", "мой".encode()), file("image", PNG, "me.png"))
    form = await receive_form(request(body, step=step), blobs, LIMITS)
    assert form.fields == {"output_name": "мой"}
    video, image = form.files["video"], form.files["image"]
    assert blobs.path(video.blob.hash).read_bytes() == MP4
    assert blobs.path(image.blob.hash).read_bytes() == PNG
    assert (video.media_type.content_type, video.display_name, video.blob.size_bytes) == (
        "video/mp4",
        "clip.mp4",
        len(MP4),
    )
    assert (image.media_type.kind, image.media_type.suffix) == (MediaKind.IMAGE, ".png")


async def test_form_left_without_keep_leaves_nothing_and_kept_stays(blobs):
    body = multipart(file("image", PNG))
    async with await receive_form(request(body), blobs, LIMITS) as form:
        assert not nothing_left(blobs)
    assert nothing_left(blobs)
    async with await receive_form(request(body), blobs, LIMITS) as form:
        form.keep()
    assert await blobs.exists(form.files["image"].blob.hash)


async def test_form_is_dropped_although_its_request_is_being_canceled(blobs):
    with anyio.CancelScope() as scope:
        async with await receive_form(request(multipart(file("image", PNG), file("video", MP4))), blobs, LIMITS):
            scope.cancel()
            await asyncio.sleep(0)
    assert nothing_left(blobs)


async def test_form_that_is_dropped_spares_the_same_bytes_of_another(blobs):
    body = multipart(file("image", PNG))
    async with await receive_form(request(body), blobs, LIMITS) as kept:
        kept.keep()
    async with await receive_form(request(body), blobs, LIMITS):
        pass
    assert await blobs.exists(kept.files["image"].blob.hash)


@pytest.mark.parametrize("tenth", range(11))
async def test_client_that_leaves_at_any_tenth_leaves_nothing(blobs, tenth):
    body = multipart(file("video", MP4), file("image", PNG))
    sent = request(body, step=500, leaves_at=len(body) * tenth // 10)
    with pytest.raises(ClientDisconnect):
        await receive_form(sent, blobs, LIMITS)
    assert nothing_left(blobs)


@pytest.mark.parametrize("tenth", range(10))
async def test_body_cut_off_at_any_tenth_is_refused_and_leaves_nothing(blobs, tenth):
    body = multipart(file("video", MP4), file("image", PNG))
    sent = request(body[: len(body) * tenth // 10], headers={"content-length": None})
    await refused(InvalidInputError, blobs, sent)


async def test_cancel_in_the_middle_leaves_nothing(blobs):
    reached = asyncio.Event()
    body = multipart(file("video", MP4))
    sent = request(body[:2000])

    async def receive():
        if reached.is_set():
            await asyncio.Event().wait()
        reached.set()
        return {"type": "http.request", "body": body[:2000], "more_body": True}

    task = asyncio.create_task(receive_form(Request(sent.scope, receive), blobs, LIMITS), name="upload")
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nothing_left(blobs)


async def test_files_are_made_durable_side_by_side(blobs, monkeypatch):
    begun, both = [], asyncio.Event()
    plain = LocalBlobWriter.commit

    async def commit(writer):
        begun.append(writer)
        if len(begun) == 2:
            both.set()
        async with asyncio.timeout(5):
            await both.wait()
        return await plain(writer)

    monkeypatch.setattr(LocalBlobWriter, "commit", commit)
    async with await receive_form(request(multipart(file("video", MP4), file("image", PNG))), blobs, LIMITS) as form:
        assert set(form.files) == {"video", "image"}


@pytest.mark.parametrize("ending", ["one fails", "canceled"])
async def test_what_was_committed_beside_one_that_was_not_is_taken_back(blobs, monkeypatch, ending):
    reached, go_on, plain = asyncio.Event(), asyncio.Event(), LocalBlobWriter.commit
    begun = []

    async def commit(writer):
        begun.append(writer)
        is_second = len(begun) == 2
        blob = await plain(writer)
        if is_second:
            reached.set()
            await go_on.wait()
            if ending == "one fails":
                await blobs.discard(blob)
                raise StorageFullError("The disk is full.")
        return blob

    monkeypatch.setattr(LocalBlobWriter, "commit", commit)
    receiving = asyncio.create_task(
        receive_form(request(multipart(file("video", MP4), file("image", PNG))), blobs, LIMITS)
    )
    await reached.wait()
    if ending == "canceled":
        receiving.cancel()
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError if ending == "canceled" else StorageFullError):
        await receiving
    assert nothing_left(blobs)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"--other\r\n\r\n",
        b"--" + BOUNDARY.encode(),
        multipart(b"\r\nno headers"),
        multipart(b"Content-Type: text/plain\r\n\r\nx"),
        multipart(b"Content-Disposition: attachment; name=a\r\n\r\nx"),
        multipart(b"Content-Disposition: form-data\r\n\r\nx"),
        multipart(b'Content-Disposition: form-data; name=""\r\n\r\nx'),
        multipart(b"Content-Disposition\r\n\r\nx"),
        multipart(b'Content-Disposition: form-data; name="a"\r\nX: ' + b"y" * 10_000 + b"\r\n\r\nx"),
        multipart(b'Content-Disposition: form-data; name="a"' + b"\r\nX: y" * 50 + b"\r\n\r\nx"),
        multipart(field("a", b"\xff\xfe")),
        multipart(b'Content-Disposition: form-data; name="\xff"\r\n\r\nx'),
        multipart(field("a", b"1"), field("a", b"2")),
        multipart(file("a", PNG), file("a", PNG)),
        multipart(file("a", PNG), field("a", b"1")),
        multipart(field("a", b"aGk=", b"Content-Transfer-Encoding: base64")),
        multipart(*[field(f"f{number}", b"1") for number in range(33)]),
        multipart(*[file(f"f{number}", PNG) for number in range(5)]),
    ],
)
async def test_malformed_multipart_is_a_caller_error_and_leaves_nothing(blobs, body):
    await refused(InvalidInputError, blobs, request(body))


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 300],
)
async def test_missing_or_endless_boundary_is_a_caller_error(blobs, content_type):
    await refused(InvalidInputError, blobs, request(multipart(file("a", PNG)), content_type))


async def test_as_many_fields_and_files_as_allowed_pass(blobs):
    parts = [field(f"f{number}", b"1") for number in range(32)] + [file(f"p{number}", PNG) for number in range(4)]
    form = await receive_form(request(multipart(*parts)), blobs, LIMITS)
    assert (len(form.fields), len(form.files)) == (32, 4)


async def test_empty_file_is_named_and_an_empty_browser_input_is_none(blobs):
    error = await refused(InvalidInputError, blobs, request(multipart(file("image", PNG), file("video", b"", "v.mp4"))))
    assert error.field == "video"
    assert "0 bytes" in error.message
    form = await receive_form(request(multipart(file("image", PNG), file("video", b"", ""))), blobs, LIMITS)
    assert list(form.files) == ["image"]


@pytest.mark.parametrize(
    "content", [b"ffconcat version 1.0\nfile 'v.mp4'\n", b"x", b"<svg/>" * 99, b"GIF89a" + b"\0" * 99]
)
async def test_file_of_another_kind_is_refused_with_its_field(blobs, content):
    sent = request(multipart(file("image", PNG), file("video", content, "v.mp4", "video/mp4")))
    assert (await refused(UnsupportedMediaError, blobs, sent)).field == "video"


async def test_shortest_file_of_a_kind_is_recognised_at_its_end(blobs):
    form = await receive_form(request(multipart(file("image", b"\xff\xd8\xff"))), blobs, LIMITS)
    assert form.files["image"].blob.size_bytes == 3


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        (r"C:\\x\\me.png", "me.png"),
        ("\x01a\u202eb.png", "ab.png"),
        ("ä" * 200, "ä" * 127),
    ],
)
async def test_file_name_is_for_display_only(blobs, filename, shown):
    form = await receive_form(request(multipart(file("image", PNG, filename))), blobs, LIMITS)
    assert form.files["image"].display_name == shown


# --------------------------------------------------------------------------------------------------------------- limits


async def test_announced_body_over_the_limit_is_refused_before_a_byte_is_read(blobs):
    sent = request(b"", headers={"content-length": str(2 * 1024**3)})
    error = await refused(TooLargeError, blobs, sent, FormLimits())
    assert "1100 MiB" in error.message
    assert sent.state.reads == []


async def test_body_without_length_is_counted_while_it_comes(blobs):
    body = multipart(*[file(f"f{number}", MP4 + b"\0" * 15_000) for number in range(4)], field("a", b"x" * 900))
    limits = FormLimits(max_body_bytes=50_000, caps=LIMITS.caps)
    sent = request(body, step=5000, headers={"content-length": None})
    await refused(TooLargeError, blobs, sent, limits)
    assert len(sent.state.reads) == 11


@pytest.mark.parametrize(("name", "content", "words"), [("image", PNG, "10000 bytes"), ("video", MP4, "20000 bytes")])
async def test_each_kind_has_its_own_limit_and_exactly_that_fits(blobs, name, content, words):
    cap = LIMITS.caps[MediaKind(name)]
    fits, too_large = content.ljust(cap, b"\0"), content.ljust(cap + 1, b"\0")
    async with await receive_form(request(multipart(file(name, fits)), step=100), blobs, LIMITS) as form:
        assert form.files[name].blob.size_bytes == cap
    error = await refused(TooLargeError, blobs, request(multipart(file(name, too_large)), step=100))
    assert error.field == name
    assert words in error.message


async def test_long_field_is_refused_with_its_name(blobs):
    error = await refused(TooLargeError, blobs, request(multipart(field("note", b"x" * 1001))))
    assert error.field == "note"


async def test_full_disk_is_told_before_the_file_is_written(tmp_path):
    blobs = LocalBlobs(tmp_path, free=lambda _folder: 0)
    await blobs.prepare()
    await refused(StorageFullError, blobs, request(multipart(file("image", PNG))))


async def test_silent_client_is_given_up(blobs):
    async def receive():
        await asyncio.Event().wait()

    limits = FormLimits(pace=BodyPace(idle_seconds=0.001))
    sent = Request(request(b"x").scope, receive)
    assert "slowly" in (await refused(InvalidInputError, blobs, sent, limits)).message


async def test_dripping_client_is_given_up_after_its_slow_start(blobs):
    seconds = iter(range(0, 10_000, 2))
    sent = request(multipart(file("image", PNG)), step=1)
    await refused(InvalidInputError, blobs, sent, monotonic=lambda: next(seconds))
    assert 5 <= len(sent.state.reads) <= 7


async def test_steady_client_is_ended_by_the_deadline(blobs):
    seconds = iter(range(0, 100_000, 1000))
    limits = FormLimits(caps=LIMITS.caps, pace=BodyPace(least_bytes_per_second=0, deadline_seconds=3600))
    await refused(
        InvalidInputError,
        blobs,
        request(multipart(file("image", PNG)), step=10),
        limits,
        monotonic=lambda: next(seconds),
    )


async def test_compressed_body_is_refused(blobs):
    sent = request(multipart(file("image", PNG)), headers={"content-encoding": "gzip"})
    await refused(UnsupportedMediaError, blobs, sent)


# ----------------------------------------------------------------------------------------------------- without any file


async def test_urlencoded_form(blobs):
    form = await receive_form(
        request(b"video_url=https%3A%2F%2Fa.b%2Fc&x=&y=%C3%BC+z", "application/x-www-form-urlencoded"), blobs, LIMITS
    )
    assert form.fields == {"video_url": "https://a.b/c", "x": "", "y": "ü z"}


@pytest.mark.parametrize(
    "body", [b"a=1&a=2", b"a=%ff", b"\xff=1", "&".join(f"f{number}=1" for number in range(40)).encode()]
)
async def test_malformed_urlencoded_form_is_a_caller_error(blobs, body):
    await refused(InvalidInputError, blobs, request(body, "application/x-www-form-urlencoded"))


async def test_json_object_is_a_form(blobs):
    body = b'{"video_url": "https://a.b/c", "return_prompt_id_only": true, "n": 1.5, "none": null}'
    form = await receive_form(request(body, "application/json; charset=utf-8"), blobs, LIMITS)
    assert form.fields == {"video_url": "https://a.b/c", "return_prompt_id_only": "true", "n": "1.5"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"a": [1]}', b'{"a": {}}', b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 4000, b"\xff"]
)
async def test_json_that_is_no_flat_object_is_a_caller_error(blobs, body):
    await refused(InvalidInputError, blobs, request(body, "application/json"))


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("announced", [True, False])
async def test_long_body_without_files_is_too_large(blobs, content_type, announced):
    headers = {} if announced else {"content-length": None}
    await refused(TooLargeError, blobs, request(b"a=" + b"x" * 5000, content_type, headers=headers))


async def test_no_body_is_an_empty_form_and_an_unknown_one_is_refused(blobs):
    assert (await receive_form(request(b"", None), blobs, LIMITS)).fields == {}
    for headers in ({}, {"content-length": None}):
        await refused(UnsupportedMediaError, blobs, request(b"x", "text/plain", headers=headers))


async def test_receive_json_gives_the_object_and_obeys_its_limit():
    assert await receive_json(request(b'{"a": [1]}', None), LIMITS) == {"a": [1]}
    large = b'{"a": "' + b"x" * 100_000 + b'"}'
    assert len((await receive_json(request(large, None), FormLimits()))["a"]) == 100_000
    with pytest.raises(TooLargeError):
        await receive_json(request(large, None), LIMITS)


# ------------------------------------------------------------------------------------------------------------- stopping


class Trickle:
    """A multipart upload that hangs after its first piece, or goes on for ever."""

    def __init__(self, *, hangs):
        self.hangs = hangs
        self.waits = asyncio.Event()
        self.pieces = 0
        self.request = Request(request(b"").scope, self.receive)

    async def receive(self):
        self.pieces += 1
        if self.pieces > 1 and self.hangs:
            self.waits.set()
            await asyncio.Event().wait()
        if self.pieces == 50:
            self.waits.set()
        await asyncio.sleep(0)
        piece = multipart(file("video", MP4))[:2000] if self.pieces == 1 else b"0"
        return {"type": "http.request", "body": piece, "more_body": True}


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_stop_ends_an_upload_at_once_and_leaves_nothing(blobs, hangs):
    stopping, trickle = asyncio.Event(), Trickle(hangs=hangs)
    upload = asyncio.create_task(uploads.receive_form(trickle.request, blobs, FormLimits(), stopping=stopping))
    await trickle.waits.wait()
    assert not upload.done()
    stopping.set()
    with pytest.raises(ShuttingDownError):
        async with asyncio.timeout(5):  # the body's own idle limit is 30 s
            await upload
    assert nothing_left(blobs)


async def test_a_body_that_only_stalls_is_called_slow_and_not_stopped(blobs):
    trickle, limits = Trickle(hangs=True), FormLimits(pace=BodyPace(idle_seconds=0.01))
    with pytest.raises(InvalidInputError, match="too slowly"):
        await uploads.receive_form(trickle.request, blobs, limits, stopping=asyncio.Event())
    assert [task for task in asyncio.all_tasks() if task.get_name() == "body-stopping"] == []


# ----------------------------------------------------------------------------------------------------------------- fuzz

GRAINS = sampled_from(
    [
        b"--",
        BOUNDARY.encode(),
        b"--" + BOUNDARY.encode(),
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b";",
        b'"',
        PNG[:70],
        b"--\r\n",
        b"Content-Disposition: form-data; name=a",
        b'; filename="x"',
        field("b", b"1"),
        file("c", PNG),
        b"Content-Type: x",
    ]
)


@given(lists(GRAINS | binary(max_size=6), max_size=14), integers(1, 60))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_bytes_end_in_anything_but_a_form_or_a_refusal(tmp_path, grains, step):
    async def upload():
        blobs = LocalBlobs(tmp_path / "fuzz", free=lambda _folder: 10**12)
        await blobs.prepare()
        body = b"--" + BOUNDARY.encode() + b"\r\n" + b"".join(grains)
        # Any other exception, a 5xx of ours included, fails the test.
        with suppress(CallerError):
            await (await receive_form(request(body, step=step), blobs, LIMITS)).discard()
        assert nothing_left(blobs)
        await blobs.close()

    asyncio.run(upload())


# --------------------------------------------------------------------------------------------------- JSON with files in it


def inline(**uris):
    """A body with data URIs among other things."""
    return json.dumps({"task_params": {"n": 1, **uris}, "user_id": "мой"}, ensure_ascii=False).encode()


def uri(data, head="image/png;base64"):
    return f"data:{head}," + base64.b64encode(data).decode()


@pytest.mark.parametrize("step", [1, 7, 1000, 65536])
async def test_data_uris_arrive_as_files_however_they_are_cut(blobs, step):
    body = inline(source_image=uri(PNG), target_image=uri(MP4, "text/html;base64"))
    async with await receive_lifted_json(request(body, None, step=step), blobs, LIMITS) as received:
        params = received.body["task_params"]
        assert received.body == {"task_params": params, "user_id": "мой"}
        source, target = (received.files[params[name]] for name in ("source_image", "target_image"))
        assert blobs.path(source.blob.hash).read_bytes() == PNG
        assert blobs.path(target.blob.hash).read_bytes() == MP4
        # What the bytes are counts, not what the URI says.
        assert (source.media_type.kind, target.media_type.content_type) == (MediaKind.IMAGE, "video/mp4")
        assert (source.display_name, params["n"]) == ("source_image", 1)
    assert nothing_left(blobs)


async def test_marks_are_new_each_time(blobs):
    marks = set()
    for _ in range(20):
        async with await receive_lifted_json(request(inline(a=uri(PNG))), blobs, LIMITS) as received:
            marks |= received.files.keys()
    assert len(marks) == 20


@pytest.mark.parametrize(
    ("body", "error", "field"),
    [
        (inline(a=uri(PNG), b=uri(PNG), c=uri(PNG)), InvalidInputError, "c"),
        (inline(a=uri(PNG), b=uri(b"")), InvalidInputError, "b"),
        (inline(a=uri(PNG), b=uri(b"#!/bin/sh\n" * 20)), UnsupportedMediaError, "b"),
        (inline(a=uri(PNG), b=uri(PNG)[:-1]), InvalidInputError, "b"),
        (inline(a=uri(PNG), b=uri(PNG + bytes(10_000))), TooLargeError, "b"),
        (inline(a=uri(PNG), b="x" * 5000), TooLargeError, None),
        (inline(a=uri(PNG)) + b"}", InvalidInputError, None),
        (inline(a=uri(PNG))[:-1], InvalidInputError, None),
        (b"[" + inline(a=uri(PNG)) + b"]", InvalidInputError, None),
        (b"", InvalidInputError, None),
        (b"\xff" * 2000, InvalidInputError, None),
    ],
)
async def test_what_is_wrong_with_a_lifted_body_leaves_nothing(blobs, body, error, field):
    with pytest.raises(error) as caught:
        await receive_lifted_json(request(body, step=700), blobs, LIMITS)
    assert caught.value.field == field
    assert nothing_left(blobs)


async def test_client_that_leaves_within_a_data_uri_leaves_nothing(blobs):
    body = inline(a=uri(PNG), b=uri(MP4))
    with pytest.raises(ClientDisconnect):
        await receive_lifted_json(request(body, step=500, leaves_at=len(body) - 500), blobs, LIMITS)
    assert nothing_left(blobs)


async def test_others_get_their_turn_while_a_lifted_body_that_came_at_once_is_read(blobs):
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    pieces = 30
    body = json.dumps({"a": "x" * pieces * 64 * 1024}).encode()
    lifter = uploads.Lifter("w", max_uris=1, max_uri_bytes=1, max_rest_bytes=2 * len(body))
    waiting = asyncio.create_task(other(), name="other")
    async with uploads.IncomingFiles(blobs, LIMITS.caps, None) as intake:
        await uploads._take_lifted(lifter, body, intake)
    waiting.cancel()
    assert turns >= pieces


async def test_announced_lifted_body_over_the_limit_is_refused_before_a_byte_is_read(blobs):
    sent = request(b"", headers={"content-length": str(40 * 1024**2)})
    with pytest.raises(TooLargeError, match="36 MiB"):
        await receive_lifted_json(sent, blobs, FormLimits())
    assert sent.state.reads == []


async def test_lifted_body_that_announces_nothing_is_refused_once_it_is_over_the_limit(blobs):
    limits = FormLimits(max_body_bytes=2000, caps=LIMITS.caps)
    sent = request(inline(a=uri(PNG)), step=100, headers={"content-length": None})
    with pytest.raises(TooLargeError, match="body is larger than 2000 bytes"):
        await receive_lifted_json(sent, blobs, limits)
    assert len(sent.state.reads) == 21
    assert nothing_left(blobs)


async def test_two_data_uris_of_16_mib_each_stand_in_memory_nowhere(blobs):
    begun = uri(PNG[:2049])  # whole groups of three: more may follow
    piece = b"A" * 65_536  # zeros, in base64
    whole = (16 * 1024**2 - len(begun)) // len(piece)

    async def pieces():
        for before, after in ((b'{"a":"', b'",'), (b'"b":"', b'"}')):
            yield before + begun.encode()
            for _ in range(whole):
                yield piece
            yield after

    stream = pieces()

    async def receive():
        chunk = await anext(stream, b"")
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    sent = Request({"type": "http", "method": "POST", "headers": [], "path": "/"}, receive)
    tracemalloc.start()
    try:
        async with await receive_lifted_json(sent, blobs, FormLimits()) as received:
            peak = tracemalloc.get_traced_memory()[1]
            sizes = {file.blob.size_bytes for file in received.files.values()}
    finally:
        tracemalloc.stop()
    assert len(sizes) == 1
    assert min(sizes) > 11.9 * 1024**2
    assert peak < 8 * 1024**2, peak


async def test_a_field_that_may_come_several_times_keeps_its_order_and_its_limit(blobs):
    limits = FormLimits(repeatable={"tags": 2}, max_fields=1)
    body = multipart(field("tags", b"a"), field("name", b"x"), field("tags", "é".encode()))
    async with await receive_form(request(body), blobs, limits) as form:
        assert (form.fields, form.repeated) == ({"name": "x"}, {"tags": ("a", "é")})
    with pytest.raises(InvalidInputError, match="more than 2 fields 'tags'"):
        await receive_form(request(multipart(*[field("tags", b"a")] * 3)), blobs, limits)
    with pytest.raises(TooLargeError):
        await receive_form(request(multipart(field("tags", b"a" * 100_000))), blobs, limits)


async def test_where_any_file_is_taken_its_bytes_still_say_what_it_is(blobs):
    limits = FormLimits(caps={MediaKind.IMAGE: 10_000, MediaKind.FILE: 1000}, max_files=1)
    for data, kind in ((PNG, MediaKind.IMAGE), (b"\0anything", MediaKind.FILE), (b"x", MediaKind.FILE)):
        async with await receive_form(request(multipart(file("file", data))), blobs, limits) as form:
            assert form.files["file"].media_type.kind is kind
            assert (await anyio.Path(blobs.path(form.files["file"].blob.hash)).read_bytes()) == data
    with pytest.raises(TooLargeError):
        await receive_form(request(multipart(file("file", b"x" * 1001))), blobs, limits)
    with pytest.raises(UnsupportedMediaError):
        await receive_form(request(multipart(file("file", MP4))), blobs, limits)
    assert nothing_left(blobs)

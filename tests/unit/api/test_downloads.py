import re

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, text, tuples
from starlette.datastructures import Headers
from starlette.requests import Request
from structlog.testing import capture_logs

from gateway.api.downloads import ByteRange, content_disposition, file_response, requested_ranges
from gateway.errors import NotFoundError, StorageUnreachableError

DATA = bytes(range(256)) * 40
SIZE = len(DATA)
HASH = "ab" * 32
ETAG = f'"{HASH}"'
MODIFIED = 1_700_000_000
MODIFIED_DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER, LATER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"


class MemoryBlobs:
    """One blob in memory, streamed in small chunks; ``lost_after`` chunks its file is gone."""

    def __init__(self, data=DATA, lost_after=None, place=None, failure=None):
        self.data = data
        self.lost_after = lost_after
        self.place = place
        self.failure = failure
        self.linked = []

    async def exists(self, _blob_hash):
        if self.failure is not None:
            raise self.failure
        return self.lost_after != 0

    async def link(self, _blob_hash, **wanted):
        self.linked.append(wanted)
        return self.place

    async def stream(self, _blob_hash, start=0, end=None):
        for count, at in enumerate(range(start, len(self.data) if end is None else end, 1000)):
            if count == self.lost_after:
                raise FileNotFoundError
            yield self.data[at : min(at + 1000, len(self.data) if end is None else end)]


class Answer:
    def __init__(self, messages):
        self.status = messages[0]["status"]
        self.headers = Headers(raw=messages[0]["headers"])
        self.body = b"".join(message.get("body", b"") for message in messages[1:])
        self.is_complete = messages[-1].get("more_body") is not True and len(messages) > 1


async def ask(method="GET", *, blobs=None, size_bytes=SIZE, filename="my swap.mp4", disposition="attachment", **fields):
    headers = [(name.lower().replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()]
    scope = {"type": "http", "method": method, "headers": headers, "path": "/", "asgi": {"spec_version": "2.4"}}
    response = file_response(
        Request(scope),
        blobs=blobs or MemoryBlobs(),
        blob_hash=HASH,
        size_bytes=size_bytes,
        content_type="video/mp4",
        filename=filename,
        last_modified=MODIFIED + 0.7,
        max_age_seconds=600,
        disposition=disposition,
    )
    messages = []

    async def send(message):
        messages.append(message)

    async def receive():
        raise AssertionError("nothing is read")

    await response(scope, receive, send)
    return Answer(messages)


async def test_whole_file_with_headers_that_keep_it_from_running_in_a_page():
    answer = await ask()
    assert (answer.status, answer.body) == (200, DATA)
    expected = {
        "content-type": "video/mp4",
        "content-length": str(len(DATA)),
        "etag": ETAG,
        "last-modified": MODIFIED_DATE,
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=600",
        "content-disposition": "attachment; filename=\"my swap.mp4\"; filename*=UTF-8''my%20swap.mp4",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
    }
    assert dict(answer.headers) == expected


async def test_head_is_get_without_the_bytes():
    got, head = await ask(), await ask("HEAD")
    assert (head.status, dict(head.headers), head.body) == (200, dict(got.headers), b"")


async def test_head_ignores_a_range():
    assert (await ask("HEAD", Range="bytes=0-1")).headers["content-length"] == str(len(DATA))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"If_None_Match": ETAG}, 304),
        ({"If_None_Match": f"W/{ETAG}"}, 304),
        ({"If_None_Match": f'"other", {ETAG}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"other"'}, 200),
        ({"If_None_Match": HASH}, 200),
        ({"If_None_Match": '"other"', "If_Modified_Since": LATER}, 200),
        ({"If_Modified_Since": MODIFIED_DATE}, 304),
        ({"If_Modified_Since": EARLIER}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_Modified_Since": "Tue, 99 Nov 2023 22:13:20 GMT"}, 200),
        ({"If_Match": ETAG}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": f"W/{ETAG}"}, 412),
        ({"If_Match": '"other"'}, 412),
        ({"If_Match": ETAG, "If_Unmodified_Since": EARLIER}, 200),
        ({"If_Unmodified_Since": EARLIER}, 412),
        ({"If_Unmodified_Since": MODIFIED_DATE}, 200),
        ({"If_Unmodified_Since": "nonsense"}, 200),
        ({"If_Match": '"other"', "If_None_Match": ETAG}, 412),
        ({"If_None_Match": ETAG, "Range": "bytes=0-1"}, 304),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_preconditions_in_their_order(fields, status, method):
    answer = await ask(method, **fields)
    assert answer.status == status
    assert answer.headers["etag"] == ETAG
    assert answer.headers["x-content-type-options"] == "nosniff"
    if status != 200:
        assert answer.body == b""


@pytest.mark.parametrize(
    ("field", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=100-", 100, len(DATA)),
        ("bytes=-100", len(DATA) - 100, len(DATA)),
        ("bytes=-99999", 0, len(DATA)),
        ("bytes=100-99999", 100, len(DATA)),
        ("BYTES = 5 - 9", 5, 10),
        ("bytes=99999-, 0-4", 0, 5),
    ],
)
async def test_single_range(field, start, end):
    answer = await ask(Range=field)
    assert (answer.status, answer.body) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("field", ["bytes=99999-", "bytes=10240-10241", "bytes=-0", "bytes=99999-,-0"])
async def test_no_satisfiable_range_is_416_with_the_size(field):
    answer = await ask(Range=field)
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize(
    "field",
    [
        "items=0-1",
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=-",
        "bytes=0-1,x",
        "bytes=--1",
        "bytes=0-1-2",
        "bytes=+1-2",
        "bytes=\u00b2-3",
        "bytes=" + ",".join(["0-0"] * 11),
        "bytes=0-,0-",
        "bytes=" + "9" * 40 + "-",
    ],
)
async def test_range_that_is_to_be_ignored_gives_the_whole_file(field):
    answer = await ask(Range=field)
    assert (answer.status, answer.body) == (200, DATA)


async def test_several_ranges_come_as_parts_in_the_order_asked_for():
    answer = await ask(Range="bytes=500-1999, 0-1, 99999-, -3")
    assert answer.status == 206
    assert len(answer.body) == int(answer.headers["content-length"])
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", answer.headers["content-type"])[1].encode()
    preamble, *parts, epilogue = answer.body.split(b"--" + boundary)
    assert (preamble, epilogue) == (b"\r\n", b"--\r\n")
    for part, (start, end) in zip(parts, [(500, 2000), (0, 2), (len(DATA) - 3, len(DATA))], strict=True):
        head, _, body = part.partition(b"\r\n\r\n")
        assert head == b"\r\nContent-Type: video/mp4\r\nContent-Range: bytes %d-%d/%d" % (start, end - 1, len(DATA))
        assert body == DATA[start:end] + b"\r\n"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (ETAG, 206),
        (f"W/{ETAG}", 200),
        ('"other"', 200),
        (MODIFIED_DATE, 206),
        (LATER, 200),
        (EARLIER, 200),
        ("nonsense", 200),
    ],
)
async def test_if_range_wants_exactly_this_file(condition, status):
    assert (await ask(Range="bytes=0-1", If_Range=condition)).status == status


async def test_empty_file_is_whole_and_has_no_ranges():
    assert (await ask(blobs=MemoryBlobs(b""), size_bytes=0)).status == 200
    assert (await ask(blobs=MemoryBlobs(b""), size_bytes=0, Range="bytes=0-")).status == 416


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_file_that_is_gone_is_not_found_before_anything_is_sent(method):
    with pytest.raises(NotFoundError):
        await ask(method, blobs=MemoryBlobs(lost_after=0))


@pytest.mark.parametrize("blobs", [MemoryBlobs(lost_after=3), MemoryBlobs(DATA[:5000])], ids=["deleted", "short"])
async def test_file_lost_midway_is_never_ended_like_a_whole_one(blobs):
    with capture_logs() as lines:
        answer = await ask(blobs=blobs)
    assert (answer.status, answer.is_complete) == (200, False)
    assert len(answer.body) < len(DATA)
    assert [line["event"] for line in lines] == ["download_broken_off"]


@pytest.mark.parametrize(
    ("name", "ascii_form", "extended"),
    [
        ("a.mp4", "a.mp4", "a.mp4"),
        ("мой swap.mp4", "___ swap.mp4", "%D0%BC%D0%BE%D0%B9%20swap.mp4"),
        ('a"b\\c/d.mp4', "a_b_c_d.mp4", "a%22b%5Cc%2Fd.mp4"),
        ("a\r\nSet-Cookie: x=y.mp4", "aSet-Cookie: x=y.mp4", "aSet-Cookie%3A%20x%3Dy.mp4"),
        ("100%.mp4", "100_.mp4", "100%25.mp4"),
        ("", "file", "file"),
    ],
)
def test_both_forms_of_a_name(name, ascii_form, extended):
    assert content_disposition(name, "inline") == f"inline; filename=\"{ascii_form}\"; filename*=UTF-8''{extended}"


@given(text(max_size=40))
@settings(max_examples=50)
def test_no_name_breaks_out_of_the_field(name):
    field = content_disposition(name, "attachment")
    assert re.fullmatch(
        r"attachment; filename=\"[ -!#-.0-\[\]-~]+\"; filename\*=UTF-8''[!#$&+.^_`|~%0-9A-Za-z-]+", field
    )


@given(lists(tuples(integers(0, 120), integers(0, 120)), min_size=1, max_size=12), integers(0, 100))
@settings(max_examples=50)
def test_ranges_lie_in_the_file_and_are_never_more_than_it(pairs, size_bytes):
    field = "bytes=" + ",".join(f"{first}-{last}" for first, last in pairs)
    ranges = requested_ranges(field, size_bytes)
    if ranges is None:
        assert len(pairs) > 10 or any(last < first for first, last in pairs) or size_bytes
        return
    assert sum(part.end - part.start for part in ranges) <= size_bytes
    assert all(0 <= part.start < part.end <= size_bytes for part in ranges)
    assert ranges == [ByteRange(first, min(last + 1, size_bytes)) for first, last in pairs if first < size_bytes]


# ------------------------------------------------------------------------------------------------------ object storage

PLACE = "https://s3.example.org/faces/x?signed"


@pytest.mark.parametrize(
    "fields", [{}, {"range": "bytes=0-9"}, {"if_none_match": '"other"'}, {"authorization": "Bearer k"}]
)
async def test_a_download_is_sent_on_where_a_link_is_to_be_had(fields):
    blobs = MemoryBlobs(place=PLACE)
    answer = await ask(blobs=blobs, **fields)
    assert (answer.status, answer.body) == (302, b"")
    assert answer.headers["location"] == PLACE
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert blobs.linked == [{"filename": "my swap.mp4", "content_type": "video/mp4"}]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if_none_match": ETAG}, 304),
        ({"if_modified_since": LATER}, 304),
        ({"if_match": '"other"'}, 412),
        ({"range": f"bytes={SIZE}-"}, 416),
        ({"if_match": ETAG}, 200),
        ({"if_unmodified_since": LATER}, 200),
        ({"if_range": ETAG, "range": "bytes=0-9"}, 206),
        ({"range": "bytes=0-9,20-29"}, 206),
        ({"x_api_key": "k"}, 200),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"method": "HEAD"}, 200),
    ],
)
async def test_what_the_storage_would_answer_otherwise_is_answered_here(fields, status):
    blobs = MemoryBlobs(place=PLACE)
    answer = await ask(blobs=blobs, **fields)
    assert answer.status == status
    assert blobs.linked == []


async def test_a_file_that_is_shown_is_never_sent_on():
    blobs = MemoryBlobs(place=PLACE)
    assert (await ask(blobs=blobs, disposition="inline")).status == 200
    assert blobs.linked == []


async def test_storage_that_does_not_answer_is_told_before_anything_is_sent():
    away = StorageUnreachableError("away")
    with pytest.raises(StorageUnreachableError):
        await ask(blobs=MemoryBlobs(failure=away))


async def test_storage_that_stops_answering_breaks_the_download_off():
    class Breaking(MemoryBlobs):
        async def stream(self, _blob_hash, start=0, end=None):
            yield self.data[:1000]
            raise StorageUnreachableError("away")

    with capture_logs() as logs:
        answer = await ask(blobs=Breaking())
    assert not answer.is_complete
    assert logs[0]["event"] == "download_broken_off"

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import sse
from gateway.api.following import Frame, Signal
from gateway.api.window import Slots
from gateway.events import EventKind
from tests.tools.asgi import Stream, ask, form, make
from tests.tools.sse_parser import parse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=4), st.integers(1, 9))
def test_a_frame_is_one_block_of_one_data_line_that_a_browser_reads_back(data, number):
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    block = sse.encode(Frame("progress", data, number))
    parsed = parse(block)

    assert block.count(b"\n") == 4
    assert [(message.event, message.last_event_id) for message in parsed.messages] == [("progress", str(number))]
    assert parsed.messages[0].json == data


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_the_test_tool_reads_what_browsers_read(newline):
    lines = [b"\xef\xbb\xbfretry: 3000", b"", b"id: 1", b"event: a", b"data: x", b"data:y", b"", b": c", b"id", b""]
    lines += [b"data: unterminated"]
    parsed = parse(newline.join(lines))
    assert [(m.event, m.data, m.last_event_id) for m in parsed.messages] == [("a", "x\ny", "1")]
    assert (parsed.retry, parsed.comments, parsed.last_event_id) == (3000, ["c"], "")


async def test_headers_and_first_block_of_a_stream():
    app, service = make()
    job = service.put()
    async with Stream(app, "GET", f"/events/{job.id}") as stream:
        parsed = await stream.until("queued")
        assert parsed.retry == 3000
        assert bytes(stream.received).startswith(b"retry: 3000\n\n")
        assert stream.answer_headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.answer_headers["cache-control"] == "no-store, no-transform"
        assert stream.answer_headers["x-accel-buffering"] == "no"
        assert "content-length" not in stream.answer_headers


async def test_only_durable_events_carry_an_id():
    app, service = make()
    job = service.put()
    async with Stream(app, "GET", f"/events/{job.id}") as stream:
        await stream.until("queued")
        service.tell(job.id, EventKind.STARTED)
        service.show(job.id, 0.5, node="3", node_class="ReActorFaceSwap", node_title="Swap")
        await stream.until("progress")
        service.succeed(job.id)
        await stream.whole()
    ids = [line for line in bytes(stream.received).split(b"\n") if line.startswith(b"id:")]
    assert ids == [b"id: 1", b"id: 3"]
    assert stream.parsed.names == ["queued", "executing", "progress", "progress", "completed"]


@pytest.mark.parametrize(
    ("headers", "query", "names"),
    [
        ({"last_event_id": "1"}, "", ["progress", "completed"]),
        ({}, "?last_event_id=1", ["progress", "completed"]),
        ({"last_event_id": "99"}, "", ["queued", "progress", "completed"]),
        ({"last_event_id": "x"}, "", ["queued", "progress", "completed"]),
        ({"last_event_id": "9" * 5000}, "", ["queued", "progress", "completed"]),
        ({"last_event_id": "0"}, "?last_event_id=1", ["queued", "progress", "completed"]),
    ],
)
async def test_a_stream_goes_on_after_last_event_id(headers, query, names):
    app, service = make()
    job = service.put()
    service.succeed(job.id)
    answer = await ask(app, "GET", f"/events/{job.id}{query}", **headers)
    assert (answer.status, parse(answer.body).names) == (200, names)


async def test_a_client_that_saw_the_end_gets_204_and_stays_away():
    app, service = make()
    job = service.put()
    service.succeed(job.id)
    answer = await ask(app, "GET", f"/events/{job.id}", last_event_id="2")
    assert (answer.status, answer.body) == (204, b"")


async def test_stopping_says_goodbye_and_closes():
    app, service = make()
    job = service.put()
    async with Stream(app, "GET", f"/events/{job.id}") as stream:
        await stream.until("queued")
        service.stop()
        answer = await stream.whole()
    assert answer.body.endswith(b": shutdown\n\n")


async def test_a_client_that_leaves_neither_cancels_the_job_nor_keeps_its_slot():
    slots = Slots(2)
    app, service = make(slots=slots)
    job = service.put()
    for _ in range(50):
        async with Stream(app, "GET", f"/events/{job.id}") as stream:
            await stream.until("queued")
            assert slots.taken == 1
    assert slots.taken == 0
    assert not service.stored[job.id].is_terminal
    assert not service.bus._channels


async def test_a_client_that_leaves_during_a_transfer_leaves_nothing_behind():
    app, service = make()
    service.fetch_gate = asyncio.Event()
    body, headers = form({"image": b"\x89PNG\r\n\x1a\n", "video_url": "https://media.example.org/v.mp4"})
    headers = {"content-type": headers["content_type"]}
    async with Stream(app, "POST", "/face-swap", headers, body) as stream:
        await stream.until_text(b": keep-alive")
        assert len(service.blobs.stored) == 1
    assert service.blobs.stored == {}
    assert service.submissions == []


async def test_a_client_gone_before_the_first_byte_gives_its_slot_back():
    slots = Slots(2)
    app, service = make(slots=slots)
    job = service.put()
    for _ in range(50):
        async with Stream(app, "GET", f"/events/{job.id}") as stream:
            stream.leave()
            stream.task.cancel()
    assert slots.taken == 0


async def test_one_stream_more_than_there_are_slots_is_told_to_come_back():
    app, service = make(slots=Slots(1))
    job = service.put()
    async with Stream(app, "GET", f"/events/{job.id}") as stream:
        await stream.until("queued")
        answer = await ask(app, "GET", f"/events/{job.id}")
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_stalled_client_is_dropped_after_the_send_timeout(monkeypatch):
    monkeypatch.setattr(sse, "SEND_TIMEOUT_SECONDS", 0.02)

    async def endless():
        while True:
            yield Signal.HEARTBEAT
            await asyncio.sleep(0)

    async def send(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    response = sse.event_stream(endless())
    async with asyncio.timeout(5):
        await response({"type": "http", "method": "GET"}, asyncio.Event().wait, send)


async def test_a_client_that_leaves_as_the_stream_ends_cancels_nothing_else():
    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def last():
        yield Signal.STOPPING
        gone.set()
        await asyncio.sleep(0)  # the watcher has its turn, and cancels

    async def send(message):
        pass

    await sse.event_stream(last())({"type": "http", "method": "GET"}, receive, send)
    task = asyncio.current_task()
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_server_that_cancels_a_stream_is_obeyed():
    async def endless():
        while True:
            yield Signal.HEARTBEAT
            await asyncio.sleep(0)

    async def send(message):
        pass

    response = sse.event_stream(endless())
    serving = asyncio.create_task(response({"type": "http", "method": "GET"}, asyncio.Event().wait, send))
    await asyncio.sleep(0)
    serving.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({serving})
    assert serving.cancelled()


async def test_head_of_a_stream_ends():
    app, service = make()
    job = service.put()
    answer = await ask(app, "HEAD", f"/events/{job.id}")
    assert (answer.status, answer.body) == (200, b"")

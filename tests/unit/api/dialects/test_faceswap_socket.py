import asyncio
import json

import pytest

from gateway.api import websocket as limits
from gateway.api.window import Slots
from gateway.comfy.frames import PreviewPicture, parse_binary
from gateway.errors import QueueFullError, SourceUnreachableError
from gateway.events import EventKind
from tests.tools.asgi import Socket, Stream, ask, make

URLS = {"video_url": "https://media.example.org/v.mp4", "image_url": "https://media.example.org/f.png"}
PATH = "/face-swap-ws"


async def test_a_request_by_url_runs_to_its_end_and_says_the_main_things_flat_as_well():
    app, service = make()
    async with Socket(app, PATH) as socket:
        await socket.say({**URLS, "output_name": "my swap"})
        queued = await socket.hear()
        job_id = queued["prompt_id"]
        assert queued["event"] == queued["type"] == "queued"
        assert queued["data"] == {name: queued[name] for name in ("prompt_id", "message", "status_url", "events_url")}
        service.tell(job_id, EventKind.STARTED)
        service.show(job_id, 0.25, node="3", node_class="ReActorFaceSwap")
        assert (await socket.hear())["event"] == "executing"
        progress = await socket.hear()
        assert (set(progress), progress["data"]["percentage"]) == ({"event", "data"}, 25.0)
        link = service.succeed(job_id)
        assert (await socket.hear())["data"]["percentage"] == 100.0
        completed = await socket.hear()
        assert (completed["type"], completed["download_url"]) == ("completed", f"/download/{link}")
        assert await socket.closed() == 1000
    assert service.submissions[0].output_name == "my swap"


async def test_attaching_tells_a_job_from_the_beginning():
    app, service = make()
    job = service.put()
    service.succeed(job.id)
    async with Socket(app, PATH) as socket:
        await socket.say({"prompt_id": job.id})
        assert [(await socket.hear())["event"] for _ in range(3)] == ["queued", "progress", "completed"]


async def test_cancel_ends_the_job_with_an_error_that_says_so():
    app, service = make()
    async with Socket(app, PATH) as socket:
        await socket.say(URLS)
        job_id = (await socket.hear())["prompt_id"]
        await socket.say({"cancel": True})
        ended = await socket.hear()
        assert (ended["type"], ended["code"], ended["detail"]) == ("error", "canceled", "Canceled by request")
        assert await socket.closed() == 1000
    assert service.stored[job_id].is_terminal


async def test_cancel_during_the_transfer_leaves_no_job_and_no_bytes():
    app, service = make()
    service.fetch_gate = asyncio.Event()
    async with Socket(app, PATH) as socket:
        await socket.say(URLS)
        await socket.say({"cancel": True})
        assert (await socket.hear())["code"] == "canceled"
        assert await socket.closed() == 1000
    assert service.stored == {}
    assert service.blobs.stored == {}


async def test_leaving_cancels_nothing_and_gives_the_slot_back():
    slots = Slots(1)
    app, service = make(slots=slots)
    async with Socket(app, PATH) as socket:
        await socket.say(URLS)
        job_id = (await socket.hear())["prompt_id"]
        assert slots.taken == 1
    assert slots.taken == 0
    assert not service.stored[job_id].is_terminal
    assert not service.bus._channels


@pytest.mark.parametrize(
    ("opening", "code", "field_hint"),
    [
        ({"video_path": "/tmp/v.mp4", "image_path": "/tmp/f.png"}, 1008, "POST /face-swap"),
        ({"video_url": "https://media.example.org/v.mp4"}, 1008, "image"),
        ({"video_url": "http://127.0.0.1/v.mp4", "image_url": URLS["image_url"]}, 1008, "not accepted"),
        ({"video_url": 7, "image_url": URLS["image_url"]}, 1008, "video_url"),
        ({"prompt_id": "019a0000-0000-7000-8000-00000000dead"}, 4404, "no such job"),
        ({"prompt_id": 7}, 4404, "no such job"),
        ({}, 1008, "target"),
    ],
)
async def test_an_opening_that_cannot_be_served_gets_one_error_and_a_code(opening, code, field_hint):
    app, service = make()
    async with Socket(app, PATH) as socket:
        await socket.say(opening)
        error = await socket.hear()
        assert error["type"] == "error"
        assert field_hint in error["detail"]
        assert await socket.closed() == code
    assert service.stored == {}


@pytest.mark.parametrize("text", ["{", "[]", "NaN", '{"a": NaN}', "[" * 1000, '{"a":1,"a":2}', "", '{"a":"\\ud800"}'])
async def test_bad_json_gets_one_error_and_1008(text):
    app, _ = make()
    async with Socket(app, PATH) as socket:
        await socket.say(text)
        assert (await socket.hear())["code"] == "validation_error"
        assert await socket.closed() == 1008


async def test_bad_json_later_on_ends_the_socket_and_not_the_job():
    app, service = make()
    job = service.put()
    async with Socket(app, PATH) as socket:
        await socket.say({"prompt_id": job.id})
        await socket.hear()
        await socket.say("{")
        assert (await socket.hear())["type"] == "error"
        assert await socket.closed() == 1008
    assert not service.stored[job.id].is_terminal


async def test_binary_is_refused_with_1003_and_too_much_text_with_1009():
    app, _ = make()
    async with Socket(app, PATH) as socket:
        await socket.say_bytes(b"{}")
        assert await socket.closed() == 1003
    async with Socket(app, PATH) as socket:
        await socket.say('{"a": "' + "é" * 40_000 + '"}')
        assert await socket.closed() == 1009


async def test_silence_is_closed_with_4408(monkeypatch):
    monkeypatch.setattr("gateway.api.dialects.faceswap.socket.FIRST_MESSAGE_SECONDS", 0.01)
    app, _ = make()
    async with Socket(app, PATH) as socket:
        assert await socket.closed() == 4408


async def test_what_is_not_understood_is_answered_and_the_stream_goes_on():
    app, service = make()
    job = service.put()
    async with Socket(app, PATH) as socket:
        await socket.say({"prompt_id": job.id})
        await socket.hear()
        await socket.say({"hello": 1})
        assert "cancel" in (await socket.hear())["detail"]
        service.tell(job.id, EventKind.FAILED, code="node_failed", message="It failed.")
        assert (await socket.hear())["code"] == "node_failed"


@pytest.mark.parametrize(
    ("refusal", "fetch_refusal", "code"),
    [(QueueFullError("Full."), None, "queue_full"), (None, SourceUnreachableError("No."), "source_unreachable")],
)
async def test_what_the_engine_refuses_is_an_error_frame(refusal, fetch_refusal, code):
    app, service = make()
    service.refusal, service.fetch_refusal = refusal, fetch_refusal
    async with Socket(app, PATH) as socket:
        await socket.say(URLS)
        assert (await socket.hear())["code"] == code
        assert await socket.closed() == 1000
    assert service.blobs.stored == {}


async def test_stopping_closes_with_1012():
    app, service = make()
    job = service.put()
    async with Socket(app, PATH) as socket:
        await socket.say({"prompt_id": job.id})
        await socket.hear()
        service.stop()
        assert await socket.closed() == 1012


async def test_a_peer_that_reads_nothing_is_let_go_and_holds_back_nothing(monkeypatch):
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.02)
    slots = Slots(1)
    app, service = make(slots=slots)
    job = service.put()
    async with Socket(app, PATH) as socket:
        await socket.say({"prompt_id": job.id})
        await socket.hear()
        socket.reads.clear()
        for number in range(1000):
            service.show(job.id, number / 1000)
        async with asyncio.timeout(5):
            await socket.task
        assert slots.taken == 0
    assert not service.stored[job.id].is_terminal


async def test_a_socket_too_many_is_refused_before_it_is_accepted():
    app, service = make(slots=Slots(0))
    async with Socket(app, PATH) as socket:
        assert (socket.first["type"], socket.first["status"]) == ("websocket.http.response.start", 503)
    assert (await ask(app, "POST", "/face-swap")).status == 503
    assert service.submissions == []


async def test_previews_are_binary_messages_for_those_who_ask_and_for_nobody_else():
    app, service = make()
    job = service.put()
    async with Socket(app, PATH + "?previews=1") as looking, Socket(app, PATH) as other:
        for socket in (looking, other):
            await socket.say({"prompt_id": job.id})
            await socket.hear()
        service.show_preview(job.id, b"\xff\xd8\xff picture")
        assert parse_binary(await looking.hear_bytes()) == PreviewPicture(
            job.id, "3", "image/jpeg", b"\xff\xd8\xff picture"
        )
        service.succeed(job.id)
        assert [(await other.hear())["event"] for _ in range(2)] == ["progress", "completed"]
        assert await other.closed() == 1000


async def test_a_question_for_previews_that_is_none_gets_one_error_and_1008():
    app, service = make()
    async with Socket(app, PATH + "?previews=perhaps") as socket:
        assert "previews" in (await socket.hear())["detail"]
        assert await socket.closed() == 1008
    assert service.submissions == []


@pytest.mark.parametrize("path", ["/events/", "/-/jobs/"])
async def test_streams_of_text_tell_previews_when_asked(path):
    app, service = make()
    job = service.put()
    address = f"{path}{job.id}/events" if path == "/-/jobs/" else f"{path}{job.id}"
    async with Stream(app, "GET", address + "?previews=1") as looking, Stream(app, "GET", address) as other:
        await looking.until("queued")
        await other.until("queued")
        service.show_preview(job.id, b"picture")
        (shown,) = [it for it in (await looking.until("preview")).messages if it.event == "preview"]
        assert json.loads(shown.data) == {"node": "3", "content_type": "image/jpeg", "data": "cGljdHVyZQ=="}
        service.succeed(job.id)
        await other.whole()
        assert "preview" not in other.parsed.names
    answer = await ask(app, "GET", address + "?previews=perhaps")
    assert (answer.status, answer.json.get("field", "previews")) == (400, "previews")

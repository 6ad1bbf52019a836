import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from gateway.api.dialects.swaps_v1 import handlers
from gateway.audit import MediaKind
from gateway.errors import SourceUnreachableError
from gateway.events import EventKind
from gateway.job import JobState
from tests.fakes.fake_service import NOW
from tests.tools.asgi import Stream, ask, make

FACE, TARGET = "https://media.example.org/face.jpg", "https://media.example.org/target.jpg"
IMAGE = {"type": "image", "source_url": FACE, "target_url": TARGET}
SWAPS = "/api/v1/swaps"


@pytest.fixture
def house():
    app, service = make()
    return (
        app,
        service,
        {"x_api_key": service.give_key(rate_limit=10_000, concurrency=1000), "content_type": "application/json"},
    )


def spelled(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}


def waiting(app, headers, body=IMAGE):
    return Stream(app, "POST", f"{SWAPS}?wait=true", spelled(headers), json.dumps(body).encode())


async def turns(number=30):
    for _ in range(number):
        await asyncio.sleep(0)


# -------------------------------------------------------------------------------------------------------------- a create


async def test_what_was_asked_for_is_what_the_engine_is_given(house):
    app, service, headers = house
    body = {
        **IMAGE,
        "type": "video",
        "webhook_url": "https://media.example.org/hook",
        "metadata": {"order": 7},
        "duration_seconds": 3,
        "file_size_bytes": 5,
    }
    answer = await ask(app, "POST", SWAPS, json.dumps(body).encode(), **headers)
    assert answer.status == 201
    [given] = service.submissions
    assert (given.owner, given.submitter, given.dialect, given.task) == ("key-1", "key-1", "swaps_v1", "face_swap")
    assert given.must_be_runnable
    assert {role: service.blobs.stored[file.blob.hash].decode() for role, file in given.inputs.items()} == {
        "face": FACE,
        "target": TARGET,
    }
    assert given.accepts == {"face": {MediaKind.IMAGE}, "target": {MediaKind.VIDEO}}
    assert given.extra == {
        "type": "video",
        "webhook_url": "https://media.example.org/hook",
        "metadata": {"order": 7},
        "declared": {"duration_seconds": 3.0, "file_size_bytes": 5},
    }


@pytest.mark.parametrize(("kind", "seconds"), [("image", 25.0), ("gif", 25.0), ("video", 120.0)])
async def test_inputs_are_fetched_together_over_https_within_their_time(house, kind, seconds):
    app, service, headers = house
    asked, plain, all_here = {}, service.fetch_url, asyncio.Event()

    async def note(url, *, field, kinds, **wishes):
        asked[field] = wishes
        if len(asked) == 2:
            all_here.set()
        await all_here.wait()
        return await plain(url, field=field, kinds=kinds)

    service.fetch_url = note
    async with asyncio.timeout(5):
        answer = await ask(app, "POST", SWAPS, json.dumps(IMAGE | {"type": kind}).encode(), **headers)
    assert answer.status == 201
    assert asked == {
        "source_url": {"https_only": True, "deadline_seconds": 25.0},
        "target_url": {"https_only": True, "deadline_seconds": seconds},
    }


async def test_a_webhook_is_vetted_before_anything_is_fetched(house):
    app, service, headers = house
    service.fetch_gate = asyncio.Event()
    body = json.dumps(IMAGE | {"webhook_url": "https://10.0.0.1/"}).encode()
    async with asyncio.timeout(5):
        answer = await ask(app, "POST", SWAPS, body, **headers)
    assert answer.json["error"]["code"] == "validation_error"


async def test_nothing_is_fetched_for_a_key_that_could_not_pay(house):
    app, service, headers = house
    service.least["face_swap", MediaKind.VIDEO] = 3
    await service.credits.grant("tester", "permanent", 2)

    async def refuse(*_, **__):
        raise AssertionError("somebody was dialed")

    plain, service.fetch_url = service.fetch_url, refuse
    film, once = json.dumps(IMAGE | {"type": "video"}).encode(), {"idempotency_key": "order-7"}
    refused = await ask(app, "POST", SWAPS, film, **headers, **once)
    assert (refused.status, refused.json["error"]["code"]) == (402, "insufficient_credits")
    service.fetch_url = plain
    assert (await ask(app, "POST", SWAPS, json.dumps(IMAGE).encode(), **headers)).status == 201
    await service.credits.grant("tester", "monthly", 1)
    again = await ask(app, "POST", SWAPS, film, **headers, **once)
    assert (again.status, again.headers.get("idempotent-replayed")) == (201, None)


async def test_whoever_leaves_during_the_fetch_leaves_nothing(house):
    app, service, headers = house
    service.fetch_gate = asyncio.Event()
    async with Stream(app, "POST", SWAPS, spelled(headers), json.dumps(IMAGE).encode()) as stream:
        await turns()
        stream.task.cancel()
    assert (service.submissions, service.blobs.stored) == ([], {})


async def test_all_who_wait_for_the_same_create_are_told_at_once_that_the_gateway_stops(house):
    app, service, headers = house
    service.fetch_gate = asyncio.Event()
    once = spelled(headers) | {"idempotency-key": "order-7"}
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(Stream(app, "POST", SWAPS, once, json.dumps(IMAGE).encode()))
            for _ in range(5)
        ]
        await turns()
        service.stopping.set()
        async with asyncio.timeout(5):
            answers = [await stream.whole() for stream in streams]
    assert {answer.json["error"]["code"] for answer in answers} == {"api_temporarily_disabled"}
    assert all("retry-after" in answer.headers for answer in answers)
    assert (service.submissions, service.blobs.stored) == ([], {})


# -------------------------------------------------------------------------------------------------------------- waiting


async def test_a_wait_ends_at_once_when_the_job_does(house):
    app, service, headers = house
    async with waiting(app, headers) as stream:
        await turns()
        [job_id] = service.stored
        service.tell(job_id, EventKind.DISPATCHED, upstream="gpu-1", engine="preview", attempt=1)
        await turns()
        assert not stream.task.done()
        service.succeed(job_id)
        answer = await stream.whole()
    assert (answer.status, answer.json["status"], answer.json["progress"]) == (201, "done", 100)


async def test_who_waits_for_the_end_holds_no_place_among_the_creates():
    app, service = make()
    headers = {"x_api_key": service.give_key(concurrency=1), "content_type": "application/json"}
    async with waiting(app, headers) as stream:
        await turns()
        assert not stream.task.done()
        assert (await ask(app, "POST", SWAPS, json.dumps(IMAGE).encode(), **headers)).status == 201
        service.stop()
        assert (await stream.whole()).status == 201


async def test_a_wait_asks_the_store_for_events_and_not_by_the_clock(house):
    app, service, headers = house
    looks, plain = [], service.job

    async def look(job_id, owner):
        looks.append(job_id)
        return await plain(job_id, owner)

    service.job = look
    async with waiting(app, headers) as stream:
        await turns()
        [job_id] = service.stored
        for fraction in range(50):
            service.show(job_id, fraction / 100)
            await turns(3)
        service.tell(job_id, EventKind.STARTED)
        service.tell(job_id, EventKind.CANCELED)
        await stream.whole()
    assert len(looks) <= 6


async def test_a_wait_is_over_after_its_time_and_tells_how_it_stands(house, monkeypatch):
    app, service, headers = house
    monkeypatch.setattr(handlers, "WAIT_SECONDS", 0.0)
    async with asyncio.timeout(5):
        answer = await ask(app, "POST", f"{SWAPS}?wait=true", json.dumps(IMAGE).encode(), **headers)
    assert (answer.status, answer.json["status"]) == (201, "queued")
    assert service.stored[answer.json["id"]].state is JobState.QUEUED


@pytest.mark.parametrize("ends", ["client", "gateway"])
async def test_a_wait_ends_with_the_client_and_with_the_gateway_and_leaves_the_job(house, ends):
    app, service, headers = house
    async with waiting(app, headers) as stream:
        await turns()
        [job_id] = service.stored
        if ends == "client":
            stream.leave()
        else:
            service.stop()
        answer = await stream.whole()
    assert answer.json["status"] == "queued"
    assert service.stored[job_id].state is JobState.QUEUED
    assert service.bus._channels == {}


async def test_five_hundred_wait_for_one_job_and_all_are_told(house):
    app, service, headers = house
    job = service.put(owner="key-1")

    async def same(_submission):
        return job

    service.submit = same
    streams = [waiting(app, headers) for _ in range(500)]
    for stream in streams:
        await stream.__aenter__()
    await turns()
    service.succeed(job.id)
    answers = [await stream.whole() for stream in streams]
    for stream in streams:
        await stream.__aexit__()
    assert {answer.json["status"] for answer in answers} == {"done"}


# ------------------------------------------------------------------------------------------------------------------ ids

MISSING = "019a0000-0000-7000-8000-0000000000ff"
MALFORMED = ["x", "019A0000-0000-7000-8000-000000000001", "a" * 64, "a" * 300, "%00", "..%2f..", "%ff", "é"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_foreign_missing_and_malformed_ids_are_one_answer_after_one_question(house, method):
    app, service, headers = house
    foreign = service.put(owner="key-2").id
    questions, plain = [], service.job

    async def ask_engine(job_id, owner):
        questions.append(("job", len(job_id), owner))
        return await plain(job_id, owner)

    service.job = ask_engine
    told = set()
    for text in (foreign, MISSING, *MALFORMED):
        answer = await ask(app, method, f"{SWAPS}/{text}", x_request_id="one", **headers)
        if "%2f" not in text:  # a slash more is another path
            told.add((answer.status, answer.body, tuple(questions)))
        questions.clear()
    [(status, body, asked)] = told
    assert (status, asked) == (404, (("job", 36, "key-1"),))
    assert json.loads(body)["error"]["code"] == "not_found"
    assert service.stored[foreign].state is JobState.QUEUED


# --------------------------------------------------------------------------------------------------------------- delete


async def test_a_delete_acts_on_what_waits_and_on_nothing_else(house):
    app, service, headers = house
    asked, plain = [], service.cancel

    async def note(job_id, owner, from_states=None):
        asked.append(from_states)
        return await plain(job_id, owner, from_states)

    service.cancel = note
    waits, runs = service.put(owner="key-1").id, service.put(owner="key-1").id
    service.preparing.add(waits)
    service.tell(runs, EventKind.DISPATCHED, upstream="gpu-1", engine="preview", attempt=1)
    words = [(await ask(app, "DELETE", f"{SWAPS}/{job_id}", **headers)).json["status"] for job_id in (waits, runs)]
    assert words == ["canceled", "processing"]
    assert asked == [frozenset({JobState.QUEUED})] * 2


async def test_a_method_that_is_not_taken_is_told_before_a_key_is_asked_for(house):
    app, service, _ = house
    for path, allow in ((SWAPS, "GET, HEAD, OPTIONS, POST"), (f"{SWAPS}/x", "DELETE, GET, HEAD, OPTIONS")):
        answer = await ask(app, "PATCH", path, x_api_key="no key")
        assert (answer.status, answer.headers["allow"]) == (405, allow)
        assert answer.json["error"]["code"] == "method_not_allowed"
    assert service.account_store.asked == []


async def test_in_open_mode_a_key_is_wanted_all_the_same():
    app, service = make()
    service.put()
    answer = await ask(app, "GET", SWAPS)
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")


async def test_times_and_links_are_as_documented(house):
    app, service, headers = house
    job = service.put(owner="key-1", output_name="holiday")
    link = service.succeed(job.id)
    body = (await ask(app, "GET", f"{SWAPS}/{job.id}", **headers)).json
    assert body["created_at"] == "2025-06-18T15:00:00.000Z"
    assert NOW == 1_750_258_800
    assert body["result_url"] == f"http://localhost:8000/download/{link}"
    assert (await ask(app, "GET", f"/download/{link}")).body == b"the swapped video"


# ------------------------------------------------------------------------------------------------------------- once


def once(headers, key="6f1c"):
    return {**headers, "idempotency_key": key}


async def test_fifty_at_once_with_one_key_are_one_swap_and_fifty_equal_answers(house):
    app, service, _ = house
    headers = {"x_api_key": service.give_key(rate_limit=1000, concurrency=1), "content_type": "application/json"}
    service.fetch_gate = asyncio.Event()
    body = json.dumps(IMAGE).encode()
    asking = [asyncio.create_task(ask(app, "POST", SWAPS, body, **once(headers))) for _ in range(50)]
    await turns(200)
    service.fetch_gate.set()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asking)
    assert {(answer.status, answer.body) for answer in answers} == {(201, answers[0].body)}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    assert len(service.submissions) == 1


async def test_a_repeat_in_other_words_is_the_same_and_one_with_another_body_is_refused(house):
    app, service, headers = house
    first = await ask(app, "POST", SWAPS, json.dumps(IMAGE).encode(), **once(headers))
    again = await ask(
        app, "POST", SWAPS, json.dumps(dict(reversed(IMAGE.items())), indent=3).encode(), **once(headers, '"6f1c"')
    )
    other = await ask(app, "POST", SWAPS, json.dumps(IMAGE | {"type": "gif"}).encode(), **once(headers))
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status, other.json["error"]["code"]) == (400, "validation_error")
    assert "Idempotency-Key" in other.json["error"]["message"]
    assert len(service.submissions) == 1


async def test_a_replay_that_waits_is_told_how_the_swap_ended(house):
    app, service, headers = house
    body = json.dumps(IMAGE).encode()
    first = await ask(app, "POST", SWAPS, body, **once(headers))
    service.succeed(first.json["id"])
    plain = await ask(app, "POST", SWAPS, body, **once(headers))
    waited = await ask(app, "POST", f"{SWAPS}?wait=true", body, **once(headers))
    assert (plain.body, waited.json["status"]) == (first.body, "done")
    del service.stored[first.json["id"]]
    forgotten = await ask(app, "POST", f"{SWAPS}?wait=true", body, **once(headers))
    assert forgotten.body == first.body


async def test_a_refusal_frees_the_key(house):
    app, service, headers = house
    body = json.dumps(IMAGE).encode()
    service.fetch_refusal = SourceUnreachableError("gone")
    refused = await ask(app, "POST", SWAPS, body, **once(headers))
    service.fetch_refusal = None
    made = await ask(app, "POST", SWAPS, body, **once(headers))
    assert (refused.status, made.status) == (400, 201)
    assert "idempotent-replayed" not in made.headers


async def test_more_creates_than_a_key_may_have_are_refused_before_anything_is_fetched(house):
    app, service, _ = house
    headers = {"x_api_key": service.give_key(rate_limit=1000, concurrency=2), "content_type": "application/json"}
    service.fetch_gate = asyncio.Event()
    body = json.dumps(IMAGE).encode()
    asking = [asyncio.create_task(ask(app, "POST", SWAPS, body, **headers)) for _ in range(2)]
    await turns()
    third = await ask(app, "POST", SWAPS, body, **headers)
    assert (third.status, third.json["error"]["code"]) == (429, "rate_limited_concurrent")
    assert int(third.headers["retry-after"]) >= 1
    service.fetch_gate.set()
    assert [(await task).status for task in asking] == [201, 201]
    assert (await ask(app, "POST", SWAPS, body, **headers)).status == 201


# -------------------------------------------------------------------------------------------------------------- faces


@pytest.mark.parametrize(
    ("found_by", "parameters", "end"),
    [
        (("reactor", "opencv"), {"detector": "reactor"}, "left to right, as found by reactor."),
        (("opencv",), {"detector": "opencv"}, "left to right, as found by opencv."),
        ((), {}, "left to right."),
    ],
)
async def test_a_detection_is_bound_to_the_detector_that_its_note_names(house, found_by, parameters, end):
    app, service, headers = house
    service.found_by = found_by
    answer = await ask(app, "POST", "/api/v1/face-detect", json.dumps({"target_url": TARGET}).encode(), **headers)
    assert (answer.status, answer.json["note"].endswith(end)) == (202, True), answer.json
    [given] = service.submissions
    assert given.parameters == parameters

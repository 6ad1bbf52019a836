"""A key's limits on whole requests: what is counted, what is refused, and what every answer tells of it."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.engine.accounts import NewKey
from tests.tools.asgi import TOKEN, Socket, ask, form, make

TARGET = b"\x89PNG\r\n\x1a\n" + b"target"


class Time:
    """A clock that a test moves."""

    def __init__(self):
        self.seconds = 1000.0

    def monotonic(self):
        return self.seconds


@pytest.fixture
async def house():
    app, service = make(auth="keys")
    time = Time()
    service.clock.monotonic = time.monotonic
    told = await service.accounts.create_key(NewKey("laptop", rate_limit=3, concurrency=2))
    return app, service, told.text, time


def left(answer):
    """(remaining, seconds until there is more)."""
    found = re.fullmatch(r'"minute";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert found, answer.headers["ratelimit"]
    assert answer.headers["ratelimit-policy"] == '"minute";q=3;w=60, "create";q=2;qu="concurrent-requests"'
    return int(found[1]), int(found[2])


async def test_every_answer_to_a_key_tells_what_is_left_whatever_its_status(house):
    app, _, key, time = house
    good = await ask(app, "GET", "/-/jobs", x_api_key=key)
    assert (good.status, left(good)) == (200, (2, 60))
    time.seconds += 7.5
    missing = await ask(app, "GET", "/-/jobs/019a0000-0000-7000-8000-000000000000", x_api_key=key)
    assert (missing.status, left(missing)) == (404, (1, 53))
    refused = await ask(app, "POST", "/face-swap", x_api_key=key)
    assert (refused.status, left(refused)) == (400, (0, 53))


async def test_one_too_many_is_refused_until_the_moment_that_it_names(house):
    app, service, key, time = house
    for _ in range(3):
        await ask(app, "GET", "/-/jobs", x_api_key=key)
        time.seconds += 1
    answer = await ask(app, "GET", "/status/x", x_api_key=key)
    assert (answer.status, answer.json["code"], left(answer)) == (429, "rate_limited", (0, 57))
    assert answer.headers["retry-after"] == "57"
    time.seconds += 57
    assert (await ask(app, "GET", "/-/jobs", x_api_key=key)).status == 200
    assert service.submissions == []


async def test_what_opens_without_a_key_and_what_asks_for_no_method_of_ours_is_not_counted(house):
    app, _, key, _ = house
    for _ in range(5):
        assert (await ask(app, "GET", "/health/ready", x_api_key=key)).status == 200
        assert (await ask(app, "PATCH", "/-/jobs", x_api_key=key)).status == 405
    assert left(await ask(app, "GET", "/-/jobs", x_api_key=key)) == (2, 60)


async def test_what_a_key_may_not_do_is_counted_too(house):
    app, _, key, _ = house
    answers = [await ask(app, "GET", "/-/keys", x_api_key=key) for _ in range(4)]
    assert [answer.status for answer in answers] == [403, 403, 403, 429]
    assert [left(answer) for answer in answers] == [(2, 60), (1, 60), (0, 60), (0, 60)]


async def test_socket_is_counted_as_any_request(house):
    app, _, key, _ = house
    for _ in range(3):
        await ask(app, "GET", "/-/jobs", x_api_key=key)
    async with Socket(app, "/face-swap-ws", x_api_key=key) as socket:
        assert (socket.first["type"], socket.first.get("status")) == ("websocket.http.response.start", 429)


async def test_wrong_keys_touch_nobodys_quota(house):
    app, _, key, _ = house
    for _ in range(5):
        answer = await ask(app, "GET", "/-/jobs", x_api_key=key[:-1] + "?")
        assert answer.status == 401
        assert "ratelimit" not in answer.headers
    assert left(await ask(app, "GET", "/-/jobs", x_api_key=key)) == (2, 60)


async def test_operator_and_open_mode_have_no_limits(house):
    app, _, _, _ = house
    open_app, _ = make()
    for _ in range(10):
        for answer in (
            await ask(app, "GET", "/-/jobs", authorization=f"Bearer {TOKEN}"),
            await ask(open_app, "GET", "/-/jobs"),
        ):
            assert answer.status == 200
            assert "ratelimit" not in answer.headers


async def test_rotated_key_goes_on_with_its_window(house):
    app, service, key, _ = house
    assert left(await ask(app, "GET", "/-/jobs", x_api_key=key)) == (2, 60)
    found = (await service.accounts.keyholder(key)).key
    told = await service.accounts.rotate_key(found.id)
    assert left(await ask(app, "GET", "/-/jobs", x_api_key=told.text)) == (1, 60)


# ---- creates in flight


async def create(app, key):
    body = {"image_url": "https://media.example.org/a.png", "video_url": "https://media.example.org/b.mp4"}
    content, headers = form({**body, "return_prompt_id_only": "true"})
    return await ask(app, "POST", "/face-swap", content, x_api_key=key, **headers)


async def test_one_create_too_many_at_once_is_refused_and_the_places_come_back():
    app, service = make(auth="keys")
    key = (await service.accounts.create_key(NewKey("laptop", concurrency=2))).text
    service.fetch_gate = asyncio.Event()
    creates = [asyncio.ensure_future(create(app, key)) for _ in range(3)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert [task.done() for task in creates].count(True) == 1
    service.fetch_gate.set()
    answers = await asyncio.gather(*creates)
    refused = [answer for answer in answers if answer.status == 429]
    assert [answer.json["code"] for answer in refused] == ["rate_limited_concurrent"]
    assert refused[0].headers["retry-after"] == "1"
    assert len(service.submissions) == 2
    assert (await create(app, key)).status == 200


@pytest.mark.parametrize("path", ["/swap_image/", "/submit_task"])
async def test_creates_of_all_dialects_share_the_places(path):
    app, service = make(auth="keys")
    key = (await service.accounts.create_key(NewKey("laptop", concurrency=1))).text
    service.fetch_gate = asyncio.Event()
    first = asyncio.ensure_future(create(app, key))
    for _ in range(200):
        await asyncio.sleep(0)
    answer = await ask(app, "POST", path, b"{}", x_api_key=key, content_type="application/json")
    assert answer.status == 429
    service.fetch_gate.set()
    await first
    answer = await ask(app, "POST", path, b"{}", x_api_key=key, content_type="application/json")
    assert answer.status in {400, 415, 422}


async def test_clients_that_leave_give_their_places_back():
    app, service = make(auth="keys")
    key = (await service.accounts.create_key(NewKey("laptop", concurrency=2))).text
    service.fetch_gate = asyncio.Event()
    creates = [asyncio.ensure_future(create(app, key)) for _ in range(2)]
    for _ in range(200):
        await asyncio.sleep(0)
    for task in creates:
        task.cancel()
    await asyncio.gather(*creates, return_exceptions=True)
    service.fetch_gate.set()
    assert [(await create(app, key)).status for _ in range(2)] == [200, 200]


async def test_refused_create_leaves_no_bytes():
    app, service = make(auth="keys")
    key = (await service.accounts.create_key(NewKey("laptop", concurrency=1))).text
    service.fetch_gate = asyncio.Event()
    first = asyncio.ensure_future(create(app, key))
    for _ in range(200):
        await asyncio.sleep(0)
    content, headers = form({"image": TARGET, "target_image": TARGET, "return_prompt_id_only": "true"})
    answer = await ask(app, "POST", "/face-swap", content, x_api_key=key, **headers)
    assert answer.status == 429
    assert service.blobs.stored == {}
    service.fetch_gate.set()
    await first

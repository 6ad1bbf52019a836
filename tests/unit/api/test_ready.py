"""Answers kept ready: who gets one, and what makes it stale."""

from __future__ import annotations

import asyncio

import pytest

from gateway.api import ready
from gateway.events import EventKind
from tests.tools.asgi import TOKEN, ask, make

OWNER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def polled(monkeypatch):
    """An application, its engine, a job that runs, and how often the engine was asked for a job."""
    app, service = make()
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    asked = []
    plain = service.job

    async def counted(*arguments):
        asked.append(arguments)
        return await plain(*arguments)

    monkeypatch.setattr(service, "job", counted)
    return app, service, job.id, asked


async def test_what_has_not_changed_is_answered_without_asking_the_engine(polled):
    app, _, job_id, asked = polled
    first = await ask(app, "GET", f"/status/{job_id}")
    second = await ask(app, "GET", f"/status/{job_id}")
    assert len(asked) == 1
    assert (second.status, second.body) == (200, first.body)
    differing = {name for name in first.headers if first.headers[name] != second.headers.get(name)}
    assert differing == {"x-request-id"}
    assert set(second.headers) == set(first.headers)


async def test_every_change_of_the_job_shows_in_the_next_answer(polled):
    app, service, job_id, _ = polled
    seen = [(await ask(app, "GET", f"/status/{job_id}")).json["progress"]["percentage"]]
    for fraction in (0.1, 0.2, 0.3):
        service.show(job_id, fraction)
        seen.append((await ask(app, "GET", f"/status/{job_id}")).json["progress"]["percentage"])
    assert seen == [0, 10, 20, 30]
    service.succeed(job_id)
    assert (await ask(app, "GET", f"/status/{job_id}")).json["status"] == "SUCCESS"


async def test_each_dialect_keeps_its_own_answer_about_a_job_and_a_change_reaches_all(polled):
    app, service, job_id, asked = polled
    paths = {f"/status/{job_id}": "PROCESSING", f"/check_task_status/{job_id}": "processing"}
    for _ in range(2):
        for path, word in paths.items():
            assert (await ask(app, "GET", path)).json["status"] == word
    assert len(asked) == 2
    service.succeed(job_id)
    words = [(await ask(app, "GET", path)).json["status"] for path in paths]
    assert words == ["SUCCESS", "completed"]
    service.bus.doubt_all()
    await ask(app, "GET", f"/check_task_status/{job_id}")
    assert len(asked) == 5


async def test_a_place_in_the_queue_is_told_anew_after_any_event_of_any_job(polled, monkeypatch):
    app, service, other, _ = polled
    waiting = service.put().id
    ahead = 2

    async def position(job_id):
        return ahead

    monkeypatch.setattr(service, "queue_position", position)
    first = await ask(app, "GET", f"/status/{waiting}")
    assert first.json["progress"]["step"] == "Waiting in the queue, 2 ahead"
    ahead = 1
    assert (await ask(app, "GET", f"/status/{waiting}")).body == first.body
    service.tell(other, EventKind.FINISHING)
    assert (await ask(app, "GET", f"/status/{waiting}")).json["progress"]["step"] == "Waiting in the queue, 1 ahead"


async def test_what_was_purged_is_gone_at_once(polled):
    app, service, job_id, _ = polled
    await ask(app, "GET", f"/status/{job_id}")
    del service.stored[job_id]
    service.bus.doubt_all()
    assert (await ask(app, "GET", f"/status/{job_id}")).status == 404


@pytest.mark.parametrize(("has_ended", "seconds"), [(False, ready.FRESH_SECONDS), (True, ready.ENDED_FRESH_SECONDS)])
async def test_nothing_is_kept_for_longer_than_it_says(polled, monkeypatch, has_ended, seconds):
    app, service, job_id, asked = polled
    if has_ended:
        service.succeed(job_id)
    now = 100.0
    monkeypatch.setattr(service.clock, "monotonic", lambda: now)
    await ask(app, "GET", f"/status/{job_id}")
    now += seconds - 0.01
    await ask(app, "GET", f"/status/{job_id}")
    assert len(asked) == 1
    now += 0.01
    await ask(app, "GET", f"/status/{job_id}")
    assert len(asked) == 2


async def test_an_answer_that_was_overtaken_while_it_was_made_is_not_kept(polled, monkeypatch):
    app, service, job_id, _ = polled
    begun, gate, plain = asyncio.Event(), asyncio.Event(), service.job

    async def slow(*arguments):
        found = await plain(*arguments)
        begun.set()
        await gate.wait()
        return found

    monkeypatch.setattr(service, "job", slow)
    old = asyncio.create_task(ask(app, "GET", f"/status/{job_id}"))
    await begun.wait()
    service.succeed(job_id)
    gate.set()
    assert (await old).json["status"] == "PROCESSING"
    assert (await ask(app, "GET", f"/status/{job_id}")).json["status"] == "SUCCESS"


async def test_answers_made_side_by_side_are_told_apart(polled, monkeypatch):
    app, service, job_id, _ = polled
    gates, plain = [asyncio.Event(), asyncio.Event()], service.job
    begun = []

    async def slow(*arguments):
        found = await plain(*arguments)
        begun.append(found)
        if len(begun) <= 2:
            await gates[len(begun) - 1].wait()
        return found

    monkeypatch.setattr(service, "job", slow)
    first, second = (asyncio.create_task(ask(app, "GET", f"/status/{job_id}")) for _ in range(2))
    async with asyncio.timeout(5):
        while len(begun) < 2:  # noqa: ASYNC110 - two turns of the loop
            await asyncio.sleep(0)
    gates[1].set()
    await second
    service.succeed(job_id)
    gates[0].set()
    assert (await first).json["status"] == "PROCESSING"
    assert (await ask(app, "GET", f"/status/{job_id}")).json["status"] == "SUCCESS"
    assert _layer(app)._making == {}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"x_forwarded_for": "10.0.0.1"}, 403),
    ],
)
async def test_whoever_may_not_read_it_is_refused_though_it_is_ready(polled, headers, status):
    app, _, job_id, _ = polled
    assert (await ask(app, "GET", f"/status/{job_id}")).status == 200
    assert (await ask(app, "GET", f"/status/{job_id}", **headers)).status == status


async def test_without_the_token_there_is_no_ready_answer():
    app, service = make(auth="keys")
    job_id = service.put().id
    for _ in range(2):
        assert (await ask(app, "GET", f"/status/{job_id}", **OWNER)).status == 200
        assert (await ask(app, "GET", f"/status/{job_id}")).status == 401
        assert (await ask(app, "GET", f"/status/{job_id}", authorization="Bearer wrong")).status == 401


async def test_another_owners_answer_is_not_given_though_the_caller_is_known(polled):
    app, service, job_id, _ = polled
    theirs = service.put(owner="somebody else")
    await ask(app, "GET", f"/status/{job_id}")
    layer = _layer(app)
    layer._keep(f"/status/{theirs.id}", ready._Ready("somebody else", [], b"{}", 1e9, None))
    assert (await ask(app, "GET", f"/status/{theirs.id}")).status == 404


async def test_a_request_id_of_the_clients_own_is_echoed(polled):
    app, _, job_id, _ = polled
    for name in ("one", "two"):
        assert (await ask(app, "GET", f"/status/{job_id}", x_request_id=name)).headers["x-request-id"] == name


async def test_an_origin_that_is_allowed_gets_its_own_headers_each_time():
    app, service = make(cors_origins="https://page.example")
    job_id = service.put().id
    await ask(app, "GET", f"/status/{job_id}")
    answer = await ask(app, "GET", f"/status/{job_id}", origin="https://page.example")
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-origin" not in (await ask(app, "GET", f"/status/{job_id}")).headers


async def test_a_refusal_is_never_kept(polled):
    app, _, _, _ = polled
    job_id = "019a0000-0000-7000-8000-00000000ffff"
    assert (await ask(app, "GET", f"/status/{job_id}")).status == 404
    assert _layer(app)._answers == {}


async def test_the_answer_to_a_request_with_a_body_of_its_own_is_not_for_others(polled):
    app, _, job_id, _ = polled
    with_body = await ask(app, "GET", f"/status/{job_id}", b"nobody wants this")
    assert with_body.headers["connection"] == "close"
    assert _layer(app)._answers == {}
    plain = await ask(app, "GET", f"/status/{job_id}")
    assert "connection" not in plain.headers
    assert len(plain.body) == int(plain.headers["content-length"]) > 0


async def test_what_is_kept_is_bounded(polled, monkeypatch):
    app, service, _, _ = polled
    monkeypatch.setattr(ready, "MAX_ANSWERS", 3)
    monkeypatch.setattr(ready, "MAX_KNOWN", 2)
    for number in range(6):
        assert (await ask(app, "GET", f"/status/{service.put().id}", user_agent=f"client {number}")).status == 200
    layer = _layer(app)
    assert (len(layer._answers), len(layer._paths), len(layer._known), len(layer._making)) == (3, 3, 2, 0)
    big = {"user_agent": "x" * ready.MAX_HEADER_BYTES}
    await ask(app, "GET", f"/status/{service.put().id}", **big)
    assert not any(pair == (b"user-agent", big["user_agent"].encode()) for key in layer._known for pair in key[0])


def _layer(app):
    return app.ready

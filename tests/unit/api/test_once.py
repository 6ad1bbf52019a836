"""``Idempotency-Key`` over HTTP, in a small dialect of its own."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.api.facade import Submission
from gateway.api.once import once, once_response, wanted_of
from gateway.api.problems import problem
from gateway.api.uploads import receive_json
from gateway.api.window import Dialect, Endpoint
from gateway.engine.accounts import NewKey
from gateway.errors import InsufficientCreditsError
from gateway.job import JobState
from tests.tools.asgi import ask, make

BODY = {"what": "swap", "faces": [1, 2]}


class Desk:
    """A dialect that makes jobs of any body; a create waits for ``gate``."""

    def __init__(self, **key):
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = 0
        dialect = Dialect(
            "desk", (Endpoint("POST", "/desk", self.post),), ("/desk",), problem, dict.fromkeys(JobState, "")
        )
        self.app, self.service = make(auth="keys", dialects=(dialect,))
        self.new_key = NewKey("ann", rate_limit=1000, **key)

    async def post(self, request, call):
        body = await receive_json(request, call.window.form_limits, stopping=call.service.stopping)

        async def create(promise):
            self.begun += 1
            await self.gate.wait()
            caller = call.known
            return await call.service.submit(
                Submission(caller.owner, caller.submitter, "desk", {}, {}, parameters=body, promise=promise)
            )

        until = call.service.clock.monotonic() + 50
        wanted = wanted_of(request, call, body)
        return once_response(await once(call, wanted, create, lambda job: (201, {"id": job.id}), until=until))

    async def open(self):
        self.ann = (await self.service.accounts.create_key(self.new_key)).text
        self.bob = (await self.service.accounts.create_key(NewKey("bob"))).text
        return self

    async def ask(self, body=BODY, key="order-7", who=None, path="/desk", raw=None):
        content = raw or json.dumps(body).encode()
        headers = {} if key is None else {"idempotency-key": key}
        return await ask(self.app, "POST", path, content, x_api_key=who or self.ann, **headers)

    async def until_begun(self, number=1):
        for _ in range(200):
            await asyncio.sleep(0)
        assert self.begun == number


@pytest.fixture
async def desk():
    return await Desk().open()


async def test_fifty_at_once_are_one_job_and_fifty_equal_answers(desk):
    desk.gate.clear()
    asked = [asyncio.ensure_future(desk.ask()) for _ in range(50)]
    await desk.until_begun()
    desk.gate.set()
    answers = await asyncio.gather(*asked)
    assert {(answer.status, answer.body) for answer in answers} == {(201, answers[0].body)}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    assert len(desk.service.submissions) == 1


async def test_replay_says_so_and_is_the_stored_answer(desk):
    first, again = await desk.ask(), await desk.ask()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status, again.body, again.headers["content-type"]) == (first.status, first.body, "application/json")


async def test_other_spelling_of_key_and_body_and_another_wait_are_the_same_request(desk):
    first = await desk.ask()
    raw = b'{ "faces": [1,2],\n  "what": "\\u0073wap" }'
    assert (await desk.ask(raw=raw, key='"order-7"', path="/desk?wait=true")).body == first.body
    assert len(desk.service.submissions) == 1


async def test_one_changed_field_is_refused_and_makes_nothing(desk):
    await desk.ask()
    answer = await desk.ask({**BODY, "faces": [2, 1]})
    assert (answer.status, answer.json["code"], answer.json["field"]) == (
        422,
        "idempotency_mismatch",
        "Idempotency-Key",
    )
    assert len(desk.service.submissions) == 1


async def test_key_of_another_caller_is_another(desk):
    first, other = await desk.ask(), await desk.ask(who=desk.bob)
    assert first.json["id"] != other.json["id"]


async def test_without_a_key_every_request_counts(desk):
    first, second = await desk.ask(key=None), await desk.ask(key=None)
    assert first.json["id"] != second.json["id"]
    assert desk.service.claim_store.stored == {}


@pytest.mark.parametrize("key", ["", '""', "k" * 65, "a b", '"a'])
async def test_malformed_key_is_refused_before_anything_is_done(desk, key):
    answer = await desk.ask(key=key)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "validation_error", "Idempotency-Key")
    assert desk.begun == 0


async def test_failure_is_told_and_not_kept(desk):
    desk.service.refusal = InsufficientCreditsError("Too little.")
    assert [(await desk.ask()).status for _ in range(2)] == [402, 402]
    desk.service.refusal = None
    answer = await desk.ask()
    assert (answer.status, desk.begun) == (201, 3)
    assert "idempotent-replayed" not in answer.headers


async def test_cap_is_for_those_who_do_it_not_for_those_who_wait_or_are_told_again():
    desk = await Desk(concurrency=1).open()
    first = await desk.ask(key="order-1")
    desk.gate.clear()
    asked = [asyncio.ensure_future(desk.ask(key="order-2")) for _ in range(3)]
    await desk.until_begun(2)
    refused = await desk.ask(key="order-3")
    assert (refused.status, refused.json["code"]) == (429, "rate_limited_concurrent")
    assert "order-3" not in {key for _, key in desk.service.claim_store.stored}
    assert (await desk.ask(key="order-1")).body == first.body
    desk.gate.set()
    assert {answer.status for answer in await asyncio.gather(*asked)} == {201}
    assert len(desk.service.submissions) == 2


async def test_who_waits_too_long_is_told_to_come_back(desk):
    desk.gate.clear()
    first = asyncio.ensure_future(desk.ask())
    await desk.until_begun()
    waiter = asyncio.ensure_future(desk.ask())
    await desk.until_begun()
    desk.service.claim_clock.advance(50)
    answer = await waiter
    assert (answer.status, answer.json["code"]) == (409, "idempotency_in_flight")
    assert answer.headers["retry-after"] == "1"
    desk.gate.set()
    assert (await first).status == 201

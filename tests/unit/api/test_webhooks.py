"""Webhooks over ``/-/``, for their owner."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.engine.accounts import NewKey
from gateway.outbox import Answer, Message, MessageState, Reason
from tests.fakes.fake_service import NOW
from tests.tools.asgi import TOKEN, ask, make

URL = "https://media.example.org/told?token=1"
SENT = Message(
    id="msg_1",
    endpoint=1,
    owner="local",
    account="local",
    url=URL,
    job_id="job-1",
    kind="job.succeeded",
    state=MessageState.DEAD,
    attempts=10,
    next_at=None,
    created_at=NOW,
    last_at=NOW + 1,
    last_status=500,
    reason=Reason.ANSWERED,
)


async def call(app, method, path, body=None, **headers):
    content = b"" if body is None else json.dumps(body).encode()
    return await ask(app, method, path, content, **headers)


@pytest.fixture
def gateway():
    return make()


async def test_messages_are_told_as_they_are(gateway):
    app, service = gateway
    service.webhooks.stored = [SENT, replace(SENT, id="msg_2", owner="k-eve")]
    (told,) = (await call(app, "GET", "/-/webhooks")).json["webhooks"]
    assert told == {
        "id": "msg_1",
        "type": "job.succeeded",
        "job": "job-1",
        "url": URL,
        "state": "dead",
        "attempts": 10,
        "next_at": None,
        "last_at": "2025-06-18T15:00:01.000Z",
        "last_status": 500,
        "reason": "answered",
        "created_at": "2025-06-18T15:00:00.000Z",
    }


async def test_lists_come_in_pages_and_by_state(gateway):
    app, service = gateway
    service.webhooks.stored = [replace(SENT, id=f"msg_{number}") for number in range(5)]
    service.webhooks.stored[4] = replace(SENT, id="msg_4", state=MessageState.PENDING, next_at=NOW)
    first = (await call(app, "GET", "/-/webhooks?limit=2")).json
    assert ([one["id"] for one in first["webhooks"]], first["next"]) == (["msg_0", "msg_1"], "msg_1")
    rest = (await call(app, "GET", "/-/webhooks?before=msg_1&state=dead")).json
    assert ([one["id"] for one in rest["webhooks"]], rest["next"]) == (["msg_2", "msg_3"], None)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "state=gone"])
async def test_what_cannot_be_asked_for_is_refused(gateway, query):
    answer = await call(gateway[0], "GET", f"/-/webhooks?{query}")
    assert (answer.status, answer.json["field"]) == (400, query.partition("=")[0])


async def test_a_message_is_sent_again_and_another_s_is_not_there(gateway):
    app, service = gateway
    own, foreign = (f"msg_019a0000-0000-7000-8000-00000000000{number}" for number in (1, 2))
    service.webhooks.stored = [replace(SENT, id=own), replace(SENT, id=foreign, owner="k-eve")]
    answer = await call(app, "POST", f"/-/webhooks/{own}/redeliver")
    assert (answer.status, answer.json["state"], answer.json["attempts"]) == (202, "pending", 0)
    assert (await call(app, "POST", f"/-/webhooks/{foreign}/redeliver")).status == 404
    assert service.webhooks.stored[1].state is MessageState.DEAD


async def test_a_trial_tells_what_came_of_it(gateway):
    app, service = gateway
    told = (await call(app, "POST", "/-/webhooks/test", {"url": URL})).json
    assert told == {"id": "msg_test_1", "delivered": True, "status": 204, "reason": "answered"}
    ((owner, account, url, body),) = service.webhooks.tried
    assert (owner, account, url) == ("local", "local", URL)
    assert json.loads(body) == {"type": "webhook.test", "timestamp": "2025-06-18T12:00:00.000Z", "data": {}}
    service.webhooks.answer = Answer(Reason.UNREACHABLE)
    told = (await call(app, "POST", "/-/webhooks/test", {"url": URL})).json
    assert (told["delivered"], told["status"], told["reason"]) == (False, None, "unreachable")


@pytest.mark.parametrize("body", [{}, {"url": 1}, {"url": ""}, {"url": "http://127.0.0.1/"}])
async def test_a_trial_of_what_may_not_be_called_is_refused(gateway, body):
    app, service = gateway
    answer = await call(app, "POST", "/-/webhooks/test", body)
    assert (answer.status, answer.json["field"]) == (400, "url")
    assert service.webhooks.tried == []


async def test_a_secret_is_told_once_and_kept_by_nobody_between(gateway):
    app, service = gateway
    first = await call(app, "POST", "/-/webhooks/secret")
    assert (first.status, first.json) == (201, {"secret": "whsec_c2VjcmV0", "previous_until": None})
    assert first.headers["cache-control"] == "no-store"
    second = await call(app, "POST", "/-/webhooks/secret")
    assert second.json["previous_until"] == "2025-06-18T12:00:00.000Z"
    assert service.webhooks.accounts == ["local", "local"]


async def test_in_keys_mode_a_key_s_messages_are_its_own_and_its_user_s_secret_signs():
    app, service = make(auth="keys")
    assert (await call(app, "GET", "/-/webhooks")).status == 401
    user = await service.accounts.create_user("ann")
    told = await service.accounts.create_key(NewKey("laptop", user="ann"))
    bearer = {"authorization": f"Bearer {told.text}"}
    service.webhooks.stored = [SENT, replace(SENT, id="msg_2", owner=told.holder.key.id)]
    page = (await call(app, "GET", "/-/webhooks", **bearer)).json["webhooks"]
    assert [one["id"] for one in page] == ["msg_2"]
    await call(app, "POST", "/-/webhooks/test", {"url": URL}, **bearer)
    assert service.webhooks.tried[0][:2] == (told.holder.key.id, user.id)
    await call(app, "POST", "/-/webhooks/secret", **bearer)
    await call(app, "POST", "/-/webhooks/secret", authorization=f"Bearer {TOKEN}")
    assert service.webhooks.accounts == [user.id, "local"]

"""Credits over ``/-/``."""

from __future__ import annotations

import json

import pytest

from gateway.engine.accounts import NewKey
from tests.tools.asgi import TOKEN, ask, make

BEARER = f"Bearer {TOKEN}"


async def call(app, method, path, body=None, **headers):
    content = b"" if body is None else json.dumps(body).encode()
    return await ask(app, method, path, content, **({"authorization": BEARER} | headers))


@pytest.fixture
async def app():
    made, service = make(auth="keys")
    await service.accounts.create_user("ann")
    return made


async def test_what_is_given_is_told_with_its_reasons(app):
    assert (await call(app, "POST", "/-/credits", {"user": "ann", "credits": 5})).status == 201
    answer = await call(app, "POST", "/-/credits", {"user": "ann", "credits": 3, "purse": "monthly"})
    assert answer.json["credits"] == {"subscription": 0, "monthly": 3, "permanent": 5, "total": 8}
    told = (await call(app, "GET", "/-/credits?user=ann")).json
    assert told == answer.json
    assert (told["user"], told["monthly_grant"]) == ("ann", 3)
    assert [(line["kind"], line["credits"]["total"], line["job_id"]) for line in told["entries"]] == [
        ("grant", 3, None),
        ("grant", 5, None),
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": "ann"}, "credits"),
        ({"user": "ann", "credits": "5"}, "credits"),
        ({"user": "ann", "credits": True}, "credits"),
        ({"user": "ann", "credits": 1.5}, "credits"),
        ({"user": "ann", "credits": 0}, "credits"),
        ({"user": "ann", "credits": -5}, "credits"),
        ({"user": "ann", "credits": 10**10}, "credits"),
        ({"credits": 5}, "user"),
        ({"user": "ann", "credits": 5, "purse": "pocket"}, "purse"),
        ({"user": "ann", "credits": 5, "purse": None}, "purse"),
        ({"user": "ann", "credits": 5, "for": "fun"}, "for"),
    ],
)
async def test_what_cannot_be_given_is_refused_by_its_field(app, body, field):
    answer = await call(app, "POST", "/-/credits", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "validation_error", field)
    assert (await call(app, "GET", "/-/credits?user=ann")).json["entries"] == []


async def test_question_names_one_user_whatever_the_name(app):
    for query in ("", "?user=ann&user=eve"):
        answer = await call(app, "GET", f"/-/credits{query}")
        assert (answer.status, answer.json["field"]) == (400, "user")
    assert (await call(app, "POST", "/-/users", {"name": "a/b & c"})).status == 201
    assert (await call(app, "GET", "/-/credits?user=a%2Fb%20%26%20c")).json["user"] == "a/b & c"


async def test_nobody_has_no_credits(app):
    assert (await call(app, "GET", "/-/credits?user=eve")).status == 404
    assert (await call(app, "POST", "/-/credits", {"user": "eve", "credits": 5})).status == 404


async def test_key_that_is_made_with_credits_gives_them_to_its_user(app):
    made = await call(app, "POST", "/-/keys", {"name": "phone", "user": "ann", "credits": 7})
    assert made.status == 201
    assert (await call(app, "GET", "/-/credits?user=ann")).json["credits"]["permanent"] == 7
    refused = await call(app, "POST", "/-/keys", {"name": "tablet", "user": "ann", "credits": -7})
    assert (refused.status, refused.json["field"]) == (400, "credits")


async def test_only_the_operator_sees_and_gives():
    app, service = make(auth="keys")
    key = (await service.accounts.create_key(NewKey("ann"))).text
    for method, path in (("GET", "/-/credits?user=ann"), ("POST", "/-/credits")):
        assert (await ask(app, method, path, x_api_key=key)).status == 403
        assert (await ask(app, method, path)).status == 401

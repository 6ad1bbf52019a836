"""Users and keys over ``/-/``."""

from __future__ import annotations

import json

import pytest

from gateway.accounts import Scope, is_key_text
from gateway.api import keys
from gateway.engine.accounts import NewKey
from gateway.ledger import MAX_CREDITS
from tests.fakes.fake_service import NOW
from tests.tools.asgi import TOKEN, ask, make

BEARER = f"Bearer {TOKEN}"


async def call(app, method, path, body=None, **headers):
    content = b"" if body is None else json.dumps(body).encode()
    return await ask(app, method, path, content, **({"authorization": BEARER} | headers))


async def test_a_key_is_told_in_the_answer_that_makes_it_and_never_again():
    app, _ = make(auth="keys")
    made = await call(app, "POST", "/-/keys", {"name": "laptop", "rate_limit": 7, "scopes": ["admin"]})
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    text = made.json.pop("key")
    assert is_key_text(text)
    listed = await call(app, "GET", "/-/keys")
    assert listed.json == {"keys": [{k: v for k, v in made.json.items() if k != "key"}], "next": None}
    assert text not in listed.body.decode()
    assert (made.json["name"], made.json["user"], made.json["rate_limit"]) == ("laptop", "laptop", 7)
    assert (made.json["scopes"], made.json["concurrency"], made.json["expires_at"]) == (["admin"], 4, None)
    assert text.startswith(made.json["prefix"])
    assert (await ask(app, "GET", "/-/jobs", x_api_key=text)).status == 200


async def test_a_user_with_keys_of_its_own():
    app, _ = make(auth="keys")
    made = await call(app, "POST", "/-/users", {"name": "ann", "tier": "pro", "email_verified": True})
    assert (made.status, made.json["tier"], made.json["email_verified"]) == (201, "pro", True)
    assert (await call(app, "POST", "/-/users", {"name": "ann"})).status == 409
    body = {"name": "a", "user": "ann", "is_test": True, "expires_in_seconds": 60, "concurrency": 2}
    key = (await call(app, "POST", "/-/keys", body)).json
    assert (key["user"], key["concurrency"], key["expires_at"]) == ("ann", 2, keys._moment(NOW + 60))
    assert key["key"].startswith("cfg_test_")
    assert (await call(app, "GET", "/-/users")).json == {"users": [made.json], "next": None}


async def test_lists_of_node_classes_are_shown_as_they_were_given_and_outlast_a_rotation():
    app, _ = make(auth="keys")
    body = {"name": "laptop", "nodes_deny": ["default", "B*", "A", "A"], "nodes_allow": ["Save*"]}
    made = await call(app, "POST", "/-/keys", body)
    assert (made.status, made.json["nodes_deny"], made.json["nodes_allow"]) == (201, ["A", "B*", "default"], ["Save*"])
    plain = (await call(app, "POST", "/-/keys", {"name": "plain", "nodes_deny": None, "nodes_allow": None})).json
    rotated = (await call(app, "POST", f"/-/keys/{made.json['id']}/rotate")).json
    assert (rotated["nodes_deny"], rotated["nodes_allow"]) == (["A", "B*", "default"], ["Save*"])
    listed = (await call(app, "GET", "/-/keys")).json["keys"]
    assert [(key["nodes_deny"], key["nodes_allow"]) for key in listed] == [
        (["A", "B*", "default"], ["Save*"]),
        (None, None),
    ]
    assert (plain["nodes_deny"], plain["nodes_allow"]) == (None, None)


async def test_a_key_s_target_is_one_that_there_is_and_outlasts_a_rotation():
    app, _ = make(auth="keys", delivery_targets="archive=s3://bucket/a, eu=s3://bucket/b")
    made = await call(app, "POST", "/-/keys", {"name": "laptop", "deliver_to": "archive"})
    assert (made.status, made.json["deliver_to"]) == (201, "archive")
    rotated = (await call(app, "POST", f"/-/keys/{made.json['id']}/rotate")).json
    assert rotated["deliver_to"] == "archive"
    for name in ("nowhere", "Not a name", "x" * 33):
        refused = await call(app, "POST", "/-/keys", {"name": "other", "deliver_to": name})
        assert (refused.status, refused.json["field"]) == (400, "deliver_to")
    assert [key["deliver_to"] for key in (await call(app, "GET", "/-/keys")).json["keys"]] == ["archive"]


async def test_a_key_whose_credits_are_too_many_is_not_left_behind():
    app, _ = make(auth="keys")
    most = {"name": "rich", "credits": MAX_CREDITS}
    assert (await call(app, "POST", "/-/keys", most)).status == 201
    refused = await call(app, "POST", "/-/keys", {"name": "second", "user": "rich", "credits": 1})
    assert (refused.status, refused.json["field"]) == (400, "credits")
    second = [key for key in (await call(app, "GET", "/-/keys")).json["keys"] if key["name"] == "second"]
    assert [key["revoked_at"] for key in second] == [keys._moment(NOW)]
    assert (await call(app, "POST", "/-/keys", {"name": "second", "user": "rich"})).status == 201


async def test_what_is_revoked_opens_nothing_and_what_is_rotated_opens_anew():
    app, _ = make(auth="keys")
    made = (await call(app, "POST", "/-/keys", {"name": "laptop"})).json
    rotated = (await call(app, "POST", f"/-/keys/{made['id']}/rotate", {"overlap_seconds": 60})).json
    again = (await call(app, "POST", f"/-/keys/{made['id']}/rotate")).json
    assert made["id"] == rotated["id"] == again["id"]
    opened = [(await ask(app, "GET", "/-/jobs", x_api_key=each["key"])).status for each in (made, rotated, again)]
    assert opened == [401, 401, 200]
    revoked = await call(app, "DELETE", f"/-/keys/{made['id']}")
    assert (revoked.status, revoked.json["revoked_at"]) == (200, keys._moment(NOW))
    assert (await ask(app, "GET", "/-/jobs", x_api_key=again["key"])).status == 401
    for method, path in (("DELETE", "/-/keys/none"), ("POST", "/-/keys/none/rotate")):
        assert (await call(app, method, path)).status == 404


async def test_lists_come_in_pages(monkeypatch):
    monkeypatch.setattr(keys, "PAGE", 2)
    app, service = make(auth="keys")
    for number in range(3):
        await service.accounts.create_key(NewKey(f"key {number}"))
    for what in ("users", "keys"):
        first = (await call(app, "GET", f"/-/{what}")).json
        rest = (await call(app, "GET", f"/-/{what}?after={first['next']}")).json
        assert [entry["name"] for entry in first[what] + rest[what]] == ["key 0", "key 1", "key 2"]
        assert rest["next"] is None


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/-/users", {}, "name"),
        ("/-/users", {"name": 1}, "name"),
        ("/-/users", {"name": "ann", "tier": ""}, "tier"),
        ("/-/users", {"name": "ann", "email_verified": 1}, "email_verified"),
        ("/-/users", {"name": "ann", "admin": True}, "admin"),
        ("/-/keys", {"name": ""}, "name"),
        ("/-/keys", {"name": "x", "rate_limit": 0}, "rate_limit"),
        ("/-/keys", {"name": "x", "rate_limit": True}, "rate_limit"),
        ("/-/keys", {"name": "x", "rate_limit": 1.5}, "rate_limit"),
        ("/-/keys", {"name": "x", "concurrency": 10**6}, "concurrency"),
        ("/-/keys", {"name": "x", "scopes": []}, "scopes"),
        ("/-/keys", {"name": "x", "scopes": "admin"}, "scopes"),
        ("/-/keys", {"name": "x", "scopes": ["root"]}, "scopes"),
        ("/-/keys", {"name": "x", "is_test": "yes"}, "is_test"),
        ("/-/keys", {"name": "x", "expires_in_seconds": 0}, "expires_at"),
        ("/-/keys", {"name": "x", "expires_in_seconds": 10**12}, "expires_in_seconds"),
        ("/-/keys", {"name": "x", "key": "cfg_live_mine"}, "key"),
        ("/-/keys", {"name": "x", "nodes_deny": []}, "nodes_deny"),
        ("/-/keys", {"name": "x", "nodes_deny": "A*"}, "nodes_deny"),
        ("/-/keys", {"name": "x", "nodes_deny": ["A", 1]}, "nodes_deny"),
        ("/-/keys", {"name": "x", "nodes_deny": ["x" * 101]}, "nodes_deny"),
        ("/-/keys", {"name": "x", "nodes_allow": []}, "nodes_allow"),
        ("/-/keys", {"name": "x", "nodes_allow": [""]}, "nodes_allow"),
        ("/-/keys", {"name": "x", "nodes_allow": ["x"] * 201}, "nodes_allow"),
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused_by_its_field_and_leaves_nothing(path, body, field):
    app, service = make(auth="keys")
    answer = await call(app, "POST", path, body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "validation_error", field)
    assert (service.account_store.by_name, service.account_store.by_id) == ({}, {})


@pytest.mark.parametrize("mode", ["open", "keys"])
async def test_users_and_keys_are_the_operators_business(mode):
    app, service = make(auth=mode)
    told = await service.accounts.create_key(NewKey("laptop"))
    boss = await service.accounts.create_key(NewKey("boss", scopes=frozenset({Scope.ADMIN})))
    for endpoint in keys.ENDPOINTS:
        path = endpoint.path.replace("{id}", "none")
        assert (await ask(app, endpoint.method, path)).status == 401
        assert (await ask(app, endpoint.method, path, x_api_key=told.text)).status == 403
        body = json.dumps({"name": "x"}).encode() if endpoint.method == "POST" and "{" not in endpoint.path else b""
        assert (await ask(app, endpoint.method, path, body, x_api_key=boss.text)).status in {200, 201, 404}
    assert len(service.account_store.by_id) == 3

"""Who is let in with which key, in both modes."""

from __future__ import annotations

import pytest

from gateway.accounts import RANDOM_BYTES, KeyKind, Scope, key_text
from gateway.api.app import all_endpoints
from gateway.api.auth import Access
from gateway.api.dialects import DIALECTS
from gateway.api.knocks import MAX_FAILURES
from gateway.api.problems import json_response
from gateway.api.window import Dialect, Endpoint, SocketEndpoint
from gateway.engine.accounts import NewKey
from gateway.events import EventKind
from tests.contract.fifth_dialect import WORDS, envelope
from tests.tools import asgi
from tests.tools.asgi import TOKEN, Socket, ask

ADMIN = f"Bearer {TOKEN}"
UNKNOWN = key_text(KeyKind.LIVE, bytes(RANDOM_BYTES))


async def show(request, call):
    caller = call.caller
    return json_response(
        caller
        and {
            "owner": caller.owner,
            "submitter": caller.submitter,
            "is_admin": caller.is_admin,
            "key": caller.key and caller.key.name,
            "user": caller.user and caller.user.name,
        }
    )


PROBE = Dialect(
    "probe",
    tuple(Endpoint("GET", f"/probe/{access.value}", show, access) for access in Access),
    ("/probe",),
    envelope,
    WORDS,
)


def make(**values):
    return asgi.make(dialects=(*DIALECTS, PROBE), **values)


async def new_key(service, name="laptop", **values):
    told = await service.accounts.create_key(NewKey(name, **values))
    return told.text, told.holder.key.id


@pytest.mark.parametrize("mode", ["open", "keys"])
@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {}", "X-API-Key"])
async def test_a_key_is_its_own_owner_in_both_modes(mode, form):
    app, service = make(auth=mode)
    text, key_id = await new_key(service)
    headers = {"x_api_key": text} if form == "X-API-Key" else {"authorization": form.format(text)}
    for access in ("owner", "key"):
        answer = await ask(app, "GET", f"/probe/{access}", **headers)
        assert answer.json == {
            "owner": key_id, "submitter": key_id, "is_admin": False, "key": "laptop", "user": "laptop",
        }  # fmt: skip


@pytest.mark.parametrize("mode", ["open", "keys"])
async def test_the_admin_token_is_the_owner_local_and_no_key(mode):
    app, _ = make(auth=mode)
    for access in ("owner", "admin"):
        answer = await ask(app, "GET", f"/probe/{access}", authorization=ADMIN)
        assert (answer.json["owner"], answer.json["is_admin"], answer.json["key"]) == ("local", True, None)
    refused = await ask(app, "GET", "/probe/key", authorization=ADMIN)
    assert (refused.status, refused.json["kind"]) == (401, "invalid_api_key")
    assert (await ask(app, "GET", "/probe/owner", x_api_key=TOKEN)).json["is_admin"]


@pytest.mark.parametrize("mode", ["open", "keys"])
async def test_some_endpoints_want_a_key_in_both_modes(mode):
    app, _ = make(auth=mode)
    answer = await ask(app, "GET", "/probe/key")
    assert (answer.status, answer.json["kind"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("mode", ["open", "keys"])
async def test_a_key_does_what_its_scopes_say(mode):
    app, service = make(auth=mode)
    jobs, _ = await new_key(service, "jobs", scopes=frozenset({Scope.JOBS}))
    admin, _ = await new_key(service, "admin", scopes=frozenset({Scope.ADMIN}))
    assert (await ask(app, "GET", "/probe/owner", x_api_key=jobs)).status == 200
    refused = await ask(app, "GET", "/probe/admin", x_api_key=jobs)
    assert (refused.status, refused.json["kind"]) == (403, "forbidden")
    for access in ("owner", "key", "admin"):
        assert (await ask(app, "GET", f"/probe/{access}", x_api_key=admin)).json["is_admin"]


@pytest.mark.parametrize("mode", ["open", "keys"])
@pytest.mark.parametrize("access", ["owner", "key", "admin"])
async def test_what_opens_nothing_is_refused_in_the_same_bytes(mode, access):
    app, service = make(auth=mode)
    revoked, key_id = await new_key(service)
    await service.accounts.revoke_key(key_id)
    mistyped = UNKNOWN[:-1] + ("0" if UNKNOWN[-1] != "0" else "1")
    answers = [
        await ask(app, "GET", f"/probe/{access}", x_request_id="same", authorization=f"Bearer {text}")
        for text in (UNKNOWN, revoked, mistyped, "cfg_")
    ]
    assert {(answer.status, answer.body, str(answer.headers)) for answer in answers} == {
        (401, answers[0].body, str(answers[0].headers))
    }
    assert answers[0].json["kind"] == "invalid_api_key"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer"},
        {"authorization": "Bearer {} {}"},
        {"authorization": "Basic {}"},
        {"authorization": "{}"},
        {"authorization": "Bearer {}", "x_api_key": "{}"},
        {"authorization": "Basic abc", "x_api_key": "{}"},
        {"x_api_key": ""},
        {"x_api_key": "{} {}"},
        {"authorization": "Bearer \xff"},
        {"cookie": "key={}"},
    ],
)
async def test_a_good_key_in_a_wrong_form_or_twice_is_malformed(headers):
    app, service = make(auth="keys")
    text, _ = await new_key(service)
    answer = await ask(
        app, "GET", "/probe/owner", **{name: value.replace("{}", text) for name, value in headers.items()}
    )
    assert (answer.status, answer.json["kind"]) == (401, "unauthorized")
    assert text not in answer.body.decode()


async def test_open_mode_heeds_keys_of_ours_and_no_others():
    app, _ = make()
    for headers in ({}, {"authorization": "Bearer sk-of-another-api"}, {"authorization": "Basic abc"}):
        assert (await ask(app, "GET", "/probe/owner", **headers)).json["owner"] == "local"
    assert (await ask(app, "GET", "/probe/owner", x_api_key=UNKNOWN)).status == 401


async def test_what_anybody_may_see_shows_more_to_a_key_and_no_less_for_a_wrong_one():
    app, service = make(auth="keys")
    text, key_id = await new_key(service)
    assert (await ask(app, "GET", "/probe/public", x_api_key=text)).json["owner"] == key_id
    for headers in ({}, {"x_api_key": UNKNOWN}, {"authorization": "Basic abc"}):
        assert (await ask(app, "GET", "/probe/public", **headers)).json is None
    for _ in range(MAX_FAILURES + 5):
        assert (await ask(app, "GET", "/probe/public", x_api_key=UNKNOWN)).status == 200


async def test_wrong_keys_are_bounded_per_address_and_hurt_no_good_one():
    app, service = make(auth="keys")
    text, _ = await new_key(service)
    codes = [(await ask(app, "GET", "/probe/owner", x_api_key=UNKNOWN)).status for _ in range(MAX_FAILURES + 2)]
    assert codes == [401] * MAX_FAILURES + [429] * 2
    refused = await ask(app, "GET", "/probe/owner", x_api_key="nonsense")
    assert (refused.status, refused.json["kind"], int(refused.headers["retry-after"])) == (429, "rate_limited", 60)
    assert (await ask(app, "GET", "/probe/owner", x_api_key=text)).status == 200
    assert (await ask(app, "GET", "/probe/owner", authorization=ADMIN)).status == 200
    assert (await ask(app, "GET", "/probe/owner")).status == 401, "nothing was tried"
    assert (await ask(app, "GET", "/probe/owner", peer="10.0.0.7", x_api_key=UNKNOWN)).status == 401


async def test_a_socket_is_opened_with_a_key_and_refused_without():
    app, service = make(auth="keys")
    text, key_id = await new_key(service)
    job = service.put(owner=key_id)
    async with Socket(app, "/face-swap-ws", x_api_key=UNKNOWN) as socket:
        assert (socket.first["type"], socket.first["status"]) == ("websocket.http.response.start", 401)
    async with Socket(app, "/face-swap-ws", x_api_key=text) as socket:
        assert socket.first["type"] == "websocket.accept"
        await socket.say({"prompt_id": job.id})
        assert (await socket.hear())["event"] == "queued"


# -------------------------------------------------------------------------------------------------- every endpoint

#: What needs no key in keys mode. A new line here opens something to everybody.
OPEN = {
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/api/v2/health"),
    ("GET", "/health/ready"),
    ("GET", "/check_status"),
    # Whoever knows the name, 128 random bits of it, may have the file.
    ("GET", "/download/{filename}"),
    ("GET", "/static/{name}"),
    # The page and its files.
    ("GET", "/-/ui/"),
    ("GET", "/-/ui/{name}"),
    # What the code does is known to whoever can read it; a stranger is told no more than that.
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
}
EVERY = all_endpoints(DIALECTS)


def test_what_is_open_to_everybody_is_known():
    public = {(endpoint.method, endpoint.path) for endpoint in EVERY if endpoint.access is Access.PUBLIC}
    assert public == OPEN


@pytest.mark.parametrize(
    "endpoint",
    [each for each in EVERY if isinstance(each, Endpoint) and each.access is not Access.PUBLIC],
    ids=lambda endpoint: f"{endpoint.method} {endpoint.path}",
)
async def test_every_other_endpoint_wants_a_key_before_it_looks_at_anything(endpoint):
    app, service = asgi.make(auth="keys")
    revoked, key_id = await new_key(service)
    await service.accounts.revoke_key(key_id)
    path = endpoint.path.replace("{", "").replace("}", "")
    has_one_code = path.startswith("/api/v2/")  # as its contract has
    for headers, code in (
        ({}, "unauthorized"),
        ({"authorization": f"Bearer {UNKNOWN}"}, "invalid_api_key"),
        ({"x_api_key": revoked}, "invalid_api_key"),
    ):
        for body in (b"", b"\xff" * 100):
            answer = await ask(app, endpoint.method, path, body, **headers)
            told = "unauthorized" if has_one_code else code
            assert (answer.status, told in answer.body.decode()) == (401, True), answer
    assert service.submissions == []


@pytest.mark.parametrize("path", [each.path for each in EVERY if isinstance(each, SocketEndpoint)])
async def test_every_socket_wants_a_key(path):
    app, _ = asgi.make(auth="keys")
    for headers in ({}, {"x_api_key": UNKNOWN}):
        async with Socket(app, path, **headers) as socket:
            assert (socket.first["type"], socket.first["status"]) == ("websocket.http.response.start", 401)


# ------------------------------------------------------------------------------------------------- answers kept ready


@pytest.mark.parametrize("mode", ["open", "keys"])
async def test_no_ready_answer_outlives_a_revocation(mode):
    app, service = make(auth=mode)
    text, key_id = await new_key(service)
    job = service.put(owner=key_id)
    service.tell(job.id, EventKind.STARTED)
    for _ in range(3):
        assert (await ask(app, "GET", f"/status/{job.id}", x_api_key=text)).status == 200
    await service.accounts.revoke_key(key_id)
    assert (await ask(app, "GET", f"/status/{job.id}", x_api_key=text)).status == 401


async def test_no_ready_answer_of_one_goes_to_another():
    app, service = make(auth="keys")
    text, key_id = await new_key(service)
    other, _ = await new_key(service, "phone")
    job = service.put(owner=key_id)
    mine = service.put()
    for _ in range(3):
        assert (await ask(app, "GET", f"/status/{job.id}", x_api_key=text)).status == 200
        assert (await ask(app, "GET", f"/status/{mine.id}", authorization=ADMIN)).status == 200
        assert (await ask(app, "GET", f"/status/{job.id}", x_api_key=other)).status == 404
        assert (await ask(app, "GET", f"/status/{job.id}", authorization=ADMIN)).status == 404
        assert (await ask(app, "GET", f"/status/{mine.id}", x_api_key=text)).status == 404
        assert (await ask(app, "GET", f"/status/{job.id}")).status == 401

"""What a browser shows where it can send no header: tickets, and subprotocols."""

from __future__ import annotations

import base64
import json

import pytest

from gateway.api import tickets as module
from gateway.api.auth import Caller
from gateway.api.knocks import MAX_FAILURES
from gateway.api.tickets import LIFE_SECONDS, MAX_PER_OWNER, Tickets
from gateway.engine.accounts import NewKey
from gateway.errors import BusyError, InvalidInputError
from tests.tools.asgi import TOKEN, Socket, Stream, ask, make

PAGE = "http://localhost:8000"
ANN, BOB = Caller("ann", "ann", is_admin=False), Caller("bob", "bob", is_admin=False)


class Clock:
    at = 50.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def out(clock):
    return Tickets(clock, ["/events/{id}", "/socket"])


def test_a_ticket_opens_its_path_once(out):
    text = out.issue(ANN, "/events/1")
    assert out.redeem(text, "/events/1") == ANN
    assert out.redeem(text, "/events/1") is None
    assert out.redeem("", "/events/1") is None


def test_a_ticket_shown_at_another_path_is_used_up(out):
    text = out.issue(ANN, "/events/1")
    assert out.redeem(text, "/events/2") is None
    assert out.redeem(text, "/events/1") is None


def test_a_ticket_lives_a_minute(out, clock):
    early, late = out.issue(ANN, "/socket"), out.issue(ANN, "/socket")
    clock.at += LIFE_SECONDS - 0.1
    assert out.redeem(early, "/socket") == ANN
    clock.at += 0.1
    assert out.redeem(late, "/socket") is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/events/",
        "/events/a/b",
        "/events/1?x=1\n",
        "events/1",
        "/download/x",
        "/socket/",
        "/events/" + "x" * 600,
    ],
)
def test_there_is_no_ticket_for_what_takes_none(out, path):
    with pytest.raises(InvalidInputError) as refusal:
        out.issue(ANN, path)
    assert refusal.value.field == "path"


def test_one_owners_oldest_ticket_gives_way_and_nobody_elses(out):
    theirs = out.issue(BOB, "/socket")
    own = [out.issue(ANN, "/socket") for _ in range(MAX_PER_OWNER + 1)]
    assert out.redeem(own[0], "/socket") is None
    assert out.redeem(own[1], "/socket") == ANN
    assert out.redeem(theirs, "/socket") == BOB


def test_tickets_out_are_bounded_until_they_are_too_old(out, clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_TICKETS", 3)
    for number in range(3):
        out.issue(Caller(f"owner {number}", "", is_admin=False), "/socket")
    with pytest.raises(BusyError):
        out.issue(ANN, "/socket")
    clock.at += LIFE_SECONDS
    out.issue(ANN, "/socket")
    assert len(out._issued) == 1


# ----------------------------------------------------------------------------------------------------- on an application


async def ticket_for(app, path, **headers):
    answer = await ask(app, "POST", "/-/tickets", json.dumps({"path": path}).encode(), **headers)
    assert answer.status == 201, answer.body
    return answer.json


async def keyed(**values):
    app, service = make(auth="keys", **values)
    told = await service.accounts.create_key(NewKey("laptop"))
    return app, service, told.text, told.holder.key.id


@pytest.mark.parametrize("pattern", ["/events/{}", "/-/jobs/{}/events"])
async def test_a_stream_opens_with_a_ticket_once(pattern):
    app, service, key, key_id = await keyed()
    job = service.put(owner=key_id)
    told = await ticket_for(app, pattern.format(job.id), x_api_key=key)
    assert told["url"] == f"{pattern.format(job.id)}?ticket={told['ticket']}"
    assert told["expires_in_seconds"] == 60
    async with Stream(app, "GET", told["url"]) as stream:
        await stream.until("queued")
    again = await ask(app, "GET", told["url"])
    assert (again.status, again.json["code"]) == (401, "unauthorized")
    assert told["ticket"] not in again.body.decode()


async def test_a_ticket_is_for_its_owner_alone():
    app, service, key, _ = await keyed()
    theirs = service.put(owner="somebody else")
    told = await ticket_for(app, f"/events/{theirs.id}", x_api_key=key)
    assert (await ask(app, "GET", told["url"])).status == 404


async def test_a_revoked_keys_ticket_opens_nothing():
    app, service, key, key_id = await keyed()
    job = service.put(owner=key_id)
    told = await ticket_for(app, f"/events/{job.id}", x_api_key=key)
    await service.accounts.revoke_key(key_id)
    assert (await ask(app, "GET", told["url"])).status == 401


async def test_the_admin_token_and_open_mode_have_tickets_too():
    for values, headers in (({"auth": "keys"}, {"authorization": f"Bearer {TOKEN}"}), ({}, {})):
        app, service = make(**values)
        job = service.put()
        told = await ticket_for(app, f"/events/{job.id}", **headers)
        async with Stream(app, "GET", told["url"]) as stream:
            await stream.until("queued")
        assert (await ask(app, "GET", told["url"])).status == 401


async def test_a_ticket_opens_nothing_but_streams_and_nothing_beside_a_key():
    app, service, key, key_id = await keyed()
    job = service.put(owner=key_id)
    for path in (f"/status/{job.id}", "/-/jobs"):
        refused = await ask(app, "POST", "/-/tickets", json.dumps({"path": path}).encode(), x_api_key=key)
        assert (refused.status, refused.json["field"]) == (400, "path")
    told = await ticket_for(app, f"/events/{job.id}", x_api_key=key)
    assert (await ask(app, "GET", f"/status/{job.id}?ticket={told['ticket']}")).status == 401
    both = await ask(app, "GET", told["url"], x_api_key=key)
    assert (both.status, both.json["code"]) == (401, "unauthorized")
    assert (await ask(app, "GET", f"{told['url']}&ticket={told['ticket']}")).status == 401
    for body in (b"{}", b'{"path": 1}', b'{"path": null}'):
        assert (await ask(app, "POST", "/-/tickets", body, x_api_key=key)).status == 400
    assert (await ask(app, "POST", "/-/tickets", b"{}")).status == 401


async def test_below_a_sub_path_a_ticket_is_asked_for_as_links_are_written():
    app, service, key, key_id = await keyed(public_url="https://faces.example.org/swap")
    job = service.put(owner=key_id)
    told = await ticket_for(app, f"/swap/events/{job.id}", x_api_key=key)
    assert told["url"].startswith(f"/swap/events/{job.id}?ticket=")
    async with Stream(app, "GET", told["url"].removeprefix("/swap")) as stream:
        await stream.until("queued")


async def test_tickets_that_open_nothing_are_counted_as_wrong_keys_are():
    app, _, _, _ = await keyed()
    path = "/events/019a0000-0000-7000-8000-000000000001?ticket=guessed"
    codes = [(await ask(app, "GET", path)).status for _ in range(MAX_FAILURES + 1)]
    assert codes == [401] * MAX_FAILURES + [429]


# --------------------------------------------------------------------------------------------------------------- sockets


def offered(key: str, *others: str) -> str:
    encoded = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    return ", ".join([*others, f"gateway.bearer.{encoded}"])


async def test_a_page_opens_a_socket_with_a_ticket_once():
    app, service, key, key_id = await keyed()
    job = service.put(owner=key_id)
    told = await ticket_for(app, "/face-swap-ws", x_api_key=key)
    async with Socket(app, told["url"], origin=PAGE) as socket:
        assert (socket.first["type"], socket.first.get("subprotocol")) == ("websocket.accept", None)
        await socket.say({"prompt_id": job.id})
        assert (await socket.hear())["event"] == "queued"
    async with Socket(app, told["url"], origin=PAGE) as socket:
        assert await socket.closed() == 4401


async def test_a_page_opens_a_socket_with_a_subprotocol_and_is_not_sent_its_key():
    app, service, key, key_id = await keyed()
    job = service.put(owner=key_id)
    async with Socket(app, "/face-swap-ws", origin=PAGE, sec_websocket_protocol=offered(key, "gateway.v1")) as socket:
        assert (socket.first["type"], socket.first["subprotocol"]) == ("websocket.accept", "gateway.v1")
        await socket.say({"prompt_id": job.id})
        assert (await socket.hear())["event"] == "queued"


async def test_a_page_that_is_not_let_in_is_told_by_the_code_of_the_close():
    app, _, key, _ = await keyed()
    for protocols in (
        "gateway.v1",
        offered(key),
        offered("cfg_wrong", "gateway.v1"),
        f"{offered(key, 'gateway.v1')}, {offered(key)}",
        "gateway.v1, gateway.bearer.",
        "gateway.v1, gateway.bearer.***",
    ):
        async with Socket(app, "/face-swap-ws", origin=PAGE, sec_websocket_protocol=protocols) as socket:
            assert socket.first["type"] == "websocket.accept", protocols
            assert await socket.closed() == 4401


async def test_a_page_with_too_many_wrong_keys_is_told_so():
    app, _, _, _ = await keyed()
    codes = []
    for _ in range(MAX_FAILURES + 1):
        protocols = offered("cfg_wrong", "gateway.v1")
        async with Socket(app, "/face-swap-ws", origin=PAGE, sec_websocket_protocol=protocols) as socket:
            codes.append(await socket.closed())
    assert codes == [4401] * MAX_FAILURES + [4429]


async def test_a_program_that_is_not_let_in_gets_an_http_answer():
    app, _, key, _ = await keyed()
    for headers in ({}, {"sec_websocket_protocol": offered(key)}, {"x_api_key": "cfg_wrong"}):
        async with Socket(app, "/face-swap-ws", **headers) as socket:
            assert (socket.first["type"], socket.first["status"]) == ("websocket.http.response.start", 401)
    async with Socket(app, "/face-swap-ws", sec_websocket_protocol=offered(key, "gateway.v1")) as socket:
        assert socket.first["subprotocol"] == "gateway.v1"

"""An id that is somebody else's, was deleted, never was, or is no id: one answer, by the same questions to the store."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from gateway.api.app import all_endpoints, create_app
from gateway.api.auth import Access
from gateway.api.dialects import DIALECTS
from gateway.api.window import Endpoint, SocketEndpoint
from gateway.engine.accounts import NewKey
from tests.tools.asgi import TOKEN, Socket, ask

MISSING = "019a0000-0000-7000-8000-00000000dead"
MALFORMED = [
    "x",
    "0",
    "..",
    "..%2f..",
    "%00",
    "%20",
    "é",
    "a" * 64,
    "a" * 65,
    "a" * 300,
    MISSING.upper(),
    MISSING[:-1],
    "'",
    "-",
]
#: What they name is nobody's: the same for all callers.
COMMON = "/api/v2/templates/"
#: Every route of a job or a file, whatever the dialect: what is public has a secret in its address, what is admin no owner.
ROUTES = [
    (endpoint.method, endpoint.path)
    for endpoint in all_endpoints(DIALECTS)
    if isinstance(endpoint, Endpoint) and "{" in endpoint.path and endpoint.access in {Access.OWNER, Access.KEY}
    if not endpoint.path.startswith(COMMON)
]
SOCKETS = [endpoint.path for endpoint in all_endpoints(DIALECTS) if isinstance(endpoint, SocketEndpoint)]


class Asked:
    """What the database was asked, value for value."""

    def __init__(self, store) -> None:
        self._raw = store._executor._connection.connection.driver_connection
        self._statements: list[str] = []

    @contextmanager
    def during(self, *values: str) -> Iterator[list[str]]:
        """Statements with these values as ``?``."""
        self._statements.clear()
        seen: list[str] = []
        self._raw.set_trace_callback(self._statements.append)
        try:
            yield seen
        finally:
            self._raw.set_trace_callback(None)
            for statement in self._statements:
                for value in values:
                    statement = re.sub(f"'(msg_|dlv_)?{re.escape(value)}(_0)?'", "?", statement)  # noqa: PLW2901 - the same, made comparable
                seen.append(statement)


@pytest.fixture
async def world(engine):
    """An application on the real engine and store, Ann's key, and ids that are not hers."""
    engine.ids = (f"019a0000-0000-7000-8000-{number:012x}" for number in itertools.count(1))
    await engine.start()  # no upstream: what is submitted waits
    app = create_app(engine.service, engine.settings, admin_token=TOKEN)
    ann = await engine.service.accounts.create_key(NewKey("ann", rate_limit=1000))
    bob = await engine.service.accounts.create_key(NewKey("bob"))
    for name in ("ann", "bob"):
        await engine.service.credits.grant(name, "permanent", 10)
    foreign = await engine.submit(owner=bob.holder.key.id)
    deleted = await engine.submit(owner=ann.holder.key.id)
    await engine.service.cancel(deleted, ann.holder.key.id)
    await engine.settle()
    await engine.service.archive.purge_job(deleted)
    await engine.service.accounts.keyholder(ann.text)  # believed from here on: the clock stands still
    return app, engine, ann, foreign, deleted


def as_path(text: str) -> str:
    return text if "%" in text else quote(text, safe="")


def told(answer) -> tuple[int, dict[str, str], str]:
    """An answer but for the request's id, and what its key has left."""
    own_id = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "ratelimit"}}
    return answer.status, headers, answer.body.decode().replace(own_id, "<id>")


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: value)
async def test_an_id_that_is_not_the_callers_is_one_that_is_not_there(world, method, path):
    app, engine, ann, foreign, deleted = world
    asked = Asked(engine.store)
    seen = {}
    for text in (MISSING, foreign, deleted, *MALFORMED):
        address = re.sub(r"\{\w+\}", lambda _, text=text: as_path(text), path)
        with asked.during(text, MISSING, "00000000-0000-0000-0000-000000000000") as statements:
            answer = await ask(app, method, address, x_api_key=ann.text)
        if answer.status == 404 and "There is nothing here" in answer.body.decode():
            assert "/" in text or "2f" in text, "no route has a slash in an id"
            continue
        seen[text] = (told(answer), statements)
    assert seen[MISSING][0][0] == 404
    tables = {"jobs", "webhook_messages", "assets", "deliveries"}
    assert any(table in statement for statement in seen[MISSING][1] for table in tables), "the store was asked"
    assert {text: found for text, found in seen.items() if found != seen[MISSING]} == {}
    assert {foreign, deleted, "x"} <= seen.keys()


async def test_routes_of_every_dialect_are_among_them():
    assert {("GET", "/status/{prompt_id}"), ("DELETE", "/-/jobs/{id}"), ("GET", "/-/jobs/{id}/events")} <= set(ROUTES)
    assert {("GET", "/check_task_status/{task_id}"), ("POST", "/cancel_task/{ticket_id}")} <= set(ROUTES)


async def test_the_same_questions_find_ones_own(world):
    """Or the test above would compare nothing."""
    app, engine, ann, _, _ = world
    own = await engine.submit(owner=ann.holder.key.id)
    asked = Asked(engine.store)
    with asked.during(own) as found:
        assert (await ask(app, "GET", f"/-/jobs/{own}", x_api_key=ann.text)).status == 200
    with asked.during(MISSING) as missing:
        assert (await ask(app, "GET", f"/-/jobs/{MISSING}", x_api_key=ann.text)).status == 404
    assert missing
    assert found[: len(missing) - 1] == missing[:-1], "the last one ends the transaction"


async def test_a_cursor_that_is_not_the_callers_is_one_that_is_not_there(world):
    app, engine, ann, foreign, deleted = world
    asked = Asked(engine.store)
    seen = []
    for text in (MISSING, foreign, deleted, "x", "a" * 300):
        with asked.during(text, MISSING, "00000000-0000-0000-0000-000000000000") as statements:
            answer = await ask(app, "GET", f"/-/jobs?before={text}", x_api_key=ann.text)
        seen.append((told(answer), statements))
    assert seen[0][0][0] == 400
    assert all(found == seen[0] for found in seen)


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_socket_tells_no_more(world, path):
    app, engine, ann, foreign, deleted = world
    asked = Asked(engine.store)
    seen = []
    for text in (MISSING, foreign, deleted, "x", "", "a" * 300):
        with asked.during(text, MISSING, "00000000-0000-0000-0000-000000000000") as statements:
            async with Socket(app, path, x_api_key=ann.text) as socket:
                await socket.say(json.dumps({"prompt_id": text}))
                seen.append((await socket.hear(), await socket.closed(), statements))
    assert seen[0][1] == 4404
    assert all(found == seen[0] for found in seen)


async def test_lists_hold_the_callers_own_only(world):
    app, engine, ann, foreign, _ = world
    own = await engine.submit(owner=ann.holder.key.id)
    listed = (await ask(app, "GET", "/-/jobs", x_api_key=ann.text)).json["jobs"]
    assert [job["id"] for job in listed] == [own]
    assert (await ask(app, "GET", f"/-/jobs/{foreign}", authorization=f"Bearer {TOKEN}")).status == 404

"""What is told to whom, when it is sent again, and where links lead."""

from dataclasses import replace

from gateway.api.dialects import DIALECTS
from gateway.engine.task_types import TaskParameter
from gateway.manifest import ParameterType
from tests.tools.asgi import ask, make


async def test_document_is_sent_once_to_whoever_has_it():
    app, _ = make()
    first = await ask(app, "GET", "/openapi.json")
    assert (first.status, first.headers["content-type"]) == (200, "application/json")
    assert first.headers["cache-control"] == "private, no-cache"
    again = await ask(app, "GET", "/openapi.json", if_none_match=first.headers["etag"])
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = await ask(app, "GET", "/openapi.json", if_none_match='"another"')
    assert (other.status, other.body) == (200, first.body)


async def test_document_is_made_once_and_anew_when_a_template_changes(monkeypatch):
    app, service = make()
    first = await ask(app, "GET", "/openapi.json")
    service.tasks = tuple(replace(task, can_run=not task.can_run) for task in service.tasks)
    assert (await ask(app, "GET", "/openapi.json")).headers["etag"] == first.headers["etag"]
    added = TaskParameter("sparkle", ParameterType.INT, required=False, min=1, max=7)
    service.tasks = tuple(replace(task, parameters=(*task.parameters, added)) for task in service.tasks)
    changed = await ask(app, "GET", "/openapi.json")
    assert changed.headers["etag"] != first.headers["etag"]
    assert b'"sparkle"' in changed.body


async def test_stranger_is_not_told_what_templates_declare():
    app, service = make(auth="keys")
    key = service.give_key()
    stranger = await ask(app, "GET", "/openapi.json")
    assert stranger.status == 200
    assert b'"scale_factor"' not in stranger.body
    known = await ask(app, "GET", "/openapi.json", x_api_key=key)
    assert b'"scale_factor"' in known.body
    assert "X-API-Key" in stranger.headers["vary"]


async def test_links_lead_to_where_clients_reach_us():
    app, _ = make()
    assert (await ask(app, "GET", "/openapi.json")).json["servers"] == [{"url": "."}]
    app, _ = make(auth="keys", public_url="https://faces.example.org/swap")
    answer = await ask(app, "GET", "/openapi.json", host="faces.example.org")
    assert answer.json["servers"] == [{"url": "https://faces.example.org/swap"}]


async def test_dialect_that_describes_nothing_is_left_out():
    app, _ = make(dialects=[replace(DIALECTS[0], description=None)])
    assert "/face-swap" not in (await ask(app, "GET", "/openapi.json")).json["paths"]

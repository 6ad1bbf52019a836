"""Keys with lists of node classes of their own, over HTTP, on the real engine: what their workflows may hold."""

from __future__ import annotations

import copy
import json

import pytest

from gateway.api.app import create_app
from tests.engine.conftest import Engine
from tests.engine.test_workflows import GRAPH, upstream
from tests.tools.asgi import TOKEN, ask

#: Classes of ``GRAPH``.
MAKES, SAVES, SHOWS = "EmptyImage", "SaveImage", "PreviewImage"


class World:
    def __init__(self, engine):
        self.engine = engine
        self.app = create_app(engine.service, engine.settings, admin_token=TOKEN)

    async def post(self, path, body, shown):
        headers = {"content_type": "application/json"} | ({} if shown is None else {"x_api_key": shown})
        return await ask(self.app, "POST", path, json.dumps(body).encode(), **headers)

    async def key(self, name, **lists):
        made = await self.post("/-/keys", {"name": name, "credits": 100, **lists}, TOKEN)
        assert made.status == 201, made.body
        return made.json["key"]

    async def send(self, shown, graph=GRAPH, path="/api/v2/jobs"):
        """The classes that are refused; none when a job was made."""
        answer = await self.post(path, {"workflow": copy.deepcopy(graph)}, shown)
        if answer.status == 201:
            return set()
        error = answer.json["error"]
        assert (answer.status, error["code"]) == (422, "invalid_workflow"), answer.body
        found = error["details"]["node_errors"]
        assert {(each["field"], each["reason"]) for node in found.values() for each in node} == {
            ("class_type", "class_denied")
        }
        return {graph[node]["class_type"] for node in found}


@pytest.fixture
def settings():
    return {"auth": "keys"}


@pytest.fixture
async def world(engine, settings, tmp_path):
    engine.settings = Engine(tmp_path, **settings).settings
    await engine.start(upstream(), engine.new_upstream("gpu-2"))
    return World(engine)


async def test_of_two_keys_each_has_its_own_lists(world):
    ann = await world.key("ann", nodes_deny=["Preview*"])
    bob = await world.key("bob", nodes_allow=[MAKES, "Preview*"])
    eve = await world.key("eve")
    assert await world.send(ann) == {SHOWS}
    assert await world.send(bob) == {SAVES}
    without = {"ann": SHOWS, "bob": SAVES}
    for name, key in (("ann", ann), ("bob", bob)):
        graph = {node: value for node, value in GRAPH.items() if value["class_type"] != without[name]}
        assert await world.send(key, graph) == set()
    assert await world.send(eve) == set()


async def test_what_is_refused_leaves_nothing_and_costs_nothing(world):
    ann = await world.key("ann", nodes_deny=["*"])
    assert await world.send(ann) == {MAKES, SAVES, SHOWS}
    assert await world.engine.store.open_tasks() == []
    assert world.engine.upstreams["gpu-1"].prompts == {}
    told = await ask(world.app, "GET", "/-/credits?user=ann", x_api_key=TOKEN)
    assert told.json["credits"]["total"] == 100


@pytest.mark.parametrize("settings", [{"auth": "keys", "nodes_deny": SHOWS, "nodes_allow": f"{MAKES}, {SHOWS}"}])
async def test_a_key_cannot_use_what_the_gateway_does_not_permit(world):
    wide = await world.key("wide", nodes_allow=["*"])
    narrow = await world.key("narrow", nodes_allow=[SAVES, SHOWS], nodes_deny=["Nothing"])
    assert await world.send(wide) == await world.send(TOKEN) == {SAVES, SHOWS}
    assert await world.send(narrow) == {MAKES, SAVES, SHOWS}


@pytest.mark.parametrize("settings", [{"auth": "keys", "nodes_deny": ""}])
async def test_a_key_can_deny_what_ships_where_the_gateway_denies_nothing(world):
    graph = {**GRAPH, "9": {"class_type": "RunPythonScript", "inputs": {}}}
    assert await world.send(await world.key("ann", nodes_deny=["default", SAVES]), graph) == {SAVES, "RunPythonScript"}


async def test_the_admin_token_has_no_lists_and_a_key_with_the_scope_admin_has_its_own(world):
    boss = await world.key("boss", scopes=["admin"], nodes_deny=[SAVES])
    assert await world.send(boss) == {SAVES}
    assert await world.send(TOKEN) == set()


@pytest.mark.parametrize("settings", [{"auth": "open"}])
async def test_in_open_mode_a_key_that_is_shown_counts_and_nobody_else_is_limited(world):
    ann = await world.key("ann", nodes_deny=[SAVES])
    assert await world.send(ann) == {SAVES}
    assert await world.send(None) == set()


async def test_lists_hold_for_a_key_with_a_new_text(world):
    made = (await world.post("/-/keys", {"name": "ann", "credits": 9, "nodes_deny": [SAVES]}, TOKEN)).json
    rotated = (await world.post(f"/-/keys/{made['id']}/rotate", {}, TOKEN)).json
    assert await world.send(rotated["key"]) == {SAVES}


async def test_templates_are_the_operators_choice_and_every_key_may_use_them(world):
    ann = await world.key("ann", nodes_deny=["*"], nodes_allow=["Nothing"])
    path = "/api/v2/templates/image_creation/jobs"
    made = await world.post(path, {"inputs": {"prompt": "a sunset"}}, ann)
    assert made.status == 201, made.body
    assert await world.send(ann) == {MAKES, SAVES, SHOWS}

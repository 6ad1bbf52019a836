"""The page of the API in a real browser, below a path that a proxy made up: whole, quiet, and on its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from gateway.api.dialects import DIALECTS
from gateway.api.openapi.publishing import sections
from gateway.api.openapi.vocabulary import World
from gateway.api.own_routes import OWN_ENDPOINTS
from gateway.settings import from_mapping
from tests.browser.node import required_tools, run_script
from tests.tools import asgi
from tests.tools.gateway_process import free_port
from tests.tools.waiting import wait_until_now

pytestmark = pytest.mark.browser

PREFIX = "/some/where"


@contextmanager
def served(app: Any, port: int) -> Iterator[str]:
    """An application below a path, as a proxy that takes the path off would serve it."""

    async def below(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"].startswith(PREFIX) or scope["path"] == "/favicon.ico", scope["path"]
        await app({**scope, "path": scope["path"].removeprefix(PREFIX)}, receive, send)

    server = uvicorn.Server(uvicorn.Config(below, port=port, lifespan="off", log_level="critical", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="docs server")
    thread.start()
    try:
        wait_until_now(lambda: server.started, what="the server")
        yield f"http://127.0.0.1:{port}{PREFIX}"
    finally:
        server.should_exit = True
        thread.join()


def test_the_page_shows_everything_below_any_path_and_loads_nothing_from_elsewhere() -> None:
    required_tools()
    app, service = asgi.make(auth="keys")
    with served(app, free_port()) as base:
        seen = run_script("docs.mjs", url=f"{base}/docs", key=service.give_key())

    described = sections(World(from_mapping({})), DIALECTS, OWN_ENDPOINTS)
    assert seen["operations"] == sum(len(section.endpoints) for section in described)
    assert {dialect.name for dialect in DIALECTS} <= set(seen["headings"])
    assert seen["found"] == ["/face-swap"]
    assert (
        seen["line"]
        == f"curl -X POST -H 'Authorization: Bearer KEY' -F 'video=@FILE' -F 'image=@FILE' -F 'output_name=holiday' '{base}/face-swap'"
    )
    assert {"video", "image_url", "return_prompt_id_only", "prompt_id"} <= set(seen["members"])
    assert {"200", "400", "413", "507"} <= set(seen["statuses"])
    assert (seen["stranger"], seen["known"] > 0) == (0, True)
    assert seen["overflow"] <= 0
    assert seen["complaints"] == []
    assert {url for url in seen["asked"] if not url.startswith(base)} == set()

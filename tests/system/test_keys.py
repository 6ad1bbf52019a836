"""``GATEWAY_AUTH=keys`` on a whole gateway: what is closed, what the printed token opens, what stays open."""

from __future__ import annotations

import re
import stat
from http import HTTPStatus

import pytest
import websockets

from tests.tools.faceswap_client import ended, parts, submit
from tests.tools.gateway_process import GatewayProcess

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with GatewayProcess(tmp_path_factory.mktemp("keys"), {"AUTH": "keys"}) as process:
        yield process


@pytest.fixture
def token(gateway) -> str:
    """As the operator reads it on the terminal."""
    return re.search(r"Admin token[^:]*: (\S+)", gateway.output.read_text())[1]


CLOSED = [
    ("POST", "/face-swap"),
    ("GET", "/status/01a20000-0000-7000-8000-000000000000"),
    ("GET", "/events/01a20000-0000-7000-8000-000000000000"),
    ("POST", "/swap_image/"),
    ("POST", "/swap_video"),
    ("GET", "/check_task_status/01a20000-0000-7000-8000-000000000000"),
    ("GET", "/-/jobs"),
    ("GET", "/-/jobs/01a20000-0000-7000-8000-000000000000"),
    ("DELETE", "/-/jobs/01a20000-0000-7000-8000-000000000000"),
    ("GET", "/-/upstreams"),
    ("POST", "/-/upstreams"),
    ("POST", "/-/upstreams/embedded-1/drain"),
    ("DELETE", "/-/upstreams/embedded-1"),
    ("GET", "/-/templates"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_closed_without_the_token_and_with_a_wrong_one(gateway, token, method, path):
    wrong = [
        "",
        "Bearer",
        f"Bearer {token}x",
        f"Bearer {token[:-1]}",
        f"Basic {token}",
        token,
        "Bearer \xff",
        f"Bearer {token} {token}",
    ]
    async with gateway.client() as client:
        for headers in ({}, *({"Authorization": value.encode("latin-1")} for value in wrong)):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == HTTPStatus.UNAUTHORIZED
            assert answer.json()["code"] in {"unauthorized", "invalid_api_key"}
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_socket_is_closed_without_the_token(gateway, token):
    url = f"ws://127.0.0.1:{gateway.port}/face-swap-ws"
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(url, proxy=None)
    assert refusal.value.response.status_code == HTTPStatus.UNAUTHORIZED
    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(url, proxy=None, additional_headers=headers) as connection:
        await connection.send("{}")
        assert "error" in await connection.recv()


async def test_token_that_was_printed_submits_and_the_link_needs_none(gateway, token, material):
    async with gateway.client(headers={"Authorization": f"Bearer {token}"}) as owner, gateway.client() as stranger:
        prompt_id = await submit(owner, target_image=material.still, image=material.face(600))
        done = await ended(owner, prompt_id)
        assert done["status"] == "SUCCESS"
        assert (await stranger.get(f"/status/{prompt_id}")).status_code == HTTPStatus.UNAUTHORIZED
        for client in (stranger, owner):
            answer = await client.get(done["result"])
            assert answer.status_code == HTTPStatus.OK
            assert answer.content.startswith(b"\x89PNG")
            assert "private" in answer.headers["cache-control"]
            assert answer.headers["referrer-policy"] == "no-referrer"
        guess = done["result"][:-5] + ("0" if done["result"][-5] != "0" else "1") + ".png"
        assert (await stranger.get(guess)).status_code == HTTPStatus.NOT_FOUND
        assert [found["id"] for found in (await owner.get("/-/jobs")).json()["jobs"]] == [prompt_id]


async def test_the_token_opens_swiftswap_and_its_link_needs_none(gateway, token, material):
    async with gateway.client(headers={"Authorization": f"Bearer {token}"}) as owner, gateway.client() as stranger:
        files = parts(image=material.face(601), target_image=material.still)
        task_id = (await owner.post("/swap_image/", files=files)).json()["task_id"]
        assert (await ended(owner, task_id))["status"] == "SUCCESS"
        for _ in range(2):  # made, then kept ready: the token is asked for each time
            done = await owner.get(f"/check_task_status/{task_id}")
            assert (await stranger.get(f"/check_task_status/{task_id}")).status_code == HTTPStatus.UNAUTHORIZED
        assert (await stranger.get(done.json()["link"])).content.startswith(b"\x89PNG")


async def test_what_anybody_may_see_tells_nothing(gateway):
    async with gateway.client() as client:
        assert (await client.get("/check_status")).json() == {"status": "running"}
        assert (await client.get("/health")).json() == {"status": "healthy"}
        assert (await client.get("/health/ready")).status_code == HTTPStatus.OK
        assert (await client.get("/")).status_code == HTTPStatus.OK
        assert (await client.get("/", headers={"Accept": "text/html"})).headers["content-type"].startswith("text/html")


async def test_refused_upload_leaves_nothing(gateway, material):
    before = gateway.leftovers()
    async with gateway.client() as client:
        answer = await client.post("/face-swap", files=parts(video=material.clip, image=material.face()))
        assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert gateway.leftovers() == before


async def test_token_is_kept_from_others_and_never_shown_again(gateway, token):
    path = gateway.data_dir / "admin-token"
    assert path.read_text().strip() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(gateway.data_dir.stat().st_mode) == 0o700
    assert token not in gateway.log.read_text()
    gateway.stop()
    gateway.start(wait_for_workers=False)
    assert gateway.output.read_text().count(token) == 1
    async with gateway.client(headers={"Authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/-/jobs")).status_code == HTTPStatus.OK

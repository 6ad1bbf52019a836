"""``GATEWAY_AUTH=keys`` on a whole gateway: what is closed, what the printed token opens, what stays open."""

from __future__ import annotations

import base64
import json
import os
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


@pytest.fixture
async def keys(gateway, token) -> list[str]:
    """Two keys of two users, with credits for a job each."""
    async with gateway.client(headers={"X-API-Key": token}) as operator:
        made = [
            await operator.post("/-/keys", json={"name": f"{name} {os.urandom(4).hex()}", "credits": 100})
            for name in ("ann", "bob")
        ]
    return [answer.json()["key"] for answer in made]


async def test_a_key_sees_its_own_jobs_and_no_other_key_does(gateway, token, keys, material):
    ann, bob = keys
    async with gateway.client(headers={"Authorization": f"Bearer {ann}"}) as owner:
        job_id = await submit(owner, target_image=material.still, image=material.face(610))
        assert (await ended(owner, job_id))["status"] == "SUCCESS"
        assert [job["id"] for job in (await owner.get("/-/jobs")).json()["jobs"]] == [job_id]
    for headers in ({"X-API-Key": bob}, {"Authorization": f"Bearer {token}"}):
        async with gateway.client(headers=headers) as other:
            assert job_id not in (await other.get("/-/jobs")).text
            for method, path in (
                ("GET", "/status/{}"), ("GET", "/events/{}"), ("GET", "/check_task_status/{}"), ("GET", "/query_task/{}"),
                ("POST", "/cancel_task/{}"), ("GET", "/-/jobs/{}"), ("DELETE", "/-/jobs/{}"), ("GET", "/-/jobs/{}/events"),
            ):  # fmt: skip
                answer = await other.request(method, path.format(job_id))
                assert answer.status_code == HTTPStatus.NOT_FOUND, path


async def test_a_key_with_lists_sends_workflows_of_the_classes_that_it_may_use_and_any_template(
    gateway, token, material
):
    async with gateway.client(headers={"X-API-Key": token}) as operator:
        lists = {"nodes_deny": ["ImageInvert"], "nodes_allow": ["LoadImage", "Image*", "SaveImage"]}
        body = {"name": f"narrow {os.urandom(4).hex()}", "credits": 100, **lists}
        narrow = (await operator.post("/-/keys", json=body)).json()["key"]
        wide = (await operator.post("/-/keys", json={**body, "name": f"w{body['name']}", "nodes_deny": None})).json()[
            "key"
        ]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "inverted", "images": ["2", 0]}},
    }
    for key, status in ((narrow, HTTPStatus.UNPROCESSABLE_ENTITY), (wide, HTTPStatus.CREATED)):
        async with gateway.client(headers={"X-API-Key": key}) as client:
            said = {"content_type": "image/png", "file_path": "photo.png"}
            files = {"file": ("photo.png", material.face(612).read_bytes(), "image/png")}
            uploaded = await client.post("/api/v2/assets", data=said, files=files)
            assert uploaded.status_code == HTTPStatus.CREATED, uploaded.text
            answer = await client.post("/api/v2/jobs", json={"workflow": graph})
            assert answer.status_code == status, answer.text
            if key == narrow:
                details = answer.json()["error"]["details"]["node_errors"]
                assert [(node, [each["reason"] for each in found]) for node, found in details.items()] == [
                    ("2", ["class_denied"])
                ]
            # A template of the operator's holds classes that are in neither list.
            job_id = await submit(client, target_image=material.still, image=material.face(613))
            assert (await ended(client, job_id))["status"] == "SUCCESS"


async def test_a_browser_opens_stream_and_socket_without_a_header(gateway, keys, material):
    ann, _ = keys
    async with gateway.client() as client:
        own = {"X-API-Key": ann}
        files = parts(target_image=material.still, image=material.face(611))
        answer = await client.post("/face-swap", data={"return_prompt_id_only": "true"}, files=files, headers=own)
        job_id = answer.json()["prompt_id"]

        async def ticket(path: str) -> str:
            answer = await client.post("/-/tickets", json={"path": path}, headers=own)
            assert answer.status_code == HTTPStatus.CREATED, answer.text
            return answer.json()["url"]

        stream = await ticket(f"/events/{job_id}")
        told = await client.get(stream)
        assert told.headers["content-type"].startswith("text/event-stream")
        assert "event: completed" in told.text
        assert (await client.get(stream)).status_code == HTTPStatus.UNAUTHORIZED
        socket = await ticket("/face-swap-ws")

    async def first_word(address: str, **how: object) -> tuple[str, str | None]:
        url = f"ws://127.0.0.1:{gateway.port}{address}"
        async with websockets.connect(url, proxy=None, origin=gateway.url, **how) as connection:
            await connection.send(json.dumps({"prompt_id": job_id}))
            return json.loads(await connection.recv())["event"], connection.subprotocol

    assert await first_word(socket) == ("queued", None)
    encoded = base64.urlsafe_b64encode(ann.encode()).decode().rstrip("=")
    offered = ["gateway.v1", f"gateway.bearer.{encoded}"]
    assert await first_word("/face-swap-ws", subprotocols=offered) == ("queued", "gateway.v1")
    # A page sees no answer before the handshake: it is told by the code of the close.
    for address, how in ((socket, {}), ("/face-swap-ws", {"subprotocols": ["gateway.v1"]})):
        with pytest.raises(websockets.ConnectionClosed) as refusal:
            await first_word(address, **how)
        assert refusal.value.rcvd.code == 4401


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

"""``/face-swap-ws`` and URL inputs against a whole gateway that may fetch from loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import pytest
import websockets

from gateway.comfy.frames import parse_binary
from tests.tools.faceswap_client import at_work, ended, parts, status, submit
from tests.tools.file_server import serving
from tests.tools.gateway_process import GatewayProcess
from tests.tools.sse_client import stream
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.system

FLAT = {"queued", "completed", "error"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    settings = {"URL_INPUTS": "allowlist", "URL_ALLOWLIST": "127.0.0.0/8"}
    with GatewayProcess(tmp_path_factory.mktemp("socket"), settings) as process:
        yield process


@pytest.fixture(scope="module")
def files(material):
    with serving(material.folder) as server:
        yield server


def connect(gateway: GatewayProcess, query: str = "", **settings: Any) -> Any:
    return websockets.connect(f"ws://127.0.0.1:{gateway.port}/face-swap-ws{query}", proxy=None, **settings)


async def listen(connection: Any) -> list[dict[str, Any]]:
    """All frames until it is closed, whatever the code."""
    frames = []
    with contextlib.suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                frames.append(json.loads(await connection.recv()))
    return frames


async def talk(gateway: GatewayProcess, first: object, **settings: Any) -> tuple[list[dict[str, Any]], int]:
    """Say one thing and listen to the end: (frames, close code)."""
    async with connect(gateway, **settings) as connection:
        await connection.send(first if isinstance(first, str | bytes) else json.dumps(first))
        frames = await listen(connection)
        return frames, connection.close_code


def assert_frames_are_of_the_dialect(frames: list[dict[str, Any]]) -> None:
    for frame in frames:
        assert frame["event"] in {"queued", "executing", "progress", "completed", "error"}
        flat = {"type": frame["event"], **frame["data"]} if frame["event"] in FLAT else {}
        assert frame == {"event": frame["event"], "data": frame["data"], **flat}


async def test_submitted_by_urls_it_tells_the_whole_swap(gateway, files, material):
    opening = {
        "video_url": f"{files.url}/{quote(material.clip.name)}",
        "image_url": f"{files.url}/{quote(material.face(500).name)}",
        "output_name": "by url",
    }
    frames, code = await talk(gateway, opening)
    assert code == 1000
    assert_frames_are_of_the_dialect(frames)
    names = [frame["event"] for frame in frames]
    assert (names[0], names[-1]) == ("queued", "completed")
    assert {"executing", "progress"} <= set(names)
    bars = [frame["data"]["percentage"] for frame in frames if frame["event"] == "progress"]
    assert bars == sorted(bars)
    assert frames[-1]["output_prefix"] == "by_url"
    async with gateway.client() as client:
        assert (await client.get(frames[-1]["download_url"])).status_code == HTTPStatus.OK
        assert (await status(client, frames[0]["prompt_id"]))["status"] == "SUCCESS"


async def test_attached_by_prompt_id_it_tells_the_same_job(gateway, material):
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.clip, image=material.face(501))
        frames, code = await talk(gateway, {"prompt_id": prompt_id})
        assert code == 1000
        assert_frames_are_of_the_dialect(frames)
        assert (frames[0]["event"], frames[0]["prompt_id"]) == ("queued", prompt_id)
        assert (frames[-1]["event"], frames[-1]["prompt_id"]) == ("completed", prompt_id)
        again, code = await talk(gateway, {"prompt_id": prompt_id})
        assert code == 1000
        durable = [frame for frame in frames if frame["event"] in FLAT]
        assert [frame for frame in again if frame["event"] in FLAT] == durable


async def test_leaving_the_socket_cancels_nothing(gateway, material):
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.clip, image=material.face(502))
        async with connect(gateway) as connection:
            await connection.send(json.dumps({"prompt_id": prompt_id}))
            await connection.recv()
        assert (await ended(client, prompt_id))["status"] == "SUCCESS"


async def test_job_that_is_nobodys_is_not_attached_to(gateway):
    for prompt_id in ("01a20000-0000-7000-8000-000000000000", "abc", 5, None, ["x"]):
        frames, code = await talk(gateway, {"prompt_id": prompt_id})
        assert (code, len(frames), frames[0]["event"], frames[0]["code"]) == (4404, 1, "error", "not_found")


@pytest.mark.parametrize("name", ["video_path", "image_path", "target_image_path", "video", "image"])
async def test_path_on_the_server_is_refused_with_what_to_do_instead(gateway, name):
    before = gateway.leftovers()
    frames, code = await talk(gateway, {name: "/etc/passwd", "image_url": "https://example.com/a.png"})
    assert (code, len(frames), frames[0]["type"]) == (1008, 1, "error")
    assert "POST /face-swap" in frames[0]["detail"]
    assert "prompt_id" in frames[0]["detail"]
    assert gateway.leftovers() == before


@pytest.mark.parametrize(
    "first",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"video_url": NaN}',
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"video_url": 5, "image_url": "https://example.com/a.png"}',
        '{"video_url": "https://example.com/a.mp4"}',
        '{"video_url": "https://10.0.0.1/a.mp4", "image_url": "https://10.0.0.1/a.png"}',
        '{"video_url": "file:///etc/passwd", "image_url": "file:///etc/passwd"}',
        '{"cancel": true}',
    ],
    ids=range(11),
)
async def test_first_frame_that_cannot_be_served_is_answered_once_and_ends_it(gateway, first):
    before = gateway.leftovers()
    frames, code = await talk(gateway, first)
    assert_frames_are_of_the_dialect(frames)
    assert (code, len(frames), frames[0]["type"], frames[0]["code"]) == (1008, 1, "error", "validation_error")
    assert gateway.leftovers() == before


async def test_binary_and_oversized_frames_end_it(gateway):
    assert await talk(gateway, b"\x00\xff") == ([], 1003)
    assert (await talk(gateway, json.dumps({"video_url": "x" * 70_000})))[1] == 1009
    assert (await talk(gateway, "x" * (1024 * 1024 + 1)))[1] == 1009


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example", "file://"]
)
async def test_page_of_another_origin_is_refused_before_the_handshake(gateway, origin):
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await connect(gateway, origin=origin)
    assert refusal.value.response.status_code == HTTPStatus.FORBIDDEN
    assert json.loads(refusal.value.response.body)["code"] == "forbidden"


async def test_page_of_its_own_origin_and_programs_are_let_in(gateway):
    for origin in (gateway.url, None):
        assert (await talk(gateway, "{}", origin=origin))[1] == 1008


async def test_foreign_host_is_not_served(gateway):
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect("ws://evil.example/face-swap-ws", host="127.0.0.1", port=gateway.port, proxy=None)
    assert refusal.value.response.status_code == HTTPStatus.MISDIRECTED_REQUEST


async def test_stream_of_a_post_with_urls_begins_with_comments_while_it_fetches(gateway, files, material):
    files.go.clear()
    data = {"video_url": f"{files.url}/slow/{quote(material.clip.name)}"}
    async with gateway.client() as client:
        request = {"data": data, "files": parts(image=material.face(503))}
        async with stream(client, "POST", "/face-swap", **request) as live:
            await wait_until(lambda: any("slow" in path for path in files.asked), what="the fetch to begin")
            files.go.set()
            told = await live.rest()
        assert told.comments[0] == "keep-alive"
        assert (told.names[0], told.names[-1]) == ("queued", "completed")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nothing.mp4", "source_unreachable"),
        ("/to/http://10.0.0.1/a.mp4", "source_unreachable"),
        ("/to/file:///etc/passwd", "source_unreachable"),
        ("/nobody.png", "unsupported_media_type"),
    ],
)
async def test_source_that_gives_nothing_usable_ends_the_stream_and_leaves_nothing(
    gateway, files, material, path, code
):
    before = gateway.leftovers()
    async with gateway.client() as client:
        request = {"data": {"video_url": files.url + path}, "files": parts(image=material.face(504))}
        async with stream(client, "POST", "/face-swap", **request) as live:
            told = await live.rest()
        assert told.names == ["error"]
        assert told.messages[0].json["code"] == code
        assert told.last_event_id == "", "there is no job to come back to"
        assert "10.0.0.1" not in told.messages[0].data
        answer = await client.post(
            "/face-swap", data=request["data"] | {"return_prompt_id_only": "1"}, files=request["files"]
        )
        assert (answer.json()["code"], answer.json()["field"]) == (code, "video_url")
        assert 400 <= answer.status_code < 500
    await wait_until(lambda: gateway.leftovers() == before, what="nothing left", patience_seconds=10)


async def test_upstream_and_gateway_are_never_reached_by_url(gateway, material):
    """Not even where their network is on the list."""
    async with gateway.client() as client:
        worker = (await client.get("/health")).json()["upstreams"][0]["address"]
        for url in (f"{worker}/system_stats", f"{gateway.url}/health"):
            answer = await client.post("/face-swap", data={"video_url": url}, files=parts(image=material.face()))
            told = answer.json() if answer.status_code != HTTPStatus.OK else None
            assert told is None or told["field"] == "video_url"
            if told is None:
                assert '"code":"source_unreachable"' in answer.text


async def test_canceled_while_it_is_fetching_no_job_is_made(gateway, files, material):
    before = gateway.leftovers()
    files.go.clear()
    opening = {
        "video_url": f"{files.url}/slow/{quote(material.clip.name)}",
        "image_url": f"{files.url}/slow/{quote(material.face(505).name)}",
    }
    seen = len(files.asked)
    async with connect(gateway) as connection:
        await connection.send(json.dumps(opening))
        await wait_until(lambda: len(files.asked) > seen, what="the fetch to begin")
        await connection.send('{"cancel": true}')
        frames = await listen(connection)
        assert (frames[-1]["code"], connection.close_code) == ("canceled", 1000)
    files.go.set()
    await wait_until(lambda: gateway.leftovers() == before, what="nothing left", patience_seconds=10)


async def test_what_is_not_understood_later_is_answered_and_changes_nothing(gateway, material):
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.long, image=material.face(506))
        await at_work(client, prompt_id)
        async with connect(gateway) as connection:
            await connection.send(json.dumps({"prompt_id": prompt_id}))
            await connection.send('{"cancel": "true"}')
            frames = await listen(connection)
        errors = [frame for frame in frames if frame["event"] == "error"]
        assert [error["code"] for error in errors] == ["validation_error"]
        assert frames[-1]["event"] == "completed"


async def test_previews_of_the_worker_reach_the_socket_that_asked_and_the_stream_that_asked(gateway, material):
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.long, image=material.face(530))
        async with (
            stream(client, "GET", f"/events/{prompt_id}?previews=1") as events,
            connect(gateway, "?previews=1", max_size=4 * 1024 * 1024) as connection,
        ):
            await connection.send(json.dumps({"prompt_id": prompt_id}))
            heard = [frame async for frame in connection]
            told = await events.rest()
    pictures = [parse_binary(frame) for frame in heard if isinstance(frame, bytes)]
    assert pictures
    assert {(it.prompt_id, it.content_type) for it in pictures} == {(prompt_id, "image/jpeg")}
    assert all(it.node_id for it in pictures)
    shown = [json.loads(message.data) for message in told.messages if message.event == "preview"]
    assert base64.b64decode(shown[0]["data"]).startswith(b"\xff\xd8\xff")
    assert told.names[-1] == "completed"

"""The Back.Serv document on whole gateways: its lines as they stand, and tasks from submission to file."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fakes.scripted_comfyui import ScriptedComfyUI
from tests.tools import clips, gifs
from tests.tools.faceswap_client import job
from tests.tools.file_server import serving
from tests.tools.gateway_process import GatewayProcess
from tests.tools.published_lines import run_line_for_status
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

#: As published.
SUBMIT = """curl -X POST http://localhost:4093/submit_task \\
     -H "Content-Type: application/json" \\
     -d '{
           "task_type": "image_creation",
           "task_params": {
             "prompt": "a beautiful sunset"
           },
           "user_id": "user123"
         }'
"""
QUERY = "curl http://localhost:4093/query_task/abc123"
CANCEL = "curl -X POST http://localhost:4093/cancel_task/abc123"

OBJECT_INFO = Path(__file__).parents[1] / "data" / "object_info" / "real.json"
DOCUMENTED = ["status", "result_info", "error_info", "started_at", "completed_at"]
ORDER = ["Queueing", "In Progress", "Completed"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def data_uri(path: Path) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()


async def submit(client: httpx.AsyncClient, task_type: str, user_id: str = "user123", **params: Any) -> str:
    """Submit as documented; the ticket."""
    task = {"task_type": task_type, "task_params": params, "user_id": user_id}
    answer = await client.post("/submit_task", json=task)
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    told = answer.json()
    assert told == {"ticket_id": told["ticket_id"], "serv_name": "pool", "status": "Queueing"}
    return told["ticket_id"]


async def query(client: httpx.AsyncClient, ticket_id: str) -> dict[str, Any]:
    answer = await client.get(f"/query_task/{ticket_id}")
    assert answer.status_code == HTTPStatus.OK, answer.text
    told = answer.json()
    assert list(told)[:5] == DOCUMENTED
    assert ("queue_position" in told) == (told["status"] == "Queueing")
    for moment in (told["started_at"], told["completed_at"]):
        assert moment is None or TIME.fullmatch(moment)
    return told


async def ended(client: httpx.AsyncClient, ticket_id: str) -> dict[str, Any]:
    """Its last answer, everything on the way as documented."""
    seen: list[dict[str, Any]] = []

    async def look() -> bool:
        seen.append(await query(client, ticket_id))
        return seen[-1]["completed_at"] is not None

    await wait_until(look, what=f"the end of {ticket_id}")
    words = [told["status"] for told in seen if told["status"] in ORDER]
    assert sorted(words, key=ORDER.index) == words
    assert all(told["result_info"] is None for told in seen[:-1])
    bars = [told["progress"] for told in seen]
    assert bars == sorted(bars)
    return seen[-1]


async def result_of(client: httpx.AsyncClient, ticket_id: str, content_type: str) -> bytes:
    """The file of a completed task, by the URL in its answer."""
    done = await ended(client, ticket_id)
    assert (done["status"], done["error_info"], done["code"], done["progress"]) == ("Completed", None, None, 100)
    assert datetime.fromisoformat(done["started_at"]) <= datetime.fromisoformat(done["completed_at"])
    assert done["result_urls"] == [done["result_info"]]
    assert done["result_info"].startswith(f"{client.base_url}".rstrip("/") + "/download/")
    assert done["serv_name"].startswith("embedded-")
    assert (await job(client, ticket_id))["dialect"] == "backserv"
    async with httpx.AsyncClient(trust_env=False) as stranger:
        file = await stranger.get(done["result_info"])
    assert (file.status_code, file.headers["content-type"]) == (HTTPStatus.OK, content_type)
    return file.content


def pixels(source: Path | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB")).astype(
        int
    )


def assert_another_face(before: np.ndarray, after: np.ndarray) -> None:
    assert before.shape == after.shape
    assert np.abs(after - before).max() > 40


# --------------------------------------------------------------------------------------------------- the document's lines


async def test_submit_line_is_refused_with_what_is_missing_where_no_checkpoint_is(pool, tmp_path):
    status, content = await run_line_for_status(SUBMIT.replace("localhost:4093", f"localhost:{pool.port}"), tmp_path)
    told = json.loads(content)
    assert (status, told["error"]) == (400, "task_unavailable")
    assert told["missing"]
    assert all(reason in told["message"] for reason in told["missing"])
    async with pool.client() as client:
        types = {task["task_type"]: task for task in (await client.get("/task_types")).json()["task_types"]}
    assert (types["image_creation"]["can_run"], types["image_creation"]["missing"]) == (False, told["missing"])
    assert types["face_swap"]["can_run"]


@pytest.fixture
async def scripted(tmp_path):
    """A gateway whose one upstream says it has a checkpoint, and that upstream."""
    upstream = ScriptedComfyUI()
    upstream.nodes = json.loads(OBJECT_INFO.read_text(encoding="utf-8"))
    async with upstream.serve() as url:
        gateway = GatewayProcess(tmp_path / "gateway", {"UPSTREAMS": url}, workers=0)
        await asyncio.to_thread(gateway.start, wait_for_workers=False)
        try:
            yield gateway, upstream
        finally:
            await asyncio.to_thread(gateway.end)


async def test_submit_line_is_accepted_where_a_checkpoint_is(scripted, tmp_path):
    """The document's three lines in turn. Nothing paints here: the upstream never finishes, and is told to stop."""
    gateway, upstream = scripted

    async def run(line: str, ticket: str = "abc123") -> tuple[int, dict[str, Any]]:
        here = line.replace("localhost:4093", f"localhost:{gateway.port}").replace("abc123", ticket)
        status, content = await run_line_for_status(here, tmp_path)
        return status, json.loads(content)

    async with gateway.client() as client:

        async def can_run() -> bool:
            types = (await client.get("/task_types")).json()["task_types"]
            return {task["task_type"]: task["can_run"] for task in types}["image_creation"]

        await wait_until(can_run, what="the upstream to say what it has")
    status, accepted = await run(SUBMIT)
    assert (status, accepted["status"]) == (202, "Queueing")
    await wait_until(lambda: upstream.pending, what="the prompt to arrive")
    [[_, prompt_id, graph, *_]] = upstream.pending
    texts = [node["inputs"].get("text") for node in graph.values() if node["class_type"] == "CLIPTextEncode"]
    assert "a beautiful sunset" in texts
    await upstream.start(prompt_id)

    async def at_work() -> dict[str, Any] | None:
        told = (await run(QUERY, accepted["ticket_id"]))[1]
        return told if told["status"] == "In Progress" and told["started_at"] else None

    told = await wait_until(at_work, what="the task to be at work")
    async with gateway.client() as client:
        [member] = (await client.get("/-/upstreams")).json()["upstreams"]
    assert (told["serv_name"], told["template"]) == (member["name"], "image_creation")
    assert (await run(CANCEL, accepted["ticket_id"]))[0] == 200
    await wait_until(lambda: f"interrupt {prompt_id}" in upstream.calls, what="the upstream to be told")

    async def has_ended() -> bool:
        return (await run(QUERY, accepted["ticket_id"]))[1]["completed_at"] is not None

    await wait_until(has_ended, what="the end")
    assert (await run(QUERY, accepted["ticket_id"]))[1]["status"] == "Cancelled"


@pytest.mark.parametrize("line", [QUERY, CANCEL])
async def test_query_and_cancel_lines_know_no_such_ticket(pool, tmp_path, line):
    status, content = await run_line_for_status(line.replace("localhost:4093", f"localhost:{pool.port}"), tmp_path)
    told = json.loads(content)
    assert (status, told["error"], told["field"]) == (404, "not_found", "ticket_id")


async def test_query_and_cancel_lines_with_a_ticket_of_ours(pool, tmp_path, material):
    async with pool.client() as client:
        ticket = await submit(
            client, "face_swap", source_image=data_uri(material.face(950)), target_image=data_uri(material.long)
        )

    async def run(line: str) -> tuple[int, dict[str, Any]]:
        here = line.replace("localhost:4093", f"localhost:{pool.port}").replace("abc123", ticket)
        status, content = await run_line_for_status(here, tmp_path)
        return status, json.loads(content)

    async def is_running() -> bool:
        status, told = await run(QUERY)
        assert status == 200
        assert list(told)[:5] == DOCUMENTED
        return told["status"] == "In Progress"

    await wait_until(is_running, what="the task to be at work")
    assert await run(CANCEL) == (200, {"status": "Cancelled", "message": "Task successfully cancelled"})
    assert (await run(QUERY))[1]["status"] == "Cancelled"
    async with pool.client() as client:
        done = await ended(client, ticket)
    assert (done["status"], done["result_info"], done["code"]) == ("Cancelled", None, "canceled")
    status, told = await run(CANCEL)
    assert (status, told["error"]) == (400, "bad_request")


# ------------------------------------------------------------------------------------------------------------- face swap


async def test_a_picture_by_data_uris_is_swapped(pool, material):
    async with pool.client() as client:
        ticket = await submit(
            client,
            "face_swap",
            source_image=data_uri(material.face(951)),
            target_image="data:image/png," + quote_from_bytes(material.still.read_bytes()),
            output_name="by data uri",
        )
        file = await result_of(client, ticket, "image/png")
    assert_another_face(pixels(material.still), pixels(file))


async def test_a_video_by_data_uri_is_swapped(pool, material, tmp_path):
    async with pool.client() as client:
        ticket = await submit(
            client, "face_swap", source_image=data_uri(material.face(952)), target_image=data_uri(material.clip)
        )
        file = await result_of(client, ticket, "video/mp4")
    result = tmp_path / "result.mp4"
    result.write_bytes(file)
    assert_another_face(clips.frames_of(material.clip).astype(int), clips.frames_of(result).astype(int))


async def test_a_gif_by_data_uri_is_swapped(pool, material, tmp_path):
    target = tmp_path / "target.gif"
    target.write_bytes(gifs.gif(gifs.portraits(range(3)), [10, 20, 30], loop=0))
    async with pool.client() as client:
        ticket = await submit(
            client, "face_swap", source_image=data_uri(material.face(953)), target_image=data_uri(target)
        )
        file = await result_of(client, ticket, "image/gif")
    assert Image.open(io.BytesIO(file)).n_frames == 3


async def test_a_target_without_a_face_is_a_system_error_with_a_reason(pool, material):
    async with pool.client() as client:
        ticket = await submit(
            client, "face_swap", source_image=data_uri(material.face(954)), target_image=data_uri(material.faceless)
        )
        done = await ended(client, ticket)
    assert (done["status"], done["code"], done["result_info"]) == ("System Error", "no_face_found", None)
    assert len(done["error_info"]) > 10


async def test_users_of_one_address_share_fairly(pool, material):
    """Of five tasks of one user and then one of another, the other's is not the last to begin."""
    async with pool.client() as client:

        async def swap(user_id: str, variant: int) -> str:
            return await submit(
                client,
                "face_swap",
                user_id,
                source_image=data_uri(material.face(variant)),
                target_image=data_uri(material.clip),
            )

        async def all_upstreams(verb: str) -> None:
            for member in (await client.get("/-/upstreams")).json()["upstreams"]:
                await client.post(f"/-/upstreams/{member['name']}/{verb}", headers=pool.bearer)

        await all_upstreams("drain")
        try:
            eager = [await swap("eager", 970 + number) for number in range(5)]
            late = await swap("late", 980)
        finally:
            await all_upstreams("resume")
        begun = {ticket: (await ended(client, ticket))["started_at"] for ticket in (*eager, late)}
    assert begun[late] < max(begun[ticket] for ticket in eager)


# -------------------------------------------------------------------------------------------------------------- upscaling


def assert_enlarged(before: np.ndarray, after: np.ndarray, factor: int) -> None:
    """So many times larger, and the same picture."""
    height, width, _ = before.shape
    assert after.shape == (height * factor, width * factor, 3)
    small = after.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    assert np.abs(small - before).mean() < 3


@pytest.mark.parametrize("factor", [2, 3, 4])
async def test_a_picture_by_data_uri_is_enlarged_and_it_is_said_how(pool, material, factor):
    async with pool.client() as client:
        ticket = await submit(client, "image_upscale", image_url=data_uri(material.still), scale_factor=factor)
        file = await result_of(client, ticket, "image/png")
        told = await query(client, ticket)
    assert_enlarged(pixels(material.still), pixels(file), factor)
    assert told["template"] == "image_upscale_lanczos"
    assert any("Lanczos" in warning for warning in told["warnings"])


@pytest.mark.parametrize("factor", [1, 5, 2.5, "2", True, 10**30])
async def test_a_factor_that_is_none_is_refused_by_its_name_and_leaves_nothing(pool, material, factor):
    before = pool.leftovers()
    params = {"image_url": data_uri(material.face(960)), "scale_factor": factor}
    async with pool.client() as client:
        answer = await client.post(
            "/submit_task", json={"task_type": "image_upscale", "task_params": params, "user_id": "user123"}
        )
    told = answer.json()
    assert (answer.status_code, told["error"], told["field"]) == (400, "validation_error", "scale_factor")
    await wait_until(lambda: pool.leftovers() == before, what="nothing to be left")


# ----------------------------------------------------------------------------------------------------------------- URLs


@pytest.fixture(scope="module")
def reaching(tmp_path_factory):
    """A gateway with two workers that may fetch from loopback."""
    settings = {"URL_INPUTS": "allowlist", "URL_ALLOWLIST": "127.0.0.0/8"}
    with GatewayProcess(tmp_path_factory.mktemp("backserv"), settings, workers=2) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def files(material):
    with serving(material.folder) as server:
        yield server


async def test_a_video_and_a_photo_by_urls_are_swapped(reaching, files, material, tmp_path):
    async with reaching.client() as client:
        ticket = await submit(
            client,
            "face_swap",
            source_image=f"{files.url}/{quote(material.face(955).name)}",
            target_image=f"{files.url}/{quote(material.clip.name)}",
        )
        file = await result_of(client, ticket, "video/mp4")
    result = tmp_path / "result.mp4"
    result.write_bytes(file)
    assert_another_face(clips.frames_of(material.clip).astype(int), clips.frames_of(result).astype(int))


async def test_a_picture_by_url_is_enlarged(reaching, files, material):
    async with reaching.client() as client:
        ticket = await submit(client, "image_upscale", image_url=f"{files.url}/still.png")
        file = await result_of(client, ticket, "image/png")
    assert_enlarged(pixels(material.still), pixels(file), 2)


async def test_a_url_beside_a_data_uri(reaching, files, material):
    async with reaching.client() as client:
        ticket = await submit(
            client,
            "face_swap",
            source_image=data_uri(material.face(956)),
            target_image=f"{files.url}/to/{files.url}/still.png",
        )
        file = await result_of(client, ticket, "image/png")
    assert_another_face(pixels(material.still), pixels(file))


@pytest.mark.parametrize("path", ["/nothing-there.png", "/to/http://169.254.169.254/latest"])
async def test_a_url_that_leads_nowhere_good_is_refused_and_leaves_nothing(reaching, files, material, path):
    before = reaching.leftovers()
    task = {"source_image": data_uri(material.face(957)), "target_image": files.url + path}
    async with reaching.client() as client:
        answer = await client.post(
            "/submit_task", json={"task_type": "face_swap", "task_params": task, "user_id": "user123"}
        )
    told = answer.json()
    assert (answer.status_code, told["error"], told["field"]) == (400, "source_unreachable", "target_image")
    assert set(told) == {"error", "message", "field"}
    assert "target_image" in told["message"]
    await wait_until(lambda: reaching.leftovers() == before, what="nothing to be left")


async def test_the_gateway_itself_is_never_reached_by_url(reaching, material):
    task = {"source_image": data_uri(material.face(958)), "target_image": f"http://127.0.0.1:{reaching.port}/health"}
    async with reaching.client() as client:
        answer = await client.post(
            "/submit_task", json={"task_type": "face_swap", "task_params": task, "user_id": "user123"}
        )
    assert answer.status_code == 400
    assert answer.json()["field"] == "target_image"


# ---------------------------------------------------------------------------------------------------------- large bodies


async def test_a_data_uri_of_16_mib_of_text_is_taken_and_one_character_more_is_not(reaching, material):
    """A photo with bytes behind its end, as cameras leave them there."""
    photo = material.face(959).read_bytes()
    head = "data:image/png;base64,"
    room = (16 * 1024 * 1024 - len(head)) // 4 * 3
    text = head + base64.b64encode(photo + bytes(room - len(photo))).decode()
    assert 16 * 1024 * 1024 - len(text) < 4
    async with reaching.client() as client:
        ticket = await submit(client, "face_swap", source_image=text, target_image=text.replace("image/png", "video/x"))
        assert (await ended(client, ticket))["status"] == "Completed"
        task = {"source_image": text + "AAAA", "target_image": text}
        answer = await client.post(
            "/submit_task", json={"task_type": "face_swap", "task_params": task, "user_id": "user123"}
        )
    told = answer.json()
    assert (answer.status_code, told["error"], told["field"]) == (400, "validation_error", "source_image")
    assert "16 MiB" in told["message"]

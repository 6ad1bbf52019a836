"""The flow that the SwiftSwap document tells, on a whole gateway with two workers: upload, ask, follow the link."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from http import HTTPStatus
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.tools import clips, gifs
from tests.tools.faceswap_client import job, parts
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

ORDER = ["pending", "processing", "completed"]


async def swap(client: httpx.AsyncClient, path: str, name: dict[str, str] | None = None, /, **files: Path) -> str:
    """Submit as the document says; the task's id."""
    answer = await client.post(path, data=name, files=parts(**files))
    assert answer.status_code == HTTPStatus.OK, answer.text
    assert set(answer.json()) == {"task_id"}
    return answer.json()["task_id"]


async def told(client: httpx.AsyncClient, task_id: str) -> list[dict[str, Any]]:
    """Every status until the task has ended."""
    seen: list[dict[str, Any]] = []

    async def look() -> bool:
        answer = await client.get(f"/check_task_status/{task_id}")
        assert answer.status_code == HTTPStatus.OK, answer.text
        seen.append(answer.json())
        return seen[-1]["status"] in {"completed", "failed"}

    await wait_until(look, what=f"the end of {task_id}")
    return seen


async def followed(client: httpx.AsyncClient, task_id: str, expected: str) -> tuple[str, httpx.Response]:
    """The completed task's file under its name, everything on the way as documented."""
    seen = await told(client, task_id)
    assert all(status == {"status": status["status"], "result": None} for status in seen[:-1])
    words = [status["status"] for status in seen]
    assert sorted(words, key=ORDER.index) == words
    done = seen[-1]
    assert set(done) == {"status", "result", "link"}, done
    name = re.fullmatch(rf"/static/({expected})", done["link"])[1]
    assert done["result"] == f"Face swapped and saved as {name}"
    file = await client.get(done["link"])
    assert file.status_code == HTTPStatus.OK
    assert f'filename="{name}"' in file.headers["content-disposition"]
    record = await job(client, task_id)
    assert (record["dialect"], record["state"], record["task"]) == ("swiftswap", "succeeded", "face_swap")
    [result] = record["results"]
    assert result["link"] == name
    assert result["size_bytes"] == len(file.content)
    assert result["content_type"] == file.headers["content-type"]
    return name, file


@pytest.mark.parametrize("path", ["/swap_image/", "/swap_image"])
async def test_a_picture_is_swapped_and_downloaded(pool, material, path):
    face = material.face(900 + len(path))
    async with pool.client() as client:
        assert (await client.get("/check_status")).json() == {"status": "running"}
        task_id = await swap(client, path, {"output_name": "group photo.jpg"}, image=face, target_image=material.still)
        _, file = await followed(client, task_id, r"group_photo_[0-9a-f]{32}\.png")
    assert file.headers["content-type"] == "image/png"
    before, after = (
        np.asarray(Image.open(source).convert("RGB")).astype(int)
        for source in (material.still, io.BytesIO(file.content))
    )
    assert before.shape == after.shape
    moved = np.abs(after - before).max(axis=2)
    assert moved.max() > 40, "another face"
    assert moved[-8:].max() == 0, "in the same picture"


@pytest.mark.parametrize("path", ["/swap_video/", "/swap_video"])
async def test_a_video_is_swapped_and_downloaded(pool, material, path, tmp_path):
    face = material.face(920 + len(path))
    async with pool.client() as client:
        task_id = await swap(client, path, {"output": "walk.mp4"}, image=face, target_video=material.clip)
        name, file = await followed(client, task_id, r"walk_[0-9a-f]{32}\.mp4")
        part = await client.get(f"/static/{name}", headers={"Range": "bytes=10-19"})
        head = await client.head(f"/static/{name}")
        elsewhere = await client.get(f"/download/{name}")
    result = tmp_path / name
    result.write_bytes(file.content)
    before, after = clips.frames_of(material.clip), clips.frames_of(result)
    assert before.shape == after.shape
    assert np.abs(after.astype(int) - before.astype(int)).max(axis=(1, 2, 3)).min() > 40, "every frame has another face"
    with av.open(str(result)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].average_rate == Fraction(clips.FPS)
        assert len(container.streams.audio) == 1
    assert (part.status_code, part.content) == (206, file.content[10:20])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(file.content))
    assert elsewhere.content == file.content


async def test_a_gif_comes_back_as_one(pool, material, tmp_path):
    target, result = tmp_path / "target.gif", tmp_path / "result.gif"
    target.write_bytes(gifs.gif(gifs.portraits(range(4)), [10, 20, 9, 30], loop=0))
    async with pool.client() as client:
        task_id = await swap(client, "/swap_video/", image=material.face(940), target_video=target)
        _, file = await followed(client, task_id, r"faceswap_\d{8}_\d{6}_[0-9a-f]{32}\.gif")
    assert file.headers["content-type"] == "image/gif"
    result.write_bytes(file.content)
    assert gifs.timing(result) == gifs.timing(target)


async def test_nobody_in_the_picture_fails_the_task_and_says_why(pool, material):
    async with pool.client() as client:
        task_id = await swap(client, "/swap_image/", image=material.face(941), target_image=material.faceless)
        done = (await told(client, task_id))[-1]
    assert set(done) == {"status", "result", "code"}
    assert (done["status"], done["code"]) == ("failed", "no_face_found")
    assert "face" in done["result"]


async def test_a_canceled_task_has_failed(pool, material):
    async with pool.client() as client:
        task_id = await swap(client, "/swap_video/", image=material.face(942), target_video=material.long)
        assert (await client.delete(f"/-/jobs/{task_id}")).is_success
        done = (await told(client, task_id))[-1]
    assert done == {"status": "failed", "result": "Canceled by request", "code": "canceled"}


@pytest.mark.parametrize("path", ["/swap_image/", "/swap_image", "/swap_video/", "/swap_video"])
async def test_no_spelling_of_a_path_is_redirected(pool, path):
    async with pool.client() as client:
        answer = await client.post(path)
        assert (answer.status_code, answer.json()["field"]) == (400, "image")
        assert (await client.get(path)).status_code == HTTPStatus.METHOD_NOT_ALLOWED
        options = await client.options(path)
        assert (options.status_code, options.headers["allow"]) == (204, "OPTIONS, POST")

"""Tasks beside the face swap on a whole gateway with embedded workers, from submission to file."""

from __future__ import annotations

import base64
import io
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

STOOD_IN = "Enlarged by Lanczos resampling: no worker had an upscale model."
SIZE = (90, 60)
LAID_ON_ITS_SIDE = 6
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MADE_OPAQUE = "Transparency was not kept: where the picture was transparent, the colours hidden there show."


def scene() -> Image.Image:
    """Edges, shades and colours."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    return Image.fromarray(np.stack([x * 2, y * 4, 255 * ((x // 10 + y // 10) % 2)], axis=-1).astype(np.uint8))


def from_a_phone(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = LAID_ON_ITS_SIDE
    scene().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, icc_profile=PROFILE, quality=95)
    return path


def with_transparency(path: Path) -> Path:
    picture = scene()
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    picture.save(path)
    return path


def of_few_colours(path: Path) -> Path:
    scene().quantize(16).save(path)
    return path


def of_one_pixel(path: Path) -> Path:
    Image.new("RGB", (1, 1), (10, 200, 30)).save(path)
    return path


async def ask(client: httpx.AsyncClient, task_type: str, **params: Any) -> httpx.Response:
    body = {"task_type": task_type, "task_params": params, "user_id": "ann"}
    return await client.post("/submit_task", json=body)


def data_uri(path: Path) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()


async def completed(client: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    ticket = answer.json()["ticket_id"]

    async def look() -> dict[str, Any] | None:
        told = (await client.get(f"/query_task/{ticket}")).json()
        return told if told["completed_at"] else None

    told = await wait_until(look, what="the end of the task")
    assert (told["status"], told["error_info"]) == ("Completed", None)
    return told


@pytest.mark.parametrize(
    ("name", "make", "factor"),
    [
        ("phone.jpg", from_a_phone, 3),
        ("logo.png", with_transparency, 2),
        ("icon.png", of_few_colours, 4),
        ("photo.webp", lambda path: scene().save(path, lossless=True) or path, 2),
        ("dot.png", of_one_pixel, 4),
    ],
)
async def test_a_picture_comes_back_as_many_times_as_large_upright_and_says_how(pool, tmp_path, name, make, factor):
    source = make(tmp_path / name)
    async with pool.client() as client:
        told = await completed(
            client, await ask(client, "image_upscale", image_url=data_uri(source), scale_factor=factor)
        )
        content = (await client.get(told["result_info"])).content
    opaque = [MADE_OPAQUE] if make is with_transparency else []
    assert (told["template"], told["warnings"]) == ("image_upscale_lanczos", [STOOD_IN, *opaque])
    assert "/image_upscale_" in told["result_info"]
    upright = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
    with Image.open(io.BytesIO(content)) as result:
        assert (result.format, result.size) == ("PNG", (upright.width * factor, upright.height * factor))
        colours = {"icc_profile": PROFILE} if make is from_a_phone else {}
        assert result.info == colours, "nothing of the workflow is left in it"
        wanted = upright.resize(result.size, Image.Resampling.LANCZOS)
        assert np.array_equal(np.asarray(result), np.asarray(wanted))


async def test_what_would_be_too_large_is_refused_and_leaves_nothing(pool, tmp_path):
    source = tmp_path / "wide.png"
    Image.new("RGB", (8000, 2001)).save(source)
    before = pool.rows("SELECT count(*) FROM jobs")
    async with pool.client() as client:
        answer = await ask(client, "image_upscale", image_url=data_uri(source), scale_factor=2)
    told = answer.json()
    assert (answer.status_code, told["error"], told["field"]) == (400, "validation_error", "scale_factor")
    assert "16000x4002" in told["message"]
    assert pool.rows("SELECT count(*) FROM jobs") == before


@pytest.mark.parametrize(
    ("params", "field"),
    [({"scale_factor": 5}, "scale_factor"), ({"scale_factor": "2"}, "scale_factor"), ({"sharpen": 1}, "sharpen")],
)
async def test_a_wrong_number_is_refused_by_its_name(pool, tmp_path, params, field):
    async with pool.client() as client:
        answer = await ask(client, "image_upscale", image_url=data_uri(of_one_pixel(tmp_path / "x.png")), **params)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("task_type", ["image_creation", "video_creation"])
async def test_no_embedded_worker_paints_and_health_does_not_mind(pool, task_type):
    async with pool.client() as client:
        answer = await ask(client, task_type, prompt="a beautiful sunset")
        assert (answer.status_code, answer.json()["error"]) == (400, "task_unavailable")
        assert any("CheckpointLoaderSimple" in sentence for sentence in answer.json()["missing"])
        health = (await client.get("/health")).json()
    assert (health["status"], health["templates"]) == ("healthy", [])

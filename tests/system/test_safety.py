"""Whole gateways that look at what is sent in: the real onnxruntime, the real decoding processes, every dialect by HTTP.

The classifier has a few hundred bytes, is built here and flags what is red. No upstream is there, so what is taken in waits.
"""

from __future__ import annotations

import base64
import io
import json
import sqlite3
import ssl
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import trustme
from PIL import Image

from gateway.engine.accounts import NewKey
from gateway.main import Gateway, open_gateway
from gateway.settings import from_mapping
from tests.tools import safety_service, tiny_onnx
from tests.tools.asgi import Socket, ask, form
from tests.tools.file_server import serving

pytestmark = pytest.mark.system

CREDITS = 10
MEDIA_HOST = "media.example.com"
SIZE = (96, 64)
RED, GREEN, BLUE = (255, 0, 0), (0, 160, 0), (0, 0, 255)


def png(colour: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB" if len(colour) == 3 else "RGBA", SIZE, colour).save(out, "PNG")
    return out.getvalue()


def clip(folder: Path, *, red: range) -> bytes:
    """Ten seconds of green at ten frames a second, some of them red."""
    path = folder / "clip.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "25"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for index in range(100):
            picture = np.full((*SIZE[::-1], 3), RED if index in red else GREEN, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())
    return path.read_bytes()


@dataclass
class House:
    """A gateway in this process, with a key that has credits."""

    gateway: Gateway
    folder: Path
    key: str

    async def ask(self, path: str, body: bytes, **headers: str) -> Any:
        return await ask(self.gateway.app, "POST", path, body, authorization=f"Bearer {self.key}", **headers)

    async def swap(self, face: bytes, target: bytes, field: str = "target_image") -> Any:
        body, headers = form({"image": face, field: target, "return_prompt_id_only": "true"})
        return await self.ask("/face-swap", body, **headers)

    async def kept(self) -> tuple[int, int, int]:
        """Jobs, files and credits; nothing is on its way."""
        with closing(sqlite3.connect(self.folder / "data" / "gateway.db")) as database:
            jobs = database.execute("SELECT count(*) FROM jobs").fetchone()[0]
        blobs = [path for path in (self.folder / "data" / "blobs").rglob("*") if path.is_file()]
        assert list((self.folder / "data" / "scratch").iterdir()) == []
        statement = await self.gateway.service.credits.statement("tester")
        return jobs, len(blobs), statement.account.balance.total


@asynccontextmanager
async def opened(folder: Path, **settings: Any):
    values = {
        "data_dir": folder / "data",
        "auth": "keys",
        "embedded_workers": 0,
        "resolve": f"{MEDIA_HOST}=127.0.0.1",
        "url_allowlist": "127.0.0.1/32",
        **settings,
    }
    async with open_gateway(from_mapping(values)) as gateway:
        told = await gateway.service.accounts.create_key(NewKey("tester", rate_limit=10_000, concurrency=10))
        await gateway.service.credits.grant("tester", "permanent", CREDITS)
        yield House(gateway, folder, told.text)


@pytest.fixture(scope="module")
async def house(tmp_path_factory):
    """With the classifier, and an authority for the server that has pictures."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not here (the extra safety)")
    folder = tmp_path_factory.mktemp("safety")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(MEDIA_HOST).configure_cert(tls)
    (folder / "media").mkdir()
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE)):
        (folder / "media" / f"{name}.png").write_bytes(png(colour))
    with serving(folder / "media", tls=tls, name=MEDIA_HOST) as media:
        model = tiny_onnx.write(folder)
        async with opened(folder, safety_model=model, ca_file=folder / "ca.pem") as house:
            house.media = media.url
            yield house


# ---------------------------------------------------------------------------------------------------- every dialect's way


async def faceswap(house: House, colour: str) -> Any:
    return await house.swap(png(BLUE), png(RED if colour == "red" else GREEN))


async def swiftswap(house: House, colour: str) -> Any:
    body, headers = form({"image": png(BLUE), "target_image": png(RED if colour == "red" else GREEN)})
    return await house.ask("/swap_image/", body, **headers)


async def backserv(house: House, colour: str) -> Any:
    pictures = {"source_image": png(BLUE), "target_image": png(RED if colour == "red" else GREEN)}
    uris = {name: "data:image/png;base64," + base64.b64encode(data).decode() for name, data in pictures.items()}
    task = {"task_type": "face_swap", "task_params": uris, "user_id": "user123"}
    return await house.ask("/submit_task", json.dumps(task).encode(), content_type="application/json")


async def swaps_v1(house: House, colour: str) -> Any:
    swap = {"type": "image", "source_url": f"{house.media}/blue.png", "target_url": f"{house.media}/{colour}.png"}
    return await house.ask("/api/v1/swaps", json.dumps(swap).encode(), content_type="application/json")


async def comfy_v2(house: House, colour: str) -> Any:
    """By the template's named inputs; the files are uploaded by themselves before, and stay what they are: uploads."""
    for name, data in (("face.png", png(BLUE)), ("target.png", png(RED if colour == "red" else GREEN))):
        body, headers = form({"content_type": "image/png", "file_path": name, "file": data})
        assert (await house.ask("/api/v2/assets", body, **headers)).status in {HTTPStatus.OK, HTTPStatus.CREATED}
    job = {"inputs": {"target": "target.png", "face": "face.png"}}
    path = "/api/v2/templates/faceswap_image/jobs"
    return await house.ask(path, json.dumps(job).encode(), content_type="application/json")


def words(answer: Any) -> str:
    """The code and whatever names the field."""
    return json.dumps(answer.json)


@pytest.mark.parametrize(
    ("speak", "field"),
    [
        (faceswap, "target_image"),
        (swiftswap, "target_image"),
        (backserv, "target_image"),
        (swaps_v1, "target_url"),
        (comfy_v2, "target"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_is_flagged_is_refused_in_every_dialect_and_leaves_nothing(house, speak, field) -> None:
    before = await house.kept()
    refused = await speak(house, "red")
    assert refused.status == HTTPStatus.UNPROCESSABLE_ENTITY, refused.body
    assert "nsfw_content_detected" in words(refused)
    assert field in words(refused)
    jobs, blobs, left = await house.kept()
    uploads = 2 if speak is comfy_v2 else 0
    assert (jobs, left) == (before[0], before[2])
    assert blobs <= before[1] + uploads
    taken = await speak(house, "green")
    assert taken.status < HTTPStatus.BAD_REQUEST, taken.body
    jobs, _, credits_left = await house.kept()
    assert (jobs, credits_left) == (before[0] + 1, before[2] - 1)


async def test_a_detection_is_refused_by_a_code_that_its_document_knows(house) -> None:
    before = await house.kept()
    body = json.dumps({"target_url": f"{house.media}/red.png"}).encode()
    refused = await house.ask("/api/v1/face-detect", body, content_type="application/json")
    assert (refused.status, refused.json["error"]["code"]) == (400, "validation_error")
    assert await house.kept() == before


async def test_the_socket_says_it_in_a_frame(house) -> None:
    before = await house.kept()
    async with Socket(house.gateway.app, "/face-swap-ws", authorization=f"Bearer {house.key}") as socket:
        await socket.say({"image_url": f"{house.media}/blue.png", "target_image_url": f"{house.media}/red.png"})
        while (frame := await socket.hear())["event"] != "error":
            pass
        assert frame["data"]["code"] == "nsfw_content_detected"
    assert await house.kept() == before


# -------------------------------------------------------------------------------------------------------- what is looked at


@pytest.mark.parametrize("hidden", [(255, 0, 0, 0), (255, 0, 0, 255)])
async def test_what_hides_behind_transparency_is_seen(house, hidden) -> None:
    assert (await house.swap(png(BLUE), png(hidden))).status == HTTPStatus.UNPROCESSABLE_ENTITY


async def test_a_second_in_the_middle_of_a_video_is_seen_and_its_field_named(house, tmp_path) -> None:
    before = await house.kept()
    refused = await house.swap(png(BLUE), clip(tmp_path, red=range(57, 67)), "video")
    assert (refused.status, refused.json["field"]) == (422, "video")
    assert await house.kept() == before
    assert (await house.swap(png(BLUE), clip(tmp_path, red=range(0)), "video")).status == HTTPStatus.OK


async def test_the_face_is_looked_at_too(house) -> None:
    refused = await house.swap(png(RED), png(GREEN))
    assert (refused.status, refused.json["field"]) == (422, "image")


async def test_health_says_what_is_done(house) -> None:
    answer = await ask(house.gateway.app, "GET", "/health", authorization=f"Bearer {house.gateway.admin_token}")
    assert answer.json["safety"]["policy"] == "reject"
    assert answer.json["safety"]["check"] == "model"


# ------------------------------------------------------------------------------------------------------------- a service


async def test_service_is_asked_by_its_protocol_and_what_it_cannot_say_is_refused(tmp_path) -> None:
    with safety_service.serving() as service:
        async with opened(tmp_path, safety_url=service.url, safety_token="secret", safety_timeout=5.0) as house:
            before = await house.kept()
            service.body = b'{"flagged": true, "score": 0.2}'
            assert (await house.swap(png(GREEN), png(BLUE))).status == HTTPStatus.UNPROCESSABLE_ENTITY
            service.status, service.body, service.headers = 202, b"", {"Retry-After": "11"}
            pending = await house.swap(png(GREEN), png(RED))
            service.status, service.headers = 500, {}
            broken = await house.swap(png(GREEN), png(RED))
            assert await house.kept() == before
            service.status, service.body = 200, b'{"flagged": false}'
            taken = await house.swap(png(GREEN), png(RED))
        assert [
            (answer.status, answer.json["code"], answer.headers["retry-after"]) for answer in (pending, broken)
        ] == [
            (503, "api_temporarily_disabled", "11"),
            (503, "api_temporarily_disabled", "30"),
        ]
        assert taken.status == HTTPStatus.OK
        sent = {headers["x-picture-reference"]: body for headers, body in service.came}
        assert len(sent) == 3
        with Image.open(io.BytesIO(next(iter(sent.values())))) as picture:
            assert (picture.format, picture.size) == ("PNG", SIZE)


async def test_flagged_inputs_run_where_the_policy_says_so_with_a_warning(tmp_path) -> None:
    with safety_service.serving() as service:
        service.body = b'{"flagged": true}'
        async with opened(tmp_path, safety_url=service.url, safety="flag") as house:
            taken = await house.swap(png(BLUE), png(GREEN))
            assert taken.status == HTTPStatus.OK
            path = f"/status/{taken.json['prompt_id']}"
            told = await ask(house.gateway.app, "GET", path, authorization=f"Bearer {house.key}")
            assert told.json["warnings"] == [
                "The safety check flagged the input 'target_image'.",
                "The safety check flagged the input 'image'.",
            ]

"""A thousand who watch: event streams of the Comfy API v2 on one process, all of them told to the end."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from tests.tools import clips
from tests.tools.gateway_process import GatewayProcess

pytestmark = [pytest.mark.system, pytest.mark.long]

STREAMS = 1000
FRAMES = 240
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One worker, and files enough for all who watch, here and there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * STREAMS if hard == resource.RLIM_INFINITY else min(4 * STREAMS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with GatewayProcess(tmp_path_factory.mktemp("streams")) as process:
        yield process
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def watch(gateway: GatewayProcess, job_id: str) -> list[dict[str, Any]]:
    """Every status that a stream tells, from connecting to its end; it must end as HTTP ends a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"GET /api/v2/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    told, tail, is_status = [], b"", False
    async for line in reader:
        if is_status and line.startswith(b"data: "):
            told.append(json.loads(line.removeprefix(b"data: ")))
        is_status = line.startswith(b"event: status")
        tail = line if line.strip() else tail
    writer.close()
    assert tail.strip() == b"0", "the last chunk is missing: the stream was cut off"
    return told


async def upload(client: httpx.AsyncClient, name: str, content: bytes, content_type: str) -> None:
    form = {"content_type": content_type, "file_path": name}
    answer = await client.post("/api/v2/assets", files={"file": (name, content, content_type)}, data=form)
    assert answer.status_code == HTTPStatus.CREATED, answer.text


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.clip(tmp_path_factory.mktemp("clip") / "long.mp4", FRAMES).read_bytes()


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.face(tmp_path_factory.mktemp("face") / "face.png", 1800).read_bytes()


async def test_a_thousand_streams_are_told_the_end(gateway: GatewayProcess, clip: bytes, face: bytes):
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_SECONDS) as client:
        await upload(client, "long.mp4", clip, "video/mp4")
        await upload(client, "face.png", face, "image/png")
        inputs = {"target": "long.mp4", "face": "face.png"}
        created = await client.post("/api/v2/templates/faceswap_video/jobs", json={"inputs": inputs})
        job_id = created.json()["id"]
        async with asyncio.timeout(PATIENCE_SECONDS):
            told = await asyncio.gather(*(watch(gateway, job_id) for _ in range(STREAMS)))
        assert {statuses[-1]["status"] for statuses in told} == {"succeeded"}
        assert (await client.get(f"/api/v2/jobs/{job_id}")).json()["status"] == "succeeded"
    assert '"level":"error"' not in gateway.log.read_text(encoding="utf-8")

"""The published API's own cURL lines, against a whole gateway: run as they stand, host and file names aside."""

from __future__ import annotations

import json
import re
from datetime import datetime

import av
import numpy as np
import pytest

from tests.tools import clips
from tests.tools.faceswap_client import status
from tests.tools.published_lines import run_line
from tests.tools.sse_parser import parse
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

#: As published.
SUBMIT = """curl -X POST "http://localhost:8000/face-swap" \\
  -F "video=@/workspace/ComfyUI/input/Thomas Shelby - Starboy.mp4" \\
  -F "image=@/workspace/ComfyUI/input/image (9).png" \\
  -F "output_name=my_faceswap" \\
  -F "return_prompt_id_only=true"
"""
STATUS = "curl http://localhost:8000/status/a1b2c3d4-e5f6-7890-1234-567890abcdef"
DOWNLOAD = 'curl -O "http://localhost:8000/download/my_faceswap.mp4"'
PROMPT_ID = "a1b2c3d4-e5f6-7890-1234-567890abcdef"

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
STATUS_FIELDS = {"prompt_id", "status", "progress", "created_at", "updated_at", "result", "error"}
ADDED_STATUS_FIELDS = {"code", "engine", "warnings"}


@pytest.fixture
def here(pool, material):
    """A line with this gateway's host and these files' names in it."""

    def rewrite(line: str, face: int = 9) -> str:
        return (
            line.replace("http://localhost:8000", f"http://localhost:{pool.port}")
            .replace("/workspace/ComfyUI/input/Thomas Shelby - Starboy.mp4", str(material.clip))
            .replace("/workspace/ComfyUI/input/image (9).png", str(material.face(face)))
        )

    return rewrite


async def test_submit_status_and_download_lines_work_as_published(here, tmp_path, material):
    accepted = json.loads(await run_line(here(SUBMIT), tmp_path))
    prompt_id = accepted["prompt_id"]
    assert re.fullmatch(UUID, prompt_id)
    assert accepted == {
        "prompt_id": prompt_id,
        "status": "QUEUED",
        "message": "Face swap workflow queued successfully. Use /status/{prompt_id} to check progress.",
        "status_url": f"/status/{prompt_id}",
        "output_prefix": "my_faceswap",
    }
    seen = []

    async def look() -> dict:
        seen.append(json.loads(await run_line(here(STATUS).replace(PROMPT_ID, prompt_id), tmp_path)))
        return seen[-1] if seen[-1]["status"] not in {"QUEUED", "PROCESSING"} else {}

    done = await wait_until(look, what="the swap")
    for told in seen:
        assert set(told) == STATUS_FIELDS | ADDED_STATUS_FIELDS
        assert set(told["progress"]) == {"percentage", "step"}
        assert TIME.fullmatch(told["created_at"])
        assert datetime.fromisoformat(told["created_at"]) <= datetime.fromisoformat(told["updated_at"])
        if told["status"] != "SUCCESS":
            assert told["result"] is None
            assert told["progress"]["percentage"] < 100
    percentages = [told["progress"]["percentage"] for told in seen]
    assert percentages == sorted(percentages)
    assert done["status"] == "SUCCESS"
    assert done["error"] is None
    assert done["progress"] == {"percentage": 100, "step": "Face swap completed successfully"}
    name = re.fullmatch(r"/download/(my_faceswap_[0-9a-f]{32}\.mp4)", done["result"])[1]

    await run_line(here(DOWNLOAD).replace("my_faceswap.mp4", name), tmp_path)
    before, after = clips.frames_of(material.clip), clips.frames_of(tmp_path / name)
    assert before.shape == after.shape
    moved = np.abs(after.astype(int) - before.astype(int)).max(axis=(1, 2, 3))
    assert moved.min() > 40, "every frame has another face"
    with av.open(str(tmp_path / name)) as result:
        assert result.streams.video[0].codec_context.name == "h264"
        assert result.streams.video[0].average_rate == clips.FPS
        assert len(result.streams.audio) == 1


async def test_without_the_last_field_the_same_line_streams_the_swap(here, tmp_path, pool):
    line = here(SUBMIT, face=10).replace(' \\\n  -F "return_prompt_id_only=true"', "")
    assert "return_prompt_id_only" not in line
    stream = parse(await run_line(line, tmp_path))
    assert stream.names[0] == "queued"
    assert stream.names[-1] == "completed"
    assert set(stream.names) == {"queued", "executing", "progress", "completed"}

    queued = stream.messages[0].json
    prompt_id = queued["prompt_id"]
    assert queued == {
        "prompt_id": prompt_id,
        "message": "Face swap workflow queued successfully!",
        "status_url": f"/status/{prompt_id}",
        "events_url": f"/events/{prompt_id}",
    }
    assert_progress_is_honest(stream.messages, total=12)
    nodes = [message.json for message in stream.messages if message.event == "executing"]
    assert all(set(node) == {"node", "title", "class_type", "message"} for node in nodes)
    assert "ReActorFaceSwap" in {node["class_type"] for node in nodes}

    completed = stream.messages[-1].json
    name = completed["filename"]
    assert re.fullmatch(r"my_faceswap_[0-9a-f]{32}\.mp4", name)
    warnings = completed.pop("warnings")
    assert all(isinstance(warning, str) for warning in warnings)
    assert completed == {
        "message": "🎉 Face swap completed successfully!",
        "filename": name,
        "download_url": f"/download/{name}",
        "prompt_id": prompt_id,
        "output_prefix": "my_faceswap",
        "engine": "preview",
    }
    async with pool.client() as client:
        assert (await client.get(completed["download_url"])).status_code == 200
        assert (await status(client, prompt_id))["engine"] == "preview"
        assert (await client.get("/health")).json()["engine"] == "preview"


def assert_progress_is_honest(messages, *, total: int) -> None:
    """One bar for the whole job: never back, 100 with the result and not before."""
    bars = [message.json for message in messages if message.event == "progress"]
    percentages = [bar["percentage"] for bar in bars]
    assert percentages == sorted(percentages)
    assert len(set(percentages)) > 3, "it moves"
    assert percentages.count(100) == 1
    assert [message.event for message in messages[-2:]] == ["progress", "completed"]
    for bar in bars:
        assert set(bar) - {"eta_seconds"} == {"percentage", "current", "total", "message"}
        assert bar["total"] == total
        assert 0 <= bar["current"] <= total
        assert (bar["current"] == total) == (bar["percentage"] == 100)
        assert bar["message"] == f"Face swap progress: {bar['percentage']:.2f}%"
        assert bar["percentage"] == round(bar["percentage"], 2)


async def test_unknown_prompt_id_of_the_published_line_is_not_found(here, tmp_path):
    answer = json.loads(await run_line(here(STATUS), tmp_path))
    assert answer.pop("detail")
    assert answer == {"code": "not_found", "field": "prompt_id"}

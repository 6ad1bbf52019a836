"""The official clients of the Comfy API v2, as they are, against a whole gateway: upload, run, stream, download, cancel.

``comfy-sdk`` from PyPI in both its forms, and ``@comfyorg/sdk`` from npm on Node. Nothing of them is replaced: they find
the gateway by ``COMFY_BASE_URL`` as they would find any other server of that API.
"""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import comfy_sdk
import httpx
import numpy as np
import pytest
from comfy_sdk import Comfy, OutputReady, StatusChange
from PIL import Image

from tests.contract import published
from tests.tools.asgi import Answer
from tests.tools.gateway_process import GatewayProcess

pytestmark = pytest.mark.system

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOOLS = Path(os.environ.get("COMFYGATE_NODE_TOOLS", ROOT / ".node-tools"))
PATIENCE_SECONDS = 120
INVERT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": ""}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "inverted", "images": ["2", 0]}},
}


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pixels_of(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def inverting(image: Any) -> dict[str, Any]:
    graph = copy.deepcopy(INVERT)
    graph["1"]["inputs"]["image"] = image
    return graph


def swapping(video: Any, face: Any) -> dict[str, Any]:
    """The shipped graph of a face swap, as a user would set it to run without models: seconds of work."""
    graph = json.loads((ROOT / "workflows" / "faceswap_video" / "graph.json").read_text(encoding="utf-8"))
    nodes = {node["class_type"]: node["inputs"] for node in graph.values()}
    nodes["VHS_LoadVideo"]["video"], nodes["LoadImage"]["image"] = video, face
    nodes["ReActorFaceSwap"] |= {"swap_model": "cpu-preview", "face_restore_model": "none"}
    nodes["ReActorFaceBoost"] |= {"boost_model": "none", "enabled": False}
    return graph


@pytest.fixture(autouse=True)
def answers_of_the_contract(monkeypatch: pytest.MonkeyPatch):
    """Whatever the clients in Python are answered is held against the published contract, where that is at hand."""
    if not published.PATH.is_file():
        yield
        return
    seen: list[httpx.Response] = []
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def watched(*args: Any, **options: Any) -> httpx.Response:
        seen.append(send(*args, **options))
        return seen[-1]

    async def watched_async(*args: Any, **options: Any) -> httpx.Response:
        seen.append(await send_async(*args, **options))
        return seen[-1]

    monkeypatch.setattr(httpx.Client, "send", watched)
    monkeypatch.setattr(httpx.AsyncClient, "send", watched_async)
    yield
    for response in seen:
        path = response.request.url.raw_path.decode()
        if "/api/v2/" in path and published.has(response.request.method, path) and hasattr(response, "_content"):
            published.hold(
                response.request.method, path, Answer(response.status_code, dict(response.headers), response.content)
            )


@pytest.fixture
def client(pool: GatewayProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMFY_BASE_URL", pool.url)
    with Comfy() as client:
        yield client


def test_upload_run_stream_and_download(client: Comfy, tmp_path: Path):
    data = png(1)
    asset = client.assets.from_bytes(data, filename="noise-1.png")
    workflow = client.workflows.from_json(inverting(asset))

    job = client.submit(workflow, metadata={"client": "acme"})
    events = list(job.events())
    job.result()

    statuses = [event.status for event in events if isinstance(event, StatusChange)]
    assert statuses[0] in {"queued", "running"}
    assert statuses[-1] == job.status == "succeeded"
    [told] = [event.output for event in events if isinstance(event, OutputReady)]
    [output] = job.get_outputs("3")
    assert (told.id, output.type, output.content_type) == (output.id, "image", "image/png")
    assert output.name.startswith("inverted_")
    assert output.to_file(tmp_path / "out.png")
    inverted = (tmp_path / "out.png").read_bytes()
    assert len(inverted) == output.size_bytes
    assert (pixels_of(inverted) == 255 - pixels_of(data)).all()
    assert output.to_bytes(range=(0, 7)) == inverted[:8]

    reference = {"__type": "core/ASSET", "info": asset.as_reference()["info"]}
    assert client.jobs.get(job.id).get_workflow().graph == inverting(reference)
    assert job.metadata == {"client": "acme"}
    [listed] = client.list_jobs(metadata={"client": "acme"})
    assert (listed.id, listed.status, listed.create_time is not None) == (job.id, "succeeded", True)


def test_refusals_are_the_exceptions_that_the_client_knows(client: Comfy):
    sent = client.assets.from_bytes(png(2), filename="once.png")
    wrong = inverting(sent) | {"9": {"class_type": "NoSuchNode", "inputs": {}}}
    with pytest.raises(comfy_sdk.InvalidWorkflow) as invalid:
        client.submit(client.workflows.from_json(wrong))
    assert "9" in invalid.value.details["node_errors"]
    with pytest.raises(comfy_sdk.MissingAsset):
        client.submit(client.workflows.from_json(inverting("nobody-sent-this.png")))
    with pytest.raises(comfy_sdk.NotFound):
        client.jobs.get("00000000-0000-0000-0000-000000000000")

    workflow = client.workflows.from_json(inverting(sent))
    first = client.submit(workflow, idempotency_key="only once, please")
    with pytest.raises(comfy_sdk.IdempotencyKeyReuse):
        client.submit(workflow, idempotency_key="only once, please")
    assert first.wait(PATIENCE_SECONDS).status == "succeeded"


def test_a_running_job_is_canceled(client: Comfy, material):
    graph = swapping(client.assets.from_file(material.long), client.assets.from_file(material.face(1700)))
    job = client.submit(client.workflows.from_json(graph))
    told = []
    for event in job.events():
        told.append(event)
        if isinstance(event, StatusChange) and event.status == "running":
            assert job.cancel().status in {"canceling", "canceled"}
    assert told[-1] == StatusChange("canceled")
    assert job.refresh().cancel().status == "canceled"
    with pytest.raises(comfy_sdk.JobFailed):
        job.result()


async def test_the_same_with_the_asynchronous_client(pool: GatewayProcess, monkeypatch, material, tmp_path: Path):
    monkeypatch.setenv("COMFY_BASE_URL", pool.url)
    async with comfy_sdk.AsyncComfy() as client:
        data = png(3)
        asset = client.assets.from_bytes(data, filename="noise.png")
        job = await client.submit(client.workflows.from_json(inverting(asset)))
        statuses = [event.status async for event in job.events() if isinstance(event, StatusChange)]
        await job.result()
        [output] = job.outputs
        await output.to_file(tmp_path / "out.png")
        assert statuses[-1] == "succeeded"
        assert (pixels_of((tmp_path / "out.png").read_bytes()) == 255 - pixels_of(data)).all()

        graph = swapping(client.assets.from_file(material.long), client.assets.from_file(material.face(1701)))
        job = await client.submit(client.workflows.from_json(graph))
        await job.cancel()
        assert (await job.wait(PATIENCE_SECONDS)).status == "canceled"


def test_the_same_with_the_client_for_node(pool: GatewayProcess, material, tmp_path: Path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed (.ci/run installs it)")
    if not (TOOLS / "node_modules" / "@comfyorg" / "sdk").is_dir():
        pytest.skip("@comfyorg/sdk is not installed (.ci/run installs it)")
    image = tmp_path / "noise.png"
    image.write_bytes(png(4))
    given = {
        "tools": str(TOOLS),
        "image": str(image),
        "out": str(tmp_path / "out.png"),
        "invert": INVERT,
        "video": str(material.long),
        "face": str(material.face(1702)),
        "swap": swapping("", ""),
    }
    run = subprocess.run(
        [node, HERE / "comfy_sdk.mjs"],
        input=json.dumps(given),
        env={**os.environ, "COMFY_BASE_URL": pool.url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["statuses"][-1] == told["status"] == "succeeded"
    assert told["outputs"] == [["3", "image", "image/png"]] == told["told"]
    inverted = Path(given["out"]).read_bytes()
    assert (pixels_of(inverted) == 255 - pixels_of(image.read_bytes())).all()
    assert told["part"] == list(inverted[:8])
    assert told["format"] == "api"
    assert told["refused"] == ["InvalidWorkflow", "MissingAsset", "IdempotencyKeyReuse"]
    assert told["canceled"] == ["canceled", "canceled"]

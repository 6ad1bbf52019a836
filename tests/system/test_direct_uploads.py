"""A video that the upstream puts to the job's target itself, in a whole gateway before a server that checks signatures."""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus

import pytest

from tests.tools import faceswap_client
from tests.tools.files import files_below
from tests.tools.gateway_process import GatewayProcess
from tests.tools.object_servers import BUCKET, SECRET_KEY, know_us, rclone

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path, monkeypatch):
    know_us(monkeypatch)
    with rclone(tmp_path / "rclone") as made:
        yield made


def settings_for(server):
    return {"DELIVERY_TARGETS": f"archive={server.url('results')}", "DELIVERY_DIRECT": "archive", "LOG_LEVEL": "debug"}


async def swapped(gateway, material):
    """A video swap that goes to the target; its end, and what the gateway serves."""
    async with gateway.client() as client:
        fields = {"deliver_to": "archive", "output_name": "holiday"}
        job_id = await faceswap_client.submit(client, fields, video=material.clip, image=material.face())
        status = await faceswap_client.ended(client, job_id)
        assert status["status"] == "SUCCESS", status
        answer = await client.get(status["result"])
        part = await client.get(status["result"], headers={"Range": "bytes=4-7"})
        assert answer.status_code == HTTPStatus.OK
        assert (part.status_code, part.content) == (HTTPStatus.PARTIAL_CONTENT, b"ftyp")
        return job_id, status, answer.content


async def test_it_lies_at_its_target_and_is_served_from_there(tmp_path, material, server, monkeypatch):
    monkeypatch.setenv("COMFYGATE_UPLOAD_HOSTS", server.endpoint.removeprefix("http://"))
    monkeypatch.setenv("COMFYGATE_UPLOAD_LOOPBACK_HTTP", "1")
    with GatewayProcess(tmp_path / "gateway", settings_for(server)) as gateway:
        job_id, status, content = await swapped(gateway, material)
        [place] = files_below(tmp_path / "rclone" / "buckets")  # and nothing among the arrivals
        assert place.read_bytes() == content
        key = place.relative_to(tmp_path / "rclone" / "buckets" / BUCKET).as_posix()
        assert re.fullmatch(rf"results/{job_id}/[0-9a-f-]{{36}}/holiday\.mp4", key)
        (delivery,) = status["deliveries"]
        assert (delivery["state"], delivery["place"]) == ("delivered", f"s3://{BUCKET}/{key}")
        ours = [hashlib.sha256(path.read_bytes()).digest() for path in files_below(gateway.data_dir / "blobs")]
        assert len(ours) == 2, "the clip and the photo"
        assert hashlib.sha256(content).digest() not in ours
        log = gateway.log.read_text()
        assert SECRET_KEY not in log
        assert "X-Amz-Signature" not in log


async def test_an_upstream_that_may_not_send_it_there_has_it_fetched(tmp_path, material, server, monkeypatch):
    monkeypatch.setenv("COMFYGATE_UPLOAD_LOOPBACK_HTTP", "1")
    with GatewayProcess(tmp_path / "gateway", settings_for(server)) as gateway:
        job_id, _, content = await swapped(gateway, material)
        assert "its host is not in COMFYGATE_UPLOAD_HOSTS" in gateway.log.read_text()
        ours = [path.read_bytes() for path in files_below(gateway.data_dir / "blobs")]
        assert content in ours
        async with gateway.client() as client:
            assert (await client.get(f"/-/jobs/{job_id}")).status_code == HTTPStatus.OK

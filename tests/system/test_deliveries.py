"""Results of a whole gateway put to places on loopback that fail or are away at first, and a gateway that is killed."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.tools import faceswap_client
from tests.tools.gateway_process import GatewayProcess, free_port
from tests.tools.object_servers import BUCKET, SECRET_KEY, ObjectServer, know_us, program, rclone
from tests.tools.put_receiver import HOST, PutReceiver
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

#: The schedule, in moments: the one that holds takes three days.
QUICK = "from gateway import delivering; delivering.SCHEDULE_SECONDS = (0.0, *[0.05] * 9)"
QUERY = "?X-Amz-Signature=of-mine"


@pytest.mark.long
async def test_a_place_that_failed_three_times_and_a_gateway_that_was_killed_leave_one_file_with_the_right_hash(
    tmp_path, material
):
    with (
        PutReceiver(script=[503, 500, 429, None]) as place,
        GatewayProcess(tmp_path / "gateway", place.settings, first=QUICK) as gateway,
    ):
        async with gateway.client() as client:
            fields = {"deliver_to": place.url(f"/one.png{QUERY}")}
            job_id = await faceswap_client.submit(client, fields, target_image=material.still, image=material.face())
            await wait_until(lambda: len(place.got) == 4, what="four attempts")
            status = await faceswap_client.status(client, job_id)
            assert (status["status"], status["deliveries"][0]["state"]) == ("SUCCESS", "pending")
        # It has the file, and nobody here knows.
        await asyncio.to_thread(gateway.kill)
        place.released.set()
        await asyncio.to_thread(gateway.start, wait_for_workers=False)
        await wait_until(lambda: gateway.rows("SELECT 1 FROM deliveries WHERE state = 'delivered'"))
        async with gateway.client() as client:
            status = await faceswap_client.status(client, job_id)
            content = (await client.get(status["result"])).content
            told = (await client.get(f"/events/{job_id}")).text
        assert len(place.got) == 5
        assert place.there == {f"/one.png{QUERY}": content}
        assert len({hashlib.sha256(body).digest() for _, body in place.got}) == 1
        assert status["deliveries"][0]["place"] == f"https://{HOST}:{place.port}/one.png"
        assert told.count("event: uploaded") == 1
        # Once it is written down, nobody puts it again.
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start, wait_for_workers=False)
        async with gateway.client() as client:
            other = {"deliver_to": place.url("/two.png")}
            await faceswap_client.submit(client, other, target_image=material.still, image=material.face())
            await wait_until(lambda: "/two.png" in place.there)
        assert len(place.got) == 6
        log = gateway.log.read_text()
        assert "of-mine" not in log
        assert "one.png" not in log
        assert not [path for path in gateway.data_dir.glob("gateway.db*") if b"of-mine" in path.read_bytes()]


@pytest.mark.long
async def test_a_bucket_that_was_away_when_the_gateway_was_killed_has_the_file_once(tmp_path, material, monkeypatch):
    know_us(monkeypatch)
    port, buckets = free_port(), tmp_path / "rclone"
    program("rclone")
    url = ObjectServer("rclone", f"http://127.0.0.1:{port}").url("results")
    with GatewayProcess(tmp_path / "gateway", {"DELIVERY_TARGETS": f"archive={url}"}, first=QUICK) as gateway:
        async with gateway.client() as client:
            fields = {"deliver_to": "archive", "output_name": "holiday"}
            job_id = await faceswap_client.submit(client, fields, target_image=material.still, image=material.face())
            await faceswap_client.ended(client, job_id)
        await asyncio.to_thread(gateway.kill)
        with rclone(buckets, port):
            await asyncio.to_thread(gateway.start, wait_for_workers=False)
            await wait_until(lambda: gateway.rows("SELECT 1 FROM deliveries WHERE state = 'delivered'"))
            async with gateway.client() as client:
                status = await faceswap_client.status(client, job_id)
                content = (await client.get(status["result"])).content
        there = {path: path.read_bytes() for path in (buckets / "buckets").rglob("*") if path.is_file()}
        assert there == {buckets / "buckets" / BUCKET / "results" / job_id / "holiday.png": content}
        assert status["deliveries"][0]["place"] == f"s3://{BUCKET}/results/{job_id}/holiday.png"
        assert SECRET_KEY not in gateway.log.read_text()

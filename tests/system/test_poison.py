"""A job that kills what runs it, on processes that really die: two of three upstreams, and the third is spared."""

from __future__ import annotations

import json
from contextlib import ExitStack
from http import HTTPStatus

import pytest

from tests.tools.faceswap_client import ended, job, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.open_worker import open_worker
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

#: A verdict after 1 s instead of 10, a death after 1 s without an answer instead of 60.
IMPATIENT = """
from gateway import poison
from gateway.comfy import protocol
from gateway.store.queries import trails
from gateway.upstreams import remote
poison.OUTAGE_SECONDS = trails.OUTAGE_SECONDS = 1.0
protocol.DEAD_SECONDS = remote.DEAD_SECONDS = 1.0
remote.WATCH_SECONDS = 0.5
"""


@pytest.mark.long
async def test_two_upstreams_that_died_of_a_job_spare_the_third_also_after_a_kill(tmp_path, material):
    with ExitStack() as stack:
        workers = [stack.enter_context(open_worker(tmp_path / name, "--faults", "crash")) for name in ("a", "b", "c")]
        settings = {"UPSTREAMS": ",".join(worker.url for worker in workers)}
        gateway = GatewayProcess(tmp_path / "gateway", settings, workers=0, first=IMPATIENT)
        stack.callback(gateway.end)
        gateway.start(wait_for_workers=False)
        async with gateway.client() as client:

            async def are_there():
                found = (await client.get("/-/upstreams")).json()["upstreams"]
                return all(member["reachable"] for member in found)

            await wait_until(are_there, what="the upstreams")
            job_id = await submit(client, video=material.clip, image=material.face(950))
            died = "SELECT count(*) FROM attempts WHERE cause = 'died' AND started_at IS NOT NULL"
            await wait_until(lambda: gateway.rows(died) == [(1,)], what="the first death")
        gateway.kill()
        gateway.start(wait_for_workers=False)
        async with gateway.client() as client:
            assert (await ended(client, job_id))["status"] == "FAILED"
            found = await job(client, job_id)
            assert found["error"]["code"] == "poisoned"
            assert (await client.get(f"/status/{job_id}")).status_code == HTTPStatus.OK
        handed_in = sorted(len(worker.started()) for worker in workers)
        assert handed_in == [0, 1, 1]
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
        (told,) = [line for line in lines if line["event"] == "task_poisoned"]
        assert len({death["upstream"] for death in told["deaths"]}) == 2
        assert gateway.rows("SELECT cause FROM attempts ORDER BY number") == [("died",), ("died",)]

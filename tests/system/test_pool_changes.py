"""What an operator adds, drains and removes while a gateway runs holds after its death."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from tests.tools.gateway_process import GatewayProcess
from tests.tools.open_worker import open_worker
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system


@pytest.fixture
def gateway(tmp_path):
    with GatewayProcess(tmp_path / "gateway", workers=1) as process:
        yield process


async def pool(client) -> dict[str, bool]:
    """Name -> whether it is drained."""
    found = (await client.get("/-/upstreams")).json()["upstreams"]
    return {upstream["name"]: upstream["draining"] for upstream in found}


@pytest.mark.long
async def test_added_drained_and_removed_upstreams_are_so_after_a_kill(gateway, tmp_path):
    with open_worker(tmp_path / "upstream") as other:
        async with gateway.client(headers=gateway.bearer) as client:
            added = await client.post("/-/upstreams", json={"url": other.url, "name": "other"})
            assert added.status_code == HTTPStatus.CREATED
            assert (await client.post("/-/upstreams/other/drain")).status_code == HTTPStatus.OK
            assert (await client.delete("/-/upstreams/embedded-1")).status_code == HTTPStatus.NO_CONTENT
            await wait_until(lambda: not gateway.worker_pids(), what="the end of the worker")
        gateway.kill()
        gateway.start(wait_for_workers=False)
        async with gateway.client(headers=gateway.bearer) as client:
            assert await pool(client) == {"other": True}
            assert not gateway.worker_pids()
            back = await client.post("/-/upstreams", json={"url": "embedded-1"})
            assert (back.status_code, back.json()["name"]) == (HTTPStatus.CREATED, "embedded-1")
            await wait_until(gateway.worker_pids, what="the worker")
        gateway.kill()
        gateway.start(wait_for_workers=False)
        async with gateway.client(headers=gateway.bearer) as client:
            assert await pool(client) == {"embedded-1": False, "other": True}

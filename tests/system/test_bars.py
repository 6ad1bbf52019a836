"""One bar for a whole job on real processes: what a viewer was shown stays shown, whatever becomes of the job."""

from __future__ import annotations

import pytest

from tests.tools.faceswap_client import at_work, ended, job, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.sse_client import EventSource, bars_of, falls
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with GatewayProcess(tmp_path_factory.mktemp("bars")) as process:
        yield process


async def test_bar_does_not_fall_when_the_gateway_is_killed(gateway, material):
    """What a viewer was shown stays shown: the bar waits at its highest value until the next attempt passes it."""
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.long, image=material.face(390))
        async with EventSource(f"{gateway.url}/events/{prompt_id}") as source:
            await wait_until(lambda: max(bars_of(source, "percentage"), default=0) > 20, what="a fifth of the bar")
            gateway.kill()
            gateway.start(wait_for_workers=False)
            await source.end()
        assert falls(bars_of(source, "percentage")) == []


async def test_bar_of_a_canceled_job_stays_where_it_was(gateway, material):
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.long, image=material.face(110))
        shown = (await at_work(client, prompt_id))["fraction"]
        await client.delete(f"/-/jobs/{prompt_id}")
        await ended(client, prompt_id)
        assert shown <= (await job(client, prompt_id))["fraction"] < 1

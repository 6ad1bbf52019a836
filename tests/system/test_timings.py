"""What a real worker's run has taught is told to the next job from its start, also by the next process."""

from __future__ import annotations

import pytest

from tests.tools.faceswap_client import ended, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.sse_client import EventSource

pytestmark = pytest.mark.system


@pytest.mark.long
async def test_seconds_left_are_told_from_the_start_once_a_run_was_seen_also_after_a_stop(tmp_path, material):
    with GatewayProcess(tmp_path) as gateway:
        async with gateway.client() as client:
            await ended(client, await submit(client, video=material.long, image=material.face(701)))
            gateway.stop()
            gateway.start()
            prompt_id = await submit(client, video=material.long, image=material.face(702))
            async with EventSource(f"{gateway.url}/events/{prompt_id}") as source:
                await source.end()
            told = [message.json for message in source.messages if "eta_seconds" in message.json]
            # By its own pace nothing would be told before two seconds, when at least a fifth of it is over.
            assert told[0]["percentage"] < 20.0
            assert told[0]["eta_seconds"] > 1.0
            assert told[-1]["eta_seconds"] < told[0]["eta_seconds"] / 2

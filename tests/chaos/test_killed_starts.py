"""kill -9 of a gateway while what it runs is only being started: nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal

import pytest

from tests.tools.fake_checkout import fake_checkout, settings_for
from tests.tools.gateway_process import GatewayProcess, command_lines
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

ROUNDS = 8
#: After its first process; all others are there in less where there is nothing else to do.
MORE_LIFE_SECONDS = 2.0


def left_of(gateway: GatewayProcess, pid: int) -> dict[int, str]:
    """Process id -> command line of workers, launchers, instances and of what decodes."""
    lines = {one: " ".join(words) for one, words in command_lines()}
    ours = (str(gateway.data_dir), f"gateway.media.child {pid}")
    return {one: line for one, line in lines.items() if any(mark in line for mark in ours)}


@pytest.mark.long
async def test_a_kill_at_any_moment_of_a_start_leaves_no_process(tmp_path):
    """The seed is printed when it fails."""
    seed = int(os.environ.get("COMFYGATE_SEED", secrets.randbits(32)))
    print("COMFYGATE_SEED =", seed)  # noqa: T201 - shown on failure
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    settings = settings_for(fake_checkout(tmp_path / "ComfyUI"), "0,cpu")
    gateway = GatewayProcess(tmp_path / "gateway", settings)
    try:
        for _ in range(ROUNDS):
            gateway.start(wait_until_it_listens=False)
            assert gateway.process is not None
            pid = gateway.process.pid
            await wait_until(gateway.children, what="a first process of it")
            await asyncio.sleep(chance.uniform(0.0, MORE_LIFE_SECONDS))
            gateway.kill()
            try:
                await wait_until(lambda pid=pid: not left_of(gateway, pid), what="the end of all that it started")
            finally:
                for one in left_of(gateway, pid):
                    os.kill(one, signal.SIGKILL)
    finally:
        gateway.end()

"""A checkout that the gateway runs itself, on processes: side by side, killed, restarted, gone with the gateway.

The checkout is one whose main.py runs the embedded worker; what stands between it and the gateway is the real launcher.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.faceswap_client import at_work, ended, submit
from tests.tools.fake_checkout import fake_checkout, settings_for
from tests.tools.gateway_process import GatewayProcess, command_lines, is_alive, wait_until_gone
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

FIRST, SECOND = "comfyui-0", "comfyui-cpu"


@pytest.fixture
def gateway(tmp_path):
    settings = settings_for(fake_checkout(tmp_path / "ComfyUI"), "0,cpu")
    process = GatewayProcess(tmp_path / "gateway", settings=settings, workers=0)
    try:
        yield process.start(wait_for_workers=False)
    finally:
        process.end()


def instances(gateway: GatewayProcess) -> dict[str, int]:
    """Name of each instance -> the process id of its main.py."""
    folder = gateway.data_dir / "comfyui"
    found = {}
    for pid, words in command_lines():
        if len(words) > 1 and words[1].endswith("/main.py") and "--user-directory" in words:
            user = Path(words[words.index("--user-directory") + 1])
            if user.is_relative_to(folder):
                found[user.parent.name] = pid
    return found


async def whole(gateway: GatewayProcess, client) -> dict[str, dict]:
    """The pool by name, once both are there."""

    async def look():
        found = {one["name"]: one for one in (await client.get("/-/upstreams")).json()["upstreams"]}
        return found if len(found) == 2 and all(one["available"] for one in found.values()) else None

    return await wait_until(look, what="both instances")


def said(gateway: GatewayProcess, name: str) -> str:
    return (gateway.data_dir / "comfyui" / name / "log" / "comfyui.log").read_text()


async def test_one_for_each_device_and_a_killed_one_comes_back_and_loses_no_job(gateway, material):
    async with gateway.client() as client:
        pool = await whole(gateway, client)
        assert {one["engine"] for one in pool.values()} == {"comfyui"}
        assert len({one["address"] for one in pool.values()}) == 2
        assert "CUDA_VISIBLE_DEVICES=0\n" in said(gateway, FIRST)
        assert "--cpu" not in said(gateway, FIRST)
        assert "CUDA_VISIBLE_DEVICES=\n" in said(gateway, SECOND)
        assert "--cpu" in said(gateway, SECOND)
        before = instances(gateway)
        prompts = [await submit(client, {}, video=material.long, image=material.face(one)) for one in range(2)]
        names = {(await at_work(client, prompt))["upstream"] for prompt in prompts}
        assert names == {FIRST, SECOND}
        os.kill(before[FIRST], signal.SIGKILL)
        assert [(await ended(client, prompt))["status"] for prompt in prompts] == ["SUCCESS"] * 2
        await whole(gateway, client)
        after = instances(gateway)
        assert after[SECOND] == before[SECOND]
        assert after[FIRST] != before[FIRST]
        inputs = [gateway.data_dir / "comfyui" / name / "input" / "gateway" for name in (FIRST, SECOND)]
        assert all(any(folder.iterdir()) for folder in inputs)


@pytest.mark.long
async def test_a_restart_waits_for_the_job_and_gives_it_no_second_attempt(gateway, material):
    async with gateway.client() as client:
        await whole(gateway, client)
        before = instances(gateway)
        prompt = await submit(client, {}, video=material.long, image=material.face(7))
        name = (await at_work(client, prompt))["upstream"]
        command = [sys.executable, "-m", "gateway", "upstreams", "restart", name, "--url", gateway.url]
        token = {"GATEWAY_ADMIN_TOKEN": gateway.bearer["Authorization"].removeprefix("Bearer ")}
        told = await asyncio.to_thread(
            subprocess.run, command, env=os.environ | token, capture_output=True, text=True, timeout=60, check=False
        )
        assert told.returncode == 0, told.stderr
        assert told.stdout.splitlines()[-1] == f"{name} runs again"
        assert (await ended(client, prompt))["status"] == "SUCCESS"
        assert gateway.rows("SELECT upstream, outcome FROM attempts") == [(name, "succeeded")]
        await whole(gateway, client)
        assert {one for one, pid in instances(gateway).items() if pid != before[one]} == {name}


@pytest.mark.long
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_nothing_of_it_is_left_when_the_gateway_ends_and_its_job_runs_anew(gateway, material, how):
    async with gateway.client() as client:
        await whole(gateway, client)
        prompt = await submit(client, {}, video=material.long, image=material.face(8))
        await at_work(client, prompt)
    children = gateway.children()
    assert set(instances(gateway).values()) <= set(children)
    getattr(gateway, how)()
    await wait_until_gone(children)
    gateway.start(wait_for_workers=False)
    async with gateway.client() as client:
        assert (await ended(client, prompt))["status"] == "SUCCESS"
    outcomes = gateway.rows("SELECT outcome, cause FROM attempts ORDER BY number")
    assert outcomes[-1][0] == "succeeded"
    assert "died" not in {cause for _, cause in outcomes}


@pytest.mark.long
async def test_an_instance_whose_launcher_is_killed_ends_with_it(gateway):
    async with gateway.client() as client:
        await whole(gateway, client)
        [launcher] = [
            pid
            for pid, words in command_lines()
            if "gateway.upstreams.launcher" in words and words[-1] == str(gateway.data_dir / "comfyui" / FIRST)
        ]
        before = instances(gateway)
        os.kill(launcher, signal.SIGKILL)
        await wait_until_gone([before[FIRST]])
        await wait_until(lambda: instances(gateway).get(FIRST), what="another one")
        assert is_alive(before[SECOND])

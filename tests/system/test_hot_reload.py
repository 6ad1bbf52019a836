"""Templates edited under a gateway at work: running jobs keep their version, new ones get the last good one."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.tools.faceswap_client import at_work, ended, parts, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "faceswap_video"
LIVE_WITHIN_SECONDS = 2.0


@pytest.fixture(scope="module")
def workflows(tmp_path_factory) -> Path:
    return shutil.copytree(ROOT / "workflows", tmp_path_factory.mktemp("templates") / "workflows")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, workflows):
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), settings={"WORKFLOWS_DIR": str(workflows)}) as process:
        yield process


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def versions(gateway: GatewayProcess, *job_ids: str) -> list[str]:
    rows = dict(gateway.rows("SELECT id, template_version FROM jobs"))
    return [rows[job_id] for job_id in job_ids]


def logged(gateway: GatewayProcess, event: str) -> list[dict]:
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event and line.get("template") == TEMPLATE]


async def problem(client) -> str | None:
    body = (await client.get("/health")).json()
    return next((row["problem"] for row in body["templates"] if row["name"] == TEMPLATE), None)


async def test_template_edited_into_nonsense_while_jobs_run(gateway, workflows, material):
    graph, manifest = (workflows / TEMPLATE / name for name in ("graph.json", "template.toml"))
    async with gateway.client() as client:
        running = await submit(client, video=material.long, image=material.face(800))
        waiting = await submit(client, video=material.clip, image=material.face(805))
        await at_work(client, running)
        edited = time.monotonic()
        rewrite(graph, '"swap_model"', '"swap_modle"')
        reason = await wait_until(lambda: problem(client), what="the bad edit in /health")
        assert time.monotonic() - edited < LIVE_WITHIN_SECONDS
        assert "node 'Swap face', input 'swap_model'" in reason
        assert "last good version" in reason
        [line] = logged(gateway, "template_refused")
        assert "node 'Swap face', input 'swap_model'" in line["reason"]

        later = await submit(client, video=material.clip, image=material.face(801))
        for job_id in (running, waiting, later):
            assert (await ended(client, job_id))["status"] == "SUCCESS"
        first = logged(gateway, "template_loaded")[0]["version"]
        assert versions(gateway, running, waiting, later) == [first] * 3

        mended = time.monotonic()
        rewrite(manifest, "price = 1\n", "price = 2\n")
        rewrite(graph, '"swap_modle"', '"swap_model"')

        async def is_live() -> bool:
            return await problem(client) is None

        await wait_until(is_live, what="the mended template")
        assert time.monotonic() - mended < LIVE_WITHIN_SECONDS
        newest = await submit(client, video=material.clip, image=material.face(802))
        assert (await ended(client, newest))["status"] == "SUCCESS"
        assert versions(gateway, newest) == [logged(gateway, "template_loaded")[-1]["version"]]
        assert versions(gateway, newest) != [first]


async def test_template_taken_away_is_not_offered_and_its_running_job_ends_well(gateway, workflows, material):
    """The last one here: it does not bring the template back."""
    async with gateway.client() as client:
        running = await submit(client, video=material.long, image=material.face(803))
        await at_work(client, running)
        shutil.rmtree(workflows / TEMPLATE)

        async def is_gone() -> bool:
            rows = (await client.get("/-/templates")).json()["templates"]
            return TEMPLATE not in [row["name"] for row in rows]

        await wait_until(is_gone, what="the template to be gone")
        refused = await client.post("/face-swap", files=parts(video=material.clip, image=material.face(804)))
        assert refused.is_client_error, refused.text
        assert (await ended(client, running))["status"] == "SUCCESS"

"""Canceling against a whole gateway: queued, running, over the socket; and the neighbour never notices."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

import pytest
import websockets

from tests.tools.faceswap_client import at_work, ended, job, status, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.sse_client import EventSource
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.system

CANCELED = ("FAILED", "canceled", "Canceled by request")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One worker: what is submitted second waits."""
    with GatewayProcess(tmp_path_factory.mktemp("cancel")) as process:
        yield process


def told(found: dict) -> tuple[str, str, str]:
    return found["status"], found["code"], found["error"]


async def test_waiting_job_is_gone_at_once_and_the_running_one_runs_on(gateway, material):
    async with gateway.client() as client:
        running = await submit(client, video=material.long, image=material.face(100))
        await at_work(client, running)
        waiting = await submit(client, video=material.clip, image=material.face(101))
        assert (await status(client, waiting))["status"] == "QUEUED"
        answer = await client.delete(f"/-/jobs/{waiting}")
        assert (answer.status_code, answer.json()["state"]) == (HTTPStatus.OK, "canceled")
        assert told(await status(client, waiting)) == CANCELED
        assert (await client.delete(f"/-/jobs/{waiting}")).status_code == HTTPStatus.CONFLICT
        assert (await ended(client, running))["status"] == "SUCCESS"
        assert (await client.delete(f"/-/jobs/{running}")).status_code == HTTPStatus.CONFLICT
    assert attempts(gateway, waiting) == []
    assert attempts(gateway, running) == [(1, "succeeded")]


async def test_running_job_is_interrupted_and_the_one_behind_it_is_not(gateway, material):
    """The prompt that is interrupted is exactly the one: the next job begins on the same worker in the same moment."""
    async with gateway.client() as client:
        running = await submit(client, video=material.long, image=material.face(102))
        next_one = await submit(client, video=material.clip, image=material.face(103))
        shown = (await at_work(client, running))["fraction"]
        async with EventSource(f"{gateway.url}/events/{running}") as source:
            answer = await client.delete(f"/-/jobs/{running}")
            assert (answer.status_code, answer.json()["cancel_requested"]) == (HTTPStatus.ACCEPTED, True)
            assert told(await ended(client, running)) == CANCELED
            await source.end()
        assert source.messages[-1].event == "error"
        assert source.messages[-1].json == {"detail": "Canceled by request", "code": "canceled"}
        after = await job(client, running)
        assert (after["results"], after["state"]) == ([], "canceled")
        assert shown <= after["fraction"] < 1, "its bar stays where it was"
        assert (await ended(client, next_one))["status"] == "SUCCESS"
    assert attempts(gateway, running) == [(1, "canceled")]
    # It may have been sent ahead: then it was pulled back before it began, which costs nothing.
    *pulled_back, last = [outcome for _, outcome in attempts(gateway, next_one)]
    assert (last, set(pulled_back) <= {"interrupted"}, len(pulled_back) <= 1) == ("succeeded", True, True)
    await wait_until(
        lambda: not [name for name in gateway.files() if name.startswith("scratch")], what="an empty scratch"
    )


async def test_neighbour_on_the_other_worker_is_not_interrupted(pool, material):
    async with pool.client() as client:
        pair = [await submit(client, video=material.long, image=material.face(number)) for number in (104, 105)]
        working = [await at_work(client, prompt_id) for prompt_id in pair]
        assert {found["upstream"] for found in working} == {"embedded-1", "embedded-2"}
        assert (await client.delete(f"/-/jobs/{pair[0]}")).status_code == HTTPStatus.ACCEPTED
        assert told(await ended(client, pair[0])) == CANCELED
        assert (await ended(client, pair[1]))["status"] == "SUCCESS"
    assert attempts(pool, pair[1]) == [(1, "succeeded")]


async def test_cancel_over_the_socket(gateway, material):
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.long, image=material.face(106))
        await at_work(client, prompt_id)
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/face-swap-ws", proxy=None) as connection:
            await connection.send(json.dumps({"prompt_id": prompt_id}))
            await connection.recv()
            await connection.send('{"cancel": true}')
            async with asyncio.timeout(PATIENCE_SECONDS):
                frames = [json.loads(text) async for text in connection]
        assert connection.close_code == 1000
        assert (frames[-1]["event"], frames[-1]["code"]) == ("error", "canceled")
        assert "completed" not in {frame["event"] for frame in frames}
        assert told(await status(client, prompt_id)) == CANCELED


async def test_client_that_leaves_its_stream_cancels_nothing(gateway, material):
    async with gateway.client() as client:
        files = {"video": material.clip.read_bytes(), "image": material.face(107).read_bytes()}
        async with client.stream("POST", "/face-swap", files=files) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    break
        prompt_id = json.loads(line.removeprefix("data:"))["prompt_id"]
        assert (await ended(client, prompt_id))["status"] == "SUCCESS"


def attempts(gateway: GatewayProcess, job_id: str) -> list[tuple[int, str]]:
    """How each attempt of a job ended."""
    return gateway.rows(
        "SELECT number, outcome FROM attempts WHERE task_id IN (SELECT id FROM tasks WHERE job_id = ?) ORDER BY number",
        job_id,
    )

"""The promise, tried on processes: what was acknowledged ends, whoever is killed in the middle, and is told once."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from http import HTTPStatus
from itertools import chain

import pytest

from tests.tools import clips
from tests.tools.faceswap_client import at_work, ended, job, parts, submit
from tests.tools.gateway_process import GatewayProcess, is_alive, wait_until_gone
from tests.tools.sse_client import EventSource, bars_of, falls, stream
from tests.tools.sse_parser import parse
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

JOBS = 10
#: Frames of the two clips.
LONG, SHORT = 96, 12
ENDS = {"succeeded", "completed", "failed", "error", "canceled"}
#: Streams must have been told goodbye within this, whatever runs.
STOP_SECONDS = 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Each test here leaves it whole."""
    with GatewayProcess(tmp_path_factory.mktemp("survival"), workers=2) as process:
        yield process


async def submit_many(client, material, *, first: int) -> list[str]:
    """Ten jobs, the first one long; no two alike to a cache."""
    targets = [material.long, *[material.clip] * (JOBS - 1)]
    return [
        await submit(client, {"output_name": f"job{number}"}, video=target, image=material.face(first + number))
        for number, target in enumerate(targets)
    ]


def attempts(gateway: GatewayProcess, *job_ids: str) -> list[tuple[str, str]]:
    """(upstream, outcome) of each attempt at these jobs, job by job."""
    query = "SELECT upstream, outcome FROM attempts WHERE task_id IN (SELECT id FROM tasks WHERE job_id = ?) ORDER BY number"
    return [attempt for job_id in job_ids for attempt in gateway.rows(query, job_id)]


async def assert_good(client, prompt_ids: list[str], tmp_path, frames: list[int]) -> None:
    """Each ended SUCCESS with one whole file of its own."""
    results = [await ended(client, prompt_id) for prompt_id in prompt_ids]
    assert [found["status"] for found in results] == ["SUCCESS"] * len(prompt_ids), results
    assert len({found["result"] for found in results}) == len(prompt_ids)
    for found, count in zip(results, frames, strict=True):
        path = tmp_path / "result.mp4"
        path.write_bytes((await client.get(found["result"])).content)
        assert len(clips.frames_of(path)) == count


async def assert_told_once(gateway: GatewayProcess, prompt_id: str, sources: list[EventSource]) -> None:
    """Whoever listened heard every durable event once and in order."""
    stored = gateway.rows("SELECT number, kind FROM events WHERE job_id = ? ORDER BY number", prompt_id)
    assert [number for number, _ in stored] == list(range(1, len(stored) + 1))
    ours, dialect = sources
    assert ours.durable == stored
    kept = {"queued": "queued", "succeeded": "completed"}
    assert dialect.durable == [(number, kept[kind]) for number, kind in stored if kind in kept]
    assert [source.statuses[-1] for source in sources] == [HTTPStatus.NO_CONTENT] * 2


def sources_of(gateway: GatewayProcess, prompt_id: str) -> list[EventSource]:
    return [EventSource(f"{gateway.url}/-/jobs/{prompt_id}/events"), EventSource(f"{gateway.url}/events/{prompt_id}")]


async def test_killed_worker_loses_no_job_and_comes_back(gateway, material, tmp_path):
    async with gateway.client() as client, AsyncExitStack() as stack:
        prompt_ids = await submit_many(client, material, first=200)
        sources = {prompt_id: sources_of(gateway, prompt_id) for prompt_id in prompt_ids}
        for source in chain.from_iterable(sources.values()):
            await stack.enter_async_context(source)
        victim = (await at_work(client, prompt_ids[0]))["upstream"]
        other = ({"embedded-1", "embedded-2"} - {victim}).pop()
        # Draining does not touch what runs; it only keeps the restarted worker from being faster than the other one.
        assert (await client.post(f"/-/upstreams/{victim}/drain", headers=gateway.bearer)).status_code == HTTPStatus.OK
        pid = gateway.worker_pids()[victim]
        os.kill(pid, signal.SIGKILL)

        async def is_back() -> bool:
            health = (await client.get("/health")).json()
            view = next(view for view in health["upstreams"] if view["name"] == victim)
            return view["reachable"] and gateway.worker_pids().get(victim, pid) != pid

        await wait_until(is_back, what="another worker in its place")
        await ended(client, prompt_ids[0])
        first, second = attempts(gateway, prompt_ids[0])
        assert first == (victim, "interrupted")
        assert second == (other, "succeeded")

        assert (await client.post(f"/-/upstreams/{victim}/resume", headers=gateway.bearer)).status_code == HTTPStatus.OK
        late = [await submit(client, video=material.clip, image=material.face(number)) for number in (220, 221, 222)]
        frames = [LONG, *[SHORT] * (JOBS - 1 + len(late))]
        await assert_good(client, [*prompt_ids, *late], tmp_path, frames)
        assert (await client.get("/health")).json()["status"] == "healthy"
        for prompt_id, listeners in sources.items():
            for source in listeners:
                await source.end()
            await assert_told_once(gateway, prompt_id, listeners)
            ours, dialect = listeners
            assert falls(bars_of(ours, "fraction")) == falls(bars_of(dialect, "percentage")) == []
    made = attempts(gateway, *prompt_ids, *late)
    assert {name for name, outcome in made if outcome == "succeeded"} == {"embedded-1", "embedded-2"}
    # Another may have been sent ahead, and waited there behind it: that costs nothing either.
    ended_early = [attempt for attempt in made if attempt[1] != "succeeded"]
    assert ended_early in ([(victim, "interrupted")], [(victim, "interrupted")] * 2)


async def test_killed_gateway_finishes_every_acknowledged_job_after_its_restart(gateway, material, tmp_path):
    async with gateway.client() as client, AsyncExitStack() as stack:
        prompt_ids = await submit_many(client, material, first=300)
        sources = {prompt_id: sources_of(gateway, prompt_id) for prompt_id in prompt_ids}
        for source in chain.from_iterable(sources.values()):
            await stack.enter_async_context(source)
        before = await at_work(client, prompt_ids[0])
        _, dialect = sources[prompt_ids[0]]
        await wait_until(lambda: max(bars_of(dialect, "percentage"), default=0) > 20, what="a fifth of the bar")
        children = gateway.children()
        assert len(children) >= 2
        gateway.kill()
        cut_off = [
            source
            for source in chain.from_iterable(sources.values())
            if ENDS.isdisjoint(name for _, name in source.durable)
        ]
        assert len(cut_off) >= JOBS, "most jobs were waiting"
        await wait_until_gone(children)
        assert gateway.worker_pids() == {}

        gateway.start(wait_for_workers=False)
        after = await job(client, prompt_ids[0])
        assert after["state"] != "failed"
        assert after["created_at"] == before["created_at"]
        await assert_good(client, prompt_ids, tmp_path, [LONG, *[SHORT] * (JOBS - 1)])
        for prompt_id, listeners in sources.items():
            for source in listeners:
                await source.end()
            await assert_told_once(gateway, prompt_id, listeners)
            # What a viewer was shown stays shown: the bar waits at its highest value until the next attempt passes it.
            ours, dialect = listeners
            assert falls(bars_of(ours, "fraction")) == falls(bars_of(dialect, "percentage")) == []
        for source in cut_off:
            if not ENDS.isdisjoint(message.event for message in source.connections[0]):
                continue  # the end lay in its socket already when the gateway was killed
            assert source.statuses.count(HTTPStatus.OK) + source.statuses.count(0) >= 2, "it came back by itself"
        assert {outcome for _, outcome in attempts(gateway, prompt_ids[0])} == {"interrupted", "succeeded"}
    scratch = [name for name in gateway.files() if name.startswith(("scratch", "blobs/parts"))]
    assert scratch == [], "what the killed one left half-made is swept"


async def test_asked_to_stop_it_says_goodbye_and_goes_on_after_its_next_start(gateway, material, tmp_path):
    async with gateway.client() as client:
        files = parts(video=material.long, image=material.face(400))
        async with stream(client, "POST", "/face-swap", files=files) as live:
            prompt_id = (await live.until("queued")).json["prompt_id"]
            await live.until("progress")
            waiting = await submit(client, video=material.clip, image=material.face(401))
            children = gateway.children()
            status, seconds = gateway.stop()
            told = await live.rest()
        assert status == 0
        assert seconds < STOP_SECONDS
        assert told.comments[-1] == "shutdown"
        assert not {"completed", "error"} & set(told.names), "it has not ended: the stream has"
        await wait_until_gone(children, patience_seconds=5)
        assert not any(is_alive(pid) for pid in children)
    assert "Traceback" not in gateway.log.read_text()

    gateway.start(wait_for_workers=False)
    async with gateway.client() as client:
        await assert_good(client, [prompt_id, waiting], tmp_path, [LONG, SHORT])
        answer = await client.get(f"/events/{prompt_id}", headers={"Last-Event-ID": told.last_event_id})
        assert answer.text.count("event: completed") == 1
        assert "event: queued" not in answer.text
        shown = [message.json["percentage"] for message in told.messages if message.event == "progress"]
        again = [
            message.json["percentage"] for message in parse(answer.content).messages if message.event == "progress"
        ]
        assert falls([*shown, *again]) == []


async def test_second_gateway_on_the_same_folder_is_refused_with_a_sentence(pool):
    """Two on one database would run every job twice."""
    second = GatewayProcess(pool.folder, workers=0, flags=("--no-wait",))
    with pytest.raises(AssertionError, match="it ended"):
        second.start(wait_for_workers=False)
    assert "Another gateway uses the data directory" in pool.log.read_text()
    async with pool.client() as client:
        assert (await client.get("/health/ready")).status_code == HTTPStatus.OK

"""Upstreams that fall silent, lie, die or hang, as real processes: every job ends in a definite state by itself.

One gateway serves all tests; each starts its own upstreams, plain ComfyUI-like servers in the network, with the fault it is
about, and takes them away again. The gateway's patience is shortened tenfold; how long each wait is as shipped stands
beside its constant, and all of them together stay below 30 s, but for the 60 s of a server that does not answer at all.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.client import connect

from tests.tools.faceswap_client import at_work, ended, job, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.open_worker import open_worker
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

IMPATIENT = """
from gateway import breaker
from gateway.comfy import protocol
from gateway.engine import dispatcher, following
from gateway.upstreams import client, remote
protocol.SILENCE_SECONDS = protocol.PROBE_ANSWER_SECONDS = protocol.FRAME_DUE_SECONDS = 0.5
protocol.RETRY_SECONDS, protocol.PROBE_DELAY_SECONDS, protocol.UNCLEAR_SECONDS = 0.1, 0.2, 0.3
protocol.DEAD_SECONDS = remote.DEAD_SECONDS = 1.5
client.ANSWER_SECONDS = remote.SUBMIT_SECONDS = client.UpstreamClient.post.__kwdefaults__["answer_seconds"] = 0.8
client.UpstreamClient._ask.__kwdefaults__ |= {"answer_seconds": 0.8, "piece_seconds": 0.8}
remote.WATCH_SECONDS, remote.STALE_SECONDS = 0.5, 0.1
following.LET_GO_SECONDS, dispatcher.MAX_RETRY_SECONDS = 0.5, 0.3
breaker.REST_SECONDS, breaker.EJECT_SECONDS = (0.3, 0.6), 1.0
"""
#: Longer than a whole job here takes on a busy machine: of one whose socket is silent no tick is heard.
STALL_SECONDS = 15
SWAP = "ReActorFaceSwap"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    settings = {"STALL_SECONDS": str(STALL_SECONDS), "POISON_AFTER": "0", "UPSTREAMS": ""}
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), settings, workers=0, first=IMPATIENT)
    yield process.start(wait_for_workers=False)
    process.end()


@pytest.fixture
async def client(gateway):
    async with gateway.client(headers=gateway.bearer) as made:
        yield made


@pytest.fixture
async def upstream(client, tmp_path):
    """Starts an upstream with faults and takes it into the pool; of two that are free, "a" gets a job before "b"."""
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def member(name, *flags):
            with open_worker(tmp_path / name, *flags) as worker:
                body = {"url": worker.url, "name": name}
                assert (await client.post("/-/upstreams", json=body)).status_code == HTTPStatus.CREATED
                try:
                    await wait_until(lambda: is_reachable(client, name), what=f"{name} to be reached")
                    yield worker
                finally:
                    worker.wake()
                    await wait_until(lambda: is_removed(client, name), what=f"{name} to be let go")

        async def start(name="a", faults="", quirks=""):
            flags = [*(["--faults", faults] if faults else []), *(["--quirks", quirks] if quirks else [])]
            return await stack.enter_async_context(member(name, *flags))

        yield start


async def seen(client, name):
    found = (await client.get("/-/upstreams")).json()["upstreams"]
    return next(member for member in found if member["name"] == name)


async def is_reachable(client, name):
    return (await seen(client, name))["reachable"]


async def is_removed(client, name):
    answer = await client.delete(f"/-/upstreams/{name}")
    return answer.status_code == HTTPStatus.NO_CONTENT


def attempts(gateway, job_id):
    """(upstream, outcome, cause) of each."""
    query = "SELECT upstream, outcome, cause FROM attempts WHERE task_id IN (SELECT id FROM tasks WHERE job_id = ?) ORDER BY number"
    return gateway.rows(query, job_id)


def reconnects(gateway, name):
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [line["reason"] for line in lines if line["event"] == "upstream reconnects" and line["upstream"] == name]


async def succeeds(client, gateway, job_id, *expected):
    assert (await ended(client, job_id))["status"] == "SUCCESS"
    assert attempts(gateway, job_id) == list(expected)


ONCE = ("a", "succeeded", None)
DIED = ("a", "attempt_lost", "died")
ELSEWHERE = ("b", "succeeded", None)


@pytest.mark.parametrize("fault", ["late-reply", "false-500"])
async def test_a_prompt_whose_reply_is_lost_or_a_lie_runs_once(client, gateway, upstream, material, fault):
    worker = await upstream(faults=fault)
    await succeeds(client, gateway, await submit(client, video=material.clip, image=material.face(900)), ONCE)
    assert len(worker.started()) == 1
    assert worker.ended() == []


@pytest.mark.parametrize("fault", ["silent-socket", "silent-socket:after=9", "drop-socket:after=9"])
async def test_a_socket_that_falls_silent_or_is_dropped_loses_nothing(client, gateway, upstream, material, fault):
    worker = await upstream(faults=fault)
    await succeeds(client, gateway, await submit(client, video=material.clip, image=material.face(901)), ONCE)
    assert len(worker.started()) == 1


async def test_an_orphaned_socket_is_noticed_and_replaced(client, gateway, upstream, material):
    """The server forgets it when another socket of the same client id ends: its own fault, and no stand-in for it."""
    worker = await upstream(quirks="0.3.64")
    ((client_id,),) = gateway.rows("SELECT client_id FROM upstreams WHERE name = 'a'")
    seen_before = len(reconnects(gateway, "a"))
    async with connect(f"{worker.url.replace('http', 'ws', 1)}/ws?clientId={client_id}"):
        pass
    job_id = await submit(client, video=material.long, image=material.face(902))
    await at_work(client, job_id)
    await succeeds(client, gateway, job_id, ONCE)
    assert len(reconnects(gateway, "a")) > seen_before


async def test_a_loop_that_another_reader_blocks_holds_up_the_bar_and_not_the_job(client, gateway, upstream, material):
    await upstream(faults="blocked-loop:after=9", quirks="0.3.64")
    await succeeds(client, gateway, await submit(client, video=material.clip, image=material.face(903)), ONCE)


@pytest.mark.long
async def test_the_job_of_a_killed_upstream_goes_to_another(client, gateway, upstream, material):
    worker, _ = await upstream(), await upstream("b")
    job_id = await submit(client, video=material.long, image=material.face(904))
    await at_work(client, job_id)
    worker.kill()
    await succeeds(client, gateway, job_id, DIED, ELSEWHERE)
    worker.start()


async def test_an_upstream_that_comes_back_with_an_empty_history_runs_it_again(client, gateway, upstream, material):
    worker = await upstream()
    job_id = await submit(client, video=material.long, image=material.face(905))
    await at_work(client, job_id)
    worker.kill()
    worker.start()
    await succeeds(client, gateway, job_id, DIED, ONCE)
    assert len(set(worker.started())) == 2


async def test_a_result_file_that_is_not_there_is_made_again(client, gateway, upstream, material):
    await upstream(faults="lost-file:fresh=1:n=1")
    job_id = await submit(client, image=material.face(906), video=material.clip)
    await succeeds(client, gateway, job_id, ("a", "attempt_lost", "result_lost"), ONCE)


async def test_a_part_of_a_graph_is_refused_and_taken_off_the_queue(client, gateway, upstream, material):
    worker = await upstream(faults="partial")
    job_id = await submit(client, video=material.long, image=material.face(907))
    assert (await ended(client, job_id))["status"] == "FAILED"
    assert (await job(client, job_id))["error"]["code"] == "graph_rejected"
    (prompt_id,) = worker.started()
    await wait_until(lambda: ("/interrupt", {"prompt_id": prompt_id}) in worker.ended(), what="its removal")


async def test_an_interrupt_that_ends_as_success_is_a_cancel_all_the_same(client, gateway, upstream, material):
    worker = await upstream(faults="deaf")
    job_id = await submit(client, video=material.long, image=material.face(908))
    await at_work(client, job_id)
    assert (await client.delete(f"/-/jobs/{job_id}")).status_code == HTTPStatus.ACCEPTED
    await ended(client, job_id)
    found = await job(client, job_id)
    assert (found["state"], found["results"]) == ("canceled", [])
    assert len(worker.started()) == 1


async def test_memory_that_ran_out_is_tried_on_another(client, gateway, upstream, material):
    await upstream(faults="oom")
    await upstream("b")
    job_id = await submit(client, video=material.clip, image=material.face(909))
    await succeeds(client, gateway, job_id, ("a", "attempt_lost", "out_of_memory"), ELSEWHERE)


async def test_an_upstream_whose_disk_is_full_costs_no_attempt(client, gateway, upstream, material):
    """It answers 500 to uploads; the job stays queued and goes where there is room."""
    await upstream(faults="http-500:n=1000:path=/upload")
    job_id = await submit(client, video=material.clip, image=material.face(914))

    async def is_left_alone():
        return "connect failure" in (await seen(client, "a"))["reason"]

    await wait_until(is_left_alone, what="its being left alone")
    await upstream("b")
    await succeeds(client, gateway, job_id, ELSEWHERE)


@pytest.mark.long
async def test_a_node_that_hangs_is_given_up_and_gets_nothing_while_it_hangs(client, gateway, upstream, material):
    worker, _ = await upstream(faults=f"hang:node={SWAP}"), await upstream("b")
    job_id = await submit(client, video=material.clip, image=material.face(910))
    await succeeds(client, gateway, job_id, ("a", "attempt_lost", "stalled"), ELSEWHERE)
    assert ("/interrupt", {"prompt_id": worker.started()[0]}) in worker.ended()
    assert (await client.post("/-/upstreams/b/drain")).status_code == HTTPStatus.OK
    waiting = await submit(client, video=material.clip, image=material.face(911))

    async def reason():
        told = (await job(client, waiting))["waiting"]["upstreams"]
        return next(judged["reason"] for judged in told if judged["name"] == "a").startswith("on trial")

    await wait_until(reason, what="its ejection to pass")
    assert (await job(client, waiting))["state"] == "queued"
    assert len(worker.started()) == 1
    assert (await client.delete(f"/-/jobs/{waiting}")).status_code == HTTPStatus.OK


@pytest.mark.long
async def test_a_server_that_answers_again_first_gets_rid_of_what_was_given_up(client, gateway, upstream, material):
    worker, _ = await upstream(), await upstream("b")
    job_id = await submit(client, video=material.long, image=material.face(912))
    await at_work(client, job_id)
    worker.stop()
    await succeeds(client, gateway, job_id, DIED, ELSEWHERE)
    assert (await client.post("/-/upstreams/b/drain")).status_code == HTTPStatus.OK
    waiting = await submit(client, video=material.clip, image=material.face(913))
    worker.wake()
    await succeeds(client, gateway, waiting, ONCE)
    stale, other = worker.started()
    asked = [(path, body.get("prompt_id")) for path, body in worker.asked()]
    assert asked.index(("/interrupt", stale)) < asked.index(("/prompt", other))

"""What every Upstream promises, shown on RemoteUpstream against a scripted ComfyUI on loopback.

Time runs 50 times as fast for the upstream, so that five seconds of silence take a tenth.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import time
from pathlib import Path

import pytest

from gateway.comfy.messages import Failed, Interrupted, Lost, NodeStarted, OutputFile, PromptStarted, Succeeded
from gateway.errors import LeaseLostError, TooLargeError
from gateway.interfaces import Blob
from gateway.upstreams import remote
from gateway.upstreams.exchange import NotSentError
from gateway.upstreams.remote import RemoteUpstream
from tests.tools.waiting import wait_until

_SPEC = importlib.util.spec_from_file_location(
    "scripted_comfyui", Path(__file__).parent.parent / "fakes" / "scripted_comfyui.py"
)
scripted_comfyui = sys.modules.setdefault("scripted_comfyui", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(scripted_comfyui)

PROMPT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
GRAPH = {"9": {"class_type": "Swap", "inputs": {}}}
RESULT = {"images": [{"filename": "r.png", "subfolder": "s", "type": "output"}]}
SPEED = 50.0


class QuickClock:
    def now(self):
        return time.time()

    def monotonic(self):
        return time.monotonic() * SPEED

    async def sleep(self, seconds):
        await asyncio.sleep(seconds / SPEED)


@pytest.fixture
async def server():
    scripted = scripted_comfyui.ScriptedComfyUI()
    async with scripted.serve() as url:
        scripted.url = url
        yield scripted


@contextlib.asynccontextmanager
async def connected(server, url=None, wanted=None, may_act=None):
    changed = asyncio.Event()
    upstream = RemoteUpstream(
        "one",
        url or server.url,
        client_id="mine",
        clock=QuickClock(),
        on_change=changed.set,
        live_prompts=wanted,
        may_act=may_act,
    )
    running = asyncio.create_task(upstream.run_forever())
    try:
        async with asyncio.timeout(5):
            while not upstream.status().reachable or not server.connections:
                changed.clear()
                await changed.wait()
        yield upstream
    finally:
        await upstream.close()
        async with asyncio.timeout(5):
            await running


@pytest.fixture
async def upstream(server):
    async with connected(server) as ready:
        yield ready


async def collect(messages):
    async with asyncio.timeout(8):
        return [message async for message in messages]


def submitted(upstream, prompt_id=PROMPT):
    return asyncio.create_task(collect(upstream.run(prompt_id, GRAPH, job_id="job", attempt=1)))


async def begun(server, upstream, prompt_id=PROMPT):
    """A prompt that runs, and the task that follows it."""
    following = submitted(upstream, prompt_id)
    await server.until(lambda: any(item[1] == prompt_id for item in server.pending))
    await server.start(prompt_id)
    return following


async def test_prompt_outlives_a_connection_that_broke_by_a_fault_of_ours(server, monkeypatch):
    upstream = RemoteUpstream("one", server.url, client_id="mine", clock=QuickClock())
    running = asyncio.create_task(upstream.run_forever())
    await wait_until(lambda: upstream.status().reachable and server.connections, what="the upstream")
    following = await begun(server, upstream)
    with monkeypatch.context() as patch:
        patch.setattr(upstream, "_count_foreign", lambda queue: {}[queue])
        with pytest.raises(ExceptionGroup):
            await running
    assert (upstream.status().reachable, upstream.status().reason) == (False, "its connection was given up")
    await server.finish(PROMPT, **{"9": RESULT})
    again = asyncio.create_task(upstream.run_forever())
    assert isinstance((await following)[-1], Succeeded)
    await wait_until(lambda: upstream.status().reachable, what="the upstream to be back")
    await upstream.close()
    await again


async def test_run_ends_with_the_outputs_history_names(server, upstream):
    following = await begun(server, upstream)
    assert server.running[0][3]["gateway_job"] == "job"
    assert server.running[0][3]["gateway_attempt"] == 1
    assert server.running[0][3]["client_id"] == "mine"
    await server.finish(PROMPT, **{"9": RESULT})
    messages = await following
    assert [type(message) for message in messages] == [PromptStarted, NodeStarted, Succeeded]
    assert messages[-1].outputs["9"].files == (OutputFile("r.png", "s", "output", "images"),)


async def test_secrets_go_with_the_prompt_and_cannot_pass_for_what_is_ours(server, upstream):
    secrets = {"api_key_comfy_org": "s3cret", "gateway_job": "another"}
    following = asyncio.create_task(collect(upstream.run(PROMPT, GRAPH, job_id="job", attempt=1, secrets=secrets)))
    await server.until(lambda: any(item[1] == PROMPT for item in server.pending))
    extra = server.pending[0][3]
    assert (extra["api_key_comfy_org"], extra["gateway_job"]) == ("s3cret", "job")
    await server.start(PROMPT)
    await server.finish(PROMPT, **{"9": RESULT})
    assert "s3cret" not in repr(await following)


@pytest.mark.parametrize("answer", ["cut", "500"])
async def test_prompt_that_was_queued_without_a_good_reply_runs_once(server, upstream, answer):
    server.prompt_answer = answer
    server.is_mute = True
    following = submitted(upstream)
    await server.until(lambda: f"history {PROMPT}" in server.calls)
    await server.start(PROMPT)
    await server.finish(PROMPT, **{"9": RESULT})
    assert isinstance((await following)[-1], Succeeded)
    assert server.calls.count(f"prompt {PROMPT}") == 1


async def test_prompt_that_never_arrived_is_lost(server, upstream):
    server.prompt_answer = "drop"
    assert (await collect(upstream.run(PROMPT, GRAPH, job_id="job", attempt=1))) == [
        Lost(PROMPT, "the upstream does not have it")
    ]


async def test_silent_socket_loses_nothing(server, upstream):
    following = await begun(server, upstream)
    server.is_mute = True
    await server.finish(PROMPT, **{"9": RESULT})
    assert isinstance((await following)[-1], Succeeded)


async def test_mute_socket_is_replaced(server, upstream):
    await server.until(lambda: server.probes == 1)
    server.is_mute = True
    following = submitted(upstream)
    await server.until(lambda: server.connections == 2)
    await server.finish(PROMPT)
    await following


async def test_every_connection_is_probed_and_a_dropped_one_replaced(server, upstream):
    following = await begun(server, upstream)
    await server.until(lambda: server.probes == 1)
    await server.drop_sockets()
    await server.until(lambda: server.probes == 2)
    await server.finish(PROMPT, **{"9": RESULT})
    assert isinstance((await following)[-1], Succeeded)


async def test_restart_with_empty_history_is_a_loss_and_a_doubt(server, upstream, tmp_path):
    await upstream.stage(*blob(tmp_path), ".png")
    following = await begun(server, upstream)
    await server.restart()
    assert (await following)[-1] == Lost(PROMPT, "the upstream no longer knows it")
    assert upstream.staged() == frozenset()


async def test_dead_upstream_loses_its_prompts(server, upstream, monkeypatch):
    following = await begun(server, upstream)

    async def dead(path, **params):
        raise NotSentError("ConnectTimeout")

    monkeypatch.setattr(upstream._client, "get", dead)
    await server.drop_sockets()
    assert (await following)[-1] == Lost(PROMPT, "the upstream does not answer")
    assert not upstream.status().reachable


async def test_cancel_of_a_waiting_prompt_dequeues_it(server, upstream):
    following = submitted(upstream)
    await server.until(lambda: len(server.pending) == 1)
    await upstream.cancel(PROMPT)
    assert server.pending == []
    assert await following == [Interrupted(PROMPT)]


@pytest.mark.parametrize("has_jobs_api", [False, True])
async def test_cancel_of_a_running_prompt_interrupts_it_by_name(has_jobs_api):
    server = scripted_comfyui.ScriptedComfyUI()
    server.has_jobs_api = has_jobs_api
    server.deaf_to_interrupts = 0 if has_jobs_api else 2
    async with server.serve() as url, connected(server, url) as upstream:
        following = await begun(server, upstream)
        await upstream.cancel(PROMPT)
        assert (await following)[-1] == Interrupted(PROMPT)
    assert (f"cancel job {PROMPT}" in server.calls) is has_jobs_api
    assert server.calls.count(f"interrupt {PROMPT}") == (0 if has_jobs_api else 3)


async def test_what_waits_behind_a_canceled_prompt_is_pulled_back_before_the_interrupt(server, upstream):
    first = await begun(server, upstream)
    second = submitted(upstream, OTHER)
    await server.until(lambda: len(server.pending) == 1)
    await upstream.cancel(PROMPT)
    assert (await first)[-1] == Interrupted(PROMPT)
    assert await second == [Interrupted(OTHER)]
    deleted = server.calls.index(f"delete {[PROMPT, OTHER]}")
    assert deleted < server.calls.index(f"interrupt {PROMPT}")
    assert f"interrupt {OTHER}" not in server.calls


async def test_a_server_that_cancels_by_job_keeps_what_waits_behind(tmp_path):
    server = scripted_comfyui.ScriptedComfyUI()
    server.has_jobs_api = True
    async with server.serve() as url, connected(server, url) as upstream:
        first = await begun(server, upstream)
        second = submitted(upstream, OTHER)
        await server.until(lambda: len(server.pending) == 1)
        await upstream.cancel(PROMPT)
        assert (await first)[-1] == Interrupted(PROMPT)
        await server.start(OTHER)
        await server.finish(OTHER, **{"9": RESULT})
        assert isinstance((await second)[-1], Succeeded)


async def test_no_prompt_is_sent_while_another_is_being_interrupted(server, upstream, monkeypatch):
    first = await begun(server, upstream)
    held, interrupted = asyncio.Event(), asyncio.Event()
    plain = server._interrupt

    async def slow(prompt_id):
        interrupted.set()
        await held.wait()
        await plain(prompt_id)

    monkeypatch.setattr(server, "_interrupt", slow)
    canceling = asyncio.create_task(upstream.cancel(PROMPT))
    await interrupted.wait()
    second = submitted(upstream, OTHER)
    assert (await upstream._client.get("/queue")).status == 200, "time enough for a prompt to arrive"
    assert server.pending == []
    held.set()
    await canceling
    assert (await first)[-1] == Interrupted(PROMPT)
    await server.until(lambda: len(server.pending) == 1)
    await server.finish(OTHER, **{"9": RESULT})
    assert isinstance((await second)[-1], Succeeded)


async def test_partly_accepted_graph_is_refused_and_dequeued(server, upstream):
    server.prompt_answer = "partly"
    (failed,) = await collect(upstream.run(PROMPT, GRAPH, job_id="job", attempt=1))
    assert isinstance(failed, Failed)
    assert failed.code == "graph_rejected"
    await server.until(lambda: server.pending == [])


async def test_what_is_taken_off_the_queue_leaves_before_it_has_room_again(server, upstream):
    server.prompt_answer = "partly"
    seen = [upstream.status().stale_prompts async for _ in upstream.run(PROMPT, GRAPH, job_id="job", attempt=1)]
    assert seen == [1], "whoever hears that it failed may send the next"
    await wait_until(lambda: upstream.status().stale_prompts == 0, what="its leaving")
    assert server.pending == []


async def test_refused_graph_fails_with_our_sentence(server, upstream):
    server.prompt_answer = "refuse"
    (failed,) = await collect(upstream.run(PROMPT, GRAPH, job_id="job", attempt=1))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.node_id, failed.node_class) == ("graph_rejected", "1", "LoadImage")
    assert "Invalid" not in failed.message


async def test_missing_upload_is_forgotten_and_the_attempt_costs_nothing(server, upstream, tmp_path):
    await upstream.stage(*blob(tmp_path), ".png")
    server.prompt_answer = "missing file"
    assert await collect(upstream.run(PROMPT, GRAPH, job_id="job", attempt=1)) == [Interrupted(PROMPT)]
    assert upstream.staged() == frozenset()


async def test_adopted_prompt_that_ended_meanwhile_is_told_from_history(server, upstream):
    await server.finish(PROMPT, **{"9": RESULT})
    (outcome,) = await collect(upstream.adopt(PROMPT))
    assert isinstance(outcome, Succeeded)


async def test_adopted_prompt_that_runs_is_followed_to_its_end(server, upstream):
    server.running = [[0, PROMPT, {}, {"client_id": "mine"}, []]]
    following = asyncio.create_task(collect(upstream.adopt(PROMPT)))
    await server.until(lambda: server.calls.count(f"history {PROMPT}") >= 1)
    await server.finish(PROMPT, **{"9": RESULT})
    assert isinstance((await following)[-1], Succeeded)


async def test_two_prompts_are_told_apart(server, upstream):
    first = await begun(server, upstream)
    second = submitted(upstream, OTHER)
    await server.until(lambda: len(server.pending) == 1)
    await server.finish(PROMPT, **{"9": RESULT})
    assert {message.prompt_id for message in await first} == {PROMPT}
    await server.start(OTHER)
    await server.finish(OTHER, **{"9": RESULT})
    assert {message.prompt_id for message in await second} == {OTHER}


async def test_a_prompt_that_was_let_go_of_counts_until_the_queue_is_seen_without_it(server):
    """Nothing else is sent while it may be there, also before whoever let go of it has said that nobody wants it."""
    wanted = {PROMPT}
    async with connected(server, wanted=lambda: wanted) as upstream:
        following = await begun(server, upstream)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert upstream.status().stale_prompts == 1
        await upstream.clear_stale()
        assert (upstream.status().stale_prompts, server.running[0][1]) == (1, PROMPT), "somebody wants it"
        again = asyncio.create_task(collect(upstream.adopt(PROMPT)))
        await wait_until(lambda: upstream.status().stale_prompts == 0, what="its being taken up")
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        wanted.clear()
        await wait_until(lambda: upstream.status().stale_prompts == 0, what="its leaving")
        assert f"interrupt {PROMPT}" in server.calls


async def test_stale_prompts_of_ours_are_removed_and_others_left(server):
    for prompt_id, client_id, key in (
        ("stale", "mine", {"gateway_job": "old"}),
        ("wanted", "mine", {"gateway_job": "live"}),
        ("by-hand", "mine", {}),
        ("foreign", "else", {"gateway_job": "theirs"}),
    ):
        server.pending.append([1, prompt_id, {}, {"client_id": client_id, **key}, []])
    async with connected(server, wanted=lambda: {"wanted"}) as upstream:
        await server.until(lambda: "interrupt stale" in server.calls)
        assert [item[1] for item in server.pending] == ["wanted", "by-hand", "foreign"]
        assert upstream.status().foreign_prompts == 1


async def test_prompt_that_was_given_up_leaves_before_it_has_room_again(server):
    """Without a new connection too, and as often as it takes."""
    wanted = {PROMPT}
    async with connected(server, wanted=lambda: wanted) as upstream:
        following = await begun(server, upstream)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        looks = server.calls.count("queue")
        await server.until(lambda: server.calls.count("queue") > looks + 2)
        assert f"interrupt {PROMPT}" not in server.calls, "somebody will take it up"
        server.deaf_to_interrupts = 2
        wanted.clear()
        await wait_until(lambda: f"interrupt {PROMPT}" in server.calls, what="its being noticed")
        assert upstream.status().stale_prompts == 1
        assert upstream.status().reachable
        await wait_until(lambda: upstream.status().stale_prompts == 0, what="its leaving")
        assert server.running == []
        assert server.calls.count(f"interrupt {PROMPT}") == 3


async def test_upstream_that_comes_back_with_such_a_prompt_says_so_when_it_is_reachable(server, monkeypatch):
    async with connected(server, wanted=frozenset) as upstream:
        plain = upstream._client.get

        async def dead(path, **params):
            raise NotSentError("ConnectTimeout")

        monkeypatch.setattr(upstream._client, "get", dead)
        await wait_until(lambda: not upstream.status().reachable)
        server.deaf_to_interrupts = 10**6
        server.running = [[0, PROMPT, {}, {"client_id": "mine", "gateway_job": "job"}, []]]
        seen = []
        upstream._on_change = lambda: seen.append((upstream.status().reachable, upstream.status().stale_prompts))
        monkeypatch.setattr(upstream._client, "get", plain)
        await wait_until(lambda: upstream.status().reachable)
        assert (True, 0) not in seen


async def test_an_upstream_that_goes_away_says_since_when_it_was_asked_in_vain(server, upstream, monkeypatch):
    assert upstream.status().unreachable_since is None
    plain, asked = upstream._client.get, []

    async def dead(path, **params):
        asked.append(upstream._now())
        await asyncio.sleep(0.05)
        raise NotSentError("ConnectTimeout")

    monkeypatch.setattr(upstream._client, "get", dead)
    await wait_until(lambda: not upstream.status().reachable)
    since = upstream.status().unreachable_since
    assert since <= asked[0]
    await wait_until(lambda: len(asked) > 2)
    assert upstream.status().unreachable_since == since, "it is one outage"
    monkeypatch.setattr(upstream._client, "get", plain)
    await wait_until(lambda: upstream.status().reachable)
    assert upstream.status().unreachable_since is None


class Leave:
    """Whether this process may act: what a gateway asks that may have been stopped and taken over."""

    def __init__(self):
        self.asked = 0
        self.is_lost = False
        self.known = asyncio.Event()
        self.known.set()

    async def __call__(self):
        self.asked += 1
        await self.known.wait()
        if self.is_lost:
            raise LeaseLostError("taken over")


async def test_who_was_taken_over_changes_nothing_at_the_upstream(server, tmp_path):
    """Another gateway's prompts run there, under the same client id: none may be dequeued or interrupted for stale."""
    leave = Leave()
    async with connected(server, wanted=set, may_act=leave) as upstream:
        leave.is_lost = True
        server.running.append([1, OTHER, {}, {"client_id": "mine", "gateway_job": "another's"}, []])
        uploads = server.upload_count
        with pytest.raises(NotSentError):
            await upstream.clear_stale()
        with pytest.raises(NotSentError):
            await upstream.stage(*blob(tmp_path), ".png")
        assert isinstance((await submitted(upstream))[-1], Lost)
        canceling = asyncio.create_task(upstream.cancel(OTHER))
        asked = leave.asked
        await wait_until(lambda: leave.asked >= asked + 3)
        canceling.cancel()
        await asyncio.gather(canceling, return_exceptions=True)
        assert [call for call in server.calls if call.split()[0] in {"prompt", "delete", "interrupt", "cancel"}] == []
        assert server.upload_count == uploads
        assert [item[1] for item in server.running] == [OTHER]


async def test_prompt_waits_until_it_is_known_that_we_may_act(server):
    leave = Leave()
    async with connected(server, may_act=leave) as upstream:
        leave.known.clear()
        asked = leave.asked
        prompt = submitted(upstream)
        await wait_until(lambda: leave.asked > asked)
        assert f"prompt {PROMPT}" not in server.calls
        leave.known.set()
        await server.until(lambda: f"prompt {PROMPT}" in server.calls)
        prompt.cancel()
        await asyncio.gather(prompt, return_exceptions=True)


def blob(folder, data=b"picture bytes"):
    path = folder / "blob"
    path.write_bytes(data)
    return Blob("ab" * 32, len(data)), path


async def test_stage_uploads_once_for_all_who_ask(server, upstream, tmp_path):
    name = f"{'ab' * 32}.png"
    staged = await asyncio.gather(*(upstream.stage(*blob(tmp_path), ".png") for _ in range(3)))
    assert set(staged) == {f"{upstream.folder}/{name}"}
    assert await upstream.stage(*blob(tmp_path), ".png") == staged[0]
    assert server.upload_count == 1
    assert server.uploads == {name: b"picture bytes"}
    assert upstream.staged() == {"ab" * 32}


async def test_stage_takes_the_name_that_the_server_chose(server, upstream, tmp_path):
    server.renames_to = "other (1).png"
    assert await upstream.stage(*blob(tmp_path), ".png") == f"{upstream.folder}/other (1).png"


async def test_stage_never_uses_a_strange_suffix(server, upstream, tmp_path):
    assert await upstream.stage(*blob(tmp_path), '/../x".png') == f"{upstream.folder}/{'ab' * 32}"


async def test_stage_refuses_what_the_server_said_it_does_not_take(server, upstream, tmp_path):
    with pytest.raises(TooLargeError, match="1000 bytes"):
        await upstream.stage(*blob(tmp_path, b"x" * 1000), ".png")
    assert server.upload_count == 0


async def test_stage_tells_of_a_413(server, upstream, tmp_path):
    server.max_upload_size = 100
    with pytest.raises(TooLargeError):
        await upstream.stage(*blob(tmp_path), ".png")
    assert upstream.staged() == frozenset()


async def test_doubt_during_an_upload_outlives_it(server, upstream, tmp_path):
    staging = asyncio.create_task(upstream.stage(*blob(tmp_path), ".png"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    upstream.doubt()
    await staging
    assert upstream.staged() == frozenset()


async def test_fetch_gives_the_bytes(server, upstream):
    server.outputs["r.png"] = b"r" * 600_000
    pieces = [piece async for piece in upstream.fetch(OutputFile("r.png", "", "output", "images"))]
    assert b"".join(pieces) == server.outputs["r.png"]


async def test_fetch_of_a_missing_file_says_so(upstream):
    with pytest.raises(FileNotFoundError):
        async for _ in upstream.fetch(OutputFile("r.png", "", "output", "images")):
            pass


async def test_capabilities_list_allowed_values_and_survive_infinity(upstream):
    known = upstream.capabilities()
    assert known.classes == {"Swap": {"model": ("a.onnx", "b.onnx"), "scale": None}, "V3": {"name": ("x",)}}
    assert known.max_upload_bytes == 1000
    assert upstream.status().version == "0.3.64"
    assert upstream.status().engine == "comfyui"


async def test_who_asks_anew_hears_of_what_was_added_and_many_at_once_ask_once(server, upstream, monkeypatch):
    monkeypatch.setattr(remote, "RELEARN_SECONDS", 3600.0)  # the clock here runs faster than any other
    server.nodes = {"Swap": {"input": {"required": {"model": [["a.onnx", "new.onnx"], {}]}}}}
    asked = server.infos
    await upstream.relearn()  # it has said so a moment ago
    assert server.infos == asked
    monkeypatch.setattr(upstream, "_capabilities_at", None)
    await asyncio.gather(*(upstream.relearn() for _ in range(20)))
    assert server.infos == asked + 1
    assert upstream.capabilities().classes["Swap"]["model"] == ("a.onnx", "new.onnx")


async def test_who_asks_anew_in_vain_keeps_what_was_known(server, upstream, monkeypatch):
    asked, known = server.infos, upstream.capabilities()
    monkeypatch.setattr(upstream, "_capabilities_at", None)
    server.nodes = ["no list of nodes"]
    await upstream.relearn()
    assert server.infos > asked
    assert upstream.capabilities() == known


async def test_credentials_go_into_a_header_and_are_shown_nowhere(server):
    url = server.url.replace("http://", "http://user:p%40ss@")
    async with connected(server, url) as upstream:
        server.prompt_answer = "refuse"
        await collect(upstream.run(PROMPT, GRAPH, job_id="job", attempt=1))
        shown = f"{upstream!r} {upstream.status()!r} {vars(upstream)!r}"
    assert server.headers[0]["authorization"] == "Basic dXNlcjpwQHNz"
    assert "origin" not in server.headers[0]
    assert "p@ss" not in shown
    assert "p%40ss" not in shown
    assert upstream.status().address == server.url


async def test_one_who_stops_following_is_told_nothing_and_the_prompt_runs_on(server, upstream):
    following = await begun(server, upstream)
    following.cancel()
    await asyncio.wait({following})
    assert len(server.running) == 1
    await server.finish(PROMPT, **{"9": RESULT})
    assert isinstance((await collect(upstream.adopt(PROMPT)))[-1], Succeeded)

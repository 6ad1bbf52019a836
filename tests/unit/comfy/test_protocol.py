"""The session, fed by recordings of a real server (scripts/record), by a truthful model of one, and by chaos.

The traffic of newer servers, which throttle progress, is derived from the recordings here: ticks are dropped that come
less than 100 ms after the last, and so are the zero ticks between passes. Nothing newer than 0.3.64 was recorded.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.comfy.messages import (
    Failed,
    Interrupted,
    LogLine,
    Lost,
    NodeFinished,
    NodeOutput,
    NodeProgress,
    NodesCached,
    NodeStarted,
    Preview,
    PromptStarted,
    Succeeded,
)
from gateway.comfy.protocol import (
    DEAD_SECONDS,
    FRAME_DUE_SECONDS,
    MAX_UNANSWERED_PROBES,
    PROBE_ANSWER_SECONDS,
    PROBE_DELAY_SECONDS,
    SILENCE_SECONDS,
    UNCLEAR_SECONDS,
    Session,
)
from gateway.comfy.requests import (
    AskHistory,
    AskQueue,
    ClearStale,
    Dequeue,
    DoubtStaged,
    Reconnect,
    SendProbe,
)

RECORDINGS = Path(__file__).parents[2] / "recordings"
OUTCOMES = (Succeeded, Failed, Interrupted, Lost)
JPEG = b"\xff\xd8\xff\xe0"


# ------------------------------------------------------------------------------------------------------ recordings


def lines(name):
    return [json.loads(line) for line in (RECORDINGS / f"{name}.jsonl").read_text().splitlines()]


def throttled(recording):
    last = -1.0
    for line in recording:
        kind = line["data"]["type"] if line["kind"] == "text" else ""
        data = line["data"]["data"] if kind else {}
        if kind == "progress" and (data["value"] == 0 or (line["t"] - last < 0.1 and data["value"] != data["max"])):
            continue
        if kind == "progress":
            last = line["t"]
        yield line


def replay(recording):
    """Play a recording; gives the messages and the requests."""
    session, messages, requests = Session(), [], []
    for line in recording:
        play(session, line)
        messages += session.take_messages()
        requests += session.take_requests()
    return messages, requests


def play(session, line):
    now = line["t"]
    match line["kind"]:
        case "connected":
            session.connected(now=now)
        case "disconnected":
            session.disconnected(now=now)
        case "text" if line["dir"] == "in":
            session.text(json.dumps(line["data"]), now=now)
        case "binary":
            session.binary(base64.b64decode(line["base64"]), now=now)
        case "note" if "submit" in line:
            session.submitting(line["submit"], now=now)
        case "http":
            play_http(session, line["request"], line["status"], json.dumps(line["answer"]).encode(), now)


def play_http(session, request, status, body, now):
    if request == "POST /prompt":
        answer = json.loads(body)
        waiting = [prompt_id for prompt_id in session.live_prompts if session.is_submitting(prompt_id)]
        prompt_id = answer.get("prompt_id") or waiting[0]
        session.submission_answered(prompt_id, status, body, now=now)
    elif request.startswith("GET /history/"):
        session.history_answered(request.rpartition("/")[2], status, body, now=now)
    elif request == "GET /queue":
        session.queue_answered(status, body, now=now)


def outcomes(messages):
    return [message for message in messages if isinstance(message, OUTCOMES)]


def kinds(messages):
    return [type(message) for message in messages if not isinstance(message, NodeProgress | LogLine)]


def counters(messages, node_id):
    return [message.value for message in messages if isinstance(message, NodeProgress) and message.node_id == node_id]


def test_recorded_picture_tells_its_whole_life():
    messages, requests = replay(lines("image"))
    assert kinds(messages) == [
        PromptStarted,
        NodesCached,
        *[NodeStarted, NodeFinished] * 2,
        NodeStarted,
        NodeOutput,
        NodeFinished,
        Succeeded,
    ]
    assert [m.node_id for m in messages if isinstance(m, NodeStarted)] == ["1", "2", "9"]
    (file,) = messages[-1].outputs["9"].files
    assert (file.type, file.kind) == ("output", "images")
    assert AskHistory(messages[-1].prompt_id) in requests


def test_recorded_clip_counts_each_frame_once():
    messages, _ = replay(lines("video"))
    assert counters(messages, "1") == list(range(1, 25))
    assert messages[-1].outputs["9"].files[0].kind == "gifs"
    assert "fullpath" not in repr(messages)


def test_recorded_swap_shows_its_passes_by_falling_values():
    messages, _ = replay(lines("swap"))
    values = counters(messages, "2")
    falls = [index for index in range(1, len(values)) if values[index] < values[index - 1]]
    assert max(values) == 24
    assert len(falls) == 2  # two passes of 24, each ends with a zero
    assert any(isinstance(message, LogLine) and "\x1b" not in message.text for message in messages)
    assert isinstance(messages[-1], Succeeded)


@pytest.mark.parametrize("name", ["video", "swap", "interrupt"])
def test_throttled_progress_changes_only_progress(name):
    full, _ = replay(lines(name))
    thin, _ = replay(throttled(lines(name)))
    assert kinds(thin) == kinds(full)
    assert 0 < sum(isinstance(m, NodeProgress) for m in thin) < sum(isinstance(m, NodeProgress) for m in full)


def test_recorded_cached_prompt_ends_with_the_old_file():
    messages, _ = replay(lines("cached"))
    first, second = outcomes(messages)
    assert first.prompt_id != second.prompt_id
    assert first.outputs["9"].files == second.outputs["9"].files
    after = messages[messages.index(first) + 1 :]
    assert kinds(after) == [PromptStarted, NodesCached, NodeOutput, NodeFinished, Succeeded]


def test_recorded_error_becomes_unreadable_input():
    messages, _ = replay(lines("error"))
    (failed,) = outcomes(messages)
    assert (failed.code, failed.node_id, failed.node_class) == ("unreadable_input", "1", "LoadImage")


def test_recorded_refusals():
    messages, requests = replay(lines("refused"))
    missing, unknown, partly = outcomes(messages)
    assert isinstance(missing, Interrupted)
    assert DoubtStaged("an uploaded file is not there any more") in requests
    assert (unknown.code, unknown.detail.partition(":")[0]) == ("graph_rejected", "invalid_prompt")
    assert partly.code == "graph_rejected"
    assert Dequeue(partly.prompt_id) in requests


def test_recorded_interrupt():
    messages, _ = replay(lines("interrupt"))
    assert isinstance(messages[-1], Interrupted)
    assert len(outcomes(messages)) == 1


def test_recorded_dequeue_ends_both():
    messages, _ = replay(lines("dequeue"))
    assert all(isinstance(outcome, Interrupted) for outcome in outcomes(messages))


def test_recorded_drop_of_the_socket_loses_nothing():
    messages, requests = replay(lines("reconnect"))
    assert isinstance(messages[-1], Succeeded)
    assert DoubtStaged("the connection was lost") in requests


# ----------------------------------------------------------------------------------------------------- single rules


def frame(kind, **data):
    return json.dumps({"type": kind, "data": data})


def history(prompt_id="p", status="success", messages=(), outputs=None):
    record = {"status_str": status, "messages": messages}
    return json.dumps({prompt_id: {"outputs": outputs or {}, "status": record}}).encode()


def queue(*running, pending=()):
    def item(prompt_id):
        return [0, prompt_id, {}, {"client_id": "c"}, []]

    return json.dumps({"queue_running": [*map(item, running)], "queue_pending": [*map(item, pending)]}).encode()


ACCEPTED = json.dumps({"prompt_id": "p", "number": 1, "node_errors": {}}).encode()


def quiet(session):
    session.take_messages()
    session.take_requests()
    return session


def running(prompt_id="p", now=100.0):
    """A session with a proven socket and one running prompt."""
    session = Session()
    session.connected(now=now - 10)
    session.tick(now=now - 9)
    session.text(frame("feature_flags"), now=now - 9)
    session.submitting(prompt_id, now=now)
    session.submission_answered(prompt_id, 200, ACCEPTED, now=now)
    session.text(frame("execution_start", prompt_id=prompt_id), now=now)
    return quiet(session)


def test_silence_is_answered_by_asking():
    session = running()
    assert session.next_deadline() == 100 + SILENCE_SECONDS
    session.tick(now=100 + SILENCE_SECONDS - 0.1)
    assert session.take_requests() == []
    session.tick(now=100 + SILENCE_SECONDS)
    assert session.take_requests() == [AskHistory("p")]
    session.history_answered("p", 200, b"{}", now=105.1)
    assert session.take_requests() == [AskQueue()]
    session.queue_answered(200, queue("p"), now=105.2)
    assert session.take_requests() == session.take_messages() == []
    assert session.next_deadline() == pytest.approx(105.2 + SILENCE_SECONDS)


def test_frames_of_others_do_not_break_the_silence():
    session = running()
    session.text(frame("progress", prompt_id="other", node="3", value=1, max=2), now=104)
    session.text(frame("status", status={"exec_info": {"queue_remaining": 1}}), now=104)
    assert session.next_deadline() == 100 + SILENCE_SECONDS
    assert session.take_messages() == []


def test_absence_counts_only_when_history_is_asked_after_the_queue():
    session = running()
    session.tick(now=105)
    session.history_answered("p", 200, b"{}", now=105)
    session.queue_answered(200, queue(), now=105)
    assert session.take_messages() == []  # it may have ended between the two answers
    session.history_answered("p", 200, history(), now=105)
    assert session.take_messages() == [Succeeded("p", {})]


def test_prompt_that_is_nowhere_is_lost():
    session = running()
    session.tick(now=105)
    session.history_answered("p", 200, b"{}", now=105)
    session.queue_answered(200, queue(), now=105)
    session.history_answered("p", 200, b"{}", now=105)
    assert session.take_messages() == [Lost("p", "the upstream no longer knows it")]
    assert DoubtStaged("the upstream forgot a prompt") in session.take_requests()


def test_queue_answer_that_was_asked_before_the_prompt_existed_is_not_believed():
    session = running()
    session.tick(now=105)
    session.history_answered("p", 200, b"{}", now=105)  # asks for the queue
    session.submitting("q", now=105)
    session.submission_answered("q", 200, ACCEPTED.replace(b'"p"', b'"q"'), now=105)
    session.text(frame("executing", node=None, prompt_id="q"), now=105)
    session.history_answered("q", 200, b"{}", now=105)
    quiet(session)
    session.queue_answered(200, queue("p"), now=105)  # taken before q was there
    assert session.take_requests() == [AskQueue()]
    session.queue_answered(200, queue("p", pending=["q"]), now=105)
    assert session.take_messages() == []
    assert session.live_prompts == {"p", "q"}


def test_end_marker_leads_to_history_and_history_decides():
    session = running()
    session.text(frame("execution_error", prompt_id="p"), now=101)
    session.text(frame("executing", node=None, prompt_id="p"), now=101)
    assert session.take_requests() == [AskHistory("p")]
    session.history_answered("p", 200, history(), now=101)
    assert session.take_messages() == [Succeeded("p", {})]


def test_history_that_is_late_is_asked_again_soon():
    session = running()
    session.text(frame("execution_success", prompt_id="p"), now=101)
    session.history_answered("p", 200, b"{}", now=101)
    session.queue_answered(200, queue("p"), now=101)
    assert session.next_deadline() < 101.5


def test_missed_start_is_told_from_the_queue():
    session = Session()
    session.adopt("p", now=0)
    session.history_answered("p", 200, b"{}", now=0)
    session.queue_answered(200, queue("p"), now=0)
    assert session.take_messages() == [PromptStarted("p")]


def test_unclear_submission_is_looked_up_and_lost_only_after_a_while():
    session = Session()
    session.submitting("p", now=0)
    session.submission_answered("p", 500, b"500 Internal Server Error", now=1)
    assert session.take_requests() == [AskHistory("p")]
    for now in (1.0, 1.0 + UNCLEAR_SECONDS):
        assert session.take_messages() == []
        session.tick(now=now)
        session.history_answered("p", 200, b"{}", now=now)
        session.queue_answered(200, queue(), now=now)
        session.history_answered("p", 200, b"{}", now=now)
    assert session.take_messages() == [Lost("p", "the upstream does not have it")]
    assert Dequeue("p") in session.take_requests()  # should it arrive after all


def test_submission_that_never_left_is_lost_at_once():
    session = Session()
    session.submitting("p", now=0)
    session.submission_failed("p", was_sent=False, now=1)
    assert session.take_messages() == [Lost("p", "the upstream could not be reached")]


def test_refusal_by_a_proxy_is_a_loss_not_the_fault_of_the_graph():
    session = Session()
    session.submitting("p", now=0)
    session.submission_answered("p", 401, b"", now=1)
    assert session.take_messages() == [Lost("p", "the upstream turned the request away (HTTP 401)")]


def test_probe_is_late_and_an_unanswered_one_means_reconnecting():
    session = Session()
    session.connected(now=0)
    session.tick(now=PROBE_DELAY_SECONDS - 0.01)
    assert session.take_requests() == []
    session.text(frame("status", status={"exec_info": {"queue_remaining": 0}}), now=0.5)
    session.tick(now=PROBE_DELAY_SECONDS)
    assert session.take_requests() == [SendProbe()]
    session.tick(now=PROBE_DELAY_SECONDS + PROBE_ANSWER_SECONDS)
    assert [type(request) for request in session.take_requests()] == [Reconnect]


def test_answered_probe_leaves_the_socket_alone():
    session = Session()
    session.connected(now=0)
    session.tick(now=1)
    session.text(frame("feature_flags"), now=1.1)
    assert session.next_deadline() is None


def test_server_that_never_answers_probes_is_spared_them():
    session = Session()
    for now in range(0, 100 * MAX_UNANSWERED_PROBES, 100):
        session.connected(now=now)
        session.text(frame("status", status={"exec_info": {"queue_remaining": 0}}), now=now)
        session.tick(now=now + 1)
        session.tick(now=now + 50)
        session.disconnected(now=now + 51)
    quiet(session)
    session.connected(now=10_000)
    session.text(frame("status", status={"exec_info": {"queue_remaining": 0}}), now=10_000)
    assert session.next_deadline() is None


def test_accepted_prompt_without_a_frame_means_a_mute_socket():
    session = running()
    session.submitting("q", now=101)
    session.submission_answered("q", 200, ACCEPTED, now=101)
    session.tick(now=101 + FRAME_DUE_SECONDS)
    assert Reconnect("the socket is silent") in session.take_requests()


def test_status_frame_that_came_before_the_reply_proves_the_socket():
    session = running()
    session.submitting("q", now=101)
    session.text(frame("status", status={"exec_info": {"queue_remaining": 2}}), now=101.1)
    session.submission_answered("q", 200, ACCEPTED, now=101.2)
    session.tick(now=120)
    assert Reconnect("the socket is silent") not in session.take_requests()


def test_lost_socket_is_asked_about_and_no_loss():
    session = running()
    session.disconnected(now=101)
    assert session.take_requests() == [DoubtStaged("the connection was lost"), AskHistory("p")]
    assert session.take_messages() == []


def test_dead_http_ends_in_a_loss():
    session = running()
    session.http_failed(now=101)
    session.tick(now=101 + DEAD_SECONDS - 1)
    assert session.take_messages() == []
    session.tick(now=101 + DEAD_SECONDS)
    assert session.take_messages() == [Lost("p", "the upstream does not answer")]


def test_any_answer_ends_the_death():
    session = running()
    session.http_failed(now=101)
    session.http_answered()
    session.tick(now=101 + DEAD_SECONDS)
    assert session.take_messages() == []


def test_smaller_number_tells_of_a_restart():
    session = running()
    session.submitting("q", now=101)
    session.submission_answered("q", 200, b'{"prompt_id":"q","number":0,"node_errors":{}}', now=101)
    assert DoubtStaged("the upstream was restarted") in session.take_requests()


def test_dequeued_by_us_is_interrupted_not_lost():
    session = running()
    session.dequeued("p")
    session.history_answered("p", 200, b"{}", now=101)
    session.queue_answered(200, queue(), now=101)
    session.history_answered("p", 200, b"{}", now=101)
    assert session.take_messages() == [Interrupted("p")]


def test_vanishing_before_the_start_with_an_open_socket_is_a_dequeue_by_others():
    session = running()
    session.submitting("q", now=101)
    session.submission_answered("q", 200, ACCEPTED, now=101)
    session.text(frame("status", status={"exec_info": {"queue_remaining": 2}}), now=101)
    session.tick(now=110)
    session.history_answered("q", 200, b"{}", now=110)
    session.queue_answered(200, queue("p"), now=110)
    session.history_answered("q", 200, b"{}", now=110)
    assert session.take_messages() == [Interrupted("q")]


def test_vanishing_before_the_start_across_a_lost_socket_is_a_loss():
    session = running()
    session.submitting("q", now=101)
    session.submission_answered("q", 200, ACCEPTED, now=101)
    session.disconnected(now=102)
    session.connected(now=103)
    session.history_answered("q", 200, b"{}", now=103)
    session.queue_answered(200, queue(), now=103)
    session.history_answered("q", 200, b"{}", now=103)
    assert session.take_messages() == [Lost("q", "the upstream no longer knows it")]


def test_unfinished_batch_fails_and_its_next_slice_is_removed():
    session = running()
    outputs = {"9": {"unfinished_batch": [True]}}
    session.history_answered("p", 200, history(outputs=outputs), now=101)
    (failed,) = session.take_messages()
    assert failed.code == "graph_rejected"
    assert session.take_requests() == [ClearStale()]


def test_replay_after_a_reconnect_names_the_node_only():
    session = running()
    session.text(frame("executing", node="3"), now=101)
    assert session.take_messages() == [NodeStarted("p", "3")]


def test_expanded_nodes_are_told_as_the_node_they_stand_for():
    session = running()
    session.text(frame("executing", node="4.0.0.1", display_node="4", prompt_id="p"), now=101)
    session.text(frame("progress", node="4.0.0.1", value=1, max=2, prompt_id="p"), now=101)
    states = {
        "4": {"value": 0, "max": 1, "state": "running", "display_node_id": "4"},
        "4.0.0.1": {"value": 2, "max": 2, "state": "finished", "display_node_id": "4"},
    }
    session.text(frame("progress_state", prompt_id="p", nodes=states), now=101)
    assert session.take_messages() == [NodeStarted("p", "4"), NodeProgress("p", "4", 1, 2)]
    states["4"]["state"] = "finished"
    session.text(frame("progress_state", prompt_id="p", nodes=states), now=101)
    assert session.take_messages() == [NodeFinished("p", "4")]


def test_previews_of_both_kinds_belong_to_the_running_prompt():
    session = running()
    metadata = json.dumps({"prompt_id": "p", "display_node_id": "3"}).encode()
    session.binary(struct.pack(">II", 1, 1) + JPEG, now=101)
    session.binary(struct.pack(">II", 4, len(metadata)) + metadata + JPEG, now=101)
    session.binary(struct.pack(">II", 4, len(metadata)) + metadata.replace(b'"p"', b'"x"') + JPEG, now=101)
    assert session.take_messages() == [
        Preview("p", None, "image/jpeg", JPEG),
        Preview("p", "3", "image/jpeg", JPEG),
    ]


def test_nothing_is_told_while_no_prompt_of_ours_runs():
    session = Session()
    session.connected(now=0)
    session.submitting("p", now=1)
    session.binary(struct.pack(">II", 1, 1) + JPEG, now=1)
    session.text(frame("logs", entries=[{"m": "somebody else's"}]), now=1)
    assert session.take_messages() == []


def test_log_lines_belong_to_the_running_prompt():
    session = running()
    session.text(frame("logs", entries=[{"m": "\x1b[31mno face\x1b[0m\n"}]), now=101)
    assert session.take_messages() == [LogLine("p", "no face")]


def test_forgotten_prompt_is_told_nothing_more():
    session = running()
    session.forget("p")
    session.history_answered("p", 200, history(), now=101)
    assert session.take_messages() == []


# ----------------------------------------------------------------------------------------- a truthful server, bad luck


FINAL = {
    "success": (history(), Succeeded),
    "error": (history(status="error", messages=[["execution_error", {"node_id": "3"}]]), Failed),
    "interrupted": (history(status="error", messages=[["execution_interrupted", {}]]), Interrupted),
    # What vanishes before it starts, while the socket stays open, was dequeued by somebody.
    "gone": (b"{}", Lost | Interrupted),
}


@settings(max_examples=60)
@given(
    end=st.sampled_from(sorted(FINAL)),
    ends_after=st.floats(0, 40),
    luck=st.lists(st.sampled_from(["answer", "fail", "rubbish"]), max_size=12),
    submission=st.sampled_from(["ok", "500", "timeout"]),
    drop_at=st.none() | st.floats(0, 40),
)
def test_truth_is_found_whatever_is_missed(end, ends_after, luck, submission, drop_at):
    """No frame about the prompt ever comes, questions fail, the socket drops: the true end is told, and only once."""
    session, now, told, bad_luck = Session(), 0.0, [], iter(luck)
    session.connected(now=now)
    session.submitting("p", now=now)
    if submission == "timeout":
        session.submission_failed("p", was_sent=True, now=now)
    else:
        session.submission_answered("p", 200 if submission == "ok" else 500, ACCEPTED, now=now)

    def answer(request):
        luck_now = next(bad_luck, "answer")
        has_ended = now >= ends_after
        if luck_now == "fail":
            session.ask_failed(request, now=now)
        elif isinstance(request, AskHistory):
            body = FINAL[end][0] if has_ended else b"{}"
            session.history_answered("p", 200, body if luck_now == "answer" else b"<html>", now=now)
        else:
            body = queue() if has_ended else queue("p")
            session.queue_answered(200, body if luck_now == "answer" else b"<html>", now=now)

    for _ in range(400):
        while requests := [r for r in session.take_requests() if isinstance(r, AskHistory | AskQueue)]:
            for request in requests:
                answer(request)
        told += session.take_messages()
        if outcomes(told):
            break
        deadline = session.next_deadline()
        assert deadline is not None  # never waits for nothing while a prompt lives
        now = max(now, deadline)
        if drop_at is not None and now >= drop_at:
            session.disconnected(now=now)
            drop_at = None
        session.tick(now=now)
    (outcome,) = outcomes(told)
    assert isinstance(outcome, FINAL[end][1])
    assert told[-1] is outcome
    assert now < ends_after + 3 * SILENCE_SECONDS + 12


# ------------------------------------------------------------------------------------------------------------- chaos

PROMPTS = ["p", "q"]
FRAMES = [
    frame("status", status={"exec_info": {"queue_remaining": 1}}),
    frame("feature_flags"),
    frame("logs", entries=[{"m": "x"}]),
    frame("executing", node="3"),
    "rubbish",
    *(
        text
        for prompt_id in PROMPTS
        for text in (
            frame("execution_start", prompt_id=prompt_id),
            frame("execution_cached", prompt_id=prompt_id, nodes=["1"]),
            frame("executing", prompt_id=prompt_id, node="3", display_node="3"),
            frame("executing", prompt_id=prompt_id, node=None),
            frame("progress", prompt_id=prompt_id, node="3", value=1, max=2),
            frame("executed", prompt_id=prompt_id, node="9", output={}),
            frame("execution_success", prompt_id=prompt_id),
            frame("execution_interrupted", prompt_id=prompt_id),
        )
    ),
]
STEPS = st.one_of(
    st.tuples(st.just("text"), st.sampled_from(FRAMES)),
    st.tuples(st.just("binary"), st.sampled_from([b"", struct.pack(">II", 1, 1) + JPEG])),
    st.tuples(
        st.just("history"),
        st.sampled_from(PROMPTS),
        st.sampled_from([b"{}", b"<", history("p"), history("q", "error")]),
    ),
    st.tuples(st.just("queue"), st.sampled_from([queue(), queue("p"), queue("q", pending=["p"]), b"<"])),
    st.tuples(st.just("submitted"), st.sampled_from(PROMPTS), st.sampled_from([200, 400, 401, 500])),
    st.tuples(st.just("unsubmitted"), st.sampled_from(PROMPTS), st.booleans()),
    st.tuples(st.sampled_from(["ask_failed", "dequeued", "adopt"]), st.sampled_from(PROMPTS)),
    st.tuples(st.sampled_from(["connected", "disconnected", "tick", "http_failed"])),
)


def step(session, action, now):
    match action:
        case ("text", text):
            session.text(text, now=now)
        case ("binary", data):
            session.binary(data, now=now)
        case ("history", prompt_id, body):
            session.history_answered(prompt_id, 200, body, now=now)
        case ("queue", body):
            session.queue_answered(200, body, now=now)
        case ("submitted", prompt_id, status):
            session.submission_answered(prompt_id, status, ACCEPTED, now=now)
        case ("unsubmitted", prompt_id, was_sent):
            session.submission_failed(prompt_id, was_sent=was_sent, now=now)
        case ("ask_failed", prompt_id):
            session.ask_failed(AskHistory(prompt_id), now=now)
        case ("dequeued", prompt_id):
            session.dequeued(prompt_id)
        case (name, *_) if name != "adopt":
            getattr(session, name)(now=now)


@settings(max_examples=150)
@given(st.lists(st.tuples(STEPS, st.floats(0, 30)), max_size=40))
def test_chaos_yields_at_most_one_outcome_and_no_exception(actions):
    session, now, told = Session(), 0.0, []
    session.submitting("p", now=now)
    session.adopt("q", now=now)
    for action, seconds in actions:
        now += seconds
        step(session, action, now)
        told += session.take_messages()
        session.take_requests()
    for prompt_id in PROMPTS:
        about = [message for message in told if message.prompt_id == prompt_id]
        ends = [index for index, message in enumerate(about) if isinstance(message, OUTCOMES)]
        assert ends in ([], [len(about) - 1])  # once at most, and nothing after
        assert (prompt_id in session.live_prompts) == (not ends)


@settings(max_examples=150)
@given(st.lists(st.tuples(STEPS, st.floats(0, 30), st.integers(0, 3)), max_size=30))
def test_after_a_mere_step_of_a_counter_nothing_is_asked_and_nothing_is_due_earlier(actions):
    session, now = running(), 100.0
    session.adopt("q", now=now)
    for action, seconds, value in actions:
        now += seconds
        step(session, action, now)
        for prompt_id in PROMPTS:
            session.take_requests()
            before = due(session)
            if session.text(frame("progress", prompt_id=prompt_id, node="3", value=value, max=9), now=now):
                assert session.take_requests() == []
                assert due(session) >= before


def due(session):
    deadline = session.next_deadline()
    return math.inf if deadline is None else deadline


def test_steps_of_a_running_prompts_counter_are_told_apart():
    session = running()
    assert session.text(frame("progress", prompt_id="p", node="3", value=1, max=9), now=101)
    assert session.take_messages() == [NodeProgress("p", "3", 1, 9)]
    assert session.text(frame("progress", prompt_id="p", node="3", value=1, max=9), now=101)
    assert session.take_messages() == []
    session.submitting("q", now=101)
    # The first sign of life of another prompt, whose POST is not answered yet: from now on its silence counts.
    assert not session.text(frame("progress", prompt_id="q", node="3", value=1, max=9), now=102)
    assert not session.text(frame("executing", prompt_id="p", node="4"), now=103)
    assert not session.text("rubbish", now=103)

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comfy import answers
from gateway.comfy.answers import (
    Accepted,
    ErrorReport,
    HistoryEntry,
    NodeFault,
    NotInHistory,
    QueueItem,
    Refused,
    TurnedAway,
    Unclear,
    UploadedFile,
    parse_history,
    parse_queue,
    parse_submission,
)


def body(value):
    return json.dumps(value).encode()


FAULT = {
    "type": "value_not_in_list",
    "message": "Value not in list",
    "details": "x: 'v' not in []",
    "extra_info": {"input_name": "x", "traceback": ["/srv/secret"]},
}
NODE_ERRORS = {"3": {"errors": [FAULT], "dependent_outputs": ["9"], "class_type": "Swap"}}
PARSED_FAULT = NodeFault("3", "Swap", "value_not_in_list", "x", "Value not in list: x: 'v' not in []")


def test_accepted_prompt():
    answer = body({"prompt_id": "p", "number": 3, "node_errors": {}})
    assert parse_submission(200, answer) == Accepted("p", 3.0, ())


def test_200_with_node_errors_keeps_them():
    answer = body({"prompt_id": "p", "number": 3, "node_errors": NODE_ERRORS})
    assert parse_submission(200, answer) == Accepted("p", 3.0, (PARSED_FAULT,))


@pytest.mark.parametrize("kind", ["invalid_prompt", "missing_node_type", "invalid_prompt_id"])
def test_400_is_a_refusal_in_old_and_new_words(kind):
    answer = body({"error": {"type": kind, "message": "m", "details": "d"}, "node_errors": NODE_ERRORS})
    assert parse_submission(400, answer) == Refused(kind, "m d", (PARSED_FAULT,))


def test_413_is_a_refusal():
    assert parse_submission(413, b"Maximum request body size").type == "too_large"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 429])
def test_client_errors_of_proxies_are_no_refusal_of_the_graph(status):
    assert parse_submission(status, b"<html>") == TurnedAway(status)


@pytest.mark.parametrize(
    ("status", "text"), [(500, b"500 Internal"), (502, b""), (408, b""), (200, b"{"), (200, b"[]"), (400, b"<html>")]
)
def test_everything_else_proves_nothing(status, text):
    assert parse_submission(status, text) == Unclear(status)


def test_queue_is_put_in_order_and_loses_secrets():
    def item(number, prompt_id, *more):
        extra = {"client_id": "c", "gateway_job": "j", "auth_token_comfy_org": "secret"}
        return [number, prompt_id, {"1": {}}, extra, ["9"], *more]

    queue = parse_queue(
        200, body({"queue_running": [item(1, "r")], "queue_pending": [item(5, "b", {}), item(-2, "a"), "rubbish", [1]]})
    )
    assert queue.running == (QueueItem("r", 1.0, "c", "j"),)
    assert [each.prompt_id for each in queue.pending] == ["a", "b"]
    assert queue.holds("b")
    assert not queue.holds("c")
    assert "secret" not in repr(queue)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"queue_running":[]}', b'{"queue_running":{},"queue_pending":[]}'])
def test_what_is_no_queue_says_nothing(text):
    assert parse_queue(200, text) is None


def entry(status, messages=(), outputs=None, meta=None):
    return body(
        {
            "p": {
                "prompt": [0, "p", {"1": {"is_changed": 0}}, {}, []],
                "outputs": outputs or {},
                "status": {"status_str": status, "messages": messages},
                "meta": meta or {},
            }
        }
    )


def test_empty_history_means_not_there():
    assert parse_history("p", 200, b"{}") == NotInHistory()


@pytest.mark.parametrize(("status", "text"), [(500, b"{}"), (200, b"[]"), (200, b'{"other":{}}'), (200, b'{"p":1}')])
def test_other_history_says_nothing(status, text):
    assert parse_history("p", status, text) is None


def test_history_of_a_failure_has_no_traceback():
    error = {
        "node_id": "3",
        "node_type": "Swap",
        "exception_type": "ValueError",
        "exception_message": "bad\n",
        "traceback": ["/srv/secret"],
        "current_inputs": {"a": ["/srv/secret"]},
    }
    found = parse_history("p", 200, entry("error", [["execution_start", {}], ["execution_error", error]]))
    assert found == HistoryEntry("p", False, False, ErrorReport("3", "Swap", "ValueError", "bad"), {})


def test_history_with_nan_is_read():
    # Nodes that must always run say so by NaN, and that is kept with the prompt.
    text = entry("success").replace(b'"is_changed": 0', b'"is_changed": NaN')
    assert b"NaN" in text
    assert parse_history("p", 200, text).succeeded


def test_outputs_of_expanded_nodes_are_joined_under_their_display_node():
    def image(name):
        return {"images": [{"filename": name, "subfolder": "", "type": "output"}]}

    meta = {"4.0.1": {"display_node": "4"}, "4.0.2": {"display_node": "4"}}
    found = parse_history("p", 200, entry("success", outputs={"4.0.1": image("a"), "4.0.2": image("b")}, meta=meta))
    assert [file.filename for file in found.outputs["4"].files] == ["a", "b"]


def test_upload_reply_of_old_and_new_servers():
    new = {"name": "a (1).png", "subfolder": "gateway", "type": "input", "asset": {"id": 1}}
    assert answers.parse_upload(200, body(new)) == UploadedFile("a (1).png", "gateway")
    assert answers.parse_upload(200, body(new)).input_value == "gateway/a (1).png"
    assert answers.parse_upload(200, body({"name": "a.png", "subfolder": ""})).input_value == "a.png"
    assert answers.parse_upload(400, b"") is None


def test_embedded_worker_and_comfyui_are_told_apart():
    stats = {"system": {"comfyui_version": "0.3.64", "embedded_worker": "comfygate 0.1.0"}}
    assert answers.parse_system_stats(200, body(stats)).is_embedded_worker
    del stats["system"]["embedded_worker"]
    assert not answers.parse_system_stats(200, body(stats)).is_embedded_worker
    assert answers.parse_system_stats(200, b"<html>") is None


def test_jobs_routes_are_recognised():
    assert answers.parse_jobs_page(200, body({"jobs": [], "pagination": {}}))
    assert not answers.parse_jobs_page(404, b"")
    assert not answers.parse_jobs_page(404, body({"error": "Job not found"}))


@given(st.integers(100, 599), st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_no_answer_makes_parsing_raise(status, data):
    parse_submission(status, data)
    parse_history("p", status, data)
    for parse in (
        parse_queue,
        answers.parse_system_stats,
        answers.parse_features,
        answers.parse_object_info,
        answers.parse_upload,
        answers.parse_jobs_page,
    ):
        parse(status, data)

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comfy.frames import (
    Ending,
    Executed,
    Executing,
    ExecutionCached,
    ExecutionEnded,
    ExecutionStart,
    FeatureFlags,
    Logs,
    NodeState,
    PreviewPicture,
    ProgressState,
    ProgressTick,
    QueueStatus,
    parse_binary,
    parse_text,
)
from gateway.comfy.messages import NodeOutput, OutputFile

JPEG = b"\xff\xd8\xff\xe0picture"
PNG = b"\x89PNG\r\n\x1a\npicture"


def frame(kind, **data):
    return json.dumps({"type": kind, "data": data})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (frame("status", status={"exec_info": {"queue_remaining": 2}}, sid="c"), QueueStatus(2, "c")),
        (frame("status", status={"exec_info": {"queue_remaining": 2}}), QueueStatus(2, None)),
        (frame("feature_flags", max_upload_size=5), FeatureFlags(5)),
        (frame("execution_start", prompt_id="p", timestamp=1), ExecutionStart("p")),
        (frame("execution_cached", prompt_id="p", nodes=["1", 2]), ExecutionCached("p", ("1",))),
        (frame("executing", node="4.0.0.1", display_node="4", prompt_id="p"), Executing("p", "4.0.0.1", "4")),
        (frame("executing", node=None, prompt_id="p"), Executing("p", None, None)),
        (frame("executing", node="3"), Executing(None, "3", "3")),
        (frame("progress", value=1, max=24, prompt_id="p", node="3"), ProgressTick("p", "3", 1.0, 24.0)),
        (frame("execution_success", prompt_id="p"), ExecutionEnded("p", Ending.SUCCESS)),
        (frame("execution_interrupted", prompt_id="p", node_id="3"), ExecutionEnded("p", Ending.INTERRUPTED)),
        (frame("logs", entries=[{"m": "\x1b[0;33mno face\x1b[0m\n\n"}, {"m": 1}], size=None), Logs(("no face",))),
    ],
)
def test_text_frames_are_read(text, parsed):
    assert parse_text(text) == parsed


def test_progress_state_names_display_nodes():
    states = {
        "4": {"value": 0.0, "max": 1.0, "state": "running", "display_node_id": "4"},
        "4.0.0.1": {"value": 2, "max": 2, "state": "finished", "display_node_id": "4"},
        "5": "rubbish",
    }
    assert parse_text(frame("progress_state", prompt_id="p", nodes=states)) == ProgressState(
        "p", (NodeState("4", "4", False, 0.0, 1.0), NodeState("4.0.0.1", "4", True, 2.0, 2.0))
    )


def test_outputs_lose_server_paths_and_keep_what_else_a_node_said():
    gif = {
        "filename": "x-audio.mp4",
        "subfolder": "job",
        "type": "output",
        "format": "video/h264-mp4",
        "workflow": "x.png",
        "fullpath": "/srv/x.mp4",
    }
    output = {"gifs": [gif], "text": ["hello"], "extra": [{"fullpath": "/srv", "n": 1}], "unfinished_batch": [True]}
    assert parse_text(frame("executed", node="9", display_node="9", prompt_id="p", output=output)) == Executed(
        "p",
        NodeOutput(
            "p",
            "9",
            (OutputFile("x-audio.mp4", "job", "output", "gifs", "video/h264-mp4"),),
            {"text": ["hello"], "extra": [{"n": 1}], "unfinished_batch": [True]},
        ),
    )


def test_error_frames_keep_nothing_of_what_they_leak():
    text = frame("execution_error", prompt_id="p", traceback=["/srv/secret"], current_inputs={"a": ["/srv/secret"]})
    assert "secret" not in repr(parse_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "nul",
        '{"type":"status"}',
        frame("VHS_latentpreview", length=3),
        frame("execution_start"),
        frame("execution_start", prompt_id=7),
        frame("executing", node=3, prompt_id="p"),
        frame("progress", value=True, max=1, prompt_id="p", node="3"),
        '{"type":"progress","data":{"value":NaN,"max":1,"prompt_id":"p","node":"3"}}',
        '{"type":"progress","data":{"value":1' + "0" * 400 + ',"max":1,"prompt_id":"p","node":"3"}}',
        '{"type":"status","data":' + "[" * 100_000,
        '{"type":"executed","data":{"\\ud800":1}}',
    ],
)
def test_rubbish_is_ignored(text):
    assert parse_text(text) is None


def test_nan_elsewhere_does_not_hide_a_frame():
    text = '{"type":"execution_start","data":{"prompt_id":"p","x":NaN,"y":-Infinity}}'
    assert parse_text(text) == ExecutionStart("p")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KINDS = [
    "status",
    "feature_flags",
    "execution_start",
    "execution_cached",
    "executing",
    "progress",
    "progress_state",
    "executed",
    "execution_error",
    "logs",
]
FIELDS = ["prompt_id", "node", "nodes", "value", "max", "output", "entries", "status", "sid", "display_node"]


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_data_makes_parsing_raise(kind, data):
    parse_text(json.dumps({"type": kind, "data": data}))


@given(st.binary(max_size=100))
def test_no_bytes_make_parsing_raise(data):
    parse_text(data)
    parse_binary(data)
    parse_binary(struct.pack(">II", 4, 8) + data)


def test_old_previews_are_read_by_their_first_bytes():
    assert parse_binary(struct.pack(">II", 1, 2) + JPEG) == PreviewPicture(None, None, "image/jpeg", JPEG)
    assert parse_binary(struct.pack(">II", 1, 2) + PNG) == PreviewPicture(None, None, "image/png", PNG)


def test_longer_preview_header_of_vhs_is_skipped():
    header = struct.pack(">III16p", 1, 1, 5, b"12")
    assert parse_binary(header + JPEG) == PreviewPicture(None, None, "image/jpeg", JPEG)


def test_preview_with_metadata_names_prompt_and_display_node():
    metadata = json.dumps({"prompt_id": "p", "node_id": "4.0.1", "display_node_id": "4"}).encode()
    data = struct.pack(">II", 4, len(metadata)) + metadata + JPEG
    assert parse_binary(data) == PreviewPicture("p", "4", "image/jpeg", JPEG)


@pytest.mark.parametrize("data", [struct.pack(">II", 3, 1) + JPEG, struct.pack(">II", 1, 1) + b"<svg>", b"\x00" * 7])
def test_what_is_no_picture_is_no_preview(data):
    assert parse_binary(data) is None

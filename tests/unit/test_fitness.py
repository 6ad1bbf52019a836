"""What does not fit between a template and /object_info (``fitness.py``)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from gateway.fitness import check
from gateway.lacks import ProblemKind
from gateway.template import load_template

ROOT = Path(__file__).parents[2]
REAL = json.loads((ROOT / "tests/data/object_info/real.json").read_text(encoding="utf-8"))
VIDEO, IMAGE = "faceswap_video", "faceswap_image"


def texts(name):
    folder = ROOT / "workflows" / name
    return tuple((folder / file).read_text(encoding="utf-8") for file in ("template.toml", "graph.json"))


def shipped(name):
    return load_template(name, *texts(name))


def edited_graph(name, change):
    """The template with its graph changed by ``change(graph)``."""
    toml, graph_text = texts(name)
    graph = json.loads(graph_text)
    change(graph)
    return load_template(name, toml, json.dumps(graph))


def object_info():
    return copy.deepcopy(REAL)


def kinds(problems):
    return {(problem.kind, problem.node, problem.input_name) for problem in problems}


def widen_required(info):
    info["SaveImage"]["input"]["required"]["quality"] = ["INT", {}]


def retype_link(info):
    info["ReActorFaceSwap"]["output"] = ["LATENT", "FACE_MODEL", "IMAGE"]


def shorten_outputs(info):
    info["ReActorFaceSwap"]["output"] = []


def retype_literal(info):
    info["ReActorFaceBoost"]["input"]["required"]["visibility"] = ["STRING", {}]


def retype_parameter(info):
    info["ReActorFaceBoost"]["input"]["required"]["restore_with_main_after"] = ["STRING", {}]


def narrow_range(info):
    info["ReActorFaceSwap"]["input"]["required"]["codeformer_weight"][1]["max"] = 0.25


def narrow_parameter_range(info):
    info["ReActorFaceSwap"]["input"]["required"]["face_restore_visibility"][1]["min"] = 0.5


def save_nothing(info):
    info["SaveImage"]["output_node"] = False


@pytest.mark.parametrize(
    ("plant", "kind", "node", "input_name"),
    [
        (widen_required, ProblemKind.INPUT_MISSING, "Result", "quality"),
        (retype_link, ProblemKind.TYPE_MISMATCH, "Result", "images"),
        (shorten_outputs, ProblemKind.TYPE_MISMATCH, "Result", "images"),
        (retype_literal, ProblemKind.TYPE_MISMATCH, "Face boost", "visibility"),
        (retype_parameter, ProblemKind.TYPE_MISMATCH, "Face boost", "restore_with_main_after"),
        (narrow_range, ProblemKind.OUT_OF_RANGE, "Swap face", "codeformer_weight"),
        (narrow_parameter_range, ProblemKind.OUT_OF_RANGE, "Swap face", "face_restore_visibility"),
        (save_nothing, ProblemKind.NOT_AN_OUTPUT, "Result", None),
    ],
)
def test_what_would_only_show_when_it_runs_is_found(plant, kind, node, input_name):
    info = object_info()
    plant(info)
    assert (kind, node, input_name) in kinds(check(shipped(IMAGE), info))


@pytest.mark.parametrize(
    ("widget", "value", "kind"),
    [
        ("pix_fmt", "yuv999", ProblemKind.VALUE_NOT_OFFERED),
        ("save_metadata", "false", ProblemKind.TYPE_MISMATCH),
        ("trim_to_music", False, ProblemKind.INPUT_UNKNOWN),
    ],
)
def test_format_widgets_are_checked_though_comfyui_does_not(widget, value, kind):
    def change(graph):
        graph["6"]["inputs"][widget] = value

    assert kinds(check(edited_graph(VIDEO, change), REAL)) == {(kind, "Result", widget)}


def test_boolean_as_text_is_found():
    """ComfyUI would cast "false" to true."""

    def change(graph):
        graph["4"]["inputs"]["enabled"] = "false"

    assert kinds(check(edited_graph(IMAGE, change), REAL)) == {(ProblemKind.TYPE_MISMATCH, "Swap face", "enabled")}


def test_boolean_is_no_number():
    def change(graph):
        graph["3"]["inputs"]["visibility"] = True

    assert kinds(check(edited_graph(IMAGE, change), REAL)) == {(ProblemKind.TYPE_MISMATCH, "Face boost", "visibility")}


def test_choices_are_compared_with_their_type():
    def change(graph):
        graph["4"]["inputs"]["console_log_level"] = True

    found = kinds(check(edited_graph(IMAGE, change), REAL))
    assert found == {(ProblemKind.VALUE_NOT_OFFERED, "Swap face", "console_log_level")}


def test_choices_of_v3_nodes_are_read():
    info = object_info()
    info["ReActorFaceSwap"]["input"]["required"]["swap_model"] = ["COMBO", {"options": ["inswapper_128.onnx"]}]
    assert check(shipped(IMAGE), info) == []
    info["ReActorFaceSwap"]["input"]["required"]["swap_model"][1]["options"] = []
    assert kinds(check(shipped(IMAGE), info)) == {(ProblemKind.MODEL_MISSING, "Swap face", "swap_model")}


def test_derived_number_must_go_where_numbers_go():
    info = object_info()
    assert check(shipped("video_creation"), info) == []
    info["ImageFromBatch"]["input"]["required"]["length"] = ["STRING", {}]
    assert (ProblemKind.TYPE_MISMATCH, "Exact length", "length") in kinds(check(shipped("video_creation"), info))


def test_what_stands_in_the_graph_for_a_derived_number_means_nothing():
    folder = ROOT / "workflows" / "video_creation"
    graph = json.loads((folder / "graph.json").read_text())
    next(node for node in graph.values() if node["_meta"]["title"] == "Exact length")["inputs"]["length"] = 99_999
    template = load_template("video_creation", (folder / "template.toml").read_text(), json.dumps(graph))
    assert check(template, object_info()) == []


def test_check_survives_nonsense():
    """What an upstream answers is not ours to trust."""
    nonsense = {"LoadImage": {"input": []}, "SaveImage": {"input": {"required": {"images": []}}}, "ReActorFaceSwap": 3}
    assert ProblemKind.CLASS_MISSING in {problem.kind for problem in check(shipped(IMAGE), nonsense)}

from __future__ import annotations

import pytest

from gateway.embedded.registry import REGISTRY
from gateway.embedded.validation import validate_prompt


@pytest.fixture
def judge(folders):
    return lambda graph, **settings: validate_prompt(graph, REGISTRY, folders, **settings)


@pytest.fixture
def graph(image_graph):
    scale = {"image": ["1", 0], "upscale_method": "bilinear", "scale_by": 0.5}
    image_graph["2"] = {"class_type": "ImageScaleBy", "inputs": scale}
    image_graph["3"]["inputs"]["image"] = ["2", 0]
    return image_graph


def test_valid_graph_names_its_outputs(judge, graph):
    verdict = judge(graph)
    assert verdict.error is None
    assert verdict.outputs == ["9"]
    assert verdict.node_errors == {}


def test_values_are_cast_in_place(judge, graph):
    graph["2"]["inputs"]["scale_by"] = "0.25"
    graph["9"]["inputs"]["filename_prefix"] = 5
    assert judge(graph).error is None
    assert graph["2"]["inputs"]["scale_by"] == 0.25
    assert graph["9"]["inputs"]["filename_prefix"] == "5"


@pytest.mark.parametrize(
    ("name", "value", "kind", "details"),
    [
        ("scale_by", "abc", "invalid_input_type", "scale_by, abc, could not convert string to float: 'abc'"),
        ("scale_by", 0.0, "value_smaller_than_min", "scale_by"),
        ("scale_by", 99, "value_bigger_than_max", "scale_by"),
        ("image", ["1"], "bad_linked_input", "image"),
        ("image", ["1", 1], "return_type_mismatch", "image, received_type(MASK) mismatch input_type(IMAGE)"),
        (
            "upscale_method",
            "nope",
            "value_not_in_list",
            "upscale_method: 'nope' not in ['nearest-exact', 'bilinear', 'area', 'bicubic', 'lanczos']",
        ),
    ],
)
def test_wrong_input_is_named_on_its_node(judge, graph, name, value, kind, details):
    graph["2"]["inputs"][name] = value
    verdict = judge(graph)
    assert verdict.error == {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": "",
        "extra_info": {},
    }
    (error,) = verdict.node_errors["2"]["errors"]
    assert (error["type"], error["details"]) == (kind, details)
    assert error["extra_info"]["input_name"] == name
    assert verdict.node_errors["2"]["dependent_outputs"] == ["9"]
    assert set(verdict.node_errors) == {"2"}


def test_fault_on_the_output_itself_is_in_the_details(judge, graph):
    del graph["9"]["inputs"]["filename_prefix"]
    verdict = judge(graph)
    assert verdict.error["details"] == "Required input is missing: filename_prefix"


@pytest.mark.parametrize("name", ["nothere.png", "/etc/hostname", "../input/pic.png/x", "../../etc/hostname"])
def test_file_that_is_not_in_the_folders_is_invalid(judge, graph, name):
    graph["1"]["inputs"]["image"] = name
    (error,) = judge(graph).node_errors["1"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert error["details"] == f"image - Invalid image file: {name}"


@pytest.mark.parametrize(("link", "details"), [(["77", 0], "'77'"), (["1", 7], "tuple index out of range")])
def test_dangling_link_is_an_inner_exception_of_the_node_that_has_it(judge, graph, link, details):
    graph["2"]["inputs"]["image"] = link
    (error,) = judge(graph).node_errors["2"]["errors"]
    assert (error["type"], error["details"]) == ("exception_during_inner_validation", details)


def test_dangling_link_of_an_output_is_an_exception_of_its_own(judge, graph):
    graph["9"]["inputs"]["images"] = ["77", 0]
    verdict = judge(graph)
    assert verdict.error["details"] == "Exception when validating node: '77'"
    assert verdict.node_errors["9"]["errors"][0]["type"] == "exception_during_validation"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_type": "Nope"}, "Cannot execute because node Nope does not exist."),
        (None, "Cannot execute because a node is missing the class_type property."),
    ],
)
def test_unknown_class_is_refused_though_nothing_depends_on_it(judge, graph, change, message):
    graph["99"] = change or {"inputs": {}}
    assert judge(graph).error == {
        "type": "invalid_prompt",
        "message": message,
        "details": "Node ID '#99'",
        "extra_info": {},
    }
    newer = judge(graph, named_graph_errors=True).error
    assert newer["type"] == "missing_node_type"
    assert newer["extra_info"]["node_id"] == "99"


def test_cycle_names_no_node_on_old_servers_and_all_of_it_on_newer_ones(judge, graph):
    graph["2"]["inputs"]["image"] = ["3", 0]
    old = judge(graph)
    assert (old.error["type"], old.node_errors) == ("prompt_outputs_failed_validation", {})
    newer = judge(graph, named_graph_errors=True)
    assert newer.node_errors["9"]["errors"][0]["type"] == "dependency_cycle"


@pytest.mark.parametrize("empty", [{}, {"1": {"class_type": "LoadImage", "inputs": {"image": "x"}}}])
def test_graph_without_outputs_is_refused(judge, empty):
    assert judge(empty).error["type"] == "prompt_no_outputs"


def test_targets_choose_among_outputs(judge, graph):
    graph["8"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    assert judge(graph, targets=["8"]).outputs == ["8"]
    assert judge(graph, targets=["1"]).error["type"] == "prompt_no_outputs"


def test_one_invalid_output_beside_a_valid_one_is_accepted_with_node_errors(judge, graph):
    graph["8"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}
    verdict = judge(graph)
    assert verdict.error is None
    assert verdict.outputs == ["9"]
    assert verdict.node_errors["8"]["errors"][0]["type"] == "required_input_missing"
    assert verdict.node_errors["8"]["dependent_outputs"] == ["8"]


def test_invalid_node_that_no_output_needs_is_ignored(judge, graph):
    graph["99"] = {"class_type": "LoadImage", "inputs": {"image": "nothere.png"}}
    assert judge(graph).error is None


def test_model_lists_hold_the_preview_model_and_nothing_else(folders):
    for name in ("ReActorFaceSwap", "ReActorFaceSwapOpt", "GatewayCpuFaceSwap"):
        required = REGISTRY[name].object_info(folders)["input"]["required"]
        assert required["swap_model"][0] == ["cpu-preview"]
    assert REGISTRY["ReActorFaceSwap"].object_info(folders)["input"]["required"]["face_restore_model"][0] == ["none"]

"""A client's own graph from what was sent to what an upstream gets (``workflow.py``)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from gateway.binding import as_dispatched, bind
from gateway.comfy.graph import allowed_values
from gateway.errors import TemplateError, WorkflowError
from gateway.interfaces import Capabilities
from gateway.lacks import missing_on
from gateway.pricing import Pricing
from gateway.template import load_template
from gateway.workflow import (
    NodeRules,
    Workflow,
    file_references,
    judge,
    read_workflow,
    requirement_of_workflow,
    resolved,
    template_of,
)

ROOT = Path(__file__).parents[2]
REAL = json.loads((ROOT / "tests/data/object_info/real.json").read_text(encoding="utf-8"))
FACESWAP = json.loads((ROOT / "workflows/faceswap_video/graph.json").read_text(encoding="utf-8"))
PREFIX = "gateway/8d6f/out"
PREVIEW_INPUT = {"required": {"images": ["IMAGE"]}, "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}}


def upstream(change=None):
    info = copy.deepcopy(REAL)
    if change is not None:
        change(info)
    return Capabilities({name: allowed_values(entry) for name, entry in info.items()}, None, info)


FULL = upstream()


def still(image="photo.png", **inputs):
    """Load, save."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}, "_meta": {"title": "Photo"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "mine"} | inputs},
    }


def accepted(graph, known=(FULL,)):
    """As a job keeps it, with the roles that the engine gives."""
    draft = read_workflow(graph)
    references = file_references(draft, known)
    judge(draft, {str(number): each for number, each in enumerate(known)}, NodeRules())
    return resolved(draft, {each.at: f"file-{number}" for number, each in enumerate(references, 1)}, known)


def bound(workflow, capabilities=FULL, **changes):
    inputs = {role: f"gateway/{role}.png" for role in workflow.files}
    arguments = {"inputs": inputs, "parameters": {}, "output_prefix": PREFIX, "capabilities": capabilities} | changes
    return bind(template_of(workflow, Pricing(1)), **arguments)


# ------------------------------------------------------------------------------------------------------------ binding


def test_file_and_prefix_are_ours_and_the_rest_is_the_clients():
    graph = bound(accepted(still())).graph
    assert graph == {
        "1": {"class_type": "LoadImage", "inputs": {"image": "gateway/file-1.png"}, "_meta": {"title": "Photo"}},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": f"{PREFIX}/2"},
            "_meta": {"title": "SaveImage"},
        },
    }


def test_asset_stands_wherever_it_was_put():
    reference = {"__type": "core/ASSET", "info": {"id": "a-1", "hash": "blake3:00"}}
    workflow = accepted(still(reference))
    assert workflow.files == {"file-1": ("1", "image")}
    assert bound(workflow).graph["1"]["inputs"] == {"image": "gateway/file-1.png"}
    assert workflow.graph["1"]["inputs"]["image"] == reference


def test_what_the_client_calls_its_files_is_kept_and_each_node_writes_to_its_own_prefix():
    graph = still() | {"9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../../x"}}}
    workflow = accepted(graph)
    assert workflow.prefixes == {"2": ("filename_prefix", "mine"), "9": ("filename_prefix", "../../x")}
    sent = bound(workflow).graph
    assert [sent[each]["inputs"]["filename_prefix"] for each in ("2", "9")] == [f"{PREFIX}/2", f"{PREFIX}/3"]


def test_previews_are_never_those_of_an_earlier_attempt_and_no_client_says_which_are():
    """ComfyUI would show it the same file from its cache, and that file may be deleted by then."""
    preview = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0], "gateway_attempt": "gateway/theirs/out"}}
    with_preview = upstream(lambda info: info.setdefault("PreviewImage", info["SaveImage"] | {"input": PREVIEW_INPUT}))
    workflow = accepted(still() | {"3": preview}, (with_preview,))
    sent = [bound(workflow, with_preview, output_prefix=f"gateway/{number}/out").graph for number in (1, 2)]
    assert [graph["3"]["inputs"] for graph in sent] == [
        {"images": ["1", 0], "gateway_attempt": "gateway/1/out"},
        {"images": ["1", 0], "gateway_attempt": "gateway/2/out"},
    ]
    assert "gateway_attempt" not in {**sent[0]["1"]["inputs"], **sent[0]["2"]["inputs"]}


def test_prefix_that_is_left_out_is_ours_too():
    graph = still()
    del graph["2"]["inputs"]["filename_prefix"]
    workflow = accepted(graph)
    assert workflow.prefixes == {"2": ("filename_prefix", "ComfyUI")}
    assert bound(workflow).graph["2"]["inputs"]["filename_prefix"] == f"{PREFIX}/2"


def test_nodes_that_run_nowhere_are_not_sent_and_their_files_not_asked_for():
    graph = still() | {"7": {"class_type": "LoadImage", "inputs": {"image": "/etc/passwd"}}}
    workflow = accepted(graph)
    assert list(workflow.files.values()) == [("1", "image")]
    assert set(bound(workflow).graph) == {"1", "2"}
    assert workflow.graph == graph


def test_what_is_no_part_of_a_node_is_not_sent():
    graph = still()
    graph["1"] |= {"is_changed": ["stale"], "widgets_values": [1], "pos": [0, 0]}
    assert set(bound(accepted(graph)).graph["1"]) == {"class_type", "inputs", "_meta"}


def test_graph_to_follow_is_the_one_that_runs_without_files():
    workflow = accepted(still({"__type": "core/ASSET", "info": {"id": "a-1"}}))
    template = template_of(workflow, Pricing())
    followed = as_dispatched(template, {}, FULL)
    assert {key: node["class_type"] for key, node in followed.graph.items()} == {"1": "LoadImage", "2": "SaveImage"}
    assert followed.graph["1"]["inputs"] == {}
    assert followed.titles == {"1": "Photo", "2": "SaveImage"}
    assert followed.outputs == {}


@pytest.mark.parametrize("staged", ["/etc/passwd", "../x.png", "x\n.png", "", "c:/x.png"])
def test_name_that_was_not_staged_is_not_written(staged):
    with pytest.raises(TemplateError, match="no name of a staged file"):
        bound(accepted(still()), inputs={"file-1": staged})


def test_role_that_is_missing_or_unknown_is_not_bound():
    with pytest.raises(TemplateError, match="no file was staged"):
        bound(accepted(still()), inputs={})
    with pytest.raises(TemplateError, match="has no input"):
        bound(accepted(still()), inputs={"file-1": "a.png", "file-2": "b.png"})


def test_prefix_that_is_no_plain_name_is_not_written():
    with pytest.raises(TemplateError, match="output prefix"):
        bound(accepted(still()), output_prefix="../x")


# -------------------------------------------------------------------------------------------------------------- lacks


def test_upstream_that_takes_a_file_where_none_of_the_job_goes_lacks_something():
    """A pack that is installed later may make a file of what was a word."""

    def odd(info):
        info["SaveImage"]["input"]["required"]["filename_prefix"] = [["a.png", "mine"], {"image_upload": True}]

    template = template_of(accepted(still()), Pricing())
    assert missing_on(template, FULL) == ()
    (sentence,) = missing_on(template, upstream(odd))
    assert "filename_prefix" in sentence
    assert "asset" in sentence


def test_upstream_without_the_class_or_the_choice_lacks_it_by_name():
    graph = json.loads(json.dumps(FACESWAP))
    template = template_of(accepted(graph), Pricing())

    def poor(info):
        del info["ReActorFaceBoost"]
        info["ReActorFaceSwap"]["input"]["required"]["swap_model"][0] = ["reswapper_128.onnx"]

    sentences = missing_on(template, upstream(poor))
    assert any("ReActorFaceBoost" in each and "no such node class" in each for each in sentences)
    assert any("'swap_model'" in each and "inswapper_128.onnx" in each for each in sentences)
    assert missing_on(template, FULL) == ()


def test_what_an_upstream_lacks_tells_nothing_that_another_client_wrote():
    """The answer for one graph is kept for all of the same requirement, whoever they are of."""
    graph = still()
    graph["1"]["_meta"] = {"title": "my secret"}
    template = template_of(accepted(graph), Pricing())
    assert "secret" not in " ".join(missing_on(template, upstream(lambda info: info.pop("LoadImage"))))


# -------------------------------------------------------------------------------------------------------- requirement


def changed(change):
    graph = json.loads(json.dumps(FACESWAP))
    change({node["class_type"]: node for node in graph.values()})
    return requirement_of_workflow(accepted(graph))


def test_requirement_is_the_same_whatever_words_numbers_and_files():
    plain = changed(lambda nodes: None)
    assert plain.startswith("workflow@")
    assert len(plain) == len("workflow@") + 16
    assert changed(lambda nodes: nodes["ReActorFaceSwap"]["inputs"].update(codeformer_weight=0.7)) == plain
    assert changed(lambda nodes: nodes["ReActorFaceSwap"]["inputs"].update(input_faces_index="1,2")) == plain
    assert changed(lambda nodes: nodes["LoadImage"]["inputs"].update(image="another.png")) == plain
    assert changed(lambda nodes: nodes["VHS_VideoCombine"]["inputs"].update(filename_prefix="x")) == plain
    assert changed(lambda nodes: nodes["LoadImage"].update(_meta={"title": "x"})) == plain


def test_requirement_differs_with_choices_links_and_inputs():
    plain = changed(lambda nodes: None)
    others = {
        changed(lambda nodes: nodes["ReActorFaceSwap"]["inputs"].update(swap_model="reswapper_128.onnx")),
        changed(lambda nodes: nodes["VHS_VideoCombine"]["inputs"].update(pix_fmt="yuv420p10le")),
        changed(lambda nodes: nodes["VHS_VideoCombine"]["inputs"].pop("audio")),
        changed(lambda nodes: nodes["ReActorFaceSwap"]["inputs"].pop("face_boost")),
    }
    assert len(others - {plain}) == 4


def test_number_that_some_upstream_refuses_is_part_of_the_requirement():
    """Or the answer for a job that it would take would be given for one that it would not."""

    def narrow(info):
        info["ReActorFaceSwap"]["input"]["required"]["codeformer_weight"][1]["max"] = 0.6

    pool = (FULL, upstream(narrow))

    def requirement(weight):
        graph = json.loads(json.dumps(FACESWAP))
        next(n for n in graph.values() if n["class_type"] == "ReActorFaceSwap")["inputs"]["codeformer_weight"] = weight
        return requirement_of_workflow(accepted(graph, pool))

    assert requirement(0.5) == requirement(0.4)
    assert requirement(0.9) != requirement(0.5)


def test_template_requires_what_its_workflow_requires():
    workflow = accepted(still())
    assert template_of(workflow, Pricing()).requirement == requirement_of_workflow(workflow)


def test_job_keeps_all_of_it():
    workflow = accepted(still({"__type": "core/ASSET", "info": {"id": "a-1"}}, note="ü🌌"))
    again = Workflow.from_json(workflow.to_json())
    assert again == workflow
    assert bound(again).graph == bound(workflow).graph


def test_two_places_never_share_a_role():
    draft = read_workflow(still())
    with pytest.raises(ValueError, match="role of its own"):
        resolved(draft, {("1", "image"): "file-1", ("2", "x"): "file-1"}, [FULL])


def test_no_template_on_disk_is_called_what_clients_graphs_are():
    folder = ROOT / "workflows/faceswap_image"
    texts = (folder / "template.toml").read_text(), (folder / "graph.json").read_text()
    with pytest.raises(TemplateError, match="choose another name"):
        load_template("workflow", *texts)
    with pytest.raises(TemplateError, match="choose another name"):
        load_template("mine", texts[0].replace('task = "face_swap"', 'task = "workflow"'), texts[1])


def test_shipped_graphs_are_workflows_too():
    for path in ROOT.glob("workflows/*/graph.json"):
        graph = json.loads(path.read_text(encoding="utf-8"))
        draft = read_workflow(graph)
        assert draft.graph == graph
        for node in draft.nodes.values():
            assert NodeRules().permits(node.class_type), node.class_type
    assert accepted(FACESWAP).files == {"file-1": ("1", "video"), "file-2": ("2", "image")}


def test_error_can_be_read_by_a_program():
    graph = still()
    del graph["2"]["inputs"]["images"]
    with pytest.raises(WorkflowError) as caught:
        accepted(graph)
    assert caught.value.code == "invalid_workflow"
    assert caught.value.message == "Node 2 (SaveImage): input 'images': it is required and not linked."
    assert caught.value.details == {
        "node_errors": {
            "2": [{"field": "images", "reason": "missing_input", "message": "it is required and not linked"}]
        },
        "upstreams": {"0": ["node 2 (SaveImage): input 'images': it is required and not linked"]},
    }

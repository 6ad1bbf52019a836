"""Loading a template, and what an upstream lacks for it (``template.py``)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from gateway.audit import Keeps, MediaKind
from gateway.comfy.graph import allowed_values
from gateway.errors import TemplateError
from gateway.fitness import check
from gateway.interfaces import Capabilities
from gateway.lacks import ProblemKind, missing_on
from gateway.template import load_template

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.name for path in (ROOT / "workflows").iterdir() if path.is_dir())
REAL = json.loads((ROOT / "tests/data/object_info/real.json").read_text(encoding="utf-8"))
GIF, VIDEO, IMAGE = "faceswap_gif", "faceswap_video", "faceswap_image"


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


def edited_toml(name, old, new):
    toml, graph = texts(name)
    assert old in toml
    return load_template(name, toml.replace(old, new, 1), graph)


def set_choices(info, node_class, input_name, values):
    info[node_class]["input"]["required"][input_name][0] = values


def object_info(*, swap=None, restore=None):
    """The recorded entries, with other model files lying there."""
    info = copy.deepcopy(REAL)
    if swap is not None:
        set_choices(info, "ReActorFaceSwap", "swap_model", swap)
    if restore is not None:
        set_choices(info, "ReActorFaceSwap", "face_restore_model", restore)
        set_choices(info, "ReActorFaceBoost", "boost_model", restore)
    return info


def capabilities(info):
    return Capabilities({name: allowed_values(entry) for name, entry in info.items()}, None, info)


def kinds(problems):
    return {(problem.kind, problem.node, problem.input_name) for problem in problems}


# ------------------------------------------------------------------------------------------------- what comes with us


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_templates_fit_recorded_nodes(name):
    template = shipped(name)
    assert check(template, REAL) == []
    assert missing_on(template, capabilities(REAL)) == ()


@pytest.mark.parametrize("name", [GIF, VIDEO, IMAGE])
@pytest.mark.parametrize(
    ("swap", "restore"),
    [
        (["inswapper_128_fp16.onnx"], ["none", "GFPGANv1.3.pth"]),
        (["reswapper_256.onnx"], ["none"]),
        (["hyperswap_1c_256.onnx"], ["none", "codeformer-v0.1.0.pth"]),
        (["cpu-preview"], ["none"]),
    ],
)
def test_shipped_templates_make_do_with_few_models(name, swap, restore):
    info = object_info(swap=swap, restore=restore)
    assert check(shipped(name), info) == []
    assert missing_on(shipped(name), capabilities(info)) == ()


def test_video_template_says_what_it_is():
    template = shipped(VIDEO)
    output = template.outputs["result"]
    assert (template.task, template.swaps_faces, template.swap_nodes) == ("face_swap", True, ("4",))
    assert template.inputs["target"].entry.accepts == {MediaKind.VIDEO}
    assert (output.node_id, output.title, output.kind, output.crf) == ("6", "Result", MediaKind.VIDEO, 20)
    assert output.keeps == set(Keeps)
    assert output.swaps_faces
    assert template.titles["4"] == "Swap face"


def test_gif_template_says_what_it_is():
    template = shipped(GIF)
    output = template.outputs["result"]
    assert (template.task, template.swaps_faces, template.swap_nodes) == ("face_swap", True, ("4",))
    assert template.inputs["target"].entry.accepts == {MediaKind.GIF}
    assert (output.node_id, output.title, output.kind, output.crf) == ("5", "Result", MediaKind.GIF, None)
    assert output.keeps == {Keeps.FRAMES, Keeps.SIZE, Keeps.FPS}


@pytest.mark.parametrize("name", [GIF, VIDEO, IMAGE])
def test_shipped_graphs_leave_no_option_of_the_swap_to_chance(name):
    """ReActor keeps options on its node objects, so one that a graph leaves out may be another job's."""
    for node in shipped(name).nodes.values():
        sections = REAL[node.class_type]["input"]
        assert sections["required"].keys() <= node.inputs.keys()
        if node.class_type == "ReActorFaceSwap":
            assert {"source_image", "face_boost"} <= node.inputs.keys()


def test_shipped_video_graph_keeps_rate_sound_and_secrets():
    nodes = {node.title: node for node in shipped(VIDEO).nodes.values()}
    assert nodes["Target video"].inputs["force_rate"] == 0
    assert nodes["Target video"].inputs["format"] == "None"
    result = nodes["Result"].inputs
    assert (result["save_metadata"], result["trim_to_audio"], result["pix_fmt"]) == (False, False, "yuv420p")
    assert (result["frame_rate"].node_id, result["frame_rate"].slot) == (nodes["Target facts"].id, 0)
    assert (result["audio"].node_id, result["audio"].slot) == (nodes["Target video"].id, 2)


@pytest.mark.parametrize("name", [GIF, VIDEO, IMAGE])
def test_every_model_that_is_preferred_has_its_licence_named(name):
    template = shipped(name)
    named = {licence.model for licence in template.licences}
    for model in ("inswapper_128*", "buffalo_l", "reswapper*", "hyperswap*", "GPEN-BFR-*", "GFPGANv1.*", "codeformer*"):
        assert model in named
    assert not next(licence for licence in template.licences if licence.model == "buffalo_l").commercial


def test_version_changes_with_either_file():
    toml, graph = texts(IMAGE)
    versions = {
        load_template(IMAGE, toml, graph).version,
        load_template(IMAGE, toml + "\n", graph).version,
        load_template(IMAGE, toml, graph + "\n").version,
    }
    assert len(versions) == 3
    assert load_template(IMAGE, toml, graph).version in versions


# ------------------------------------------------------------------------------------------------- what is refused


def refusal(make, *args):
    with pytest.raises(TemplateError) as caught:
        make(*args)
    return caught.value


def test_lost_title_is_named():
    error = refusal(edited_graph, VIDEO, lambda graph: graph["4"].pop("_meta"))
    assert (error.template, error.node) == (VIDEO, "Swap face")
    assert "no node of this title" in error.reason


def test_title_that_two_nodes_bear_is_refused():
    def twice(graph):
        graph["2"]["_meta"]["title"] = "Target image"

    error = refusal(edited_graph, IMAGE, twice)
    assert error.node == "Target image"
    assert "1, 2" in error.reason


def test_editor_format_is_recognized():
    error = refusal(load_template, IMAGE, texts(IMAGE)[0], json.dumps({"nodes": [], "links": [], "version": 0.4}))
    assert "Save (API format)" in error.reason


def test_input_that_graph_does_not_have_is_named():
    def rename(graph):
        graph["4"]["inputs"]["model"] = graph["4"]["inputs"].pop("swap_model")

    error = refusal(edited_graph, IMAGE, rename)
    assert (error.node, error.input_name) == ("Swap face", "swap_model")


def test_linked_input_cannot_be_bound():
    def link(graph):
        graph["5"]["inputs"]["filename_prefix"] = ["4", 0]

    error = refusal(edited_graph, IMAGE, link)
    assert (error.node, error.input_name) == ("Result", "filename_prefix")
    assert "linked" in error.reason


def test_node_may_be_named_by_id_where_it_has_no_title():
    toml, graph = texts(IMAGE)
    by_id = toml.replace('node = "Target image"', 'node_id = "1"')
    untitled = json.loads(graph)
    untitled["1"].pop("_meta")
    assert load_template(IMAGE, by_id, json.dumps(untitled)).inputs["target"].place.node_id == "1"


def test_crf_must_be_that_of_the_graph():
    error = refusal(edited_toml, VIDEO, "crf = 20", "crf = 18")
    assert (error.node, "18" in error.reason, "20" in error.reason) == ("Result", True, True)


@pytest.mark.parametrize(
    "kind",
    ["type = 'string'\ndefault = 'x'\npattern = '.*'", "type = 'choice'\nchoices_from = 'object_info'\nprefer = ['*']"],
)
@pytest.mark.parametrize(("node", "input_name"), [("Target image", "image"), ("Result", "filename_prefix")])
def test_parameter_may_not_name_a_file(kind, node, input_name):
    """LoadImage reads any path of the host and lists what others uploaded; nothing that a client says may get there."""
    toml, graph = texts(IMAGE)
    extra = f"[parameters.any]\nnode = '{node}'\ninput = '{input_name}'\n{kind}\n"
    error = refusal(load_template, IMAGE, f"{toml}\n{extra}", graph)
    assert "names a file" in error.reason


@pytest.mark.parametrize("name", ["../x", "A", "", "-x", "x" * 65, "x/y"])
def test_name_that_is_no_folder_name_is_refused(name):
    refusal(load_template, name, *texts(IMAGE))


@pytest.mark.parametrize("graph", ["", "[]", "{}", '{"1": {}}', '{"1": 1, "1": 2}', "NaN"])
def test_broken_graph_is_refused(graph):
    assert "graph.json" in refusal(load_template, IMAGE, texts(IMAGE)[0], graph).reason


# --------------------------------------------------------------------------------------------- against an upstream


def drop_class(info):
    del info["ReActorFaceBoost"]


def drop_model(info):
    set_choices(info, "ReActorFaceSwap", "swap_model", ["other.onnx"])


def drop_enum_value(info):
    set_choices(info, "VHS_VideoCombine", "format", ["video/h264"])


def drop_parameter_choice(info):
    set_choices(info, "ReActorFaceSwap", "detect_gender_input", ["no", "female"])


def rename_parameter_input(info):
    required = info["ReActorFaceSwap"]["input"]["required"]
    required["restore_model"] = required.pop("face_restore_model")


def rename_linked_input(info):
    optional = info["VHS_VideoCombine"]["input"]["optional"]
    optional["sound"] = optional.pop("audio")


def rename_file_input(info):
    required = info["VHS_LoadVideo"]["input"]["required"]
    required["file"] = required.pop("video")


PLANTED_FOR_BOTH = [
    (drop_class, ProblemKind.CLASS_MISSING, "Face boost", None),
    (drop_model, ProblemKind.MODEL_MISSING, "Swap face", "swap_model"),
    (drop_enum_value, ProblemKind.VALUE_NOT_OFFERED, "Result", "format"),
    (drop_parameter_choice, ProblemKind.VALUE_NOT_OFFERED, "Swap face", "detect_gender_input"),
    (rename_parameter_input, ProblemKind.INPUT_UNKNOWN, "Swap face", "face_restore_model"),
    (rename_linked_input, ProblemKind.INPUT_UNKNOWN, "Result", "audio"),
    (rename_file_input, ProblemKind.INPUT_UNKNOWN, "Target video", "video"),
]


@pytest.mark.parametrize(("plant", "kind", "node", "input_name"), PLANTED_FOR_BOTH)
def test_what_an_upstream_lacks_is_found_and_named(plant, kind, node, input_name):
    info = object_info()
    plant(info)
    template = shipped(VIDEO)
    assert (kind, node, input_name) in kinds(check(template, info))
    sentences = missing_on(template, capabilities(info))
    assert any(repr(node) in sentence and (input_name or "") in sentence for sentence in sentences)


def test_model_that_a_job_asks_for_must_be_there():
    template, there = shipped(IMAGE), capabilities(REAL)
    assert missing_on(template, there, {"swap_model": "reswapper_128.onnx"}) == ()
    (sentence,) = missing_on(template, there, {"swap_model": "reswapper_256.onnx"})
    assert "reswapper_256.onnx" in sentence

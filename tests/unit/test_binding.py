"""Parameters checked, graphs filled (``binding.py``)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import MediaFacts, MediaKind
from gateway.binding import bind, check_parameters
from gateway.comfy.graph import allowed_values, parse_graph
from gateway.errors import InvalidInputError, TemplateError
from gateway.interfaces import Capabilities
from gateway.template import load_template

ROOT = Path(__file__).parents[2]
REAL = json.loads((ROOT / "tests/data/object_info/real.json").read_text(encoding="utf-8"))
STAGED = {"target": "gateway/0a1b.mp4", "face": "gateway/2c3d.png"}
PREFIX = "gateway/8d6f/out"
#: What stands in the shipped graphs where files and prefixes go.
PLACEHOLDERS = {"target.mp4", "target.png", "face.png", "faceswap"}


def shipped(name):
    folder = ROOT / "workflows" / name
    return load_template(name, (folder / "template.toml").read_text(), (folder / "graph.json").read_text())


GIF, VIDEO, IMAGE = shipped("faceswap_gif"), shipped("faceswap_video"), shipped("faceswap_image")


def upstream(swap=None, restore=None):
    """Capabilities of one with these model files."""
    info = copy.deepcopy(REAL)
    if swap is not None:
        info["ReActorFaceSwap"]["input"]["required"]["swap_model"][0] = swap
    if restore is not None:
        info["ReActorFaceSwap"]["input"]["required"]["face_restore_model"][0] = restore
        info["ReActorFaceBoost"]["input"]["required"]["boost_model"][0] = restore
    return Capabilities({name: allowed_values(entry) for name, entry in info.items()}, None, info)


FULL = upstream()


def bound_to(capabilities=FULL, template=VIDEO, parameters=None, **changes):
    arguments = {"inputs": STAGED, "output_prefix": PREFIX} | changes
    return bind(
        template, parameters=check_parameters(template, parameters or {}), capabilities=capabilities, **arguments
    )


def inputs_of(bound, title):
    node_id = next(key for key, name in bound.titles.items() if name == title)
    return bound.graph[node_id]["inputs"]


# -------------------------------------------------------------------------------------------------- parameters


def test_defaults_complete_what_is_left_open():
    assert check_parameters(IMAGE, {"source_faces": None}) == {
        "face_restore_visibility": 1.0,
        "restore_after_boost": False,
        "target_faces": "0",
        "source_faces": "0",
        "target_gender": "no",
        "source_gender": "no",
        "enable_face_enhancer": True,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unknown", 1),
        ("face_restore_visibility", "0.5"),
        ("face_restore_visibility", True),
        ("face_restore_visibility", 0.05),
        ("face_restore_visibility", 1.5),
        ("face_restore_visibility", float("nan")),
        ("face_restore_visibility", float("inf")),
        ("restore_after_boost", 1),
        ("restore_after_boost", "true"),
        ("target_faces", 0),
        ("target_faces", "0, 1"),
        ("target_faces", "0,"),
        ("target_faces", "٣"),
        ("target_faces", "0\n"),
        ("target_faces", "../../x"),
        ("target_faces", ",".join(["1"] * 40)),
        ("target_gender", "No"),
        ("target_gender", ["no"]),
        ("swap_model", 3),
        ("swap_model", "x" * 300),
        ("swap_model", "x\x00.onnx"),
    ],
)
def test_value_that_is_not_allowed_names_its_field(name, value):
    with pytest.raises(InvalidInputError) as caught:
        check_parameters(IMAGE, {name: value})
    assert caught.value.field == name


def test_what_a_job_must_say_is_missed_by_name():
    folder = ROOT / "workflows" / "faceswap_image"
    toml = (folder / "template.toml").read_text()
    assert "default = 1.0\n" in toml
    template = load_template(
        "strict", toml.replace("default = 1.0\n", "required = true\n"), (folder / "graph.json").read_text()
    )
    for nothing in ({}, {"face_restore_visibility": None}):
        with pytest.raises(InvalidInputError) as caught:
            check_parameters(template, nothing)
        assert caught.value.field == "face_restore_visibility"
    assert check_parameters(template, {"face_restore_visibility": 0.5})["face_restore_visibility"] == 0.5


def test_checked_parameters_pass_again_unchanged():
    """They are stored with the job and checked once more when it runs."""
    checked = check_parameters(IMAGE, {"target_faces": "1,0", "swap_model": "reswapper_128.onnx"})
    assert check_parameters(IMAGE, json.loads(json.dumps(checked))) == checked


def test_model_that_nobody_has_is_refused_before_the_job_waits_for_it():
    preview = upstream(["cpu-preview"], ["none"])
    assert check_parameters(IMAGE, {"swap_model": "reswapper_128.onnx"}, offered=[preview, FULL])
    with pytest.raises(InvalidInputError, match="cpu-preview") as caught:
        check_parameters(IMAGE, {"swap_model": "reswapper_128.onnx"}, offered=[preview])
    assert caught.value.field == "swap_model"


# ------------------------------------------------------------------------------------------------------- binding


def test_files_prefix_and_parameters_arrive():
    bound = bound_to(parameters={"target_faces": "1,0", "restore_after_boost": True, "face_restore_visibility": 0.5})
    assert inputs_of(bound, "Target video")["video"] == STAGED["target"]
    assert inputs_of(bound, "Face photo")["image"] == STAGED["face"]
    assert inputs_of(bound, "Result")["filename_prefix"] == PREFIX
    swap = inputs_of(bound, "Swap face")
    assert (swap["input_faces_index"], swap["face_restore_visibility"]) == ("1,0", 0.5)
    assert inputs_of(bound, "Face boost")["restore_with_main_after"] is True
    assert set(bound.outputs) == {"6"}
    assert bound.swap_nodes == ("4",)


@pytest.mark.parametrize(
    ("swap", "restore", "models", "boosts"),
    [
        (None, None, ("inswapper_128.onnx", "GFPGANv1.4.pth", "GPEN-BFR-512.onnx"), True),
        (
            ["inswapper_128_fp16.onnx"],
            ["none", "GFPGANv1.3.pth"],
            ("inswapper_128_fp16.onnx", "GFPGANv1.3.pth", "none"),
            False,
        ),
        (["cpu-preview"], ["none"], ("cpu-preview", "none", "none"), False),
        (
            ["hyperswap_1b_256.onnx", "hyperswap_1a_256.onnx"],
            ["none"],
            ("hyperswap_1a_256.onnx", "none", "none"),
            False,
        ),
        (
            ["reswapper_128.onnx"],
            ["none", "GPEN-BFR-2048.onnx"],
            ("reswapper_128.onnx", "none", "GPEN-BFR-2048.onnx"),
            True,
        ),
    ],
)
def test_first_preference_that_is_there_wins(swap, restore, models, boosts):
    bound = bound_to(upstream(swap, restore))
    assert tuple(bound.models[name] for name in ("swap_model", "face_restore_model", "boost_model")) == models
    boost = inputs_of(bound, "Face boost")
    assert (boost["boost_model"], boost["enabled"]) == (models[2], boosts)
    assert inputs_of(bound, "Swap face")["swap_model"] == models[0]


def test_substitutions_are_told_and_choices_are_not():
    assert bound_to().substitutions == ()
    preview = bound_to(upstream(["cpu-preview"], ["none"]))
    assert len(preview.substitutions) == 3
    assert "cpu-preview" in preview.substitutions[0]
    assert bound_to(parameters={"swap_model": "reswapper_128.onnx"}).substitutions == ()


def test_boost_that_is_declined_is_off():
    assert inputs_of(bound_to(parameters={"boost_model": "none"}), "Face boost")["enabled"] is False


def test_model_is_written_only_when_the_upstream_lists_exactly_it():
    for model in ("../inswapper_128.onnx", "INSWAPPER_128.onnx", "inswapper*"):
        with pytest.raises(TemplateError, match="is not there"):
            bound_to(parameters={"swap_model": model})


def test_upstream_without_any_model_is_an_error():
    with pytest.raises(TemplateError, match="swap_model"):
        bound_to(upstream(swap=[]))


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"target": "a.mp4"},
        {**STAGED, "third": "c.png"},
        {**STAGED, "face": ""},
        {**STAGED, "face": "/etc/hostname"},
        {**STAGED, "face": "../x.png"},
        {**STAGED, "face": "a/../../x.png"},
        {**STAGED, "face": "a\\..\\x.png"},
        {**STAGED, "face": "C:\\x.png"},
        {**STAGED, "face": "a\x00.png"},
        {**STAGED, "face": "http://a/b.png"},
    ],
)
def test_every_role_wants_a_staged_file_and_no_other(inputs):
    with pytest.raises(TemplateError):
        bound_to(inputs=inputs)


@pytest.mark.parametrize("prefix", ["", "/x", "../x", "a/../b", "a//b", "a/", "%date%", "a b", ".x", "a\nb"])
def test_prefix_is_a_plain_name_in_plain_folders(prefix):
    with pytest.raises(TemplateError, match="prefix"):
        bound_to(output_prefix=prefix)


def test_staged_names_of_an_upstream_that_renames_are_taken():
    """ComfyUI answers ``x (1).png`` when other bytes lie under that name."""
    assert inputs_of(bound_to(inputs={**STAGED, "face": "gw/x (1).png"}), "Face photo")["image"] == "gw/x (1).png"


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "workflows").iterdir()) if path.is_dir()])
def test_examples_can_be_bound(name):
    template = shipped(name)
    example = json.loads((ROOT / "workflows" / name / "example.json").read_text())
    assert example["inputs"].keys() == template.inputs.keys()
    parameters = check_parameters(template, example["parameters"], offered=[FULL], draw=lambda least, most: most)
    inputs = {role: STAGED[role] for role in template.inputs}
    assert bound_to(template=template, parameters=parameters, inputs=inputs, facts=FACTS).substitutions == ()


# ------------------------------------------------------------------------------------------- pictures out of words

CREATION, FILM, ENLARGED = shipped("image_creation"), shipped("video_creation"), shipped("image_upscale_model")
FACTS = {"target": MediaFacts(MediaKind.IMAGE, "image/png", ".png", 300, 200, 1, None, None, False, None)}


def test_words_numbers_and_models_arrive_where_they_belong():
    given = {"prompt": "waves,\nfrom above", "duration": 5, "fps": 30, "seed": 7}
    bound = bound_to(template=FILM, parameters=given, inputs={})
    assert inputs_of(bound, "Prompt")["text"] == "waves,\nfrom above"
    assert inputs_of(bound, "Canvas")["length"] == 153, "the next 8n + 1"
    assert inputs_of(bound, "Exact length")["length"] == 150
    assert inputs_of(bound, "Frame rate")["frame_rate"] == inputs_of(bound, "Result")["frame_rate"] == 30
    assert inputs_of(bound, "Film")["noise_seed"] == 7
    assert bound.models == {"checkpoint": "ltx-video-2b-v0.9.5.safetensors", "text_encoder": "t5xxl_fp16.safetensors"}


def test_picture_is_not_painted_by_a_model_for_video():
    listed = FULL.classes["CheckpointLoaderSimple"]["ckpt_name"]
    assert min(listed).startswith("ltx"), "the first by name is the wrong one"
    bound = bound_to(template=CREATION, parameters={"prompt": "x", "seed": 1}, inputs={})
    assert bound.models == {"checkpoint": "sd_xl_base_1.0.safetensors"}


def test_enlarged_picture_is_brought_to_its_exact_size():
    bound = bound_to(
        template=ENLARGED, parameters={"scale_factor": 3}, inputs={"target": STAGED["target"]}, facts=FACTS
    )
    assert (inputs_of(bound, "Exact size")["width"], inputs_of(bound, "Exact size")["height"]) == (900, 600)


def test_seed_is_drawn_once_from_its_whole_range_and_kept():
    asked = []

    def draw(least, most):
        asked.append((least, most))
        return 1234

    parameters = check_parameters(CREATION, {"prompt": "x"}, draw=draw)
    assert (parameters["seed"], asked) == (1234, [(0, 2**53 - 1)])
    assert check_parameters(CREATION, parameters, draw=None)["seed"] == 1234
    assert check_parameters(CREATION, {"prompt": "x", "seed": 5}, draw=draw)["seed"] == 5
    with pytest.raises(InvalidInputError, match="seed is missing"):
        check_parameters(CREATION, {"prompt": "x"})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": "x" * 4001}, "prompt"),
        ({"prompt": "a cat, Embedding:../../secrets"}, "prompt"),
        ({"prompt": "x", "negative_prompt": "bad\nembedding:EasyNegative"}, "negative_prompt"),
        ({"prompt": "x", "width": 1023}, "width"),
        ({"prompt": "x", "height": "512"}, "height"),
        ({"prompt": "x", "height": 4096}, "height"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "steps": 1000}, "steps"),
        ({"prompt": "x", "cfg": float("nan")}, "cfg"),
        ({"prompt": "x", "checkpoint": "../../etc/passwd"}, "checkpoint"),
        ({"prompt": "x", "checkpoint": "sd_xl_base_1.0"}, "checkpoint"),
        ({"prompt": "x", "sampler": "euler"}, "sampler"),
    ],
)
def test_wrong_word_or_number_names_its_field(given, field):
    with pytest.raises(InvalidInputError) as caught:
        check_parameters(CREATION, given, offered=[FULL], draw=lambda least, most: most)
    assert caught.value.field == field


def test_prompt_of_4000_characters_and_an_empty_negative_one_are_taken():
    given = {"prompt": "x" * 4000, "negative_prompt": ""}
    assert check_parameters(CREATION, given, draw=lambda least, most: least).items() >= given.items()


#: Words that every upstream of the property below can be missing.
SWAP = st.lists(st.sampled_from(["inswapper_128.onnx", "reswapper_256.onnx", "cpu-preview", "x"]), unique=True)
RESTORE = st.lists(st.sampled_from(["GFPGANv1.4.pth", "GPEN-BFR-512.onnx", "codeformer-v0.1.0.pth"]), unique=True)
WORD = st.text("abcxyz0189_-", min_size=1, max_size=12)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "target_faces": st.lists(st.integers(0, 99), min_size=1, max_size=8).map(lambda ids: ",".join(map(str, ids))),
        "face_restore_visibility": st.floats(0.1, 1.0),
        "restore_after_boost": st.booleans(),
        "target_gender": st.sampled_from(["no", "female", "male"]),
        "boost_model": st.sampled_from(["none", "GPEN-BFR-512.onnx"]),
    },
)


@given(st.sampled_from([GIF, VIDEO, IMAGE]), SWAP, RESTORE, PARAMETERS, WORD, WORD, WORD)
def test_binding_replaces_every_placeholder_and_nothing_else(template, swap, restore, parameters, target, face, prefix):
    before = copy.deepcopy(dict(template.graph))
    staged = {"target": f"s/{target}", "face": f"s/{face}"}
    capabilities = upstream(swap, ["none", *restore])
    try:
        bound = bound_to(capabilities, template, parameters, inputs=staged, output_prefix=f"p/{prefix}")
    except TemplateError:
        lacks_model = not set(swap) - {"x"}
        assert lacks_model or parameters.get("boost_model") not in {None, "none", *restore}
        return
    finally:
        assert template.graph == before

    written = {(place.node_id, place.input_name) for _, place in template.placed_parameters}
    written |= template.placeholders | {("3", "enabled")}
    assert parse_graph(bound.graph).keys() == before.keys()
    for node_id, node in bound.graph.items():
        assert (node["class_type"], node["_meta"]) == (before[node_id]["class_type"], before[node_id]["_meta"])
        assert node["inputs"].keys() == before[node_id]["inputs"].keys()
        for name, value in node["inputs"].items():
            if (node_id, name) in template.placeholders:
                assert value in {*staged.values(), f"p/{prefix}"}
            assert not isinstance(value, str) or value not in PLACEHOLDERS
            if (node_id, name) not in written:
                assert value == before[node_id]["inputs"][name]
    bound.graph["4"]["inputs"].clear()
    assert template.graph == before

"""What a ``template.toml`` may say (``manifest.py``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway import manifest
from gateway.errors import InvalidInputError, TemplateError
from gateway.manifest import ParameterEntry, ParameterType
from gateway.template import load_template
from gateway.values import check_value, preferred

ROOT = Path(__file__).parents[2]
IMAGE = "faceswap_image"


def texts(name):
    folder = ROOT / "workflows" / name
    return tuple((folder / file).read_text(encoding="utf-8") for file in ("template.toml", "graph.json"))


def edited_toml(name, old, new):
    toml, graph = texts(name)
    assert old in toml
    return load_template(name, toml.replace(old, new, 1), graph)


def refusal(make, *args):
    with pytest.raises(TemplateError) as caught:
        make(*args)
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("schema = 1\n", "", "schema is missing"),
        ("schema = 1", "schema = 2", "schema 2"),
        ("price = 1", "prize = 1", "prize is no key"),
        ("price = 1", 'price = "1"', "price"),
        ("price = 1", "price = true", "price"),
        ("price = 1", "price = 1_000_001", "price"),
        ("price = 1", 'price_per = "hour"', "price_per"),
        ("price = 1", "free_below_bytes = -1", "free_below_bytes"),
        ('accepts = ["image"]', 'accepts = ["picture"]', "inputs.target.accepts"),
        ('accepts = ["image"]', "accepts = []", "inputs.target.accepts"),
        ("[inputs.face]", "[inputs.photo]", "needs inputs.face"),
        ('swap_nodes = ["Swap face"]', "", "swap_nodes"),
        ('of = "target"', 'of = "photo"', "no input"),
        ('keeps = ["frames", "size"]', 'keeps = ["colour"]', "outputs.result.keeps"),
        ('node = "Target image"', 'node = "Target image"\nnode_id = "1"', "either node"),
        ('node = "Target image"\n', "", "either node"),
        ('node = "Target image"', 'node_id = "99"', "no node of this id"),
        ("default = 1.0\nmin = 0.1", "default = 0.0\nmin = 0.1", "from 0.1 to 1.0"),
        ("max = 1.0", "max = 0.01", "min is greater than max"),
        ("default = 1.0\n", "default = 1.0\nrequired = true\n", "required has no default"),
        ("default = 1.0\n", "", "default is missing"),
        (
            'type = "string"\ndefault = "0"\npattern = \'\\d{1,2}(,\\d{1,2})*\'',
            'type = "string"\ndefault = "0"',
            "pattern",
        ),
        ("'\\d{1,2}(,\\d{1,2})*'", "'('", "no regular expression"),
        ('choices_from = "object_info"', 'choices = ["a"]\nchoices_from = "object_info"', "either choices"),
        ('default = "no"', 'default = "yes"', "one of no, female, male"),
        ("fallback = { value", "fallback = { values", "fallback.values is no key"),
        ("set = { enabled", "set = { enable", "no such input"),
        ('input = "restore_with_main_after"', 'input = "enabled"', "both"),
        ('chain = "input_image"', 'chain = "swap_model"', "linked"),
        ('role = "face"', 'role = "photo"', "no input"),
        ('role = "face"', 'role = "target"', "must feed this node and no other"),
        ('instead_of = ["target_faces"]', 'instead_of = ["target"]', "no parameter"),
        ("[parameters.target_gender]", "[parameters.face_swaps]", "a parameter of this name"),
        (
            'input = "input_faces_index"\ntype = "int"',
            'node = "Swap face"\ninput = "input_faces_index"\ntype = "int"',
            "no node",
        ),
        ('drop = ["face_boost"] }', 'drop = ["swap_model"] }', "nothing to drop"),
        ('drop = ["face_boost"] }', 'drop = ["face_boost"], releases = ["sound"] }', "releases"),
        ("off = { set", 'input = "enabled"\noff = { set', "names a node and no input"),
        ('"cpu-preview" = "opencv"', '"cpu-preview" = 1', "detectors"),
        ('kind = "image"', 'kind = "faces"', "takes no prefix_input"),
        ('prefix_input = "filename_prefix"\n', "", "prefix_input is missing"),
        ('accepts = ["image"]', 'accepts = ["image", "faces"]', "faces is nothing that a template takes"),
        ('accepts = ["image"]', 'accepts = ["file"]', "file is nothing that a template takes"),
        ('kind = "image"', 'kind = "audio"', "audio is nothing that a template makes"),
        ("[parameters.swap_model]", "[parameters.SwapModel]", "no name"),
        ("schema = 1", "schema = ", "no TOML"),
    ],
)
def test_faulty_manifest_is_refused_with_its_reason(old, new, reason):
    error = refusal(edited_toml, IMAGE, old, new)
    assert reason in str(error)
    assert IMAGE in str(error)


@pytest.mark.parametrize(
    "entry",
    [
        manifest.Manifest,
        manifest.NodeRef,
        manifest.InputEntry,
        manifest.ParameterEntry,
        manifest.Fallback,
        manifest.OutputEntry,
        manifest.RepeatEntry,
        manifest.LicenceEntry,
        manifest.DerivedEntry,
        manifest.WarningEntry,
        manifest.Switch,
    ],
)
def test_every_key_is_documented(entry):
    guide = (ROOT / "docs/templates.md").read_text(encoding="utf-8")
    for key in dataclasses.fields(entry):
        assert f"`{key.name}`" in guide or f"[{key.name}." in guide or f"[[{key.name}]]" in guide, key.name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_number_without_limits_is_finite_all_the_same(value):
    entry = ParameterEntry(node="n", input="i", type=ParameterType.FLOAT, default=0.0)
    with pytest.raises(InvalidInputError):
        check_value(entry, "strength", value)


def choice(*prefer, fallback=None):
    return ParameterEntry(
        node="n",
        input="i",
        type=ParameterType.CHOICE,
        choices_from=manifest.ChoicesFrom.OBJECT_INFO,
        prefer=prefer,
        fallback=None if fallback is None else manifest.Fallback(value=fallback),
    )


@pytest.mark.parametrize(
    ("prefer", "fallback", "offered", "taken"),
    [
        (("a", "b"), None, ("b", "a"), "a"),
        (("a", "b"), None, ("b", "c"), "b"),
        (("x*",), None, ("x2", "x1"), "x1"),
        (("x*",), None, ("X1",), None),
        (("a",), "none", ("none", "b"), "none"),
        (("a",), "none", ("b",), None),
        (("a",), None, None, None),
        (("1",), None, (1,), None),
    ],
)
def test_first_preference_that_is_offered_wins(prefer, fallback, offered, taken):
    assert preferred(choice(*prefer, fallback=fallback), offered) == taken


# ---------------------------------------------------------------------------------------- templates of other tasks


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("image_creation", 'prefix_input = "filename_prefix"\n', 'prefix_input = "filename_prefix"\nkeeps = ["size"]\n', "needs of"),
        ("image_creation", 'width = ["width"]', 'width = ["breadth"]', "'breadth' is no factor"),
        ("image_creation", 'width = ["width"]', 'width = ["cfg"]', "'cfg' is no factor"),
        ("image_creation", 'width = ["width"]', 'width = ["target.width"]', "'target.width' is no factor"),
        ("image_creation", "swaps_faces = false", 'swaps_faces = true\nswap_nodes = ["Paint"]', "each output must say"),
        ("image_creation", "multiple_of = 8", "multiple_of = 0", "multiple_of"),
        ("image_creation", 'type = "float"', 'type = "float"\nmultiple_of = 2', "multiple_of is for an int"),
        ("image_creation", "random = true", "random = true\ndefault = 1", "random has no default"),
        ("image_creation", "random = true\nmin = 0\n", "random = true\n", "only an int with min and max"),
        ("image_creation", "multiline = true\n", "multiline = 1\n", "multiline"),
        ("image_creation", 'prefer = ["*"]\navoid', 'choices = ["a"]\navoid', "either choices"),
        ("image_creation", 'input = "cfg"\n', "", "go together"),
        ("image_creation", 'node = "Paint"\ninput = "cfg"\n', "", "only an int may go without"),
        ("image_upscale_model", 'product = ["target.width", "scale_factor"]', "product = []", "product"),
        ("image_upscale_model", '["target.width", "scale_factor"]\n\n', '["target.depth"]\n\n', "no factor"),
        ("image_upscale_model", 'input = "height"', 'input = "width"', "both derived.width and derived.height"),
        ("image_upscale_lanczos", 'code = "upscaled_without_model"', 'code = "No model"', "stand_in.code"),
    ],
)  # fmt: skip
def test_faulty_manifest_of_another_task_is_refused_with_its_reason(name, old, new, reason):
    assert reason in refusal(edited_toml, name, old, new).reason


WORDS = ParameterEntry(
    node="Prompt", input="text", type=ParameterType.STRING, pattern=r"\s*\S[\s\S]*", pattern_means="must not be empty",
    multiline=True, max_length=20,
)  # fmt: skip
SIZE = ParameterEntry(
    node="Canvas", input="width", type=ParameterType.INT, default=512, min=256, max=2048, multiple_of=8
)


@pytest.mark.parametrize("value", ["two\nlines\tand a tab", "Wörter, 文字"])
def test_text_of_several_lines_is_taken_where_the_template_says_so(value):
    assert check_value(WORDS, "prompt", value) == value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("  \n", "prompt must not be empty."),
        ("x" * 21, "at most 20 characters"),
        ("a\x00b", "printable"),
        ("a\x1b[2J", "printable"),
        (7, "must be a string"),
    ],
)
def test_other_control_characters_and_long_or_empty_text_are_not(value, sentence):
    with pytest.raises(InvalidInputError) as caught:
        check_value(WORDS, "prompt", value)
    assert sentence in caught.value.message
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(("value", "sentence"), [
    (512.5, "width must be a whole number."),
    (1e300, "width must be a whole number from 256 to 2048."),
    (8, "width must be a whole number from 256 to 2048."),
    (516.0, "width must be a multiple of 8."),
    ("512", "width must be a number."),
    (True, "width must be a number."),
])  # fmt: skip
def test_whole_number_is_one_however_it_is_spelled(value, sentence):
    taken = check_value(SIZE, "width", 512.0)
    assert (taken, type(taken)) == (512, int)
    with pytest.raises(InvalidInputError) as caught:
        check_value(SIZE, "width", value)
    assert caught.value.message == sentence


def test_size_must_be_a_multiple():
    assert check_value(SIZE, "width", 520) == 520
    with pytest.raises(InvalidInputError, match="multiple of 8") as caught:
        check_value(SIZE, "width", 515)
    assert caught.value.field == "width"


def test_what_is_avoided_is_never_taken_unasked():
    entry = ParameterEntry(
        node="Checkpoint", input="ckpt_name", type=ParameterType.CHOICE, prefer=("*",), avoid=("*ltx*",)
    )
    assert preferred(entry, ("LTX-video.safetensors", "sd_xl.safetensors")) == "sd_xl.safetensors"
    assert preferred(entry, ("LTX-video.safetensors",)) is None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('frame_of = "target"', 'frame_of = "face_7"', "no input"),
        (
            'type = "float"\nmin = 0.0\nunit = "s"\nframe_of',
            'type = "int"\nmin = 0\nunit = "s"\nframe_of',
            "is for a float",
        ),
        ("where_missing = {", "default = 0.0\nwhere_missing = {", "no room for a default"),
        ('input = "gateway_reference_frame"', 'input = "codeformer_weight"', "no upstream may lack it"),
    ],
)
def test_faulty_keys_of_moving_targets_are_refused_with_their_reason(old, new, reason):
    assert reason in str(refusal(edited_toml, "faceswap_video", old, new))

"""What /object_info says of a class (``comfy/specs.py``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comfy.specs import (
    InputSpec,
    format_widgets,
    grown,
    grows,
    hidden_inputs,
    input_specs,
    is_output,
    output_types,
)

ROOT = Path(__file__).parents[3]
REAL = json.loads((ROOT / "tests/data/object_info/real.json").read_text(encoding="utf-8"))


def test_inputs_of_a_real_class():
    specs = input_specs(REAL["VHS_VideoCombine"])
    assert specs["images"] == InputSpec("IMAGE", None, {}, required=True)
    assert (specs["frame_rate"].type, specs["frame_rate"].options["min"]) == ("FLOAT", 1)
    assert specs["format"].decides
    assert not specs["audio"].required
    assert "unique_id" not in specs
    assert hidden_inputs(REAL["VHS_VideoCombine"])["unique_id"] == "UNIQUE_ID"
    assert output_types(REAL["VHS_VideoCombine"]) == ("VHS_FILENAMES",)
    assert is_output(REAL["VHS_VideoCombine"])
    assert not is_output(REAL["LoadImage"])


def test_both_spellings_of_a_choice_are_one_type():
    specs = input_specs(
        {"input": {"required": {"a": [["x"]], "b": ["COMBO", {"options": ["x"]}], "c": ["INT,FLOAT", {}]}}}
    )
    assert [(spec.type, spec.choices) for spec in specs.values()] == [
        ("COMBO", ("x",)),
        ("COMBO", ("x",)),
        ("INT,FLOAT", None),
    ]
    assert specs["c"].types == {"INT", "FLOAT"}


def test_widgets_are_those_of_the_format_chosen():
    specs = input_specs(REAL["VHS_VideoCombine"])
    assert {"pix_fmt", "crf"} <= format_widgets({"format": "video/h264-mp4"}, specs).keys()
    assert format_widgets({"format": "image/gif"}, specs) == {}
    assert format_widgets({"format": ["1", 0]}, specs) == {}
    assert format_widgets({}, specs) == {}


def growing(inner, **more):
    template = {"input": {"required": {"item": inner}}} | more
    return input_specs({"input": {"required": {"x": ["COMFY_AUTOGROW_V3", {"template": template}]}}})


def test_input_grows_by_number_or_by_name():
    values = dict.fromkeys(("x.i0", "x.i12", "x.i", "x.j0", "xi0", "x", "y.i0", "x.i0.z"), 1)
    assert set(grown(growing(["INT"], prefix="i"), values)) == {"x.i0", "x.i12"}
    assert set(grown(growing(["INT"], names=["i", "j0"]), values)) == {"x.i", "x.j0"}
    assert set(grown(growing(["INT"]), values)) == set()
    assert not grown(growing(["INT"], prefix="i"), values)["x.i0"].required


def test_class_that_does_not_grow_stays_as_it_is():
    specs = input_specs(REAL["KSampler"])
    assert not grows(specs)
    assert grown(specs, {}) == specs
    assert grows(growing(["INT"]))


def test_inputs_within_inputs_end():
    """An entry that holds itself again and again, each chosen."""
    spec = ["COMFY_DYNAMICCOMBO_V3", {"options": []}]
    for _ in range(40):
        spec = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k", "inputs": {"required": {"x": spec}}}]}]
    values = {".".join(["x"] * depth): "k" for depth in range(1, 45)}
    assert len(grown(input_specs({"input": {"required": {"x": spec}}}), values)) == 8


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["COMBO", "INT", "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_DYNAMICSLOT_V3"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["input", "required", "optional", "hidden", "options", "key", "inputs", "template", "prefix", "names", "formats", "slotType"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)  # fmt: skip


@given(JSON, st.sampled_from(["required", "optional", "hidden"]), JSON)
def test_odd_entry_is_read_as_far_as_it_goes(odd, section, values):
    for entry in (
        {"input": odd, "output": odd, "output_node": odd},
        {"input": {section: {"x": odd}}},
        {"input": {section: odd}},
    ):
        specs = input_specs(entry)
        hidden_inputs(entry)
        output_types(entry)
        live = {"x": values, "x.y": values, "format": values}
        grown(specs, live)
        format_widgets(live, specs)


@pytest.mark.parametrize(
    "entry", [{}, {"input": None}, {"input": {"required": None}}, {"input": {"required": {"x": []}}}]
)
def test_entry_without_inputs_has_none(entry):
    assert input_specs(entry) == {}

from __future__ import annotations

from typing import Any

import pytest

from gateway.api.dialects.comfy_v2.template_schemas import (
    AssetName,
    asset_name,
    described_body,
    read_inputs,
    schema_of,
)
from gateway.audit import MediaKind
from gateway.engine.template_views import TemplateView, template_views
from gateway.errors import InvalidInputError
from gateway.template import Template, load_template
from tests.house.test_docs import ROOT

WORKFLOWS = ROOT / "workflows"


def shipped(name: str) -> Template:
    folder = WORKFLOWS / name
    return load_template(
        name,
        (folder / "template.toml").read_text(encoding="utf-8"),
        (folder / "graph.json").read_text(encoding="utf-8"),
    )


NAMES = sorted(path.name for path in WORKFLOWS.iterdir() if path.is_dir())
SWAP = shipped("faceswap_image")
REFERENCE = {"__type": "core/ASSET", "info": {"id": "asset-1", "hash": "blake3:00"}}


def test_a_schema_says_what_a_template_says():
    schema: Any = schema_of(shipped("image_creation"))

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["prompt"]
    assert schema["additionalProperties"] is False
    width = schema["properties"]["width"]
    assert (width["type"], width["minimum"], width["multipleOf"]) == ("integer", 256, 8)


def test_a_file_of_an_item_is_said_once_by_itself_or_by_each_item():
    schema: Any = schema_of(SWAP)

    assert schema["required"] == ["target"]
    assert schema["properties"]["face_swaps"]["items"]["required"] == ["face", "face_index"]
    assert schema["allOf"] == [
        {
            "oneOf": [
                {"required": ["face"], "not": {"required": ["face_swaps"]}},
                {
                    "required": ["face_swaps"],
                    "not": {"anyOf": [{"required": ["face"]}, {"required": ["target_faces"]}]},
                },
            ]
        }
    ]


def test_a_pattern_is_that_of_the_whole_text():
    schema: Any = schema_of(SWAP)
    assert schema["properties"]["target_faces"]["pattern"] == r"^(?:\d{1,2}(,\d{1,2})*)$"


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_template_is_described_whole(name: str):
    template = shipped(name)
    body: Any = described_body(TemplateView(template, ("a model",)), "http://h/api/v2/templates/x")

    assert set(body["inputs"]["properties"]) == set(template.inputs) | template.settable
    assert (body["can_run"], body["missing"]) == (False, ["a model"])
    assert body["urls"]["jobs"] == "http://h/api/v2/templates/x/jobs"


def test_views_tell_what_each_template_lacks_by_itself():
    views = template_views([SWAP, shipped("face_detect")], lambda template: [()] if template is SWAP else [("a node",)])

    assert [view.missing for view in views] == [(), ("face_detect: a node",)]


# -------------------------------------------------------------------------------------------------------------- reading


def test_files_and_values_are_taken_apart():
    given = read_inputs(
        SWAP, {"target": REFERENCE, "face": "me.png", "enable_face_enhancer": False, "swap_model": None}
    )

    assert given.files == {"target": AssetName("target", "asset-1", None), "face": AssetName("face", None, "me.png")}
    assert given.accepts == dict.fromkeys(("target", "face"), frozenset({MediaKind.IMAGE}))
    assert given.parameters == {"enable_face_enhancer": False}


def test_each_item_of_a_list_brings_a_file_of_its_own():
    items = [{"face": "a.png", "face_index": 1}, {"face": REFERENCE, "face_index": 0}]
    given = read_inputs(SWAP, {"target": "t.png", "face_swaps": items})

    assert given.files == {
        "target": AssetName("target", None, "t.png"),
        "face_0": AssetName("face_swaps[0].face", None, "a.png"),
        "face_1": AssetName("face_swaps[1].face", "asset-1", None),
    }
    assert given.parameters == {"face_swaps": [{"face_index": 1}, {"face_index": 0}]}


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({}, "target"),
        ({"target": "t.png"}, "face"),
        ({"target": "t.png", "face": None}, "face"),
        ({"target": "t.png", "face": "f.png", "made_up": 1}, "made_up"),
        ({"target": "t.png", "face": "f.png", "face_swaps": [{}]}, "face"),
        ({"target": "t.png", "face_swaps": []}, "face_swaps"),
        ({"target": "t.png", "face_swaps": [{}] * 11}, "face_swaps"),
        ({"target": "t.png", "face_swaps": "x"}, "face_swaps"),
        ({"target": "t.png", "face_swaps": ["x"]}, "face_swaps"),
        ({"target": "t.png", "face_swaps": [{"face_index": 0}]}, "face_swaps[0].face"),
    ],
    ids=str,
)
def test_what_is_no_input_is_refused_by_name(inputs: dict[str, Any], field: str):
    with pytest.raises(InvalidInputError) as refused:
        read_inputs(SWAP, inputs)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "value",
    [None, "", 5, True, [], {}, {"__type": "core/ASSET"}, {"__type": "core/ASSET", "info": {}}, {"info": {"id": "a"}}],
    ids=str,
)
def test_what_names_no_file_is_refused(value: Any):
    with pytest.raises(InvalidInputError):
        asset_name(value, "target")

"""Whether an upstream can run a client's own graph, and that nothing of a client's reaches a file (``workflow_judging.py``).

``classes.json`` holds what a real ComfyUI a125cd84 with VideoHelperSuite and ReActor says of its 534 classes, lists cut short.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.binding import bind
from gateway.comfy.graph import allowed_values
from gateway.comfy.specs import COMBO, input_specs, is_output, output_types
from gateway.errors import WorkflowError
from gateway.interfaces import Capabilities
from gateway.pricing import Pricing
from gateway.workflow import NodeRules, file_references, judge, read_workflow, resolved, template_of
from gateway.workflow_binding import MARK
from gateway.workflow_classes import Classes
from gateway.workflow_places import Place

ROOT = Path(__file__).parents[2]
ALL = json.loads((ROOT / "tests/data/object_info/classes.json").read_text(encoding="utf-8"))
EVERYTHING = NodeRules(frozenset())
ASSET = {"__type": "core/ASSET", "info": {"id": "a-1"}}
#: Its files lie where all jobs' files lie, so no graph may use it even where its class is allowed.
NEVER = {
    "LoadImageSetFromFolderNode",
    "LoadImageTextSetFromFolderNode",
    "Load3D",
    "Load3DAnimation",
    "VHS_LoadAudio",
    "VHS_LoadImagePath",
    "VHS_LoadImages",
    "VHS_LoadImagesPath",
    "VHS_LoadVideoPath",
    "VHS_LoadVideoFFmpegPath",
    "VHS_SelectLatest",
}


def upstream(info):
    return Capabilities({name: allowed_values(entry) for name, entry in info.items()}, None, info)


def with_models(info):
    """The same with a model in every list that is empty."""
    full = json.loads(json.dumps(info))
    for entry in full.values():
        for section in ("required", "optional"):
            for spec in entry["input"].get(section, {}).values():
                if spec[0] == []:
                    spec[0] = ["model.safetensors"]
                if spec[0] == COMBO and len(spec) > 1 and spec[1].get("options") == []:
                    spec[1]["options"] = ["model.safetensors"]
    return full


INFO = with_models(ALL)
FULL = upstream(INFO)
SPECS = {name: input_specs(entry) for name, entry in INFO.items()}
#: Classes that a test adds: one per way of declaring an input.
SINK = {"input": {"required": {"x": ["*"]}}, "output": [], "output_node": True}


def of(spec, name="x", *, output=True, required=True, **more):
    """An upstream with one class that has this input, and some to link to it."""
    entry = {
        "input": {"required" if required else "optional": {name: spec}} | more,
        "output": ["*"],
        "output_node": output,
    }
    words = {"input": {"required": {"value": ["STRING", {}]}}, "output": ["STRING"], "output_node": False}
    anything = {
        "input": {},
        "output": ["*", "IMAGE", "INT", "COMBO", ["a", "b"], "COMFY_MATCHTYPE_V3"],
        "output_node": False,
    }
    return upstream({"Own": entry, "Words": words, "Any": anything, "Sink": SINK, "LoadImage": INFO["LoadImage"]})


def graph(value, name="x", **others):
    nodes = {"1": {"class_type": "Own", "inputs": {name: value} | others}}
    return nodes | {
        "w": {"class_type": "Words", "inputs": {"value": "/etc/passwd"}},
        "a": {"class_type": "Any", "inputs": {}},
    }


def judged(raw, *pool, rules=EVERYTHING):
    """(node, field, reason) of all that is wrong."""
    try:
        draft = read_workflow(raw)
        known = {str(number): each for number, each in enumerate(pool)}
        file_references(draft, known.values())
        judge(draft, known, rules)
    except WorkflowError as error:
        told = error.details.get("node_errors", {})
        return {(node, each["field"], each["reason"]) for node, found in told.items() for each in found} or {
            error.message
        }
    return set()


# ----------------------------------------------------------------------------------------------- what may run does run


class Minimal:
    """The smallest graph in which a class runs."""

    def __init__(self):
        self.makers = {}
        cost = {}
        settled = False
        while not settled:
            settled = True
            for name in INFO:
                prices = [cost.get(kind) for kind in self.linked(name)]
                if None in prices or name in NEVER:
                    continue
                price = 1 + sum(prices)
                for slot, kind in enumerate(output_types(INFO[name])):
                    if isinstance(kind, str) and price < cost.get(kind, 10**9):
                        cost[kind], self.makers[kind], settled = price, (name, slot), False

    @staticmethod
    def linked(name):
        return [spec.type.split(",")[0] for spec in SPECS[name].values() if spec.required and not is_word(spec)]

    def graph(self, name):
        nodes = {}
        node_id = self._add(name, nodes)
        if not is_output(INFO[name]):
            nodes["p"] = {"class_type": "PreviewAny", "inputs": {"source": [node_id, 0]}}
        return nodes

    def _add(self, name, nodes):
        node_id = str(len(nodes) + 1)
        nodes[node_id] = None
        inputs = {}
        for each, spec in SPECS[name].items():
            if spec.required:
                inputs[each] = literal(name, each, spec) if is_word(spec) else self._link(spec, nodes)
        nodes[node_id] = {"class_type": name, "inputs": inputs}
        return node_id

    def _link(self, spec, nodes):
        maker, slot = self.makers[spec.type.split(",")[0]]
        return [self._add(maker, nodes), slot]


def is_word(spec):
    return spec.type in {
        "INT",
        "FLOAT",
        "STRING",
        "BOOLEAN",
        COMBO,
        "*",
        "WEBCAM",
        "LOAD_3D",
        "LOAD_3D_ANIMATION",
        "FLOATS",
    }


def literal(name, each, spec):
    node = read_workflow({"1": {"class_type": name, "inputs": {}}}).nodes["1"]
    if Classes(FULL).get(name).inputs_of(node).places.get(each) is Place.FILE:
        return ASSET
    if spec.type == COMBO:
        return spec.choices[0]
    default = {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(spec.type, "a word")
    return spec.options.get(
        "default", max(spec.options.get("min", default), default) if spec.type in {"INT", "FLOAT"} else default
    )


MINIMAL = Minimal()


def test_minimal_graph_of_every_class_is_accepted_and_sent_as_it_is_but_for_files_and_prefixes():
    refused = set()
    for name in INFO:
        raw = MINIMAL.graph(name)
        if judged(raw, FULL):
            refused.add(name)
            continue
        for node_id, node in dispatched(raw).items():
            assert node["inputs"].keys() >= raw[node_id]["inputs"].keys()
            for each, value in node["inputs"].items():
                was = raw[node_id]["inputs"].get(each)
                is_ours = was == ASSET or each in {"filename_prefix", "prefix", MARK}
                assert value.startswith("gateway/") if is_ours else value == was, (name, each, value)
    assert refused == NEVER


def dispatched(raw, capabilities=FULL):
    draft = read_workflow(raw)
    references = file_references(draft, [capabilities])
    workflow = resolved(draft, {each.at: f"file-{i}" for i, each in enumerate(references)}, [capabilities])
    staged = {role: f"gateway/{role}.bin" for role in workflow.files}
    template = template_of(workflow, Pricing())
    return bind(
        template, inputs=staged, parameters={}, output_prefix="gateway/job/out", capabilities=capabilities
    ).graph


WIDE = 1_000


def test_large_graph_is_accepted_and_each_of_its_prefixes_its_own():
    raw = {"0": {"class_type": "LoadImage", "inputs": {"image": ASSET}}}
    for number in range(WIDE):
        raw[f"s{number}"] = {"class_type": "SaveImage", "inputs": {"images": ["0", 0], "filename_prefix": "same"}}
    assert judged(raw, FULL) == set()
    sent = dispatched(raw)
    assert len({node["inputs"].get("filename_prefix") for node in sent.values()}) == WIDE + 1


# ----------------------------------------------------------------------------------------- values, as ComfyUI compares


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (["INT", {"min": 0, "max": 9}], 5),
        (["INT", {"min": 0, "max": 9}], "5"),
        (["INT", {"min": 0, "max": 9}], " 5 "),
        (["INT", {"min": 0, "max": 9}], 5.9),
        (["INT", {"min": 0, "max": 9}], True),
        (["INT", {"max": 18446744073709551615}], 18446744073709551615),
        (["INT", {}], {"__value__": "5"}),
        (["FLOAT", {"min": 0.5}], 1),
        (["FLOAT", {"min": 0.5}], "0.5"),
        (["FLOAT", {}], False),
        (["STRING", {}], "../../etc/passwd http://x [output]"),
        (["STRING", {}], 7),
        (["STRING", {}], None),
        (["STRING", {}], {"a": 1}),
        (["BOOLEAN", {}], "false"),
        (["BOOLEAN", {}], None),
        ([["a", "b"]], "a"),
        ([[1, 2]], 1),
        ([[1, 2]], True),
        ([[1.0]], 1),
        ([["a"], {"image_upload": False}], "a"),
        (["COMBO", {"options": ["a"]}], "a"),
        (["COMBO", {"options": ["a", "b"], "multiselect": True}], {"__value__": ["a", "b"]}),
        (["COMBO", {"options": [], "remote": {"route": "/x"}}], "what the editor was told"),
        (["COMBO", {}], "x"),
        (["*"], "x"),
        (["*"], 7),
        (["COLORCODE"], "#fff"),
        (["INT,FLOAT"], 7),
        (["IMAGE,STRING"], "word"),
    ],
)
def test_literal_that_comfyui_takes_is_taken(spec, value):
    assert judged(graph(value), of(spec)) == set()


@pytest.mark.parametrize(
    ("spec", "value", "reason"),
    [
        (["INT", {"min": 0}], -1, "out_of_range"),
        (["INT", {"max": 9}], "10", "out_of_range"),
        (["INT", {"max": 9}], 10**90, "out_of_range"),
        (["FLOAT", {"max": 1.0}], 1.01, "out_of_range"),
        (["FLOATS", {"min": 0}], -1, "out_of_range"),
        (["INT", {}], "5.5", "invalid_value"),
        (["INT", {}], "x", "invalid_value"),
        (["INT", {}], "9" * 5000, "invalid_value"),
        (["INT", {}], None, "invalid_value"),
        (["INT", {}], {}, "invalid_value"),
        (["FLOAT", {}], "nan", "invalid_value"),
        (["FLOAT", {}], "-inf", "invalid_value"),
        (["FLOAT", {}], "1e999", "invalid_value"),
        ([["a", "b"]], "c", "value_not_in_list"),
        ([["a", "b"]], None, "value_not_in_list"),
        ([["a", "b"]], {"a": 1}, "value_not_in_list"),
        ([["1"]], 1, "value_not_in_list"),
        ([[]], "a", "value_not_in_list"),
        (["COMBO", {"options": ["a"]}], "b", "value_not_in_list"),
        (["COMBO", {"options": ["a"], "multiselect": True}], {"__value__": ["a", "b"]}, "value_not_in_list"),
        (["COMBO", {"options": ["a"]}], {"__value__": ["a"]}, "value_not_in_list"),
        (["STRING", {}], ["a", "b", "c"], "bad_link"),
        (["*"], [], "bad_link"),
        (["IMAGE"], "x.png", "missing_input"),
        (["MODEL"], None, "missing_input"),
    ],
)
def test_literal_that_comfyui_refuses_or_cannot_use_is_refused(spec, value, reason):
    assert judged(graph(value), of(spec)) == {("1", "x", reason)}


def test_input_that_is_required_must_be_there_and_an_optional_one_may_be_null():
    assert judged({"1": {"class_type": "Own", "inputs": {}}}, of(["INT", {}])) == {("1", "x", "missing_input")}
    assert judged({"1": {"class_type": "Own", "inputs": {}}}, of(["INT", {}], required=False)) == set()
    assert judged(graph(None), of(["IMAGE"], required=False)) == set()


def test_input_that_the_class_does_not_list_is_passed_over():
    for value in (1, "word", None, [1, 2, 3], {"a": "b"}, ["a", 0], ["w", 0]):
        assert judged(graph(1, unlisted=value), of(["INT", {}])) == set(), value


@pytest.mark.parametrize(
    ("spec", "slot"),
    [
        (["IMAGE"], 0),
        (["IMAGE"], 1),
        (["IMAGE,MASK"], 1),
        (["FLOAT,INT"], 2),
        (["*"], 1),
        (["STRING"], 0),
        (["COMBO", {"options": ["a"]}], 3),
        ([["a", "b"]], 3),
        ([["a", "b"]], 4),
        (["COMBO", {"options": ["a", "b"]}], 4),
        (["IMAGE"], 5),
        (["COMFY_MATCHTYPE_V3", {}], 1),
        (["INT", {"forceInput": True}], 2),
    ],
)
def test_link_of_a_type_that_fits_fits(spec, slot):
    assert judged(graph(["a", slot]), of(spec)) == set()


@pytest.mark.parametrize(
    ("spec", "slot", "reason"),
    [
        (["MASK"], 1, "type_mismatch"),
        (["MODEL,CLIP"], 1, "type_mismatch"),
        (["FLOAT"], 2, "type_mismatch"),
        ([["a", "c"]], 4, "type_mismatch"),
        ([["a", "b"]], 1, "type_mismatch"),
        (["STRING"], 4, "type_mismatch"),
        (["IMAGE"], 6, "bad_link"),
        (["*"], 99, "bad_link"),
    ],
)
def test_link_that_does_not_fit_is_refused(spec, slot, reason):
    assert judged(graph(["a", slot]), of(spec)) == {("1", "x", reason)}


def test_nodes_that_do_not_run_need_only_their_class():
    raw = graph(1) | {"7": {"class_type": "LoadImage", "inputs": {"image": ["a", 99], "x": "/etc/passwd"}}}
    assert judged(raw, of(["INT", {}])) == set()
    raw["7"]["class_type"] = "Nowhere"
    assert judged(raw, of(["INT", {}])) == {("7", "class_type", "unknown_class")}


def test_graph_without_an_output_node_runs_nothing():
    (message,) = judged(graph(1), of(["INT", {}], output=False))
    assert message == "The workflow cannot be run: it has no output node."


@pytest.mark.parametrize(
    "word", ["PROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "DYNPROMPT", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG"]
)
@pytest.mark.parametrize("spelled", ["first", "third"])
@pytest.mark.parametrize("value", ["x", {}, None, ["w", 0]])
def test_hidden_input_is_the_servers(word, spelled, value):
    pool = of(["INT", {}], hidden={"secret": word if spelled == "first" else [word]})
    assert judged(graph(1, secret=value), pool) == {("1", "secret", "hidden_input")}
    # One that another class hides is none here.
    assert judged(graph(1, secret="x"), of(["INT", {}])) == set()


def test_input_that_is_listed_is_no_hidden_one():
    pool = of(["STRING", {}], "prompt", hidden={"prompt": ["PROMPT"]})
    assert judged(graph("a photo", "prompt"), pool) == set()


@pytest.mark.parametrize(
    "spec", [[["a.safetensors"]], ["COMBO", {"options": ["a"]}], ["INT", {}], ["BOOLEAN"], ["IMAGE"], ["MODEL"]]
)
def test_file_stands_only_where_words_do(spec):
    assert judged(graph(ASSET), of(spec)) == {("1", "x", "asset_misplaced")}
    assert judged(graph(1, unlisted=ASSET), of(["INT", {}])) == set()
    assert judged(graph(ASSET), of(["STRING", {}])) == set()
    assert judged(graph(ASSET), of(["CUSTOM"])) == set()


# ------------------------------------------------------------------------------------------------ V3 inputs that grow

GROWS = [
    "COMFY_AUTOGROW_V3",
    {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 9}},
]
NAMED = [
    "COMFY_AUTOGROW_V3",
    {"template": {"input": {"optional": {"v": ["INT", {"max": 3}]}}, "names": ["a", "b"], "min": 0}},
]
SELECTS = [
    "COMFY_DYNAMICCOMBO_V3",
    {
        "options": [
            {"key": "small", "inputs": {"required": {}}},
            {
                "key": "large",
                "inputs": {"required": {"size": ["INT", {"max": 9}], "picture": [["p.png"], {"image_upload": True}]}},
            },
            {"key": "nested", "inputs": {"required": {"inner": ["COMFY_AUTOGROW_V3", GROWS[1]]}}},
        ]
    },
]
SLOT = ["COMFY_DYNAMICSLOT_V3", {"slotType": "IMAGE", "inputs": {"required": {"strength": ["FLOAT", {"max": 1.0}]}}}]


@pytest.mark.parametrize(
    ("spec", "inputs", "wrong"),
    [
        (GROWS, {}, set()),
        (GROWS, {"x.image0": ["a", 1], "x.image1": ["a", 1]}, set()),
        (GROWS, {"x.image0": ["w", 0]}, {("1", "x.image0", "type_mismatch")}),
        (GROWS, {"x.image0": "/etc/passwd"}, {("1", "x.image0", "missing_input")}),
        (NAMED, {"x.a": 3, "x.b": "2", "x.c": "passed over"}, set()),
        (NAMED, {"x.a": 4}, {("1", "x.a", "out_of_range")}),
        (SELECTS, {"x": "small"}, set()),
        (SELECTS, {"x": "large", "x.size": 9, "x.picture": ASSET}, set()),
        (SELECTS, {"x": "large", "x.size": 10, "x.picture": ASSET}, {("1", "x.size", "out_of_range")}),
        (SELECTS, {"x": "large", "x.size": 1}, {("1", "x.picture", "missing_input")}),
        (SELECTS, {"x": "large", "x.size": 1, "x.picture": "/etc/passwd"}, {("1", "x.picture", "path_not_allowed")}),
        (SELECTS, {"x": "large", "x.size": 1, "x.picture": ["w", 0]}, {("1", "x.picture", "file_linked")}),
        (SELECTS, {"x": "nested", "x.inner.image0": ["a", 1]}, set()),
        (SELECTS, {"x": "nested", "x.inner.image0": ["w", 0]}, {("1", "x.inner.image0", "type_mismatch")}),
        (SELECTS, {"x": "other"}, {("1", "x", "value_not_in_list")}),
        (SELECTS, {"x": ["a", 0], "x.picture": "/etc/passwd"}, {("1", "x", "invalid_value")}),
        (SELECTS, {"x": {"__value__": "large"}, "x.picture": "/x"}, {("1", "x", "invalid_value")}),
        (SELECTS, {}, {("1", "x", "missing_input")}),
        (SLOT, {}, set()),
        (SLOT, {"x": ["a", 1], "x.strength": 0.5}, set()),
        (SLOT, {"x": ["a", 1]}, {("1", "x.strength", "missing_input")}),
        (SLOT, {"x": ["w", 0], "x.strength": 1}, {("1", "x", "type_mismatch")}),
    ],
)  # fmt: skip
def test_inputs_that_grow_are_judged_as_they_have_grown(spec, inputs, wrong):
    raw = graph(1)
    raw["1"]["inputs"] = inputs
    assert judged(raw, of(spec)) == wrong


def test_file_in_an_input_that_has_grown_is_staged():
    raw = graph("large") | {}
    raw["1"]["inputs"] |= {"x.size": 1, "x.picture": "mine.png"}
    sent = dispatched(raw, of(SELECTS))
    assert sent["1"]["inputs"] == {"x": "large", "x.size": 1, "x.picture": "gateway/file-0.bin"}


# --------------------------------------------------------------------------------------- nothing of a client's is a path

PATHS = [
    "/etc/passwd",
    "../../etc/passwd",
    "a/../../b.png",
    "..",
    ".",
    "a/./b.png",
    "a//b.png",
    "/",
    "a/",
    "~/x.png",
    "\\\\host\\share\\x.png",
    "..\\x.png",
    "c:\\x.png",
    "C:/x.png",
    "x.png [output]",
    "x.png [temp]",
    "sub/x.png [output]",
    "x.png [input] [output]",
    "/etc/passwd [input]",
    "http://169.254.169.254/latest",
    "https://example.org/x.png",
    "file:///etc/passwd",
    "x.png\x00",
    "x\n.png",
    "x\u202egnp.exe",
    "x" * 300,
]


def load(value, class_type="LoadImage", name="image", **others):
    return {
        "1": {"class_type": class_type, "inputs": {name: value} | others},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        "3": {"class_type": "PrimitiveString", "inputs": {"value": "/etc/passwd"}},
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("class_type", "name"),
    [("LoadImage", "image"), ("LoadVideo", "file"), ("LoadLatent", "latent"), ("OpenAIInputFiles", "file")],
)
def test_path_is_no_name_of_a_file(class_type, name, path):
    assert judged(load(path, class_type, name), FULL) == {("1", name, "path_not_allowed")}


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("photo.png", "photo.png"),
        ("my photo (1).png", "my photo (1).png"),
        ("sub/photo.png", "sub/photo.png"),
        ("photo.png [input]", "photo.png"),
        ("clipspace/mask-1.png [input]", "clipspace/mask-1.png"),
        ("Фото 🌌.png", "Фото 🌌.png"),
        ("x [1].png", "x [1].png"),
        ("a..b.png", "a..b.png"),
    ],
)
def test_plain_name_is_looked_up_as_its_owner_wrote_it(sent, name):
    (reference,) = file_references(read_workflow(load(sent)), [FULL])
    assert (reference.at, reference.name, reference.asset_id) == (("1", "image"), name, None)


@pytest.mark.parametrize(
    "value", [7, True, None, {}, {"image": "x.png"}, ["3", 0], ["x.png", "y.png"], {"__value__": "/etc/passwd"}]
)
def test_what_is_no_name_is_no_file(value):
    ((_, name, reason),) = judged(load(value), FULL)
    assert (name, reason) in {("image", "path_not_allowed"), ("image", "file_linked")}


@pytest.mark.parametrize(
    ("class_type", "name"),
    [
        ("VHS_LoadVideoPath", "video"),
        ("VHS_LoadVideoFFmpegPath", "video"),
        ("VHS_LoadImagePath", "image"),
        ("VHS_LoadImagesPath", "directory"),
        ("VHS_LoadImages", "directory"),
        ("VHS_LoadAudio", "audio_file"),
        ("LoadImageSetFromFolderNode", "folder"),
        ("LoadImageTextSetFromFolderNode", "folder"),
    ],
)
@pytest.mark.parametrize("value", ["http://169.254.169.254/", "input/x.mp4", "3d", "x.mp4", "", ASSET, ["3", 0]])
def test_loader_of_paths_and_urls_is_closed_even_where_its_class_is_allowed(class_type, name, value):
    wrong = judged(load(value, class_type, name), FULL)
    assert {(field, reason) for _, field, reason in wrong} & {(name, "path_not_allowed"), (name, "file_linked")}
    assert judged(load(value, class_type, name), FULL, rules=NodeRules()) == {("1", "class_type", "class_denied")}


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("image", ["STRING", {}]),
        ("image", [["none", "a.png"]]),
        ("anything", [["someone's.png", "other.mp4"]]),
        ("picture", [["a", "b"], {"image_upload": True}]),
        ("x", ["COMBO", {"options": ["a"], "video_upload": True}]),
        ("video", [[]]),
        ("file", ["STRING", {"default": "x"}]),
        ("file_name", ["STRING", {}]),
        ("fileName", ["STRING", {}]),
        ("Input File", ["STRING", {}]),
        ("input_image", ["STRING", {}]),
        ("image_2", ["STRING", {}]),
        ("img", ["STRING", {}]),
        ("mask", ["*"]),
        ("audio", ["IMAGE,STRING"]),
        ("shot", ["WEBCAM", {}]),
    ],
)
def test_input_that_names_a_file_takes_files_of_the_client_only(name, spec):
    pool = of(spec, name, output=False)
    tail = {"s": {"class_type": "Sink", "inputs": {"x": ["1", 0]}}}
    (reference,) = file_references(read_workflow(graph("mine.png", name) | tail), [pool])
    assert (reference.at, reference.name) == (("1", name), "mine.png")
    assert judged(graph("/etc/passwd", name) | tail, pool) == {("1", name, "path_not_allowed")}
    assert judged(graph(["w", 0], name) | tail, pool) == {("1", name, "file_linked")}
    assert dispatched(graph(ASSET, name) | tail, pool)["1"]["inputs"][name] == "gateway/file-0.bin"


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("url", ["STRING", {}]),
        ("image_url", ["STRING", {}]),
        ("imageURL", ["STRING", {}]),
        ("url_1", ["STRING", {}]),
        ("image_path", ["STRING", {}]),
        ("ImagePath", ["STRING", {}]),
        ("path_list", ["STRING", {"default": ""}]),
        ("input-dir", ["STRING", {}]),
        ("directory", [["3d", "gateway"]]),
        ("folder_name", ["COMBO", {"options": ["a"]}]),
        ("x", ["STRING", {"vhs_path_extensions": []}]),
        ("face_model_name", ["STRING", {}]),
    ],
)
def test_input_that_names_a_path_takes_nothing_of_the_client(name, spec):
    pool = of(spec, name, output=False)
    tail = {"s": {"class_type": "Sink", "inputs": {"x": ["1", 0]}}}
    for value in ("x.png", "gateway", "3d", "a", "", 7, ASSET):
        assert judged(graph(value, name) | tail, pool) == {("1", name, "path_not_allowed")}, value
    assert judged(graph(["w", 0], name) | tail, pool) == {("1", name, "file_linked")}


@pytest.mark.parametrize(
    ("name", "spec", "value"),
    [
        ("text", ["STRING", {"multiline": True}], "/imagine http://x ../y [output]"),
        ("prompt", ["STRING", {}], "x.png"),
        ("profile", ["STRING", {}], "x"),
        ("image_prompt", ["STRING", {}], "x.png"),
        ("negative_mask_text_2", ["STRING", {}], "x"),
        ("input", ["STRING", {}], "x"),
        ("text_prefix", ["STRING", {}], "a photo of"),
        ("image_type", ["COMBO", {"options": ["face"]}], "face"),
        ("model_path", [["sd-1", "flux"]], "flux"),
        ("ckpt_name", [["a/b.safetensors"]], "a/b.safetensors"),
        ("font_path", [["arial.ttf"]], "arial.ttf"),
        ("lut_file", [["warm.cube"]], "warm.cube"),
        ("url", ["COMBO", {"options": ["https://mirror.example"]}], "https://mirror.example"),
        ("extension", [[".png", ".jpg"]], ".png"),
        ("format", [["video/h264-mp4", "png"]], "png"),
        ("image", ["INT", {}], 7),
    ],
)
def test_input_that_only_sounds_alike_takes_what_comfyui_takes(name, spec, value):
    assert judged(graph(value, name), of(spec, name)) == set()


def test_picture_may_be_linked_where_a_class_takes_a_picture_or_a_name():
    pool = of(["IMAGE,STRING"], "image")
    assert judged(graph(["a", 1], "image"), pool) == set()
    assert judged(graph(["a", 0], "image"), pool) == {("1", "image", "file_linked")}
    assert judged(graph(["w", 0], "image"), pool) == {("1", "image", "file_linked")}


def test_choice_that_means_no_file_is_no_file():
    pool = of([["none", "a.png"]], "image")
    assert judged(graph("none", "image"), pool) == set()
    assert file_references(read_workflow(graph("none", "image")), [pool]) == ()
    assert judged(graph("", "file"), of(["STRING", {"default": ""}], "mask", required=False)) == set()


def test_what_the_author_of_a_class_wrote_may_stand_in_a_node_that_writes():
    pool = of(["STRING", {"default": "[date]"}], "output_path")
    assert judged(graph("[date]", "output_path"), pool) == set()
    assert judged(graph("/tmp", "output_path"), pool) == {("1", "output_path", "path_not_allowed")}


@pytest.mark.parametrize("value", ["x", "../../x", "/abs", 7, None, ["w", 0], {"a": 1}])
@pytest.mark.parametrize("name", ["filename_prefix", "prefix", "filename", "file_name"])
def test_what_an_output_node_calls_its_files_is_ours(name, value):
    pool = of(["STRING", {"default": "ComfyUI"}], name)
    assert judged(graph(value, name), pool) == set()
    assert dispatched(graph(value, name), pool)["1"]["inputs"] == {name: "gateway/job/out/1"}


def test_asset_is_no_prefix():
    assert judged(graph(ASSET, "filename_prefix"), of(["STRING", {}], "filename_prefix")) == {
        ("1", "filename_prefix", "path_not_allowed")
    }


def test_second_name_of_the_files_of_a_node_stays_as_it_was_made():
    entry = {"filename": ["STRING", {"default": "%time"}], "filename_prefix": ["STRING", {"default": "C"}]}
    pool = upstream({"Own": {"input": {"required": entry}, "output": [], "output_node": True}})
    raw = {"1": {"class_type": "Own", "inputs": {"filename": "%time", "filename_prefix": "mine"}}}
    assert judged(raw, pool) == set()
    assert dispatched(raw, pool)["1"]["inputs"] == {"filename": "%time", "filename_prefix": "gateway/job/out/1"}
    raw["1"]["inputs"]["filename"] = "../x"
    assert judged(raw, pool) == {("1", "filename", "path_not_allowed")}


@pytest.mark.parametrize("value", ["/etc/passwd", "http://x", "a/../b", "x.png [output]", {"a": ["../x"]}])
def test_what_may_name_a_file_is_not_sent_in_an_input_that_its_class_does_not_list(value):
    """Most classes pass over such an input; those that take any would read the file."""
    raw = graph(1, odd=value, image="x.png", url="", videopreview={"params": {"filename": "a.png", "type": "output"}})
    raw["1"]["inputs"] |= {
        "lora_1": {"on": True, "lora": "sub/a.safetensors"},
        "note": "3 / 4",
        "upload": "image",
        "n": [1, 2, 3],
    }
    assert judged(raw, of(["INT", {}])) == set()
    kept = dispatched(raw, of(["INT", {}]))["1"]["inputs"]
    assert kept.keys() - {"videopreview"} == {"x", "url", "lora_1", "note", "upload", "n"}


def test_export_of_the_editor_with_its_own_widgets_is_accepted():
    raw = load("photo.png", upload="image") | {
        "4": {"class_type": "VHS_LoadVideo", "inputs": SPECS_OF_VIDEO | {"choose video to upload": "image", "videopreview": {"hidden": False}}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
    }  # fmt: skip
    assert judged(raw, FULL) == set()
    assert "videopreview" not in dispatched(raw)["4"]["inputs"]


SPECS_OF_VIDEO = {
    "video": "clip.mp4", "force_rate": 0, "custom_width": 0, "custom_height": 0,
    "frame_load_cap": 0, "skip_first_frames": 0, "select_every_nth": 1,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- VideoHelperSuite


def combined(**inputs):
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": ASSET}},
        "2": {
            "class_type": "VHS_VideoCombine",
            "inputs": {"images": ["1", 0], "frame_rate": 8, "loop_count": 0, "filename_prefix": "x", "format": "video/h264-mp4"}
            | {"pingpong": False, "save_output": True} | inputs,
        },
        "w": {"class_type": "PrimitiveString", "inputs": {"value": "none;movie=/etc/passwd"}},
        "n": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
    }  # fmt: skip


FORMATS = json.loads(json.dumps(ALL))
FORMATS["VHS_VideoCombine"]["input"]["required"]["format"][0] = ["image/gif", "video/h264-mp4", "video/ffmpeg-gif"]
VHS = upstream(FORMATS)


def test_widgets_of_a_format_are_taken_as_listed():
    assert judged(combined(pix_fmt="yuv420p", crf=20, save_metadata=False, trim_to_audio=True), VHS) == set()
    assert judged(combined(crf=["n", 0]), VHS) == set()
    assert judged(combined(format="video/ffmpeg-gif", dither="bayer"), VHS) == set()


@pytest.mark.parametrize(
    "value", ["none;movie=/etc/passwd[x]", "Bayer", 7, None, {"__value__": "bayer"}, ["w", 0], ["n", 0]]
)
def test_widget_that_goes_into_a_filter_of_ffmpeg_takes_no_other_words(value):
    ((node, field, _),) = judged(combined(format="video/ffmpeg-gif", dither=value), VHS)
    assert (node, field) == ("2", "dither")


@pytest.mark.parametrize("value", ["20", "20 -vf movie=/x", None, {}, 101, -1, ["w", 0]])
def test_widget_that_is_a_number_is_one(value):
    ((node, field, _),) = judged(combined(crf=value), VHS)
    assert (node, field) == ("2", "crf")


@pytest.mark.parametrize("value", [["w", 0], {"__value__": "video/ffmpeg-gif"}, None])
def test_format_is_chosen_openly(value):
    assert ("2", "format", "invalid_value") in judged(combined(format=value, dither="none;movie=/etc/passwd"), VHS)


def test_links_that_only_the_pack_itself_knows_to_fit_are_taken():
    """Its types compare equal to more than they are called."""
    latent = {
        "l": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "v": {"class_type": "VHS_LoadVideo", "inputs": SPECS_OF_VIDEO | {"force_rate": ["n", 0]}},
        "m": {"class_type": "VHS_GetLatentCount", "inputs": {"latents": ["v", 0]}},
        "p": {"class_type": "PreviewAny", "inputs": {"source": ["m", 0]}},
    }
    assert judged(combined(frame_rate=["n", 0], images=["l", 0]) | latent, VHS) == set()
    assert judged(combined(loop_count=["w", 0]), VHS) == {("2", "loop_count", "type_mismatch")}
    assert judged(combined(frame_rate=["w", 0]), VHS) == {("2", "frame_rate", "type_mismatch")}


def test_what_the_class_takes_without_listing_it_never_gets_there():
    """``manual_format_widgets`` stands over everything that was judged."""
    sneaky = combined(
        format="video/ffmpeg-gif", manual_format_widgets={"dither": "none;movie=x"}, latents=["1", 0], dither="none"
    )
    sent = dispatched(sneaky, VHS)["2"]["inputs"]
    assert "manual_format_widgets" not in sent
    assert "latents" not in sent
    assert sent["dither"] == "none"


# ------------------------------------------------------------------------------------------------------------- the pool


def without(*names, **changed):
    return upstream({key: entry for key, entry in INFO.items() if key not in names} | changed)


def only_model(name):
    entry = copy.deepcopy(INFO["UNETLoader"])
    entry["input"]["required"]["unet_name"] = [[name]]
    return without(UNETLoader=entry)


def model(name):
    return {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": name, "weight_dtype": "default"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def test_one_upstream_that_can_run_it_is_enough():
    assert judged(model("flux"), only_model("sd"), only_model("flux")) == set()
    assert judged(load(ASSET), without("LoadImage"), FULL) == set()


def test_what_no_upstream_has_is_the_workflows_fault_and_who_lacks_what_is_told():
    draft = read_workflow(model("other"))
    with pytest.raises(WorkflowError) as caught:
        judge(draft, {"one": only_model("sd"), "two": only_model("flux")}, NodeRules())
    assert caught.value.details == {
        "node_errors": {
            "1": [
                {
                    "field": "unet_name",
                    "reason": "value_not_in_list",
                    "message": "'other' is not among the values it takes",
                }
            ]
        },
        "upstreams": {
            name: ["node 1 (UNETLoader): input 'unet_name': 'other' is not among the values it takes"]
            for name in ("one", "two")
        },
    }


def test_upstreams_of_which_each_lacks_something_else_are_told_apart():
    known = {"one": only_model("sd"), "two": without("UNETLoader")}
    with pytest.raises(WorkflowError) as caught:
        judge(read_workflow(model("flux")), known, NodeRules())
    assert caught.value.message == "No upstream can run this workflow: each lacks something of it."
    assert set(caught.value.details) == {"upstreams"}
    assert set(caught.value.details["upstreams"]) == {"one", "two"}


def test_file_counts_as_one_where_any_upstream_takes_a_file():
    """Wherever it is sent, one of the client's own goes there."""
    words, files = of(["STRING", {}], "picture"), of([["a.png"], {"image_upload": True}], "picture")
    raw = graph("mine.png", "picture")
    (reference,) = file_references(read_workflow(raw), [words, files])
    assert reference.at == ("1", "picture")
    assert judged(graph("/etc/passwd", "picture"), words, files) == {("1", "picture", "path_not_allowed")}


def test_without_any_upstream_our_own_table_is_asked():
    (reference,) = file_references(read_workflow(load("mine.png")), [])
    assert reference.name == "mine.png"


def test_denied_class_is_refused_whoever_has_it_and_wherever_it_stands():
    raw = load(ASSET) | {"9": {"class_type": "LoadImage", "inputs": {"image": ASSET}}}
    assert judged(raw, FULL, rules=NodeRules(frozenset({"Load*"}))) == {
        ("1", "class_type", "class_denied"),
        ("9", "class_type", "class_denied"),
    }
    assert judged(raw, rules=NodeRules(frozenset({"Load*"}))) == {
        ("1", "class_type", "class_denied"),
        ("9", "class_type", "class_denied"),
    }


def test_thousands_of_faults_are_told_as_some():
    raw = {str(number): {"class_type": f"Nope{number}", "inputs": {}} for number in range(1_900)}
    with pytest.raises(WorkflowError) as caught:
        judge(read_workflow(raw), {"one": FULL, "two": FULL}, NodeRules())
    assert len(caught.value.details["node_errors"]) == 100
    assert all(len(told) == 20 for told in caught.value.details["upstreams"].values())


# ---------------------------------------------------------------------------------------------------- whatever is sent

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["SECRET", "SECRET/x", "/SECRET", "../SECRET", "http://SECRET", "SECRET.png", "SECRET [output]", "SECRET.png [input]"]),
    st.sampled_from([{"__value__": "SECRET"}, {"__value__": ["w", 0]}, {"__value__": ["SECRET"]}, {"image": "SECRET"}, ASSET]),
    st.tuples(st.sampled_from(["w", "1", "a", "nope"]), st.integers(-1, 3)).map(list),
    st.lists(st.sampled_from(["SECRET", "w", 0]), max_size=3),
)  # fmt: skip
#: Every class that names a file, folder or URL anywhere, by our own judgement.
NAMING = sorted(
    name
    for name in INFO
    if Classes(FULL).get(name).inputs_of(read_workflow({"1": {"class_type": name, "inputs": {}}}).nodes["1"]).places
)


@given(st.data())
def test_no_word_of_a_client_reaches_what_names_a_file(data):
    name = data.draw(st.sampled_from(NAMING))
    raw = MINIMAL.graph(name) if name not in NEVER else load("x", name, "x")
    target = next(node for node in raw.values() if node["class_type"] == name)
    for each in data.draw(st.lists(st.sampled_from([*SPECS[name], "unlisted", "video_path"]), min_size=1, max_size=4)):
        target["inputs"][each] = data.draw(VALUES)
    raw["w"] = {"class_type": "PrimitiveString", "inputs": {"value": "SECRET"}}
    raw["a"] = {"class_type": "VHS_Unbatch", "inputs": {"batched": ["w", 0]}}
    if judged(raw, FULL):
        return
    classes = Classes(FULL)
    for node in read_workflow(dispatched(raw)).nodes.values():
        known = classes.get(node.class_type)
        for each, place in known.inputs_of(node).places.items():
            value = node.inputs.get(each)
            assert "SECRET" not in json.dumps(value, default=repr), (each, place, value)
            assert "Link" not in repr(value), (each, place, value)
        if "video_path" not in SPECS[node.class_type]:
            assert "SECRET" not in json.dumps(node.inputs.get("video_path"))

"""The shape and the bounds of clients' own graphs (``workflow_reading.py``)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comfy.graph import Link
from gateway.errors import MissingAssetError, WorkflowError, WorkflowFormatError
from gateway.workflow_reading import MAX_CHAIN, MAX_NODE_ERRORS, MAX_NODES, cut, read_workflow

ROOT = Path(__file__).parents[2]
GOOD = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}, "_meta": {"title": "Photo"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "mine"}},
}
ASSET = {"__type": "core/ASSET", "info": {"id": "a-1"}}


def with_node(**changes):
    return GOOD | {"3": {"class_type": "Note", "inputs": {}} | changes}


def with_value(value):
    return with_node(inputs={"x": value})


def refused(graph):
    with pytest.raises(WorkflowError) as caught:
        read_workflow(graph)
    return caught.value


def reasons(graph):
    told = refused(graph).details["node_errors"]
    return {(node, each["field"], each["reason"]) for node, found in told.items() for each in found}


def nested(depth, kind=list):
    value = "x"
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


# --------------------------------------------------------------------------------------------------------------- good


def test_graph_is_read_as_it_stands_and_kept_as_sent():
    before = copy.deepcopy(GOOD)
    draft = read_workflow(GOOD)
    assert draft.graph is GOOD
    assert before == GOOD
    assert draft.nodes["1"].title == "Photo"
    assert draft.nodes["2"].inputs == {"images": Link("1", 0), "filename_prefix": "mine"}


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, 2**64 - 1, "", "x" * 1_000_000, "ü🌌 👩‍👧 عربي \n\t", [], {}, {"a": [1, 2]}, ["a", "b"], [1, 2, 3], ASSET,
     {"__value__": [1, 2]}, ["1", 0], nested(20), nested(20, dict)],
)  # fmt: skip
def test_any_value_of_json_may_stand_in_an_input(value):
    assert read_workflow(with_value(value)).graph["3"]["inputs"]["x"] == value


@pytest.mark.parametrize(
    "name", ["3", "12:7", " 3", "03", "node three", "\uff13", "4.0.0.1", "__proto__", "ReActor 🌌", "👩‍👧"]
)
def test_any_name_that_can_be_shown_is_one(name):
    graph = {name: {"class_type": name, "inputs": {name: 1}}}
    assert set(read_workflow(graph).nodes) == {name}


def test_ids_that_look_alike_are_different_nodes():
    graph = {each: {"class_type": "Note", "inputs": {}} for each in ("3", " 3", "03", "\uff13", "3 ")}
    assert len(read_workflow(graph).nodes) == 5


def test_members_of_a_node_that_comfyui_passes_over_are_passed_over():
    graph = with_node(_meta=7, is_changed=[1], widgets_values=[2], inputs={"x": 1})
    assert read_workflow(graph).nodes["3"].title is None


def test_title_is_made_fit_to_be_shown():
    title = "a\nb\u202ec" + "x" * 500
    shown = read_workflow(with_node(_meta={"title": title})).nodes["3"].title
    assert shown.startswith("a?b?c")
    assert len(shown) == 200


@given(st.text(max_size=300), st.integers(1, 64))
def test_what_is_cut_is_short_and_on_one_line(text, limit):
    shown = cut(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()


# ----------------------------------------------------------------------------------------------------------- no graph


@pytest.mark.parametrize("raw", [None, 1, "x", [], [GOOD], True, {}])
def test_what_is_no_object_of_nodes_is_no_workflow(raw):
    error = refused(raw)
    assert (error.code, error.status_hint) == ("invalid_workflow", 422)


@pytest.mark.parametrize("raw", [{"nodes": [], "links": []}, {"nodes": [{"id": 1}], "version": 0.4}, {"nodes": []}])
def test_format_of_the_editor_is_told_apart(raw):
    with pytest.raises(WorkflowFormatError, match="Save \\(API format\\)") as caught:
        read_workflow(raw)
    assert caught.value.code == "workflow_format_ui"


def test_node_may_be_called_nodes():
    assert read_workflow({"nodes": GOOD["1"]}).nodes["nodes"].class_type == "LoadImage"


@pytest.mark.parametrize(
    ("node", "field", "reason"),
    [
        (None, "", "malformed"),
        ("x", "", "malformed"),
        ([], "", "malformed"),
        ({}, "class_type", "malformed"),
        ({"inputs": {}}, "class_type", "malformed"),
        ({"class_type": "", "inputs": {}}, "class_type", "malformed"),
        ({"class_type": 7, "inputs": {}}, "class_type", "malformed"),
        ({"class_type": ["LoadImage"], "inputs": {}}, "class_type", "malformed"),
        ({"class_type": "Load\u202eImage", "inputs": {}}, "class_type", "malformed"),
        ({"class_type": "x" * 201, "inputs": {}}, "class_type", "malformed"),
        ({"class_type": "LoadImage"}, "inputs", "malformed"),
        ({"class_type": "LoadImage", "inputs": None}, "inputs", "malformed"),
        ({"class_type": "LoadImage", "inputs": []}, "inputs", "malformed"),
        ({"class_type": "LoadImage", "inputs": {"a\x00": 1}}, "a?", "bad_name"),
        ({"class_type": "LoadImage", "inputs": {"a\u2028": 1}}, "a?", "bad_name"),
        ({"class_type": "LoadImage", "inputs": {"x" * 201: 1}}, "x" * 199 + "…", "bad_name"),
    ],
)
def test_node_that_is_none_is_named_with_what_is_wrong(node, field, reason):
    assert reasons(GOOD | {"3": node}) == {("3", field, reason)}


@pytest.mark.parametrize("node_id", ["", "a\nb", "a\u202eb", "x" * 201])
def test_id_that_cannot_be_shown_is_none(node_id):
    ((named, _, reason),) = reasons(GOOD | {node_id: {"class_type": "Note", "inputs": {}}})
    assert reason == "bad_name"
    assert named.isprintable()


def test_every_node_at_fault_is_named_up_to_a_limit():
    graph = {str(number): None for number in range(2 * MAX_NODE_ERRORS)}
    error = refused(graph)
    assert len(error.details["node_errors"]) == MAX_NODE_ERRORS
    assert error.message.endswith(f", and {2 * MAX_NODE_ERRORS - 1} more.")


# -------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("link", [["1", -1], ["1", 0.0], ["1", 1.5], ["1", True], ["nope", -1]])
def test_link_to_what_is_no_slot_is_refused(link):
    assert reasons(with_value(link)) == {("3", "x", "bad_link")}
    # ComfyUI unwraps this after it has looked at links, and then follows it.
    assert reasons(with_value({"__value__": link})) == {("3", "x", "bad_link")}


def test_link_that_is_wrapped_is_refused():
    assert reasons(with_value({"__value__": ["1", 0]})) == {("3", "x", "bad_link")}


def test_link_to_a_node_that_is_not_there_is_refused():
    assert reasons(with_value(["77", 0])) == {("3", "x", "bad_link")}
    assert reasons(with_value([" 1", 0])) == {("3", "x", "bad_link")}


def test_node_that_is_linked_to_itself_is_refused():
    assert reasons(with_value(["3", 0])) == {("3", "", "cycle")}


def test_circle_is_refused_however_long():
    size = 900
    ring = {str(each): {"class_type": "Note", "inputs": {"x": [str((each + 1) % size), 0]}} for each in range(size)}
    assert {reason for _, _, reason in reasons(ring)} == {"cycle"}


def chain(length):
    first = {"0": {"class_type": "Note", "inputs": {}}}
    return first | {str(i): {"class_type": "Note", "inputs": {"x": [str(i - 1), 0]}} for i in range(1, length)}


def test_chain_that_comfyui_cannot_follow_is_refused():
    assert len(read_workflow(chain(MAX_CHAIN)).nodes) == MAX_CHAIN
    assert reasons(chain(MAX_CHAIN + 1)) == {(str(MAX_CHAIN), "", "too_deep")}
    # In any order, and however wide.
    backwards = dict(reversed(chain(MAX_CHAIN + 1).items()))
    assert {reason for _, _, reason in reasons(backwards)} == {"too_deep"}
    assert read_workflow(chain(2) | {f"w{i}": {"class_type": "N", "inputs": {"x": ["1", 0]}} for i in range(200)})


# ------------------------------------------------------------------------------------------------------------- assets


@pytest.mark.parametrize(
    "info",
    [None, "a-1", [], {}, {"id": None}, {"id": ""}, {"id": 7}, {"id": {"id": "a"}}, {"id": "a\x00"}, {"id": "x" * 201},
     {"id": "a-1", "hash": 7}, {"hash": "blake3:00"}],
)  # fmt: skip
def test_reference_that_is_none_is_a_missing_asset(info):
    with pytest.raises(MissingAssetError) as caught:
        read_workflow(with_value({"__type": "core/ASSET", "info": info}))
    assert (caught.value.code, caught.value.status_hint) == ("missing_asset", 422)
    assert len(caught.value.details["missing_ids"]) == 1


def test_reference_without_info_is_a_missing_asset_wherever_it_stands():
    for graph in (with_value([{"__type": "core/ASSET"}]), with_node(_meta={"title": {"__type": "core/ASSET"}})):
        with pytest.raises(MissingAssetError):
            read_workflow(graph)


@pytest.mark.parametrize(
    ("graph", "field", "reason"),
    [
        (with_value([ASSET]), "x", "asset_misplaced"),
        (with_value([ASSET, 0]), "x", "asset_misplaced"),
        (with_value({"a": {"b": ASSET}}), "x", "asset_misplaced"),
        (with_value({"__value__": ASSET}), "x", "asset_misplaced"),
        (with_node(_meta={"title": ASSET}), "", "asset_misplaced"),
        (with_node(_meta=ASSET), "", "asset_misplaced"),
        (with_node(other=[ASSET]), "", "asset_misplaced"),
        (with_node(class_type=ASSET), "class_type", "malformed"),
        (with_node(inputs=ASSET), "inputs", "malformed"),
        (GOOD | {"3": ASSET}, "", "malformed"),
    ],
)
def test_reference_stands_only_where_the_value_of_an_input_does(graph, field, reason):
    assert ("3", field, reason) in reasons(graph)


def test_other_things_with_a_type_are_only_values():
    value = {"__type": "core/OTHER", "info": 7}
    assert read_workflow(with_value(value)).nodes["3"].inputs["x"] == value


# ------------------------------------------------------------------------------------------------------------- bounds


def test_graph_of_50_000_nodes_is_refused():
    assert "nodes" in refused({str(each): GOOD["1"] for each in range(50_000)}).message
    assert len(read_workflow({str(each): GOOD["1"] for each in range(MAX_NODES)}).nodes) == MAX_NODES


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [40, 100_000])
def test_graph_that_is_too_deep_is_refused_without_recursion(kind, depth):
    assert "deeper" in refused(with_value(nested(depth, kind))).message


def test_string_of_10_mb_is_refused_and_many_that_are_as_much_together():
    assert "string" in refused(with_value("x" * 10_000_000)).message
    assert "characters" in refused(with_value(["x" * 1_000_000] * 9)).message
    assert "characters" in refused(with_value({"k" * 3_000_000 + str(i): 1 for i in range(3)})).message


def test_more_values_than_a_graph_can_mean_are_refused():
    assert "values" in refused(with_value([0] * 600_000)).message
    assert "values" in refused(with_value([[0] * 1000] * 600)).message


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), 10**100, -(10**4000), {1: 2}, {None: 1}, (1,), b"x", {1}, "\ud800"],
)
def test_value_that_json_cannot_carry_is_refused(value):
    refused(with_value(value))
    refused(with_value([value]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "core/ASSET"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "__type", "info", "id", "__value__", "class_type", "inputs", "_meta", "title"]), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(["1", "2", "nodes", ""]),
        JSON | st.fixed_dictionaries({"class_type": st.just("N"), "inputs": JSON}),
        max_size=3,
    )
)
def test_whatever_is_sent_is_read_or_refused(raw):
    before = repr(raw)
    told = None
    try:
        draft = read_workflow(raw)
    except WorkflowError as error:
        told = error
    if told is None:
        assert list(draft.nodes) == list(raw)
    else:
        assert told.status_hint == 422
        assert json.dumps(told.details, allow_nan=False)
        assert told.message.isprintable()
    assert repr(raw) == before

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comfy.graph import (
    GraphError,
    Link,
    allowed_values,
    as_link,
    execution_order,
    nodes_by_title,
    output_nodes,
    parse_graph,
    requirements,
)

RAW = {
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    "3": {
        "class_type": "Swap",
        "inputs": {"image": ["1", 0], "model": "a.onnx", "index": 0},
        "_meta": {"title": "Swap"},
    },
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": "Target"}},
}


def changed(**nodes):
    return {**copy.deepcopy(RAW), **nodes}


def test_nodes_links_and_titles_are_read():
    graph = parse_graph(RAW)
    assert list(graph) == ["9", "3", "1"]
    assert dict(graph["3"].links()) == {"image": Link("1", 0)}
    assert [node.id for node in nodes_by_title(graph, "Target")] == ["1"]
    assert graph["9"].title is None


def test_execution_order_follows_the_links():
    assert execution_order(parse_graph(RAW)) == ("1", "3", "9")


def test_requirements_are_classes_and_named_choices():
    needed = requirements(parse_graph(RAW))
    assert needed.classes == {"SaveImage", "Swap", "LoadImage"}
    assert needed.choices == {("Swap", "model", "a.onnx"), ("LoadImage", "image", "x.png")}


def test_output_nodes_are_told_by_object_info():
    graph = parse_graph(RAW)
    assert [node.id for node in output_nodes(graph, {"SaveImage": {"output_node": True}, "Swap": {}})] == ["9"]


def test_allowed_values_of_both_kinds_of_node():
    entry = {
        "input": {
            "required": {"model": [["a", "b"], {}], "scale": ["FLOAT", {}]},
            "optional": {"name": ["COMBO", {"options": ["x"]}], "odd": []},
        }
    }
    assert allowed_values(entry) == {"model": ("a", "b"), "scale": None, "name": ("x",), "odd": None}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([], "a graph is an object"),
        ({}, "no nodes"),
        ({"nodes": [], "links": [], "version": 0.4}, r"Save \(API format\)"),
        (changed(**{"3": 1}), "node '3': it is not an object"),
        (changed(**{"3": {"inputs": {}}}), "node '3': it has no class_type"),
        (changed(**{"3": {"class_type": "Swap"}}), "node '3': it has no inputs"),
        (changed(**{"3": {"class_type": "Swap", "inputs": {"image": ["77", 0]}}}), "'image' is linked to node '77'"),
        (changed(**{"1": {"class_type": "LoadImage", "inputs": {"image": ["9", 0]}}}), "circle"),
    ],
)
def test_what_is_no_graph_is_refused_with_the_reason(raw, reason):
    with pytest.raises(GraphError, match=reason):
        parse_graph(raw)


@pytest.mark.parametrize("value", [["1"], ["1", "0"], ["1", True], ["1", -1], [1, 0], "1", ["1", 0, 0]])
def test_other_lists_are_no_links(value):
    assert as_link(value) is None


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class_type", "inputs", "_meta", "title", "1", "nodes", "links"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_parsing_raises_nothing_but_graph_errors(raw):
    try:
        graph = parse_graph(raw)
    except GraphError:
        return
    assert set(execution_order(graph)) == set(graph)

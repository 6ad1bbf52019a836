from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded.ordering import RunOrder


def node(*sources: str) -> dict:
    return {"inputs": {f"in{index}": [source, 0] for index, source in enumerate(sources)}}


def order_of(graph: dict, outputs: list[str], cached: frozenset[str] = frozenset()) -> list[str]:
    order = RunOrder(graph, outputs, cached.__contains__, outputs.__contains__)
    ran = []
    while order:
        ran.append(order.next())
        order.done(ran[-1])
    return ran


@st.composite
def graphs(draw) -> dict:
    """Acyclic: a node links to nodes of lower number only."""
    count = draw(st.integers(1, 12))
    return {
        str(n): node(*draw(st.lists(st.sampled_from([str(i) for i in range(n)]), max_size=3)) if n else ())
        for n in range(count)
    }


@given(graphs())
def test_every_node_runs_once_and_after_what_it_needs(graph):
    ran = order_of(graph, [list(graph)[-1]])
    assert len(ran) == len(set(ran))
    for node_id in ran:
        for source, _ in graph[node_id]["inputs"].values():
            assert ran.index(source) < ran.index(node_id)
    assert ran[-1] == list(graph)[-1]


def test_output_that_is_ready_runs_before_the_rest():
    graph = {"1": node(), "2": node("1"), "8": node("1"), "9": node("2")}
    assert order_of(graph, ["9", "8"]) == ["1", "8", "2", "9"]


def test_nothing_before_a_cached_node_runs():
    graph = {"1": node(), "2": node("1"), "9": node("2")}
    assert order_of(graph, ["9"], frozenset({"2"})) == ["9"]


def test_link_to_a_node_that_is_not_there_is_ignored():
    assert order_of({"9": node("77")}, ["9"]) == ["9"]

"""Clients' own graphs as templates: read once, bounded in memory."""

from __future__ import annotations

import pytest

from gateway.engine import client_graphs
from gateway.engine.client_graphs import ClientGraphs
from gateway.errors import TemplateError
from gateway.workflow import Workflow

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {}}}


class Shelf:
    """The part of a store that is asked."""

    def __init__(self):
        self.asked = []

    async def workflow(self, job_id):
        self.asked.append(job_id)
        return None if job_id == "gone" else Workflow(GRAPH, {}, {}, "0" * 16).to_json()


@pytest.fixture
def shelf():
    return Shelf()


async def test_a_graph_is_read_once_and_jobs_of_one_requirement_share_it(shelf):
    graphs = ClientGraphs(shelf)
    first = await graphs.of("a", "workflow@0")
    assert await graphs.of("b", "workflow@0") is first
    assert await graphs.of("b") is await graphs.of("b")
    assert shelf.asked == ["a", "b"]
    assert (first.workflow.graph, first.requirement) == (GRAPH, "workflow@0000000000000000")


@pytest.mark.parametrize(("limit", "most"), [("MAX_GRAPHS", 2), ("MAX_CHARACTERS", 250)])
async def test_the_oldest_are_forgotten_beyond_the_bounds(shelf, monkeypatch, limit, most):
    monkeypatch.setattr(client_graphs, limit, most)
    graphs = ClientGraphs(shelf)
    for name in ("a", "b", "a", "c", "a", "b"):
        await graphs.of(name)
    assert shelf.asked == ["a", "b", "c", "b"]


async def test_a_graph_that_is_not_kept_is_an_error_and_is_asked_for_again(shelf):
    graphs = ClientGraphs(shelf)
    for _ in range(2):
        with pytest.raises(TemplateError):
            await graphs.of("gone")
    assert shelf.asked == ["gone", "gone"]

"""Every operation of the OpenAPI document with a few examples each; fifty where CI is set, a thousand by ``python -m tests.openapi``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.openapi.exploring import explored
from tests.openapi.house import House, opened

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(Path(tmp_path_factory.mktemp("house"))) as made:
        yield made


@pytest.mark.parametrize("examples", [2, pytest.param(50, marks=pytest.mark.long)])
def test_each_answer_is_one_that_the_document_describes(house: House, examples: int) -> None:
    reports = list(explored(house, examples=examples))
    count = sum(len(item) for item in house.document["paths"].values())
    assert len(reports) == count
    assert {report.label: report.fault for report in reports if report.fault} == {}
    assert all(report.statuses for report in reports)


@pytest.mark.parametrize(
    ("status", "what"),
    [("404", "Undocumented status code"), ("200", "schema")],
)
def test_an_answer_that_is_not_described_is_found(house: House, status: str, what: str) -> None:
    document = copy.deepcopy(house.document)
    responses = document["paths"]["/status/{prompt_id}"]["get"]["responses"]
    if status == "404":
        del responses[status]
    else:
        responses[status]["content"]["application/json"]["schema"] = {"type": "object", "required": ["made_up"]}
    told = replace(house, document=document)
    (report,) = explored(told, examples=20, wanted="GET /status/{prompt_id}".__eq__)
    assert what in report.fault

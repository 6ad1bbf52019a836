from __future__ import annotations

from typing import Any

import pytest

from gateway.api.dialects.comfy_v2.job_bodies import STATES_OF
from gateway.api.dialects.comfy_v2.job_reading import (
    Listing,
    Wishes,
    read_job,
    read_listing,
    read_template_job,
)
from gateway.errors import InvalidInputError

GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
ID = "019a0000-0000-7000-8000-000000000001"


def body(**members: Any) -> dict[str, Any]:
    return {"workflow": GRAPH, **members}


def test_a_workflow_alone_is_a_whole_request():
    request = read_job(body())

    assert request.workflow == GRAPH
    assert request.secrets == {}
    assert request.wishes == Wishes()


@pytest.mark.parametrize("nothing", ["webhook_url", "inputs", "extra_data", "gateway", "metadata", "priority"])
def test_null_says_what_leaving_it_out_says(nothing: str):
    assert read_job(body(**{nothing: None})).wishes == Wishes()


def test_members_that_nobody_knows_are_let_pass():
    assert read_job(body(client_id="x", number=3)).workflow == GRAPH


def test_our_additions_are_read_from_one_object():
    given = {
        "priority": 7,
        "metadata": {"client": "acme", "n": 1, "ok": True, "none": None},
        "webhook_url": "https://x",
    }

    assert read_job(body(gateway=given)).wishes == Wishes(7, given["metadata"], "https://x")


def test_what_the_proxy_takes_beside_the_workflow_is_taken_there():
    assert read_job(body(priority=-5, metadata="nightly")).wishes == Wishes(-5, "nightly")


def test_the_secret_is_kept_apart():
    assert read_job(body(extra_data={"api_key_comfy_org": "s3cret"})).secrets == {"api_key_comfy_org": "s3cret"}
    assert read_job(body(extra_data={"api_key_comfy_org": ""})).secrets == {}


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"workflow": None}, "workflow"),
        ({"workflow": []}, "workflow"),
        ({"workflow": "{}"}, "workflow"),
        ({"webhook_url": "https://x"}, "webhook_url"),
        ({"webhook_url": ""}, "webhook_url"),
        ({"inputs": {}}, "inputs"),
        ({"extra_data": []}, "extra_data"),
        ({"extra_data": {"auth_token_comfy_org": "x"}}, "extra_data"),
        ({"extra_data": {"api_key_comfy_org": None}}, "extra_data.api_key_comfy_org"),
        ({"extra_data": {"api_key_comfy_org": 5}}, "extra_data.api_key_comfy_org"),
        ({"extra_data": {"api_key_comfy_org": "x" * 4097}}, "extra_data.api_key_comfy_org"),
        ({"gateway": "x"}, "gateway"),
        ({"gateway": {"prioritty": 1}}, "gateway"),
        ({"gateway": {"priority": "1"}}, "gateway.priority"),
        ({"gateway": {"priority": True}}, "gateway.priority"),
        ({"gateway": {"priority": 1_000_001}}, "gateway.priority"),
        ({"gateway": {"webhook_url": 5}}, "gateway.webhook_url"),
        ({"gateway": {"metadata": []}}, "gateway.metadata"),
        ({"gateway": {"metadata": {"a": {}}}}, "gateway.metadata"),
        ({"gateway": {"metadata": {"a": []}}}, "gateway.metadata"),
        ({"gateway": {"metadata": {"a": 2**63}}}, "gateway.metadata"),
        ({"gateway": {"metadata": {str(n): "" for n in range(17)}}}, "gateway.metadata"),
        ({"gateway": {"metadata": {"a": "x" * 4096}}}, "gateway.metadata"),
        ({"metadata": "é" * 513}, "metadata"),
        ({"priority": 1, "gateway": {"priority": 1}}, "priority"),
        ({"metadata": "a", "gateway": {"metadata": "a"}}, "metadata"),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_refused_by_name(members: dict[str, Any], field: str):
    with pytest.raises(InvalidInputError) as refused:
        read_job(body() | members)
    assert refused.value.field == field


def test_no_refusal_repeats_a_secret():
    with pytest.raises(InvalidInputError) as refused:
        read_job(body(extra_data={"api_key_comfy_org": "s3cret" * 1000}))
    assert "s3cret" not in refused.value.message


def test_the_largest_metadata_is_taken():
    assert read_job(body(metadata="é" * 512)).wishes.metadata == "é" * 512
    labels = {str(number): "x" * 200 for number in range(16)}
    assert read_job(body(metadata=labels)).wishes.metadata == labels


# ------------------------------------------------------------------------------------------------------------ templates


def test_inputs_of_a_template_come_with_wishes():
    inputs, wishes = read_template_job({"inputs": {"target": "a.png"}, "gateway": {"priority": 2}})

    assert (inputs, wishes) == ({"target": "a.png"}, Wishes(2))


@pytest.mark.parametrize("other", ["webhook_url", "workflow", "extra_data", "inputs"])
def test_a_job_of_a_template_takes_inputs_and_nothing_of_a_workflow(other: str):
    with pytest.raises(InvalidInputError) as refused:
        read_template_job({"inputs": {}} | {other: "x"})
    assert refused.value.field == other


# ---------------------------------------------------------------------------------------------------------------- lists


def test_a_query_without_wishes_asks_for_fifty_of_all():
    assert read_listing([], STATES_OF) == Listing(None, {}, 50, None)


def test_a_query_is_read_whole():
    query = [("status", "failed, expired"), ("limit", "7"), ("cursor", ID), ("metadata[a]", "1"), ("odd", "x")]

    assert read_listing(query, STATES_OF) == Listing(frozenset({"failed", "expired"}), {"a": "1"}, 7, ID)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "101")], "limit"),
        ([("limit", "²")], "limit"),
        ([("limit", "")], "limit"),
        ([("limit", "5"), ("limit", "5")], "limit"),
        ([("status", "done")], "status"),
        ([("cursor", "../etc")], "cursor"),
        ([(f"metadata[{number}]", "") for number in range(17)], "metadata"),
    ],
    ids=str,
)
def test_a_query_that_breaks_a_rule_is_refused(query: list[tuple[str, str]], field: str):
    with pytest.raises(InvalidInputError) as refused:
        read_listing(query, STATES_OF)
    assert refused.value.field == field

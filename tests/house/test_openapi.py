"""The OpenAPI document is valid, complete, and says what the code goes by.

That answers are as it says is shown wherever a test asks a window: ``tests/tools/conformance.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway import errors
from gateway.api.dialects import DIALECTS
from gateway.api.dialects.backserv import description as backserv
from gateway.api.dialects.backserv import translation as translation_of_backserv
from gateway.api.dialects.comfy_v2 import job_bodies
from gateway.api.dialects.comfy_v2 import job_description as comfy_v2
from gateway.api.dialects.faceswap import description as faceswap
from gateway.api.dialects.faceswap import translation as translation_of_faceswap
from gateway.api.dialects.swaps_v1 import description as swaps_v1
from gateway.api.dialects.swaps_v1 import detection
from gateway.api.dialects.swaps_v1 import translation as translation_of_v1
from gateway.api.dialects.swiftswap import description as swiftswap
from gateway.api.dialects.swiftswap import translation as translation_of_swiftswap
from gateway.api.openapi import own_accounts, samples
from gateway.api.openapi.document import Section, build, require_complete, spelled
from gateway.api.openapi.publishing import description_of, sections, whole
from gateway.api.openapi.refusals import Manner, kinds_of, sample
from gateway.api.openapi.vocabulary import JSON, World
from gateway.api.own_routes import OWN_ENDPOINTS
from gateway.api.problems import PROBLEM_TYPE, problem
from gateway.api.told_outside import teller
from gateway.api.window import Dialect, Endpoint
from gateway.errors import GatewayError, JobError
from gateway.job import JobState
from gateway.settings import from_mapping
from tests.fakes.fake_service import TASKS

#: Dialects that are not described yet.
LEFT_OUT: set[str] = set()
#: Errors that no endpoint answers with, each with the reason.
NEVER_ANSWERED = {
    errors.GatewayError: "the root",
    errors.LeaseLostError: "the gateway ends with it",
    errors.IdempotencyMismatchError: "swaps_v1 says it in another word",
    errors.IdempotencyInFlightError: "the same",
}
WORLDS = {
    "open": World(from_mapping({"auth": "open"})),
    "keys": World(from_mapping({"auth": "keys", "public_url": "https://faces.example.org/swap"})),
    "with tasks": World(from_mapping({}), TASKS),
}
ALL = pytest.mark.parametrize("world", WORLDS)


@cache
def document(world: str) -> dict[str, Any]:
    return whole(WORLDS[world], DIALECTS, OWN_ENDPOINTS)


@cache
def described() -> list[Section]:
    return sections(WORLDS["with tasks"], DIALECTS, OWN_ENDPOINTS)


def operations(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in of["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def resolved(of: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = of
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


# ------------------------------------------------------------------------------------------------------------ complete


@ALL
def test_document_is_openapi_3_1(world: str) -> None:
    assert document(world)["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document(world)).iter_errors()] == []


def test_validator_finds_what_is_wrong() -> None:
    broken = {**document("open"), "paths": {"/x/{id}": {"get": {"responses": {}}}}}
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


def test_each_dialect_is_described() -> None:
    assert {dialect.name for dialect in DIALECTS if dialect.description is None} == LEFT_OUT


def test_what_is_not_described_or_not_served_is_refused() -> None:
    section = described()[0]
    with pytest.raises(LookupError, match=r"GET /health/ready"):
        require_complete(
            replace(section, endpoints=[each for each in section.endpoints if each.path != "/health/ready"])
        )
    extra = Endpoint("GET", "/-/new", section.endpoints[0].handler)
    with pytest.raises(LookupError, match=r"GET /-/new"):
        require_complete(replace(section, endpoints=[*section.endpoints, extra]))


def test_two_operations_of_one_name_are_refused() -> None:
    section = described()[0]
    with pytest.raises(ValueError, match="two operations"):
        build(WORLDS["open"], [section, section])


def test_each_endpoint_is_an_operation_and_each_operation_an_endpoint() -> None:
    served = {spelled(endpoint).replace("WS ", "GET ") for section in described() for endpoint in section.endpoints}
    assert {name for name, _ in operations(document("open"))} == served


# ------------------------------------------------------------------------------------------------------------ examples


def media(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body, sent and answered."""
    for name, operation in operations(of):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} takes {kind}", content
        for status, response in operation["responses"].items():
            for kind, content in resolved(of, response).get("content", {}).items():
                yield f"{name} answers {status} {kind}", content


@ALL
def test_each_example_fits_its_schema(world: str) -> None:
    of = document(world)
    seen = 0
    for name, content in media(of):
        validator = Draft202012Validator({"components": of["components"], **content["schema"]})
        for example in content.get("examples", {}).values():
            found = [error.message for error in validator.iter_errors(example["value"])]
            assert found == [], name
            seen += 1
    assert seen > 100


def test_each_json_body_and_each_refusal_has_an_example() -> None:
    bare = [
        name
        for name, content in media(document("with tasks"))
        if not content.get("examples") and ("application/json" in name or PROBLEM_TYPE in name)
    ]
    assert bare == ["GET /openapi.json answers 200 application/json"]


# ------------------------------------------------------------------------------------------------------------ refusals


@ALL
def test_each_answer_carries_the_id_of_its_request(world: str) -> None:
    of = document(world)
    for name, operation in operations(of):
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in resolved(of, response)["headers"], (name, status)
    assert of["components"]["headers"]["X-Request-ID"]["required"]


def leaves(kind: type[GatewayError]) -> list[type[GatewayError]]:
    return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]


def test_each_error_is_answered_by_some_endpoint_or_none_for_a_reason() -> None:
    answered = {
        kind
        for section in described()
        for endpoint in section.endpoints
        for kind in kinds_of(endpoint, section.description.operations[spelled(endpoint)])
    }
    known = {
        kind for kind in leaves(GatewayError) if not issubclass(kind, JobError) and kind.__module__ == errors.__name__
    }
    assert known - answered == set(NEVER_ANSWERED)


@pytest.mark.parametrize("section", described(), ids=lambda section: section.description.tag)
def test_each_refusal_has_its_status_and_the_envelope_of_its_dialect(section: Section) -> None:
    of = document("with tasks")
    for endpoint in section.endpoints:
        operation = section.description.operations[spelled(endpoint)]
        method = spelled(endpoint).partition(" ")[0].lower().replace("ws", "get")
        responses = of["paths"][endpoint.path][method]["responses"]
        if method == "head":
            continue  # its answers have no bodies
        for kind in kinds_of(endpoint, operation):
            manners = ((section.manner, JSON), (Manner(problem), PROBLEM_TYPE))
            for manner, media_type in manners:
                envelope = manner.envelope
                if envelope is problem and media_type == JSON:
                    continue
                content = resolved(of, responses[str(manner.status_of(sample(kind)))])["content"]
                validator = Draft202012Validator({"components": of["components"], **content[media_type]["schema"]})
                assert [error.message for error in validator.iter_errors(envelope(sample(kind), "an-id"))] == []
                strange = {**problem(sample(kind), "an-id"), "code": "made_up", "error": "made_up"}
                assert list(validator.iter_errors(strange)), (endpoint.path, kind)


# ----------------------------------------------------------------------------------------------------- tables and words


def test_bodies_are_described_as_they_are_read() -> None:
    for table, fields in own_accounts.TABLES:
        assert set(fields()) == table


#: The field that says a job's state in each dialect's answer.
WORDS = [
    (faceswap.FaceswapStatus, translation_of_faceswap.STATE_WORDS, set()),
    (swiftswap.SwiftswapStatus, translation_of_swiftswap.STATE_WORDS, set()),
    (backserv.BackservTask, translation_of_backserv.STATE_WORDS, set()),
    (swaps_v1.PublicSwap, translation_of_v1.STATE_WORDS, {translation_of_v1.PREPARING}),
    (comfy_v2.ComfyJob, {}, set(job_bodies.STATES_OF)),
    (swaps_v1.Detection, detection.STATE_WORDS, set()),
]


@pytest.mark.parametrize(("model", "words", "further"), WORDS, ids=lambda value: getattr(value, "__name__", ""))
def test_words_for_states_are_those_of_the_dialect(model: Any, words: dict[JobState, str], further: set[str]) -> None:
    assert set(get_args(model.model_fields["status"].annotation)) == set(words.values()) | further


TELLING = [each for each in DIALECTS if each.told_outside and each.name not in LEFT_OUT]


@pytest.mark.parametrize("dialect", TELLING, ids=lambda dialect: dialect.name)
def test_what_a_webhook_tells_is_as_described(dialect: Dialect) -> None:
    description = description_of(dialect, WORLDS["open"])
    assert description is not None
    told = description.told_outside
    assert told is not None
    for job in (samples.SUCCEEDED, samples.FAILED, samples.CANCELED):
        body = teller(DIALECTS, "https://faces.example.org", 86_400.0)(replace(job, dialect=dialect.name))
        validator = Draft202012Validator(
            {
                "components": document("open")["components"],
                **document("open")["webhooks"][f"job.{job.state.value}"]["post"]["requestBody"]["content"][JSON][
                    "schema"
                ],
            }
        )
        assert [error.message for error in validator.iter_errors(json.loads(body))] == []
        told.model_validate_json(json.dumps(json.loads(body)["data"]))

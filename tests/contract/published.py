"""The published contract of the Comfy API v2, to hold answers against: status, content type, body.

It is not ours to copy. It lies in the team's shared folder beside the checkout, or where ``COMFYGATE_API_V2`` says.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_schema_validator import OAS30Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tests.tools.asgi import Answer

PATH = Path(
    os.environ.get("COMFYGATE_API_V2")
    or Path(__file__).resolve().parents[3] / "shared" / "data" / "comfy-api-v2.openapi.yaml"
)
needs_contract = pytest.mark.skipif(
    not PATH.is_file(), reason="the published contract of the Comfy API v2 is not here (COMFYGATE_API_V2)"
)
#: What comes before an operation begins, or instead of it, where the operation has no such answer; ``docs/dialects.md``
#: lists it as ours.
OURS = {405, 421, 429, 503}
#: Where the contract has no answer at all for what is malformed, the proxy's.
GAPS = {("POST", "/api/v2/assets/from-hash"): {422}}
#: Statuses of conditional requests, which the contract leaves to HTTP.
OF_HTTP = {304, 412}
_URI = "urn:contract"


@cache
def contract() -> dict[str, Any]:
    return _with_nulls(yaml.safe_load(PATH.read_text(encoding="utf-8")))


def _with_nulls(value: Any) -> Any:
    """``nullable`` beside ``allOf`` as it is meant: OpenAPI 3.0 heeds it beside ``type`` alone, writers of contracts do not."""
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    read = {name: _with_nulls(inner) for name, inner in value.items()}
    if read.get("nullable") is True and "allOf" in read and "type" not in read:
        return {"anyOf": [{"enum": [None], "nullable": True}, {"allOf": read["allOf"]}]}
    return read


@cache
def _registry() -> Registry:
    return Registry().with_resource(_URI, Resource(contents=contract(), specification=DRAFT4))


def conform(value: Any, *pointer: str) -> None:
    """Fail unless a value fits the schema at a place of the contract: ``conform(body, "components", "schemas", "Job")``."""
    place = "/".join(part.replace("~", "~0").replace("/", "~1") for part in pointer)
    validator = OAS30Validator(
        {"$ref": f"{_URI}#/{place}"}, registry=_registry(), format_checker=OAS30Validator.FORMAT_CHECKER
    )
    errors = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(value)]
    assert not errors, errors


def has(method: str, path: str) -> bool:
    """Whether the contract has an operation for a request; what we add to it has none."""
    return _operation(method, path) is not None


def operation(method: str, path: str) -> tuple[str, dict[str, Any]]:
    """The path of the contract that a request's path is one of, and the operation there."""
    found = _operation(method, path)
    if found is None:
        pytest.fail(f"the contract has no {method} {path.partition('?')[0]}")
    return found


def _operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    bare = path.partition("?")[0]
    # Literal paths before those with names in braces, as the contract's own order means them.
    for pattern in sorted(contract()["paths"], key=lambda known: "{" in known):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), bare):
            known = contract()["paths"][pattern]
            if method.lower() in known:
                return pattern, known[method.lower()]
    return None


def hold(method: str, path: str, answer: Answer) -> None:
    """Fail unless the contract has this answer to this request."""
    pattern, known = operation(method, path)
    responses = known["responses"]
    if answer.status in OF_HTTP:
        return
    if str(answer.status) not in responses and answer.status in OURS | GAPS.get((method, pattern), set()):
        conform(answer.json, "components", "schemas", "ErrorEnvelope")
        return
    assert str(answer.status) in responses, (method, pattern, answer.status)
    response = responses[str(answer.status)]
    if "$ref" in response:
        place = response["$ref"].removeprefix("#/").split("/")
        response = contract()["components"]["responses"][place[-1]]
    else:
        place = ["paths", pattern, method.lower(), "responses", str(answer.status)]
    content = response.get("content", {})
    if "application/json" in content:
        assert answer.headers["content-type"].startswith("application/json")
        conform(json.loads(answer.body), *place, "content", "application/json", "schema")
    for name in response.get("headers", {}):
        if name == "Retry-After" and name.lower() in answer.headers:
            assert answer.headers[name.lower()].isdigit()

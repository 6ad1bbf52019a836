"""What the published reference of the v1 API documents, held against the page, the code and the golden files.

The two tables here were read off the reference, method by method; nothing of it may be missing.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gateway.api.dialects.swaps_v1 import DIALECT
from gateway.api.window import Endpoint

ROOT = Path(__file__).resolve().parents[2]
SECTION = (
    (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8").partition("\n## swaps_v1\n")[2].partition("\n## ")[0]
)

_KEY = {"unauthorized": 401, "invalid_api_key": 401, "rate_limited": 429, "api_temporarily_disabled": 503}
#: Endpoint -> code -> status.
CODES: dict[str, dict[str, int]] = {
    "GET /api/v1/me": {**_KEY, "method_not_allowed": 405},
    "GET /api/v1/swaps": {**_KEY, "validation_error": 400},
    "POST /api/v1/swaps": {
        **_KEY,
        "validation_error": 400,
        "unsupported_media_type": 415,
        "payload_too_large": 413,
        "source_unreachable": 400,
        "nsfw_content_detected": 422,
        "insufficient_credits": 402,
        "rate_limited_concurrent": 429,
        "internal_error": 500,
    },
    "GET /api/v1/swaps/{id}": {**_KEY, "not_found": 404},
    "DELETE /api/v1/swaps/{id}": {**_KEY, "not_found": 404},
    "POST /api/v1/face-detect": {
        **_KEY,
        "validation_error": 400,
        "source_unreachable": 400,
        "unsupported_media_type": 415,
        "internal_error": 500,
    },
    "GET /api/v1/face-detect/{id}": {**_KEY, "not_found": 404},
}
_SWAP = "id type status credit_cost progress created_at result_url error metadata webhook_url"
#: Endpoint -> its success and the members of that.
ANSWERS: dict[str, tuple[int, set[str]]] = {
    "GET /api/v1/me": (200, {"user_id", "email_verified", "subscription_tier", "credits", "rate_limit"}),
    "GET /api/v1/swaps": (200, {"data", "next_cursor"}),
    "POST /api/v1/swaps": (201, set(_SWAP.split())),
    "GET /api/v1/swaps/{id}": (200, set(_SWAP.split())),
    "DELETE /api/v1/swaps/{id}": (200, set(_SWAP.split())),
    "POST /api/v1/face-detect": (202, {"task_id", "status", "poll_url", "note"}),
    "GET /api/v1/face-detect/{id}": (
        200,
        {"task_id", "status", "faces_detected", "faces", "error", "created_at", "completed_at"},
    ),
}
#: Members that we add.
ADDED = {"warnings"}
#: Words for where a task is.
STATUSES = {
    "GET /api/v1/swaps/{id}": {"queued", "preparing", "processing", "done", "failed", "canceled"},
    "GET /api/v1/face-detect/{id}": {"queued", "processing", "done", "failed"},
}
TYPES = {"image", "multi_face_image", "gif", "video"}
ASKED = {
    "type",
    "source_url",
    "target_url",
    "target_face_index",
    "enable_face_enhancer",
    "reference_frame_time_seconds",
    "duration_seconds",
    "file_size_bytes",
    "keep_audio",
    "face_swaps",
    "webhook_url",
    "metadata",
}
MAPPED = {"face_index", "source_url", "frame_time_seconds", "enable_face_enhancer"}
INNER = {
    "credits": {"permanent", "monthly", "subscription", "total"},
    "rate_limit": {"limit", "window_seconds", "remaining"},
    "bounding_box": {"x", "y", "width", "height"},
}

ENDPOINTS = pytest.mark.parametrize("endpoint", CODES)


@cache
def goldens() -> tuple[dict[str, Any], ...]:
    folder = ROOT / "tests" / "dialects" / "swaps_v1"
    return tuple(json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))


def asking(endpoint: str) -> list[dict[str, Any]]:
    """Golden files that ask this path, with whatever method."""
    pattern = re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(endpoint.partition(" ")[2]))
    return [case for case in goldens() if re.fullmatch(pattern, case["request"]["path"].partition("?")[0])]


def asked(endpoint: str) -> list[dict[str, Any]]:
    method = endpoint.partition(" ")[0]
    return [case for case in asking(endpoint) if case["request"]["method"] == method]


def told(endpoint: str, status: int) -> list[dict[str, Any]]:
    return [case["answer"]["body"] for case in asked(endpoint) if case["answer"]["status"] == status]


def rows() -> set[tuple[str, str, int]]:
    found = re.findall(r"^\| `([A-Z]+ /api/v1/[^`]+)` \| `(\w+)` \| (\d{3}) \|$", SECTION, re.MULTILINE)
    return {(endpoint, code, int(status)) for endpoint, code, status in found}


def test_the_dialect_has_the_endpoints_of_the_reference() -> None:
    own = {f"{endpoint.method} {endpoint.path}" for endpoint in DIALECT.endpoints if isinstance(endpoint, Endpoint)}
    assert own == set(CODES) == set(ANSWERS)


def test_the_page_lists_every_documented_code() -> None:
    assert rows() == {(endpoint, code, status) for endpoint, codes in CODES.items() for code, status in codes.items()}


@ENDPOINTS
def test_a_golden_file_shows_every_documented_code(endpoint: str) -> None:
    # Another method at the path belongs to none of its methods, so it counts for each.
    shown = {(case["answer"]["body"]["error"]["code"], case["answer"]["status"]) for case in errors_of(endpoint)}
    assert set(CODES[endpoint].items()) - shown == set()


@ENDPOINTS
def test_every_endpoint_refuses_other_methods_with_what_it_allows(endpoint: str) -> None:
    cases = [case for case in asking(endpoint) if case["answer"]["status"] == 405]
    assert cases
    for case in cases:
        assert endpoint.partition(" ")[0] in case["answer"]["headers"]["allow"]
        assert "authorization" not in case["request"]["headers"]


def errors_of(endpoint: str) -> list[dict[str, Any]]:
    return [
        case
        for case in asking(endpoint)
        if "error" in case["answer"]["body"]
        and isinstance(case["answer"]["body"]["error"], dict)
        and (case["answer"]["status"] == 405 or case in asked(endpoint))
    ]


def test_every_error_has_the_documented_envelope() -> None:
    for case in goldens():
        body = case["answer"]["body"]
        if case["answer"]["status"] >= 400:
            assert set(body) == {"error"}
            assert set(body["error"]) == {"code", "message", "request_id"}
            assert body["error"]["request_id"] == case["request"]["headers"]["x-request-id"]


@ENDPOINTS
def test_every_success_has_the_documented_members_and_says_no_more_than_the_page(endpoint: str) -> None:
    status, members = ANSWERS[endpoint]
    bodies = told(endpoint, status)
    assert bodies
    for body in bodies:
        assert set(body) - ADDED == members
    for member in members:
        assert f"`{member}`" in SECTION


@pytest.mark.parametrize("endpoint", STATUSES)
def test_every_documented_status_is_shown(endpoint: str) -> None:
    assert {body["status"] for body in told(endpoint, 200)} == STATUSES[endpoint]


def test_every_documented_member_of_a_create_is_taken_and_every_type() -> None:
    accepted = [case["request"]["json"] for case in asked("POST /api/v1/swaps") if case["answer"]["status"] == 201]
    given = {member for body in accepted for member, value in body.items() if value is not None}
    mapped = {member for body in accepted for mapping in body.get("face_swaps") or [] for member in mapping}
    assert ASKED - given == set()
    assert mapped == MAPPED
    assert {body["type"] for body in accepted} == TYPES
    for member in ASKED | MAPPED:
        assert f"`{member}`" in SECTION


def test_objects_within_answers_have_the_documented_members() -> None:
    found: dict[str, set[str]] = {}

    def look(value: Any) -> None:
        for name, inner in value.items() if isinstance(value, dict) else ():
            if name in INNER:
                found.setdefault(name, set()).update(inner)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(inner)

    for case in goldens():
        if case["answer"]["status"] < 300:
            look(case["answer"]["body"])
    assert found == INNER

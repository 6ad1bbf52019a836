"""Every answer that the golden files of ``comfy_v2`` hold is one of the published contract."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.contract.published import conform, has, hold, needs_contract
from tests.tools.asgi import Answer

pytestmark = [needs_contract, pytest.mark.shared]
CASES = sorted((Path(__file__).parents[1] / "dialects" / "comfy_v2").glob("*.json"))
#: 204 to what only a browser sends: it has had the terminal status, and need not come again.
FOR_BROWSERS = {"events-all-seen", "events-after-the-end-of-a-delivered-job"}
#: They ask what the contract does not have.
OUTSIDE = {"unknown-path", "wrong-method"}


def answer_of(case: dict[str, Any]) -> Answer:
    told = case["answer"]
    headers = {"content-type": "application/json", **told.get("headers", {})}
    body = json.dumps(told["body"]) if "body" in told else told.get("text", "")
    return Answer(told["status"], headers, body.encode())


def hold_addition(answer: Answer) -> None:
    """What we add to the contract answers in its words: jobs are Jobs, errors are errors."""
    if answer.status >= HTTPStatus.BAD_REQUEST:
        conform(answer.json, "components", "schemas", "ErrorEnvelope")
        return
    told = json.loads(answer.body or b"{}")
    for body in [told] if answer.status == HTTPStatus.CREATED else told.get("jobs", []):
        conform(body, "components", "schemas", "Job")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_an_answer_of_a_golden_file_is_one_of_the_contract(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    answer = answer_of(case)
    if path.stem in OUTSIDE:
        conform(json.loads(answer.body), "components", "schemas", "ErrorEnvelope")
        return
    # HEAD of what can be got is HTTP's.
    method, bare = case["request"]["method"], case["request"]["path"]
    if not (has(method, bare) or (method == "HEAD" and has("GET", bare))):
        hold_addition(answer)
        return
    if path.stem in FOR_BROWSERS:
        assert (answer.status, answer.body) == (204, b"")
        return
    hold("GET" if method == "HEAD" and "/by-hash/" not in bare else method, bare, answer)


def test_what_the_contract_does_not_have_is_found() -> None:
    get = "/api/v2/assets/x"
    with pytest.raises(AssertionError, match="required"):
        hold("GET", get, Answer(200, {"content-type": "application/json"}, b'{"id": "x"}'))
    with pytest.raises(AssertionError, match="413"):
        hold("GET", get, Answer(413, {}, b"{}"))
    with pytest.raises(AssertionError, match="error"):
        hold("GET", get, Answer(404, {"content-type": "application/json"}, b'{"detail": "x"}'))
    with pytest.raises(pytest.fail.Exception):
        hold("GET", "/api/v2/nothing", Answer(200, {}, b""))
    asset = {
        "id": "x",
        "hash": None,
        "size_bytes": 1,
        "content_type": "image/png",
        "created_at": "yesterday",
        "url": "http://localhost/x",
        "url_expires_at": "2025-06-18T15:00:00.000Z",
    }
    with pytest.raises(AssertionError, match="created_at"):
        conform(asset, "components", "schemas", "Asset")
    conform({**asset, "created_at": "2025-06-18T15:00:00.000Z"}, "components", "schemas", "Asset")

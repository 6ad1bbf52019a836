"""docs/dialects.md and the dialects say the same, in both directions.

What a dialect says is read from its table of endpoints, its words, and its golden files: what they ask and are answered
is run by ``tests/contract/test_dialects.py``, so a field that is gone there is gone. What its section says is what stands
in backticks, and the keys in JSON there.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.api.app import all_endpoints
from gateway.api.dialects import DIALECTS
from gateway.api.window import Dialect, Endpoint, SocketEndpoint
from gateway.errors import GatewayError
from gateway.job import JobState

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8")
ALL = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

CODE = re.compile(r"`([^`\n]+)`")
ROUTE = re.compile(r"(GET|HEAD|POST|PUT|PATCH|DELETE|WS) (/[^\s?]*)")
PATH = re.compile(r"/[^\s?]*")
WORD = re.compile(r"[a-z][a-z0-9_]*")
JSON_KEY = re.compile(r'"([A-Za-z_]\w*)":')
STATES = re.compile(r"^\| `[^|]+ \| Job state \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", re.MULTILINE)
#: Tables headed "Answer": one row for each field, no other.
ANSWERS = re.compile(r"^\| Answer \|.*\n\|[-|]+\|\n((?:\|.*\|\n)+)", re.MULTILINE)

#: In requests that were accepted, and fields of nobody: they show that other texts are let pass.
NO_FIELDS = {"custom_strings"}
#: What stands in them is the clients' own.
OPAQUE = {"workflow", "inputs"}
#: Words in a section that neither its golden files nor its code have, each with the reason.
ELSEWHERE = {
    "comfy_v2": {
        "data_base64": "of a preview, which passes; tests/contract/test_comfy_v2_jobs.py has one",
        "log": "an event of the contract that nobody tells",
        "outputs_reused": "a field of the proxy's",
    },
    "swaps_v1": {
        "face_numbering_differs": "a warning of the engine",
        "identity_not_tracked": "a warning of templates",
        "null": "JSON's",
        "opencv": "a detector; the goldens' note holds it in a sentence",
        "reactor": "the same",
    },
    "faceswap": {
        "content_type": "of previews, which tests/unit/api/test_previews.py spells out",
        "image_type": "the same, in a binary message",
        "node_id": "the same",
        "comfyui": "an engine's name; the goldens' engine is the other one",
        "image_path": "stands for all that end in _path, which the socket refuses",
        "video_path": "the same",
    },
}

# ----------------------------------------------------------------------------------------------------- what is spoken


@cache
def goldens(name: str) -> tuple[dict[str, Any], ...]:
    folder = ROOT / "tests" / "dialects" / name
    return tuple(json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))


def keys(value: Any) -> Iterator[str]:
    """The names in JSON, however deep."""
    if isinstance(value, dict):
        # Ids of nodes are no names.
        yield from (name for name in value if not name.isdigit())
        for name, inner in value.items():
            if name not in OPAQUE:
                yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def asked_fields(case: dict[str, Any]) -> set[str]:
    """The fields of a form, and every name in a JSON body."""
    request = case["request"]
    return set(request.get("form", {})) | set(keys(request.get("json", {})))


def answered_fields(case: dict[str, Any]) -> set[str]:
    answer = case["answer"]
    events = answer.get("events", [])
    told = {event["event"] for event in events} | set(keys([event["data"] for event in events]))
    return told | set(keys(answer.get("body", {}))) | set(answer.get("body_keys", []))


def fields(dialect: Dialect) -> set[str]:
    """What requests that were accepted held, and what any answer held."""
    found: set[str] = set()
    for case in goldens(dialect.name):
        if case["answer"]["status"] < HTTPStatus.BAD_REQUEST:
            found |= asked_fields(case)
        found |= answered_fields(case)
    return found - NO_FIELDS


def spelled(endpoint: Endpoint | SocketEndpoint) -> str:
    return f"{endpoint.method if isinstance(endpoint, Endpoint) else 'WS'} {endpoint.path}"


def words_in_code(dialect: Dialect) -> set[str]:
    """Every word that stands as a text of its own in a dialect's modules; those that describe it prove nothing."""
    found = set()
    folder = ROOT / "gateway" / "api" / "dialects" / dialect.name
    for path in (path for path in folder.rglob("*.py") if path.name != "description.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def codes() -> set[str]:
    def below(kind: type[GatewayError]) -> set[str]:
        return {kind.code}.union(*(below(sub) for sub in kind.__subclasses__() if sub.__module__ == errors.__name__))

    return below(GatewayError)


# ------------------------------------------------------------------------------------------------- what is written


def section(dialect: Dialect) -> str:
    return PAGE.partition(f"\n## {dialect.name}\n")[2].partition("\n## ")[0]


def marked(text: str) -> set[str]:
    return set(CODE.findall(text))


def named(text: str) -> set[str]:
    """Fields that a text names: in backticks, or as a key in JSON."""
    return marked(text) | set(JSON_KEY.findall(text))


def rows_of_states(text: str) -> list[tuple[str, str]]:
    """(word, states) of the table that says which word stands for what."""
    table = STATES.search(text)
    assert table is not None, "a table of words with the column 'Job state'"
    return re.findall(r"^\| `([^`|]+)` \| ([^|]*) \|$", table[1], re.MULTILINE)


def unknown_words(dialect: Dialect, text: str) -> set[str]:
    """Words in backticks that are no field, state, event, code or text that this dialect knows."""
    cases = goldens(dialect.name)
    known = codes() | {state.value for state in JobState} | set(dialect.state_words.values()) | words_in_code(dialect)
    for case in cases:
        known |= asked_fields(case) | answered_fields(case) | set(strings(case["answer"]))
    return {word for word in marked(text) if WORD.fullmatch(word)} - known


# ------------------------------------------------------------------------------------------------------ said and done


@ALL
def test_each_endpoint_stands_in_its_section(dialect: Dialect) -> None:
    assert {spelled(endpoint) for endpoint in dialect.endpoints} - marked(section(dialect)) == set()


@ALL
def test_each_field_stands_in_its_section(dialect: Dialect) -> None:
    assert fields(dialect) - named(section(dialect)) == set()


@ALL
def test_each_state_stands_in_its_section_with_its_word(dialect: Dialect) -> None:
    written = [
        (JobState(state), word) for word, states in rows_of_states(section(dialect)) for state in states.split(", ")
    ]
    assert sorted(written) == sorted(dialect.state_words.items())


@ALL
def test_tables_of_an_answer_hold_what_its_endpoint_answers(dialect: Dialect) -> None:
    own = {spelled(endpoint): endpoint for endpoint in dialect.endpoints if isinstance(endpoint, Endpoint)}
    for part in section(dialect).split("\n### ")[1:]:
        written = {name for table in ANSWERS.findall(part) for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE)}
        routes = [own[code] for code in marked(part.partition("\n")[0]) if code in own]
        answered: set[str] = set()
        for case in goldens(dialect.name):
            if case["answer"]["status"] < HTTPStatus.BAD_REQUEST and any(asks(case, route) for route in routes):
                answered |= answered_fields(case)
        assert not written or written == answered, part.partition("\n")[0]


def test_fields_of_nobody_are_sent() -> None:
    assert set().union(*(asked_fields(case) for dialect in DIALECTS for case in goldens(dialect.name))) >= NO_FIELDS


@ALL
def test_headings_are_of_its_own_endpoints(dialect: Dialect) -> None:
    headings = "\n".join(line for line in section(dialect).splitlines() if line.startswith("###"))
    routes = {code for code in marked(headings) if ROUTE.fullmatch(code)}
    assert routes
    assert routes <= {spelled(endpoint) for endpoint in dialect.endpoints}


@ALL
def test_each_route_and_path_in_its_section_is_served(dialect: Dialect) -> None:
    served = {spelled(endpoint) for endpoint in all_endpoints(DIALECTS)}
    paths = [route.partition(" ")[2] for route in served]
    written = marked(section(dialect))
    assert {code for code in written if ROUTE.fullmatch(code)} <= served
    assert [code for code in written if PATH.fullmatch(code) and not any(path.startswith(code) for path in paths)] == []


@ALL
def test_each_word_in_its_section_is_known(dialect: Dialect) -> None:
    assert unknown_words(dialect, section(dialect)) == set(ELSEWHERE.get(dialect.name, {}))


@ALL
def test_what_is_left_out_or_made_up_is_found(dialect: Dialect) -> None:
    text = section(dialect)
    for field in fields(dialect):
        without = text.replace(f"`{field}`", field).replace(f'"{field}":', field)
        assert fields(dialect) - named(without) == {field}
    assert "made_up" in unknown_words(dialect, text + "\n| `made_up` | text | nothing |\n")


# ---------------------------------------------------------------------------------------------------- the golden files


def asks(case: dict[str, Any], endpoint: Endpoint) -> bool:
    pattern = re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(endpoint.path))
    request = case["request"]
    return request["method"] == endpoint.method and bool(re.fullmatch(pattern, request["path"].partition("?")[0]))


@ALL
def test_golden_files_ask_each_endpoint_and_see_it_answer_and_refuse(dialect: Dialect) -> None:
    for endpoint in dialect.endpoints:
        if isinstance(endpoint, Endpoint):
            statuses = {case["answer"]["status"] for case in goldens(dialect.name) if asks(case, endpoint)}
            assert any(status < HTTPStatus.BAD_REQUEST for status in statuses), endpoint.path
            if endpoint.method != "GET" or "{" in endpoint.path:
                assert any(status >= HTTPStatus.BAD_REQUEST for status in statuses), endpoint.path


@ALL
def test_golden_files_show_each_word_for_a_state(dialect: Dialect) -> None:
    shown = {text for case in goldens(dialect.name) for text in strings(case["answer"])}
    assert set(dialect.state_words.values()) <= shown

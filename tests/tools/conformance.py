"""Answers held against the OpenAPI document's own words: every answer that a test of the windows sees goes through here.

Closed models find a field that nobody told of, the list of refusals a status or a code that nobody expected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

from pydantic import BaseModel

from gateway.api.openapi.document import Section, spelled
from gateway.api.openapi.problem_model import Problem
from gateway.api.openapi.publishing import sections
from gateway.api.openapi.refusals import by_status, kinds_of
from gateway.api.openapi.vocabulary import Content, World
from gateway.api.own_routes import OWN_ENDPOINTS
from gateway.api.problems import PROBLEM_TYPE, status_hint
from gateway.api.window import Dialect, Endpoint, SocketEndpoint
from gateway.errors import GatewayError, MethodNotAllowedError, NotFoundError
from gateway.settings import from_mapping
from tests.tools.sse_parser import parse


class Conformance:
    """What is described, by path. Args: dialects: those that are spoken."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._dialects = dialects
        self._sections = sections(World(from_mapping({})), dialects, OWN_ENDPOINTS)
        self._places = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(endpoint.path))), endpoint, section)
            for section in self._sections
            for endpoint in section.endpoints
        ]

    def check(self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Assert that an answer is one of those described. What nobody described is let pass."""
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", headers.get("x-request-id", "")), (method, path, headers)
        if method in {"OPTIONS", "HEAD"}:
            return
        here = [(endpoint, section) for pattern, endpoint, section in self._places if pattern.fullmatch(path)]
        asked = [(endpoint, section) for endpoint, section in here if _method(endpoint) == method]
        if not asked:
            if status >= 400 and (section := self._speaker(path)) is not None:
                # An unknown path or method: whoever speaks at the path says so.
                kinds = {404: [NotFoundError], 405: [MethodNotAllowedError]}.get(status)
                _require_envelope(section, headers, body, kinds)
            return
        endpoint, section = asked[0]
        operation = section.description.operations[spelled(endpoint)]
        told = next((answer for answer in operation.answers if answer.status == status), None)
        is_problem = headers.get("content-type") == PROBLEM_TYPE
        status_of = status_hint if is_problem else section.manner.status_of
        refused = by_status(kinds_of(endpoint, operation), status_of).get(status, [])
        where = f"{spelled(endpoint)} answered {status}: {body[:300]!r}"
        assert told is not None or refused, where
        is_refusal = bool(refused) and status >= 400 and b'"code"' in body
        if told is not None and not is_refusal and _is_told(told.contents, headers.get("content-type", ""), body):
            assert {name.lower() for name in told.headers} <= set(headers), where
            return
        assert refused, where
        _require_envelope(section, headers, body, refused)

    def _speaker(self, path: str) -> Section | None:
        """Who answers at a path that is nobody's; None for a dialect that is not described."""
        dialect = next((dialect for dialect in self._dialects if dialect.speaks_at(path)), None)
        if dialect is None:
            return self._sections[-1]
        tags = {section.description.tag: section for section in self._sections}
        return tags.get(dialect.name)


_MADE: dict[tuple[str, ...], Conformance] = {}


def conformance(dialects: Sequence[Dialect]) -> Conformance:
    """The same one for the same dialects: making it takes a while."""
    names = tuple(dialect.name for dialect in dialects)
    if names not in _MADE:
        _MADE[names] = Conformance(dialects)
    return _MADE[names]


def _method(endpoint: Endpoint | SocketEndpoint) -> str:
    return endpoint.method if isinstance(endpoint, Endpoint) else "GET"


def _is_told(contents: Mapping[str, Content], content_type: str, body: bytes) -> bool:
    """Whether a body is one of these; it may as well be an error's."""
    if not contents:
        assert not body
        return True
    kind = content_type.partition(";")[0]
    content = next((content for pattern, content in contents.items() if fnmatch(kind, pattern)), None)
    if content is None:
        return False
    if content.events:
        for message in parse(body).messages:
            content.events[message.event].model_validate_json(json.dumps(message.json))
    elif isinstance(content.shape, type):
        return _fits(content.shape, body)
    return True


def _fits(shape: type[BaseModel], body: bytes) -> bool:
    shape.model_validate_json(body)
    return True


def _require_envelope(
    section: Section, headers: Mapping[str, str], body: bytes, refused: Sequence[type[GatewayError]] | None
) -> None:
    if headers["content-type"] == PROBLEM_TYPE:
        code = Problem.model_validate_json(body).code
        allowed = {kind.code for kind in refused or ()}
    else:
        description = section.description
        description.envelope.model_validate_json(body)
        code = json.loads(body)
        for name in description.code_at:
            code = code[name]
        allowed = {description.code_of(kind.code) for kind in refused or ()}
    assert refused is None or code in allowed, (code, allowed)

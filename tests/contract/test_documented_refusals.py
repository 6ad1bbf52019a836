"""Whatever the engine may raise, an endpoint answers with a status and a code that the OpenAPI document has for it.

What it may raise is read from the facade: each of its functions says so. Requests are those of golden files that were
answered well; in each, one function of the engine after the other raises each of its errors. ``ask`` holds the answers
against the document.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway import errors
from gateway.api import facade
from gateway.api.openapi.refusals import sample
from gateway.errors import GatewayError
from tests.contract.test_dialects import CASES, KEY, body_of, make, prepare
from tests.tools.asgi import Answer, ask

#: Of the functions that may raise "other GatewayErrors": which.
FURTHER = {
    "submit": (
        "ApiDisabledError BusyError InsufficientCreditsError ShuttingDownError StorageFullError TemplateError "
        "TooLargeError UnsafeContentError UnsupportedMediaError"
    ),
    "submit_workflow": (
        "ApiDisabledError InsufficientCreditsError MissingAssetError QueueFullError ShuttingDownError StorageFullError "
        "UnsafeContentError WorkflowFormatError"
    ),
    "fetch_url": "InvalidInputError ShuttingDownError StorageFullError TooLargeError UnsupportedMediaError",
}
#: The parts of the facade that have functions of their own.
PARTS = {
    "": facade.Service,
    "accounts": facade.Accounts,
    "assets": facade.Assets,
    "claims": facade.Claims,
    "credits": facade.Credits,
}
#: Cases of one endpoint that are taken.
MOST_CASES = 3


def raised_by(function: Any) -> set[type[GatewayError]]:
    """What a function of the facade says that it raises."""
    said = (inspect.getdoc(function) or "").partition("Raises")[2]
    names = [*re.findall(r"[A-Z]\w+Error\b", said), *FURTHER.get(function.__name__, "").split()]
    return {getattr(errors, name) for name in names if hasattr(errors, name)}


def functions() -> Iterator[tuple[str, str, type[GatewayError]]]:
    """(part, function, error), of all that can be raised."""
    for part, protocol in PARTS.items():
        for name, function in inspect.getmembers(protocol, inspect.isfunction):
            for kind in sorted(raised_by(function), key=lambda kind: kind.__name__):
                yield part, name, kind


def good_cases() -> list[Any]:
    """Golden files that were answered well, a few of each endpoint."""
    taken: defaultdict[str, int] = defaultdict(int)
    found = []
    for path in CASES:
        case = json.loads(path.read_text(encoding="utf-8"))
        place = f"{case['request']['method']} {re.sub(r'/[^/]*[0-9][^/]*', '/{}', case['request']['path'].partition('?')[0])}"
        if case["answer"]["status"] < 400 and taken[place] < MOST_CASES and path.parent.name != "fifth":
            taken[place] += 1
            found.append(pytest.param(case, id=f"{path.parent.name}-{path.stem}"))
    return found


async def asked(case: dict[str, Any], change: Callable[[Any], None]) -> Answer:
    """The answer to a case after a change of the engine."""
    app, service = make(**case.get("settings", {}))
    for step in case.get("given", []):
        prepare(service, step)
    change(service)
    body, headers = body_of(case["request"])
    headers |= {name.replace("-", "_"): value for name, value in case["request"].get("headers", {}).items()}
    if headers.get("authorization") == "Bearer KEY":
        headers["authorization"] = f"Bearer {KEY}"
    if "public_url" in case.get("settings", {}):
        headers.setdefault("host", "faces.example.org")
    return await ask(app, case["request"]["method"], case["request"]["path"], body, **headers)


def called_in(service: Any, called: set[tuple[str, str]]) -> None:
    """Have it noted which functions are called."""
    for part, name in {(part, name) for part, name, _ in functions()}:
        holder = getattr(service, part) if part else service
        original = getattr(holder, name, None)
        if original is None or hasattr(type(holder), "__slots__"):
            continue

        def noting(*given: Any, _of: Any = original, _place: tuple[str, str] = (part, name), **named: Any) -> Any:
            called.add(_place)
            return _of(*given, **named)

        setattr(holder, name, noting)


def broken(part: str, name: str, kind: type[GatewayError]) -> Callable[[Any], None]:
    """Have one function raise."""

    def change(service: Any) -> None:
        holder = getattr(service, part) if part else service
        original = getattr(holder, name)
        is_async = inspect.iscoroutinefunction(getattr(PARTS[part], name))

        def fail(*_: Any, **__: Any) -> Any:
            raise sample(kind)

        async def fail_later(*given: Any, **named: Any) -> Any:
            if kind is errors.TaskUnavailableError and not given[0].must_be_runnable:
                return await original(*given, **named)  # it was not asked about that
            raise sample(kind)

        setattr(holder, name, fail_later if is_async else fail)

    return change


@pytest.mark.parametrize("case", good_cases())
async def test_each_error_of_the_engine_is_answered_as_described(case: dict[str, Any]) -> None:
    called: set[tuple[str, str]] = set()
    await asked(case, lambda service: called_in(service, called))
    for part, name, kind in functions():
        if (part, name) in called:
            answer = await asked(case, broken(part, name, kind))
            assert answer.status != 500 or kind is errors.TemplateError, (name, kind)


def test_the_facade_says_what_it_raises() -> None:
    found = {(name, kind) for _, name, kind in functions()}
    assert len(found) > 60
    assert ("cancel", errors.ConflictError) in found
    assert ("submit", errors.QueueFullError) in found

from __future__ import annotations

import json
import logging

import pytest
import structlog

from gateway import logs


@pytest.fixture(autouse=True)
def logging_as_before():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in (*logs.QUIET, *logs.TELLTALES)}
    filters = list(logging.getLogger("uvicorn.error").filters)
    yield
    root.handlers[:], root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.getLogger("uvicorn.error").filters[:] = filters
    structlog.reset_defaults()


def lines(capsys) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_our_lines_and_those_of_libraries_look_alike(capsys) -> None:
    logs.configure("info", "json")
    structlog.get_logger("gateway.test").info("job_event", job="j1")
    logging.getLogger("a.library").warning("something %s", "odd")
    ours, theirs = lines(capsys)
    assert (ours["event"], ours["job"], ours["level"], ours["logger"]) == ("job_event", "j1", "info", "gateway.test")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("something odd", "warning", "a.library")
    assert set(theirs) <= set(ours)


def test_less_than_the_level_is_not_logged(capsys) -> None:
    logs.configure("warning", "json")
    structlog.get_logger("gateway.test").info("unimportant")
    assert lines(capsys) == []


@pytest.mark.parametrize("name", [*logs.QUIET, *logs.TELLTALES, "botocore.endpoint", "urllib3.connectionpool"])
def test_libraries_that_would_log_urls_are_quiet(name: str, capsys) -> None:
    logs.configure("debug", "json")
    logging.getLogger(name).info("GET /x?token=secret")
    assert lines(capsys) == []


def test_refused_socket_is_no_error_line(capsys) -> None:
    logs.configure("info", "json")
    logging.getLogger("uvicorn.error").error("ASGI callable returned without completing handshake.")
    assert lines(capsys) == []


def test_text_lines_are_one_line(capsys) -> None:
    logs.configure("info", "text")
    structlog.get_logger("gateway.test").info("request", route="/status/{prompt_id}")
    [line] = capsys.readouterr().err.splitlines()
    assert "request" in line
    assert "/status/{prompt_id}" in line


def test_traceback_stands_in_the_line_without_the_values_of_variables(capsys) -> None:
    secret = "only-in-a-variable"
    for style in ("json", "text"):
        logs.configure("info", style)
        try:
            raise_with(secret)
        except ValueError as error:
            structlog.get_logger("gateway.test").error("broke", exc_info=error)
        said = capsys.readouterr().err
        assert "ValueError" in said
        assert secret not in said


def raise_with(secret: str) -> None:
    kept = secret
    if kept:
        raise ValueError

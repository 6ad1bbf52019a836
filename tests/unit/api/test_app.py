import re

import pytest

from gateway.api.app import all_endpoints, require_single_claims
from gateway.api.dialects import DIALECTS
from gateway.api.window import Endpoint
from gateway.errors import GatewayError
from tests.tools.asgi import Stream, ask, make

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("path", "envelope"),
    [
        ("/status", {"detail", "code", "field"}),
        ("/status/a/b", {"detail", "code", "field"}),
        ("/download/../etc/passwd", {"detail", "code", "field"}),
        ("/nothing", {"type", "title", "status", "detail", "code", "request_id"}),
        ("/statuses", {"type", "title", "status", "detail", "code", "request_id"}),
        ("/-/nothing", {"type", "title", "status", "detail", "code", "request_id"}),
    ],
)
async def test_an_unknown_path_answers_in_the_envelope_of_its_prefix(path, envelope):
    app, _ = make()
    answer = await ask(app, "GET", path)
    assert answer.status == 404
    assert set(answer.json) == envelope
    assert answer.json["code"] == "not_found"
    assert answer.headers["content-type"] == (PROBLEM if "title" in envelope else "application/json")


async def test_problem_json_is_there_for_whoever_asks():
    app, _ = make()
    answer = await ask(app, "GET", "/status/x", accept=PROBLEM)
    assert (answer.headers["content-type"], answer.json["status"], answer.json["code"]) == (PROBLEM, 404, "not_found")


async def test_405_names_all_methods_of_the_path():
    app, _ = make()
    answer = await ask(app, "PUT", "/-/jobs/x")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    options = await ask(app, "OPTIONS", "/-/jobs/x")
    assert (options.status, options.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")


async def test_a_trailing_slash_is_another_path_and_never_a_redirect():
    app, _ = make()
    for path in ("/face-swap/", "/health/", "/-/jobs/"):
        assert (await ask(app, "GET", path)).status == 404


async def test_every_answer_carries_an_id_and_a_sane_one_is_taken_over():
    app, _ = make()
    assert re.fullmatch("[0-9a-f]{32}", (await ask(app, "GET", "/health")).headers["x-request-id"])
    assert (await ask(app, "GET", "/nothing", x_request_id="a.B-9_")).headers["x-request-id"] == "a.B-9_"
    for odd in ("a b", "x" * 65, "ä"):
        assert (await ask(app, "GET", "/health", x_request_id=odd)).headers["x-request-id"] != odd


async def test_a_fault_of_ours_leaks_nothing(monkeypatch):
    app, service = make()

    def broken():
        raise RuntimeError("/secret/path 10.0.0.5")

    monkeypatch.setattr(service, "health", broken)
    answer = await ask(app, "GET", "/health")
    assert answer.status == 500
    assert set(answer.json) == {"detail", "code", "field"}
    assert answer.json["code"] == "internal_error"
    assert b"secret" not in answer.body


async def test_the_log_names_the_route_and_never_the_path_or_query(capsys):
    import structlog

    app, _ = make()
    with structlog.testing.capture_logs() as lines:
        await ask(app, "GET", "/download/the-secret-link?token=hidden")
        await ask(app, "GET", "/nowhere/the-secret-link")
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in requests] == [("/download/{filename}", 404), (None, 404)]
    assert not any("secret" in str(line) or "hidden" in str(line) for line in lines)


def test_no_two_endpoints_claim_one_method_and_path():
    require_single_claims(all_endpoints(DIALECTS))

    async def handler(request, call): ...

    twice = (Endpoint("GET", "/a/{x}", handler), Endpoint("GET", "/a/{y}", handler))
    with pytest.raises(ValueError, match="two endpoints claim GET"):
        require_single_claims(twice)


async def test_too_large_a_body_is_refused_by_its_announcement_alone():
    app, service = make(max_upload=1024)
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": "2000000000"}
    async with Stream(app, "POST", "/face-swap", headers) as stream:
        stream.leave()
        answer = await stream.whole()
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert "1 KiB" in answer.json["detail"]
    assert service.blobs.stored == {}


async def test_each_error_class_has_a_status_of_its_own_envelope():
    def leaves(kind):
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]

    assert {leaf.status_hint for leaf in leaves(GatewayError)} <= {
        400,
        401,
        403,
        404,
        405,
        409,
        413,
        415,
        421,
        500,
        503,
        507,
    }

import asyncio
import re

import pytest
from structlog.testing import capture_logs

from gateway.api.app import all_endpoints, require_single_claims
from gateway.api.dialects import DIALECTS
from gateway.api.window import Endpoint
from gateway.errors import GatewayError
from tests.tools.asgi import TOKEN, Stream, ask, make

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


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("GET", "/health", "debug"),
        ("HEAD", "/health", "debug"),
        ("GET", "/-/jobs", "debug"),
        ("GET", "/status/x", "info"),
        ("POST", "/face-swap", "info"),
        ("OPTIONS", "/health", "info"),
        ("GET", "/health/ready", "warning"),
    ],
)
async def test_reads_that_went_well_are_logged_quietly(method, path, level):
    import structlog

    app, service = make()
    service.stopping.set()  # not ready: a 503
    with structlog.testing.capture_logs() as lines:
        await ask(app, method, path)
    assert [line["log_level"] for line in lines if line["event"] == "request"] == [level]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_plain_http_on_a_socket_path_is_told_to_upgrade(method):
    app, _ = make()
    answer = await ask(app, method, "/face-swap-ws")
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
    if method == "GET":
        assert answer.json["code"] == "upgrade_required"
        assert set(answer.json) == {"detail", "code", "field"}
    other = await ask(app, "POST", "/face-swap-ws")
    assert (other.status, other.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await ask(app, "OPTIONS", "/face-swap-ws")).status == 204


async def test_an_answer_cut_off_by_the_stop_is_an_end_and_no_fault():
    app, service = make()
    job = service.put()
    async with Stream(app, "GET", f"/events/{job.id}") as stream:
        await stream.until("queued")
        service.stopping.set()
        stream.task.cancel()
        await stream.whole()  # nothing is raised: uvicorn would log a traceback


async def test_a_request_cut_off_before_its_answer_gets_503(monkeypatch):
    app, service = make()
    entered = asyncio.Event()

    async def hang(job_id, owner):
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(service, "job", hang)
    path = "/status/019a0000-0000-7000-8000-000000000001"
    async with Stream(app, "GET", path) as stream:
        await entered.wait()
        service.stopping.set()
        stream.task.cancel()
        answer = await stream.whole()
    assert (answer.status, answer.json["code"]) == (503, "shutting_down")


async def test_a_cancellation_without_a_stop_is_passed_on(monkeypatch):
    app, service = make()
    job = service.put()
    async with Stream(app, "GET", f"/events/{job.id}") as stream:
        await stream.until("queued")
        stream.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream.task


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


@pytest.mark.parametrize("secret", [TOKEN, "cfg_live_Ab12", "x.cfg_test_"])
async def test_a_secret_sent_as_request_id_is_neither_echoed_nor_logged(secret):
    app, _ = make(auth="keys")
    with capture_logs() as lines:
        answer = await ask(app, "GET", "/-/jobs", x_request_id=secret)
    assert secret not in answer.headers["x-request-id"] + answer.body.decode() + repr(lines)


async def test_each_error_class_has_a_status_of_its_own_envelope():
    def leaves(kind):
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]

    assert {leaf.status_hint for leaf in leaves(GatewayError)} <= {
        400,
        401,
        402,
        403,
        404,
        405,
        409,
        413,
        415,
        421,
        422,
        426,
        429,
        500,
        503,
        507,
    }

"""What every dialect keeps, and what each has answered since it was written: one suite over all of ``DIALECTS``.

``fifth_dialect.py`` beside it is spoken here and nowhere else: a dialect in under 80 lines shows that the seam is right.

A golden file in ``tests/dialects/<name>/`` says what was (``given``, steps of ``FakeService``), what was asked
(``request``) and what must be answered: ``body`` exactly, ``events`` exactly and in order, ``headers`` among others.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gateway import errors
from gateway.api.dialects import DIALECTS
from gateway.api.dialects.comfy_v2 import envelope as comfy_v2_envelope
from gateway.api.dialects.swaps_v1 import refusals
from gateway.api.window import Dialect, Endpoint, Holds
from gateway.audit import MediaKind
from gateway.engine.health import HealthStatus
from gateway.engine.task_types import TaskType
from gateway.errors import GatewayError
from gateway.events import EventKind, PreviewImage
from gateway.interfaces import Asset
from gateway.job import JobState
from gateway.ledger import Account, Amounts, month_of
from gateway.settings import from_mapping
from tests.contract import fifth_dialect
from tests.fakes.fake_service import IMAGE_FACTS, NOW, REPORT, VIDEO_FACTS, FakeService
from tests.tools import asgi
from tests.tools.asgi import Answer, ask, form
from tests.tools.sse_parser import parse

GOLDENS = Path(__file__).parents[1] / "dialects"
CASES = sorted(GOLDENS.glob("*/*.json"))
SPOKEN = (*DIALECTS, fifth_dialect.DIALECT)
ALL = pytest.mark.parametrize("dialect", SPOKEN, ids=lambda dialect: dialect.name)
make = partial(asgi.make, dialects=SPOKEN)
#: What ``give_key`` makes each time; goldens say "Bearer KEY".
KEY = FakeService(from_mapping({})).give_key()

# ------------------------------------------------------------------------------------------------------------- goldens


@pytest.fixture(params=CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text(encoding="utf-8"))


async def test_golden(case: dict[str, Any]):
    app, service = make(**case.get("settings", {}))
    for step in case.get("given", []):
        prepare(service, step)
    before = dict(service.blobs.stored)

    body, headers = body_of(case["request"])
    headers |= {name.replace("-", "_"): value for name, value in case["request"].get("headers", {}).items()}
    if headers.get("authorization") == "Bearer KEY":
        headers["authorization"] = f"Bearer {KEY}"
    if "public_url" in case.get("settings", {}):
        headers.setdefault("host", "faces.example.org")
    answer = await ask(app, case["request"]["method"], case["request"]["path"], body, **headers)

    compare(answer, case["answer"])
    if answer.status >= HTTPStatus.BAD_REQUEST:
        assert service.blobs.stored == before, "a refusal left bytes behind"
        assert service.submissions == []
    if service.submissions:
        assert holds(case["request"]) is Holds.SLOT, "files are taken in without a slot"


def holds(request: dict[str, Any]) -> Holds:
    """What the endpoint occupies that a request is for."""
    path = request["path"].partition("?")[0]
    everywhere = (endpoint for dialect in SPOKEN for endpoint in dialect.endpoints if isinstance(endpoint, Endpoint))
    for endpoint in everywhere:
        pattern = re.sub(r"\{\w+\}", "[^/]+", endpoint.path)
        if endpoint.method == request["method"] and re.fullmatch(pattern, path):
            return endpoint.holds
    pytest.fail(f"nobody answers at {path}")


def prepare(service: FakeService, step: dict[str, Any]) -> None:
    [(what, value)] = step.items()
    newest = next(reversed(service.stored), "")
    match what:
        case "put":
            facts = IMAGE_FACTS if value.get("facts") == "image" else VIDEO_FACTS
            service.put(facts, **{name: given for name, given in value.items() if name != "facts"})
        case "tell":
            service.blobs.stored.setdefault("f" * 64, b"")
            service.tell(newest, EventKind(value[0]), **value[1])
        case "show":
            service.show(newest, value[0], **value[1])
        case "succeed":
            service.succeed(newest)
        case "deliver":
            service.deliver(newest, **value)
        case "script":
            service.script = [(EventKind(kind), data) for kind, data in value]
        case "refusal" | "fetch_refusal" | "vet_refusal":
            setattr(service, what, getattr(errors, value[0])(value[1]))
        case "tasks" | "can_run":
            service.tasks = tasks_after(service.tasks, what, value)
        case "broken":
            setattr(service, value, fault)
        case _:
            STEPS[what](service, value)


def show_picture(service: FakeService, color: str) -> None:
    """A preview of the newest job: a PNG."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(out, "PNG")
    service.bus.show(PreviewImage(next(reversed(service.stored)), "image/png", out.getvalue(), "5"))


def change_job(service: FakeService, changes: dict[str, Any]) -> None:
    """What a test cannot otherwise make of the newest job."""
    newest = next(reversed(service.stored))
    service.stored[newest] = replace(service.stored[newest], **changes)


#: Further steps.
STEPS: dict[str, Callable[[FakeService, Any], object]] = {
    "status": lambda service, value: setattr(service, "status", HealthStatus(value)),
    "key": lambda service, changes: service.give_key(**changes),
    "report": lambda service, faces: setattr(service, "report", replace(REPORT, faces=REPORT.faces[:faces])),
    "asset": lambda service, value: put_asset(service, **value),
    "credits": lambda service, purses: service.purses.accounts.update({"user-1": account(**purses)}),
    "output": lambda service, value: service.output(next(reversed(service.stored)), **value),
    "invalid": lambda service, details: setattr(
        service, "refusal", errors.WorkflowError("The workflow cannot be run.", details=details)
    ),
    "preview": show_picture,
    "change": change_job,
    "graph": lambda service, graph: service.graphs.update({next(reversed(service.stored)): graph}),
    "prepare": lambda service, _: service.preparing.add(next(reversed(service.stored))),
}


def put_asset(service: FakeService, *, content: str, in_use: bool = False, **said: Any) -> None:
    """An asset with these bytes, a PNG by its facts unless it says otherwise."""
    data = content.encode()
    blob = hashlib.sha256(data).hexdigest()
    service.blobs.stored[blob] = data
    facts = replace(IMAGE_FACTS, kind=MediaKind(said.pop("kind", "image")))
    asset = Asset(
        id="019a0000-0000-7000-9000-00000000000a",
        owner="local",
        blob=blob,
        size_bytes=len(data),
        content_type="image/png",
        file_path="photo.png",
        tags=(),
        created_at=NOW - 60.0,
        expires_at=NOW + 86_400.0,
        job_id=None,
        facts=facts,
    )
    service.asset_store.put(replace(asset, **said))
    if in_use:
        service.asset_store.in_use.add(asset.id)


def account(**purses: int) -> Account:
    """What a user has, set for this month."""
    return Account(Amounts(**purses), purses.get("monthly", 0), month_of(NOW))


def tasks_after(tasks: tuple[TaskType, ...], what: str, names: list[str]) -> tuple[TaskType, ...]:
    """Only those of these names, or all, of which those of these names can run."""
    if what == "tasks":
        return tuple(task for task in tasks if task.name in names)
    return tuple(replace(task, can_run=True, missing=()) if task.name in names else task for task in tasks)


def fault(*_: object, **__: object) -> None:
    raise RuntimeError("a fault of ours")


def body_of(request: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    if "form" in request:
        return form(
            {
                name: base64.b64decode(value["base64"]) if isinstance(value, dict) else value
                for name, value in request["form"].items()
            }
        )
    if "json" in request:
        return json.dumps(request["json"]).encode(), {"content_type": "application/json"}
    return request.get("text", "").encode(), {}


def compare(answer: Answer, expected: dict[str, Any]) -> None:
    assert answer.status == expected["status"], answer.body
    for name, value in expected.get("headers", {}).items():
        assert answer.headers[name] == value, name
    if "body" in expected:
        assert answer.json == expected["body"]
    if "body_keys" in expected:
        assert sorted(answer.json) == expected["body_keys"]
    if "text" in expected:
        assert answer.body.decode() == expected["text"]
    if "text_part" in expected:
        assert expected["text_part"] in answer.body.decode()
    if "events" in expected:
        compare_events(answer, expected["events"])


def compare_events(answer: Answer, expected: list[dict[str, Any]]) -> None:
    ids = [b"id: " + event["id"].encode() for event in expected if "id" in event]
    assert [line for line in answer.body.split(b"\n") if line.startswith(b"id")] == ids
    told = [{"event": message.event, "data": message.json} for message in parse(answer.body).messages]
    assert told == [{"event": event["event"], "data": event["data"]} for event in expected]


# ------------------------------------------------------------------------------------------------------------ contract


@ALL
def test_a_dialect_has_golden_files_a_word_for_every_state_and_its_paths_below_its_prefixes(dialect: Dialect):
    assert any(path.parent.name == dialect.name for path in CASES)
    assert set(dialect.state_words) == set(JobState)
    assert all(dialect.speaks_at(endpoint.path) for endpoint in dialect.endpoints)


def test_no_two_dialects_claim_one_method_and_path_or_one_prefix():
    claims = [
        (getattr(endpoint, "method", "WEBSOCKET"), endpoint.path)
        for dialect in SPOKEN
        for endpoint in dialect.endpoints
    ]
    prefixes = [prefix for dialect in SPOKEN for prefix in dialect.prefixes]
    assert len(claims) == len(set(claims))
    assert len(prefixes) == len(set(prefixes))
    assert not any(prefix.startswith("/-") for prefix in prefixes)


@ALL
async def test_every_status_of_a_dialect_has_its_envelope(dialect: Dialect):
    app, service = make(max_upload=2048, max_json=1024)
    service.give_key()
    shape = set(dialect.envelope(GatewayError("x"), "id"))
    for endpoint in dialect.endpoints:
        if not isinstance(endpoint, Endpoint):
            continue
        path = endpoint.path.replace("{", "").replace("}", "")
        wrong = await ask(app, "PATCH", path)
        assert (wrong.status, set(wrong.json)) == (405, shape), path
        assert endpoint.method in wrong.headers["allow"]
        foreign = await ask(app, "GET", path, host="evil.example")
        assert (foreign.status, set(foreign.json)) == (421, shape), path
        if endpoint.method == "POST" and "{" not in endpoint.path:
            for content_type in ("application/json", "multipart/form-data; boundary=x", "text/csv"):
                bad = await ask(app, "POST", path, b"\xff" * 4096, content_type=content_type, x_api_key=KEY)
                assert bad.status in {400, 413, 415, 422}, bad
                assert set(bad.json) == shape, path


#: Of dialects whose published list of codes is closed.
OTHER_CODES = {"swaps_v1": refusals.CODES, "comfy_v2": comfy_v2_envelope.CODES}


def leaves(kind: type[GatewayError]) -> list[type[GatewayError]]:
    return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]


@ALL
def test_every_error_fits_the_envelope(dialect: Dialect):
    for kind in leaves(GatewayError):
        if kind is errors.TemplateError or kind.__module__ != errors.__name__:
            continue  # its sentence is made of its parts
        body = json.dumps(dialect.envelope(kind("a sentence"), "id"))
        assert "a sentence" in body
        assert OTHER_CODES.get(dialect.name, {}).get(kind.code, kind.code) in body


def test_a_dialect_takes_less_than_80_lines():
    assert len(Path(fifth_dialect.__file__).read_text(encoding="utf-8").splitlines()) < 80


# ------------------------------------------------------------------------------------------------------ random requests

#: ``COMFYGATE_REQUESTS=10000`` is the full count.
REQUESTS = int(os.environ.get("COMFYGATE_REQUESTS", "2000"))
SEED = int(os.environ.get("COMFYGATE_SEED", "20261122"))
CODES = (
    {kind.code for kind in leaves(GatewayError)} | set(refusals.CODES.values()) | set(comfy_v2_envelope.CODES.values())
)
ENDPOINTS = [endpoint for dialect in SPOKEN for endpoint in dialect.endpoints]
PIECES = [
    *sorted({piece for endpoint in ENDPOINTS for piece in endpoint.path.split("/") if piece}),
    *(
        "/",
        "/-/",
        "jobs",
        "upstreams",
        "ui",
        "..",
        "%00",
    ),
    *(
        "%2e%2e",
        "%5c",
        "%ff",
        "é",
        "💥",
        "a" * 300,
        "019a0000-0000-7000-8000-000000000001",
        ";",
        " ",
        "%0a",
        "page.js",
    ),
]
HEADER_VALUES = [
    "",
    "*/*",
    "text/html",
    "bytes=0-",
    "bytes=5-2,,-",
    "1",
    "-1",
    "9" * 30,
    "null",
    "\xff",
    "Bearer x",
    f"Bearer {KEY}",
    "a, b",
    "{}",
]
HEADER_NAMES = [
    "accept",
    "range",
    "last_event_id",
    "content_type",
    "if_none_match",
    "if_range",
    "x_request_id",
    "authorization",
]
HEADER_NAMES += [
    "content_encoding",
    "if_modified_since",
    "sec_fetch_site",
    "origin",
    "access_control_request_method",
    "cookie",
]
TYPES = [
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=limit",
    "text/plain",
    "",
]
TYPES += [
    "multipart/form-data",
    "multipart/form-data; boundary=" + "x" * 300,
    "application/json; charset=utf-16",
    "\xff/\xfe",
]
FIELDS = [
    "video",
    "image",
    "output_name",
    "video_url",
    "target_image",
    "target_video",
    "who",
    "where",
    "file",
    "file_path",
    "content_type",
    "tags",
    "",
]
SWAP = {"source_image": "data:,%89PNG%0D%0A%1A%0A", "target_image": "https://media.example.org/t.png"}
TEXTS = [
    "",
    "{}",
    "[]",
    "null",
    '{"video_url": NaN}',
    "[" * 5000,
    '{"a":' * 100,
    '{"a": 1e999}',
    '{"a": "\\ud800"}',
    '{"a":1,"a":2}',
    '{"hash": "blake3:%s"}' % ("0" * 64),
    '{"hash": "blake3:\u00e9", "tags": [1], "file_path": "x/../y", "expires_in": true}',
]
TEXTS += [
    "video_url=%ff&image_url=%00",
    "a=1&" * 50,
    "video_url=https://media.example.org/%C3%A9",
    '{"image_url": ["x"]}',
    "9" * 5000,
]
TEXTS += [
    json.dumps({"task_type": kind, "task_params": params, "user_id": user})
    for kind in ("face_swap", "image_creation", "x", None)
    for params in (SWAP, {"prompt": "a beautiful sunset"}, [], {"source_image": "data:x"})
    for user in ("user123", "\x1f", 5)
]


#: Links that were never made.
SIGNED = ["signature=", "expires=9&signature=%ff", "expires=²&signature=x", "expires=1&signature=%C3%A9&signature=x"]


def random_body(rng: random.Random) -> bytes:
    match rng.randrange(5):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            return rng.choice(TEXTS).encode()
        case 2:
            whole = form({rng.choice(FIELDS): rng.randbytes(20) for _ in range(3)})[0]
            return whole[: rng.randrange(len(whole) + 1)]
        case 3:
            target = rng.choice(["video", "target_video", "where"])
            fields = {target: b"\0\0\0 ftypisom", "image": b"\x89PNG\r\n\x1a\n", "output_name": "x"}
            upload = {"content_type": "text/plain", "file_path": "x", "file": b"anything", "expires_in": "60"}
            whole = bytearray(form(rng.choice([fields, upload]))[0])
            for _ in range(rng.randrange(4)):
                whole[rng.randrange(len(whole))] = rng.randrange(256)
            return bytes(whole)
        case _:
            return b""


def texts(body: dict[str, Any]) -> list[str]:
    """Every text in an envelope, also one that wraps its members in another."""
    return [text for value in body.values() for text in (texts(value) if isinstance(value, dict) else [str(value)])]


async def test_no_random_request_is_answered_with_5xx():
    rng = random.Random(SEED)  # noqa: S311 - a replayable choice of cases, no secret
    app, service = make(max_upload=64 * 1024)
    service.succeed(service.put().id)
    service.give_key()
    seen: dict[int, int] = {}
    for number in range(REQUESTS):
        path = "/" + "/".join(rng.choice(PIECES).strip("/") for _ in range(rng.randrange(4)))
        if rng.random() < 0.4:
            path = rng.choice(["/-/jobs", "/-/upstreams", *(endpoint.path for endpoint in ENDPOINTS)])
        if rng.random() < 0.3:
            path += "?" + rng.choice(
                ["limit=0", "limit=²", "state=x", "before=%00", "last_event_id=9", "state=queued", "%ff=%ff", *SIGNED]
            )
        method = rng.choice(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"])
        headers = {rng.choice(HEADER_NAMES): rng.choice(HEADER_VALUES) for _ in range(rng.randrange(3))}
        headers["content_type"] = rng.choice(TYPES)
        if method == "DELETE" and rng.random() < 0.9:
            headers["origin"] = "http://evil.example"
        # A stream of a job that never ends would not end either: every job ends at once.
        service.script = [(EventKind.FAILED, {"code": "node_failed", "message": "It failed."})]
        answer = await ask(app, method, path, random_body(rng), **headers)
        seen[answer.status] = seen.get(answer.status, 0) + 1
        assert answer.status < HTTPStatus.INTERNAL_SERVER_ERROR, (SEED, number, method, path, headers, answer)
        assert "x-request-id" in answer.headers
        if answer.status >= HTTPStatus.BAD_REQUEST and answer.body:
            assert CODES & set(texts(answer.json)), (SEED, number, path)
    assert {200, 400, 403, 404, 405, 422} <= set(seen), seen

"""Jobs of the Comfy API v2 over a fake engine: what golden files do not show."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.api.dialects.comfy_v2 import job_handlers
from gateway.api.window import Slots
from gateway.consent import Attestation
from gateway.errors import QueueFullError, WorkflowError
from gateway.events import EventKind, PreviewImage
from tests.fakes.fake_service import IMAGE_FACTS, FakeService
from tests.tools.asgi import Answer, Stream, ask, make

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {}}}
JOBS = "/api/v2/jobs"
SECRET = "comfyui-0123456789abcdef"


async def create(app: Any, key: str | None = None, path: str = JOBS, **members: Any) -> Answer:
    body = {"workflow": GRAPH, **members} if path == JOBS else members
    headers = {} if key is None else {"idempotency_key": key}
    return await ask(app, "POST", path, json.dumps(body).encode(), content_type="application/json", **headers)


def put(service: FakeService, **changes: Any) -> str:
    return service.put(IMAGE_FACTS, task="workflow", roles=(), dialect="comfy_v2", **changes).id


# --------------------------------------------------------------------------------------------------------- idempotency


async def test_a_key_is_good_for_one_request_whatever_the_next_one_says():
    app, service = make()

    answers = [
        await create(app, "once"),
        await create(app, "once"),
        await create(app, "once", gateway={"priority": 1}),
        await create(app, "another"),
    ]

    assert [answer.status for answer in answers] == [201, 422, 422, 201]
    assert answers[1].json["error"]["code"] == "idempotency_key_reuse"
    assert "idempotent-replayed" not in answers[1].headers
    assert len(service.workflow_submissions) == 2


async def test_of_requests_at_the_same_time_one_is_taken():
    app, service = make()

    answers = await asyncio.gather(*(create(app, "once") for _ in range(5)))

    assert sorted(answer.status for answer in answers) == [201, 422, 422, 422, 422]
    assert len(service.workflow_submissions) == 1


@pytest.mark.parametrize("refusal", [WorkflowError("It cannot be run."), QueueFullError("It is full.")])
async def test_a_key_that_led_to_no_job_is_free_again(refusal: Exception):
    app, service = make()
    service.refusal = refusal
    assert (await create(app, "once")).status in {422, 429}

    service.refusal = None

    assert (await create(app, "once")).status == 201


async def test_a_malformed_request_takes_no_key():
    app, _ = make()
    assert (await create(app, "once", webhook_url="https://x")).status == 422
    assert (await create(app, "once")).status == 201


async def test_a_key_is_its_owner_s():
    app, service = make()
    text = service.give_key(scopes=frozenset({"jobs"}))
    body = json.dumps({"workflow": GRAPH}).encode()
    assert (await create(app, "once")).status == 201

    other = await ask(app, "POST", JOBS, body, authorization=f"Bearer {text}", idempotency_key="once")

    assert other.status == 201


async def test_jobs_of_templates_and_of_workflows_share_their_keys():
    app, _ = make()
    assert (await create(app, "once")).status == 201
    path = "/api/v2/templates/image_creation/jobs"
    answer = await create(app, "once", path, inputs={"prompt": "a sunset"})
    assert answer.json["error"]["code"] == "idempotency_key_reuse"


# -------------------------------------------------------------------------------------------------------------- secrets


async def test_the_secret_goes_to_the_engine_and_nowhere_else(caplog: pytest.LogCaptureFixture):
    app, service = make()

    answer = await create(app, "once", extra_data={"api_key_comfy_org": SECRET})
    job_id = answer.json["id"]
    paths = ["", f"/{job_id}", f"/{job_id}/workflow"]
    shown = [answer, *[await ask(app, "GET", JOBS + path) for path in paths]]

    assert service.workflow_submissions[0].secrets == {"api_key_comfy_org": SECRET}
    assert not any(SECRET.encode() in each.body for each in shown)
    assert SECRET not in repr((service.workflow_submissions, service.stored, service.claim_store.__dict__))
    assert SECRET not in caplog.text


async def test_what_is_said_of_the_people_in_the_pictures_goes_with_the_graph():
    app, service = make()
    body = json.dumps({"workflow": GRAPH}).encode()

    await create(app)
    await create(app, consent=True)
    await ask(app, "POST", JOBS, body, x_consent="true")
    refused = await create(app, consent=False)

    said = [submission.consent for submission in service.workflow_submissions]
    assert said == [None, Attestation.FIELD, Attestation.HEADER]
    assert refused.status == 422


# ---------------------------------------------------------------------------------------------------------------- looks


async def test_a_foreign_job_cannot_be_told_from_none():
    app, service = make()
    foreign = put(service, owner="somebody")
    for method, path in (("GET", ""), ("GET", "/workflow"), ("GET", "/events"), ("POST", "/cancel")):
        theirs = await ask(app, method, f"{JOBS}/{foreign}{path}")
        nobodys = await ask(app, method, f"{JOBS}/{'0' * 8}-0000-7000-8000-000000000000{path}")
        malformed = await ask(app, method, f"{JOBS}/x{path}")
        assert theirs.status == nobodys.status == malformed.status == 404
        assert theirs.body == nobodys.body == malformed.body


async def test_links_hold_the_host_that_was_asked():
    app, service = make()
    job_id = put(service)
    for host in ("localhost:8000", "127.0.0.1:8000"):
        answer = await ask(app, "GET", f"{JOBS}/{job_id}", host=host)
        assert answer.json["urls"]["self"] == f"http://{host}{JOBS}/{job_id}"


async def test_an_output_is_linked_by_a_url_that_needs_no_key():
    app, service = make()
    job_id = put(service)
    service.tell(job_id, EventKind.STARTED)
    kept = service.output(job_id)

    [output] = (await ask(app, "GET", f"{JOBS}/{job_id}")).json["outputs"]

    assert output["id"] == kept.asset_id
    assert output["url"].startswith(f"http://localhost:8000/api/v2/assets/{kept.asset_id}/content?expires=")


async def test_a_page_of_jobs_with_many_outputs_ends_early_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_handlers, "MAX_PAGE_OUTPUTS", 2)
    app, service = make()
    ids = [put(service) for _ in range(3)]
    for job_id in ids:
        service.tell(job_id, EventKind.STARTED)
        service.output(job_id)
    newest = (await ask(app, "GET", JOBS)).json

    assert (len(newest["jobs"]), newest["truncated"]) == (2, True)
    rest = (await ask(app, "GET", f"{JOBS}?cursor={newest['next_cursor']}")).json
    assert (len(rest["jobs"]), rest["truncated"], "next_cursor" in rest) == (1, False, False)
    assert {job["id"] for job in (*newest["jobs"], *rest["jobs"])} == set(ids)


async def test_a_list_that_would_look_at_too_much_says_where_it_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_handlers, "MAX_SCAN", 3)
    app, service = make()
    ids = [put(service) for _ in range(5)]

    first = await ask(app, "GET", f"{JOBS}?metadata%5Bx%5D=y")
    assert first.json == {"jobs": [], "truncated": True, "next_cursor": ids[2]}

    last = await ask(app, "GET", f"{JOBS}?metadata%5Bx%5D=y&cursor={ids[2]}")
    assert last.json == {"jobs": [], "truncated": False}


async def test_every_job_is_on_one_page_and_no_other():
    app, service = make()
    ids = [put(service) for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await ask(app, "GET", f"{JOBS}?limit=2{cursor}")).json
        seen += [job["id"] for job in page["jobs"]]
        if "next_cursor" not in page:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


# -------------------------------------------------------------------------------------------------------------- streams


async def test_a_stream_shows_the_newest_preview_to_whoever_connects_late():
    app, service = make()
    job_id = put(service)
    service.tell(job_id, EventKind.STARTED)
    service.bus.show(PreviewImage(job_id, "image/jpeg", b"\xff\xd8\xff old", "1"))
    service.bus.show(PreviewImage(job_id, "image/jpeg", b"\xff\xd8\xff new", "2"))

    async with Stream(app, "GET", f"{JOBS}/{job_id}/events") as stream:
        parsed = await stream.until("status", "preview")
        service.tell(job_id, EventKind.CANCELED)
        whole = await stream.whole()

    assert parsed.names[0] == "status"
    [preview] = [message.json for message in parsed.messages if message.event == "preview"]
    assert preview == {"node_id": "2", "content_type": "image/jpeg", "data_base64": "/9j/IG5ldw=="}
    assert whole.body.endswith(b'event: status\ndata: {"status":"canceled","queue_position":null}\n\n')


async def test_without_room_for_a_stream_polling_goes_on():
    app, service = make(slots=Slots(0))
    job_id = put(service)

    full = await ask(app, "GET", f"{JOBS}/{job_id}/events")

    assert (full.status, full.json["error"]["code"], full.headers["retry-after"]) == (429, "too_many_streams", "5")
    assert (await ask(app, "GET", f"{JOBS}/{job_id}")).status == 200
    create_too = await create(app)
    assert (create_too.status, create_too.json["error"]["code"]) == (429, "queue_full")
    assert "retry-after" in create_too.headers

"""What webhooks are told: each dialect's own words, in an envelope that stays small."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.api.dialects import DIALECTS
from gateway.api.told_outside import MAX_BODY_BYTES, teller
from gateway.events import EventKind
from gateway.settings import from_mapping
from tests.fakes.fake_service import FakeService
from tests.tools.asgi import ask, make

BASE = "https://swap.example.org/gpu"


def ended(dialect="faceswap", kind=EventKind.SUCCEEDED, **extra):
    service = FakeService(from_mapping({}))
    job = service.put(dialect=dialect, extra=extra)
    if kind is EventKind.SUCCEEDED:
        service.succeed(job.id)
    elif kind is EventKind.FAILED:
        service.tell(job.id, kind, code="no_face_found", message="There is no face.")
    else:
        service.tell(job.id, kind)
    return service.stored[job.id]


def told(job, base=BASE):
    body = teller(DIALECTS, base, 60.0)(job)
    assert len(body) < MAX_BODY_BYTES
    return json.loads(body)


@pytest.mark.parametrize(
    ("kind", "name", "status"),
    [
        (EventKind.SUCCEEDED, "job.succeeded", "SUCCESS"),
        (EventKind.FAILED, "job.failed", "FAILED"),
        (EventKind.CANCELED, "job.canceled", "FAILED"),
    ],
)
def test_each_end_has_its_type(kind, name, status):
    job = ended(kind=kind)
    body = told(job)
    assert body.keys() == {"type", "timestamp", "data"}
    assert body["type"] == name
    assert (body["data"]["prompt_id"], body["data"]["status"]) == (job.id, status)
    assert body["timestamp"].endswith("Z")


async def test_data_is_what_the_dialect_s_own_get_says():
    app, service = make()
    job = service.put()
    service.succeed(job.id)
    answer = await ask(app, "GET", f"/status/{job.id}")
    assert told(service.stored[job.id], "")["data"] == answer.json


def test_swaps_v1_tells_a_swap():
    job = ended("swaps_v1", webhook_url="https://hooks.example.net/", type="video", metadata={"order": 7})
    data = told(job)["data"]
    assert (data["id"], data["status"], data["metadata"]) == (job.id, "done", {"order": 7})
    assert data["result_url"] == f"{BASE}/download/{job.results[0].link}"


def test_comfy_v2_tells_a_job_with_links_that_need_no_key():
    job = ended("comfy_v2", webhook_url="https://hooks.example.net/", metadata="nightly")
    data = told(job)["data"]
    assert (data["id"], data["status"], data["metadata"]) == (job.id, "succeeded", "nightly")
    assert data["urls"]["self"] == f"{BASE}/api/v2/jobs/{job.id}"
    [output] = data["outputs"]
    assert output["url"] == f"{BASE}/download/{job.results[0].link}"
    assert output["url_expires_at"] == data["expires_at"] == "2025-06-18T15:01:00.000Z"


def test_other_dialects_tell_in_our_own_words():
    assert told(ended("backserv"))["data"]["state"] == "succeeded"


def test_links_are_whole_where_it_is_known_how_we_are_reached():
    job = ended()
    assert told(job)["data"]["result"] == f"{BASE}/download/{job.results[0].link}"
    assert told(job, "")["data"]["result"] == f"/download/{job.results[0].link}"


def test_the_same_job_gives_the_same_bytes():
    job = ended()
    assert teller(DIALECTS, BASE, 60.0)(job) == teller(DIALECTS, BASE, 60.0)(job)


def test_what_would_be_too_long_tells_which_job_it_is():
    job = replace(ended(), warnings=("ä" * 15_000,))
    assert told(job) == {
        "type": "job.succeeded",
        "timestamp": told(job)["timestamp"],
        "data": {"id": job.id, "truncated": True},
    }

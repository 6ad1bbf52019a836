import json

import pytest

from gateway.errors import StorageFullError
from gateway.events import EventKind
from tests.fakes.fake_service import IMAGE_FACTS
from tests.tools.asgi import TOKEN, Stream, ask, make

ADMIN = {"authorization": f"Bearer {TOKEN}"}


async def test_jobs_come_newest_first_page_by_page_and_only_the_callers():
    app, service = make()
    mine = [service.put().id for _ in range(5)]
    service.put(owner="somebody else")
    seen: list[str] = []
    path = "/-/jobs?limit=2"
    while True:
        page = (await ask(app, "GET", path)).json
        seen += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        path = f"/-/jobs?limit=2&before={page['next']}"
    assert seen == mine[::-1]


async def test_jobs_are_filtered_by_state():
    app, service = make()
    running, _ = service.put(), service.put()
    service.tell(running.id, EventKind.STARTED)
    page = (await ask(app, "GET", "/-/jobs?state=running,finishing")).json
    assert [job["id"] for job in page["jobs"]] == [running.id]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=%C2%B2", "state=done", "before=x"]
)
async def test_a_malformed_question_is_a_problem_that_names_its_field(query):
    app, _ = make()
    answer = await ask(app, "GET", f"/-/jobs?{query}")
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json["field"] == query.partition("=")[0]


async def test_another_owners_job_and_none_look_alike():
    app, service = make()
    other = service.put(owner="somebody else").id
    answers = [await ask(app, "GET", f"/-/jobs/{name}", x_request_id="same") for name in (other, other[:-1] + "9", "x")]
    assert {answer.status for answer in answers} == {404}
    assert answers[0].body == answers[1].body


async def test_a_waiting_job_tells_its_place_and_its_start_as_far_as_it_can_be_told():
    app, service = make()
    video, still = service.put(), service.put(IMAGE_FACTS)
    told = [(await ask(app, "GET", f"/-/jobs/{job.id}")).json for job in (video, still)]
    assert [body["queue_position"] for body in told] == [2, 2]
    assert [body["expected_start_seconds"] for body in told] == [34.6, None]
    upstreams = [{"name": "gpu-1", "fits": True, "reason": "it works on another job"}]
    place = {"ahead_own": 1, "ahead_others": 0, "retry_in_seconds": 0.0}
    assert told[0]["waiting"] == {**place, "upstreams": upstreams}
    assert told[1]["waiting"] == {**dict.fromkeys(place), "upstreams": upstreams}
    service.tell(video.id, EventKind.STARTED)
    assert "expected_start_seconds" not in (await ask(app, "GET", f"/-/jobs/{video.id}")).json


async def test_cancel_twice_is_a_conflict():
    app, service = make()
    job = service.put()
    assert (await ask(app, "DELETE", f"/-/jobs/{job.id}")).json["state"] == "canceled"
    answer = await ask(app, "DELETE", f"/-/jobs/{job.id}")
    assert (answer.status, answer.json["code"]) == (409, "conflict")


async def test_our_own_stream_tells_every_durable_event():
    app, service = make()
    job = service.put()
    service.tell(job.id, EventKind.DISPATCHED, upstream="gpu-1", engine="preview", attempt=1)
    async with Stream(app, "GET", f"/-/jobs/{job.id}/events") as stream:
        await stream.until("dispatched")
        service.show(job.id, 0.5, node="3", step=1, steps=9)
        progress = (await stream.until("progress")).messages[-1].json
        service.succeed(job.id)
        await stream.whole()
    assert (progress["fraction"], progress["step"], progress["steps"]) == (0.5, 1, 9)
    assert stream.parsed.names == ["queued", "dispatched", "progress", "succeeded"]


async def test_the_pool_is_changed_with_the_admin_token():
    app, _ = make()
    body = json.dumps({"url": "http://10.0.0.5:8188", "name": "gpu-2"}).encode()
    added = await ask(app, "POST", "/-/upstreams", body, content_type="application/json", **ADMIN)
    assert (added.status, added.json["name"]) == (201, "gpu-2")
    assert [u["name"] for u in (await ask(app, "GET", "/-/upstreams")).json["upstreams"]] == ["gpu-1", "gpu-2"]
    assert (await ask(app, "POST", "/-/upstreams/gpu-2/drain", **ADMIN)).json["draining"] is True
    assert (await ask(app, "POST", "/-/upstreams/gpu-2/resume", **ADMIN)).json["draining"] is False
    assert (await ask(app, "DELETE", "/-/upstreams/gpu-2", **ADMIN)).status == 204
    assert (await ask(app, "DELETE", "/-/upstreams/gpu-2", **ADMIN)).status == 404
    for bad in (b"{}", b'{"url": 7}', b'{"url": "http://a", "name": 1}', b"[]"):
        assert (await ask(app, "POST", "/-/upstreams", bad, **ADMIN)).status == 400


async def test_templates_are_listed():
    app, _ = make()
    names = [t["name"] for t in (await ask(app, "GET", "/-/templates")).json["templates"]]
    assert names == ["faceswap_image", "faceswap_video"]


# ---- purge and backup


async def post_purge(app, body, **headers):
    return await ask(app, "POST", "/-/purge", json.dumps(body).encode(), content_type="application/json", **headers)


async def test_purge_takes_an_ended_job_or_an_owner_and_wants_the_admin_token():
    app, service = make()
    job, other = service.put(), service.put(owner="ann")
    assert (await post_purge(app, {"job": job.id})).status == 401
    refused = await post_purge(app, {"job": job.id}, **ADMIN)
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    assert job.id in service.stored
    service.succeed(job.id)
    told = (await post_purge(app, {"job": job.id}, **ADMIN)).json
    assert told == {"jobs": 1, "files": 2, "deleted_files": 1, "consents": 0}
    assert (await post_purge(app, {"job": job.id}, **ADMIN)).status == 404
    assert (await post_purge(app, {"owner": "ann"}, **ADMIN)).json["jobs"] == 1
    assert other.id not in service.stored


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"job": "x", "owner": "y"}, 400),
        ({"job": 7}, 400),
        ({"owner": ""}, 400),
        ({"owner": "ann", "dry_run": True}, 400),
        ({"owner": "ann", "consents": "yes"}, 400),
        ({"job": "no id"}, 404),
    ],
)
async def test_purge_of_anything_else_is_refused_and_nothing_goes(body, status):
    app, service = make()
    service.succeed(service.put(owner="ann").id)
    assert (await post_purge(app, body, **ADMIN)).status == status
    assert len(service.stored) == 1


async def test_backup_is_streamed_to_the_admin_and_refused_in_a_sentence():
    app, service = make()
    assert (await ask(app, "GET", "/-/backup")).status == 401
    answer = await ask(app, "GET", "/-/backup", **ADMIN)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/x-tar", b"a tar")
    assert "content-length" not in answer.headers
    assert service.archive.backups == 0
    service.refusal = StorageFullError("There is no room left.")
    answer = await ask(app, "GET", "/-/backup", **ADMIN)
    assert (answer.status, answer.json["code"]) == (507, "storage_full")


async def test_a_restart_is_begun_with_the_admin_token_and_shown():
    app, _ = make()
    assert (await ask(app, "POST", "/-/upstreams/gpu-1/restart")).status == 401
    answer = await ask(app, "POST", "/-/upstreams/gpu-1/restart", **ADMIN)
    assert (answer.status, answer.json["restarting"], answer.json["available"]) == (202, True, False)
    assert (await ask(app, "POST", "/-/upstreams/none/restart", **ADMIN)).status == 404

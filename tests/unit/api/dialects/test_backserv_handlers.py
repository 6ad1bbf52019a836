import asyncio
import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import EventKind
from tests.tools.asgi import TOKEN, Stream, ask, make

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
SWAP = {"source_image": URI, "target_image": "https://media.example.org/v.mp4"}


def task(params=None, user_id="user123", task_type="face_swap"):
    return json.dumps({"task_type": task_type, "task_params": params or SWAP, "user_id": user_id}).encode()


async def test_what_came_in_is_what_the_engine_is_given():
    app, service = make()
    answer = await ask(app, "POST", "/submit_task", task({**SWAP, "target_faces": "1"}))
    assert answer.status == 202
    [given] = service.submissions
    assert service.blobs.stored[given.inputs["face"].blob.hash] == PNG
    assert service.blobs.stored[given.inputs["target"].blob.hash] == SWAP["target_image"].encode()
    assert given.parameters == {"target_faces": "1"}
    assert given.submitter == "127.0.0.1 user123"


async def test_in_keys_mode_a_user_id_changes_nothing():
    app, service = make(auth="keys")
    answer = await ask(app, "POST", "/submit_task", task(user_id="root"), authorization=f"Bearer {TOKEN}")
    assert answer.status == 202
    assert [(given.owner, given.submitter) for given in service.submissions] == [("local", "local")]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
async def test_a_body_is_read_as_json_whatever_it_calls_itself(content_type):
    app, _ = make()
    assert (await ask(app, "POST", "/submit_task", task(), content_type=content_type)).status == 202


async def test_before_the_answer_everything_lies_in_the_store():
    app, service = make()
    service.fetch_gate = asyncio.Event()
    async with Stream(app, "POST", "/submit_task", {}, task()) as stream:
        for _ in range(20):  # turns of the loop: the photo is there by then
            await asyncio.sleep(0)
        assert len(service.blobs.stored) == 1
        assert (stream.status, service.submissions) == (0, [])
        service.fetch_gate.set()
        assert (await stream.whole()).status == 202
    assert len(service.blobs.stored) == 2


@pytest.mark.parametrize(
    ("settings", "headers", "base"),
    [
        ({}, {}, "http://localhost:8000"),
        ({}, {"host": "127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"public_url": "https://a.example/x/"}, {"host": "localhost:1"}, "https://a.example/x"),
        ({"auth": "keys"}, {"host": "faces.example.org"}, "http://faces.example.org"),
        # No host to speak of: the path alone still leads there.
        ({"auth": "keys"}, {"host": 'a"b'}, ""),
        ({"auth": "keys"}, {"host": "[::::]"}, "http://[::::]"),
    ],
)
async def test_links_are_absolute_by_public_url_or_as_the_request_came(settings, headers, base):
    app, service = make(**settings)
    link = service.succeed(service.put().id)
    job_id = next(iter(service.stored))
    answer = await ask(app, "GET", f"/query_task/{job_id}", authorization=f"Bearer {TOKEN}", **headers)
    assert answer.json["result_info"] == f"{base}/download/{link}"
    assert answer.json["result_urls"] == [answer.json["result_info"]]


async def test_an_answer_kept_ready_never_holds_another_clients_host():
    app, service = make()
    job = service.put()
    path = f"/query_task/{job.id}"
    hosts = ("localhost:8000", "127.0.0.1:8000")
    for host in hosts:  # each is known as one who may read it
        assert (await ask(app, "GET", path, host=host)).json["status"] == "Queueing"
    service.tell(job.id, EventKind.STARTED)
    service.succeed(job.id)
    for host in (*hosts, *hosts):
        assert (await ask(app, "GET", path, host=host)).json["result_info"].startswith(f"http://{host}/")


PIECES = st.sampled_from(
    [
        *(
            b'"data:',
            b'"data:;base64,',
            b'"data:,',
            b"iVBORw0KGgo=",
            b"%89PNG",
            b"\\/",
            b"\\u00",
            b'"',
            b"{",
            b"}",
            b",",
        ),
        *(b'"task_type":', b'"face_swap"', b'"task_params":', b'"source_image":', b'"user_id":', b"[", b"]", b"1e9"),
    ]
)
SPLICES = st.tuples(st.integers(0, len(task())), st.integers(0, 40), st.binary(max_size=9) | PIECES)


@given(st.binary(max_size=200) | st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join), SPLICES)
async def test_whatever_bytes_come_in_the_answer_is_a_ticket_or_says_what_is_wrong(junk, splice):
    app, service = make()
    at, gone, put_in = splice
    for body in (junk, task()[:at] + put_in + task()[at + gone :]):
        before = dict(service.blobs.stored)
        answer = await ask(app, "POST", "/submit_task", body)
        assert answer.status in {202, 400}, answer
        if answer.status == 400:
            assert set(answer.json) in ({"error", "message", "field"}, {"error", "message", "field", "missing"})
            assert service.blobs.stored == before


async def test_a_task_that_ends_canceled_is_called_so_at_once():
    app, service = make()
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    service.tell(job.id, EventKind.CANCEL_REQUESTED)
    told = (await ask(app, "GET", f"/query_task/{job.id}")).json
    assert (told["status"], told["completed_at"]) == ("Cancelled", None)
    again = await ask(app, "POST", f"/cancel_task/{job.id}")
    assert (again.status, again.json["status"]) == (200, "Cancelled")
    assert (await ask(app, "POST", f"/cancel_task/{job.id}")).status == 400

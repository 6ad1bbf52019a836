"""Consent at the windows: asked for in every dialect before anything is fetched, and its records over ``/-/``."""

from __future__ import annotations

import json

import pytest

from gateway.consent import Attestation, ConsentRecord
from tests.fakes.fake_service import NOW
from tests.tools.asgi import TOKEN, Socket, ask, form, make

ADMIN = {"authorization": f"Bearer {TOKEN}"}
PNG, MP4 = b"\x89PNG\r\n\x1a\n" + b"0" * 20, b"\0\0\0 ftypisom" + b"0" * 30
VIDEO, FACE = "https://media.example.org/v.mp4", "https://media.example.org/f.png"

# ---------------------------------------------------------------------------------------------------- in every dialect


def as_json(body):
    return json.dumps(body).encode(), {"content_type": "application/json"}


def faceswap_files(said):
    return "/face-swap", *form({"video": MP4, "image": PNG, "return_prompt_id_only": "true", **said})


def faceswap_urls(said):
    return "/face-swap", *as_json({"video_url": VIDEO, "image_url": FACE, "return_prompt_id_only": True, **said})


def swiftswap(said):
    return "/swap_video/", *form({"target_video": MP4, "image": PNG, **said})


def backserv(said):
    params = {"source_image": FACE, "target_image": VIDEO, **said}
    return "/submit_task", *as_json({"task_type": "face_swap", "task_params": params, "user_id": "u"})


def swaps_v1(said):
    return "/api/v1/swaps", *as_json({"type": "video", "source_url": FACE, "target_url": VIDEO, **said})


REQUESTS = pytest.mark.parametrize("request_of", [faceswap_files, faceswap_urls, swiftswap, backserv, swaps_v1])


async def send(gateway, request_of, said, **headers):
    app, service = gateway
    path, body, more = request_of(said)
    key = {"x_api_key": service.give_key()} if request_of is swaps_v1 else {}
    return await ask(app, "POST", path, body, **more, **key, **headers)


@REQUESTS
async def test_a_swap_for_which_nothing_is_said_is_refused_before_anything_is_fetched(request_of):
    app, service = make(require_consent=True)
    refused = await send((app, service), request_of, {})
    assert refused.status == (400 if request_of is swaps_v1 else 422)
    assert b"'consent'" in refused.body
    assert b"X-Consent: true" in refused.body
    assert b"validation_error" in refused.body if request_of is swaps_v1 else b"consent_required" in refused.body
    assert service.blobs.stored == {}
    assert service.submissions == []


@REQUESTS
@pytest.mark.parametrize("required", [True, False])
async def test_it_is_said_by_field_or_header_and_passed_on(request_of, required):
    app, service = make(require_consent=required)
    assert (await send((app, service), request_of, {"consent": "true"})).status < 300
    assert (await send((app, service), request_of, {}, x_consent="true")).status < 300
    assert (await send((app, service), request_of, {"consent": "yes"}, x_consent="on")).status < 300
    said = [submission.consent for submission in service.submissions]
    assert said == [Attestation.FIELD, Attestation.HEADER, Attestation.FIELD]


@REQUESTS
async def test_without_the_setting_nothing_has_to_be_said(request_of):
    app, service = make()
    assert (await send((app, service), request_of, {})).status < 300
    assert service.submissions[0].consent is None


@REQUESTS
@pytest.mark.parametrize("required", [True, False])
async def test_no_is_a_refusal_that_names_it(request_of, required):
    app, service = make(require_consent=required)
    for said, headers in (({"consent": "false"}, {"x_consent": "true"}), ({"consent": "true"}, {"x_consent": "no"})):
        refused = await send((app, service), request_of, said, **headers)
        assert refused.status == 400
        assert (b"X-Consent" if headers["x_consent"] == "no" else b"consent") in refused.body
    assert service.submissions == []
    assert service.blobs.stored == {}


async def test_a_task_that_swaps_no_face_needs_none_and_may_say_it():
    app, service = make(require_consent=True)
    for params in ({}, {"consent": True}):
        body = {"task_type": "image_upscale", "task_params": {"image_url": FACE, **params}, "user_id": "u"}
        content, headers = as_json(body)
        assert (await ask(app, "POST", "/submit_task", content, **headers)).status == 202
    assert [submission.consent for submission in service.submissions] == [None, Attestation.FIELD]
    assert all("consent" not in submission.parameters for submission in service.submissions)


@pytest.mark.parametrize(
    ("said", "headers", "attested"),
    [({"consent": True}, {}, Attestation.FIELD), ({}, {"x_consent": "1"}, Attestation.HEADER)],
)
async def test_over_the_socket_it_stands_in_the_first_message_or_the_handshake(said, headers, attested):
    app, service = make(require_consent=True)
    async with Socket(app, "/face-swap-ws", **headers) as socket:
        await socket.say({"video_url": VIDEO, "image_url": FACE, **said})
        assert (await socket.hear())["event"] == "queued"
    assert service.submissions[0].consent is attested


@pytest.mark.parametrize(("said", "code"), [({}, "consent_required"), ({"consent": False}, "validation_error")])
async def test_over_the_socket_it_is_missed_before_anything_is_fetched(said, code):
    app, service = make(require_consent=True)
    async with Socket(app, "/face-swap-ws") as socket:
        await socket.say({"video_url": VIDEO, "image_url": FACE, **said})
        told = await socket.hear()
        assert (told["event"], told["code"]) == ("error", code)
        assert await socket.closed() == 1008
    assert service.blobs.stored == {}


async def test_health_and_the_task_types_say_whether_it_is_asked_for():
    for required in (True, False):
        app, _ = make(require_consent=required)
        assert (await ask(app, "GET", "/health")).json["consent_required"] is required
        face_swap = (await ask(app, "GET", "/task_types")).json["task_types"][0]
        (told,) = [one for one in face_swap["task_params"] if one["name"] == "consent"]
        assert (told["type"], told["required"]) == ("bool", required)


# ------------------------------------------------------------------------------------------------------------- records


def name(number):
    return f"019a0000-0000-7000-8000-{number:012}"


def record(number, owner="k-ann", **changes):
    return ConsentRecord(name(number), owner, "faceswap", Attestation.FIELD, NOW + number, {"face": "ab"}, **changes)


@pytest.fixture
def kept():
    app, service = make()
    for number, owner in ((1, "k-ann"), (2, "k-eve"), (3, "k-ann")):
        service.consent_store.put(record(number, owner))
    return app, service


async def test_records_are_the_operators_alone(kept):
    app, _ = kept
    for path in ("/-/consent", f"/-/consent/{name(1)}"):
        assert (await ask(app, "GET", path)).status == 401


async def test_a_record_is_told_as_it_is(kept):
    app, service = kept
    service.consent_store.put(record(4, ended_at=NOW + 9, state="succeeded", outputs=("cd",)))
    assert (await ask(app, "GET", f"/-/consent/{name(4)}", **ADMIN)).json == {
        "job": name(4),
        "owner": "k-ann",
        "dialect": "faceswap",
        "attested_by": "field",
        "attested_at": "2025-06-18T15:00:04.000Z",
        "inputs": {"face": "blake3:ab"},
        "state": "succeeded",
        "ended_at": "2025-06-18T15:00:09.000Z",
        "outputs": ["blake3:cd"],
    }
    begun = (await ask(app, "GET", f"/-/consent/{name(1)}", **ADMIN)).json
    assert (begun["state"], begun["ended_at"], begun["outputs"]) == (None, None, None)
    assert (await ask(app, "GET", f"/-/consent/{name(9)}", **ADMIN)).status == 404


async def test_records_are_listed_page_by_page(kept):
    app, _ = kept

    async def jobs(query):
        page = (await ask(app, "GET", f"/-/consent{query}", **ADMIN)).json
        return [int(one["job"][-2:]) for one in page["consents"]], page["next"]

    assert await jobs("") == ([1, 2, 3], None)
    assert await jobs("?limit=2") == ([1, 2], name(2))
    assert await jobs(f"?limit=2&after={name(2)}") == ([3], None)
    assert await jobs("?owner=k-ann") == ([1, 3], None)
    assert await jobs("?since=2025-06-18T15:00:02Z") == ([2, 3], None)
    assert await jobs("?since=2025-06-18") == ([1, 2, 3], None)
    assert await jobs("?since=2025-06-19") == ([], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=yesterday", "since"),
        ("since=0001-01-01T00:00:00%2B23:59", None),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        (f"after={name(9)}", "after"),
    ],
)
async def test_a_malformed_question_names_its_field(kept, query, field):
    answer = await ask(kept[0], "GET", f"/-/consent?{query}", **ADMIN)
    assert (answer.status, answer.json.get("field")) == ((200, None) if field is None else (400, field))


async def test_a_purge_takes_records_only_when_that_is_asked(kept):
    app, service = kept

    async def purge(**body):
        content, headers = as_json(body)
        return (await ask(app, "POST", "/-/purge", content, **headers, **ADMIN)).json["consents"]

    assert await purge(owner="k-ann") == 0
    assert set(service.consent_store.kept) == {name(1), name(2), name(3)}
    assert await purge(owner="k-ann", consents=True) == 2
    assert set(service.consent_store.kept) == {name(2)}

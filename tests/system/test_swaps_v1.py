"""The published samples of the v1 API, run as printed but for the hosts, on a whole gateway with two workers.

Everything goes over https with certificates of an authority that is made here, and is checked everywhere: by cURL, Node and
requests towards the gateway, and by the gateway towards the server that has source and target.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.tools import groups
from tests.tools.v1_house import MEDIA_HOST, House, make_key, opened
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

#: As printed; HERE and MEDIA stand where the document's hosts stood.
CURL = """curl -sS -X POST https://HERE/api/v1/swaps \\
-H "Authorization: Bearer $AIFACESWAP_API_KEY" \\
-H "Content-Type: application/json" \\
-H "Idempotency-Key: $(uuidgen)" \\
-d '{
"type": "image",
"source_url": "https://MEDIA/face.jpg",
"target_url": "https://MEDIA/target.jpg",
"webhook_url": "https://MEDIA/webhooks/aifaceswap"
}'"""
NODE = """// Node 18+ has `fetch` and `crypto.randomUUID` globally.
const res = await fetch("https://HERE/api/v1/swaps", {
method: "POST",
headers: {
Authorization: `Bearer ${process.env.AIFACESWAP_API_KEY}`,
"Content-Type": "application/json",
"Idempotency-Key": crypto.randomUUID(),
},
body: JSON.stringify({
type: "image",
source_url: "https://MEDIA/face.jpg",
target_url: "https://MEDIA/target.jpg",
webhook_url: "https://MEDIA/webhooks/aifaceswap",
}),
});
if (!res.ok) {
const { error } = await res.json();
throw new Error(`${error.code}: ${error.message} (request_id=${error.request_id})`);
}
const swap = await res.json();
console.log(swap.id, swap.status);"""
PYTHON = """import os
import uuid
import requests
resp = requests.post(
"https://HERE/api/v1/swaps",
headers={
"Authorization": f"Bearer {os.environ['AIFACESWAP_API_KEY']}",
"Content-Type": "application/json",
"Idempotency-Key": str(uuid.uuid4()),
},
json={
"type": "image",
"source_url": "https://MEDIA/face.jpg",
"target_url": "https://MEDIA/target.jpg",
"webhook_url": "https://MEDIA/webhooks/aifaceswap",
},
timeout=30,
)
if not resp.ok:
    err = resp.json()["error"]
    raise RuntimeError(f"{err['code']}: {err['message']} (request_id={err['request_id']})")
swap = resp.json()
print(swap["id"], swap["status"])"""
PUBLIC_SWAP = {
    "id",
    "type",
    "status",
    "credit_cost",
    "progress",
    "created_at",
    "result_url",
    "error",
    "metadata",
    "webhook_url",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory, material) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("v1")
    pair = groups.group(folder / "pair.jpg")
    others = {"clip.mp4": material.clip, "nobody.png": material.faceless, "pair.jpg": pair}
    with opened(folder, face=material.face(1300), target=material.still, others=others) as house:
        yield house


async def ended(house: House, swap_id: str) -> dict[str, Any]:
    """A swap as it ended, everything on the way as documented."""
    seen: list[dict[str, Any]] = []

    async def look() -> bool:
        answer = await client.get(f"/api/v1/swaps/{swap_id}")
        assert answer.status_code == HTTPStatus.OK, answer.text
        seen.append(answer.json())
        assert set(seen[-1]) == PUBLIC_SWAP | {"warnings"}
        return seen[-1]["status"] in {"done", "failed", "canceled"}

    async with house.client() as client:
        await wait_until(look, what=f"the end of {swap_id}")
    order = ["queued", "preparing", "processing", "done", "failed", "canceled"]
    assert [swap["status"] for swap in seen] == sorted((swap["status"] for swap in seen), key=order.index)
    assert [swap["progress"] for swap in seen] == sorted(swap["progress"] for swap in seen)
    return seen[-1]


async def require_swapped(house: House, swap_id: str) -> None:
    """It is done, and the picture behind its link is the target with another face."""
    swap = await ended(house, swap_id)
    assert (swap["status"], swap["progress"], swap["error"]) == ("done", 100, None), swap
    assert swap["webhook_url"] == house.url("webhooks/aifaceswap")
    assert swap["result_url"].startswith(f"{house.base}/download/")
    async with house.client() as client:
        # Whoever has the link needs no key.
        file = await client.get(swap["result_url"], headers={"Authorization": ""})
    after = np.asarray(Image.open(io.BytesIO(file.content)).convert("RGB")).astype(int)
    before = np.asarray(Image.open(house.folder / "media" / "target.jpg").convert("RGB")).astype(int)
    assert before.shape == after.shape
    assert np.abs(after - before).max() > 40, "another face"


# ----------------------------------------------------------------------------------------------------- the samples


async def test_the_sample_for_curl(house):
    if shutil.which("curl") is None:
        pytest.skip("cURL is not installed")
    swap = json.loads(house.run("sh", "-c", house.hosted(CURL)))
    assert swap["status"] == "queued"
    await require_swapped(house, swap["id"])


async def test_the_sample_for_node(house):
    if shutil.which("node") is None:
        pytest.skip("Node is not installed (.ci/run installs it)")
    told = house.run("node", "--input-type=module", given=house.hosted(NODE))
    swap_id, status = told.split()
    assert status == "queued"
    await require_swapped(house, swap_id)


async def test_the_sample_for_python(house):
    swap_id, status = house.run(sys.executable, "-c", house.hosted(PYTHON)).split()
    assert status == "queued"
    await require_swapped(house, swap_id)
    assert {"/face.jpg", "/target.jpg"} <= set(house.media.asked)


def test_a_sample_that_does_not_trust_the_authority_is_not_served(house):
    """The certificate is checked: without the authority there is no answer."""
    with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
        house.run("env", "-u", "REQUESTS_CA_BUNDLE", "-u", "CURL_CA_BUNDLE", sys.executable, "-c", house.hosted(PYTHON))


# ------------------------------------------------------------------------------------------------------- beyond them


async def create(house: House, query: str = "", **changes: Any) -> httpx.Response:
    body = {"type": "image", "source_url": house.url("face.jpg"), "target_url": house.url("target.jpg"), **changes}
    async with house.client() as client:
        return await client.post(f"/api/v1/swaps{query}", json={k: v for k, v in body.items() if v is not None})


async def test_whoever_waits_gets_the_end(house):
    answer = await create(house, "?wait=true", metadata={"order": 7})
    swap = answer.json()
    assert (answer.status_code, swap["status"], swap["metadata"]) == (HTTPStatus.CREATED, "done", {"order": 7})
    assert answer.headers["location"] == f"/api/v1/swaps/{swap['id']}"
    failed = (await create(house, "?wait=true", target_url=house.url("nobody.png"))).json()
    assert (failed["status"], failed["result_url"]) == ("failed", None)
    assert "face" in failed["error"]


async def test_a_video_is_swapped(house):
    answer = await create(house, type="video", target_url=house.url("clip.mp4"), duration_seconds=0.5)
    assert answer.status_code == HTTPStatus.CREATED, answer.text
    swap = await ended(house, answer.json()["id"])
    assert (swap["type"], swap["status"]) == ("video", "done")
    async with house.client() as client:
        assert (await client.get(swap["result_url"])).content[4:8] == b"ftyp"


async def test_the_list_holds_the_swaps_of_the_key_in_pages(house):
    made = [(await create(house)).json()["id"] for _ in range(3)]
    async with house.client() as client:
        first = (await client.get("/api/v1/swaps?limit=2")).json()
        second = (await client.get("/api/v1/swaps", params={"limit": 2, "cursor": first["next_cursor"]})).json()
        for swap_id in made:
            await client.delete(f"/api/v1/swaps/{swap_id}")
    assert [swap["id"] for swap in (*first["data"], *second["data"])][:3] == made[::-1]


async def test_what_cannot_be_fetched_is_refused_in_the_same_words_whatever_is_behind_it(house):
    """A file that is not there, a port that is closed, a certificate for another name, an address that is not listed."""
    other_name = house.media.url.replace(MEDIA_HOST, "localhost")
    bad = [house.url("gone.png"), "https://media.example.com:9/", f"{other_name}/face.jpg", "https://10.0.0.1/a.png"]
    answers = [await create(house, source_url=url) for url in bad]
    assert {answer.status_code for answer in answers} == {HTTPStatus.BAD_REQUEST}
    told = [answer.json()["error"] for answer in answers]
    assert {error["code"] for error in told} == {"source_unreachable"}
    assert len({error["message"] for error in told}) == 1
    plain = await create(house, source_url=house.url("face.jpg").replace("https", "http"))
    assert plain.json()["error"]["code"] == "validation_error"
    assert plain.json()["error"]["message"] == told[0]["message"]


async def test_a_video_as_an_image_is_refused(house):
    answer = await create(house, target_url=house.url("clip.mp4"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


# ------------------------------------------------------------------------------------------------------------- faces


async def test_faces_are_counted_and_each_gets_a_photo_of_its_own(house):
    async with house.client() as client:
        taken = await client.post("/api/v1/face-detect", json={"target_url": house.url("pair.jpg")})
        assert taken.status_code == HTTPStatus.ACCEPTED, taken.text
        assert (taken.json()["status"], "opencv" in taken.json()["note"]) == ("queued", True)

        async def look() -> Any:
            snapshot = (await client.get(taken.json()["poll_url"])).json()
            return snapshot if snapshot["status"] in {"done", "failed"} else None

        found = await wait_until(look, what="the faces")
        listed = (await client.get("/api/v1/swaps?limit=100")).json()["data"]
        as_swap = await client.get(f"/api/v1/swaps/{taken.json()['task_id']}")
    assert (found["faces_detected"], [face["index"] for face in found["faces"]]) == (2, [0, 1]), found
    areas = [face["bounding_box"]["width"] * face["bounding_box"]["height"] for face in found["faces"]]
    assert areas == sorted(areas, reverse=True)
    assert found["completed_at"] >= found["created_at"]
    assert taken.json()["task_id"] not in {swap["id"] for swap in listed}
    assert as_swap.status_code == HTTPStatus.NOT_FOUND
    mappings = [{"face_index": face["index"], "source_url": house.url("face.jpg")} for face in found["faces"]]
    answer = await create(
        house, type="multi_face_image", source_url=None, target_url=house.url("pair.jpg"), face_swaps=mappings
    )
    assert answer.status_code == HTTPStatus.CREATED, answer.text
    swap = await ended(house, answer.json()["id"])
    assert (swap["type"], swap["status"]) == ("multi_face_image", "done"), swap
    async with house.client() as client:
        file = await client.get(swap["result_url"])
    after = np.asarray(Image.open(io.BytesIO(file.content)).convert("RGB")).astype(int)
    before = np.asarray(ImageOps.exif_transpose(Image.open(house.folder / "media" / "pair.jpg")).convert("RGB"))
    moved = np.abs(after - before.astype(int)).max(axis=2)
    for face in found["faces"]:
        x, y, width, height = (int(face["bounding_box"][side]) for side in ("x", "y", "width", "height"))
        assert moved[y : y + height, x : x + width].max() > 40, face


# ----------------------------------------------------------------------------------------------------------- credits


async def total(client: httpx.AsyncClient) -> int:
    return (await client.get("/api/v1/me")).json()["credits"]["total"]


async def test_what_is_done_costs_and_what_fails_is_given_back(house):
    key = make_key(house.gateway, house.folder, "payer", 5)
    body = {"type": "image", "source_url": house.url("face.jpg"), "target_url": house.url("target.jpg")}
    async with house.client(key) as client:
        done = (await client.post("/api/v1/swaps?wait=true", json=body)).json()
        assert (done["status"], done["credit_cost"], await total(client)) == ("done", 1, 4)
        failing = body | {"target_url": house.url("nobody.png")}
        failed = (await client.post("/api/v1/swaps?wait=true", json=failing)).json()
        assert (failed["status"], failed["credit_cost"], await total(client)) == ("failed", 1, 4)
        # What somebody else's key started is nobody's here.
        assert {swap["id"] for swap in (await client.get("/api/v1/swaps")).json()["data"]} == {
            done["id"],
            failed["id"],
        }


async def test_twenty_who_spend_ten_credits_at_once_get_ten_swaps(house):
    key = make_key(house.gateway, house.folder, "spender", 10)
    body = {"type": "image", "source_url": house.url("face.jpg"), "target_url": house.url("target.jpg")}
    async with house.client(key) as client:
        answers = await asyncio.gather(*(client.post("/api/v1/swaps", json=body) for _ in range(20)))
        swaps = (await client.get("/api/v1/swaps?limit=100")).json()["data"]
        for swap in swaps:
            await client.delete(f"/api/v1/swaps/{swap['id']}")
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [402] * 10
    assert {answer.json()["error"]["code"] for answer in answers if answer.is_error} == {"insufficient_credits"}
    assert len(swaps) == 10


async def test_fifty_who_send_the_same_create_at_once_get_one_swap_and_fifty_equal_answers(house):
    key = make_key(house.gateway, house.folder, "repeater", 50)
    body = {"type": "image", "source_url": house.url("slow/face.jpg"), "target_url": house.url("target.jpg")}
    once, asked = {"Idempotency-Key": "order-7"}, len(house.media.asked)
    house.media.go.clear()
    async with house.client(key) as client:
        creates = [asyncio.create_task(client.post("/api/v1/swaps", json=body, headers=once)) for _ in range(50)]
        looks = itertools.count(1)

        async def are_all_here() -> bool:
            left = (await client.get("/api/v1/me")).json()["rate_limit"]
            return left["limit"] - left["remaining"] == len(creates) + next(looks)

        await wait_until(are_all_here, what="fifty requests, none of which can have been answered")
        house.media.go.set()
        answers = await asyncio.gather(*creates)
        await client.delete(f"/api/v1/swaps/{answers[0].json()['id']}")
    assert {answer.status_code for answer in answers} == {HTTPStatus.CREATED}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert house.media.asked[asked:].count("/slow/face.jpg") == 1
    [(key_id, user_id)] = house.gateway.rows("SELECT id, user_id FROM api_keys WHERE name = 'repeater'")
    assert house.gateway.rows("SELECT count(*) FROM jobs WHERE owner = ?", key_id) == [(1,)]
    holds = "SELECT permanent FROM ledger WHERE kind = 'hold' AND user_id = ?"
    assert house.gateway.rows(holds, user_id) == [(-1,)]


@pytest.mark.long
async def test_a_kill_between_the_claim_and_the_job_costs_the_next_try_a_lease_at_most(tmp_path, material):
    """With a lease of three seconds in place of sixty; nothing else differs."""
    first = "from gateway import idempotency; idempotency.LEASE_SECONDS = 3.0; idempotency.RENEW_SECONDS = 1.0"
    once = {"Idempotency-Key": "try-again"}
    with opened(tmp_path, face=material.face(1310), target=material.still, others={}, first=first) as house:
        body = {"type": "image", "source_url": house.url("slow/face.jpg"), "target_url": house.url("target.jpg")}
        house.media.go.clear()
        async with house.client() as client:
            cut = asyncio.create_task(client.post("/api/v1/swaps", json=body, headers=once))
            await wait_until(lambda: "/slow/face.jpg" in house.media.asked, what="the fetch")
            assert house.gateway.rows("SELECT count(*) FROM claims WHERE status IS NULL") == [(1,)]
            house.gateway.kill()
            await asyncio.gather(cut, return_exceptions=True)
        assert cut.exception() is not None
        house.media.go.set()
        house.gateway.start(wait_for_workers=False)
        async with house.client() as client:
            made = await client.post("/api/v1/swaps", json=body, headers=once)
            again = await client.post("/api/v1/swaps", json=body, headers=once)
            other = await client.post("/api/v1/swaps", json=body | {"target_face_index": 1}, headers=once)
        assert (made.status_code, again.content) == (HTTPStatus.CREATED, made.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert (other.status_code, other.json()["error"]["code"]) == (400, "validation_error")
        assert house.gateway.rows("SELECT count(*) FROM jobs") == [(1,)]
        assert house.gateway.rows("SELECT count(*) FROM ledger WHERE kind = 'hold'") == [(1,)]

"""The published samples of the v1 API, run as printed but for the hosts, on a whole gateway with two workers.

Everything goes over https with certificates of an authority that is made here, and is checked everywhere: by cURL, Node and
requests towards the gateway, and by the gateway towards the server that has source and target.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import trustme
from PIL import Image

from tests.tools.file_server import FileServer, serving
from tests.tools.gateway_process import GatewayProcess
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

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
MEDIA_HOST = "media.example.com"


@dataclass(frozen=True)
class House:
    """A gateway over https, the server with the media, and a client that trusts both."""

    gateway: GatewayProcess
    media: FileServer
    authority: Path
    folder: Path
    key: str

    @property
    def base(self) -> str:
        return f"https://localhost:{self.gateway.port}"

    def url(self, name: str) -> str:
        return f"{self.media.url}/{name}"

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"}
        trusted = ssl.create_default_context(cafile=self.authority)
        return httpx.AsyncClient(
            base_url=self.base, headers=headers, verify=trusted, trust_env=False, timeout=PATIENCE_SECONDS
        )

    def hosted(self, sample: str) -> str:
        """A sample with our hosts in the place of the document's."""
        return sample.replace("HERE", self.base.partition("//")[2]).replace("MEDIA", self.media.url.partition("//")[2])

    def run(self, *words: str, given: str | None = None) -> str:
        """What a command prints that knows the key and trusts the authority by its usual variables, and nothing else."""
        trusting = dict.fromkeys(("CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"), str(self.authority))
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            **trusting,
            "AIFACESWAP_API_KEY": self.key,
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory, material) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("v1")
    authority, here = trustme.CA(), folder / "media"
    here.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own, theirs = authority.issue_cert("localhost"), authority.issue_cert(MEDIA_HOST)
    own.cert_chain_pems[0].write_to_path(folder / "own.pem")
    own.private_key_pem.write_to_path(folder / "own.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.configure_cert(context)
    prepare(here, material)
    settings = {
        "AUTH": "keys",
        "TLS_CERT": str(folder / "own.pem"),
        "TLS_KEY": str(folder / "own.key"),
        "CA_FILE": str(folder / "ca.pem"),
        "RESOLVE": f"{MEDIA_HOST}=127.0.0.1",
        "URL_ALLOWLIST": "127.0.0.1/32",
    }
    gateway = GatewayProcess(folder / "gateway", settings, workers=2)
    with serving(here, tls=context, name=MEDIA_HOST) as media:
        try:
            gateway.start(wait_for_workers=False)
            yield House(gateway, media, folder / "ca.pem", folder, make_key(gateway, folder))
        finally:
            gateway.end()


def prepare(here: Path, material: Any) -> None:
    """The pictures that the samples name, and others."""
    for name, source in (("face.jpg", material.face(1300)), ("target.jpg", material.still)):
        Image.open(source).convert("RGB").save(here / name, quality=95)
    shutil.copyfile(material.clip, here / "clip.mp4")
    shutil.copyfile(material.faceless, here / "nobody.png")
    # Not every machine has it.
    shim = here.parent / "uuidgen"
    shim.write_text(f"#!{sys.executable}\nimport uuid\nprint(uuid.uuid4())\n")
    shim.chmod(0o755)


def make_key(gateway: GatewayProcess, folder: Path) -> str:
    """As an operator makes it on the machine of the gateway; printed alone on the last line."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "comfygate"),
            "keys",
            "create",
            "--name",
            "tester",
            "--rate",
            "10000",
            "--credits",
            "1000",
        ],
        cwd=folder,
        env={**os.environ, "GATEWAY_DATA_DIR": str(gateway.data_dir), "GATEWAY_CA_FILE": str(folder / "ca.pem")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return done.stdout.splitlines()[-1]


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

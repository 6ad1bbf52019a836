"""A whole gateway as a process, with everything in it that a request could ask for: the house that examples are tried on.

Its worker is the embedded one; URLs lead to a server on loopback, nothing else is dialled. Clients carry one key that may
do everything, with so much credit and so high limits that neither is what is tried.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trustme
from PIL import Image

from tests.tools.clips import clip, face
from tests.tools.file_server import serving
from tests.tools.gateway_process import GatewayProcess, free_port
from tests.tools.plain_http import NO_TLS
from tests.tools.waiting import wait_until_now

#: Name of an upload that is there; no example of the document is called so, or another would take its place.
UPLOAD = "kept by the house.png"
MEDIA_HOST = "media.example.com"
CREDITS = 1_000_000_000
#: May be drained and taken out: the other one goes on. A foreign one would be given all swaps, and there is none.
SPARE = "embedded-2"


@dataclass(frozen=True)
class House:
    """A gateway, and what lies in it."""

    gateway: GatewayProcess
    key: str
    #: Its OpenAPI document, as it is served to the key.
    document: dict[str, Any]
    #: Part of a path with one parameter in it -> what is there to name; the first that fits counts.
    known: Mapping[str, tuple[str, ...]]
    #: Valid files by kind: "image", "video", "gif".
    files: Mapping[str, bytes]
    #: URLs of the same, by kind.
    urls: Mapping[str, str]
    #: Where nobody listens.
    nowhere: str

    def client(self) -> httpx.Client:
        """With the key."""
        return httpx.Client(
            base_url=self.gateway.url, headers={"X-API-Key": self.key}, timeout=90, trust_env=False, verify=NO_TLS
        )


@contextmanager
def opened(folder: Path) -> Iterator[House]:
    """One in a folder of its own, for as long as the context lasts."""
    files = _files(folder)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(MEDIA_HOST).configure_cert(context)
    settings = {
        "AUTH": "keys",
        "URL_INPUTS": "allowlist",
        "URL_ALLOWLIST": MEDIA_HOST,
        "RESOLVE": f"{MEDIA_HOST}=127.0.0.1",
        "CA_FILE": str(folder / "ca.pem"),
    }
    with (
        serving(folder / "media", tls=context, name=MEDIA_HOST) as media,
        GatewayProcess(folder / "gateway", settings, workers=2) as gateway,
    ):
        urls = {kind: f"{media.url}/{path.name}" for kind, path in files.items()}
        yield _furnished(gateway, {kind: path.read_bytes() for kind, path in files.items()}, urls)


def _files(folder: Path) -> dict[str, Path]:
    here = folder / "media"
    here.mkdir()
    still = face(here / "face.png")
    moving = clip(here / "clip.mp4", 4)
    with Image.open(still) as portrait:
        frames = [portrait.convert("P"), Image.new("P", portrait.size)]
    frames[0].save(here / "loop.gif", save_all=True, append_images=frames[1:], duration=100)
    return {"image": still, "video": moving, "gif": here / "loop.gif"}


def _furnished(gateway: GatewayProcess, files: Mapping[str, bytes], urls: Mapping[str, str]) -> House:
    with gateway.http() as http:
        http.headers.update(gateway.bearer)
        body = {"name": "everything", "rate_limit": 100_000, "concurrency": 10_000, "credits": CREDITS}
        key = _created(http, "/-/keys", {**body, "scopes": ["jobs", "admin"]})["key"]
        http.headers.update({"Authorization": f"Bearer {key}"})
        spare_key = _created(http, "/-/keys", {"name": "spare", "scopes": ["jobs"]})["id"]
        nowhere = f"http://127.0.0.1:{free_port()}"
        done, link = _swapped(http, files)
        canceled = _canceled(http, files)
        uploaded = _uploaded(http, files)
        detected = _created(http, "/api/v1/face-detect", {"target_url": urls["image"]})["task_id"]
        document = http.get("/openapi.json").json()
    jobs = (done, canceled)
    known = {
        "/-/ui/{name}": ("page.js", "docs.html"),
        "/-/upstreams/{name}": (SPARE,),
        "/-/keys/{id}": (spare_key,),
        "/api/v1/face-detect/{id}": (detected,),
        "/api/v2/templates/{name}": ("faceswap_image", "face_detect"),
        "/api/v2/assets/{id}": (uploaded["id"],),
        "{id}": jobs,
        "{prompt_id}": jobs,
        "{task_id}": jobs,
        "{ticket_id}": jobs,
        "{filename}": (link,),
        "/static/{name}": (link,),
        "{hash}": (uploaded["hash"],),
    }
    return House(gateway, key, document, known, files, urls, nowhere)


def _created(http: httpx.Client, path: str, body: Mapping[str, object]) -> Any:
    answer = http.post(path, json=body)
    answer.raise_for_status()
    return answer.json()


def _submitted(http: httpx.Client, files: Mapping[str, bytes]) -> str:
    parts = {"target_image": ("t.png", files["image"]), "image": ("f.png", files["image"])}
    answer = http.post("/face-swap", files=parts, data={"return_prompt_id_only": "true"})
    answer.raise_for_status()
    return answer.json()["prompt_id"]


def _swapped(http: httpx.Client, files: Mapping[str, bytes]) -> tuple[str, str]:
    """A job that succeeded, and the link to its file."""
    job = _submitted(http, files)
    wait_until_now(lambda: _job(http, job)["finished_at"] is not None, what="the first swap")
    return job, _job(http, job)["results"][0]["link"]


def _uploaded(http: httpx.Client, files: Mapping[str, bytes]) -> Any:
    """An asset."""
    fields = {"content_type": "image/png", "file_path": UPLOAD}
    answer = http.post("/api/v2/assets", files={"file": ("f.png", files["image"])}, data=fields)
    answer.raise_for_status()
    return answer.json()


def _canceled(http: httpx.Client, files: Mapping[str, bytes]) -> str:
    job = _submitted(http, files)
    http.delete(f"/-/jobs/{job}")
    wait_until_now(lambda: _job(http, job)["finished_at"] is not None, what="the second swap")
    return job


def _job(http: httpx.Client, job: str) -> Any:
    return http.get(f"/-/jobs/{job}").json()

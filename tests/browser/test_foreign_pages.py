"""A page of another origin and a foreign Host can neither start nor read nor cancel a job in open mode.

A real browser tries, because what it sends along (Origin, Sec-Fetch-*, preflights) is what the doors stand on. The same
attempts are made from the gateway's own page, where they must work: else their failing elsewhere would show nothing.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.browser.node import required_tools, run_script

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
FOREIGN = ("another site", "another port", "a rebound name")
OWN = "the gateway's own"


@dataclass(frozen=True)
class Gateway:
    """A gateway in open mode with one finished job and one that waits, because its only worker is drained."""

    url: str
    download: str
    waiting_job: str
    face: bytes
    target: bytes

    def jobs(self) -> list[tuple[str, str]]:
        """(id, state) of all jobs."""
        return [(job["id"], job["state"]) for job in httpx.get(f"{self.url}/-/jobs").json()["jobs"]]


def portraits() -> tuple[bytes, bytes]:
    from matplotlib.cbook import get_sample_data
    from skimage.data import astronaut

    face = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    return as_jpeg(face), as_jpeg(Image.fromarray(astronaut()))


def as_jpeg(picture: Image.Image) -> bytes:
    """Small enough for a beacon, which takes 64 KiB."""
    picture.thumbnail((400, 400))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


def submit(url: str, face: bytes, target: bytes) -> str:
    files = {"target_image": ("t.jpg", target), "image": ("f.jpg", face)}
    answer = httpx.post(f"{url}/face-swap", files=files, data={"return_prompt_id_only": "true"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["prompt_id"]


def listening(output: Path) -> str | None:
    found = re.search(r"listens on (http://\S+)", output.read_text())
    return found[1] if found else None


def wait_for(condition, what: str):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {what}")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    required_tools()
    tmp_path = tmp_path_factory.mktemp("gateway")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    output, errors = tmp_path / "out", tmp_path / "err"
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", "0"],
            cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=err,
        )  # fmt: skip
    try:
        url = wait_for(lambda: listening(output) or process.poll() is not None, "the gateway")
        assert url is not True, errors.read_text()
        wait_for(lambda: httpx.get(f"{url}/health/ready").status_code == 200, "its worker")
        face, target = portraits()
        first = submit(url, face, target)
        done = wait_for(lambda: httpx.get(f"{url}/status/{first}").json()["result"], "the first job")
        token = (tmp_path / "data" / "admin-token").read_text().strip()
        drain = httpx.post(f"{url}/-/upstreams/embedded-1/drain", headers={"Authorization": f"Bearer {token}"})
        assert drain.status_code == 200
        yield Gateway(url, link_of(done), submit(url, face, target), face, target)
    finally:
        process.kill()
        process.wait(30)


def link_of(result: object) -> str:
    """The path of the file in a status' result, a link or an object that holds one."""
    return re.search(r"/download/[\w.-]+", json.dumps(result))[0]


def visit(gateway: Gateway, *pages: str) -> dict[str, dict[str, object]]:
    """page -> attempt -> what became of it."""
    return run_script(
        "foreign_pages.mjs",
        gateway=gateway.url,
        job=gateway.waiting_job,
        download=gateway.download,
        face=base64.b64encode(gateway.face).decode(),
        target=base64.b64encode(gateway.target).decode(),
        pages=pages,
    )


@pytest.fixture(scope="module")
def attempted(gateway):
    """What the foreign pages got, then what the own page got, and the jobs after each."""
    before = gateway.jobs()
    assert (gateway.waiting_job, "queued") in before
    foreign = visit(gateway, *FOREIGN)
    between = gateway.jobs()
    own = visit(gateway, OWN)[OWN]
    return before, foreign, between, own, gateway.jobs()


#: What a page learns when it learns nothing: an error without a reason, an answer it may not look into, or 421.
NOTHING = {"refused", "opaque", "no answer to read", "sent", 421}
#: The four ways in which a page can make a browser send a form with files.
STARTS = ("start by fetch", "start by fetch without cors", "start by beacon", "start by form")


def test_what_the_own_page_can_do_no_foreign_page_can(attempted, gateway) -> None:
    before, foreign, between, own, after = attempted
    # What counts is what happened: nothing was started, nothing canceled, nothing read.
    assert between == before
    for page in FOREIGN:
        learned = {attempt: outcome for attempt, outcome in foreign[page].items() if attempt != "page"}
        assert {attempt: outcome for attempt, outcome in learned.items() if outcome not in NOTHING} == {}, page
    assert foreign["a rebound name"]["page"] == 421

    # The very same attempts do work from the gateway's own page, so they were not refused for being clumsy.
    assert [own[attempt] for attempt in STARTS] == [200, 200, "sent", "answered"]
    assert len(after) == len(before) + len(STARTS)
    # A form that hides its origin is nobody's, so not even the own page may send it; the page uses fetch.
    assert own["start by form of origin null"] == "no answer to read"
    assert (
        own["read the status"] == own["read the list"] == own["read a file by fetch"] == own["cancel by fetch"] == 200
    )
    assert own["read the events"] == own["read by socket"] == own["start by socket"] == "heard"
    assert (gateway.waiting_job, "canceled") in after


def test_a_file_is_shown_to_whoever_has_its_link_and_to_nobody_who_guesses(attempted) -> None:
    own = attempted[3]
    assert own["show a file"] == "loaded"
    assert own["show a file of a guessed name"] == "refused"

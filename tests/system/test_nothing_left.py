"""What is left of a job when its time is past, or when it was purged: nothing on the gateway, in storage, on its upstream."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from gateway import main
from gateway.clock import SystemClock
from gateway.engine import maintenance, tidying
from gateway.main import open_gateway
from gateway.settings import from_mapping
from tests.tools.faceswap_client import ended, submit
from tests.tools.files import files_below, folders_in
from tests.tools.object_servers import know_us, rclone
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

DAY = 86_400.0
#: What a gateway that never had a job keeps.
INFRASTRUCTURE = {"admin-token", "asset-key", "webhook-key", "lock", "address", "storage/id", "storage/place"}
#: Tables that tell of no job.
OTHERS = {"alembic_version", "templates", "timings", "upstreams", "leases", "schema_version"}


class JumpingClock(SystemClock):
    """The real clock, of which a test may say that days have passed."""

    passed_seconds = 0.0

    def now(self) -> float:
        return super().now() + JumpingClock.passed_seconds


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in files_below(folder)}


def in_blobs(folder: Path) -> set[str]:
    """What the local disk stores, parts of it included."""
    return names_below(folder / "blobs")


@dataclass
class House:
    """A whole gateway with one worker, and where its files may lie."""

    client: httpx.AsyncClient
    folder: Path
    #: Lists what its storage holds.
    in_storage: Callable[[Path], set[str]]

    def left(self) -> dict[str, set[str]]:
        """Place -> what lies there of jobs."""
        upstream = self.folder / "embedded" / "embedded-1"
        made = upstream / "output" / "gateway"
        return {
            "gateway": {
                name
                for name in names_below(self.folder)
                if name not in INFRASTRUCTURE
                and name.split("/")[0] not in {"embedded", "blobs"}
                and not name.startswith("gateway.db")
            },
            "rows": self.rows(),
            "storage": self.in_storage(self.folder),
            "upstream": {
                f"{kind}/{name}" for kind in ("input", "output", "temp") for name in names_below(upstream / kind)
            },
            "folders": {one for name in folders_in(made) for one in folders_in(made / name)},
        }

    def rows(self) -> set[str]:
        with closing(sqlite3.connect(self.folder / "gateway.db")) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            count = "SELECT COUNT(*) FROM {}"
            return {
                name
                for name in names
                if name not in OTHERS
                and not name.startswith("sqlite_")
                and connection.execute(count.format(name)).fetchone()[0]
            }

    async def empty(self) -> None:
        def look() -> bool:
            return not any(self.left().values())

        try:
            await wait_until(look, what="nothing to be left", patience_seconds=20)
        except AssertionError:
            assert self.left() == {place: set() for place in self.left()}


@asynccontextmanager
async def house(folder: Path, in_storage: Callable[[Path], set[str]] = in_blobs, **settings: object):
    values = {"data_dir": folder, "log_level": "warning", "embedded_workers": 1, "admin_token": "admin-" * 8}
    async with open_gateway(from_mapping({**values, **settings})) as gateway:
        await wait_until(lambda: gateway.service.health().is_ready, what="a pool that is ready")
        transport = httpx.ASGITransport(gateway.app, client=("127.0.0.1", 1))
        headers = {"Authorization": f"Bearer {gateway.admin_token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            yield House(client, folder, in_storage)


@pytest.fixture
def quick(monkeypatch):
    """A clock that jumps, and housekeeping that does not wait for its turn."""
    monkeypatch.setattr(JumpingClock, "passed_seconds", 0.0)
    monkeypatch.setattr(main, "SystemClock", JumpingClock)
    monkeypatch.setattr(maintenance, "SWEEP_EVERY", 1)
    monkeypatch.setattr(maintenance, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(tidying, "LOOK_SECONDS", 0.1)


@pytest.fixture
async def gateway(tmp_path, quick):
    async with house(tmp_path / "data") as made:
        yield made


async def has_succeeded(client: httpx.AsyncClient, job_id: str) -> bool:
    job = (await client.get(f"/api/v2/jobs/{job_id}")).json()
    assert job["status"] not in {"failed", "canceled", "expired"}, job
    return job["status"] == "succeeded"


async def a_video_and_a_workflow(house: House, material) -> list[str]:
    """Two jobs that succeeded, of a template and of a client's own graph, and all that they leave."""
    video = await submit(house.client, {}, video=material.clip, image=material.face())
    assert (await ended(house.client, video))["status"] == "SUCCESS"
    workflow = await a_workflow(house, material)
    left = house.left()
    assert {name.split("/")[0] for name in left["upstream"]} == {"input", "output", "temp"}
    assert len(left["folders"]) == 2
    assert left["storage"]
    assert "jobs" in left["rows"]
    return [video, workflow]


async def a_workflow(house: House, material) -> str:
    files = {"file": ("own.png", material.still.read_bytes(), "image/png")}
    said = {"content_type": "image/png", "file_path": "own.png"}
    asset = await house.client.post("/api/v2/assets", data=said, files=files)
    assert asset.status_code in {HTTPStatus.OK, HTTPStatus.CREATED}, asset.text
    load = {"image": {"__type": "core/ASSET", "info": {"id": asset.json()["id"]}}}
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": load},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "own"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    made = await house.client.post("/api/v2/jobs", json={"workflow": workflow})
    assert made.status_code == HTTPStatus.CREATED, made.text
    await wait_until(partial(has_succeeded, house.client, made.json()["id"]), what="the end of the workflow")
    return made.json()["id"]


async def test_after_retention_nothing_is_left_anywhere(gateway, material, monkeypatch):
    await a_video_and_a_workflow(gateway, material)
    monkeypatch.setattr(JumpingClock, "passed_seconds", 40 * DAY)
    monkeypatch.setattr(tidying, "TIDY_SECONDS", 0.1)
    await gateway.empty()


@pytest.mark.long
async def test_nor_is_it_in_object_storage(tmp_path, quick, material, monkeypatch):
    know_us(monkeypatch)
    (tmp_path / "server").mkdir()
    with rclone(tmp_path / "server") as server:

        def in_bucket(folder: Path) -> set[str]:
            # The name of the data directory stays with the place.
            return {name for name in names_below(tmp_path / "server" / "buckets") if "owner" not in name} | in_blobs(
                folder
            )

        async with house(tmp_path / "data", in_bucket, storage_url=server.url("kept")) as made:
            await a_video_and_a_workflow(made, material)
            assert names_below(tmp_path / "server" / "buckets")
            monkeypatch.setattr(JumpingClock, "passed_seconds", 40 * DAY)
            monkeypatch.setattr(tidying, "TIDY_SECONDS", 0.1)
            await made.empty()


@pytest.mark.long
async def test_what_was_made_leaves_the_upstream_with_the_next_pass_and_can_still_be_fetched(
    gateway, material, monkeypatch
):
    video, _ = await a_video_and_a_workflow(gateway, material)
    monkeypatch.setattr(tidying, "TIDY_SECONDS", 0.1)
    await wait_until(lambda: not gateway.left()["upstream"], what="the upstream to be clean")
    answer = await gateway.client.get((await ended(gateway.client, video))["result"])
    assert answer.status_code == HTTPStatus.OK
    assert answer.content[4:8] == b"ftyp"
    again = await submit(gateway.client, {}, video=material.clip, image=material.face())
    assert (await ended(gateway.client, again))["status"] == "SUCCESS", "what was deleted there is sent again"
    await a_workflow(gateway, material)  # its preview is made anew, though the worker has it in its cache


@pytest.mark.parametrize("how", ["job", pytest.param("owner", marks=pytest.mark.long)])
async def test_after_a_purge_nothing_is_left_anywhere(gateway, material, how):
    jobs = await a_video_and_a_workflow(gateway, material)
    for body in [{"job": job} for job in jobs] if how == "job" else [{"owner": "local"}]:
        answer = await gateway.client.post("/-/purge", json=body)
        assert answer.status_code == HTTPStatus.OK, answer.text
    if how == "job":  # a file that was uploaded by itself is its owner's, not the job's
        assert (await gateway.client.post("/-/purge", json={"owner": "local"})).status_code == HTTPStatus.OK
    await gateway.empty()

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from PIL import Image

from gateway.api.dialects.comfy_v2.job_bodies import Links
from gateway.api.dialects.comfy_v2.job_events import Told, progress_frames
from gateway.api.dialects.comfy_v2.job_stream import PAUSE_SECONDS, PLACE_SECONDS, Teller, stream
from gateway.api.following import HEARTBEAT_SECONDS, Frame, Signal
from gateway.api.jpegs import JpegPreviews
from gateway.events import EventKind, PreviewImage
from gateway.job import Job, JobResult
from gateway.settings import from_mapping
from tests.fakes.clock import FrozenClock
from tests.fakes.fake_service import IMAGE_FACTS, NOW, FakeService

LINKS = Links("http://h", lambda _job, result: (f"http://h/{result.asset_id}", NOW), 60.0)


@pytest.fixture
def service() -> FakeService:
    made = FakeService(from_mapping({}))
    made.clock = FrozenClock(NOW)
    return made


def watched(service: FakeService, job: Job, after: int = 0, **changes: Any) -> aclosing[AsyncGenerator[Any]]:
    teller = Teller(service, partial(progress_frames, prefix=""), JpegPreviews(), **changes)
    return aclosing(stream(teller, job, after, Told(LINKS)))


def picture(color: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(out, "PNG")
    return out.getvalue()


def keep(service: FakeService, job: Job, number: int) -> None:
    """An output is there."""
    made = JobResult(f"asset-{number}", "f" * 64, 5, IMAGE_FACTS, "link", node_id="9", name=f"{number}.png")
    now = service.stored[job.id]
    service.stored[job.id] = replace(now, results=(*now.results, made))
    service.tell(job.id, EventKind.OUTPUT, asset_id=made.asset_id)


def short(item: Frame | Signal) -> Any:
    if isinstance(item, Signal):
        return item
    return (item.name, item.data.get("status") or item.data.get("id") or item.data.get("value"), item.number)


async def rest(items: AsyncGenerator[Any]) -> list[Any]:
    return [short(item) async for item in items]


async def test_the_status_comes_first_then_outputs_progress_and_preview(service: FakeService):
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    keep(service, job, 1)
    service.show(job.id, 0.25)
    service.bus.show(PreviewImage(job.id, "image/png", picture(), "5"))

    async with watched(service, job) as items:
        told = [await anext(items) for _ in range(4)]

    assert [item.name for item in told] == ["status", "output", "progress", "preview"]
    assert told[0].data == {"status": "running", "queue_position": None}
    assert told[3].data["content_type"] == "image/jpeg"


async def test_a_job_that_has_ended_is_told_whole_and_the_stream_ends(service: FakeService):
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    keep(service, job, 1)
    service.tell(job.id, EventKind.SUCCEEDED, results=[], engine="comfyui")

    async with watched(service, job) as items:
        assert await rest(items) == [("output", "asset-1", 3), ("status", "succeeded", 4)]


async def test_what_happens_meanwhile_follows_until_the_end(service: FakeService):
    job = service.put()
    async with watched(service, job) as items:
        assert short(await anext(items)) == ("status", "queued", None)
        service.tell(job.id, EventKind.DISPATCHED, upstream="gpu-1")
        assert short(await anext(items)) == ("status", "running", 2)
        keep(service, job, 1)
        service.tell(job.id, EventKind.SUCCEEDED, results=[], engine="comfyui")
        assert await rest(items) == [("output", "asset-1", 3), ("status", "succeeded", 4)]


async def test_whoever_comes_back_is_spared_the_outputs_that_it_has(service: FakeService):
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    keep(service, job, 1)
    keep(service, job, 2)

    async with watched(service, job, after=3) as items:
        assert short(await anext(items)) == ("status", "running", None)
        assert short(await anext(items)) == ("output", "asset-2", 4)
        service.tell(job.id, EventKind.FAILED, code="node_failed", message="It failed.")
        assert ("status", "failed", 5) in (told := await rest(items))
        assert "asset-1" not in str(told)


async def test_progress_comes_twice_a_second_at_most_the_newest_alone(service: FakeService):
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    service.show(job.id, 0.1)
    async with watched(service, job) as items:
        assert [short(await anext(items)) for _ in range(2)][1] == ("progress", 0.1, None)
        for percent in range(20, 60):
            service.show(job.id, percent / 100)
        keep(service, job, 1)
        # The output is there at once, and no progress before its time.
        assert short(await anext(items))[0] == "output"
        service.clock.advance(PAUSE_SECONDS)
        assert short(await anext(items)) == ("progress", 0.59, None)


async def test_previews_come_twice_a_second_at_most_the_newest_alone(service: FakeService):
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    async with watched(service, job) as items:
        await anext(items)
        for color in ("red", "green", "blue"):
            service.bus.show(PreviewImage(job.id, "image/png", picture(color), color))
        seen = [item async for item in _until_preview(items)]
        assert seen[-1].data["node_id"] == "blue"
        service.bus.show(PreviewImage(job.id, "image/png", picture("white"), "white"))
        keep(service, job, 1)
        assert short(await anext(items))[0] == "output"
        service.clock.advance(PAUSE_SECONDS)
        assert (await anext(items)).data["node_id"] == "white"


async def _until_preview(items: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    while True:
        item = await anext(items)
        yield item
        if item.name == "preview":
            return


async def test_what_cannot_be_shown_is_left_out(service: FakeService):
    job = service.put()
    service.bus.show(PreviewImage(job.id, "image/png", b"no picture"))
    async with watched(service, job) as items:
        assert short(await anext(items)) == ("status", "queued", None)
        service.tell(job.id, EventKind.CANCELED)
        assert await rest(items) == [("status", "canceled", 2)]


async def test_the_place_in_the_queue_is_looked_at_now_and_then(service: FakeService):
    job = service.put()
    async with watched(service, job) as items:
        assert (await anext(items)).data == {"status": "queued", "queue_position": 3}

        async def first(_: str) -> int:
            return 0

        service.queue_position = first
        service.clock.advance(PLACE_SECONDS)
        service.bus.announce(job.id, 1)
        assert (await anext(items)).data == {"status": "queued", "queue_position": 1}


async def test_silence_is_broken_and_a_lost_announcement_found(service: FakeService):
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    async with watched(service, job, heartbeat_seconds=0.0) as items:
        assert short(await anext(items))[0] == "status"
        seen = [await anext(items) for _ in range(2)]
        assert Signal.HEARTBEAT in seen
        # Behind the bus's back: nobody is woken.
        service.told[job.id].append(replace(service.told[job.id][0], number=3, kind=EventKind.CANCELED))
        assert ("status", "running", 3) in await rest(items)
    assert HEARTBEAT_SECONDS == 15.0


async def test_the_stop_of_the_gateway_ends_it(service: FakeService):
    job = service.put()
    async with watched(service, job) as items:
        await anext(items)
        service.stop()
        assert await rest(items) == [Signal.STOPPING]


async def test_a_job_that_is_purged_meanwhile_ends_it(service: FakeService):
    job = service.put()
    async with watched(service, job) as items:
        await anext(items)
        service.tell(job.id, EventKind.CANCELED)
        del service.stored[job.id]
        assert await rest(items) == []


async def test_nobody_is_left_listening(service: FakeService):
    job = service.put()
    async with watched(service, job) as items:
        await anext(items)
        assert service.bus._channels
    assert not service.bus._channels

import asyncio
from contextlib import aclosing
from dataclasses import replace

from gateway.api import following
from gateway.api.dialects.faceswap import translation
from gateway.api.following import PREVIEW_SECONDS, Signal, ToldOnce, follow, frames_of
from gateway.events import Event, EventKind, Progress
from gateway.settings import from_mapping
from tests.fakes.clock import FrozenClock
from tests.fakes.fake_service import FakeService


def make() -> FakeService:
    return FakeService(from_mapping({}))


async def test_replay_begins_after_the_cursor_and_ends_with_the_terminal_event():
    service = make()
    job = service.put()
    for kind in (EventKind.DISPATCHED, EventKind.STARTED, EventKind.FINISHING):
        service.tell(job.id, kind)
    service.succeed(job.id)

    async with aclosing(follow(service, service.stored[job.id], 2)) as items:
        seen = [item async for item in items]

    assert [item.number for item in seen if isinstance(item, Event)] == [3, 4, 5]
    assert seen[-1].kind is EventKind.SUCCEEDED


async def test_an_event_told_between_reading_and_waiting_is_not_missed():
    service = make()
    job = service.put()
    async with aclosing(follow(service, job, 0)) as items:
        assert (await anext(items)).kind is EventKind.QUEUED
        service.tell(job.id, EventKind.STARTED)
        assert (await anext(items)).kind is EventKind.STARTED


async def test_a_slow_viewer_gets_the_newest_snapshot_only():
    service = make()
    job = service.put()
    async with aclosing(follow(service, job, 1)) as items:
        service.show(job.id, 0.1)
        assert (await anext(items)).fraction == 0.1
        for percent in range(20, 100):
            service.show(job.id, percent / 100)
        assert (await anext(items)).fraction == 0.99


async def test_a_lost_announcement_costs_one_heartbeat():
    service = make()
    job = service.put()
    async with aclosing(follow(service, job, 1, heartbeat_seconds=0.01)) as items:
        assert await anext(items) is Signal.HEARTBEAT
        # Behind the bus's back: nobody is woken.
        service.told[job.id].append(Event(job.id, 2, EventKind.FAILED, 0.0, {}))
        seen = [item async for item in items]
    assert seen[-1].kind is EventKind.FAILED


async def test_stopping_ends_the_stream_at_once():
    service = make()
    job = service.put()
    async with aclosing(follow(service, job, 1, heartbeat_seconds=3600)) as items:
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        service.stop()
        assert await asyncio.wait_for(waiting, 1) is Signal.STOPPING
        assert [item async for item in items] == []


async def test_after_a_restart_the_bar_stands_where_it_was_shown_last():
    service = make()
    job = service.put()
    service.tell(job.id, EventKind.STARTED)
    job = replace(service.stored[job.id], fraction=0.4, step="Swapping")
    async with aclosing(follow(service, job, 2)) as items:
        assert await anext(items) == Progress(job.id, 0.4, "Swapping")


async def test_leaving_lets_go_of_the_bus():
    service = make()
    job = service.put()
    async with aclosing(follow(service, job, 0)) as items:
        await anext(items)
        assert service.bus._channels
    assert not service.bus._channels


async def test_a_snapshot_is_put_into_words_and_encoded_once_for_all_who_watch():
    service = make()
    job = service.put()
    told, encoded = [], []

    def translate(item, job, previous):
        told.append(item)
        return translation.frames(item, job, previous)

    def spelled(frame):
        encoded.append(frame)
        return frame.name.encode()

    once = ToldOnce(translate)
    streams = [frames_of(service, job, 1, once) for _ in range(50)]
    for fraction, node in ((0.1, "5"), (0.2, "5"), (0.3, "6")):
        service.show(job.id, fraction, node=node, node_class="Swap")
        for stream in streams:
            frame = await anext(stream)
            if frame.name == "executing":
                assert frame.encoded(spelled) == b"executing"
                frame = await anext(stream)
            assert frame.encoded(spelled) == b"progress"
    for stream in streams:
        await stream.aclose()
    assert len(told) == 3
    assert [frame.name for frame in encoded] == ["executing", "progress", "progress", "executing", "progress"]


async def test_one_who_comes_later_is_told_the_node_that_others_know():
    service = make()
    job = service.put()
    once = ToldOnce(translation.frames)
    async with (
        aclosing(frames_of(service, job, 1, once)) as first,
        aclosing(frames_of(service, job, 1, once)) as second,
    ):
        for fraction in (0.1, 0.2):
            service.show(job.id, fraction, node="5", node_class="Swap")
            seen = [(await anext(first)).name]
        assert [(await anext(second)).name, (await anext(second)).name] == ["executing", "progress"]
        assert seen == ["progress"]


def test_words_are_kept_for_so_many_jobs_only(monkeypatch):
    monkeypatch.setattr(ToldOnce, "MAX_JOBS", 3)
    job = make().put()
    once = ToldOnce(translation.frames)
    for number in range(9):
        once(Progress(f"job-{number}", 0.5, "Working"), job, None)
    assert len(once._newest) == 3


async def test_previews_come_to_those_who_ask_no_faster_than_two_a_second_and_the_newest():
    service = make()
    service.clock = FrozenClock()
    job = service.put()
    service.show_preview(job.id, b"before anybody looked")
    async with aclosing(follow(service, job, 1, previews=True)) as items:
        assert (await anext(items)).data == b"before anybody looked"
        for data in (b"soon", b"sooner", b"soonest"):
            service.show_preview(job.id, data)
        service.show(job.id, 0.5)
        assert (await anext(items)).fraction == 0.5
        service.clock.advance(PREVIEW_SECONDS)
        assert (await anext(items)).data == b"soonest"


async def test_a_preview_held_back_comes_by_itself_and_waiting_for_it_is_no_heartbeat(monkeypatch):
    monkeypatch.setattr(following, "PREVIEW_SECONDS", 0.01)
    service = make()
    service.clock = FrozenClock()
    job = service.put()
    async with aclosing(follow(service, job, 1, previews=True)) as items:
        service.show_preview(job.id, b"one")
        assert (await anext(items)).data == b"one"
        service.show_preview(job.id, b"two")
        held_back = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        service.clock.advance(1)
        assert (await asyncio.wait_for(held_back, 5)).data == b"two"


async def test_previews_keep_no_heartbeat_from_one_who_did_not_ask():
    service = make()
    job = service.put()
    async with aclosing(follow(service, job, 1, heartbeat_seconds=0.05)) as items:
        beat = asyncio.ensure_future(anext(items))
        for _ in range(10):
            service.show_preview(job.id, b"x")
            await asyncio.sleep(0)
        assert await asyncio.wait_for(beat, 5) is Signal.HEARTBEAT

from __future__ import annotations

import asyncio

import uvloop

from gateway.engine.bus import LocalBus
from gateway.events import PreviewImage, Progress


async def test_listener_hears_of_a_durable_event_and_where_it_stands() -> None:
    bus = LocalBus()
    ear = bus.subscribe("j")
    bus.announce("j", 3)
    assert await ear.wait(1.0)
    assert ear.last_number == 3
    assert not await ear.wait(0.0)


async def test_progress_has_one_slot_and_each_listener_takes_the_newest_once() -> None:
    bus = LocalBus()
    fast, slow = bus.subscribe("j"), bus.subscribe("j")
    bus.show(Progress("j", 0.1, "one"))
    first = fast.take_progress()
    bus.show(Progress("j", 0.2, "two"))
    assert first is not None
    assert first.fraction == 0.1
    for ear in (fast, slow):
        newest = ear.take_progress()
        assert newest is not None
        assert newest.fraction == 0.2
        assert ear.take_progress() is None


async def test_late_listener_gets_the_latest_snapshot_at_once() -> None:
    bus = LocalBus()
    bus.show(Progress("j", 0.4, "at it"))
    ear = bus.subscribe("j")
    assert await ear.wait(0.0)
    assert ear.take_progress() is not None


async def test_previews_do_not_push_progress_out() -> None:
    bus = LocalBus()
    ear = bus.subscribe("j")
    bus.show(Progress("j", 0.4, "at it"))
    bus.show(PreviewImage("j", "image/jpeg", b"x"))
    assert ear.take_progress() is not None
    assert ear.take_preview() is not None
    assert ear.take_preview() is None


async def test_ended_job_leaves_nothing_behind_once_its_listeners_left() -> None:
    bus = LocalBus()
    ear = bus.subscribe("j")
    bus.show(Progress("j", 0.9, "nearly"))
    bus.forget("j")
    assert bus.latest("j") is None
    ear.close()
    unheard = bus.subscribe("k")
    unheard.close()
    bus.announce("nobody", 1)
    assert not bus._channels


async def test_wake_all_wakes_every_listener() -> None:
    bus = LocalBus()
    ears = [bus.subscribe(job) for job in ("a", "b")]
    bus.wake_all()
    assert [await ear.wait(0.0) for ear in ears] == [True, True]


async def test_many_waits_of_a_listener_share_one_timer_and_each_lasts_its_own_time(monkeypatch) -> None:
    loop = asyncio.get_running_loop()
    timers = []
    plain = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda when, *rest: timers.append(when) or plain(when, *rest))
    ear = LocalBus().subscribe("j")
    for _ in range(20):
        waiting = asyncio.create_task(ear.wait(60.0))
        await asyncio.sleep(0)
        ear.wake()
        assert await waiting
    assert len(timers) == 1
    assert not await ear.wait(0.001)
    ear.close()


async def test_a_wait_that_was_canceled_leaves_the_next_one_whole() -> None:
    ear = LocalBus().subscribe("j")
    waiting = asyncio.create_task(ear.wait(60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    ear.wake()
    assert await ear.wait(60.0)
    ear.close()


async def test_a_preview_wakes_those_alone_who_asked_and_no_watcher() -> None:
    bus = LocalBus()
    told: list[str] = []

    def watcher(job_id: str | None, *, is_event: bool) -> None:
        told.append(f"{job_id} {is_event}")

    bus.watch(watcher)
    plain, looking = bus.subscribe("j"), bus.subscribe("j", previews=True)
    bus.show(PreviewImage("j", "image/jpeg", b"x"))
    assert not await plain.wait(0.0)
    assert await looking.wait(0.0)
    assert told == []


async def test_who_comes_late_or_again_finds_the_newest_preview_until_the_end() -> None:
    bus = LocalBus()
    for data in (b"one", b"two"):
        bus.show(PreviewImage("j", "image/jpeg", data))
    for _ in range(2):
        ear = bus.subscribe("j", previews=True)
        assert await ear.wait(0.0)
        newest = ear.take_preview()
        assert newest is not None
        assert newest.data == b"two"
        ear.close()
    bus.forget("j")
    late = bus.subscribe("j", previews=True)
    assert late.take_preview() is None
    late.close()
    assert not bus._channels


def test_short_waits_follow_one_another_on_the_loop_that_serves() -> None:
    """For a moment that has come, or nearly, uvloop makes another kind of timer."""

    async def wait_often() -> int:
        subscription = LocalBus().subscribe("job")
        loop = asyncio.get_running_loop()
        for number in range(200):
            loop.call_soon(subscription.wake)
            await subscription.wait(number / 400_000)
        subscription.close()
        return number

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(wait_often()) == 199

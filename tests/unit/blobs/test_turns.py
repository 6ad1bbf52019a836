import asyncio

from gateway.blobs.turns import Turns


async def test_who_wants_the_same_waits_and_others_do_not():
    turns, begun = Turns(), []

    async def work(name, goes_on):
        async with turns.alone(name):
            begun.append(name)
            await goes_on.wait()

    first, second = asyncio.Event(), asyncio.Event()
    working = [
        asyncio.create_task(work(name, goes_on)) for name, goes_on in (("a", first), ("a", second), ("b", first))
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    assert (begun, turns.wanted("a"), turns.wanted("b")) == (["a", "b"], 2, 1)
    first.set()
    second.set()
    await asyncio.gather(*working)
    assert begun == ["a", "b", "a"]
    assert "a" not in turns
    assert turns.wanted("a") == 0


async def test_who_is_canceled_while_waiting_is_not_waited_for():
    turns = Turns()

    async def wait():
        async with turns.alone("a"):
            raise AssertionError

    async with turns.alone("a"):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert turns.wanted("a") == 2
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert turns.wanted("a") == 1
    assert "a" not in turns

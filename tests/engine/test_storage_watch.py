import asyncio
from contextlib import suppress

from gateway.engine.storage_watch import PROBE_SECONDS, StorageWatch
from tests.fakes.blobs import MemoryBlobs
from tests.fakes.clock import FrozenClock


async def test_storage_is_asked_at_once_and_then_now_and_again():
    clock = FrozenClock()
    blobs = MemoryBlobs(clock)
    watching = asyncio.create_task(StorageWatch(blobs, clock).run(), name="watch")
    for times in (1, 2, 3):
        for _ in range(5):
            await asyncio.sleep(0)
        assert clock.sleepers == 1
        assert blobs.probed == times
        clock.advance(PROBE_SECONDS)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching

"""Uploads that outlive whoever asked for them."""

from __future__ import annotations

import asyncio
import gc

from gateway.interfaces import Blob
from gateway.upstreams.staging import Staging

BLOB = Blob("ab" * 32, 5)


class ClientThatBreaks:
    """Fails an upload when it is told to."""

    def __init__(self):
        self.told = asyncio.Event()

    async def upload(self, path, content, headers):
        await content.aclose()
        await self.told.wait()
        raise ConnectionError("broke off")


async def test_an_upload_that_fails_after_all_have_left_is_no_forgotten_error(tmp_path):
    client = ClientThatBreaks()
    staging = Staging(client)
    forgotten = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: forgotten.append(context))
    waiter = asyncio.create_task(staging.stage(BLOB, tmp_path / "file", ".png"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    client.told.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert staging._uploads == {}
    del waiter  # its traceback holds the upload
    gc.collect()
    assert forgotten == []

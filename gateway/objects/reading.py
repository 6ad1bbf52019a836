"""The body of an answer, chunk by chunk, read in threads; its connection goes back, or goes, however reading ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from typing import Final

from botocore.exceptions import BotoCoreError
from botocore.response import StreamingBody
from urllib3.exceptions import HTTPError

from gateway.errors import StorageUnreachableError
from gateway.objects.failures import SENTENCE, told

#: Bytes read in one hop, and so what one slow reader holds in memory.
READ_CHUNK_BYTES: Final = 512 * 1024


async def chunks(body: StreamingBody, threads: Executor) -> AsyncGenerator[bytes]:
    """All of it. Raises StorageUnreachableError when it ends before its announced end."""
    reading: asyncio.Future[bytes] | None = None
    try:
        while True:
            reading = asyncio.get_running_loop().run_in_executor(threads, body.read, READ_CHUNK_BYTES)
            chunk = await asyncio.shield(reading)
            if not chunk:
                return
            yield chunk
    except BotoCoreError as error:
        raise StorageUnreachableError(SENTENCE, reason=told(error)) from error
    except HTTPError as error:  # TLS that was garbled on the way: botocore lets it pass as it is
        raise StorageUnreachableError(SENTENCE, reason=type(error).__name__) from error
    finally:
        if reading is None or reading.done():
            body.close()
        else:  # who waited for it has gone; a body is not closed under a thread that reads it
            reading.add_done_callback(lambda done: _close_after(done, body))


def _close_after(done: asyncio.Future[bytes], body: StreamingBody) -> None:
    if not done.cancelled():
        done.exception()  # nobody else asks for it
    body.close()

"""From a checked request to a stored job: fetch what was given as URLs, then submit. HTTP and WebSocket share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio
import structlog

from gateway.api.auth import Caller
from gateway.api.dialects.faceswap.translation import SwapRequest, error_frame, submission
from gateway.api.facade import Service
from gateway.api.following import Frame, Signal
from gateway.api.problems import InternalServerError
from gateway.errors import GatewayError
from gateway.job import Job

#: Comments while inputs are transferred: nothing else shows that the stream is alive.
TRANSFER_COMMENT_SECONDS = 5.0

log = structlog.get_logger(__name__)


def check_urls(service: Service, wanted: SwapRequest) -> None:
    """The verdicts that need no network. Raises InvalidInputError."""
    for source, url in wanted.urls.values():
        service.check_url(url, field=source.name)


async def obtain(service: Service, wanted: SwapRequest, caller: Caller) -> Job:
    """The stored job. Whatever goes wrong, the inputs' bytes are taken back.

    Raises:
        GatewayError: an input could not be fetched or is not what it should be, the queue is full, …
    """
    inputs = dict(wanted.files)
    try:
        for role, (source, url) in wanted.urls.items():
            inputs[role] = await service.fetch_url(url, field=source.name, kinds=source.kinds)
    except BaseException:  # also when the client left: nobody else knows of these bytes
        await asyncio.shield(service.discard([given.blob for given in inputs.values()]))
        raise
    return await service.submit(submission(wanted, inputs, caller))


async def obtain_in_stream(
    service: Service, wanted: SwapRequest, caller: Caller
) -> AsyncGenerator[Job | Frame | Signal]:
    """``obtain`` inside a stream that has begun: comments while it lasts; the last item is the job, or why there is none."""
    transfer = asyncio.create_task(obtain(service, wanted, caller), name="faceswap-transfer")
    try:
        yield Signal.HEARTBEAT
        while not transfer.done():
            await asyncio.wait({transfer}, timeout=TRANSFER_COMMENT_SECONDS)
            if not transfer.done():
                yield Signal.HEARTBEAT
            if service.stopping.is_set():
                yield Signal.STOPPING
                return
        yield outcome(transfer)
    finally:
        transfer.cancel()
        # The response that iterates this lives in a cancel scope of anyio, which would cut this wait short again.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(transfer, return_exceptions=True)


def outcome(transfer: asyncio.Task[Job]) -> Job | Frame:
    """The job of a finished transfer, or the frame that says why there is none."""
    try:
        return transfer.result()
    except GatewayError as error:
        return error_frame(error)
    except Exception:
        # The answer's status is sent already: without this the stream would just break off.
        log.exception("submission_failed")
        return error_frame(InternalServerError())

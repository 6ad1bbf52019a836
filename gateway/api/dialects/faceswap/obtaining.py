"""From a checked request to a stored job: fetch what was given as URLs, then submit. HTTP and WebSocket share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import replace

import anyio
import structlog
from starlette.datastructures import Headers

from gateway.api.dialects.faceswap.translation import SwapRequest, error_frame, submission
from gateway.api.following import Frame, Signal
from gateway.api.problems import InternalServerError
from gateway.api.url_inputs import UrlInput, check_urls, with_urls
from gateway.api.window import Call
from gateway.errors import ConcurrencyLimitedError, GatewayError
from gateway.job import Job
from gateway.outbox import FIELD as WEBHOOK

#: Comments while inputs are transferred: nothing else shows that the stream is alive.
TRANSFER_COMMENT_SECONDS = 5.0

log = structlog.get_logger(__name__)


async def judged(call: Call, wanted: SwapRequest, headers: Headers) -> SwapRequest:
    """The request after the verdicts that need no connection, with what its headers say.

    Raises:
        InvalidInputError: of its URLs, where its file is to be put, or its consent.
        ConsentRequiredError: it had to be said that the people in the pictures agreed.
    """
    check_urls(call.service, _url_inputs(wanted).values())
    if wanted.webhook_url is not None:
        call.service.check_webhook(wanted.webhook_url, field=WEBHOOK)
    wanted = replace(wanted, consent=call.consent(wanted.consent, headers))
    if wanted.deliver_to is None:
        return wanted
    # Last of all: a URL has its name looked up.
    return replace(wanted, wish=await call.service.deliveries.wish(wanted.deliver_to, call.known.owner))


async def obtain(call: Call, wanted: SwapRequest) -> Job:
    """The stored job. Whatever goes wrong, the inputs' bytes are taken back.

    Raises:
        GatewayError: an input could not be fetched or is not what it should be, the queue is full, …
    """
    service = call.service
    with ExitStack() as place:
        try:
            place.enter_context(call.creating())
        except ConcurrencyLimitedError:
            await service.discard([given.blob for given in wanted.files.values()])
            raise
        inputs = await with_urls(service, wanted.files, _url_inputs(wanted))
        return await service.submit(submission(wanted, inputs, call.known))


def _url_inputs(wanted: SwapRequest) -> dict[str, UrlInput]:
    return {role: UrlInput(url, source.name, source.kinds) for role, (source, url) in wanted.urls.items()}


async def obtain_in_stream(call: Call, wanted: SwapRequest) -> AsyncGenerator[Job | Frame | Signal]:
    """``obtain`` inside a stream that has begun: comments while it lasts; the last item is the job, or why there is none."""
    transfer = asyncio.create_task(obtain(call, wanted), name="faceswap-transfer")
    try:
        yield Signal.HEARTBEAT
        while not transfer.done():
            await asyncio.wait({transfer}, timeout=TRANSFER_COMMENT_SECONDS)
            if not transfer.done():
                yield Signal.HEARTBEAT
            if call.service.stopping.is_set():
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

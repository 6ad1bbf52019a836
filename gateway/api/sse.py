"""Server-Sent Events: frames on the wire, and the response that carries them.

Built on sse-starlette's ``EventSourceResponse`` (it watches for the client's leaving and bounds each send), with three
things of ours: blocks end in LF alone; heartbeats come from the stream itself, so none is sent while events flow; and
only ``service.stopping`` ends streams. The library would also patch uvicorn and keep a process-wide flag that nothing
clears; ``disable_library_shutdown`` turns that off.

``id:`` stands on durable events only, so a browser's ``Last-Event-ID`` is always a cursor that the store knows. Source:
WHATWG HTML, section 9.2.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import structlog
from sse_starlette.sse import AppStatus, EventSourceResponse, SendTimeoutError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.following import Frame, Signal
from gateway.api.problems import to_json
from gateway.events import cursor_from
from gateway.job import Job

#: A client that takes nothing for this long is gone; below the 20 s that a stop waits for streams.
SEND_TIMEOUT_SECONDS: Final = 15.0
RETRY_BLOCK: Final = b"retry: 3000\n\n"
_HEADERS: Final = {"Cache-Control": "no-store, no-transform"}

log = structlog.get_logger(__name__)


def encode(item: Frame | Signal) -> bytes:
    """One block on the wire; signals are comments, which clients skip."""
    if isinstance(item, Signal):
        return b": shutdown\n\n" if item is Signal.STOPPING else b": keep-alive\n\n"
    return item.encoded(_block)


def _block(item: Frame) -> bytes:
    number = b"" if item.number is None else b"id: %d\n" % item.number
    # JSON escapes every control character, so the data is one line whatever is in it.
    return number + b"event: " + item.name.encode() + b"\ndata: " + to_json(item.data) + b"\n\n"


class EventStream(EventSourceResponse):
    """An answer that goes on until its blocks end, the client leaves, or it takes nothing for 15 s."""

    def __init__(self, blocks: AsyncGenerator[bytes]) -> None:
        super().__init__(
            blocks,
            headers=_HEADERS,
            media_type="text/event-stream; charset=utf-8",
            ping=0,
            sep="\n",
            send_timeout=SEND_TIMEOUT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream; a client that stopped reading is dropped without a word."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("stream_stalled", timeout_seconds=SEND_TIMEOUT_SECONDS)


def event_stream(items: AsyncGenerator[Frame | Signal]) -> EventStream:
    """A stream of frames, the reconnection time first."""
    return EventStream(_blocks(items))


async def _blocks(items: AsyncGenerator[Frame | Signal]) -> AsyncGenerator[bytes]:
    yield RETRY_BLOCK
    async with aclosing(items):
        async for item in items:
            yield encode(item)


def cursor_of(request: Request, job: Job) -> int | None:
    """After which event the client wants to read; None when it has seen the last one and should not come again (204)."""
    last_event_id = request.headers.get("last-event-id", request.query_params.get("last_event_id"))
    cursor = cursor_from(last_event_id, job.last_event)
    return None if job.is_terminal and cursor == job.last_event else cursor


def nothing_more() -> Response:
    """204: EventSource stops reconnecting."""
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


def disable_library_shutdown() -> None:
    """Leave the ending of streams to ``service.stopping``: the library's own flag is process-wide and never cleared."""
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # the library annotates no return

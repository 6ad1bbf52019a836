"""Server-Sent Events: frames on the wire, and the response that carries them.

Built on sse-starlette's ``EventSourceResponse`` (it watches for the client's leaving and bounds each send), with three
things of ours: blocks end in LF alone; heartbeats come from the stream itself, so none is sent while events flow; and
only ``service.stopping`` ends streams. The library would also patch uvicorn and keep a process-wide flag that nothing
clears; ``disable_library_shutdown`` turns that off.

``id:`` stands on durable events only, so a browser's ``Last-Event-ID`` is always a cursor that the store knows. Source:
WHATWG HTML, section 9.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Final, Self

import structlog
from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.following import Frame, Signal
from gateway.api.problems import to_json_quickly
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
    # JSON escapes every control character, so the data is one line whatever is in it.
    block = b"event: %b\ndata: %b\n\n" % (item.name.encode(), to_json_quickly(item.data))
    return block if item.number is None else b"id: %d\n%b" % (item.number, block)


class EventStream(EventSourceResponse):
    """An answer that goes on until its items end, the client leaves, or it takes nothing for 15 s.

    The library runs each stream as a group of four tasks and puts a scope with a timer around each send. Here it is two
    tasks and one timer a stream, which takes a third less memory and less CPU (docs/performance.md has the figures).
    """

    def __init__(self, items: AsyncGenerator[Frame | Signal]) -> None:
        self._items = items
        super().__init__(
            iter(()),  # the library answers HEAD alone, which gets nothing
            headers=_HEADERS,
            media_type="text/event-stream; charset=utf-8",
            ping=0,
            sep="\n",
            send_timeout=SEND_TIMEOUT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream; a client that left, or stopped reading, ends it without a word."""
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        time = asyncio.get_running_loop().time
        async with _Client(receive) as client, aclosing(self._items) as items:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            client.sending_since = time()
            await send({"type": "http.response.body", "body": RETRY_BLOCK, "more_body": True})
            client.sending_since = None
            async for item in items:
                client.sending_since = time()
                await send({"type": "http.response.body", "body": encode(item), "more_body": True})
                client.sending_since = None
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Client:
    """Ends the task that serves a client when that one leaves, or takes nothing for too long.

    It cancels the task and takes the cancellation back on the way out, as ``asyncio.timeout`` does; one timer looks every
    now and then how long the send under way has taken, so that a send costs no timer of its own.
    """

    __slots__ = ("_is_over", "_loop", "_receive", "_task", "_timer", "_watcher", "_why", "sending_since")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        #: When the block that is on its way to the client was given to the server, by the loop's time.
        self.sending_since: float | None = None
        self._is_over = False
        self._why = ""

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream is served by a task")
        self._task = task
        self._watcher = self._loop.create_task(self._watch(), name="client of a stream")
        self._timer = self._loop.call_later(SEND_TIMEOUT_SECONDS, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._is_over = True
        self._timer.cancel()
        self._watcher.cancel()
        if not self._why:
            return False
        if not isinstance(error, asyncio.CancelledError):
            # The stream came to its end in the same turn: the cancellation is still on its way.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        log.debug("stream_ended_early", why=self._why)
        return self._task.uncancel() == 0 and (error is None or isinstance(error, asyncio.CancelledError))

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end("the client left")

    def _look(self) -> None:
        since = self.sending_since
        stuck = 0.0 if since is None else self._loop.time() - since
        if stuck >= SEND_TIMEOUT_SECONDS:
            log.info("stream_stalled", timeout_seconds=SEND_TIMEOUT_SECONDS)
            self._end("the client takes nothing")
        else:
            self._timer = self._loop.call_later(SEND_TIMEOUT_SECONDS - stuck, self._look)

    def _end(self, why: str) -> None:
        if not (self._is_over or self._why):
            self._why = why
            self._task.cancel()


def event_stream(items: AsyncGenerator[Frame | Signal]) -> EventStream:
    """A stream of frames, the reconnection time first."""
    return EventStream(items)


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

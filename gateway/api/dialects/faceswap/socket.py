"""``WS /face-swap-ws``: one conversation about one job.

::

    client                                    gateway
    {video_url, image_url, …}            ->   queued, executing, progress …, completed or error, close 1000
    {"prompt_id": "…"}                   ->   the same, of a job that exists
    {"cancel": true}                     ->   (asks the engine; the end comes as error, code canceled)

With ``?previews=1`` pictures of the work come between, as binary messages.

A client that leaves cancels nothing. ``queued``, ``completed`` and ``error`` carry their fields flat as well, beside
``type``: clients of the published API look for them there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from starlette.websockets import WebSocket

from gateway.api.dialects.faceswap import translation
from gateway.api.dialects.faceswap.handlers import job_frames
from gateway.api.dialects.faceswap.obtaining import judged, obtain_in_stream
from gateway.api.dialects.faceswap.translation import SwapRequest
from gateway.api.following import Frame, Signal
from gateway.api.previews import as_binary, wants_previews
from gateway.api.problems import to_json_quickly
from gateway.api.websocket import FIRST_MESSAGE_SECONDS, Close, HangUp, Peer
from gateway.api.window import Call
from gateway.consent import FIELD as CONSENT
from gateway.delivering import FIELD as DELIVERY
from gateway.errors import BusyError, ConflictError, GatewayError, InvalidInputError, NotFoundError
from gateway.job import Job
from gateway.outbox import FIELD as WEBHOOK
from gateway.strictjson import JsonValue

_FLAT = frozenset({"queued", "completed", "error"})
_TEXTS = frozenset({"video_url", "image_url", "target_image_url", "output_name", WEBHOOK, DELIVERY, CONSENT})
_PATHS_SENTENCE = (
    "The gateway does not read paths or files here: upload by POST /face-swap with return_prompt_id_only=true, "
    'then attach with {"prompt_id": "…"}.'
)


async def face_swap_socket(websocket: WebSocket, call: Call) -> None:
    """Serve one WebSocket."""
    await websocket.accept()
    peer = Peer(websocket)
    try:
        code: Close | None = await _Conversation(peer, call, websocket).hold()
    except HangUp as end:
        code = end.code
        if end.error is not None:
            code = await _last_words(peer, end.error, code)
    if code is not None:
        await peer.close(code)


def body_of(frame: Frame) -> dict[str, object]:
    """A frame as a message."""
    body: dict[str, object] = {"event": frame.name, "data": frame.data}
    return {**body, "type": frame.name, **frame.data} if frame.name in _FLAT else body


def _message(frame: Frame) -> bytes:
    return to_json_quickly(body_of(frame))


@dataclass(frozen=True, slots=True)
class Attach:
    """A client wants to watch a job that exists."""

    job_id: str


def read_opening(message: Mapping[str, JsonValue]) -> Attach | SwapRequest:
    """What the first message asks for; pure.

    Raises:
        InvalidInputError: neither a job to attach to nor a request by URLs.
    """
    if "prompt_id" in message:
        given = message["prompt_id"]
        return Attach(given if isinstance(given, str) else "")
    for name in message:
        if name.endswith("_path") or name in {"video", "image", "target_image"}:
            raise InvalidInputError(_PATHS_SENTENCE, field=name)
    fields: dict[str, str] = {}
    for name, given in message.items():
        value = "true" if name == CONSENT and given is True else given
        if name not in _TEXTS or value is None:
            continue
        if not isinstance(value, str):
            raise InvalidInputError(f"The field {name!r} must be a text.", field=name)
        fields[name] = value
    return translation.read_request(fields, {})


class _Conversation:
    """One client, at most one job."""

    def __init__(self, peer: Peer, call: Call, websocket: WebSocket) -> None:
        self._peer = peer
        self._call = call
        #: For what its handshake said.
        self._websocket = websocket
        self._shows_previews = False
        #: Known once it is stored or found.
        self._job: Job | None = None

    async def hold(self) -> Close:
        """Talk until the job ends, the gateway stops, or the client does what it should not."""
        try:
            self._shows_previews = wants_previews(self._websocket.query_params)
            opening = read_opening(await self._peer.receive(FIRST_MESSAGE_SECONDS))
            if isinstance(opening, SwapRequest):
                opening = await judged(self._call, opening, self._websocket.headers)
            else:
                self._job = await self._call.job(opening.job_id, "prompt_id")
        except GatewayError as error:
            await self._peer.send(body_of(translation.error_frame(error)))
            return _close_code(error)
        return await self._first_to_end(self._tell(opening), self._listen())

    @staticmethod
    async def _first_to_end(tell: Coroutine[None, None, Close], listen: Coroutine[None, None, Close]) -> Close:
        """Run both sides until one has had enough; when both have, what was told counts."""
        tasks = (
            asyncio.create_task(tell, name="faceswap-socket-tell"),
            asyncio.create_task(listen, name="faceswap-socket-listen"),
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, opening: Attach | SwapRequest) -> Close:
        async with aclosing(self._frames(opening)) as items:
            async for item in items:
                if item is Signal.STOPPING:
                    return Close.RESTART
                if isinstance(item, Frame):
                    await self._send(item)
        return Close.DONE

    async def _send(self, frame: Frame) -> None:
        if frame.binary is not None:
            await self._peer.send_bytes(frame.binary)
        else:
            await self._peer.send_encoded(frame.encoded(_message))

    async def _frames(self, opening: Attach | SwapRequest) -> AsyncGenerator[Frame | Signal]:
        if isinstance(opening, SwapRequest):
            async with aclosing(obtain_in_stream(self._call, opening)) as items:
                async for item in items:
                    if isinstance(item, Job):
                        self._job = item
                    else:
                        yield item
        if self._job is not None:
            show = as_binary if self._shows_previews else None
            async with aclosing(job_frames(self._call, self._job, show)) as told:
                async for frame in told:
                    yield frame

    async def _listen(self) -> Close:
        while True:
            message = await self._peer.receive()
            if message.get("cancel") is not True:
                error = InvalidInputError('Only {"cancel": true} is understood from here on.')
                await self._peer.send(body_of(translation.error_frame(error)))
            elif self._job is None:
                # Still being transferred: leaving ends the transfer, and there is no job that could go on.
                await self._peer.send(body_of(translation.canceled_frame()))
                return Close.DONE
            else:
                await self._cancel(self._job)

    async def _cancel(self, job: Job) -> None:
        try:
            await self._call.service.cancel(job.id, job.owner)
        except (ConflictError, NotFoundError):
            return  # it has ended, and its last event says how


async def _last_words(peer: Peer, error: GatewayError, code: Close | None) -> Close | None:
    try:
        await peer.send(body_of(translation.error_frame(error)))
    except HangUp as end:
        return end.code
    return code


def _close_code(error: GatewayError) -> Close:
    if isinstance(error, NotFoundError):
        return Close.NO_SUCH_JOB
    return Close.TRY_LATER if isinstance(error, BusyError) else Close.POLICY

"""Frames to clients, in order: who gets which, and through which lane.

Everything here runs on the event loop; ``send`` may be called from any thread and keeps the order of the calls. Each
socket has a bounded lane of its own, and is closed when it cannot keep up; with the quirk all share one lane, in which a
reader that stops reading holds up everybody.

Source: ComfyUI a125cd84, ``server.py`` (websocket_handler, send, publish_loop), run and recorded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.embedded.faults import Faults
from gateway.embedded.previews import Preview
from gateway.embedded.quirks import Quirks

#: A prompt of 18 000 frames makes about 150 000 frames on the wire in minutes; a lane holds several seconds of them.
LANE_FRAMES = 10_000
_POLICY_TOO_SLOW = 1013
_INTERNAL_ERROR = 1011
#: Source: ComfyUI a125cd84, ``comfy_api/feature_flags.py``.
_TAKES_METADATA = "supports_preview_metadata"


@dataclass(slots=True, eq=False)
class Socket:
    """One open WebSocket."""

    websocket: WebSocket
    client_id: str
    lane: asyncio.Queue[tuple[Socket, str | bytes]]
    sent: int = 0
    #: The code to close with; set when the socket is given up.
    closing: int | None = None
    feature_flags: dict[str, Any] = field(default_factory=dict)


class Hub:
    """All open sockets. Make it on the running loop.

    Args:
        quirks: orphaning and the single lane.
        faults: silence and drops.
        features: what the answer to ``feature_flags`` holds.
    """

    def __init__(self, quirks: Quirks, faults: Faults, features: dict[str, Any]) -> None:
        self._features = features
        self._quirks = quirks
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, Socket] = {}
        self._shared: asyncio.Queue[tuple[Socket, str | bytes]] | None = None
        self._shared_task: asyncio.Task[None] | None = None
        if quirks.single_send_loop:
            self._shared = asyncio.Queue()  # unbounded, as ComfyUI's: the stall, not a loss, is the quirk
            self._shared_task = asyncio.create_task(self._pump(self._shared), name="embedded-frames-shared")

    def send(self, kind: str, data: dict[str, Any], client_id: Any = None) -> None:
        """Send a frame to a client's socket, or to all sockets. Any thread; without a socket it is dropped."""
        text = json.dumps({"type": kind, "data": data}, default=str)
        self._hand_over(lambda _: text, client_id)

    def send_preview(self, preview: Preview, client_id: Any = None) -> None:
        """Send a picture likewise, with its metadata to sockets that said that they take it."""
        plain, described = preview.plain(), preview.described()
        self._hand_over(lambda it: described if it.feature_flags.get(_TAKES_METADATA) else plain, client_id)

    def _hand_over(self, frame_for: Callable[[Socket], str | bytes], client_id: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._enqueue, frame_for, client_id)
        except RuntimeError:
            # The loop is closed: the process is about to end, and nobody listens any more.
            return

    def _enqueue(self, frame_for: Callable[[Socket], str | bytes], client_id: Any) -> None:
        if client_id is None:
            targets = list(self._sockets.values())
        else:
            socket = self._sockets.get(client_id) if isinstance(client_id, str) else None
            targets = [socket] if socket is not None else []
        for socket in targets:
            if socket.closing is None:
                try:
                    socket.lane.put_nowait((socket, frame_for(socket)))
                except asyncio.QueueFull:
                    socket.closing = _POLICY_TOO_SLOW
                    self._detach(socket)

    def has(self, client_id: str) -> bool:
        """Is there a socket that gets this client's frames?"""
        return client_id in self._sockets

    async def serve(self, websocket: WebSocket, client_id: str, greeting: list[tuple[str, dict[str, Any]]]) -> None:
        """Keep one socket until it ends.

        Args:
            websocket: not yet accepted.
            client_id: whose frames it gets from now on.
            greeting: the frames it gets first.
        """
        await websocket.accept()
        lane = self._shared if self._shared is not None else asyncio.Queue(LANE_FRAMES)
        socket = Socket(websocket, client_id, lane)
        self._sockets[client_id] = socket
        for kind, data in greeting:
            lane.put_nowait((socket, json.dumps({"type": kind, "data": data})))
        own = None
        if self._shared is None:
            own = asyncio.create_task(self._pump(lane), name="embedded-frames")
        try:
            await self._listen(socket)
        finally:
            self._detach(socket)
            if own is not None:
                own.cancel()
                await asyncio.gather(own, return_exceptions=True)

    def _detach(self, socket: Socket) -> None:
        # The quirk: the id's entry goes, even when it is a newer socket's by now.
        if self._quirks.orphan_reused_client_id or self._sockets.get(socket.client_id) is socket:
            self._sockets.pop(socket.client_id, None)

    async def _listen(self, socket: Socket) -> None:
        first = True
        while True:
            message = await socket.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if first and message.get("text") is not None:
                self._negotiate(socket, message["text"])
            first = False

    def _negotiate(self, socket: Socket, text: str) -> None:
        """Answer ``feature_flags`` if it is the first message; the answer goes to the id, not to the socket."""
        try:
            message = json.loads(text)
        except ValueError:
            return
        if isinstance(message, dict) and message.get("type") == "feature_flags":
            data = message.get("data")
            socket.feature_flags = data if isinstance(data, dict) else {}
            self.send("feature_flags", self._features, socket.client_id)

    async def _pump(self, lane: asyncio.Queue[tuple[Socket, str | bytes]]) -> None:
        while True:
            socket, frame = await lane.get()
            if socket.closing is None and self._faults.drops(socket.sent):
                socket.closing = _INTERNAL_ERROR
                self._detach(socket)
            if socket.closing is not None:
                await _close(socket)
                continue
            if self._faults.silences(socket.sent):
                continue
            if self._faults.orphans(socket.sent):
                self._sockets.pop(socket.client_id, None)
            if seconds := self._faults.block_seconds():
                await asyncio.sleep(seconds)
            socket.sent += 1
            try:
                if isinstance(frame, bytes):
                    await socket.websocket.send_bytes(frame)
                else:
                    await socket.websocket.send_text(frame)
            except (WebSocketDisconnect, RuntimeError, OSError):
                continue  # it ended; its own handler sees that too and cleans up

    async def close(self) -> None:
        """Stop the shared lane."""
        if self._shared_task is not None:
            self._shared_task.cancel()
            await asyncio.gather(self._shared_task, return_exceptions=True)


async def _close(socket: Socket) -> None:
    if socket.websocket.application_state is WebSocketState.CONNECTED:
        try:
            await socket.websocket.close(socket.closing or _INTERNAL_ERROR)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # it was gone already

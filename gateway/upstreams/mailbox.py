"""Messages of one prompt on their way to whoever follows it; bounded, and never waited for by the sender.

The socket must be read eagerly: one slow reader stalls all of a ComfyUI's clients. So whoever follows a prompt slowly
gets less: of progress and previews the newest, of everything that tells a state all.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.comfy.messages import Failed, Interrupted, LogLine, Lost, Message, NodeProgress, Preview, Succeeded

#: More than any graph has nodes to tell of; beyond it, what passes is dropped first.
MAX_MESSAGES = 4096


class Mailbox:
    """One prompt's messages, to be iterated; ends after the Outcome."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        #: Of whoever waits for the next message; there is one reader.
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> None:
        """Take a message; returns at once."""
        if self._waiting:
            self._clear_for(message)
        self._waiting.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _clear_for(self, message: Message) -> None:
        if isinstance(message, Preview):
            self._drop_previews()
        elif isinstance(message, NodeProgress) and self._is_overtaken_by(message):
            self._waiting.pop()
        if len(self._waiting) >= MAX_MESSAGES:
            self._make_room()

    def _drop_previews(self) -> None:
        if any(isinstance(waiting, Preview) for waiting in self._waiting):
            self._waiting = deque(waiting for waiting in self._waiting if not isinstance(waiting, Preview))

    def _is_overtaken_by(self, new: NodeProgress) -> bool:
        # A falling value begins a new pass, so the highest value before it is kept.
        last = self._waiting[-1]
        return isinstance(last, NodeProgress) and last.node_id == new.node_id and last.value <= new.value

    def _make_room(self) -> None:
        for index, waiting in enumerate(self._waiting):
            if isinstance(waiting, NodeProgress | LogLine | Preview):
                del self._waiting[index]
                return
        self._waiting.popleft()  # a graph larger than the box: the oldest news is told by the Outcome too

    def __aiter__(self) -> Mailbox:
        return self

    async def __anext__(self) -> Message:
        if self._has_ended:
            raise StopAsyncIteration
        while not self._waiting:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._waiting.popleft()
        self._has_ended = isinstance(message, Succeeded | Failed | Interrupted | Lost)
        return message

"""Clients of Server-Sent Events over a real connection: one response, and an ``EventSource`` that comes back by itself.

``EventSource`` follows WHATWG HTML section 9.2.3: it waits ``retry`` after a connection that ended or never came about,
sends ``Last-Event-ID`` once it has one, and stops for good on 204. Where it is unrealistic: it waits a twentieth of
``retry``, and it takes a refused connection for a broken one (a browser gives up only on a wrong answer).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Self

import httpx

from tests.tools.plain_http import NO_TLS
from tests.tools.sse_parser import Message, Parsed, parse
from tests.tools.waiting import PATIENCE_SECONDS

_PATIENT = httpx.Timeout(PATIENCE_SECONDS)
_RETRY_SCALE = 0.05 / 1000


class LiveStream:
    """One response, read as it comes."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._pieces = response.aiter_bytes()
        self._received = bytearray()

    @property
    def parsed(self) -> Parsed:
        return parse(bytes(self._received))

    async def until(self, name: str) -> Message:
        """Read until an event of this name has come; the last one of that name."""
        while not (found := [message for message in self.parsed.messages if message.event == name]):
            self._received += await anext(self._pieces)
        return found[-1]

    async def rest(self) -> Parsed:
        """Read to the end."""
        async for piece in self._pieces:
            self._received += piece
        return self.parsed


@asynccontextmanager
async def stream(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> AsyncIterator[LiveStream]:
    """Open a stream; leaving the context hangs up."""
    async with client.stream(method, path, timeout=_PATIENT, **request) as response:
        if response.status_code != HTTPStatus.OK:
            await response.aread()
            raise AssertionError(f"{method} {path}: {response.status_code} {response.text}")
        assert response.headers["content-type"].startswith("text/event-stream")
        yield LiveStream(response)


@dataclass
class EventSource:
    """A page's ``EventSource`` on one URL. ``async with`` runs it beside; ``await end()`` waits for the 204."""

    url: str
    #: What came, by connection.
    connections: list[list[Message]] = field(default_factory=list)
    #: Answers it got, in order; 0 for a connection that never came about.
    statuses: list[int] = field(default_factory=list)
    last_event_id: str = ""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"EventSource {self.url}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def end(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._task

    @property
    def messages(self) -> list[Message]:
        return [message for connection in self.connections for message in connection]

    @property
    def durable(self) -> list[tuple[int, str]]:
        """(number, name) of what carried a number of its own, in the order of arrival; one sent twice stands twice."""
        found = []
        for connection in self.connections:
            last = ""
            for message in connection:
                if message.last_event_id != last:
                    last = message.last_event_id
                    found.append((int(last), message.event))
        return found

    async def _run(self) -> None:
        retry_milliseconds = 3000
        async with httpx.AsyncClient(timeout=_PATIENT, trust_env=False, verify=NO_TLS) as client:
            while True:
                headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
                received = bytearray()
                try:
                    async with client.stream("GET", self.url, headers=headers) as response:
                        self.statuses.append(response.status_code)
                        if response.status_code != HTTPStatus.OK:
                            assert response.status_code == HTTPStatus.NO_CONTENT, response.status_code
                            return
                        self.connections.append([])
                        async for piece in response.aiter_bytes():
                            received += piece
                            parsed = parse(bytes(received))
                            self.connections[-1] = parsed.messages
                            self.last_event_id = parsed.last_event_id or self.last_event_id
                            retry_milliseconds = parsed.retry or retry_milliseconds
                except httpx.TransportError:
                    if not received:
                        self.statuses.append(0)
                await asyncio.sleep(retry_milliseconds * _RETRY_SCALE)


def falls(bars: list[float]) -> list[tuple[float, float]]:
    """Where a bar went back: (from, to)."""
    return [(before, after) for before, after in pairwise(bars) if after < before]


def bars_of(source: EventSource, field: str) -> list[float]:
    """Where the bar stood, one after the other."""
    return [message.json[field] for message in source.messages if message.event == "progress"]

"""Clients that write down what they see: they submit, follow a stream, poll, cancel and download, whoever is killed.

What breaks on the way is tried again, but for a submission: without its answer nothing was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import Self, TypeVar

import httpx

from tests.chaos.history import (
    ENDS,
    Acknowledged,
    CancelAnswered,
    CancelSent,
    Downloaded,
    Observation,
    Refused,
    Seen,
    Told,
)
from tests.chaos.material import Material, digest, facts
from tests.tools.sse_client import EventSource

POLL_SECONDS = 0.1
#: For what is being waited for while somebody is killed and started again.
AGAIN_SECONDS = 0.05
ANSWER_SECONDS = 20.0
#: A gateway that is about to stop, or just begins, says so.
_LATER = frozenset({HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Wish:
    """When a job is to be canceled."""

    #: The event after which it is; "" for as soon as it is acknowledged.
    after: str
    seconds: float


T = TypeVar("T")


async def insist(ask: Callable[[], Awaitable[T | None]], pause_seconds: float = AGAIN_SECONDS) -> T:
    """Ask until there is an answer; whoever waits for it sets the limit."""
    while True:
        answer = await ask()
        if answer is not None:
            return answer
        await asyncio.sleep(pause_seconds)


class Crowd:
    """All clients of one gateway, and what they saw."""

    def __init__(self, url: str, material: Material, chance: Random) -> None:
        self._url = url
        self._material = material
        self._chance = chance
        self.observations: list[Observation] = []
        self.sources: dict[str, list[EventSource]] = {}
        self.jobs: list[str] = []
        #: What was asked for and what came, by name.
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=20)
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self._url, timeout=ANSWER_SECONDS, limits=limits, trust_env=False)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # ------------------------------------------------------------------------------------------------------- one job

    async def submit(self) -> str | None:
        """One more job; its id when it was acknowledged."""
        target = self._material.target(self._chance)
        files = {target.role: (target.name, target.data), "image": ("face.png", self._material.face())}
        try:
            answer = await self._http.post("/face-swap", data={"return_prompt_id_only": "true"}, files=files)
        except httpx.TransportError:
            self.counts["submissions cut off"] += 1
            await asyncio.sleep(AGAIN_SECONDS)
            return None
        if answer.status_code in _LATER:
            return None
        job_id = str(answer.json().get("prompt_id"))
        if answer.status_code != HTTPStatus.OK:
            self.observations.append(Refused(job_id, answer.status_code))
            return None
        self.observations.append(Acknowledged(job_id, target.wanted))
        self.jobs.append(job_id)
        self.counts[f"{target.wanted.content_type} jobs"] += 1
        return job_id

    async def see_through(self, job_id: str, wish: Wish | None) -> None:
        """Follow and poll a job to its end, cancel it when wished, and take its result."""
        await self.follow(job_id)
        canceling = None
        if wish is not None:
            canceling = asyncio.create_task(self._cancel(job_id, wish), name=f"cancel {job_id}")
        seen = await insist(lambda: self._end(job_id), POLL_SECONDS)
        if canceling is not None:
            await canceling
        if seen.state == "succeeded":
            await self.download(job_id, seen.links[0])

    async def _end(self, job_id: str) -> Seen | None:
        seen = await self.look(job_id)
        return seen if seen is not None and seen.state in ENDS else None

    async def follow(self, job_id: str) -> None:
        """Open a stream that comes back by itself."""
        source = await self._stack.enter_async_context(EventSource(f"{self._url}/-/jobs/{job_id}/events"))
        self.sources.setdefault(job_id, []).append(source)

    async def look(self, job_id: str) -> Seen | None:
        """One poll; None when nobody was there to answer."""
        answer = await self._ask("GET", f"/-/jobs/{job_id}")
        if answer is None:
            return None
        if answer.status_code != HTTPStatus.OK:
            self.observations.append(Refused(job_id, answer.status_code))
            return None
        body = answer.json()
        links = tuple(result["link"] for result in body["results"])
        seen = Seen(job_id, body["state"], body["fraction"], body["last_event"], links)
        self.observations.append(seen)
        return seen

    async def _cancel(self, job_id: str, wish: Wish) -> None:
        source = self.sources[job_id][0]
        names: set[str] = set()
        while wish.after and names.isdisjoint({wish.after, *ENDS}):
            names = {message.event for message in source.messages}
            await asyncio.sleep(0.005)
        await asyncio.sleep(wish.seconds)
        self.observations.append(CancelSent(job_id))
        answer = await insist(lambda: self._ask("DELETE", f"/-/jobs/{job_id}"))
        self.observations.append(CancelAnswered(job_id, answer.status_code))
        state = "queued" if answer.status_code == HTTPStatus.OK else answer.json().get("state", "ended")
        self.counts[f"canceled when {state}"] += 1

    async def download(self, job_id: str, link: str) -> None:
        """The whole file, however often that is cut off."""
        answer = await insist(lambda: self._ask("GET", f"/download/{link}"))
        if answer.status_code != HTTPStatus.OK:
            self.observations.append(Refused(job_id, answer.status_code))
            return
        found = facts(answer.headers["content-type"], answer.content)
        self.observations.append(Downloaded(job_id, link, digest(answer.content), found))
        self.counts["downloads"] += 1

    async def _ask(self, method: str, path: str) -> httpx.Response | None:
        try:
            answer = await self._http.request(method, path)
        except httpx.TransportError:
            self.counts["answers cut off"] += 1
            return None
        return None if answer.status_code in _LATER else answer

    # --------------------------------------------------------------------------------------------------------- the end

    async def look_again(self) -> None:
        """After the time of peace: where each job is, its result once more, and the ends of all streams."""
        for job_id in self.jobs:
            seen = await self.look(job_id)
            if seen is not None and seen.state == "succeeded":
                await self.download(job_id, seen.links[0])
        for stream, (job_id, source) in enumerate(
            (job_id, source) for job_id, sources in self.sources.items() for source in sources
        ):
            try:
                await source.end()
            except (AssertionError, TimeoutError):
                # It goes on, or was answered wrongly: what it heard has no end, and that is told.
                self.counts["streams without an end"] += 1
            self.counts["stream connections"] += len(source.connections)
            self.observations.extend(told_by(job_id, stream, source))


def told_by(job_id: str, stream: int, source: EventSource) -> list[Told]:
    """What one stream heard, over all its connections."""
    found = []
    for connection in source.connections:
        last = ""
        for message in connection:
            number = int(message.last_event_id) if message.last_event_id != last else None
            last = message.last_event_id
            data = message.json
            attempt = data.get("attempt") if message.event in {"dispatched", "started"} else None
            fraction = data["fraction"] if message.event == "progress" else None
            found.append(Told(job_id, stream, message.event, number, attempt, fraction))
    return found

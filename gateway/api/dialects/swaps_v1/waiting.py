"""Waiting for a job to end, for a client that would rather wait than poll."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request

from gateway.api.facade import Service
from gateway.job import Job

#: From the request on; below the 60 s after which most proxies give up.
WAIT_SECONDS: Final = 50.0


async def until_ended(service: Service, request: Request, job: Job, deadline: float) -> Job:
    """The job as it is when it has ended, the time is over, the client has left, or the gateway stops.

    Args:
        service: the engine.
        request: its body has been read.
        job: as it was last read.
        deadline: seconds of the event loop's clock.
    """
    left = asyncio.create_task(_left(request), name=f"client of {job.id}")
    looking = asyncio.create_task(_ended(service, job), name=f"end of {job.id}")
    try:
        seconds = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait({left, looking}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (left, looking):
            task.cancel()
        await asyncio.gather(left, looking, return_exceptions=True)
    return await service.job(job.id, job.owner)


async def _ended(service: Service, job: Job) -> None:
    """Come back when the job has ended. The store is asked once for each of its durable events, never by the clock."""
    subscription = service.subscribe(job.id)
    try:
        current, seen = await service.job(job.id, job.owner), -1
        while not (current.is_terminal or service.stopping.is_set()):
            await subscription.wait(WAIT_SECONDS)
            if subscription.last_number != seen:
                seen = subscription.last_number
                current = await service.job(job.id, job.owner)
    finally:
        subscription.close()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

"""Who is to hear of a cancel: one flag per job at work, and work that stops at it.

The store has the truth; a flag is how the task that is busy with the job hears of it at once. It is set up before the
store could record a cancel that must find it, and taken down whatever happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Cancellations:
    """The flags of the jobs at work."""

    def __init__(self) -> None:
        self._flags: dict[str, asyncio.Event] = {}

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Event]:
        """The job's flag, for as long as the context lasts."""
        flag = self._flags.setdefault(job_id, asyncio.Event())
        try:
            yield flag
        finally:
            self._flags.pop(job_id, None)

    def request(self, job_id: str) -> None:
        """A cancel was recorded; nothing happens when nobody works on the job."""
        flag = self._flags.get(job_id)
        if flag is not None:
            flag.set()

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._flags

    def __len__(self) -> int:
        return len(self._flags)


async def unless_canceled(flag: asyncio.Event, work: Coroutine[Any, Any, T], *, name: str) -> T | None:
    """What the work says; None when the flag was set first: then the work has been stopped and has cleaned up."""
    if flag.is_set():
        work.close()
        return None
    working = asyncio.create_task(work, name=name)
    asked = asyncio.create_task(flag.wait(), name=f"{name}: cancel")
    try:
        await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, asked):
            task.cancel()
        await asyncio.gather(working, asked, return_exceptions=True)

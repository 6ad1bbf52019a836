"""Restarts of the gateway's own processes: nothing new is given to one, what it has ends, it is restarted, it works again.

What is decided here is when. It is not stored: after a restart of the gateway its processes are new anyway.
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.engine.pool import Pool
from gateway.errors import ConflictError, NotFoundError
from gateway.interfaces import Clock, Restartable

log = structlog.get_logger(__name__)

#: How often it is looked whether what is at work there has ended.
LOOK_SECONDS = 0.25


class Restarts:
    """All that are under way."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str) -> None:
        """Restart an upstream once it has nothing to do; one that is under way goes on.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is no process of ours.
        """
        upstream = self._pool.get(name)
        if upstream is None:
            raise NotFoundError("There is no such upstream.")
        if not isinstance(upstream, Restartable):
            raise ConflictError("It is no process of the gateway's own: drain it, restart it where it runs, resume it.")
        if name not in self._tasks:
            self._pool.set_restarting(name, restarting=True)
            task = asyncio.create_task(self._restart(name, upstream), name=f"restart of {name}")
            self._tasks[name] = task
            task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _restart(self, name: str, upstream: Restartable) -> None:
        try:
            while self._pool.is_busy(name):
                await self._clock.sleep(LOOK_SECONDS)
            log.info("upstream_restarting", upstream=name)
            await upstream.restart()
        finally:
            self._pool.set_restarting(name, restarting=False)

    async def close(self) -> None:
        """Give up those under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

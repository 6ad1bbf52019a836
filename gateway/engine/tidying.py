"""Has upstreams delete what jobs have left there: inputs that no open job needs, outputs of attempts whose task has ended.

Nothing is remembered of what lies where: each upstream lists its own. So whatever a kill, an outage or a purge leaves goes
with the next pass. Outputs are stored here before their task ends, so nothing that is deleted is wanted again.
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.engine.pool import Pool
from gateway.errors import ShuttingDownError
from gateway.interfaces import Bus, Clock, Store, Upstream

log = structlog.get_logger(__name__)

#: How long what was made may lie on an upstream after its job ended, and as long again until that is noticed.
TIDY_SECONDS = 300.0
#: How soon an upstream that is back, and everything after a purge, is seen to.
LOOK_SECONDS = 5.0
#: One upstream that is slow must not keep the others waiting for ever.
MAX_SECONDS = 300.0


class Tidying:
    """One loop over the pool.

    Args:
        store: knows what is in use.
        pool: whose upstreams.
        bus: says when something was purged.
        clock: time.
    """

    def __init__(self, store: Store, pool: Pool, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._pool = pool
        self._clock = clock
        #: Upstream -> monotonic seconds of when it was seen to. Those that cannot be reached are not in it.
        self._tidied: dict[str, float] = {}
        bus.watch(self._heard)

    def _heard(self, job_id: str | None, *, is_event: bool) -> None:
        """Jobs changed without an event when something was purged: all upstreams are seen to at once."""
        if job_id is None and not is_event:
            self._tidied.clear()

    async def run(self) -> None:
        """Tidy until canceled."""
        while True:
            try:
                await self.round()
            except ShuttingDownError:
                return  # nothing can be looked up any more
            except Exception as error:
                log.error("tidying_failed", exc_info=error)
            await self._clock.sleep(LOOK_SECONDS)

    async def round(self) -> None:
        """See to the upstreams whose turn it is, beside one another."""
        reachable = [view.status.name for view in self._pool.views() if view.status.reachable]
        now = self._clock.monotonic()
        self._tidied = {name: at for name, at in self._tidied.items() if name in reachable}
        due = [name for name in reachable if now - self._tidied.get(name, -TIDY_SECONDS) >= TIDY_SECONDS]
        upstreams = [upstream for name in due if (upstream := self._pool.get(name)) is not None]
        self._tidied |= {upstream.name: now for upstream in upstreams}
        outcomes = await asyncio.gather(*(self._tidy(upstream) for upstream in upstreams), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _tidy(self, upstream: Upstream) -> None:
        try:
            async with asyncio.timeout(MAX_SECONDS):
                await upstream.tidy(self._store.in_use)
        except (ConnectionError, TimeoutError) as error:
            log.info("upstream_not_tidied", upstream=upstream.name, reason=str(error) or type(error).__name__)

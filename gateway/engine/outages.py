"""Keeps record of when upstreams became unreachable, at work or not: ``gateway/poison.py`` asks who was lost together.

Kept in the store, for a verdict may come after a restart. Moments are those of the first question that was asked in
vain, which is nearer to the truth than that of the answer that did not come.
"""

from __future__ import annotations

import structlog

from gateway.engine.pool import Pool
from gateway.interfaces import Clock, Store

log = structlog.get_logger(__name__)


class Outages:
    """Notes each outage once; the dispatcher asks for it in every round."""

    def __init__(self, store: Store, pool: Pool, clock: Clock) -> None:
        self._store = store
        self._pool = pool
        self._clock = clock
        #: Upstream -> since when it is, or was last, unreachable, monotonic seconds, as noted.
        self._noted: dict[str, float] = {}

    async def note(self) -> None:
        """Write down what has become unreachable since the last time."""
        for name, since in self._pool.outages().items():
            if self._noted.get(name) != since:
                at = self._clock.now() - (self._clock.monotonic() - since)
                await self._store.note_outage(name, at=at)
                self._noted[name] = since
                log.info("outage_noted", upstream=name, at=round(at, 3))
        self._noted = {name: since for name, since in self._noted.items() if self._pool.get(name) is not None}

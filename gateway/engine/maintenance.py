"""What has to be done now and then: saving progress, expiring what waited too long, letting go of what is past its time."""

from __future__ import annotations

import structlog

from gateway.engine.recorder import Recorder
from gateway.engine.service import Service
from gateway.engine.timing import LearnedTimings
from gateway.errors import ShuttingDownError, StorageUnreachableError
from gateway.interfaces import Blobs, Clock, Store
from gateway.template import WORKFLOW

log = structlog.get_logger(__name__)

#: How old the counts in /health may be.
ROUND_SECONDS = 1.0
EXPIRE_EVERY = 5
#: What a kill may forget of what was learned.
SAVE_TIMINGS_EVERY = 30
#: As fine as a key's last use is kept.
SAVE_LAST_USED_EVERY = 60
SWEEP_EVERY = 300
#: Looking for bytes that the store has never heard of walks over all blobs; only a killed process leaves such.
STRAYS_EVERY = 3600
#: A sweep is done in batches; the rest waits for the next round.
MAX_BATCHES = 100
#: An upload has this long to become a job's input before the sweep takes it for forgotten.
BLOB_GRACE_SECONDS = 3600.0


class Maintenance:
    """The engine's housekeeping; one loop."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        recorder: Recorder,
        service: Service,
        timings: LearnedTimings,
        clock: Clock,
        *,
        job_retention_seconds: float,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._recorder = recorder
        self._service = service
        self._timings = timings
        self._clock = clock
        self._job_retention_seconds = job_retention_seconds

    async def run(self) -> None:
        """Keep house until canceled."""
        rounds = 0
        while True:
            try:
                await self.round(rounds)
            except ShuttingDownError:
                return  # nothing can be stored any more
            except StorageUnreachableError as error:
                log.warning("maintenance_put_off", reason=error.reason)
            except Exception as error:
                log.error("maintenance_failed", exc_info=error)
            rounds += 1
            await self._clock.sleep(ROUND_SECONDS)

    async def round(self, number: int) -> None:
        """One round; the rarer chores by its number."""
        await self._service.refresh_counts()
        if number % EXPIRE_EVERY == 0:
            await self._recorder.expire()
        if number % SWEEP_EVERY == 0:
            await self.sweep()
            self._forget_timings()
        if number % SAVE_TIMINGS_EVERY == SAVE_TIMINGS_EVERY - 1:
            await self._timings.save()
        if number % SAVE_LAST_USED_EVERY == SAVE_LAST_USED_EVERY - 1:
            await self._service.accounts.save_last_used()
        if number % STRAYS_EVERY == 0:
            await self.sweep_strays()

    def _forget_timings(self) -> None:
        """Of templates and upstreams that are gone; what has a problem now may be mended, a folder that is away come back."""
        health = self._service.health()
        templates = {WORKFLOW, *self._service.templates(), *health.template_problems}
        if self._service.templates():
            self._timings.keep(templates, [view.status.name for view in health.upstreams])

    async def sweep(self) -> None:
        """Forget what is past its retention, bytes last: a crash in between leaves bytes that nothing names."""
        await self._blobs.tidy()
        await self._service.claims.sweep()
        await self._store.webhooks.sweep()
        await self._service.consents.sweep()
        for _ in range(MAX_BATCHES):
            now = self._clock.now()
            swept = await self._store.sweep(
                job_retention_seconds=self._job_retention_seconds, blob_grace_seconds=BLOB_GRACE_SECONDS, now=now
            )
            for blob_hash in swept.blobs:
                await self._blobs.delete(blob_hash, untouched_since=now - BLOB_GRACE_SECONDS)
            if not (swept.jobs or swept.assets or swept.blobs):
                return
            log.info("swept", jobs=swept.jobs, assets=swept.assets, blobs=len(swept.blobs))

    async def sweep_strays(self) -> None:
        """Delete bytes that a process left which was killed between a blob's commit and its job's, or within a sweep."""
        since = self._clock.now() - BLOB_GRACE_SECONDS
        for blob_hash in await self._blobs.untouched(since=since):
            if await self._store.forget_blob(blob_hash):
                await self._blobs.delete(blob_hash, untouched_since=since)

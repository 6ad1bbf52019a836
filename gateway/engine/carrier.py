"""Carries finished files to where their owners want them: what is due, keeps what came of it, lets nobody wait for the dead.

One loop looks for what is due and starts one task per attempt. An owner has a quarter of all places, as has a host, and a
host that failed several times in a row gets one file at a time, after a rest (``outbox.HostBreaker``).

An attempt is made only while the data directory is ours, and written when it is over. A process that is killed in between
puts the same bytes to the same place again; once a success is written, nobody does.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from gateway.delivering import Answer, Delivery, Reason, Upload, judge, sealed_url
from gateway.engine.errands import AGAIN_SECONDS, TICK_SECONDS, Hosts, Rounds
from gateway.errors import BusyError, ShuttingDownError
from gateway.interfaces import Blobs, Bus, Clock, DeliveryTarget, Sealer, Store, UrlUploader
from gateway.job import Job, JobResult

log = structlog.get_logger(__name__)

#: Attempts under way at once; each holds a connection and a chunk of a file.
MAX_UNDER_WAY: Final = 16
MAX_PER_OWNER: Final = MAX_UNDER_WAY // 4
MAX_PER_HOST: Final = MAX_UNDER_WAY // 4


class Carrier:
    """The motor of deliveries. ``run`` until ``stop``.

    Args:
        store: where they are.
        blobs: where the bytes are.
        bus: told of their ends.
        uploader: puts a file to a URL.
        targets: the operator's, by name.
        sealer: opens URLs.
        clock: time.
        may_act: comes back while the data directory is ours. Raises BusyError, ShuttingDownError.
        chance: gives a number from 0 to 1.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        bus: Bus,
        uploader: UrlUploader,
        targets: Mapping[str, DeliveryTarget],
        sealer: Sealer,
        clock: Clock,
        *,
        may_act: Callable[[], Awaitable[None]],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._bus = bus
        self._uploader = uploader
        self._targets = targets
        self._sealer = sealer
        self._clock = clock
        self._may_act = may_act
        self._chance = chance
        self._rounds = Rounds(clock, "delivery", self._round)
        self._under_way: dict[str, tuple[Delivery, asyncio.Task[None]]] = {}
        self._hosts = Hosts(clock)

    def wake(self) -> None:
        """There is something new to be delivered."""
        self._rounds.wake()

    async def run(self) -> None:
        """Deliver what is due until stopped."""
        await self._rounds.run()

    async def stop(self) -> None:
        """Break off what is under way; whoever comes next begins it anew."""
        self._rounds.stop()
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -------------------------------------------------------------------------------------------------------- one round

    async def _round(self) -> float:
        """Start what is due; seconds until there is something to look for."""
        while len(self._under_way) < MAX_UNDER_WAY:
            found = await self._store.deliveries.due(
                now=self._clock.now(),
                without_owners=self._full_owners(),
                without_hosts=self._closed_hosts(),
                without=self._under_way.keys(),
                limit=MAX_UNDER_WAY,
            )
            if not sum([self._take(delivery) for delivery in found]):
                break
        at = await self._store.deliveries.next_due(
            without_owners=self._full_owners(), without_hosts=self._closed_hosts(), without=self._under_way.keys()
        )
        waits = [TICK_SECONDS, *self._hosts.resting(self._asked()).values()]
        return min(waits) if at is None else min(max(at - self._clock.now(), 0.0), *waits)

    def _take(self, delivery: Delivery) -> bool:
        """Start an attempt; False when there is no place for it by now."""
        if len(self._under_way) >= MAX_UNDER_WAY:
            return False
        if delivery.owner in self._full_owners() or delivery.host in self._closed_hosts():
            return False
        task = asyncio.create_task(self._attempt(delivery), name=f"delivery to {delivery.host}")
        self._under_way[delivery.id] = (delivery, task)
        return True

    def _asked(self) -> list[str]:
        return [delivery.host for delivery, _ in self._under_way.values()]

    def _full_owners(self) -> set[str]:
        counts = Counter(delivery.owner for delivery, _ in self._under_way.values())
        return {owner for owner, count in counts.items() if count >= MAX_PER_OWNER}

    def _closed_hosts(self) -> set[str]:
        """Those that get nothing now: they have enough, or they rest."""
        asked = self._asked()
        full = {host for host, count in Counter(asked).items() if count >= MAX_PER_HOST}
        return full | self._hosts.resting(asked).keys()

    # ------------------------------------------------------------------------------------------------------ one attempt

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            answer = await self._carry(delivery)
            if answer is not None:
                self._note(delivery.host, answer)
                await self._record(delivery, answer)
        except ShuttingDownError:
            self._rounds.stop()  # taken over: whoever has the directory now delivers it
        except BusyError:
            await self._clock.sleep(AGAIN_SECONDS)
        except Exception as error:  # a task's edge: what is wrong with one delivery must not end the loop
            log.error("delivery_failed", host=delivery.host, exc_info=error)
            await self._clock.sleep(AGAIN_SECONDS)
        finally:
            self._under_way.pop(delivery.id, None)
            self._rounds.wake()

    async def _carry(self, delivery: Delivery) -> Answer | None:
        """What came of it; None when there is nothing to deliver any more."""
        job = await self._store.job(delivery.job_id)
        if job is None:
            return None
        result = next((one for one in job.results if one.asset_id == delivery.asset_id), None)
        if result is None or not await self._blobs.exists(result.blob):
            return Answer(Reason.EXPIRED)
        await self._may_act()
        if delivery.target is None:
            return await self._to_url(job, delivery, result)
        target = self._targets.get(delivery.target)
        if target is None:
            return Answer(Reason.NO_TARGET)
        kind = result.facts.content_type
        return await target.put(delivery.key, result.blob, content_type=kind, file_name=delivery.file_name)

    async def _to_url(self, job: Job, delivery: Delivery, result: JobResult) -> Answer:
        sealed = sealed_url(job, delivery.position)
        url = None if sealed is None else self._sealer.open(job.owner, bytes.fromhex(sealed))
        if url is None:
            log.error(
                "delivery_url_lost", job=job.id
            )  # the key beside the database is another one than when it was sealed
            return Answer(Reason.INTERNAL)
        kind = result.facts.content_type
        return await self._uploader.put(Upload(url.decode(), result.blob, result.size_bytes, kind, delivery.file_name))

    def _note(self, host: str, answer: Answer) -> None:
        if answer.is_fault:
            self._hosts.fault(host)
        elif answer.status is not None:
            self._hosts.answered(host)

    async def _record(self, delivery: Delivery, answer: Answer) -> None:
        now = self._clock.now()
        verdict = judge(delivery, answer, now, self._chance)
        is_new, event = await self._store.deliveries.record(delivery, answer, verdict, now=now)
        if event is not None:
            self._bus.announce(event.job_id, event.number)
        log.info(
            "delivery_attempt",
            job=delivery.job_id,
            host=delivery.host,
            attempt=delivery.attempts + 1,
            outcome=answer.reason.value,
            status=answer.status,
            then=type(verdict).__name__.lower() if is_new else "nothing",
        )

"""``interfaces.DeliveryStore`` over SQL: each method is one query function in one transaction of an executor."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.delivering import Answer, Delivery, DeliveryState
from gateway.events import Event
from gateway.outbox import Verdict
from gateway.store.executors import Executor
from gateway.store.queries import deliveries


class SqlDeliveries:
    """Outputs on their way.

    Args:
        executor: where the queries run; whoever made it closes it.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def due(
        self,
        *,
        now: float,
        without_owners: Collection[str] = (),
        without_hosts: Collection[str] = (),
        without: Collection[str] = (),
        limit: int,
    ) -> Sequence[Delivery]:
        """What is due and none of these, what has waited longest first."""
        return await self._executor.read(deliveries.due, now, without_owners, without_hosts, without, limit)

    async def next_due(
        self,
        *,
        without_owners: Collection[str] = (),
        without_hosts: Collection[str] = (),
        without: Collection[str] = (),
    ) -> float | None:
        """When something is due that is none of these; None when nothing will be."""
        return await self._executor.read(deliveries.next_due, without_owners, without_hosts, without)

    async def record(
        self, delivery: Delivery, answer: Answer, verdict: Verdict, *, now: float
    ) -> tuple[bool, Event | None]:
        """Keep what came of an attempt; False when the delivery has moved on: then no row changed. And its event."""
        return await self._executor.write(deliveries.record, delivery, answer, verdict, now)

    async def of_jobs(self, job_ids: Sequence[str]) -> Sequence[Delivery]:
        """Those of these jobs, each job's in the order of its outputs."""
        return await self._executor.read(deliveries.of_jobs, job_ids)

    async def is_pending(self, job_id: str) -> bool:
        """Whether one of a job's is not over."""
        return await self._executor.read(deliveries.is_pending, job_id)

    async def listed(
        self, owner: str | None, *, state: DeliveryState | None, before: str | None, limit: int
    ) -> Sequence[Delivery]:
        """An owner's, or with None everybody's, newest first."""
        return await self._executor.read(deliveries.listed, owner, state, before, limit)

    async def redeliver(self, delivery_id: str, owner: str | None, *, now: float) -> Delivery | None:
        """Have a delivery made again from the beginning of the schedule; None when there is none. Raises ConflictError."""
        return await self._executor.write(deliveries.redeliver, delivery_id, owner, now)

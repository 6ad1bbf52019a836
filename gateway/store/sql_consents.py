"""``interfaces.ConsentStore`` over SQL: each method is one query function in one transaction of an executor."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.consent import ConsentRecord
from gateway.store.executors import Executor
from gateway.store.queries import consents


class SqlConsents:
    """What was said of the people in the pictures. Begun and completed with the job, so not here.

    Args:
        executor: where the queries run; whoever made it closes it.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def record(self, job_id: str) -> ConsentRecord | None:
        """That of a job, if anything was said."""
        return await self._executor.read(consents.record, job_id)

    async def records(
        self, *, owner: str | None, since: float, after: str | None, limit: int
    ) -> Sequence[ConsentRecord]:
        """Oldest first; ``after`` is the job of the last one already seen. Raises InvalidInputError."""
        return await self._executor.read(consents.records, owner, since, after, limit)

    async def sweep(self, *, before: float) -> int:
        """Forget a batch of those whose jobs ended by then; how many."""
        return await self._executor.write(consents.sweep, before)

    async def forget(self, job_id: str) -> int:
        """Forget that of a job that has ended."""
        return await self._executor.write(consents.forget, job_id)

    async def forget_owner(self, owner: str) -> int:
        """Forget a batch of an owner's whose jobs have ended; how many."""
        return await self._executor.write(consents.forget_owner, owner)

"""``interfaces.WebhookStore`` over SQL: each method is one query function in one transaction of an executor."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.outbox import Answer, Message, MessageState, SealedSecret, Verdict
from gateway.store.executors import Executor
from gateway.store.queries import outbox


class SqlWebhooks:
    """The outbox, and what signs its messages.

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
        without_endpoints: Collection[int] = (),
        limit: int,
        each: int,
    ) -> Sequence[Message]:
        """What is due: at most ``each`` messages of at most ``limit`` endpoints, none of these."""
        return await self._executor.read(outbox.due, now, without_owners, without_endpoints, limit, each)

    async def next_due(
        self, *, without_owners: Collection[str] = (), without_endpoints: Collection[int] = ()
    ) -> float | None:
        """When something is due, of others than these; None when nothing will be."""
        return await self._executor.read(outbox.next_due, without_owners, without_endpoints)

    async def record(self, message: Message, answer: Answer, verdict: Verdict, *, now: float) -> bool:
        """Keep what came of an attempt; False when the message has moved on: then no row changed."""
        return await self._executor.write(outbox.record, message, answer, verdict, now)

    async def postpone(self, endpoint: int, *, until: float) -> None:
        """Let an endpoint be until a time."""
        await self._executor.write(outbox.postpone, endpoint, until)

    async def messages(
        self, owner: str, *, state: MessageState | None, before: str | None, limit: int
    ) -> Sequence[Message]:
        """An owner's, newest first; ``before`` is the id of the last one already seen."""
        return await self._executor.read(outbox.messages, owner, state, before, limit)

    async def redeliver(self, message_id: str, owner: str, *, now: float) -> Message | None:
        """Have an owner's message sent again, its endpoint enabled; None when there is none."""
        return await self._executor.write(outbox.redeliver, message_id, owner, now)

    async def enable(self, owner: str, url: str) -> None:
        """An endpoint that had answered 410 is one again."""
        await self._executor.write(outbox.enable, owner, url)

    async def secrets(self, account: str, *, now: float) -> Sequence[SealedSecret]:
        """Those that sign now, newest first."""
        return await self._executor.read(outbox.secrets, account, now)

    async def add_secret(
        self, account: str, sealed: bytes, *, old_until: float | None, now: float
    ) -> Sequence[SealedSecret]:
        """Keep a new secret (``old_until`` None: only where there is none yet); those that sign. Raises ConflictError."""
        return await self._executor.write(outbox.add_secret, account, sealed, old_until, now)

    async def sweep(self) -> int:
        """Forget a batch of endpoints that no message names any more; how many."""
        return await self._executor.write(outbox.sweep)

"""``interfaces.CreditStore`` and ``interfaces.ClaimStore`` over SQL: each method is one query function in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.idempotency import Claim, Standing, Wanted
from gateway.interfaces import LedgerLine
from gateway.ledger import Account, Purse
from gateway.store.executors import Executor
from gateway.store.queries import claims, ledger


class SqlCredits:
    """Users' purses.

    Args:
        executor: where the queries run; whoever made it closes it.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def account(self, user_id: str, *, now: float) -> Account:
        """A user's purses as they are by now."""
        return await self._executor.read(ledger.account, user_id, now)

    async def entries(self, user_id: str, *, limit: int) -> Sequence[LedgerLine]:
        """The newest entries of a user, newest first."""
        return await self._executor.read(ledger.entries, user_id, limit)

    async def grant(self, user_id: str, purse: Purse, amount: int, *, now: float) -> Account:
        """Give credits; the account after it. Raises InvalidInputError, NotFoundError."""
        return await self._executor.write(ledger.grant_credits, user_id, purse, amount, now)


class SqlClaims:
    """Idempotency keys.

    Args:
        executor: where the queries run; whoever made it closes it.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def look(self, wanted: Wanted, *, now: float) -> Standing:
        """What became of a key. Raises IdempotencyMismatchError."""
        return await self._executor.read(claims.look, wanted, now)

    async def claim(self, wanted: Wanted, token: str, *, now: float) -> Standing:
        """Take a key that is free; what it was. Raises IdempotencyMismatchError."""
        return await self._executor.write(claims.claim, wanted, token, now)

    async def renew(self, held: Claim, *, now: float) -> bool:
        """Hold it for one more lease; False when it is no longer the holder's."""
        return await self._executor.write(claims.renew, held, now)

    async def release(self, held: Claim) -> None:
        """Let go of it, unless it is done or somebody else's."""
        await self._executor.write(claims.release, held)

    async def sweep(self, *, now: float) -> int:
        """Forget a batch of those past their time; how many."""
        return await self._executor.write(claims.sweep, now)

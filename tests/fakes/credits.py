"""``interfaces.CreditStore`` and ``interfaces.ClaimStore`` in memory. Unrealistic: nobody is charged, and users are not checked."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.idempotency import (
    LEASE_SECONDS,
    RETENTION_SECONDS,
    Answer,
    Claim,
    Free,
    Standing,
    Stored,
    Wanted,
    standing,
)
from gateway.interfaces import LedgerLine, Promise
from gateway.job import Job
from gateway.ledger import Account, Purse, grant, month_of, renew


class MemoryCredits:
    """See the module."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.lines: dict[str, list[LedgerLine]] = {}

    async def account(self, user_id: str, *, now: float) -> Account:
        return renew(self.accounts.get(user_id, Account(month=month_of(now))), now)[0]

    async def entries(self, user_id: str, *, limit: int) -> Sequence[LedgerLine]:
        return self.lines.get(user_id, [])[::-1][:limit]

    async def grant(self, user_id: str, purse: Purse, amount: int, *, now: float) -> Account:
        self.accounts[user_id], entry = grant(await self.account(user_id, now=now), purse, amount)
        self.lines.setdefault(user_id, []).append(LedgerLine(now, entry, None))
        return self.accounts[user_id]


class MemoryClaims:
    """See the module. ``keep`` is what ``create_job`` does with a promise."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Stored] = {}

    async def look(self, wanted: Wanted, *, now: float) -> Standing:
        return standing(self.stored.get((wanted.scope, wanted.key)), wanted, now)

    async def claim(self, wanted: Wanted, token: str, *, now: float) -> Standing:
        found = await self.look(wanted, now=now)
        if found is Free.FREE:
            self._put(wanted, token, now, None)
        return found

    async def renew(self, held: Claim, *, now: float) -> bool:
        if self._is_in_flight(held):
            self._put(held.wanted, held.token, now, None)
        return self._is_in_flight(held)

    async def release(self, held: Claim) -> None:
        if self._is_in_flight(held):
            del self.stored[held.wanted.scope, held.wanted.key]

    async def sweep(self, *, now: float) -> int:
        old = [place for place, stored in self.stored.items() if stored.expires_at <= now]
        for place in old:
            del self.stored[place]
        return len(old)

    def keep(self, promise: Promise, job: Job, now: float) -> None:
        self.finish(promise.claim, promise.answer(job), now)

    def finish(self, held: Claim, answer: Answer, now: float) -> None:
        self._put(held.wanted, held.token, now, answer)

    def _is_in_flight(self, held: Claim) -> bool:
        stored = self.stored.get((held.wanted.scope, held.wanted.key))
        return stored is not None and stored.token == held.token and stored.answer is None

    def _put(self, wanted: Wanted, token: str, now: float, answer: Answer | None) -> None:
        place = (wanted.scope, wanted.key)
        self.stored[place] = Stored(wanted.fingerprint, token, now + LEASE_SECONDS, now + RETENTION_SECONDS, answer)

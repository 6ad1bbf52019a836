"""Users' credits: what they have, why, and what an operator gives them. Jobs are charged and refunded by the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from gateway.accounts import User
from gateway.errors import InsufficientCreditsError, InvalidInputError, NotFoundError
from gateway.interfaces import AccountStore, Clock, CreditStore, LedgerLine
from gateway.ledger import Account, Purse

log = structlog.get_logger(__name__)

#: Entries shown.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Statement:
    """What a user has, and the newest reasons."""

    user: User
    account: Account
    #: Newest first, at most ``SHOWN``.
    entries: Sequence[LedgerLine]


class Credits:
    """See the module.

    Args:
        store: of purses.
        accounts: of users.
        clock: tells the month.
    """

    def __init__(self, store: CreditStore, accounts: AccountStore, clock: Clock) -> None:
        self._store = store
        self._accounts = accounts
        self._clock = clock

    async def account(self, user_id: str) -> Account:
        """A user's purses as they are by now."""
        return await self._store.account(user_id, now=self._clock.now())

    async def require(self, user_id: str, least: int) -> None:
        """Spare whoever cannot pay the way there; what is taken is decided when the job is stored.

        Raises:
            InsufficientCreditsError: the user has less than ``least``.
        """
        if least and (total := (await self.account(user_id)).balance.total) < least:
            raise InsufficientCreditsError(f"This costs {least} credits or more, and {total} are left.")

    async def statement(self, name: str) -> Statement:
        """What the user of this name has. Raises NotFoundError."""
        user = await self._user(name)
        return Statement(user, await self.account(user.id), await self._store.entries(user.id, limit=SHOWN))

    async def grant(self, name: str, purse: str, amount: int) -> Statement:
        """Give credits to the user of this name; what that user has then.

        Raises:
            InvalidInputError: there is no such purse, or the amount is out of range.
            NotFoundError: there is no such user.
        """
        if purse not in set(Purse):
            raise InvalidInputError(f"purse is one of: {', '.join(Purse)}.", field="purse")
        user = await self._user(name)
        await self._store.grant(user.id, Purse(purse), amount, now=self._clock.now())
        log.info("credits_granted", user=user.id, purse=purse, amount=amount)
        return await self.statement(name)

    async def _user(self, name: str) -> User:
        user = await self._accounts.user_named(name)
        if user is None:
            raise NotFoundError("There is no such user.", field="user")
        return user

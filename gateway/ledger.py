"""Credits: three purses, and the entries that change them. Whole numbers; the time is handed in.

A job's price is **held** in the transaction that creates the job: taken out of the purses, subscription before monthly
before permanent, so that what ends soonest goes first. The hold is closed once, by a **charge** when the job succeeds
(the purses do not change any more) or by a **refund** when it fails or is canceled (each credit goes back to the purse
that it came from). The purses are the sum of their entries and never below zero.

The monthly purse is set to its grant on the 1st at 00:00 UTC, up or down. Nothing runs at that moment: whoever touches
an account later writes what is due first, and whoever only looks works it out. A refund from an earlier month goes to
the monthly purse of this one, and with it on the next 1st.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from gateway.errors import InsufficientCreditsError, InvalidInputError

#: A grant beyond it is a slip of the hand.
MAX_CREDITS: Final = 1_000_000_000


class Purse(StrEnum):
    """Where credits lie, in the order in which they are spent."""

    SUBSCRIPTION = "subscription"
    MONTHLY = "monthly"
    PERMANENT = "permanent"


class EntryKind(StrEnum):
    """Why purses changed."""

    #: An operator gave.
    GRANT = "grant"
    #: The 1st of a month: the monthly purse was set to its grant.
    RENEWAL = "renewal"
    #: A job was created.
    HOLD = "hold"
    #: It succeeded; nothing moves.
    CHARGE = "charge"
    #: It failed or was canceled.
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class Amounts:
    """Credits by purse: what lies there, or what is added (below zero: taken)."""

    subscription: int = 0
    monthly: int = 0
    permanent: int = 0

    @property
    def total(self) -> int:
        """All three together."""
        return self.subscription + self.monthly + self.permanent

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.subscription + other.subscription, self.monthly + other.monthly, self.permanent + other.permanent
        )

    def __neg__(self) -> Amounts:
        return Amounts(-self.subscription, -self.monthly, -self.permanent)


@dataclass(frozen=True, slots=True)
class Account:
    """A user's purses."""

    balance: Amounts = Amounts()
    #: What the monthly purse is set to on each 1st.
    monthly_grant: int = 0
    #: The month that the monthly purse was last set for, as ``month_of`` counts.
    month: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of an account."""

    kind: EntryKind
    amounts: Amounts


def month_of(now: float) -> int:
    """Months of the calendar in UTC, so that the 1st at 00:00 begins a new one. Args: now: Unix seconds."""
    date = datetime.fromtimestamp(now, UTC)
    return 12 * date.year + date.month - 1


def renew(account: Account, now: float) -> tuple[Account, Entry | None]:
    """The account as it is by now, and the entry that brings it there; None where nothing is due.

    A clock that was put back renews nothing: a month is begun once.
    """
    month = month_of(now)
    if month <= account.month:
        return account, None
    entry = Entry(EntryKind.RENEWAL, Amounts(monthly=account.monthly_grant - account.balance.monthly))
    renewed = replace(account, balance=account.balance + entry.amounts, month=month)
    return renewed, entry if entry.amounts.monthly else None


def grant(account: Account, purse: Purse, amount: int) -> tuple[Account, Entry]:
    """An account that was given something.

    The monthly purse is not added to: its grant becomes ``amount`` from now on, and this month's purse changes by the
    difference, though not below zero. The other two get ``amount`` more.

    Args:
        account: renewed.
        purse: which.
        amount: 1 or more, 0 too for the monthly purse; at most ``MAX_CREDITS``.

    Raises:
        InvalidInputError: ``amount`` is out of range, or the purse would hold more than ``MAX_CREDITS``.
    """
    least = 0 if purse is Purse.MONTHLY else 1
    if not least <= amount <= MAX_CREDITS:
        raise InvalidInputError(f"Credits are a whole number from {least} to {MAX_CREDITS}.", field="credits")
    if purse is Purse.MONTHLY:
        change = max(-account.balance.monthly, amount - account.monthly_grant)
        account, amounts = replace(account, monthly_grant=amount), Amounts(monthly=change)
    elif purse is Purse.SUBSCRIPTION:
        amounts = Amounts(subscription=amount)
    else:
        amounts = Amounts(permanent=amount)
    balance = account.balance + amounts
    if balance.total > MAX_CREDITS:
        raise InvalidInputError(f"An account holds at most {MAX_CREDITS} credits.", field="credits")
    return replace(account, balance=balance), Entry(EntryKind.GRANT, amounts)


def hold(account: Account, amount: int) -> tuple[Account, Entry]:
    """An account out of which a job's price was taken.

    Args:
        account: renewed.
        amount: the price, 1 or more.

    Raises:
        InsufficientCreditsError: the purses hold less.
    """
    if amount < 1:
        raise ValueError("what costs nothing is not held")
    balance = account.balance
    if balance.total < amount:
        raise InsufficientCreditsError(f"Not enough credits: this costs {amount}, and the balance is {balance.total}.")
    subscription = min(balance.subscription, amount)
    monthly = min(balance.monthly, amount - subscription)
    taken = Amounts(subscription, monthly, amount - subscription - monthly)
    return replace(account, balance=balance + -taken), Entry(EntryKind.HOLD, -taken)


def refund(account: Account, held: Amounts) -> tuple[Account, Entry]:
    """An account to which a hold went back.

    Args:
        account: renewed.
        held: amounts of the hold's entry, none above zero.
    """
    return replace(account, balance=account.balance + -held), Entry(EntryKind.REFUND, -held)


#: The entry of a job that succeeded: its hold is spent for good.
CHARGED: Final = Entry(EntryKind.CHARGE, Amounts())

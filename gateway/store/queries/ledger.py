"""Purses and their entries. What may be taken, and from where, is decided by ``gateway/ledger.py``.

Every change is an entry and the new purses in the same transaction. The database repeats the promises: no purse below
zero, one hold for a job, and one end of that hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, insert, select, text, update

from gateway.errors import NotFoundError
from gateway.interfaces import LedgerLine
from gateway.job import Job, JobState
from gateway.ledger import CHARGED, Account, Amounts, Entry, EntryKind, Purse, grant, hold, month_of, refund, renew
from gateway.store.queries import by_dialect, change
from gateway.store.rows import AnyRow
from gateway.store.schema_accounts import api_keys, users
from gateway.store.schema_credits import IS_HOLD, ledger, purses


def account(connection: Connection, user_id: str, now: float) -> Account:
    """A user's purses as they are by now; writes nothing."""
    row = connection.execute(_PURSES, {"wanted": user_id}).one_or_none()
    return renew(_account(row) if row else Account(month=month_of(now)), now)[0]


def grant_credits(connection: Connection, user_id: str, purse: Purse, amount: int, now: float) -> Account:
    """The account of a user that was given something.

    Raises:
        InvalidInputError: the amount is out of range.
        NotFoundError: there is no such user.
    """
    if connection.execute(_USER, {"wanted": user_id}).one_or_none() is None:
        raise NotFoundError("There is no such user.", field="user")
    after, entry = grant(_renewed(connection, user_id, now), purse, amount)
    _write(connection, user_id, after, entry, None, now)
    return after


def charge_for(connection: Connection, owner: str, job_id: str, price: int, now: float) -> int:
    """Take a new job's price from the user whose key owns it; what was taken, 0 where nobody pays.

    Whoever owns a job and is no key (``local``: open mode, and the admin token) has no purses and pays nothing.

    Raises:
        InsufficientCreditsError: the purses hold less.
    """
    payer = connection.execute(_PAYER, {"wanted": owner}).scalar_one_or_none() if price else None
    if payer is None:
        return 0
    after, entry = hold(_renewed(connection, payer, now), price)
    _write(connection, payer, after, entry, job_id, now)
    return price


def close_hold(connection: Connection, job: Job, now: float) -> None:
    """Keep what an ended job cost if it succeeded, else give it back: in the transaction that ends it."""
    row: AnyRow = connection.execute(_HOLD, {"wanted": job.id}).one()
    if job.state is JobState.SUCCEEDED:
        change(connection, _ADD_ENTRY, _entry_row(row.user_id, CHARGED, job.id, now))
        return
    after, entry = refund(_renewed(connection, row.user_id, now), _amounts(row))
    _write(connection, row.user_id, after, entry, job.id, now)


def entries(connection: Connection, user_id: str, limit: int) -> Sequence[LedgerLine]:
    """The newest entries of a user, newest first."""
    rows = connection.execute(_ENTRIES, {"wanted": user_id, "most": limit})
    return [LedgerLine(row.at, Entry(EntryKind(row.kind), _amounts(row)), row.job_id) for row in rows]


def sums(connection: Connection) -> Mapping[str, tuple[Amounts, Amounts]]:
    """By user, the sum of all entries and what lies in the purses: always the same, and for whoever audits."""
    totals = {row.user_id: _amounts(row) for row in connection.execute(_TOTALS)}
    rows: Sequence[AnyRow] = connection.execute(_ALL_PURSES).all()
    return {row.user_id: (totals.get(row.user_id, Amounts()), _amounts(row)) for row in rows}


def _renewed(connection: Connection, user_id: str, now: float) -> Account:
    """A user's account, made if need be and locked, with what the calendar owes it written."""
    change(connection, _ADD_PURSES[connection.dialect.name], {"user_id": user_id, "month": month_of(now)} | _EMPTY)
    before = _account(connection.execute(_LOCKED_PURSES, {"wanted": user_id}).one())
    after, entry = renew(before, now)
    if after != before:
        _save(connection, user_id, after)
    if entry is not None:
        change(connection, _ADD_ENTRY, _entry_row(user_id, entry, None, now))
    return after


def _write(connection: Connection, user_id: str, after: Account, entry: Entry, job_id: str | None, now: float) -> None:
    _save(connection, user_id, after)
    change(connection, _ADD_ENTRY, _entry_row(user_id, entry, job_id, now))


def _save(connection: Connection, user_id: str, after: Account) -> None:
    balance = after.balance
    values = {
        "wanted": user_id,
        "subscription": balance.subscription,
        "monthly": balance.monthly,
        "permanent": balance.permanent,
        "monthly_grant": after.monthly_grant,
        "month": after.month,
    }
    change(connection, _SAVE_PURSES, values)


def _entry_row(user_id: str, entry: Entry, job_id: str | None, now: float) -> Mapping[str, Any]:
    amounts = entry.amounts
    return {
        "user_id": user_id,
        "kind": entry.kind.value,
        "job_id": job_id,
        "subscription": amounts.subscription,
        "monthly": amounts.monthly,
        "permanent": amounts.permanent,
        "at": now,
    }


def _account(row: AnyRow) -> Account:
    return Account(_amounts(row), row.monthly_grant, row.month)


def _amounts(row: AnyRow) -> Amounts:
    return Amounts(int(row.subscription), int(row.monthly), int(row.permanent))


_EMPTY = {"subscription": 0, "monthly": 0, "permanent": 0, "monthly_grant": 0}
_USER = select(users.c.id).where(users.c.id == bindparam("wanted"))
_PAYER = select(api_keys.c.user_id).where(api_keys.c.id == bindparam("wanted"))
_PURSES = select(purses).where(purses.c.user_id == bindparam("wanted"))
# Says nothing on SQLite, which has one writer anyway.
_LOCKED_PURSES = _PURSES.with_for_update()
_ALL_PURSES = select(purses)
_ADD_PURSES = by_dialect(lambda insert_into: insert_into(purses).on_conflict_do_nothing(index_elements=["user_id"]))
_SAVE_PURSES = update(purses).where(purses.c.user_id == bindparam("wanted"))
_ADD_ENTRY = insert(ledger)
_HOLD = select(ledger).where(ledger.c.job_id == bindparam("wanted"), text(IS_HOLD))
_ENTRIES = (
    select(ledger)
    .where(ledger.c.user_id == bindparam("wanted"))
    .order_by(ledger.c.number.desc())
    .limit(bindparam("most"))
)
_TOTALS: Select[Any] = select(
    ledger.c.user_id,
    func.sum(ledger.c.subscription).label("subscription"),
    func.sum(ledger.c.monthly).label("monthly"),
    func.sum(ledger.c.permanent).label("permanent"),
).group_by(ledger.c.user_id)

"""Purses against a model that keeps every single credit, and the rules one by one."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime

import pytest

from gateway.errors import InsufficientCreditsError, InvalidInputError
from gateway.ledger import (
    CHARGED,
    MAX_CREDITS,
    Account,
    Amounts,
    Entry,
    EntryKind,
    Purse,
    grant,
    hold,
    month_of,
    refund,
    renew,
)

#: 100 000 in the long form.
STEPS = int(os.environ.get("COMFYGATE_STEPS", "600"))


def at(year, month, day=1, hour=0, minute=0, second=0.0):
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() + second


NOV = month_of(at(2026, 11))


def account(subscription=0, monthly=0, permanent=0, monthly_grant=0):
    return Account(Amounts(subscription, monthly, permanent), monthly_grant, NOV)


# ---- spending


def test_what_ends_soonest_is_spent_first():
    after, entry = hold(account(3, 4, 5), 9)
    assert entry == Entry(EntryKind.HOLD, Amounts(-3, -4, -2))
    assert after.balance == Amounts(0, 0, 3)


def test_last_credit_can_be_spent_and_none_beyond():
    assert hold(account(1, 1, 1), 3)[0].balance == Amounts()
    with pytest.raises(InsufficientCreditsError, match="this costs 4, and the balance is 3"):
        hold(account(1, 1, 1), 4)


def test_what_costs_nothing_is_never_held():
    for amount in (0, -1):
        with pytest.raises(ValueError, match="nothing"):
            hold(account(5), amount)


def test_refund_goes_back_to_where_the_hold_came_from():
    before = account(3, 4, 5)
    after, held = hold(before, 9)
    restored, entry = refund(after, held.amounts)
    assert restored == before
    assert entry == Entry(EntryKind.REFUND, Amounts(3, 4, 2))


def test_charge_moves_nothing():
    assert CHARGED.amounts == Amounts()


# ---- months


def test_month_begins_on_the_first_at_midnight_utc():
    assert month_of(at(2026, 11, 30, 23, 59, 59.999)) == NOV
    assert month_of(at(2026, 12)) == NOV + 1
    assert month_of(at(2027, 1)) == NOV + 2


@pytest.mark.parametrize(("left", "change"), [(0, 10), (4, 6), (25, -15)])
def test_monthly_purse_is_set_to_its_grant_up_or_down(left, change):
    after, entry = renew(account(1, left, 2, monthly_grant=10), at(2026, 12))
    assert after.balance == Amounts(1, 10, 2)
    assert entry == Entry(EntryKind.RENEWAL, Amounts(monthly=change))
    assert renew(after, at(2026, 12, 31)) == (after, None)


def test_months_that_nobody_looked_renew_once():
    after, _ = renew(account(monthly=3, monthly_grant=10), at(2027, 5, 17))
    assert after.balance.monthly == 10


def test_renewal_that_changes_nothing_is_no_entry():
    after, entry = renew(account(monthly=10, monthly_grant=10), at(2026, 12))
    assert (after.month, entry) == (NOV + 1, None)


def test_clock_that_was_put_back_renews_nothing():
    november = account(monthly=3, monthly_grant=10)
    assert renew(november, at(2026, 10, 31)) == (november, None)


def test_refund_of_last_month_is_gone_with_this_one():
    after, held = hold(account(monthly=10, monthly_grant=10), 4)
    december, _ = renew(after, at(2026, 12))
    given_back, _ = refund(december, held.amounts)
    assert given_back.balance.monthly == 14
    assert renew(given_back, at(2027, 1))[0].balance.monthly == 10


# ---- grants


def test_grants_add_to_subscription_and_permanent():
    after, entry = grant(account(1, 1, 1), Purse.PERMANENT, 5)
    assert (after.balance, entry.amounts) == (Amounts(1, 1, 6), Amounts(permanent=5))
    after, entry = grant(account(1, 1, 1), Purse.SUBSCRIPTION, 5)
    assert (after.balance, entry.amounts) == (Amounts(6, 1, 1), Amounts(subscription=5))


def test_monthly_grant_is_for_every_month_and_changes_this_one_by_the_difference():
    first, entry = grant(account(), Purse.MONTHLY, 10)
    assert (first.balance.monthly, first.monthly_grant, entry.amounts) == (10, 10, Amounts(monthly=10))
    spent, _ = hold(first, 7)
    assert grant(spent, Purse.MONTHLY, 10)[0] == spent, "granting the same again gives nothing"
    assert grant(spent, Purse.MONTHLY, 12)[0].balance.monthly == 5
    assert grant(spent, Purse.MONTHLY, 4)[0].balance.monthly == 0, "not below nothing"
    assert grant(spent, Purse.MONTHLY, 0)[0].monthly_grant == 0


@pytest.mark.parametrize("purse", Purse)
@pytest.mark.parametrize("amount", [-1, MAX_CREDITS + 1])
def test_amount_out_of_range_is_refused(purse, amount):
    with pytest.raises(InvalidInputError):
        grant(account(), purse, amount)


def test_nothing_cannot_be_granted_but_as_a_month():
    for purse in (Purse.SUBSCRIPTION, Purse.PERMANENT):
        with pytest.raises(InvalidInputError):
            grant(account(), purse, 0)


def test_account_has_a_top():
    with pytest.raises(InvalidInputError):
        grant(account(1, 1, MAX_CREDITS - 2), Purse.PERMANENT, 1)


# ---- against a model


class Coins:
    """Every credit on its own, with the purse that it lies in."""

    def __init__(self):
        self.lying = []
        self.grant, self.month = 0, NOV

    def count(self, purse):
        return self.lying.count(purse)

    def turn(self, month):
        if month > self.month:
            self.month = month
            self.lying = [purse for purse in self.lying if purse is not Purse.MONTHLY] + [Purse.MONTHLY] * self.grant

    def give(self, purse, amount):
        if purse is not Purse.MONTHLY:
            self.lying += [purse] * amount
            return
        for _ in range(self.grant - amount):
            if Purse.MONTHLY in self.lying:
                self.lying.remove(Purse.MONTHLY)
        self.lying += [Purse.MONTHLY] * (amount - self.grant)
        self.grant = amount

    def take(self, amount):
        if len(self.lying) < amount:
            return None
        order = list(Purse)
        self.lying.sort(key=order.index)
        taken, self.lying = self.lying[:amount], self.lying[amount:]
        return taken


def test_account_equals_a_model_of_single_coins_and_the_sum_of_its_entries():
    dice = random.Random(11)  # noqa: S311 - the same dice every time
    ours, coins, now = account(), Coins(), at(2026, 11)
    entries, open_ = Amounts(), []
    for _ in range(STEPS):
        now += dice.choice((0.0, 60.0, 86_400.0, 9 * 86_400.0))
        ours, renewal = renew(ours, now)
        coins.turn(month_of(now))
        entries += renewal.amounts if renewal else Amounts()
        what = dice.random()
        if what < 0.15:
            purse, amount = dice.choice(list(Purse)), dice.randint(1, 30)
            ours, entry = grant(ours, purse, amount)
            coins.give(purse, amount)
            entries += entry.amounts
        elif what < 0.7:
            price = dice.randint(1, 12)
            taken = coins.take(price)
            if taken is None:
                with pytest.raises(InsufficientCreditsError):
                    hold(ours, price)
            else:
                ours, entry = hold(ours, price)
                open_.append((entry, taken))
                entries += entry.amounts
        elif open_:
            held, taken = open_.pop(dice.randrange(len(open_)))
            if what < 0.85:
                entries += CHARGED.amounts
            else:
                ours, entry = refund(ours, held.amounts)
                coins.lying += taken
                entries += entry.amounts
        found = Amounts(*(coins.count(purse) for purse in Purse))
        assert ours.balance == found == entries
        assert min(found.subscription, found.monthly, found.permanent) >= 0

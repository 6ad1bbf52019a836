"""The key of the demo: one that opens at each start, and the lines that use it."""

from __future__ import annotations

import itertools
import json
import shlex

import pytest

from gateway.cli.demo_v1 import CREDITS, FACE_URL, NAME, TARGET_URL, fresh_key, lines
from gateway.engine.accounts import Accounts, NewKey
from gateway.engine.credits import Credits
from gateway.ledger import Amounts
from gateway.store.sql_store import SqlStore
from tests.fakes.clock import FrozenClock


@pytest.fixture
async def book():
    store, clock, numbers = SqlStore.in_memory(), FrozenClock(), itertools.count(1)
    yield (
        Accounts(store.accounts, clock, lambda: f"id-{next(numbers):04}"),
        Credits(store.credits, store.accounts, clock),
    )
    await store.close()


async def test_each_start_has_a_key_that_opens_and_the_one_before_does_not(book):
    accounts, credits_of = book
    first = await fresh_key(accounts, credits_of)
    second = await fresh_key(accounts, credits_of)
    assert await accounts.keyholder(first) is None
    assert (await accounts.keyholder(second)).user.name == NAME
    assert len(await accounts.keys()) == 1
    assert (await credits_of.statement(NAME)).account.balance == Amounts(permanent=CREDITS)


async def test_what_was_spent_is_there_again_at_the_next_start(book):
    accounts, credits_of = book
    await accounts.create_user(NAME)
    await credits_of.grant(NAME, "monthly", 3)
    await fresh_key(accounts, credits_of)
    assert (await credits_of.statement(NAME)).account.balance == Amounts(0, 3, CREDITS - 3)


async def test_a_revoked_key_is_followed_by_another_however_many_there_are(book):
    accounts, credits_of = book
    for number in range(101):
        await accounts.create_key(NewKey(f"key {number}", user=None if not number else "key 0"))
    first = (await accounts.keyholder(await fresh_key(accounts, credits_of))).key
    again = (await accounts.keyholder(await fresh_key(accounts, credits_of))).key
    assert again.id == first.id
    await accounts.revoke_key(first.id)
    other = (await accounts.keyholder(await fresh_key(accounts, credits_of))).key
    assert other.id != first.id


def test_lines_are_words_of_a_shell_as_they_stand():
    whole = lines("http://127.0.0.1:8000", "cfg_test_x")
    me, swap = shlex.split(whole.partition("\n")[0]), shlex.split(whole.partition("\n")[2])
    assert me == ["curl", "-sS", "http://127.0.0.1:8000/api/v1/me", "-H", "Authorization: Bearer cfg_test_x"]
    assert swap[2] == "http://127.0.0.1:8000/api/v1/swaps?wait=true"
    assert json.loads(swap[-1]) == {"type": "image", "source_url": FACE_URL, "target_url": TARGET_URL}

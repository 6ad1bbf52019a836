"""How the engine keeps its book: what is believed for how long, what is told once."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from gateway.accounts import DEFAULT_SCOPES, RANDOM_BYTES, KeyKind, Scope, hash_of, is_key_text, key_text
from gateway.engine import accounts as book_of_accounts
from gateway.engine.accounts import BELIEVED_SECONDS, Accounts, NewKey
from gateway.errors import ConflictError, InvalidInputError, NotFoundError
from gateway.store.sql_store import SqlStore
from tests.fakes.accounts import MemoryAccounts
from tests.fakes.clock import FrozenClock


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture
def kept():
    return MemoryAccounts()


@pytest.fixture
def book(kept, clock):
    numbers = itertools.count(1)
    return Accounts(kept, clock, lambda: f"id-{next(numbers)}", lambda count: next(numbers).to_bytes(count, "big"))


async def test_a_key_is_told_once_and_only_its_hash_is_kept(book, kept):
    told = await book.create_key(NewKey("laptop"))
    assert is_key_text(told.text)
    assert list(kept.hashes) == [hash_of(told.text)]
    assert told.text not in repr(told) + repr(kept.by_id) + str(told.holder)
    assert told.text.startswith(told.holder.key.prefix)
    assert (told.holder.user.name, told.holder.key.scopes) == ("laptop", DEFAULT_SCOPES)


async def test_a_key_of_a_user_that_there_is(book):
    ann = await book.create_user("ann", tier="pro", email_verified=True)
    told = await book.create_key(NewKey("phone", "ann", 7, 2, frozenset({Scope.ADMIN}), KeyKind.TEST, 2e9))
    assert told.holder.user == ann
    key = told.holder.key
    assert (key.rate_limit, key.concurrency, key.scopes, key.expires_at) == (7, 2, frozenset({Scope.ADMIN}), 2e9)
    assert told.text.startswith("cfg_test_")


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewKey("x", user="nobody"), NotFoundError),
        (NewKey(""), InvalidInputError),
        (NewKey("x", rate_limit=0), InvalidInputError),
        (NewKey("x", concurrency=10**9), InvalidInputError),
        (NewKey("x", expires_at=0.0), InvalidInputError),
    ],
    ids=repr,
)
async def test_a_key_that_cannot_be_leaves_nothing(book, kept, new, error):
    with pytest.raises(error):
        await book.create_key(new)
    assert (kept.by_id, kept.by_name, kept.hashes) == ({}, {}, {})


async def test_what_cannot_be_a_key_is_not_asked_about(book, kept):
    told = await book.create_key(NewKey("laptop"))
    for text in ("", "x", told.text[:-1], told.text + "0", told.text.swapcase(), told.text.replace("live", "test")):
        assert await book.keyholder(text) is None
    assert kept.asked == []
    assert await book.keyholder(key_text(KeyKind.LIVE, bytes(RANDOM_BYTES))) is None
    assert len(kept.asked) == 1


async def test_a_good_key_is_believed_for_half_a_second_and_no_longer(book, kept, clock):
    told = await book.create_key(NewKey("laptop"))
    for _ in range(3):
        assert await book.keyholder(told.text) == told.holder
    assert len(kept.asked) == 1
    clock.advance(BELIEVED_SECONDS - 0.01)
    await book.keyholder(told.text)
    assert len(kept.asked) == 1
    await kept.revoke_key(told.holder.key.id, now=clock.now())  # by somebody else
    clock.advance(0.01)
    assert await book.keyholder(told.text) is None
    assert BELIEVED_SECONDS < 1


async def test_revoking_here_is_heard_of_at_once(book):
    told = await book.create_key(NewKey("laptop"))
    assert await book.keyholder(told.text) is not None
    revoked = await book.revoke_key(told.holder.key.id)
    assert revoked.key.revoked_at is not None
    assert await book.keyholder(told.text) is None
    with pytest.raises(NotFoundError):
        await book.revoke_key("nobody's")


async def test_an_answer_that_a_revocation_overtook_is_not_believed(book, kept, monkeypatch):
    told = await book.create_key(NewKey("laptop"))
    begun, gate, plain = asyncio.Event(), asyncio.Event(), kept.keyholder

    async def slow(key_hash, *, now):
        found = await plain(key_hash, now=now)
        begun.set()
        await gate.wait()
        return found

    monkeypatch.setattr(kept, "keyholder", slow)
    asked = asyncio.create_task(book.keyholder(told.text))
    await begun.wait()
    await book.revoke_key(told.holder.key.id)
    gate.set()
    assert await asked is not None, "it was good when it was asked about"
    assert await book.keyholder(told.text) is None


async def test_rotating_keeps_the_key_and_its_kind_and_ends_the_old_text_at_once_or_later(book, clock):
    told = await book.create_key(NewKey("laptop", kind=KeyKind.TEST))
    key_id = told.holder.key.id
    later = await book.rotate_key(key_id, overlap_seconds=60)
    assert later.holder.key.id == key_id
    assert later.text.startswith("cfg_test_")
    assert (await book.keyholder(told.text)).key == (await book.keyholder(later.text)).key
    clock.advance(60)
    assert await book.keyholder(told.text) is None
    last = await book.rotate_key(key_id)
    assert await book.keyholder(later.text) is None
    assert await book.keyholder(last.text) is not None
    with pytest.raises(NotFoundError):
        await book.rotate_key("nobody's")
    with pytest.raises(InvalidInputError):
        await book.rotate_key(key_id, overlap_seconds=-1)


async def test_what_is_believed_is_bounded(book, kept, monkeypatch):
    monkeypatch.setattr(book_of_accounts, "MAX_BELIEVED", 2)
    texts = [(await book.create_key(NewKey(f"key {number}"))).text for number in range(3)]
    for text in texts:
        await book.keyholder(text)
    assert list(book._believed) == [hash_of(text) for text in texts[1:]]


async def test_last_use_is_stored_when_it_is_time(book, kept, clock):
    told = await book.create_key(NewKey("laptop"))
    await book.keyholder(told.text)
    clock.advance(5)
    await book.keyholder(told.text)
    assert (await book.keys())[0].key.last_used_at is None
    await book.save_last_used()
    assert (await book.keys())[0].key.last_used_at == clock.now()
    await book.save_last_used()


async def test_names_are_taken_once_on_the_real_store(clock):
    store = SqlStore.in_memory()
    numbers = itertools.count(1)
    book = Accounts(store.accounts, clock, lambda: f"id-{next(numbers)}")
    await book.create_user("ann")
    with pytest.raises(ConflictError):
        await book.create_user("ann")
    told = await book.create_key(NewKey("laptop", user="ann"))
    with pytest.raises(ConflictError):
        await book.create_key(NewKey("laptop", user="ann"))
    assert (await book.keyholder(told.text)).user.name == "ann"
    assert [user.name for user in await book.users()] == ["ann"]
    await store.close()

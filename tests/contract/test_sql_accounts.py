"""What every store promises of users and keys, over each executor; the fake that other tests use keeps it too."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from gateway.accounts import Key, Scope, User
from gateway.errors import ConflictError, NotFoundError
from gateway.store.queries import accounts
from gateway.store.schema_accounts import api_keys, users
from gateway.store.sql_store import SqlStore

ANN = User("u-ann", "ann", "free", False, 1.0)
BOB = User("u-bob", "bob", "pro", True, 2.0)
KEY = Key("k-1", "u-ann", "laptop", "cfg_live_12345678", 60, 4, frozenset({Scope.JOBS}), 10.0)
FIRST, SECOND, THIRD = ("1" * 64, "2" * 64, "3" * 64)


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("accounts") / "empty.db"

    async def make():
        await (await SqlStore.open(path, result_retention_seconds=1.0, asset_retention_seconds=1.0)).close()

    asyncio.run(make())
    return path


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, empty_file):
    if request.param == "file":
        path = Path(shutil.copy(empty_file, tmp_path / "gateway.db"))
        made = await SqlStore.open(path, result_retention_seconds=1.0, asset_retention_seconds=1.0)
    else:
        made = SqlStore.in_memory()
    yield made
    await made.close()


@pytest.fixture
async def book(store):
    await store.accounts.create_user(ANN)
    await store.accounts.create_user(BOB)
    return store.accounts


async def test_users_are_listed_as_they_were_made_and_found_by_name(book):
    assert await book.users(after="", limit=9) == [ANN, BOB]
    assert await book.user_named("bob") == BOB
    assert await book.user_named("eve") is None


async def test_lists_come_in_pages(book):
    assert await book.users(after="", limit=1) == [ANN]
    assert await book.users(after=ANN.id, limit=9) == [BOB]
    made = [
        await book.create_key(replace(KEY, id=f"k-{number}", name=f"key {number}"), str(number) * 64)
        for number in range(3)
    ]
    assert await book.keys(after="", limit=2) == made[:2]
    assert await book.keys(after="k-1", limit=2) == made[2:]
    assert [await book.key("k-1"), await book.key("k-9")] == [made[1], None]


async def test_a_name_belongs_to_one_user(book):
    with pytest.raises(ConflictError):
        await book.create_user(replace(BOB, id="u-other", name="ann"))
    assert await book.users(after="", limit=9) == [ANN, BOB]


async def test_a_key_is_found_by_its_hash_with_its_user(book):
    made = await book.create_key(KEY, FIRST)
    assert (made.key, made.user) == (KEY, ANN)
    assert await book.keyholder(FIRST, now=11.0) == made
    assert await book.keyholder(SECOND, now=11.0) is None
    assert await book.keys(after="", limit=9) == [made]


async def test_lists_of_node_classes_and_a_target_are_kept_with_the_key(book):
    limited = replace(KEY, nodes_deny=frozenset({"B*", "A é"}), nodes_allow=frozenset({"Save*"}), deliver_to="archive")
    half = replace(KEY, id="k-2", name="phone", nodes_allow=frozenset({"*"}))
    made = [await book.create_key(limited, FIRST), await book.create_key(half, SECOND)]
    assert [holder.key for holder in made] == [limited, half]
    assert (await book.keyholder(FIRST, now=11.0)).key == limited
    await book.rotate_key(limited.id, THIRD, limited.prefix, old_until=0.0, now=11.0)
    assert (await book.keyholder(THIRD, now=11.0)).key == limited
    assert [holder.key for holder in await book.keys(after="", limit=9)] == [limited, half]


async def test_a_key_without_a_user_gets_one_of_its_own_the_first_time_only(book):
    eve = User("u-eve", "eve", "free", False, 3.0)
    first = await book.create_key(replace(KEY, user_id=""), FIRST, new_user=eve)
    second = await book.create_key(
        replace(KEY, id="k-2", user_id="", name="phone"), SECOND, new_user=replace(eve, id="u-eve-2")
    )
    assert first.user == second.user == eve
    assert await book.users(after="", limit=9) == [ANN, BOB, eve]


async def test_a_key_of_nobody_is_refused_and_leaves_nothing(book):
    with pytest.raises(NotFoundError):
        await book.create_key(replace(KEY, user_id="u-none"), FIRST)
    assert await book.keys(after="", limit=9) == []
    assert await book.keyholder(FIRST, now=11.0) is None


async def test_a_user_has_one_live_key_of_a_name(book):
    await book.create_key(KEY, FIRST)
    with pytest.raises(ConflictError):
        await book.create_key(replace(KEY, id="k-2"), SECOND)
    assert await book.keyholder(SECOND, now=11.0) is None
    other = await book.create_key(replace(KEY, id="k-3", user_id=BOB.id), SECOND)
    await book.revoke_key(KEY.id, now=12.0)
    again = await book.create_key(replace(KEY, id="k-4", created_at=13.0), THIRD)
    assert [holder.key.id for holder in await book.keys(after="", limit=9)] == ["k-1", "k-3", "k-4"]
    assert (other.user, again.user) == (BOB, ANN)


async def test_a_revoked_key_opens_nothing_is_still_listed_and_stays_revoked_when_it_was(book):
    await book.create_key(KEY, FIRST)
    revoked = await book.revoke_key(KEY.id, now=12.0)
    assert revoked.key == replace(KEY, revoked_at=12.0)
    assert await book.keyholder(FIRST, now=12.0) is None
    assert (await book.revoke_key(KEY.id, now=99.0)).key.revoked_at == 12.0
    assert [holder.key for holder in await book.keys(after="", limit=9)] == [revoked.key]
    assert await book.revoke_key("k-none", now=12.0) is None


async def test_a_key_past_its_time_opens_nothing(book):
    await book.create_key(replace(KEY, expires_at=20.0), FIRST)
    assert await book.keyholder(FIRST, now=19.9) is not None
    assert await book.keyholder(FIRST, now=20.0) is None


async def test_a_rotated_key_is_the_same_key_and_its_old_text_opens_until_its_time(book):
    await book.create_key(KEY, FIRST)
    rotated = await book.rotate_key(KEY.id, SECOND, "cfg_live_abcdefgh", old_until=30.0, now=20.0)
    assert rotated.key == replace(KEY, prefix="cfg_live_abcdefgh")
    assert await book.keyholder(FIRST, now=29.9) == rotated == await book.keyholder(SECOND, now=29.9)
    assert await book.keyholder(FIRST, now=30.0) is None
    assert await book.keyholder(SECOND, now=1e9) == rotated


async def test_no_more_than_two_texts_open_as_one_key(book):
    await book.create_key(KEY, FIRST)
    await book.rotate_key(KEY.id, SECOND, KEY.prefix, old_until=99.0, now=20.0)
    await book.rotate_key(KEY.id, THIRD, KEY.prefix, old_until=99.0, now=21.0)
    found = [await book.keyholder(text, now=22.0) is not None for text in (FIRST, SECOND, THIRD)]
    assert found == [False, True, True]
    await book.rotate_key(KEY.id, FIRST, KEY.prefix, old_until=23.0, now=23.0)
    found = [await book.keyholder(text, now=23.0) is not None for text in (FIRST, SECOND, THIRD)]
    assert found == [True, False, False]


async def test_what_is_revoked_is_not_rotated(book):
    await book.create_key(KEY, FIRST)
    await book.rotate_key(KEY.id, SECOND, KEY.prefix, old_until=99.0, now=20.0)
    await book.revoke_key(KEY.id, now=21.0)
    with pytest.raises(ConflictError):
        await book.rotate_key(KEY.id, THIRD, KEY.prefix, old_until=99.0, now=22.0)
    assert [await book.keyholder(text, now=22.0) for text in (FIRST, SECOND, THIRD)] == [None, None, None]
    assert await book.rotate_key("k-none", THIRD, KEY.prefix, old_until=99.0, now=22.0) is None


async def test_last_use_only_goes_forward(book):
    await book.create_key(KEY, FIRST)
    for at, seen in ((50.0, 50.0), (40.0, 50.0), (60.0, 60.0)):
        await book.save_last_used({KEY.id: at, "k-none": at})
        assert (await book.keyholder(FIRST, now=70.0)).key.last_used_at == seen
    await book.save_last_used({})


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (users, {"id": "u", "name": "", "tier": "free", "email_verified": False, "created_at": 1.0}),
        (users, {"id": "u", "name": "ann", "tier": "free", "email_verified": False, "created_at": 1.0}),
        (api_keys, {"rate_limit": 0}),
        (api_keys, {"concurrency": 0}),
        (api_keys, {"scopes": "[]"}),
        (api_keys, {"user_id": "u-none"}),
        (api_keys, {"nodes_deny": "[]"}),
        (api_keys, {"nodes_allow": "[]"}),
        (api_keys, {"prefix": "cfg_live_" + "0" * 38}),
    ],
    ids=str,
)
async def test_the_database_refuses(store, book, table, row):
    whole = {**accounts._key_row(KEY), "user_id": ANN.id, **row} if table is api_keys else row

    def add(connection):
        connection.execute(insert(table), whole)

    with pytest.raises(IntegrityError):
        await store._executor.write(add)

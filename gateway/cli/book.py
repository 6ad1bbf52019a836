"""Users and keys as the commands reach them: through a running gateway, or in the data directory when none runs.

Both answer with the same bodies, those of ``gateway/api/keys.py`` and ``gateway/api/credits.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import quote

from uuid_utils.compat import uuid7

from gateway.api import credits as credit_routes
from gateway.api import keys
from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.keeping import our_sentences
from gateway.cli.reaching import DATABASE, Held
from gateway.clock import SystemClock
from gateway.engine.accounts import Accounts
from gateway.engine.credits import Credits
from gateway.store.sql_store import SqlStore
from gateway.strictjson import JsonValue

Body = Mapping[str, JsonValue]
#: Pages of a list that a command shows; a hundred entries each.
MAX_PAGES = 1000


class Book(Protocol):
    """What the commands do."""

    async def create_user(self, body: Body) -> Any:
        """Make a user."""
        ...

    async def create_key(self, body: Body) -> Any:
        """Make a key; its text is in ``key``."""
        ...

    async def revoke_key(self, key_id: str) -> Any:
        """Have a key open nothing."""
        ...

    async def rotate_key(self, key_id: str, body: Body) -> Any:
        """Give a key a new text, which is in ``key``."""
        ...

    async def grant(self, body: Body) -> Any:
        """Give a user credits; what the user has then."""
        ...

    async def statement(self, user: str) -> Any:
        """What a user has, and why."""
        ...

    async def page(self, what: str, after: str) -> Any:
        """A page of ``users`` or ``keys``."""
        ...


class _There:
    """A running gateway's."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client

    async def create_user(self, body: Body) -> Any:
        return await self._client.admin("POST", "/-/users", body)

    async def create_key(self, body: Body) -> Any:
        return await self._client.admin("POST", "/-/keys", body)

    async def revoke_key(self, key_id: str) -> Any:
        return await self._client.admin("DELETE", f"/-/keys/{quote(key_id, safe='')}")

    async def rotate_key(self, key_id: str, body: Body) -> Any:
        return await self._client.admin("POST", f"/-/keys/{quote(key_id, safe='')}/rotate", body)

    async def grant(self, body: Body) -> Any:
        return await self._client.admin("POST", "/-/credits", body)

    async def statement(self, user: str) -> Any:
        return await self._client.admin("GET", f"/-/credits?user={quote(user, safe='')}")

    async def page(self, what: str, after: str) -> Any:
        return await self._client.admin("GET", f"/-/{what}" + (f"?after={quote(after, safe='')}" if after else ""))


class _Here:
    """A directory's."""

    def __init__(self, accounts: Accounts, credits_of: Credits, clock: SystemClock) -> None:
        self._accounts = accounts
        self._credits = credits_of
        self._clock = clock

    async def create_user(self, body: Body) -> Any:
        return await keys.create_user(self._accounts, body)

    async def create_key(self, body: Body) -> Any:
        return await keys.create_key(self._accounts, self._credits, body, self._clock.now())

    async def revoke_key(self, key_id: str) -> Any:
        return keys.key_body(await self._accounts.revoke_key(key_id))

    async def rotate_key(self, key_id: str, body: Body) -> Any:
        return await keys.rotate_key(self._accounts, key_id, body)

    async def grant(self, body: Body) -> Any:
        return await credit_routes.grant(self._credits, body)

    async def statement(self, user: str) -> Any:
        return credit_routes.statement_body(await self._credits.statement(user))

    async def page(self, what: str, after: str) -> Any:
        pages = {"users": keys.user_page, "keys": keys.key_page}
        return await pages[what](self._accounts, after)


@asynccontextmanager
async def open_book(where: GatewayClient | Held) -> AsyncIterator[Book]:
    """The book of a gateway, or of a directory that this process holds.

    Raises:
        ClientError: out of what is done with it too: with the sentence for the operator.
    """
    if isinstance(where, GatewayClient):
        yield _There(where)
        return
    clock = SystemClock()
    with our_sentences(where.folder):
        store = await SqlStore.open(where.folder / DATABASE, result_retention_seconds=0.0, asset_retention_seconds=0.0)
        try:
            accounts = Accounts(store.accounts, clock, lambda: str(uuid7()))
            yield _Here(accounts, Credits(store.credits, store.accounts, clock), clock)
        finally:
            await store.close()


async def everything(book: Book, what: str) -> list[Any]:
    """All ``users``, or all ``keys``."""
    found: list[Any] = []
    after = ""
    for _ in range(MAX_PAGES):
        page = await book.page(what, after)
        found += page[what]
        if page["next"] is None:
            return found
        after = page["next"]
    raise ClientError(f"There are more than {len(found)} {what}: ask the gateway at /-/{what}, page by page.")


async def key_called(book: Book, wanted: str, user: str | None) -> Any:
    """The key with this id, or the one that is not revoked with this name.

    Raises:
        ClientError: there is none, or there are several.
    """
    found = await everything(book, "keys")
    if by_id := [key for key in found if key["id"] == wanted]:
        return by_id[0]
    named = [
        key for key in found if key["name"] == wanted and key["revoked_at"] is None and user in {None, key["user"]}
    ]
    if not named:
        raise ClientError(f"There is no key {wanted!r}: 'comfygate keys list' shows them.")
    if len(named) > 1:
        owners = ", ".join(sorted(key["user"] for key in named))
        raise ClientError(f"Several users have a key {wanted!r} ({owners}): say which with --user, or give its id.")
    return named[0]

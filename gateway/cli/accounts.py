"""The commands ``comfygate users``, ``comfygate keys`` and ``comfygate credits``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import cyclopts

from gateway import logs
from gateway.cli.operating import DataDir, Token, Url
from gateway.strictjson import JsonValue

users = cyclopts.App(name="users", help="Who pays: users, each with keys of its own.")
keys = cyclopts.App(name="keys", help="Who calls: keys, which a gateway in keys mode wants with every request.")
credits_of = cyclopts.App(name="credits", help="What users have to spend on jobs.")

_HOUR_SECONDS = 3600
_DAY_SECONDS = 86_400


def register(app: cyclopts.App) -> None:
    """Add the commands to the command line."""
    app.command(users)
    app.command(keys)
    app.command(credits_of)


@users.command(name="create")
def create_user(
    name: str,
    *,
    tier: str | None = None,
    email_verified: Annotated[bool, cyclopts.Parameter(negative=())] = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Make a user.

    Args:
        name: a name that no other user has.
        tier: a word of yours; free when not given.
        email_verified: that somebody has made sure of the address.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """
    body: dict[str, JsonValue] = {"name": name, "email_verified": email_verified, **({"tier": tier} if tier else {})}
    made = _with_book(lambda book: book.create_user(body), url, token, data_dir, may_make=True)
    print(f"Made user {made['name']}, tier {made['tier']}")


@users.command(name="list")
def list_users(*, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """List all users, the oldest first."""
    from gateway.cli.book import everything
    from gateway.cli.listing import show_users

    show_users(_with_book(lambda book: everything(book, "users"), url, token, data_dir))


@keys.command(name="create")
def create_key(
    *,
    name: str,
    user: str | None = None,
    rate: int | None = None,
    concurrency: int | None = None,
    with_credits: Annotated[int | None, cyclopts.Parameter(name="--credits")] = None,
    scopes: Annotated[list[str] | None, cyclopts.Parameter(consume_multiple=True, negative=())] = None,
    nodes_deny: Annotated[list[str] | None, cyclopts.Parameter(consume_multiple=True, negative=())] = None,
    nodes_allow: Annotated[list[str] | None, cyclopts.Parameter(consume_multiple=True, negative=())] = None,
    deliver_to: str | None = None,
    expires_in_days: float | None = None,
    test: Annotated[bool, cyclopts.Parameter(negative=())] = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key, and print it, alone on the last line: it is told this once.

    Args:
        name: what to call it; no other key of its user that is not revoked may be called so.
        user: whose it is; without, a user of the key's name, made if need be.
        rate: requests in any minute.
        concurrency: creating requests at a time.
        with_credits: what its user gets, into the permanent purse.
        scopes: what it may do: jobs (the default), admin.
        nodes_deny: patterns of node classes that its own workflows may not use, beside those that the gateway denies.
        nodes_allow: patterns of the only node classes that they may use, of those that the gateway allows.
        deliver_to: one of GATEWAY_DELIVERY_TARGETS, where the outputs of its jobs are put.
        expires_in_days: when it ends by itself; never when not given.
        test: make it begin with cfg_test_, for scanners of secrets; it opens the same.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """
    from gateway.cli.listing import rules_of

    given: dict[str, JsonValue] = {
        "user": user,
        "rate_limit": rate,
        "concurrency": concurrency,
        "credits": with_credits,
        "scopes": _listed(scopes) if scopes else None,
        "nodes_deny": None if nodes_deny is None else _listed(nodes_deny),
        "nodes_allow": None if nodes_allow is None else _listed(nodes_allow),
        "deliver_to": deliver_to,
        "expires_in_seconds": None
        if expires_in_days is None
        else _seconds(expires_in_days, _DAY_SECONDS, "--expires-in-days"),
        "is_test": test or None,
    }
    body: dict[str, JsonValue] = {"name": name, **{field: value for field, value in given.items() if value is not None}}
    told = _with_book(lambda book: book.create_key(body), url, token, data_dir, may_make=True)
    print(
        f"Made key {told['name']} of user {told['user']}: {told['rate_limit']} requests a minute, "
        f"{told['concurrency']} creating at a time, may {', '.join(told['scopes'])}."
    )
    for line in rules_of(told):
        print(line)
    print(f"Its id is {told['id']}. The key itself is not kept; this is the one time that it is shown:")
    print(told["key"])


@keys.command(name="list")
def list_keys(*, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """List all keys, the oldest first, by the beginning of their texts; revoked ones too."""
    from gateway.cli.book import everything
    from gateway.cli.listing import show_keys

    show_keys(_with_book(lambda book: everything(book, "keys"), url, token, data_dir))


@keys.command
def revoke(
    key: str, *, user: str | None = None, url: Url = None, token: Token = None, data_dir: DataDir = None
) -> None:
    """Have a key open nothing any more. Its jobs go on, and no other key sees them.

    Args:
        key: its id or name.
        user: whose, when several users have a key of that name.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """
    from gateway.cli.book import key_called

    async def work(book: Any) -> Any:
        return await book.revoke_key((await key_called(book, key, user))["id"])

    told = _with_book(work, url, token, data_dir)
    print(f"Revoked key {told['name']} of user {told['user']} ({told['prefix']}…)")


@keys.command
def rotate(
    key: str,
    *,
    user: str | None = None,
    overlap_hours: float = 0.0,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Give a key a new text, and print it, alone on the last line. It stays the same key: jobs, lists and limits go on.

    Args:
        key: its id or name.
        user: whose, when several users have a key of that name.
        overlap_hours: how long the text before it opens beside it.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """
    from gateway.cli.book import key_called

    overlap_seconds = _seconds(overlap_hours, _HOUR_SECONDS, "--overlap-hours")

    async def work(book: Any) -> Any:
        found = await key_called(book, key, user)
        return await book.rotate_key(found["id"], {"overlap_seconds": overlap_seconds})

    told = _with_book(work, url, token, data_dir)
    until = f"opens for {overlap_hours:g} h more" if overlap_hours else "opens nothing any more"
    print(f"Rotated key {told['name']} of user {told['user']}. The text before {until}; this is the new one:")
    print(told["key"])


@credits_of.command(name="grant")
def grant_credits(
    user: str,
    amount: int,
    *,
    purse: Literal["subscription", "monthly", "permanent"] = "permanent",
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Give a user credits.

    Args:
        user: name of the user.
        amount: how many; of the monthly purse, what it is set to on each 1st, and 0 ends that.
        purse: where they go: spent in the order subscription, monthly, permanent.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """
    from gateway.cli.listing import show_purses

    body: dict[str, JsonValue] = {"user": user, "credits": amount, "purse": purse}
    show_purses(_with_book(lambda book: book.grant(body), url, token, data_dir))


@credits_of.command(name="show")
def show_credits(user: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Show what a user has, and the newest entries of the ledger.

    Args:
        user: name of the user.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """
    from gateway.cli.listing import show_entries, show_purses

    told = _with_book(lambda book: book.statement(user), url, token, data_dir)
    show_purses(told)
    show_entries(told["entries"])


def _listed(given: list[str]) -> list[JsonValue]:
    """Words that were given one by one, with commas between them, or both."""
    return [word.strip() for words in given for word in words.split(",") if word.strip()]


def _seconds(number: float, unit_seconds: int, flag: str) -> int:
    """Whole seconds; how many there may be is for whoever is told them. Raises ClientError where it is no number."""
    from gateway.cli.client import ClientError

    seconds = number * unit_seconds
    if not math.isfinite(seconds):
        raise ClientError(f"{flag} is a number.")
    return round(seconds)


def _with_book(
    work: Callable[[Any], Awaitable[Any]], url: str | None, token: str | None, data_dir: Any, *, may_make: bool = False
) -> Any:
    from gateway.cli.book import open_book
    from gateway.cli.reaching import gateway_or_directory

    logs.configure("warning", "text")

    async def run(where: Any) -> Any:
        async with open_book(where) as book:
            return await work(book)

    with gateway_or_directory(url, token, data_dir, may_make=may_make) as where:
        return asyncio.run(run(where))

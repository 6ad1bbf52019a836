"""The commands ``comfygate consent``: through a running gateway, or in the data directory when none runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import cyclopts

from gateway import logs
from gateway.cli.client import GatewayClient
from gateway.cli.operating import DataDir, Token, Url

consent = cyclopts.App(name="consent", help="What was said of the people in the pictures, and of which pictures.")

#: A page of an export.
PAGE = 500
#: (job id or None, query) -> what the routes below /-/consent answer.
Ask: TypeAlias = Callable[[str | None, Mapping[str, str]], Awaitable[Any]]


def register(app: cyclopts.App) -> None:
    """Add the commands to the command line."""
    app.command(consent)


@consent.command
def show(job: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Show the record of one job, as JSON; it is kept longer than the job.

    Args:
        job: its id.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """

    async def work(ask: Ask) -> None:
        print(json.dumps(await ask(job, {}), indent=2))

    _with_records(work, url, token, data_dir)


@consent.command
def export(
    *,
    since: str | None = None,
    owner: str | None = None,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Print all records, the oldest first, each a line of JSON.

    Args:
        since: only from this day or time on: 2026-05-31, 2026-05-31T12:00:00Z.
        owner: only of this key, by its id; local for jobs sent without one.
        url: base URL of the gateway.
        token: admin token, or a key with the scope admin.
        data_dir: data directory; opened here when no gateway holds it.
    """
    wanted = {name: value for name, value in (("since", since), ("owner", owner)) if value}

    async def work(ask: Ask) -> None:
        after: str | None = ""
        while after is not None:
            page = await ask(None, {**wanted, "limit": str(PAGE), **({"after": after} if after else {})})
            for record in page["consents"]:
                print(json.dumps(record))
            after = page["next"]

    _with_records(work, url, token, data_dir)


def _with_records(
    work: Callable[[Ask], Awaitable[None]], url: str | None, token: str | None, data_dir: DataDir
) -> None:
    from gateway.cli.reaching import gateway_or_directory

    logs.configure("warning", "text")

    async def run(where: Any) -> None:
        async with _records(where) as ask:
            await work(ask)

    with gateway_or_directory(url, token, data_dir) as where:
        asyncio.run(run(where))


@asynccontextmanager
async def _records(where: Any) -> AsyncIterator[Ask]:
    if isinstance(where, GatewayClient):
        client = where

        async def ask_there(job: str | None, query: Mapping[str, str]) -> Any:
            path = "/-/consent" if job is None else f"/-/consent/{quote(job, safe='')}"
            return await client.admin("GET", f"{path}?{urlencode(query)}")

        yield ask_there
        return
    async with _records_in(where) as ask:
        yield ask


@asynccontextmanager
async def _records_in(held: Any) -> AsyncIterator[Ask]:
    """Those in a directory that this process holds."""
    from gateway.api import consents as routes
    from gateway.cli.keeping import our_sentences
    from gateway.cli.reaching import DATABASE
    from gateway.clock import SystemClock
    from gateway.engine.consents import Consents
    from gateway.store.sql_store import SqlStore

    with our_sentences(held.folder):
        store = await SqlStore.open(held.folder / DATABASE, result_retention_seconds=0.0, asset_retention_seconds=0.0)
        try:
            kept = Consents(store.consents, SystemClock(), 0.0)

            async def ask_here(job: str | None, query: Mapping[str, str]) -> Any:
                return await (routes.page(kept, query) if job is None else routes.one(kept, job))

            yield ask_here
        finally:
            await store.close()

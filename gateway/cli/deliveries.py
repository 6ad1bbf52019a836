"""The commands ``comfygate deliveries``: everybody's for the operator, or with ``--token`` those of a key."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from urllib.parse import quote

import cyclopts

from gateway.cli.operating import DataDir, Token, Url

deliveries = cyclopts.App(name="deliveries", help="Where finished files were put, and where not.")


def register(app: cyclopts.App) -> None:
    """Add the commands to the command line."""
    app.command(deliveries)


@deliveries.command(name="list")
def list_deliveries(
    *,
    state: Literal["pending", "delivered", "failed"] | None = None,
    limit: int = 50,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """List deliveries, the newest first.

    Args:
        state: only those: pending, delivered or failed (given up).
        limit: most, up to 100.
        url: base URL of the gateway.
        token: whose: a key's own, or with the admin token everybody's.
        data_dir: data directory of this machine's gateway.
    """
    from gateway.cli.listing import show_deliveries

    query = f"?limit={limit}" + (f"&state={state}" if state else "")
    show_deliveries(_ask("GET", f"/-/deliveries{query}", url, token, data_dir))


@deliveries.command
def redeliver(delivery: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Have a file delivered that was given up, or that waits: now, and by the schedule from its beginning.

    Args:
        delivery: its id, as 'comfygate deliveries list' shows it.
        url: base URL of the gateway.
        token: whose it is; the admin token for anybody's.
        data_dir: data directory of this machine's gateway.
    """
    _ask("POST", f"/-/deliveries/{quote(delivery, safe='')}/redeliver", url, token, data_dir)
    print(f"Delivering {delivery} again")


def _ask(method: str, path: str, url: str | None, token: str | None, data_dir: DataDir) -> Any:
    from gateway.cli.reaching import client_for

    return asyncio.run(client_for(url, token, data_dir).admin(method, path, None))

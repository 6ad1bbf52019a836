"""The commands ``comfygate webhooks``: of the admin token's own messages, or with ``--token`` those of a key."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from urllib.parse import quote

import cyclopts

from gateway.cli.client import ClientError
from gateway.cli.operating import DataDir, Token, Url

webhooks = cyclopts.App(name="webhooks", help="What was told to webhooks and what was not.")


def register(app: cyclopts.App) -> None:
    """Add the commands to the command line."""
    app.command(webhooks)


@webhooks.command(name="list")
def list_messages(
    *,
    state: Literal["pending", "delivered", "dead"] | None = None,
    limit: int = 50,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """List messages, the newest first.

    Args:
        state: only those: pending, delivered or dead (given up).
        limit: most, up to 100.
        url: base URL of the gateway.
        token: whose: a key, or the admin token for jobs started without one.
        data_dir: data directory of this machine's gateway.
    """
    from gateway.cli.listing import show_webhooks

    query = f"?limit={limit}" + (f"&state={state}" if state else "")
    show_webhooks(_ask("GET", f"/-/webhooks{query}", None, url, token, data_dir))


@webhooks.command
def redeliver(message: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Have a message sent again, now and by the schedule from its beginning. Its id stays the same.

    Args:
        message: its id, as 'comfygate webhooks list' shows it.
        url: base URL of the gateway.
        token: whose it is.
        data_dir: data directory of this machine's gateway.
    """
    _ask("POST", f"/-/webhooks/{quote(message, safe='')}/redeliver", None, url, token, data_dir)
    print(f"Sending {message} again")


@webhooks.command(name="test")
def try_out(receiver: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Send a message that means nothing, once. Exit status 1 when it was not taken.

    Args:
        receiver: URL of the webhook.
        url: base URL of the gateway.
        token: whose secret signs.
        data_dir: data directory of this machine's gateway.
    """
    told = _ask("POST", "/-/webhooks/test", {"url": receiver}, url, token, data_dir)
    if not told["delivered"]:
        reasons = {"timed_out": "no answer came in time", "unreachable": "nobody could be reached there"}
        said = f"it answered {told['status']}" if told["status"] else reasons.get(told["reason"], told["reason"])
        raise ClientError(f"The webhook did not take {told['id']}: {said}.")
    print(f"Delivered {told['id']}: it answered {told['status']}")


@webhooks.command
def secret(*, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Make a new secret, and print it, alone on the last line: it is told this once. The one before it signs for a day more.

    Args:
        url: base URL of the gateway.
        token: whose: a key stands for its user.
        data_dir: data directory of this machine's gateway.
    """
    told = _ask("POST", "/-/webhooks/secret", None, url, token, data_dir)
    if told["previous_until"]:
        print(f"Until {told['previous_until']} messages carry the signature of the secret before it, too.")
    print("This is the one time that it is shown:")
    print(told["secret"])


def _ask(
    method: str, path: str, body: dict[str, str] | None, url: str | None, token: str | None, data_dir: DataDir
) -> Any:
    from gateway.cli.reaching import client_for

    return asyncio.run(client_for(url, token, data_dir).admin(method, path, body))

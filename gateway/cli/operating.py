"""The commands of those who operate a gateway: status, config, doctor, cancel, purge, backup."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import cyclopts

from gateway import logs
from gateway.cli.client import ClientError

Url = Annotated[
    str | None,
    cyclopts.Parameter(
        name="--url", help="Base URL of a gateway; else the one of the data directory.", env_var="GATEWAY_URL"
    ),
]
Token = Annotated[
    str | None,
    cyclopts.Parameter(
        name="--token", help="Bearer token; else this machine's admin token.", env_var="GATEWAY_ADMIN_TOKEN"
    ),
]
DataDir = Annotated[
    Path | None, cyclopts.Parameter(name="--data-dir", help="Data directory of this machine's gateway.")
]


def register(app: cyclopts.App) -> None:
    """Add the commands to the command line."""
    for command in (status, cancel, config, doctor, purge, backup):
        app.command(command)


def status(*, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Show how a gateway is: its upstreams, its jobs, what is wrong. Exit status 1 when no job could run."""
    from gateway.cli.reaching import client_for
    from gateway.cli.status import lines_of

    lines, is_ready = asyncio.run(lines_of(client_for(url, token, data_dir)))
    print("\n".join(lines))
    if not is_ready:
        raise SystemExit(1)


def cancel(job: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Cancel a job, whether it waits or runs.

    Args:
        job: its id, as 'comfygate jobs' shows it.
        url: base URL of the gateway.
        token: Bearer token.
        data_dir: data directory of this machine's gateway.
    """
    from gateway.cli.reaching import client_for

    told = asyncio.run(client_for(url, token, data_dir).admin("DELETE", f"/-/jobs/{quote(job, safe='')}"))
    print(f"Canceled {job}" if told["state"] == "canceled" else f"Canceling {job}: its upstream is being told")


def config(
    *,
    host: str | None = None,
    port: int | None = None,
    upstreams: str | None = None,
    embedded_workers: int | None = None,
    data_dir: Path | None = None,
    auth: str | None = None,
    log_level: str | None = None,
) -> None:
    """Show every setting with its value and origin: flag, environment, gateway.toml or default. Takes serve's flags.

    Args:
        host: as serve takes it, like the others.
        port: port to listen on.
        upstreams: comma-separated base URLs of ComfyUI instances.
        embedded_workers: CPU workers to start.
        data_dir: where everything is kept.
        auth: open or keys.
        log_level: debug, info, warning or error.
    """
    from gateway.cli import configuration

    flags = {
        "host": host,
        "port": port,
        "upstreams": upstreams,
        "embedded_workers": embedded_workers,
        "data_dir": data_dir,
        "auth": auth,
        "log_level": log_level,
    }
    for sentence in configuration.show(flags):
        print(f"comfygate: warning: {sentence}", file=sys.stderr)


def doctor(*, data_dir: DataDir = None) -> None:
    """Look at all that can be wrong, and say the remedy. Exit status 1 when something has to be mended."""
    logs.configure("error", "text")
    try:
        from gateway.cli import doctor as practice
    except ImportError as error:
        if (error.name or "").startswith("gateway"):
            raise
        # It would stop every other check too.
        raise ClientError(f"A package is missing ({error.name}): pip install --force-reinstall comfygate.") from error
    if not asyncio.run(practice.show({"data_dir": data_dir})):
        raise SystemExit(1)


def purge(
    *,
    job: str | None = None,
    owner: str | None = None,
    consents: Annotated[bool, cyclopts.Parameter(negative=())] = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Forget at once an ended job, or all of an owner: rows, inputs and results.

    Args:
        job: id of the job.
        owner: id of the key that the jobs were sent with; local for those sent without one.
        consents: records of consent too, which stay otherwise.
        url: base URL of the gateway.
        token: admin token.
        data_dir: data directory; opened here when no gateway holds it.
    """
    from gateway.cli import keeping
    from gateway.cli.reaching import gateway_or_directory

    if (job is None) == (owner is None):
        raise ClientError("Give either --job ID or --owner NAME.")
    logs.configure("warning", "text")
    with gateway_or_directory(url, token, data_dir) as where:
        print(asyncio.run(keeping.purge(where, job=job, owner=owner, consents=consents)))


def backup(file: Path, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Write a tar of the database and every file that it speaks of; unpacked into an empty data directory it is a gateway.

    Args:
        file: a new file; only its owner may read it.
        url: base URL of the gateway.
        token: admin token.
        data_dir: data directory; opened here when no gateway holds it.
    """
    from gateway.cli import keeping
    from gateway.cli.reaching import gateway_or_directory

    logs.configure("warning", "text")
    with gateway_or_directory(url, token, data_dir) as where:
        size_bytes = asyncio.run(keeping.backup(where, file))
    print(
        f"Saved {file} ({size_bytes} bytes). Not in it: the admin token, webhook-key, the settings, your folder of templates."
    )

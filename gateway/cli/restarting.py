"""``comfygate upstreams restart``: asks for it, and waits until the process answers again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from gateway.cli.client import ClientError, GatewayClient

LOOK_SECONDS = 0.5
#: What a process may take to answer again; how long its last job takes is not counted.
PATIENCE_SECONDS = 660.0


async def restart(client: GatewayClient, name: str, tell: Callable[[str], None]) -> None:
    """Restart it, and come back when it is reachable. Raises ClientError when it is refused, or stays away."""
    member = await client.admin("POST", f"/-/upstreams/{quote(name, safe='')}/restart")
    tell(f"Restarting {name}" + (f" when {member['job_id']} has ended" if member["job_id"] else ""))
    while member["restarting"]:
        await asyncio.sleep(LOOK_SECONDS)
        member = await _look(client, name)
    until = time.monotonic() + PATIENCE_SECONDS
    while not member["reachable"]:
        if time.monotonic() > until:
            raise ClientError(f"{name} does not come back ({member['reason']}): see its log in the data directory.")
        await asyncio.sleep(LOOK_SECONDS)
        member = await _look(client, name)
    tell(f"{name} runs again" + (", and is drained" if member["draining"] else ""))


async def _look(client: GatewayClient, name: str) -> Any:
    members = (await client.get("/-/upstreams"))["upstreams"]
    found = next((member for member in members if member["name"] == name), None)
    if found is None:
        raise ClientError(f"{name} was removed meanwhile.")
    return found

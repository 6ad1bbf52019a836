"""``comfygate status``: how a running gateway is, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.leavings import KEEPS


async def lines_of(client: GatewayClient) -> tuple[list[str], bool]:
    """What to print, and whether any job could run.

    Raises:
        ClientError: no gateway answers there.
    """
    health = await client.get("/health")
    if not isinstance(health, dict) or "status" not in health:
        raise ClientError(f"What answers at {client.url} is no gateway: give --url its base URL.")
    return list(_lines(client.url, health)), health["status"] != "unavailable"


def _lines(url: str, health: dict[str, Any]) -> Iterator[str]:
    engine = f" ({health['engine']})" if health.get("engine") else ""
    yield f"{health['status']} at {url}{engine}"
    if "upstreams" not in health:
        yield "The rest is shown with the admin token: give --token, or set GATEWAY_ADMIN_TOKEN."
        return
    counts = [f"{count} {state}" for state, count in health["jobs"].items() if count]
    yield f"jobs: {', '.join(counts) or 'none'}"
    for member in health["upstreams"]:
        yield f"upstream {member['name']}: {_doing(member)} ({member['address']})"
        if (kept := KEEPS.get(member["cleaning"])) is not None:
            yield f"  {kept[0]} -> {kept[1]}"
    for template in health["templates"]:
        yield f"template {template['name']}: {template['problem']}"
    yield f"safety: {health['safety']['message']}"
    yield f"storage: {health['storage']['message']}"
    for warning in health["warnings"]:
        yield f"warning: {warning}"


def _doing(member: dict[str, Any]) -> str:
    if not member["reachable"]:
        return f"not reachable, {member['reason'] or 'not yet asked'}"
    words = [f"runs {member['job_id']}" if member["job_id"] else "idle"]
    words += ["draining"] if member["draining"] else []
    words += [member["reason"]] if member["reason"] else []
    return ", ".join(words)

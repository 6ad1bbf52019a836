"""What a client of the faceswap dialect does: submit, look, wait."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from tests.tools.waiting import wait_until

TERMINAL_WORDS = {"SUCCESS", "FAILED"}


def parts(**given: Path) -> dict[str, tuple[str, bytes]]:
    """Files by field, for ``files=``."""
    return {name: (path.name, path.read_bytes()) for name, path in given.items()}


async def submit(client: httpx.AsyncClient, fields: dict[str, str] | None = None, /, **files: Path) -> str:
    """Submit and acknowledge; the job's id."""
    answer = await client.post(
        "/face-swap", data={"return_prompt_id_only": "true", **(fields or {})}, files=parts(**files)
    )
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.json()["prompt_id"]


async def status(client: httpx.AsyncClient, prompt_id: str) -> dict[str, Any]:
    answer = await client.get(f"/status/{prompt_id}")
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.json()


async def job(client: httpx.AsyncClient, prompt_id: str) -> dict[str, Any]:
    """The same job in the gateway's own words."""
    answer = await client.get(f"/-/jobs/{prompt_id}")
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.json()


async def ended(client: httpx.AsyncClient, prompt_id: str) -> dict[str, Any]:
    """Its status once it has ended."""

    async def look() -> dict[str, Any] | None:
        found = await status(client, prompt_id)
        return found if found["status"] in TERMINAL_WORDS else None

    found = await wait_until(look, what=f"the end of {prompt_id}")
    assert found is not None
    return found


async def at_work(client: httpx.AsyncClient, prompt_id: str) -> dict[str, Any]:
    """The job once its upstream is in the middle of it."""

    async def look() -> dict[str, Any] | None:
        found = await job(client, prompt_id)
        assert found["finished_at"] is None, found
        return found if found["state"] == "running" and found["fraction"] > 0 else None

    found = await wait_until(look, what=f"{prompt_id} to run")
    assert found is not None
    return found

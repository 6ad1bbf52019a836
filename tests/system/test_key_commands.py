"""``comfygate users`` and ``comfygate keys`` as they are typed: on a directory, and against the gateway that holds it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.tools.gateway_process import GatewayProcess

pytestmark = pytest.mark.system

COMMAND_SECONDS = 60


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = str(Path(sys.executable).parent / "comfygate")
    return subprocess.run(
        [command, *words], cwd=folder, env=own, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )


async def said(folder: Path, *words: str, status: int = 0) -> str:
    done = await asyncio.to_thread(run, folder, *words)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


async def new_key(folder: Path, *words: str) -> str:
    """It stands alone on the last line."""
    return (await said(folder, "keys", "create", *words)).splitlines()[-1]


@pytest.mark.long
async def test_keys_made_before_the_first_start_and_beside_a_running_gateway_open_until_they_are_revoked(tmp_path):
    process = GatewayProcess(tmp_path / "gateway", {"AUTH": "keys"})
    process.folder.mkdir()
    here = process.folder
    try:
        # Nobody has ever started a gateway here.
        assert "Made user ann, tier pro" in await said(
            here, "users", "create", "ann", "--tier", "pro", "--email-verified"
        )
        first = await new_key(here, "--name", "first", "--user", "ann", "--rate", "7", "--concurrency", "2")
        doomed = await new_key(here, "--name", "doomed")
        assert "Revoked key doomed" in await said(here, "keys", "revoke", "doomed")

        await asyncio.to_thread(process.start, wait_for_workers=False)

        async def status(key: str) -> int:
            async with process.client(headers={"Authorization": f"Bearer {key}"}) as client:
                return (await client.get("/-/jobs")).status_code

        assert (await status(first), await status(doomed)) == (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED)
        second = await new_key(here, "--name", "second", "--user", "ann", "--scopes", "jobs,admin", "--test")
        assert second.startswith("cfg_test_")
        assert await status(second) == HTTPStatus.OK
        listed = await said(here, "keys", "list")
        assert f"first of ann  {first[:17]}…  good" in listed
        assert "may jobs; 7 requests a minute, 2 creating at a time" in listed
        assert "doomed of doomed" in listed
        assert "revoked" in listed
        assert not any(key in listed for key in (first, second, doomed))
        assert "pro" in await said(here, "users", "list")

        # The key with the scope admin does what the admin token does, from anywhere.
        new = (await said(tmp_path, "keys", "rotate", "first", "--url", process.url, "--token", second)).splitlines()[
            -1
        ]
        assert (await status(first), await status(new)) == (HTTPStatus.UNAUTHORIZED, HTTPStatus.OK)
        newer = (await said(here, "keys", "rotate", "first", "--overlap-hours", "1")).splitlines()[-1]
        assert (await status(new), await status(newer)) == (HTTPStatus.OK, HTTPStatus.OK)
        await said(here, "keys", "revoke", "first", "--user", "ann")
        assert {await status(new), await status(newer)} == {HTTPStatus.UNAUTHORIZED}
        refused = await said(tmp_path, "keys", "list", "--url", process.url, "--token", newer, status=1)
        assert "opens nothing" in refused

        twin = ("keys", "create", "--name", "second")
        assert "Made key second of user second" in await said(here, *twin)
        assert "Several users have a key 'second'" in await said(here, "keys", "revoke", "second", status=1)
        assert "has a key of that name" in await said(here, *twin, status=1)
        assert "no such user" in await said(here, *twin, "--user", "eve", status=1)
        assert "There is no key 'eve'" in await said(here, "keys", "revoke", "eve", status=1)
    finally:
        await asyncio.to_thread(process.end)


def test_a_refused_key_leaves_no_database_where_none_was_read(tmp_path):
    done = run(tmp_path, "keys", "list")
    assert done.returncode == 1
    assert "There is no gateway's data in data" in done.stderr
    assert list(tmp_path.iterdir()) == []

"""The Comfy API v2 under load: an asset that is larger than anybody's memory. (Streams: ``test_comfy_streams.py``.)

``COMFYGATE_ASSET_MIB`` makes the asset larger: 2048 is the long form.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.system.test_workflow_pool import Box, serving

pytestmark = [pytest.mark.system, pytest.mark.long]

MIB = 1024**2
ASSET_MIB = int(os.environ.get("COMFYGATE_ASSET_MIB", "384"))
#: A gateway that holds even a fifth of the asset is found out.
MOST_GROWTH_MIB = 64
BLOCK = bytes(range(256)) * 4096


async def test_an_asset_goes_up_and_down_and_the_gateway_does_not_grow(tmp_path):
    async with serving(tmp_path, Box(["m"]), MAX_UPLOAD="4GiB") as (gateway, client):
        before = peak_mib(gateway.process.pid)
        boundary = "part"
        fields = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in (("content_type", "application/octet-stream"), ("file_path", "large.bin"))
        )
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'
        sent = hashlib.sha256()

        async def body() -> AsyncIterator[bytes]:
            yield (fields + head).encode()
            for number in range(ASSET_MIB):
                block = number.to_bytes(8) + BLOCK[8:]
                sent.update(block)
                yield block
            yield f"\r\n--{boundary}--\r\n".encode()

        answer = await client.post(
            "/api/v2/assets",
            content=body(),
            headers={"content-type": f"multipart/form-data; boundary={boundary}"},
            timeout=600,
        )
        assert answer.status_code == HTTPStatus.CREATED, answer.text
        asset = answer.json()
        assert asset["size_bytes"] == ASSET_MIB * MIB
        got = hashlib.sha256()
        async with client.stream("GET", asset["url"], timeout=600) as response:
            async for piece in response.aiter_bytes():
                got.update(piece)
        assert got.digest() == sent.digest()
        assert peak_mib(gateway.process.pid) - before < MOST_GROWTH_MIB


def peak_mib(pid: int) -> float:
    """The most memory that a process ever held."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) / 1024

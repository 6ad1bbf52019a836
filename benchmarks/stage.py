"""Sets up what a benchmark needs: stand-ins, the gateway in front of them, the floor; and speaks to each.

Every process is fresh for each round and ends with its context.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import wire
from benchmarks.material import Material
from benchmarks.processes import BenchmarkError, Measured, announced, first_line, our_gateway, our_module, running

#: Whatever is waited for on an idle machine takes a second or two.
PATIENCE_SECONDS = 60.0
BOUNDARY = "----comfygate-benchmark"


@dataclass
class Fleet:
    """The stand-ins."""

    process: Measured
    ports: list[int]

    async def script(self, *, seconds: float = 0.0, held: bool = False, maximum: int = 1) -> None:
        """How prompts behave from now on."""
        wanted = {"seconds": seconds, "is_held": held, "maximum": maximum}
        await wire.ask_json(self.ports[0], "POST", "/bench/script", wanted)

    async def tick(self, count: int, per_second: float) -> None:
        """Tick on every running prompt; returns when all ticks were sent."""
        await wire.ask_json(self.ports[0], "POST", "/bench/go", {"count": count, "per_second": per_second})
        while (await self.counts())["is_ticking"]:
            await asyncio.sleep(0.05)

    async def finish(self) -> None:
        """End what runs."""
        await wire.ask_json(self.ports[0], "POST", "/bench/finish", {})

    async def forget(self) -> None:
        """Leave ended prompts out of reports."""
        await wire.ask_json(self.ports[0], "POST", "/bench/forget", {})

    async def counts(self) -> dict[str, int]:
        """How many prompts wait, run and have ended."""
        counts: dict[str, int] = await wire.ask_json(self.ports[0], "GET", "/bench/counts")
        return counts

    async def report(self) -> list[list[dict[str, Any]]]:
        """What was noted of each prompt, by instance."""
        noted: list[list[dict[str, Any]]] = await wire.ask_json(self.ports[0], "GET", "/bench/report")
        return noted

    async def until(self, **counts: int) -> None:
        """Wait until these counts are reached. Raises BenchmarkError when nothing moves any more."""
        before: dict[str, int] = {}
        deadline = 0.0
        while True:
            now = await self.counts()
            if all(now[name] >= wanted for name, wanted in counts.items()):
                return
            if now != before:
                before, deadline = now, time.monotonic() + PATIENCE_SECONDS
            self.process.require_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the stand-ins stayed at {now} where {counts} was awaited")
            await asyncio.sleep(0.01)


@dataclass
class Served:
    """A measured server."""

    process: Measured
    port: int


@dataclass
class Gateway(Served):
    """Ours."""

    data_dir: Path

    async def admin(self, method: str, path: str) -> Any:
        """A request with the admin token."""
        token = (self.data_dir / "admin-token").read_text(encoding="utf-8").strip()
        return await wire.ask_json(self.port, method, path, authorization=f"Bearer {token}")

    async def upstream_names(self) -> list[str]:
        """The pool's names."""
        return [upstream["name"] for upstream in (await self.admin("GET", "/-/upstreams"))["upstreams"]]

    async def drain(self) -> None:
        """Give out no work."""
        for name in await self.upstream_names():
            await self.admin("POST", f"/-/upstreams/{name}/drain")

    async def resume(self) -> None:
        """Give out work again: all upstreams at nearly one moment."""
        names = await self.upstream_names()
        await asyncio.gather(*(self.admin("POST", f"/-/upstreams/{name}/resume") for name in names))

    async def submit(self, form: bytes) -> str:
        """Send a prepared request; the job's id."""
        connection = await wire.Connection.open(self.port)
        try:
            return str((await connection.ask(form)).json()["prompt_id"])
        finally:
            connection.close()

    async def status(self, job_id: str) -> dict[str, Any]:
        """A job's status."""
        status: dict[str, Any] = await wire.ask_json(self.port, "GET", f"/status/{job_id}")
        return status

    async def ended(self, job_id: str, *, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """A job's status once it has ended. Raises BenchmarkError when it failed or never ends."""
        deadline = time.monotonic() + patience_seconds
        while (status := await self.status(job_id))["status"] not in {"SUCCESS", "FAILED"}:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"a job stayed {status['status']}")
            await asyncio.sleep(0.02)
        if status["status"] == "FAILED":
            raise BenchmarkError(f"a job failed: {status['error']}")
        return status


@asynccontextmanager
async def fleet(folder: Path, material: Material, count: int) -> AsyncIterator[Fleet]:
    """``count`` stand-ins in one process."""
    command = our_module("benchmarks.upstream", str(count), str(material.folder))
    with running(command, folder=folder, name="upstream") as process:
        yield Fleet(process, (await announced(process, "upstream"))["ports"])


@asynccontextmanager
async def gateway(
    folder: Path,
    upstream_ports: Sequence[int],
    *,
    data_dir: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Gateway]:
    """Our gateway in front of the stand-ins, all of them connected. Its data is deleted at the end.

    Args:
        folder: for its output.
        upstream_ports: of the stand-ins.
        data_dir: an existing one; otherwise a new one is made.
        settings: by name, without the prefix.
    """
    data = data_dir or folder / f"data-{secrets.token_hex(4)}"
    values = {
        "UPSTREAMS": ",".join(f"http://127.0.0.1:{port}" for port in upstream_ports),
        "EMBEDDED_WORKERS": "0",
        "URL_INPUTS": "off",
        "PORT": "0",
        "DATA_DIR": str(data),
        "LOG_LEVEL": "warning",
        **(settings or {}),
    }
    environment = {f"GATEWAY_{name}": value for name, value in values.items()}
    try:
        with running(our_gateway("serve"), folder=folder, name="gateway", environment=environment) as process:
            line = await first_line(process, "gateway")
            served = Gateway(process, int(line.rpartition(":")[2]), data)
            await _until_connected(served, len(upstream_ports))
            yield served
    finally:
        if data_dir is None:
            shutil.rmtree(data, ignore_errors=True)


async def _until_connected(served: Gateway, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        health = await wire.ask_json(served.port, "GET", "/health")
        if len(health["upstreams"]) == count and all(each["available"] for each in health["upstreams"]):
            return
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the gateway did not reach its upstreams: {json.dumps(health)[:500]}")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def bare(folder: Path, upstream_ports: Sequence[int] = ()) -> AsyncIterator[Served]:
    """The floor."""
    command = our_module("benchmarks.bare", str(folder), *map(str, upstream_ports))
    with running(command, folder=folder, name="bare") as process:
        yield Served(process, (await announced(process, "bare"))["port"])


def swap_form(face: bytes, target: bytes, *, is_video: bool) -> bytes:
    """``POST /face-swap`` with two files, answered by the job's id."""
    field, name, kind = ("video", "t.mp4", "video/mp4") if is_video else ("target_image", "t.jpg", "image/jpeg")
    body = (
        _part("return_prompt_id_only", b"true")
        + _part("image", face, filename="f.jpg", content_type="image/jpeg")
        + _part(field, target, filename=name, content_type=kind)
        + f"--{BOUNDARY}--\r\n".encode()
    )
    return wire.request_bytes("POST", "/face-swap", body=body, content_type=f"multipart/form-data; boundary={BOUNDARY}")


def upload_form(name: str, data: bytes) -> bytes:
    """``POST /upload/image`` to a ComfyUI."""
    body = (
        _part("type", b"input")
        + _part("subfolder", b"bench")
        + _part("image", data, filename=name, content_type="application/octet-stream")
        + f"--{BOUNDARY}--\r\n".encode()
    )
    return wire.request_bytes(
        "POST", "/upload/image", body=body, content_type=f"multipart/form-data; boundary={BOUNDARY}"
    )


def _part(name: str, data: bytes, *, filename: str = "", content_type: str = "") -> bytes:
    file = f'; filename="{filename}"\r\nContent-Type: {content_type}' if filename else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"

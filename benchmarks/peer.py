"""comfy-api-proxy, the nearest published program, where its executable is given: the same questions, in its own words.

It stands in front of one ComfyUI, keeps nothing durably unless told to (here it is: ``--state-dir``), hands out at most
two progress events a second and eight streams, and holds an uploaded file in memory. It is in another virtual
environment, since its pins need not be ours.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import wire
from benchmarks.material import swap_graph
from benchmarks.processes import BenchmarkError, running
from benchmarks.stage import PATIENCE_SECONDS, Served

ABSENT = "comfy-api-proxy was not measured: not installed, see docs/performance.md (--peer PATH)."
#: It refuses more.
MOST_STREAMS = 8


@asynccontextmanager
async def proxy(executable: Path, folder: Path, upstream_port: int) -> AsyncIterator[Served]:
    """The proxy in front of one stand-in, knowing nothing: it would not take a file twice."""
    port = _free_port()
    command = [
        str(executable), "run", "--comfyui", f"http://127.0.0.1:{upstream_port}", "--port", str(port),
        "--max-upload-mb", "4096", "--state-dir", str(folder / f"peer-state-{port}"),
    ]  # fmt: skip
    with running(command, folder=folder, name="peer") as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            process.require_alive()
            try:
                await wire.ask_json(port, "GET", "/api/v2/health")
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchmarkError("comfy-api-proxy did not start") from None
                time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs in this loop yet
            else:
                break
        yield Served(process, port)


async def submit(connection: wire.Connection, face: bytes, target: bytes, number: int, *, is_video: bool) -> str:
    """Two assets and a job; its id, which is the prompt's too."""
    names = [f"f{number}.jpg", f"t{number}.{'mp4' if is_video else 'jpg'}"]
    found = [
        (await connection.ask(asset_request(name, data))).json()["id"]
        for name, data in zip(names, (face, target), strict=True)
    ]
    graph = swap_graph("t", "f", is_video=is_video)
    _refer(graph, "2", found[0])
    _refer(graph, "1", found[1])
    answer = await connection.ask(wire.json_request("POST", "/api/v2/jobs", {"workflow": graph}))
    return str(answer.json()["id"])


def asset_request(name: str, data: bytes) -> bytes:
    """``POST /api/v2/assets``."""
    head, tail = asset_frame(name)
    return wire.request_bytes(
        "POST", "/api/v2/assets", body=head + data + tail, content_type=f"multipart/form-data; boundary={_BOUNDARY}"
    )


_BOUNDARY = "----comfygate-benchmark"


def asset_frame(name: str) -> tuple[bytes, bytes]:
    """What stands before and behind an asset's bytes in the body."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file_path"\r\n\r\ninput/{name}\r\n'
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()


def head_of_upload(path: str, size_bytes: int) -> bytes:
    """The head of a multipart request whose body follows."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {size_bytes}\r\n"
        f"content-type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n"
    ).encode()


def _refer(graph: dict[str, object], key: str, asset_id: str) -> None:
    node = graph[key]
    assert isinstance(node, dict)  # noqa: S101 - our own graph
    name = next(iter(node["inputs"]))
    node["inputs"][name] = {"__type": "core/ASSET", "info": {"id": asset_id}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

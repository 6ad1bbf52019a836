"""``transfer``: a video of 500 MB up to its accepted submission, and its result of 500 MB down, against bare endpoints.

Up, ours is all of ``POST /face-swap``: a multipart body parsed, hashed, written, synced to disk, probed (every packet of
the video is read), the job committed. The floor streams a raw body into a file, in the event loop, unsynced. Down, ours
is ``GET /download/``, the floor a ``FileResponse``. No work is given out during the upload, so that what is measured is
the upload. Memory is that of the server and all its children, above what it was right before. Meanwhile ``/status`` is
asked every 10 ms: the worst answer says how long the transfer kept everybody else waiting.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import material, peer, stage, wire
from benchmarks.figures import Bound, Sheet, Side, Target, at_least
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, watching_memory

SIZE_BYTES = 500_000_000
_MEGA = 1e6
_POLL_SECONDS = 0.01
_PIECE_BYTES = 1 << 20
_MEMORY = Target(Bound.AT_MOST, 50, is_ratio=False, unit="MB")


@dataclass
class Moved:
    """What one transfer gave."""

    mb_per_second: float
    memory_mb: float
    worst_poll_ms: float
    cpu_seconds_per_gb: float


@dataclass(frozen=True)
class Large:
    """A large file."""

    path: Path
    size: int


@dataclass(frozen=True)
class Upload:
    """A request whose large part is sent by the kernel from a file."""

    head: bytes
    file: Large
    tail: bytes


async def run(options: Options) -> Sheet:
    """All rounds."""
    sheet = Sheet("transfer")
    size = options.pick(SIZE_BYTES, 5_000_000)
    own = options.folder / "large"
    own.mkdir()
    small = await asyncio.to_thread(material.make, own)
    video = await asyncio.to_thread(_make, options.folder / "target.mp4", size, inverted=False)
    result = await asyncio.to_thread(_make, options.folder / "large.bin", size, inverted=True)
    for _ in range(options.rounds):
        await _floor_round(options, sheet, video, result)
        # A fresh fleet: the first, small job gets a small result.
        async with stage.fleet(options.folder, small, 1) as fleet:
            await _our_round(options, sheet, fleet, small, video, result)
        async with stage.fleet(options.folder, small, 1) as fleet:
            await _peer_round(options, sheet, fleet, small, video, result)
    return sheet


def _make(path: Path, size: int, *, inverted: bool) -> Large:
    material.large_clip(path, size, inverted=inverted)
    return Large(path, path.stat().st_size)


async def _floor_round(options: Options, sheet: Sheet, video: Large, result: Large) -> None:
    status = options.folder / "status.json"
    status.write_text('{"status": "PROCESSING"}', encoding="utf-8")
    async with stage.bare(options.folder) as served:
        head = f"POST /upload HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {video.size}\r\n\r\n"
        moved = await _upload(served, Upload(head.encode(), video, b""), "/status/x")
        _add(sheet, "upload", Side.FLOOR, moved)
        (options.folder / "uploaded").unlink()
        _add(sheet, "download", Side.FLOOR, await _download(served, "/download", result.size, "/status/x"))


async def _our_round(
    options: Options, sheet: Sheet, fleet: stage.Fleet, small: material.Material, video: Large, result: Large
) -> None:
    place = small.folder / "result.mp4"
    first = place.read_bytes()
    async with stage.gateway(options.folder, fleet.ports) as served:
        warm = await served.submit(stage.swap_form(small.face, small.video, is_video=True))
        await served.ended(warm)
        await served.drain()
        moved, job_id = await _our_upload(served, small, video, f"/status/{warm}")
        _add(sheet, "upload", Side.OURS, moved)
        place.unlink()
        os.link(result.path, place)
        await fleet.forget()
        await served.resume()
        ended = await served.ended(job_id)
        told = time.monotonic_ns()
        job = next(prompt for prompts in await fleet.report() for prompt in prompts)
        sheet.add("from the end of a job to its large result", "s", ours=(told - job["ended_ns"]) / 1e9)
        moved = await _download(served, str(ended["result"]), result.size, f"/status/{warm}")
        _add(sheet, "download", Side.OURS, moved)
    place.unlink()
    place.write_bytes(first)


async def _our_upload(
    served: stage.Gateway, small: material.Material, video: Large, poll_path: str
) -> tuple[Moved, str]:
    mark = b"THE LARGE PART"
    form = stage.swap_form(material.unlike(small.face, 1), mark, is_video=True)
    body = form.partition(b"\r\n\r\n")[2]
    before, _, tail = body.partition(mark)
    kind = "multipart/form-data; boundary=" + stage.BOUNDARY
    length = len(before) + video.size + len(tail)
    head = f"POST /face-swap HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    answers: list[wire.Answer] = []
    moved = await _upload(served, Upload(head.encode() + before, video, tail), poll_path, answers)
    return moved, str(answers[0].json()["prompt_id"])


async def _peer_round(
    options: Options, sheet: Sheet, fleet: stage.Fleet, small: material.Material, video: Large, result: Large
) -> None:
    if options.peer is None:
        sheet.note(peer.ABSENT)
        return
    place = small.folder / "result.mp4"
    first = place.read_bytes()
    place.unlink()
    os.link(result.path, place)
    async with peer.proxy(options.peer, options.folder, fleet.ports[0]) as served:
        connection = await wire.Connection.open(served.port)
        job_id = await peer.submit(connection, small.face, small.video, 1, is_video=True)
        connection.close()
        await fleet.until(done=1)
        before, tail = peer.asset_frame("large.mp4")
        head = peer.head_of_upload("/api/v2/assets", len(before) + video.size + len(tail))
        poll_path = f"/api/v2/jobs/{job_id}"
        _add(sheet, "upload", Side.PEER, await _upload(served, Upload(head + before, video, tail), poll_path))
        output = (await wire.ask_json(served.port, "GET", poll_path))["outputs"][0]
        content = f"/api/v2/assets/{output['id']}/content"
        _add(sheet, "download", Side.PEER, await _download(served, content, result.size, poll_path))
    sheet.note(
        "comfy-api-proxy passes an upload on to the stand-in before it answers, and a download comes from there; its "
        "polls ask the stand-in too."
    )
    place.unlink()
    place.write_bytes(first)


def _add(sheet: Sheet, way: str, side: Side, moved: Moved) -> None:
    speed = at_least(0.5 if way == "upload" else 1)
    sheet.add_from(side, way, "MB/s", moved.mb_per_second, target=speed)
    sheet.add_from(side, f"{way}: memory, most above before", "MB", moved.memory_mb, target=_MEMORY)
    sheet.add_from(side, f"{way}: worst status poll meanwhile", "ms", moved.worst_poll_ms)
    sheet.add_from(side, f"{way}: CPU", "s/GB", moved.cpu_seconds_per_gb)


# -------------------------------------------------------------------------------------------------------------- moving


async def _upload(
    served: stage.Served, upload: Upload, poll_path: str, answers: list[wire.Answer] | None = None
) -> Moved:
    size = upload.file.size
    async with _measuring(served, poll_path, size) as moved:
        answer = await asyncio.to_thread(_send, served.port, upload)
    answer.json()  # raises when it is no success
    if answers is not None:
        answers.append(answer)
    return moved


async def _download(served: stage.Served, path: str, size: int, poll_path: str) -> Moved:
    async with _measuring(served, poll_path, size) as moved:
        received = await asyncio.to_thread(_receive, served.port, path)
    # A result is cleaned of private tags on its way, so a gateway's file may differ by some kilobytes.
    if abs(received - size) > 0.01 * size:
        raise BenchmarkError(f"{received} bytes came down, where {size} were expected")
    return moved


@asynccontextmanager
async def _measuring(served: stage.Served, poll_path: str, size: int) -> AsyncIterator[Moved]:
    """Time, memory, CPU and polls while the context lasts."""
    await asyncio.to_thread(os.sync)  # what an earlier transfer wrote must not be this one's burden
    moved = Moved(0.0, 0.0, 0.0, 0.0)
    is_over = asyncio.Event()
    polls = asyncio.create_task(_poll(served.port, poll_path, is_over), name="polls")
    try:
        async with watching_memory(served.process) as memory:
            cpu, begun = served.process.cpu_seconds(), time.monotonic()
            yield moved
            took = time.monotonic() - begun
            moved.cpu_seconds_per_gb = (served.process.cpu_seconds() - cpu) / size * 1e9
    finally:
        is_over.set()  # not canceled: Python 3.11 loses a cancel that comes with an answer
        worst = await polls
    moved.mb_per_second = size / took / _MEGA
    moved.memory_mb = memory.growth_bytes / _MEGA
    moved.worst_poll_ms = worst * 1e3


async def _poll(port: int, path: str, is_over: asyncio.Event) -> float:
    """Ask again and again until it is over; the worst time until an answer, in seconds."""
    connection = await wire.Connection.open(port)
    request = wire.request_bytes("GET", path)
    worst = 0.0
    try:
        while not is_over.is_set():
            begun = time.monotonic()
            (await connection.ask(request)).json()
            worst = max(worst, time.monotonic() - begun)
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        connection.close()
    return worst


def _send(port: int, upload: Upload) -> wire.Answer:
    with socket.create_connection(("127.0.0.1", port), timeout=wire.ANSWER_SECONDS) as connection:
        connection.sendall(upload.head)
        with upload.file.path.open("rb") as file:
            connection.sendfile(file)
        connection.sendall(upload.tail)
        buffer = bytearray()
        while (answer := wire.whole_answer(buffer)) is None:
            piece = connection.recv(_PIECE_BYTES)
            if not piece:
                raise BenchmarkError("the connection was lost before the answer to an upload")
            buffer += piece
        return answer


def _receive(port: int, path: str) -> int:
    """Bytes of the body; they are dropped."""
    with socket.create_connection(("127.0.0.1", port), timeout=wire.ANSWER_SECONDS) as connection:
        connection.sendall(wire.request_bytes("GET", path, headers={"connection": "close"}))
        piece = bytearray(_PIECE_BYTES)
        count = connection.recv_into(piece)
        head = bytes(piece[:count])
        if not head.startswith(b"HTTP/1.1 200"):
            raise BenchmarkError(f"a download was answered {head[:200]!r}")
        received = count - head.index(b"\r\n\r\n") - 4
        while count := connection.recv_into(piece):
            received += count
        return received

"""Uploads and downloads: ``/upload/image`` and ``/view``.

Source: ComfyUI a125cd84, ``server.py`` (image_upload, view_image) on aiohttp 3.14, recorded. Left out: ``/upload/mask`` and
``channel=``; ``preview=`` is there.
"""

from __future__ import annotations

import asyncio
import io
import mimetypes
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.embedded.files import RefusedPathError
from gateway.embedded.nodes_image import open_picture
from gateway.embedded.replies import JSONReply
from gateway.embedded.worker import Worker

_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
#: Kinds a browser would run; they are served as bytes.
_ACTIVE_TYPES = frozenset({"text/html", "text/javascript", "application/javascript", "text/css", "image/svg+xml"})


def file_routes(worker_of: Callable[[], Worker]) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
    """The routes, as (method, path, handler)."""

    async def upload(request: Request) -> Response:
        worker = worker_of()
        async with request.form(max_files=1, max_fields=16) as form:
            file = form.get("image")
            if not isinstance(file, UploadFile):
                return Response(status_code=400)
            await asyncio.sleep(worker.faults.upload_delay_seconds())
            return await _keep(worker, file, {name: str(value) for name, value in form.items() if name != "image"})

    async def view(request: Request) -> Response:
        if "filename" not in request.query_params:
            return Response(status_code=404)
        query = request.query_params
        try:
            path = worker_of().folders.view(query["filename"], query.get("type", "output"), query.get("subfolder"))
        except RefusedPathError as refusal:
            return Response(status_code=refusal.status)
        if not await anyio.Path(path).is_file():
            return Response(status_code=404)
        if "preview" in query:
            return await to_thread.run_sync(_preview, path, query["preview"])
        return await _serve_file(path, request)

    return [("POST", "/upload/image", upload), ("GET", "/view", view)]


async def _keep(worker: Worker, file: UploadFile, fields: dict[str, str]) -> Response:
    kind, subfolder = fields.get("type") or "input", fields.get("subfolder", "")
    overwrite = fields.get("overwrite") in ("true", "1")
    try:
        name = await to_thread.run_sync(
            lambda: worker.folders.keep_upload(
                file.file, file.filename or "", kind=kind, subfolder=subfolder, overwrite=overwrite
            )
        )
    except RefusedPathError as refusal:
        return Response(status_code=refusal.status)
    reply: dict[str, Any] = {"name": name, "subfolder": subfolder, "type": kind}
    if worker.quirks.asset_ids:
        reply["asset"] = {"id": str(uuid.uuid4()), "name": name, "size": file.size, "tags": [kind]}
    return JSONReply(reply)


def _preview(path: Path, wanted: str) -> Response:
    """The picture encoded anew; a file that is no picture raises, which is ComfyUI's 500."""
    form, _, quality = wanted.partition(";")
    form = form if form in ("webp", "jpeg") else "webp"
    encoded = io.BytesIO()
    with open_picture(path) as picture:
        picture.convert("RGB").save(encoded, format=form, quality=int(quality) if quality.isdecimal() else 90)
    return Response(encoded.getvalue(), media_type=f"image/{form}", headers={"Content-Disposition": _called(path)})


def _called(path: Path) -> str:
    # Header values are Latin-1; anything else is percent-encoded by nobody who reads this header.
    return f'filename="{path.name}"'.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")


async def _serve_file(path: Path, request: Request) -> Response:
    stat = await anyio.Path(path).stat()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {
        "Content-Disposition": _called(path),
        "Content-Type": "application/octet-stream" if media_type in _ACTIVE_TYPES else media_type,
        "Etag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
        "Last-Modified": formatdate(stat.st_mtime, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    if _unchanged(request, headers["Etag"], stat.st_mtime):
        return Response(status_code=304, headers={"Etag": headers["Etag"], "Last-Modified": headers["Last-Modified"]})
    asked = request.headers.get("range")
    if asked is None:
        headers["Content-Length"] = str(stat.st_size)
        return StreamingResponse(_read(path, 0, stat.st_size), headers=headers)
    span = byte_range(asked, stat.st_size)
    if span is None:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{stat.st_size}"})
    start, end = span
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{stat.st_size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(_read(path, start, end), 206, headers=headers)


def byte_range(asked: str, size: int) -> tuple[int, int] | None:
    """``Range`` as (start, end), end excluded; None where aiohttp answers 416: several ranges, none, or past the end."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(size - int(match[2]), 0), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    return (start, end) if start < end else None


def _unchanged(request: Request, etag: str, modified_seconds: float) -> bool:
    if (known := request.headers.get("if-none-match")) is not None:
        return known == "*" or etag in (tag.strip().removeprefix("W/") for tag in known.split(","))
    try:
        since = parsedate_to_datetime(request.headers["if-modified-since"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return False
    return int(modified_seconds) <= since


async def _read(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(start)
        left = end - start
        while left > 0 and (chunk := await file.read(min(_CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk

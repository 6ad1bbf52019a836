"""``comfygate submit``: upload, watch, download; a stream that breaks is taken up again where it was."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gateway import httpclient
from gateway.audit import MediaKind
from gateway.cli.client import ClientError, GatewayClient, require_success
from gateway.sniffing import HEAD_BYTES, sniff

#: Times in a row that a stream may break without a word before we give up; waits double from half a second.
RECONNECTS = 8
_PERCENTAGE = re.compile(r"progress: [\d.]+%$")


@dataclass(slots=True)
class _Watch:
    """Where a stream stands."""

    #: What is said of the people in the pictures.
    consent: bool = False
    prompt_id: str | None = None
    last_event_id: str | None = None
    ended: dict[str, Any] | None = None


async def submit_files(
    client: GatewayClient, target: Path, face: Path, output: Path | None, *, consent: bool = False
) -> Path:
    """Submit, show a bar, save; where the result lies.

    Raises:
        ClientError: a file cannot be read or written, or the gateway said no.
    """
    field = _field_for(target)
    _readable(face)
    _writable(output)
    watch = _Watch(consent=consent)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task("Uploading", total=100.0, left="")
        async for name, data in _events(client, target, face, field, watch):
            if name == "progress":
                bar.update(line, completed=data["percentage"], left=_left(data))
                if not _PERCENTAGE.search(data["message"]):  # that is what the bar is for
                    bar.update(line, description=data["message"])
            elif name == "executing":
                bar.update(line, description=data["message"])
            elif name == "queued":
                bar.update(line, description="Queued")
            elif name == "completed":
                bar.update(line, completed=100.0, description="Done", left="")
    if watch.ended is None:
        raise ClientError("The stream ended before the job did; look for it with 'comfygate jobs'.")
    into = output or Path(Path(watch.ended["filename"]).name)
    try:
        await client.download(watch.ended["download_url"], into)
    except OSError as error:
        raise ClientError(
            f"{into} cannot be written ({error.strerror or type(error).__name__}): the result is kept for a while at "
            f"{client.url}{watch.ended['download_url']}"
        ) from error
    return into


async def _events(
    client: GatewayClient, target: Path, face: Path, field: str, watch: _Watch
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Events until the end; after the job is known a broken stream is opened again."""
    tries = 0
    while True:
        try:
            async with client.open() as http:
                if watch.prompt_id is None:
                    with target.open("rb") as video, face.open("rb") as image:
                        files = {field: (target.name, video), "image": (face.name, image)}
                        data = {"consent": "true"} if watch.consent else {}
                        request = http.stream("POST", "/face-swap", files=files, data=data)
                        async with request as response:
                            async for event in _read(response, watch):
                                yield event
                else:
                    headers = {"Last-Event-ID": watch.last_event_id} if watch.last_event_id else {}
                    async with http.stream("GET", f"/events/{watch.prompt_id}", headers=headers) as response:
                        async for event in _read(response, watch):
                            tries = 0
                            yield event
        except httpclient.TransportError as error:
            tries += 1
            if watch.prompt_id is None or tries > RECONNECTS:
                raise client.unreachable(error) from error
        if watch.ended is not None:
            return
        if watch.prompt_id is None:
            raise ClientError("The gateway ended the stream without an answer.")
        await anyio.sleep(0.5 * 2 ** min(tries, 4))


async def _read(response: httpclient.Response, watch: _Watch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    if response.status_code != httpclient.codes.OK:
        require_success(response.status_code, await response.aread())
    name, lines = "message", []
    async for line in response.aiter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            lines.append(value)
        elif field == "id":
            watch.last_event_id = value
        elif not line and lines:
            data = orjson.loads("\n".join(lines))
            _note(name, data, watch)
            yield name, data
            name, lines = "message", []


def _note(name: str, data: dict[str, Any], watch: _Watch) -> None:
    if name == "queued":
        watch.prompt_id = data["prompt_id"]
    elif name == "completed":
        watch.ended = data
    elif name == "error":
        raise ClientError(str(data.get("detail", "the job failed")))


def _field_for(target: Path) -> str:
    """The form field for a target, by its first bytes."""
    media = sniff(_readable(target))
    if media is None:
        raise ClientError(f"{target} is neither a video nor a picture that the gateway takes.")
    return "target_image" if media.kind is MediaKind.IMAGE else "video"


def _left(progress: dict[str, Any]) -> str:
    seconds = progress.get("eta_seconds")
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"about {minutes} min {rest:02} s left" if minutes else f"about {rest} s left"


def _writable(output: Path | None) -> None:
    """That the result has a place is seen before anything is uploaded."""
    into = output or Path()
    folder = into.parent if output else into
    reason = None
    if output and into.is_dir():
        reason = "it is a folder"
    elif not os.access(folder, os.W_OK):
        reason = f"{folder} is no folder that you may write to"
    if reason:
        raise ClientError(f"{into} cannot be written ({reason}): name another file with -o.")


def _readable(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise ClientError(f"{path} cannot be read ({error.strerror or type(error).__name__}).") from error

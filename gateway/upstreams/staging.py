"""Getting input files onto one upstream, each once.

Files are named by their content, so a name that is there already holds the right bytes; ComfyUI compares and answers
with the name it chose, which is what counts. What was uploaded is believed to be there until the first doubt.

Source: ComfyUI a125cd84, ``server.py`` (``image_upload``): fields ``image``, ``type``, ``subfolder``; the size limit
counts the whole body.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import aiofiles

from gateway.comfy import answers
from gateway.errors import TooLargeError
from gateway.interfaces import Blob
from gateway.upstreams.client import UpstreamClient

#: Below an upstream's input, output and temp folders: of all gateways. The node pack cleans nothing that lies elsewhere.
ROOT = "gateway"
_READ_BYTES = 1024 * 1024
#: Blobs that are known to be there, at most: some MB. What falls out is sent again when it is wanted again.
MAX_STAGED = 20_000
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


def folder_of(client_id: str) -> str:
    """Where a gateway keeps its files on an upstream: a folder that two gateways on one ComfyUI never share.

    Args:
        client_id: of the gateway there. It opens that gateway's socket, so it does not stand in the name.
    """
    return f"{ROOT}/{hashlib.sha256(client_id.encode()).hexdigest()[:16]}"


class Staging:
    """The input files of one upstream.

    Args:
        client: calls it.
        folder: below its input folder.
    """

    def __init__(self, client: UpstreamClient, folder: str) -> None:
        self._client = client
        self._folder = folder
        #: Hashes whose files are about to be deleted.
        self._withheld: dict[str, asyncio.Event] = {}
        #: Hash -> suffix -> what a node must say. By hash, for what lies there is asked at every look at the queue.
        self._staged: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._uploads: dict[tuple[str, str], asyncio.Task[str]] = {}
        #: Counts doubts: an upload that was begun before one proves nothing after it.
        self._epoch = 0
        #: Largest body the upstream takes; None while unknown.
        self.max_upload_bytes: int | None = None

    def staged(self) -> AbstractSet[str]:
        """Hashes of what is believed to be there; a view that changes with it."""
        return self._staged.keys()

    def doubt(self) -> None:
        """Believe nothing any more."""
        self._epoch += 1
        self._staged.clear()

    async def stage(self, blob: Blob, path: Path, suffix: str) -> str:
        """Upload unless it is there; callers who want the same at once share one upload.

        Returns:
            What a node's file input must say, e.g. ``gateway/<id>/<hash>.mp4``.

        Raises:
            TooLargeError: the upstream does not take that much.
            ConnectionError: the upload failed; it may be tried again.
        """
        key = (blob.hash, suffix if _SUFFIX.fullmatch(suffix) else "")
        while (deleted := self._withheld.get(blob.hash)) is not None:
            await deleted.wait()
        if (known := self._staged.get(key[0], {}).get(key[1])) is not None:
            self._staged.move_to_end(key[0])
            return known
        upload = self._uploads.get(key)
        if upload is None:
            upload = asyncio.create_task(self._upload(key, blob, path), name=f"upload {blob.hash[:12]}")
            self._uploads[key] = upload
            upload.add_done_callback(lambda done: self._ended(key, done))
        # One who stops waiting does not stop the upload of the others; `close` awaits what is left.
        return await asyncio.shield(upload)

    @contextlib.contextmanager
    def withheld(self, hashes: Collection[str]) -> Iterator[frozenset[str]]:
        """Have nobody count on these files meanwhile: whoever wants one waits, and then uploads it unless it is still there.

        Those that are being uploaded are left out; the others come back. ``forget`` says which went.
        """
        uploading = {blob_hash for blob_hash, _ in self._uploads}
        mine = frozenset(hashes) - uploading - self._withheld.keys()
        done = asyncio.Event()
        self._withheld |= dict.fromkeys(mine, done)
        try:
            yield mine
        finally:
            for blob_hash in mine:
                del self._withheld[blob_hash]
            done.set()

    def forget(self, hashes: Collection[str]) -> None:
        """Their files may be gone."""
        for blob_hash in hashes:
            self._staged.pop(blob_hash, None)

    def _ended(self, key: tuple[str, str], upload: asyncio.Task[str]) -> None:
        self._uploads.pop(key, None)
        if not upload.cancelled():
            # Whoever waits gets its error. Where all have left, nobody wants it: it would be logged as forgotten.
            upload.exception()

    async def close(self) -> None:
        """Stop the uploads."""
        uploads = list(self._uploads.values())
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    async def _upload(self, key: tuple[str, str], blob: Blob, path: Path) -> str:
        epoch = self._epoch
        boundary = secrets.token_hex(16)
        head, tail = _multipart(boundary, self._folder, f"{blob.hash}{key[1]}")
        size_bytes = len(head) + blob.size_bytes + len(tail)
        if self.max_upload_bytes is not None and size_bytes > self.max_upload_bytes:
            raise _too_large(self.max_upload_bytes)
        answer = await self._client.upload(
            "/upload/image",
            _body(head, path, tail, blob.size_bytes),
            {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size_bytes)},
        )
        if answer.status == answers.PAYLOAD_TOO_LARGE:
            raise _too_large(self.max_upload_bytes)
        uploaded = answers.parse_upload(answer.status, answer.body)
        if uploaded is None:
            raise ConnectionError(f"the upstream did not take an upload (HTTP {answer.status})")
        if epoch == self._epoch:
            self._staged.setdefault(key[0], {})[key[1]] = uploaded.input_value
            if len(self._staged) > MAX_STAGED:
                self._staged.popitem(last=False)
        return uploaded.input_value


def _too_large(limit: int | None) -> TooLargeError:
    known = f" ({limit} bytes)" if limit is not None else ""
    return TooLargeError(f"An input is larger than what the upstream takes{known}.")


def _multipart(boundary: str, folder: str, filename: str) -> tuple[bytes, bytes]:
    fields = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("type", "input"), ("subfolder", folder))
    )
    head = (
        f'{fields}--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()


async def _body(head: bytes, path: Path, tail: bytes, size_bytes: int) -> AsyncIterator[bytes]:
    yield head
    if size_bytes <= _READ_BYTES:  # most are, and opening, reading and closing is one step then
        yield await asyncio.to_thread(path.read_bytes) + tail
        return
    async with aiofiles.open(path, "rb") as file:
        while piece := await file.read(_READ_BYTES):
            yield piece
    yield tail

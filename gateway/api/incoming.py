"""Files of a request on their way in: recognised, counted, written into blobs; all of them made durable, or none.

Whatever carries them (``uploads.py``: parts of a form, data URIs in JSON), a file is told by its first bytes and goes
straight into a blob writer; nothing of it stays in memory. All are committed together once the whole body was
well-formed; until then, whichever way the request ends, its bytes are dropped. Afterwards they belong to whoever calls
``TakenFiles.keep``.

What a file must be to be used (decodable, small enough in pixels and frames) is asked later, in ``media/``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import anyio

from gateway.audit import MediaKind
from gateway.errors import InvalidInputError, TooLargeError, UnsupportedMediaError
from gateway.interfaces import Blob, BlobWriter
from gateway.safety import spell_bytes
from gateway.sniffing import ANY_FILE, HEAD_BYTES, KINDS_TOLD, MediaType, sniff


class UploadBlobs(Protocol):
    """The part of ``interfaces.Blobs`` that uploads need."""

    async def writer(self, *, expected_bytes: int | None = None) -> BlobWriter:
        """A new writer; refuses with StorageFullError when ``expected_bytes`` surely do not fit."""
        ...

    async def discard(self, blob: Blob) -> bool:
        """Take back a commit that led to nothing, unless its bytes are somebody else's too."""
        ...


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that lies in the blob store now."""

    blob: Blob
    #: By its first bytes; whether it decodes is for ``media/`` to say.
    media_type: MediaType
    #: What the client called it, for display only, at most 255 bytes; never a path, never logged.
    display_name: str


class TakenFiles:
    """Files of a whole, well-formed body. Leave its context without ``keep`` and they are taken back."""

    def __init__(self, blobs: UploadBlobs, files: Mapping[str, ReceivedFile]) -> None:
        self.files = files
        self._blobs = blobs
        self._is_kept = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.discard()

    def keep(self) -> None:
        """The files are referred to now: leave them where they are."""
        self._is_kept = True

    async def discard(self) -> None:
        """Take the files back; harmless after ``keep``. Finishes even when the request is being canceled."""
        if self._is_kept:
            return
        with anyio.CancelScope(shield=True):
            for file in self.files.values():
                await self._blobs.discard(file.blob)


@dataclass(slots=True)
class _Arriving:
    """A file on its way in."""

    #: The request field, for errors.
    field: str
    display_name: str
    head: bytes = b""
    size_bytes: int = 0
    media_type: MediaType | None = None
    writer: BlobWriter | None = None


class IncomingFiles:
    """The files of one body, one after the other: ``begin``, ``write`` …, ``end``; then ``commit``.

    A context: leave it without ``commit`` and nothing was written.

    Args:
        blobs: where they go.
        caps: kinds that are accepted, each with its largest size in bytes; with ``FILE`` among them, also what is no
            kind that is told by its bytes.
        announced_bytes: size of the body that carries them, when it said so.
    """

    def __init__(self, blobs: UploadBlobs, caps: Mapping[MediaKind, int], announced_bytes: int | None) -> None:
        self._blobs = blobs
        self._caps = caps
        self._announced_bytes = announced_bytes
        self._stack = AsyncExitStack()
        self._files: dict[str, _Arriving] = {}
        self._key = ""

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, key: str) -> bool:
        return key in self._files

    def begin(self, key: str, field: str, display_name: str) -> None:
        """The next file begins.

        Args:
            key: what it is called in ``commit``'s answer; new.
            field: the request field it came in.
            display_name: what the client called it.
        """
        self._key = key
        self._files[key] = _Arriving(field, display_name)

    async def write(self, data: bytes) -> None:
        """More of it.

        Raises:
            UnsupportedMediaError: it is of no accepted kind.
            TooLargeError: it is larger than its kind may be.
            StorageFullError: no room for it.
        """
        file = self._files[self._key]
        file.size_bytes += len(data)
        if file.writer is None:
            file.head += data
            if len(file.head) >= HEAD_BYTES:
                await self._recognise(file)
            return
        self._require_fit(file)
        await file.writer.write(data)

    async def end(self) -> None:
        """That was all of it.

        Raises:
            InvalidInputError: it is empty, and was meant as a file: it has a name.
        """
        file = self._files[self._key]
        if file.size_bytes == 0:
            # A browser sends a file input that was left empty as a file without name and bytes.
            del self._files[self._key]
            if file.display_name:
                raise InvalidInputError(f"The file in {file.field!r} is empty (0 bytes).", field=file.field)
        elif file.writer is None:
            await self._recognise(file)

    async def commit(self) -> dict[str, ReceivedFile]:
        """Make everything durable; the caller's from then on. What was committed before one fails is taken back."""
        files: dict[str, ReceivedFile] = {}
        taken = TakenFiles(self._blobs, files)
        # Side by side: each waits for the disk twice, and the disk makes several durable in one go.
        commits = asyncio.gather(*map(_commit, self._files.items()), return_exceptions=True)
        try:
            outcomes = await asyncio.shield(commits)
        except asyncio.CancelledError:
            files.update(outcome for outcome in await commits if isinstance(outcome, tuple))
            await taken.discard()
            raise
        files.update(outcome for outcome in outcomes if isinstance(outcome, tuple))
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await taken.discard()
                raise outcome
        return files

    async def _recognise(self, file: _Arriving) -> None:
        """The first bytes are there: is it something we take? Only then is anything written."""
        file.media_type = sniff(file.head[:HEAD_BYTES])
        if file.media_type is None and MediaKind.FILE in self._caps:
            file.media_type = ANY_FILE
        if file.media_type is None:
            raise UnsupportedMediaError(f"The file in {file.field!r} is none of {KINDS_TOLD}.", field=file.field)
        if file.media_type.kind not in self._caps:
            raise UnsupportedMediaError(
                f"The file in {file.field!r} is not of a kind that is accepted here.", field=file.field
            )
        self._require_fit(file)
        writer = await self._blobs.writer(expected_bytes=self._announced_bytes)
        file.writer = await self._stack.enter_async_context(writer)
        await writer.write(file.head)
        file.head = b""

    def _require_fit(self, file: _Arriving) -> None:
        if file.media_type is None:
            return
        cap = self._caps[file.media_type.kind]
        if file.size_bytes > cap:
            kind = file.media_type.kind.value
            raise TooLargeError(
                f"The {kind} in {file.field!r} is larger than {spell_bytes(cap)}, the limit for this kind of file.",
                field=file.field,
            )


async def _commit(named: tuple[str, _Arriving]) -> tuple[str, ReceivedFile] | None:
    """A file made durable; None when nothing was written of it."""
    key, file = named
    if file.writer is None or file.media_type is None:
        return None
    return key, ReceivedFile(await file.writer.commit(), file.media_type, file.display_name)

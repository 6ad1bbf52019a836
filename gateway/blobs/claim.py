"""Which data directory a prefix of a bucket belongs to: the object ``owner`` beside the blobs names it.

A gateway takes objects that none of its marks speaks of for what a killed run has left, and deletes them. On a prefix of
somebody else's these would be all of that one's files. So it looks who the prefix belongs to, at each start and before it
looks for what was left. The first one to come takes it; of two who come at once the one whose name stays has it, and the other
finds that out at its next look. Nobody takes a name away: that is for who knows that the other is gone.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import Final

from gateway.errors import StorageUnreachableError
from gateway.interfaces import Bucket

#: The object's key, below the prefix.
OWNER: Final = "owner"
_ID: Final = re.compile(rb"[0-9a-f]{32}")
_SENTENCE: Final = "The storage of files belongs to another gateway."


class TakenError(StorageUnreachableError):
    """The prefix belongs to another data directory."""


class Claim:
    """The claim of one data directory to one prefix.

    Args:
        bucket: the prefix.
        file: keeps this data directory's name; made when it is first asked for.
    """

    def __init__(self, bucket: Bucket, file: Path) -> None:
        self._bucket = bucket
        self._file = file

    async def require(self) -> None:
        """See that the prefix is ours, and take it where it is nobody's.

        Raises:
            TakenError: it is somebody else's.
            StorageUnreachableError: nobody says whose it is.
        """
        ours = await asyncio.to_thread(self._name)
        named = await self._named()
        if named is None:
            await self._bucket.put(OWNER, self._file)
            named = await self._named()
        if named != ours:
            raise self._taken()

    async def look(self) -> None:
        """See that the prefix is ours or nobody's, and change nothing; raises as ``require``."""
        ours = await asyncio.to_thread(self._known)
        named = await self._named()
        if named not in {None, ours}:
            raise self._taken()

    def _taken(self) -> TakenError:
        reason = f"it belongs to another data directory, as {self._bucket.location(OWNER)} says"
        return TakenError(_SENTENCE, reason=reason, is_refusal=True)

    async def _named(self) -> bytes | None:
        try:
            return b"".join([chunk async for chunk in self._bucket.stream(OWNER, 0, 64)])
        except FileNotFoundError:
            return None

    def _known(self) -> bytes:
        try:
            return self._file.read_bytes()
        except FileNotFoundError:
            return b""

    def _name(self) -> bytes:
        name = self._known()
        if not _ID.fullmatch(name):
            name = secrets.token_hex(16).encode("ascii")
            part = self._file.with_name(f"{self._file.name}.part")
            part.write_bytes(name)
            part.replace(self._file)
        return name

"""One at a time for each blob: who commits, brings or deletes the same bytes waits for who is at them already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Turns:
    """Turns by the hashes of blobs; nothing is kept of those that nobody is at."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def __contains__(self, blob_hash: str) -> bool:
        return blob_hash in self._turns

    def wanted(self, blob_hash: str) -> int:
        """How many are at it, or wait."""
        turn = self._turns.get(blob_hash)
        return 0 if turn is None else turn.users

    @asynccontextmanager
    async def alone(self, blob_hash: str) -> AsyncIterator[None]:
        """Be at it, alone. Whoever is within, or waits, counts as being at it."""
        turn = self._turns.setdefault(blob_hash, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[blob_hash]

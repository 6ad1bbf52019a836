"""Who has never had faces counted, so that the jobs of most owners need not be asked about.

Each swap asks for the newest report on its target. An owner without a single detection has none, and that stays so until
one is made here: whoever writes to the store holds its lease, so there is nobody else to make one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Owners that are remembered; in open mode there is one.
MOST: Final = 10_000


class Detections:
    """Owners that are known to have none."""

    def __init__(self) -> None:
        self._without: set[str] = set()
        #: Counts beginnings and ends of what makes one: who has looked meanwhile may have looked too early.
        self._turn = 0

    @property
    def turn(self) -> int:
        """To be taken before a look, and given to ``note_none`` after it."""
        return self._turn

    def has_none(self, owner: str) -> bool:
        """Whether there is nothing to look for."""
        return owner in self._without

    def note_none(self, owner: str, turn: int) -> None:
        """A look that was begun at ``turn`` found none."""
        if turn == self._turn:
            if len(self._without) >= MOST:
                self._without.clear()
            self._without.add(owner)

    @contextmanager
    def making(self, owner: str) -> Iterator[None]:
        """Around the write that makes one."""
        self._turn += 1
        try:
            yield
        finally:
            self._turn += 1
            self._without.discard(owner)

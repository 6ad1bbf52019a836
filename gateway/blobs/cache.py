"""Which of the bucket's blobs lie on this disk as well, which of them are in use, and which go when there are too many.

Only what the bucket has for certain is listed here, so anything here may go at any time, but while it is pinned. The files
are those of a ``LocalBlobs``, which does the work on the disk.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager


class Cache:
    """The list; it touches no disk.

    Args:
        size_bytes: what may lie here; more only while it is all in use.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        #: hash -> bytes, the least recently used first.
        self._held: OrderedDict[str, int] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._total_bytes = 0

    def __contains__(self, blob_hash: str) -> bool:
        return blob_hash in self._held

    @contextmanager
    def pinned(self, blob_hash: str) -> Iterator[None]:
        """Keep it, whether it is here already or comes meanwhile."""
        self._pins[blob_hash] += 1
        try:
            yield
        finally:
            self._pins[blob_hash] -= 1
            if not self._pins[blob_hash]:
                del self._pins[blob_hash]

    def add(self, blob_hash: str, size_bytes: int) -> None:
        """It lies here, and was used just now."""
        self.remove(blob_hash)
        self._held[blob_hash] = size_bytes
        self._total_bytes += size_bytes

    def use(self, blob_hash: str) -> None:
        """It was used just now."""
        if blob_hash in self._held:
            self._held.move_to_end(blob_hash)

    def remove(self, blob_hash: str) -> None:
        """It does not lie here any more."""
        self._total_bytes -= self._held.pop(blob_hash, 0)

    def surplus(self, *, coming_bytes: int = 0) -> list[str]:
        """What has to go, so that what is coming has room; taken off the list already."""
        going = []
        for blob_hash, size_bytes in list(self._held.items()):
            if self._total_bytes + coming_bytes <= self._size_bytes:
                break
            if blob_hash not in self._pins:
                going.append(blob_hash)
                del self._held[blob_hash]
                self._total_bytes -= size_bytes
        return going

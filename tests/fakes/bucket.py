"""Object storage in memory.

Unrealistic: links lead nowhere, uploads in parts are not to be seen, and nothing takes time. ``failure``, when set, is raised by
whatever is asked next, again and again; ``asked`` has the name of each call with its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import StorageUnreachableError
from gateway.interfaces import StoredObject, Trouble


@dataclass(frozen=True)
class Kept:
    data: bytes
    modified_at: float
    content_type: str
    filename: str | None
    sha256: str | None


class MemoryBucket:
    """``interfaces.Bucket`` without a server."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self._now = now
        self.kept: dict[str, Kept] = {}
        self.failure: StorageUnreachableError | None = None
        self.asked: list[tuple[str, str]] = []
        #: Whether it does as Amazon's does, and not as some others do.
        self.works_out_hashes = True
        #: Uploads in parts that a run left, by key, with the time of their beginning.
        self.unfinished: dict[str, float] = {}
        self._trouble: Trouble | None = None

    def location(self, key: str) -> str:
        return f"s3://memory/{key}"

    async def put(
        self, key: str, path: Path, *, content_type: str = "application/octet-stream", filename: str | None = None
    ) -> StoredObject:
        self._ask("put", key)
        data = path.read_bytes()  # noqa: ASYNC240 - a few bytes
        sha256 = hashlib.sha256(data).hexdigest()
        self.kept[key] = Kept(data, self._now(), content_type, filename, sha256)
        return StoredObject(key, len(data), self.kept[key].modified_at, sha256)

    async def look(self, key: str) -> StoredObject | None:
        self._ask("look", key)
        kept = self.kept.get(key)
        return None if kept is None else StoredObject(key, len(kept.data), kept.modified_at, kept.sha256)

    async def copy(self, source: str, key: str, *, content_type: str, filename: str, sha256: str) -> None:
        self._ask("copy", key)
        if source not in self.kept:
            raise FileNotFoundError(source)
        self.kept[key] = Kept(self.kept[source].data, self._now(), content_type, filename, sha256)

    async def sha256_found(self, key: str) -> str | None:
        self._ask("sha256_found", key)
        if key not in self.kept:
            raise FileNotFoundError(key)
        return hashlib.sha256(self.kept[key].data).hexdigest() if self.works_out_hashes else None

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        self._ask("stream", key)
        if key not in self.kept:
            raise FileNotFoundError(key)
        if piece := self.kept[key].data[start:end]:
            yield piece

    async def delete(self, key: str) -> None:
        self._ask("delete", key)
        self.kept.pop(key, None)

    async def presigned_get(
        self, key: str, *, seconds: int, filename: str, content_type: str, disposition: str = "attachment"
    ) -> str:
        self._ask("presigned_get", key)
        return f"https://memory.test/{key}?for={seconds}&as={filename}&type={content_type}&how={disposition}"

    async def presigned_put(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        self._ask("presigned_put", key)
        return f"https://memory.test/{key}?put&for={seconds}&type={content_type}"

    async def listed(self, under: str = "") -> AsyncIterator[StoredObject]:
        self._ask("listed", under)
        for key, kept in sorted(self.kept.items()):
            if key.startswith(under):
                yield StoredObject(key, len(kept.data), kept.modified_at)

    async def abort_unfinished(self, *, older_than: float, under: str = "") -> int:
        self._ask("abort_unfinished", under)
        left = [key for key, begun in self.unfinished.items() if key.startswith(under) and begun < older_than]
        for key in left:
            del self.unfinished[key]
        return len(left)

    def trouble(self) -> Trouble | None:
        return self._trouble

    async def close(self) -> None:
        return

    def _ask(self, what: str, key: str) -> None:
        self.asked.append((what, key))
        self._trouble = None
        if self.failure is not None:
            self._trouble = Trouble(self.failure.reason, is_refusal=self.failure.is_refusal)
            raise self.failure

"""Records of consent in memory, for the windows; the engine's own ``Consents`` stands over them.

Unrealistic: a test puts records in as they are, and nothing completes them when a job ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.consent import ConsentRecord
from gateway.errors import InvalidInputError


class MemoryConsents:
    """``interfaces.ConsentStore``."""

    def __init__(self) -> None:
        self.kept: dict[str, ConsentRecord] = {}

    def put(self, record: ConsentRecord) -> None:
        self.kept[record.job_id] = record

    async def record(self, job_id: str) -> ConsentRecord | None:
        return self.kept.get(job_id)

    async def records(
        self, *, owner: str | None, since: float, after: str | None, limit: int
    ) -> Sequence[ConsentRecord]:
        if after is not None and after not in self.kept:
            raise InvalidInputError("after is no such job.", field="after")
        last = (since, "") if after is None else (self.kept[after].at, after)
        ordered = sorted(self.kept.values(), key=lambda one: (one.at, one.job_id))
        found = [one for one in ordered if one.owner == (owner or one.owner) and (one.at, one.job_id) > last]
        return [one for one in found if one.at >= since][:limit]

    async def sweep(self, *, before: float) -> int:
        return self._drop([one for one in self.kept.values() if one.ended_at is not None and one.ended_at <= before])

    async def forget(self, job_id: str) -> int:
        return self._drop([one for one in self.kept.values() if one.job_id == job_id])

    async def forget_owner(self, owner: str) -> int:
        return self._drop([one for one in self.kept.values() if one.owner == owner])

    def _drop(self, gone: Sequence[ConsentRecord]) -> int:
        for one in gone:
            del self.kept[one.job_id]
        return len(gone)

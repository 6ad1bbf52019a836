"""Consent: asked for before anything is fetched; its records, looked up, listed, forgotten when their time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.consent import Attestation, ConsentRecord, refuse_without
from gateway.errors import NotFoundError
from gateway.interfaces import Clock, ConsentStore

#: A sweep is done in batches; the rest waits for the next one.
MAX_BATCHES = 100


class Consents:
    """A part of the engine's door.

    Args:
        retention_seconds: how long a record is kept after its job ended.
        is_required: whether a task may be asked for only with it.
    """

    def __init__(
        self,
        store: ConsentStore,
        clock: Clock,
        retention_seconds: float,
        is_required: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._is_required = is_required

    def check(self, given: Attestation | None, task: str) -> None:
        """The verdict before anything is fetched: whether this task may be asked for with this.

        Raises:
            ConsentRequiredError: it swaps faces, and nothing was said of the people in the pictures.
        """
        refuse_without(given, is_required=given is None and self._is_required(task))

    async def record(self, job_id: str) -> ConsentRecord:
        """That of a job. Raises NotFoundError: nothing was said of it, or it is kept no longer."""
        found = await self._store.record(job_id)
        if found is None:
            raise NotFoundError("There is no record of consent for this job.", field="id")
        return found

    async def records(
        self, *, owner: str | None = None, since: float = 0.0, after: str | None = None, limit: int = 100
    ) -> Sequence[ConsentRecord]:
        """Oldest first; ``after`` is the job of the last one already seen. Raises InvalidInputError."""
        return await self._store.records(owner=owner, since=since, after=after, limit=limit)

    async def sweep(self) -> None:
        """Forget those past their retention."""
        for _ in range(MAX_BATCHES):
            if not await self._store.sweep(before=self._clock.now() - self._retention_seconds):
                return

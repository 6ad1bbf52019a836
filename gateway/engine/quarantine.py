"""Keeps tasks that kill their upstreams from being tried on a third one; ``gateway/poison.py`` decides.

What is known of a task's trail lies in the store, so a restart forgets nothing. A task is looked at once for each attempt
that it lost, from the one on by which it can have killed enough upstreams; before that it is tried again at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from gateway.engine.recorder import Recorder
from gateway.errors import PoisonedError
from gateway.interfaces import Candidate, Clock, Report, Store
from gateway.job import TaskEvent
from gateway.poison import Trail, is_poisoned, own_deaths, seconds_to_verdict

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Review:
    #: The attempt after whose loss it was looked at.
    attempt: int
    #: Monotonic seconds of the verdict. Fixed at the first look: a wall clock that is set back must hold nobody up.
    due: float
    is_cleared: bool = False


class Quarantine:
    """Passes verdicts on tasks that lost attempts.

    Args:
        poison_after: upstreams that must have died of a task; 0 passes no verdicts.
    """

    def __init__(self, store: Store, recorder: Recorder, clock: Clock, *, poison_after: int) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._poison_after = poison_after
        self._reviews: dict[str, _Review] = {}

    async def review(self, queued: Iterable[Candidate]) -> Mapping[str, float]:
        """Tasks that must not be tried now -> monotonic seconds of their verdict; one that is poisoned has failed."""
        if not self._poison_after:
            return {}
        suspects = {candidate.task_id: candidate for candidate in queued if candidate.losses >= self._poison_after}
        self._reviews = {
            task_id: review
            for task_id, review in self._reviews.items()
            if task_id in suspects and review.attempt == suspects[task_id].attempt
        }
        now = self._clock.monotonic()
        wanted = [task_id for task_id in suspects if not self._is_settled(task_id, now)]
        for task_id, trail in (await self._store.trails(wanted)).items() if wanted else ():
            await self._judge(suspects[task_id], trail, now)
        return {task_id: review.due for task_id, review in self._reviews.items() if not review.is_cleared}

    def _is_settled(self, task_id: str, now: float) -> bool:
        """Whether there is nothing to ask about it: it is cleared, or its verdict is not due yet."""
        review = self._reviews.get(task_id)
        return review is not None and (review.is_cleared or review.due > now)

    async def _judge(self, candidate: Candidate, trail: Trail, now: float) -> None:
        review = self._reviews.get(candidate.task_id)
        due = review.due if review else now + seconds_to_verdict(trail, self._poison_after, self._clock.now())
        is_cleared = due <= now and not is_poisoned(trail, self._poison_after)
        self._reviews[candidate.task_id] = _Review(candidate.attempt, due, is_cleared)
        if due <= now and not is_cleared:
            await self._condemn(candidate, trail)

    async def _condemn(self, candidate: Candidate, trail: Trail) -> None:
        deaths = own_deaths(trail)
        evidence = [{"upstream": death.upstream, "at": round(death.at, 3)} for death in deaths]
        log.error("task_poisoned", job=candidate.job_id, task=candidate.task_id, deaths=evidence)
        number = len({death.upstream for death in deaths})
        sentence = f"{number} workers died while they ran it, so it is not tried on another."
        report = Report(TaskEvent.FAILED, error_code=PoisonedError.code, error_message=sentence)
        await self._recorder.record(candidate.task_id, report)

"""Inputs looked at before there is a job: decoded where all decoding is done, shown to the check, judged by the policy.

Every input goes through one door, ``Screening.look``, whatever kind of job it is for. What was looked at once is not looked
at again while it is remembered: the same bytes, the same verdict. Where nobody checks, nothing is said to have been checked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from gateway.audit import PICTURES
from gateway.engine.scratch import scratch_folder
from gateway.errors import ApiDisabledError, UnsafeContentError, UnsupportedMediaError
from gateway.interfaces import Blobs, Media, SafetyCheck
from gateway.job import JobInput
from gateway.screening import (
    FLAGGED_CODE,
    LONGEST_SIDE,
    MOST_RETRY_SECONDS,
    RETRY_FAILED_SECONDS,
    UNSEEN_CODE,
    Answer,
    CheckFailedError,
    Opinion,
    Pending,
    Policy,
    Rules,
    Verdict,
    verdict,
)

log = structlog.get_logger(__name__)

Warnings: TypeAlias = tuple[tuple[str, str], ...]

#: Inputs that are looked at at a time, and pictures of each that are with the check.
_AT_A_TIME: Final = 4
_PICTURES_AT_A_TIME: Final = 4
#: Inputs that may wait for their turn; at a second each the last waits half a minute.
_MOST_WAITING: Final = 128
#: Verdicts remembered: a hash and a score each.
_MOST_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class ScreeningState:
    """What is done about inputs, as ``/health`` tells it."""

    policy: Policy = Policy.OFF
    #: ``model`` or ``service``; None where nobody checks.
    check: str | None = None
    #: Whether the newest look failed: then new jobs are refused until one succeeds.
    is_failing: bool = False


#: Where nobody checks.
NOBODY_LOOKS: Final = ScreeningState()


class Screening:
    """Looks at inputs.

    Args:
        check: who says what a picture shows; None looks at nothing.
        rules: what is done about it.
        media: decodes.
        blobs: where inputs lie.
        scratch: folder for pictures on their way to the check.
    """

    def __init__(self, check: SafetyCheck | None, rules: Rules, media: Media, blobs: Blobs, scratch: Path) -> None:
        self._check = None if rules.policy is Policy.OFF else check
        self._rules = rules
        self._media = media
        self._blobs = blobs
        self._scratch = scratch
        self._remembered: OrderedDict[str, Verdict] = OrderedDict()
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._waiting = 0
        self._is_failing = False

    def state(self) -> ScreeningState:
        """How it is, from memory."""
        if self._check is None:
            return NOBODY_LOOKS
        return ScreeningState(self._rules.policy, self._check.name, self._is_failing)

    async def look(self, inputs: Sequence[tuple[str, JobInput]]) -> Warnings:
        """Warnings of a job with these inputs, which were probed; each with the request field it came in.

        Raises:
            UnsafeContentError: one was flagged, and the policy is to refuse it; its field is named.
            UnsupportedMediaError: one is nothing that can be looked at, and the policy is to refuse what was not.
            ApiDisabledError: the check failed or is still at work; with the time to ask again.
            InvalidInputError: one cannot be decoded where it was to be looked at.
        """
        if self._check is None:
            return ()
        found: list[tuple[str, Verdict | Pending]] = []
        unseen = [field for field, given in inputs if given.facts.kind not in PICTURES]
        if unseen and self._rules.policy is Policy.REJECT:
            raise UnsupportedMediaError(
                "The safety check can look at pictures and videos only, and nothing runs here that was not looked at.",
                field=unseen[0],
            )
        for field, given in inputs:
            if given.facts.kind in PICTURES:
                found.append((field, judged := await self._judge(self._check, field, given)))
                self._refuse_flagged(field, judged)
        waits = [judged.retry_after_seconds for _, judged in found if isinstance(judged, Pending)]
        if waits:
            raise ApiDisabledError(
                "The files are still being scanned; send them again soon.",
                retry_after_seconds=min(max(waits), MOST_RETRY_SECONDS),
            )
        flagged = dict.fromkeys(field for field, judged in found if isinstance(judged, Verdict) and judged.is_flagged)
        return (
            *((FLAGGED_CODE, f"The safety check flagged the input {field!r}.") for field in flagged),
            *((UNSEEN_CODE, f"The safety check could not look at the input {field!r}.") for field in unseen),
        )

    def _refuse_flagged(self, field: str, judged: Verdict | Pending) -> None:
        if not isinstance(judged, Verdict) or not judged.is_flagged:
            return
        log.warning("input_flagged", field=field, score=round(judged.score, 4), policy=self._rules.policy.value)
        if self._rules.policy is Policy.REJECT:
            raise UnsafeContentError("The safety check does not let this file pass.", field=field)

    async def _judge(self, check: SafetyCheck, field: str, given: JobInput) -> Verdict | Pending:
        known = self._remembered.get(given.blob)
        if known is not None:
            self._remembered.move_to_end(given.blob)
            return known
        if self._waiting >= _MOST_WAITING:
            raise ApiDisabledError("Too many files wait to be scanned.", retry_after_seconds=RETRY_FAILED_SECONDS)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            judged = await self._look_at(check, field, given)
        except CheckFailedError as error:
            self._is_failing = True
            log.error("safety_check_failed", check=check.name, reason=str(error))
            raise ApiDisabledError(
                "The safety check cannot be done now, and nothing runs without it.",
                retry_after_seconds=RETRY_FAILED_SECONDS,
            ) from error
        finally:
            self._turns.release()
        self._is_failing = False
        if isinstance(judged, Verdict):
            self._remember(given.blob, judged)
        return judged

    async def _look_at(self, check: SafetyCheck, field: str, given: JobInput) -> Verdict | Pending:
        """What the check says of an input; the pictures are gone afterwards."""
        answers: list[Answer] = []
        async with scratch_folder(self._scratch, "look") as folder:
            async with self._blobs.held(given.blob) as path:
                pictures = await self._media.sample(
                    path, folder, field=field, most=self._rules.frames, longest_side=LONGEST_SIDE
                )
            numbered = [(picture, f"{given.blob}-{number}") for number, picture in enumerate(pictures)]
            for first in range(0, len(numbered), _PICTURES_AT_A_TIME):
                answers += await _ask(check, numbered[first : first + _PICTURES_AT_A_TIME])
                if any(isinstance(answer, Opinion) and self._is_enough(answer) for answer in answers):
                    break  # one is enough; a service that works behind its answers gets the others when it is asked again
        return verdict(answers, self._rules.threshold)

    def _is_enough(self, opinion: Opinion) -> bool:
        judged = verdict([opinion], self._rules.threshold)
        return isinstance(judged, Verdict) and judged.is_flagged

    def _remember(self, blob_hash: str, judged: Verdict) -> None:
        self._remembered[blob_hash] = judged
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)


async def _ask(check: SafetyCheck, pictures: Sequence[tuple[Path, str]]) -> list[Answer]:
    """Answers to some pictures, asked at once."""
    try:
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(check.look(picture, reference=reference), name=f"safety check {number}")
                for number, (picture, reference) in enumerate(pictures)
            ]
    except* CheckFailedError as errors:
        raise CheckFailedError(str(errors.exceptions[0])) from errors
    return [look.result() for look in looks]

"""Which frames of an input a safety check is shown, and what its answers mean for the job. Pure.

It looks at nothing itself: ``media/`` decodes, ``moderation/`` has the checks, ``engine/screening.py`` brings them together.
A check says something of one picture at a time; an input is as bad as the worst of its pictures. What cannot be looked at
is never taken for harmless.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

#: Pixels of the longer side of a picture that a check is shown; classifiers take 200 to 600.
LONGEST_SIDE: Final = 1024
#: When to ask again after a check that could not be done, and after one that is still at work.
RETRY_FAILED_SECONDS: Final = 30
RETRY_PENDING_SECONDS: Final = 5
MOST_RETRY_SECONDS: Final = 300

#: Job warning: an input was flagged, and the policy lets it pass.
FLAGGED_CODE: Final = "input_flagged"
#: The same for one that no check can look at: a client's own workflow may name any file.
UNSEEN_CODE: Final = "input_not_looked_at"


class Policy(StrEnum):
    """What is done about inputs that a check flags."""

    #: Nothing is looked at.
    OFF = "off"
    #: The job runs, and says so in its warnings.
    FLAG = "flag"
    #: There is no job.
    REJECT = "reject"


class CheckFailedError(Exception):
    """A check has no answer, or one that is none. The sentence is for the log and names no address."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How strictly inputs are looked at."""

    policy: Policy
    #: A picture is flagged from this score on, 0 to 1.
    threshold: float = 0.5
    #: Of a video or GIF, at most.
    frames: int = 16


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a check says of one picture."""

    #: 0 is harmless, 1 is not.
    score: float
    #: The check's own word, whatever the score; a model has none.
    is_flagged: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """A check has taken a picture in and cannot say anything of it yet."""

    retry_after_seconds: int = RETRY_PENDING_SECONDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all of an input's pictures come to."""

    is_flagged: bool
    #: Of the worst of them.
    score: float


Answer: TypeAlias = Opinion | Pending


def verdict(answers: Iterable[Answer], threshold: float) -> Verdict | Pending:
    """What answers come to: flagged by any, pending by any, else harmless.

    Raises:
        CheckFailedError: there are none, and an input that nobody saw is not harmless.
    """
    seen = list(answers)
    opinions = [answer for answer in seen if isinstance(answer, Opinion)]
    waits = [answer.retry_after_seconds for answer in seen if isinstance(answer, Pending)]
    score = max((opinion.score for opinion in opinions), default=0.0)
    if any(opinion.is_flagged or opinion.score >= threshold for opinion in opinions):
        return Verdict(True, score)
    if waits:
        return Pending(max(waits))
    if not opinions:
        raise CheckFailedError("no picture was looked at")
    return Verdict(False, score)


def frames_to_look_at(starts: Sequence[float], most: int) -> tuple[int, ...]:
    """Indices of the frames that are shown to a check, the first and the last among them where there is room for two.

    Spread by time: what a viewer sees longest is what is likeliest to be met. Where that meets one frame several times (a
    GIF may stand still for a minute and flash by before and after), the rest of the budget goes to others, evenly by
    number.

    Args:
        starts: when each frame appears, ascending, in any unit.
        most: how many frames at most.
    """
    count = len(starts)
    if count <= most:
        return tuple(range(count))
    if most == 1:
        return (count // 2,)
    first, length = starts[0], starts[-1] - starts[0]
    chosen = {bisect_right(starts, first + length * step / (most - 1)) - 1 for step in range(most)}
    chosen |= {0, count - 1}
    others = [index for index in range(count) if index not in chosen]
    spare = min(most - len(chosen), len(others))
    chosen |= {others[(2 * step + 1) * len(others) // (2 * spare)] for step in range(spare)}
    return tuple(sorted(chosen))

"""What is told to webhooks: which messages there are, and when each is tried again.

Pure. A job that was given a ``webhook_url`` leaves one message in the transaction that ends it, whose id follows from the
job's: it can neither be missing nor be there twice. Each attempt carries that same id, so that a receiver which remembers
ids sees an effect once, however often it is asked.

An attempt succeeds with a 2xx. Everything else, a redirect included, is tried again by ``SCHEDULE_SECONDS``, or later
where the receiver names a time; 410 means "never again" and disables the endpoint. What was tried as often as may be is a
dead letter: kept with its job, to be seen and sent again by whoever it belongs to.

Source of the schedule, of the ids and of what 410 means: the Standard Webhooks specification 1.0.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, TypeAlias

from gateway.job import JobState

#: Before each attempt, counted from the one before it; 75 h 35 min 5 s in all.
SCHEDULE_SECONDS: Final = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
MAX_ATTEMPTS: Final = len(SCHEDULE_SECONDS)
#: Part of a delay by which it is shorter or longer, by chance: receivers that failed together are not asked together.
JITTER: Final = 0.1
#: A receiver that asks for more patience than this gets no more.
MAX_RETRY_AFTER_SECONDS: Final = 86_400.0
#: Faults in a row after which a host is left alone.
OPEN_AFTER: Final = 3
#: How long, the first time and at most; doubled each time that its one try fails.
REST_SECONDS: Final = 30.0
MAX_REST_SECONDS: Final = 300.0

#: Name in a job's ``extra``, and of the field in which clients give it.
FIELD: Final = "webhook_url"
TEST_KIND: Final = "webhook.test"
KINDS: Final = {
    JobState.SUCCEEDED: "job.succeeded",
    JobState.FAILED: "job.failed",
    JobState.CANCELED: "job.canceled",
}


class MessageState(StrEnum):
    """Where a message is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    #: Given up; only ``redeliver`` brings it back.
    DEAD = "dead"


class Reason(StrEnum):
    """What came of the last attempt, in one word."""

    #: The receiver answered; with which status stands beside it.
    ANSWERED = "answered"
    #: No answer could be had. That an address was refused is told to the log alone: else one could ask us which of our
    #: neighbours exist.
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    #: No attempt was made: the endpoint had answered 410 before.
    DISABLED = "disabled"
    #: Our own fault; the log has the rest.
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as it lies in the outbox."""

    #: The webhook-id: the same in every attempt.
    id: str
    endpoint: int
    #: The job's.
    owner: str
    #: Whose secrets sign it: the user of the owner's key, else the owner.
    account: str
    url: str
    job_id: str
    kind: str
    state: MessageState
    #: Since it was made, or sent again by request.
    attempts: int
    #: Unix seconds, all of them; None unless it is pending.
    next_at: float | None
    created_at: float
    last_at: float | None
    last_status: int | None
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret as it is kept: nobody can read it without the key beside the database."""

    sealed: bytes
    #: Unix seconds; until then it signs beside newer ones. None for the newest.
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt."""

    url: str
    message_id: str
    #: Of the attempt.
    unix_seconds: int
    #: Exactly the bytes that are signed and sent.
    body: bytes
    #: Newest first; one signature each.
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt."""

    reason: Reason
    #: With ANSWERED.
    status: int | None = None
    #: Of the field Retry-After, in seconds.
    retry_after_seconds: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver has it now."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - what 2xx means

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing any more."""
        return self.status == 410  # noqa: PLR2004 - 410 Gone

    @property
    def is_fault(self) -> bool:
        """Whether nobody answered: what a breaker counts. An error that is answered quickly holds up nobody."""
        return self.reason in {Reason.UNREACHABLE, Reason.TIMED_OUT}


@dataclass(frozen=True, slots=True)
class Delivered:
    """It is done."""


@dataclass(frozen=True, slots=True)
class Again:
    """It is tried again."""

    #: Unix seconds.
    at: float


@dataclass(frozen=True, slots=True)
class Dead:
    """It is given up."""

    disables_endpoint: bool = False


Verdict: TypeAlias = Delivered | Again | Dead


def message_id(job_id: str) -> str:
    """The webhook-id of a job's one message. It must hold no dot: what is signed is joined by dots."""
    return f"msg_{job_id}"


def judge(attempts: int, answer: Answer, now: float, chance: Callable[[], float]) -> Verdict:
    """What follows from an attempt.

    Args:
        attempts: how many there were before it.
        answer: what came of it.
        now: Unix seconds.
        chance: gives a number from 0 to 1.
    """
    if answer.is_success:
        return Delivered()
    if answer.is_gone:
        return Dead(disables_endpoint=True)
    made = attempts + 1
    if made >= MAX_ATTEMPTS:
        return Dead()
    delay = SCHEDULE_SECONDS[made] * (1 + JITTER * (2 * chance() - 1))
    wanted = min(answer.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS)
    return Again(now + max(delay, wanted))


def retry_after(text: str | None, now: float) -> float | None:
    """Seconds that a Retry-After asks for; None where there is none that can be read.

    Args:
        text: the field: whole seconds, or a date (RFC 9110, section 10.2.3).
        now: Unix seconds.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        # More digits than any patience has; int() of thousands of them would take its time.
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now)


class HostBreaker:
    """Leaves a host alone that did not answer several times in a row; then tries it with one message at a time."""

    def __init__(self) -> None:
        self._faults = 0
        #: Monotonic seconds.
        self._until = 0.0

    @property
    def is_doubted(self) -> bool:
        """Whether its last attempt failed."""
        return self._faults > 0

    @property
    def is_on_trial(self) -> bool:
        """Whether one message at a time is all that it gets."""
        return self._faults >= OPEN_AFTER

    def resting_until(self, now: float) -> float | None:
        """Monotonic seconds before which it gets nothing; None when it may be asked."""
        return self._until if now < self._until else None

    def fault(self, now: float) -> None:
        """It did not answer. Args: now: monotonic seconds."""
        if now < self._until:
            return  # of an attempt that was under way when the others failed
        self._faults += 1
        if self._faults >= OPEN_AFTER:
            self._until = now + min(REST_SECONDS * 2 ** min(self._faults - OPEN_AFTER, 16), MAX_REST_SECONDS)

    def success(self) -> None:
        """It answered, whatever it said."""
        self._faults = 0
        self._until = 0.0

"""How often a key may ask, and how many creates it may have in flight: decisions, with the time handed in.

The rate is an **exact sliding log**: the times of the last admitted requests. A fixed window admits twice its limit
around a boundary, a token bucket its burst on top; only a log keeps what is promised, that no span of
``window_seconds`` holds more than the limit. It costs as many floats as the limit is large, for keys that were used
within the last window only.

What is told about it stands in the header fields of draft-ietf-httpapi-ratelimit-headers-10, written as RFC 9651 wants:
policy names are strings, parameters are integers or strings. Nothing here survives a restart, and nothing is shared
between processes.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import ConcurrencyLimitedError, RateLimitedError

WINDOW_SECONDS: Final = 60
#: Keys remembered at most. The longest unused is forgotten first.
MAX_SUBJECTS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left to a subject after a request, admitted or not."""

    limit: int
    remaining: int
    #: Whole seconds until there is more than that, at least 1 while anything is used; 0 when nothing is.
    more_in_seconds: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may do."""

    #: Requests in ``WINDOW_SECONDS``.
    requests: int
    #: Creates in flight at once.
    creates: int


class SlidingLog:
    """When one subject's requests were admitted, the oldest first; none older than the window."""

    __slots__ = ("_times", "_window_seconds")

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._times: deque[float] = deque()

    def admit(self, limit: int, now: float) -> bool:
        """Whether one more request is within the limit; it is counted if so, and costs nothing if not.

        Args:
            limit: requests in any window; it may change from call to call.
            now: monotonic seconds, never less than at the last call.
        """
        self._forget(now)
        if len(self._times) >= limit:
            return False
        self._times.append(now)
        return True

    def quota(self, limit: int, now: float) -> Quota:
        """What is left, without asking for it."""
        self._forget(now)
        used = len(self._times)
        if not used:
            return Quota(limit, limit, 0)
        # With the limit lowered under what is used, the first that leave make no room yet.
        leaving = self._times[max(0, used - limit)] if limit else self._times[-1]
        wait = leaving + self._window_seconds - now
        return Quota(limit, max(0, limit - used), max(1, math.ceil(wait)))

    def is_idle(self, now: float) -> bool:
        """Whether nothing is counted any more."""
        self._forget(now)
        return not self._times

    def _forget(self, now: float) -> None:
        # "At" is out: who waits exactly as long as told is let in.
        while self._times and self._times[0] + self._window_seconds <= now:
            self._times.popleft()


class RateLimiter:
    """The logs of many subjects. Idle ones are forgotten, so the memory is that of the last window."""

    def __init__(self, *, window_seconds: float = WINDOW_SECONDS, max_subjects: int = MAX_SUBJECTS) -> None:
        self._window_seconds = window_seconds
        self._max_subjects = max_subjects
        #: The longest unused first.
        self._logs: OrderedDict[str, SlidingLog] = OrderedDict()

    def admit(self, subject: str, limit: int, now: float) -> Quota:
        """Count a request; what is left after it.

        Raises:
            RateLimitedError: there is none left. Nothing was counted.
        """
        log = self._log(subject, now)
        if log.admit(limit, now):
            return log.quota(limit, now)
        seconds = max(1, log.quota(limit, now).more_in_seconds)
        raise RateLimitedError(
            f"Too many requests: {limit} are allowed in {self._window_seconds:g} s. Try again in {seconds} s.",
            retry_after_seconds=seconds,
        )

    def quota(self, subject: str, limit: int, now: float) -> Quota:
        """What is left, without asking for it."""
        log = self._logs.get(subject)
        return Quota(limit, limit, 0) if log is None else log.quota(limit, now)

    def _log(self, subject: str, now: float) -> SlidingLog:
        log = self._logs.get(subject)
        if log is None:
            log = self._logs[subject] = SlidingLog(self._window_seconds)
        self._logs.move_to_end(subject)
        # Two for each that may come: so idle ones go faster than new ones can come.
        for _ in range(2):
            oldest = next(iter(self._logs))
            if oldest != subject and (len(self._logs) > self._max_subjects or self._logs[oldest].is_idle(now)):
                del self._logs[oldest]
        return log

    def __len__(self) -> int:
        return len(self._logs)


@dataclass(slots=True)
class Concurrency:
    """Creates in flight, by subject."""

    _taken: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def take(self, subject: str, limit: int) -> Iterator[None]:
        """Hold one place for the length of the block, however it is left.

        Raises:
            ConcurrencyLimitedError: all ``limit`` places are taken; nothing was changed.
        """
        taken = self._taken.get(subject, 0)
        if taken >= limit:
            raise ConcurrencyLimitedError(
                f"As many creates are in flight as this key may have at once ({limit}).", retry_after_seconds=1
            )
        self._taken[subject] = taken + 1
        try:
            yield
        finally:
            left = self._taken[subject] - 1
            if left:
                self._taken[subject] = left
            else:
                del self._taken[subject]

    def taken(self, subject: str) -> int:
        """How many places are taken."""
        return self._taken.get(subject, 0)


def rate_headers(allowance: Allowance, quota: Quota) -> Mapping[str, str]:
    """The two header fields that tell a key its limits and what is left."""
    left = f'"minute";r={quota.remaining}' + (f";t={quota.more_in_seconds}" if quota.more_in_seconds else "")
    return {
        "RateLimit-Policy": (
            f'"minute";q={allowance.requests};w={WINDOW_SECONDS}, '
            f'"create";q={allowance.creates};qu="concurrent-requests"'
        ),
        "RateLimit": left,
    }

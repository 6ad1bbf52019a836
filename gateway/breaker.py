"""Whether an upstream may be given work after it failed us: a circuit breaker, without a clock.

Only what is the upstream's own fault counts: not to be reached, lost while it worked, silent, out of memory. A workflow
that fails there, a face that is not found, a job that is canceled say nothing against it.

* After each fault it rests, longer with each in a row, so that a task cannot lose all its attempts to one that has just
  died.
* A job that it let stall ejects it at once: what was silent for minutes would keep the next one waiting for minutes.
* The third in a row of the others ejects it, for 30 s the first time, longer each time it is ejected again, 5 minutes at most, and up to
  a tenth more by chance, so that several do not come back in step.
* After a rest or an ejection it gets one job to show itself, and nothing waits behind that one. Only a job that it sees
  through clears it: that it answers on HTTP does not.

Where all upstreams are ejected, jobs wait. Nothing is sprayed at what does not work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Final

#: Rests after the first and the second fault in a row. The first is longer than it takes to notice that one is gone.
REST_SECONDS: Final = (6.0, 12.0)
#: The fault in a row that ejects.
EJECT_AFTER: Final = len(REST_SECONDS) + 1
EJECT_SECONDS: Final = 30.0
MAX_EJECT_SECONDS: Final = 300.0
JITTER: Final = 0.1


class Fault(StrEnum):
    """What an upstream did to us, in words that go before a number."""

    UNREACHABLE = "connect failure"
    LOST = "lost job"
    SILENT = "stalled job"
    MEMORY = "out-of-memory failure"


class Admission(Enum):
    """What it may be given."""

    #: All that there is room for.
    WORK = "work"
    #: One job, to show itself.
    CANARY = "canary"
    NOTHING = "nothing"


class Breaker:
    """One upstream's record.

    Args:
        chance: gives a number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        #: Since the last job that it saw through; one count per kind, so that it stays small.
        self._faults: Counter[Fault] = Counter()
        self._ejections = 0
        #: Monotonic seconds.
        self._until = 0.0
        self._seconds = 0.0
        self._is_ejected = False

    def fault(self, kind: Fault, now: float) -> float:
        """Count one; how many seconds it is left alone for. Several of one moment count as one."""
        if now < self._until:
            # Told late, of something that was under way when it failed: it is being left alone for that already.
            return self._until - now
        self._faults[kind] += 1
        count = self._faults.total()
        self._is_ejected = kind is Fault.SILENT or count >= EJECT_AFTER
        if not self._is_ejected:
            self._seconds = REST_SECONDS[count - 1]
        else:
            self._ejections += 1
            self._seconds = min(EJECT_SECONDS * self._ejections, MAX_EJECT_SECONDS) * (1 + JITTER * self._chance())
        self._until = now + self._seconds
        return self._seconds

    def success(self) -> None:
        """It saw a job through, whatever became of the job."""
        self._faults.clear()
        self._ejections = 0
        self._until = self._seconds = 0.0

    def admission(self, now: float) -> Admission:
        """What it may be given now."""
        if now < self._until:
            return Admission.NOTHING
        return Admission.CANARY if self._faults else Admission.WORK

    @property
    def until(self) -> float:
        """Monotonic seconds before which it gets nothing; 0 when it is not being left alone."""
        return self._until

    def reason(self, now: float) -> str:
        """Why it gets nothing, or little, for people; "" when it gets all there is."""
        if not self._faults:
            return ""
        told = ", ".join(f"{number} {kind.value}{'s' * (number > 1)}" for kind, number in self._faults.items())
        if now >= self._until:
            return f"on trial with one job: {told}"
        word = "ejected" if self._is_ejected else "resting"
        return f"{word} {self._seconds:.0f} s: {told}"

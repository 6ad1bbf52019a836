"""Who may act for a thing that must have one holder at a time, and who may take it over.

A **lease** is a record: name -> holder, token, counter. Its holder raises the counter; each new holder gets a higher
token, and what carries an older one is refused by the store (``store/executors.py``). The one lease there is now is that
of the data directory; one per upstream, for several gateways on one database, would be more rows of the same shape.

No wall clock is compared, and no clock of one process with that of another. An observer asks only whether the counter
moved within ``still_seconds`` of its own monotonic time. The holder believes in itself for ``valid_seconds`` after the
*beginning* of the last raise that it saw committed. The first is longer than the second, and no observer can have seen
that raise before it began, so at every moment at which a holder believes in itself nobody has taken over: the difference
is what an act may last that was begun in good faith.

Beside the counter there is a lock that the kernel frees when its holder dies, however it dies. Free: the holder is dead,
and nobody needs to wait. Held by a holder whose counter stands still: it is stopped, or hangs. Held by somebody who
is no gateway (a command that works on the directory): it raises nothing, and is waited for.

Pure: what was seen and when is handed in. ``holding.py`` looks and acts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto

#: Comes back when this process may act; raises a GatewayError when it may not.
MayAct = Callable[[], Awaitable[None]]
#: The lease of a data directory.
DATA_DIR = "data_dir"
#: Longest time between two looks that counts as stillness. A pause of the observer, or of the whole machine, is no
#: stillness of the holder, which had no chance to raise anything either.
LONGEST_STEP_SECONDS = 1.0
#: A command that asks whether somebody holds the lock holds it for a moment itself.
GLANCE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Timing:
    """The three times of a lease."""

    #: Between two raises.
    raise_seconds: float = 3.0
    #: After the beginning of a raise that was committed, the holder may act this long.
    valid_seconds: float = 8.0
    #: A counter that stood still this long has no holder.
    still_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.raise_seconds < self.valid_seconds < self.still_seconds:
            raise ValueError("a lease is raised more often than it ends, and ends before it is taken over")


@dataclass(frozen=True, slots=True)
class Lease:
    """The record."""

    name: str
    #: Random id of a start; no two starts share one.
    holder: str
    #: From 1; each new holder's is higher.
    token: int
    #: From 0; raised by the holder as long as it lives.
    counter: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What an observer saw at one look."""

    lock_is_free: bool
    #: Whose lock it is, as its file says: a holder's id, or "" for one who raises no counter.
    lock_holder: str = ""
    lease: Lease | None = None


class Verdict(Enum):
    """What to do after a look."""

    #: The lock is free: its holder is dead.
    TAKE = auto()
    #: The lock is held, and its holder is stopped.
    TAKE_OVER = auto()
    #: Somebody is there: look again soon.
    WAIT = auto()
    #: Somebody is there, and this start does not wait.
    REFUSE = auto()


class Observer:
    """Judges one look after the other.

    Args:
        timing: of the lease.
        waits: whether to wait for a living holder, or to refuse.
    """

    def __init__(self, timing: Timing, *, waits: bool) -> None:
        self._still_seconds = timing.still_seconds
        self._waits = waits
        self._last: Sight | None = None
        self._looked_at = 0.0
        self._still_for = 0.0
        self._has_moved = False

    def judge(self, sight: Sight, now: float) -> Verdict:
        """What to do.

        Args:
            sight: what was seen. Look first, ask for the time afterwards.
            now: monotonic seconds.
        """
        if sight.lock_is_free:
            return Verdict.TAKE
        self._note(sight, now)
        is_command = not sight.lock_holder
        if not self._waits and (self._has_moved or (is_command and self._still_for >= GLANCE_SECONDS)):
            return Verdict.REFUSE
        if not is_command and self._still_for >= self._still_seconds:
            return Verdict.TAKE_OVER
        return Verdict.WAIT

    def _note(self, sight: Sight, now: float) -> None:
        if sight == self._last:
            self._still_for += min(now - self._looked_at, LONGEST_STEP_SECONDS)
        else:
            # A change of hands is no sign of life of the one that holds it now; a raise is.
            before = self._last
            self._has_moved = before is not None and before.lock_holder == sight.lock_holder != ""
            self._last, self._still_for = sight, 0.0
        self._looked_at = now


class Tenure:
    """How long a holder may believe in itself."""

    def __init__(self, timing: Timing, *, taken_at: float) -> None:
        self._valid_seconds = timing.valid_seconds
        self._until = taken_at + self._valid_seconds
        self._is_lost = False

    def confirm(self, begun_at: float) -> None:
        """A raise that began then was committed."""
        self._until = max(self._until, begun_at + self._valid_seconds)

    def lose(self) -> None:
        """Somebody else has a higher token. There is no way back."""
        self._is_lost = True

    @property
    def is_lost(self) -> bool:
        """Whether somebody else has it."""
        return self._is_lost

    def holds(self, now: float) -> bool:
        """Whether nobody can have taken over by ``now`` (monotonic seconds)."""
        return not self._is_lost and now < self._until

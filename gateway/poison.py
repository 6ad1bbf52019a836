"""Whether a task kills what it runs on: two upstreams that died of their own under it, one after the other.

A task that takes its upstream down with it (an input that crashes a codec, a graph that ends the process) would else go
round the pool until its attempts are used up. It is known by its trail: upstreams that died *while they ran it*, each
alone. One that died while another was lost too died of something else: a switch, a power supply, a restart of the rack.
The task's own deaths do not excuse one another, however soon the second follows the first: the upstream that took the
task after the first death was well until it ran it.

A task that could be condemned waits until ``OUTAGE_SECONDS`` have passed after its last death, for only then it is known
whether that upstream died alone. One with fewer deaths cannot be, whatever is found out yet, and is tried again at once.

An upstream is lost when it becomes unreachable, whether it had something to do or not. What counts as a death is recorded
with the attempt (``job.Cause``): stalls, memory that ran out, interrupts and our own stops never do. Pure;
``engine/quarantine.py`` acts on it, and ``engine/outages.py`` sees what is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Upstreams lost within this time of one another were lost to one thing.
OUTAGE_SECONDS = 10.0
#: What ends a prompt is heard of by its attempt and by a look at the upstream within this time.
SAME_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Loss:
    """An upstream was lost."""

    upstream: str
    #: Unix seconds.
    at: float


@dataclass(frozen=True, slots=True)
class Death:
    """An upstream was lost while it ran the task."""

    upstream: str
    #: Unix seconds.
    at: float
    #: When it was given the task, and when the attempt was known to be lost.
    taken_at: float
    found_at: float


@dataclass(frozen=True, slots=True)
class Trail:
    """What a task left behind it."""

    #: Upstreams that died while they ran it, in order.
    deaths: Sequence[Death] = ()
    #: All upstreams that were lost around those times, whatever they had to do; those of the task too.
    losses: Sequence[Loss] = ()


def own_deaths(trail: Trail) -> tuple[Death, ...]:
    """Deaths that tell against the task: no upstream was lost shortly before or after but by the task itself."""
    others = [loss for loss in trail.losses if not any(_is_of(loss, death) for death in trail.deaths)]
    return tuple(death for death in trail.deaths if not any(_is_beside(death, loss) for loss in others))


def is_poisoned(trail: Trail, poison_after: int) -> bool:
    """Whether so many different upstreams died of it; never when ``poison_after`` is 0."""
    return 0 < poison_after <= len({death.upstream for death in own_deaths(trail)})


def seconds_to_verdict(trail: Trail, poison_after: int, now: float) -> float:
    """How long until it is known whether it is poisoned, from 0 to ``OUTAGE_SECONDS``, whatever the clock was set to.

    What is still found out can only excuse deaths, so what is not poisoned by now never is by these.
    """
    if not is_poisoned(trail, poison_after):
        return 0.0
    last = max(death.at for death in own_deaths(trail))
    return min(max(last + OUTAGE_SECONDS - now, 0.0), OUTAGE_SECONDS)


def _is_of(loss: Loss, death: Death) -> bool:
    """Whether this is that death: seen by its attempt, or by a look at the upstream, a moment apart."""
    return loss.upstream == death.upstream and death.taken_at <= loss.at <= death.found_at + SAME_SECONDS


def _is_beside(death: Death, loss: Loss) -> bool:
    return loss.upstream != death.upstream and abs(loss.at - death.at) <= OUTAGE_SECONDS

"""Whether a task kills what it runs on: two upstreams that died of their own under it, one after the other.

A task that takes its upstream down with it (an input that crashes a codec, a graph that ends the process) would else go
round the pool until its attempts are used up. It is known by its trail: upstreams that died *while they ran it*, each
alone. One that died while another was lost too died of something else: a switch, a power supply, a restart of the rack.
The task's own deaths do not excuse one another, however soon the second follows the first: the upstream that took the
task after the first death was well until it ran it.

A task that could be condemned waits until ``OUTAGE_SECONDS`` have passed after its last death, for only then it is known
whether that upstream died alone. One with fewer deaths cannot be, whatever is found out yet, and is tried again at once.

What counts as a death is recorded with the attempt (``job.Cause``). Stalls, memory that ran out, interrupts and our own
stops never do. Pure; ``engine/quarantine.py`` acts on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Upstreams lost within this time of one another were lost to one thing.
OUTAGE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Loss:
    """An upstream was lost while it had something to do."""

    upstream: str
    #: Unix seconds.
    at: float


@dataclass(frozen=True, slots=True)
class Trail:
    """What a task left behind it."""

    #: Upstreams that died while they ran it, in order.
    deaths: Sequence[Loss] = ()
    #: All upstreams that were lost around those times, whatever they had to do.
    losses: Sequence[Loss] = ()


def own_deaths(trail: Trail) -> tuple[Loss, ...]:
    """Deaths that tell against the task: no upstream was lost shortly before or after but by the task itself."""
    others = set(trail.losses) - set(trail.deaths)
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


def _is_beside(death: Loss, loss: Loss) -> bool:
    return loss.upstream != death.upstream and abs(loss.at - death.at) <= OUTAGE_SECONDS

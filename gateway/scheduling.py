"""Which task runs next, and where: candidates + upstreams + shares -> assignments.

*Who*: the submitter who has had least of the pool, by predicted seconds (``Shares``); within a submitter, higher
priority first, then age. *Where*: not where it was just lost, then where its inputs already lie, then the upstream that
can do the least else, so that the versatile ones stay free.

Pure: the caller brings a bounded window of candidates and what it knows of the upstreams, and acts on the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from types import MappingProxyType

from gateway.interfaces import Candidate

#: What was used counts half after this long, so that nobody pays all day for a busy morning.
HALF_LIFE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one prompt on an upstream."""

    upstream: str
    #: Requirements that it fits.
    fits: frozenset[str]
    #: Hashes of blobs that lie there.
    staged: AbstractSet[str]
    #: Largest input it takes, None when it does not say.
    max_upload_bytes: int | None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Run this there."""

    candidate: Candidate
    upstream: str


class Shares:
    """Predicted seconds each submitter has had, fading with ``HALF_LIFE_SECONDS``."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float]] = {}

    def charge(self, submitter: str, seconds: float, now: float) -> None:
        """Count ``seconds`` against a submitter at ``now`` (monotonic)."""
        self._used[submitter] = (self.of(submitter, now) + seconds, now)
        if len(self._used) > 10_000:  # noqa: PLR2004 - open mode counts by address; what faded below a second goes
            self._used = {name: pair for name, pair in self._used.items() if self.of(name, now) >= 1.0}

    def of(self, submitter: str, now: float) -> float:
        """What a submitter has had, as of ``now``."""
        seconds, at = self._used.get(submitter, (0.0, now))
        return float(seconds * 0.5 ** (max(now - at, 0.0) / HALF_LIFE_SECONDS))

    def snapshot(self, submitters: Iterable[str], now: float) -> dict[str, float]:
        """Shares of those named."""
        return {name: self.of(name, now) for name in submitters}


#: Task id -> upstreams that have refused it.
Refusals = Mapping[str, frozenset[str]]


def assign(
    candidates: Sequence[Candidate],
    slots: Sequence[Slot],
    shares: Mapping[str, float],
    refusals: Refusals = MappingProxyType({}),
) -> list[Assignment]:
    """As many assignments as there are slots that fit, fairest first; each task and each slot at most once."""
    waiting: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=_turn):
        waiting.setdefault(candidate.submitter, []).append(candidate)
    used = {name: shares.get(name, 0.0) for name in waiting}
    free = list(slots)
    made: list[Assignment] = []
    while free and waiting:
        pick = _next(waiting, used, free, refusals)
        if pick is None:
            break
        slot = _place(pick, free, refusals)
        made.append(Assignment(pick, slot.upstream))
        free.remove(slot)
        waiting[pick.submitter].remove(pick)
        used[pick.submitter] += pick.cost_seconds
        if not waiting[pick.submitter]:
            del waiting[pick.submitter]
    return made


def fair_order(candidates: Iterable[Candidate], shares: Mapping[str, float]) -> list[Candidate]:
    """The order in which one upstream that fits all of them would get them, were nothing to come after them."""
    waiting: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=_turn, reverse=True):
        waiting.setdefault(candidate.submitter, []).append(candidate)
    heads = [(shares.get(name, 0.0), queue[-1].queued_at, queue[-1].task_id, name) for name, queue in waiting.items()]
    heapify(heads)
    order = []
    while heads:
        used, _, _, name = heappop(heads)
        queue = waiting[name]
        order.append(queue.pop())
        if queue:
            heappush(heads, (used + order[-1].cost_seconds, queue[-1].queued_at, queue[-1].task_id, name))
    return order


def _turn(candidate: Candidate) -> tuple[float, float, str]:
    """Among one submitter's: the smallest is next."""
    return (-candidate.priority, candidate.queued_at, candidate.task_id)


def _next(
    waiting: Mapping[str, list[Candidate]], used: Mapping[str, float], free: Sequence[Slot], refusals: Refusals
) -> Candidate | None:
    """The fairest candidate that fits some free slot."""
    heads = []
    for submitter, queue in waiting.items():
        head = next((c for c in queue if any(_may(c, slot, refusals) for slot in free)), None)
        if head is not None:
            heads.append((used[submitter], head.queued_at, head.task_id, head))
    return min(heads)[3] if heads else None


def fits(candidate: Candidate, slot: Slot) -> bool:
    """Whether every class, model and byte of it fits there."""
    small_enough = slot.max_upload_bytes is None or candidate.size_bytes <= slot.max_upload_bytes
    return candidate.requirement in slot.fits and small_enough


def _may(candidate: Candidate, slot: Slot, refusals: Refusals) -> bool:
    return slot.upstream not in refusals.get(candidate.task_id, ()) and fits(candidate, slot)


def _place(candidate: Candidate, free: Sequence[Slot], refusals: Refusals) -> Slot:
    return min(
        (slot for slot in free if _may(candidate, slot, refusals)),
        key=lambda slot: (
            slot.upstream == candidate.avoid,
            -sum(blob in slot.staged for blob in candidate.blobs),
            len(slot.fits),
            slot.upstream,
        ),
    )

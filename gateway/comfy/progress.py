"""How far along: a prompt's messages in, one honest fraction out.

One number from 0 to 1 for the whole graph that never falls. Each node has a share of it, and a node that ticks in several
passes divides its share among the passes it is expected to make: by the seconds that were learned of them where there are
any (``timings.py`` learns them from the laps measured here), else by class. Whatever was not foreseen makes the bar wait
instead of run back or ahead. It reaches 1 here only at ``Succeeded``; the job's own 1.0 is for the commit that makes the
result downloadable (``whole_job``).

ComfyUI's facts this stands on (0.3.64, ReActor 6ad6b35):

* A node's counter may run from 0 to N several times. A value below the last one means that a new pass began. Old servers
  send one more tick of value 0 after each pass, the last one too, so a 0 alone begins nothing: the next value does.
  Servers with throttled progress leave that tick out and skip values.
* A node starts only when everything it depends on has finished, so a start proves its ancestors done even when the
  frames that said so were lost.

Pure: no clock, the time of each message is handed in. A property test feeds it messages in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from math import inf
from typing import NamedTuple

from gateway.comfy.messages import (
    Message,
    NodeFinished,
    NodeOutput,
    NodeProgress,
    NodesCached,
    NodeStarted,
    PromptStarted,
    Succeeded,
)

#: Shares of work by class where nothing has been learned: a swap is nearly all of it, an encode more than a decode.
#: Only proportions count. In a graph without one of the classes that do the work, all nodes count alike.
CLASS_SHARES: Mapping[str, float] = {
    "ReActorFaceSwap": 80.0,
    "ReActorFaceSwapOpt": 80.0,
    "GatewayCpuFaceSwap": 80.0,
    "KSampler": 80.0,
    "SamplerCustom": 80.0,
    "ImageUpscaleWithModel": 80.0,
    "VHS_LoadVideo": 4.0,
    "VHS_VideoCombine": 10.0,
}
DEFAULT_SHARE = 1.0
WORKING_SHARE = 80.0
#: What the CPU preview's swap model is called, and how its three passes share the work: measured on 96 frames of
#: 640x360 with one face, three runs, one core (check 0.0 %, analysis 69 to 77 %, swap 23 to 31 %).
PREVIEW_MODEL = "cpu-preview"
PREVIEW_PASSES = (0.01, 0.70, 0.29)
#: Its swap is cheap beside a decode and an encode on the same CPU: 69 to 79 % of a run's time on average, by the runs
#: recorded in tests/recordings/runs.
PREVIEW_SHARE = 40.0
SWAP_CLASSES = frozenset({"ReActorFaceSwap", "ReActorFaceSwapOpt", "GatewayCpuFaceSwap"})

#: What of the whole job's bar belongs to the upstream; before it inputs are staged, after it results are fetched,
#: audited and stored.
RUN_FROM, RUN_TO = 0.02, 0.96
#: Where it may end once it was learned how long results take: bars of all jobs look alike enough, and none seems done.
LEAST_RUN_TO, MOST_RUN_TO = 0.5, 0.98

#: (class, pass) -> predicted seconds, None where nothing is known. Pass 0 is what a node takes without or after its ticks.
SecondsOf = Callable[[str, int], float | None]
#: Passes looked for behind a class of which nobody knows how many it makes.
MAX_LEARNED_PASSES = 8
#: A prediction is one when the classes with at least this much of the work by ``CLASS_SHARES`` are known.
KNOWN_ENOUGH = 0.5
#: Waiting for a pass's first tick beyond what its pace explains is the loading of a model, which the next run is spared:
#: not more of it is counted than this many seconds, or than the ticks themselves took.
LOAD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of a graph."""

    #: node id -> class, for the nodes that an output depends on.
    classes: Mapping[str, str]
    #: node id -> the nodes it depends on directly.
    parents: Mapping[str, frozenset[str]]
    #: node id -> share of the work, summing to 1.
    shares: Mapping[str, float]
    #: node id -> the passes its counter is expected to make, each with its share of the node's work, summing to at most 1:
    #: the rest comes after the last tick. One pass where a node is not named.
    passes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    #: Predicted seconds of the whole graph; the shares are of seconds then, else of work by class.
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Lap:
    """What was measured of a node: one of its passes, or (0) what it took without or after its ticks."""

    node_class: str
    pass_number: int
    seconds: float


class Snapshot(NamedTuple):
    """Complete in itself. One is made at each step, for which a tuple is quicker than a frozen dataclass."""

    #: 0..1 of the prompt.
    fraction: float
    nodes_done: int
    nodes_total: int
    node: str | None = None
    node_class: str | None = None
    step: int | None = None
    steps: int | None = None
    pass_number: int | None = None
    passes: int | None = None


def _nothing_learned(_node_class: str, _pass_number: int) -> None:
    return None


def plan_for(graph: Mapping[str, object], *, frames: int, seconds_of: SecondsOf = _nothing_learned) -> Plan:
    """The plan of an API-format graph.

    Args:
        graph: as it is submitted.
        frames: of its moving pictures; 1 for a still.
        seconds_of: what was learned, for this target and where it will run.
    """
    nodes = {key: node for key, node in graph.items() if isinstance(node, Mapping)}
    parents = {key: frozenset(_links(node) & nodes.keys()) for key, node in nodes.items()}
    classes = {key: str(node.get("class_type", "")) for key, node in nodes.items()}
    passes = {key: _swap_passes(nodes, key, frames) for key, name in classes.items() if name in SWAP_CLASSES}
    raw = _class_shares(nodes, classes)
    laps = {key: _known_laps(name, passes.get(key), seconds_of) for key, name in classes.items()}
    known = {key: sum(found) for key, found in laps.items() if found}
    known_share, known_seconds = sum(raw[key] for key in known), sum(known.values())
    if known_seconds <= 0.0 or known_share < KNOWN_ENOUGH * sum(raw.values()):
        return Plan(classes, parents, _divided(raw), passes)
    passes |= {key: _divided_passes(laps[key]) for key, seconds in known.items() if seconds > 0 and len(laps[key]) > 1}
    # A class never met takes what its share would be beside those that were.
    seconds = {key: known.get(key, share * known_seconds / known_share) for key, share in raw.items()}
    return Plan(classes, parents, _divided(seconds), passes, sum(seconds.values()))


def _class_shares(nodes: Mapping[str, Mapping[str, object]], classes: Mapping[str, str]) -> dict[str, float]:
    shares = {key: CLASS_SHARES.get(name, DEFAULT_SHARE) for key, name in classes.items()}
    if max(shares.values(), default=0.0) < WORKING_SHARE:
        return dict.fromkeys(shares, DEFAULT_SHARE)
    previews = [key for key in shares if _inputs(nodes[key]).get("swap_model") == PREVIEW_MODEL]
    return shares | dict.fromkeys(previews, PREVIEW_SHARE)


def _divided(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values()) or 1.0
    return {key: share / total for key, share in shares.items()}


def _known_laps(name: str, expected: tuple[float, ...] | None, seconds_of: SecondsOf) -> tuple[float, ...]:
    """Seconds after the last tick, then of each pass; () where nothing is known."""
    most = MAX_LEARNED_PASSES if expected is None else len(expected)
    rest, passes = seconds_of(name, 0), (seconds_of(name, number) for number in range(1, most + 1))
    # Where nothing says how many there are, there is none behind the first that was never met.
    found = list(passes) if expected is not None else list(takewhile(lambda seconds: seconds is not None, passes))
    known = [seconds for seconds in found if seconds is not None]
    if not known:
        return () if rest is None else (rest,)
    mean = sum(known) / len(known)
    return (rest or 0.0, *(mean if seconds is None else seconds for seconds in found))


def _divided_passes(laps: tuple[float, ...]) -> tuple[float, ...]:
    total = sum(laps)
    return tuple(seconds / total for seconds in laps[1:])


def _links(node: Mapping[str, object]) -> set[str]:
    return {str(value[0]) for value in _inputs(node).values() if isinstance(value, list) and len(value) == 2}  # noqa: PLR2004 - [node, slot]


def _swap_passes(nodes: Mapping[str, Mapping[str, object]], key: str, frames: int) -> tuple[float, ...]:
    """ReActor's passes: check, analysis, swap, and restore where a restorer runs; one image makes do with the check."""
    inputs = _inputs(nodes[key])
    if inputs.get("swap_model") == PREVIEW_MODEL and frames > 1:
        return PREVIEW_PASSES
    restores = inputs.get("face_restore_model", "none") != "none"
    link = inputs.get("face_boost")
    if restores and isinstance(link, list) and link:
        boost = _inputs(nodes.get(str(link[0]), {}))
        restores = not boost.get("enabled", True) or bool(boost.get("restore_with_main_after", False))
    count = (3 if frames > 1 else 1) + restores
    return (1 / count,) * count


def _inputs(node: Mapping[str, object]) -> Mapping[str, object]:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


class Tracker:
    """Feed it a prompt's messages; ask it for the snapshot, the seconds left, and at the end for the laps."""

    def __init__(self, plan: Plan, now: float) -> None:
        self._plan = plan
        #: Monotonic seconds: when it began, or when we came.
        self._begun = now
        self._done: set[str] = set()
        #: Shares of what is done.
        self._done_share = 0.0
        #: Fractions of nodes that are not.
        self._within: dict[str, float] = {}
        self._counters: dict[str, _Counter] = {}
        #: When nodes started, None for those that ran already when they were first heard of.
        self._starts: dict[str, float | None] = {}
        self._current: str | None = None
        self._highest = 0.0
        #: Shares that took none of the time watched: cached, or done before we came.
        self._skipped = 0.0
        self._laps: list[Lap] = []

    def feed(self, message: Message, now: float) -> bool:
        """Take a message that came at ``now`` (monotonic seconds); True when the snapshot may have changed."""
        match message:
            case NodeProgress(node_id=key) if key in self._plan.classes:
                self._tick(message, now)
            case PromptStarted():
                self._begun = now
                return True
            case NodesCached(node_ids=ids):
                self._pass_over(ids)
            case NodeStarted(node_id=key) if key in self._plan.classes:
                self._prove_ancestors(key, now)
                self._starts.setdefault(key, now)
                self._current = key
            case NodeFinished(node_id=key) | NodeOutput(node_id=key) if key in self._plan.classes:
                self._finish(key, now)
            case Succeeded():
                self._pass_over(self._plan.classes)
            case _:
                return False
        return True

    def _pass_over(self, node_ids: Iterable[str]) -> None:
        """They are done, and when they ended is not known."""
        for key in node_ids:
            if key in self._plan.classes:
                self._finish(key, None)

    def _tick(self, message: NodeProgress, now: float) -> None:
        key = message.node_id
        counter = self._counters.get(key)
        if key != self._current or counter is None:
            self._prove_ancestors(key, now)
            self._current = key
            if counter is None:
                counter = self._counters[key] = _Counter(self._plan.passes.get(key, (1.0,)))
        within = counter.take(message.value, message.maximum, now)
        if key in self._done:
            return
        if key not in self._starts:
            self._starts[key] = None
            self._skipped += self._plan.shares[key] * within
        self._within[key] = max(self._within.get(key, 0.0), within)

    def _prove_ancestors(self, key: str, now: float) -> None:
        """All that ``key`` depends on is done. Stops at what was done before, so a job walks each link once."""
        waiting = list(self._plan.parents[key])
        while waiting:
            parent = waiting.pop()
            if parent not in self._done:
                # When another ended than the last one we heard of is not known.
                self._finish(parent, now if parent == self._current else None)
                waiting.extend(self._plan.parents[parent])

    def _finish(self, key: str, now: float | None) -> None:
        """It is done, at ``now`` where that is known."""
        if key in self._done:
            return
        self._done.add(key)
        self._within.pop(key, None)
        share = self._plan.shares[key]
        self._done_share += share
        if key not in self._starts:
            self._skipped += share
            return
        start = self._starts[key]
        if start is not None and now is not None:
            counter = self._counters.get(key)
            self._laps += _laps(self._plan.classes[key], start, now, counter.passes if counter else [])

    def snapshot(self) -> Snapshot:
        """Where the prompt is."""
        shares = self._plan.shares
        reached = self._done_share
        for key, within in self._within.items():
            reached += shares[key] * within
        if reached > self._highest:
            self._highest = min(reached, 1.0)
        current = self._current
        if current is None or current in self._done:
            return Snapshot(self._highest, len(self._done), len(shares))
        node_class = self._plan.classes[current]
        counter = self._counters.get(current)
        if counter is None:
            return Snapshot(self._highest, len(self._done), len(shares), current, node_class)
        return Snapshot(
            self._highest,
            len(self._done),
            len(shares),
            current,
            node_class,
            counter.value,
            counter.maximum,
            counter.number,
            max(len(counter.shares), counter.number),
        )

    def seconds_left(self, now: float) -> float | None:
        """Seconds from ``now`` to the prompt's end; of the newest snapshot."""
        elapsed = max(now - self._begun, 0.0)
        gained = max(self._highest - self._skipped, 0.0)
        return seconds_left(elapsed, gained, 1.0 - self._highest, predicted=self._plan.seconds)

    @property
    def fraction_left(self) -> float:
        """Of the prompt, by the newest snapshot."""
        return 1.0 - self._highest

    @property
    def predicted_seconds(self) -> float | None:
        """Of the whole prompt, as planned."""
        return self._plan.seconds

    def laps(self) -> tuple[Lap, ...]:
        """What was measured of the nodes that began and ended under our eyes."""
        return tuple(self._laps)


def _laps(node_class: str, start: float, end: float, passes: list[_Pass]) -> list[Lap]:
    laps, before = [], start
    for number, one in enumerate(passes, 1):
        span, ticks = one.last_at - one.first_at, one.last - one.first
        head = one.first_at - before
        if ticks > 0:
            head = min(head, span / ticks * one.first + max(LOAD_SECONDS, span))
        laps.append(Lap(node_class, number, max(head + span, 0.0)))
        before = one.last_at
    laps.append(Lap(node_class, 0, max(end - before, 0.0)))
    return laps


@dataclass(slots=True)
class _Pass:
    """First and last tick of a pass; monotonic seconds."""

    first_at: float
    first: float
    last_at: float
    last: float


@dataclass(slots=True)
class _Counter:
    """One node's counter over its passes."""

    shares: tuple[float, ...]
    number: int = 1
    value: int = 0
    maximum: int = 1
    passes: list[_Pass] = field(default_factory=list)
    #: Shares of the passes before this one.
    _before: float = 0.0
    _last: float = 0.0
    _fell_to_zero: bool = False

    def take(self, value: float, maximum: float, now: float) -> float:
        """The node's fraction after this tick."""
        maximum = maximum if 0.0 < maximum < inf else 1.0
        value = min(max(0.0, value), maximum)  # in this order NaN is 0
        if value <= 0.0:
            self._fell_to_zero = self._fell_to_zero or self._last > 0.0
        else:
            if self._fell_to_zero or value < self._last:
                self.number += 1
                self._before = sum(self.shares[: self.number - 1])
            if len(self.passes) < self.number:
                self.passes.append(_Pass(now, value, now, value))
            newest = self.passes[-1]
            newest.last_at, newest.last = now, value
            self._fell_to_zero, self._last = False, value
            self.value, self.maximum = int(value), int(maximum)
        if self.number > len(self.shares):
            return 0.0  # not foreseen: the caller keeps its highest, so the bar waits
        return self._before + self.shares[self.number - 1] * self._last / maximum


def whole_job(fraction: float, run_to: float = RUN_TO) -> float:
    """The whole job's fraction from the prompt's: room is left for staging before and for results after ``run_to``."""
    return RUN_FROM + (run_to - RUN_FROM) * min(max(fraction, 0.0), 1.0)


def run_to(run_seconds: float | None, after_seconds: float | None) -> float:
    """Where a bar stands when the upstream is done, so that what comes after has its part by its predicted seconds."""
    if not run_seconds or after_seconds is None:
        return RUN_TO
    part = run_seconds / (run_seconds + after_seconds)
    return min(max(RUN_FROM + (1.0 - RUN_FROM) * part, LEAST_RUN_TO), MOST_RUN_TO)


#: An estimate from an attempt's own pace alone is given once this much of the work was watched for this long: before, it
#: would be a guess.
PACE_SECONDS, PACE_FRACTION = 2.0, 0.05
#: A prediction counts as much as this fraction of the job watched going at the predicted pace.
PREDICTION_WEIGHT = 0.35


def seconds_left(elapsed: float, gained: float, left: float, *, predicted: float | None) -> float | None:
    """Seconds left; None while too little is known to tell.

    With a prediction, its pace and the one watched are one mean, weighted by the work that each stands for: what was
    predicted is told from the start, and what is watched outweighs it in the end. Smooth, because both sums are.

    Args:
        elapsed: seconds watched.
        gained: fraction of the work that they were spent on.
        left: fraction of the work left.
        predicted: seconds of the whole work.
    """
    if predicted is not None:
        return left * (PREDICTION_WEIGHT * predicted + elapsed) / (PREDICTION_WEIGHT + gained)
    if elapsed < PACE_SECONDS or gained < PACE_FRACTION:
        return None
    return elapsed * left / gained

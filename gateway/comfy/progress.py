"""How far along: a prompt's messages in, one honest fraction out.

One number from 0 to 1 for the whole graph that never falls. It counts work, not time: each node has a share by its class,
a node that ticks in several passes divides its share among the passes it is expected to make, and whatever was not
foreseen makes the bar wait instead of run back or ahead. It reaches 1 here only at ``Succeeded``; the job's own 1.0 is
for the commit that makes the result downloadable (``whole_job``).

ComfyUI's facts this stands on (0.3.64, ReActor 6ad6b35):

* A node's counter may run from 0 to N several times. A value below the last one means that a new pass began. Old servers
  send one more tick of value 0 after each pass, the last one too, so a 0 alone begins nothing: the next value does.
  Servers with throttled progress leave that tick out and skip values.
* A node starts only when everything it depends on has finished, so a start proves its ancestors done even when the
  frames that said so were lost.

Pure: no clock. A property test feeds it messages in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
#: Only proportions count.
CLASS_SHARES: Mapping[str, float] = {
    "ReActorFaceSwap": 80.0,
    "ReActorFaceSwapOpt": 80.0,
    "GatewayCpuFaceSwap": 80.0,
    "KSampler": 80.0,
    "VHS_LoadVideo": 4.0,
    "VHS_VideoCombine": 10.0,
}
DEFAULT_SHARE = 1.0
#: What the CPU preview's swap model is called, and how its three passes share the work: measured on 96 frames of
#: 640x360 with one face, three runs, one core (check 0.0 %, analysis 69 to 77 %, swap 23 to 31 %).
PREVIEW_MODEL = "cpu-preview"
PREVIEW_PASSES = (0.01, 0.70, 0.29)
SWAP_CLASSES = frozenset({"ReActorFaceSwap", "ReActorFaceSwapOpt", "GatewayCpuFaceSwap"})

#: What of the whole job's bar belongs to the upstream; before it inputs are staged, after it results are fetched,
#: audited and stored.
RUN_FROM, RUN_TO = 0.02, 0.96


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of a graph."""

    #: node id -> class, for the nodes that an output depends on.
    classes: Mapping[str, str]
    #: node id -> the nodes it depends on directly.
    parents: Mapping[str, frozenset[str]]
    #: node id -> share of the work, summing to 1.
    shares: Mapping[str, float]
    #: node id -> the passes its counter is expected to make, each with its share of the node's work, summing to 1;
    #: one pass where a node is not named.
    passes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Complete in itself."""

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


def plan_for(graph: Mapping[str, object], *, frames: int) -> Plan:
    """The plan of an API-format graph whose moving pictures have ``frames`` frames."""
    nodes = {key: node for key, node in graph.items() if isinstance(node, Mapping)}
    parents = {key: frozenset(_links(node) & nodes.keys()) for key, node in nodes.items()}
    classes = {key: str(node.get("class_type", "")) for key, node in nodes.items()}
    raw = {key: CLASS_SHARES.get(name, DEFAULT_SHARE) for key, name in classes.items()}
    total = sum(raw.values()) or 1.0
    passes = {key: _swap_passes(nodes, key, frames) for key, name in classes.items() if name in SWAP_CLASSES}
    return Plan(classes, parents, {key: share / total for key, share in raw.items()}, passes)


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
    """Feed it a prompt's messages; ask it for the snapshot."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._done: set[str] = set()
        self._within: dict[str, float] = {}
        self._counters: dict[str, _Counter] = {}
        self._current: str | None = None
        self._highest = 0.0

    def feed(self, message: Message) -> bool:
        """Take a message; True when the snapshot may have changed."""
        match message:
            case PromptStarted():
                return True
            case NodesCached(node_ids=ids):
                self._done.update(key for key in ids if key in self._plan.classes)
            case NodeStarted(node_id=key) if key in self._plan.classes:
                self._prove_ancestors(key)
                self._current = key
            case NodeProgress(node_id=key) if key in self._plan.classes:
                self._tick(message)
            case NodeFinished(node_id=key) | NodeOutput(node_id=key) if key in self._plan.classes:
                self._done.add(key)
            case Succeeded():
                self._done.update(self._plan.classes)
            case _:
                return False
        return True

    def _tick(self, message: NodeProgress) -> None:
        key = message.node_id
        self._prove_ancestors(key)
        self._current = key
        counter = self._counters.setdefault(key, _Counter(self._plan.passes.get(key, (1.0,))))
        self._within[key] = max(self._within.get(key, 0.0), counter.take(message.value, message.maximum))

    def _prove_ancestors(self, key: str) -> None:
        """All that ``key`` depends on is done. Stops at what was done before, so a job walks each link once."""
        waiting = list(self._plan.parents[key])
        while waiting:
            parent = waiting.pop()
            if parent not in self._done:
                self._done.add(parent)
                waiting.extend(self._plan.parents[parent])

    def snapshot(self) -> Snapshot:
        """Where the prompt is."""
        shares = self._plan.shares
        reached = sum(shares[key] * (1.0 if key in self._done else self._within.get(key, 0.0)) for key in shares)
        self._highest = max(self._highest, min(reached, 1.0))
        counter = self._counters.get(self._current or "")
        at_work = self._current if self._current not in self._done else None
        return Snapshot(
            fraction=self._highest,
            nodes_done=len(self._done),
            nodes_total=len(shares),
            node=at_work,
            node_class=self._plan.classes.get(at_work or ""),
            step=counter.value if counter and at_work else None,
            steps=counter.maximum if counter and at_work else None,
            pass_number=counter.number if counter and at_work else None,
            passes=max(len(counter.shares), counter.number) if counter and at_work else None,
        )


@dataclass(slots=True)
class _Counter:
    """One node's counter over its passes."""

    shares: tuple[float, ...]
    number: int = 1
    value: int = 0
    maximum: int = 1
    _last: float = 0.0
    _fell_to_zero: bool = False

    def take(self, value: float, maximum: float) -> float:
        """The node's fraction after this tick."""
        maximum = maximum if maximum > 0 else 1.0
        value = min(max(value, 0.0), maximum)
        if value <= 0.0:
            self._fell_to_zero = self._fell_to_zero or self._last > 0.0
        else:
            if self._fell_to_zero or value < self._last:
                self.number += 1
            self._fell_to_zero, self._last = False, value
            self.value, self.maximum = int(value), int(maximum)
        if self.number > len(self.shares):
            return 0.0  # not foreseen: the caller keeps its highest, so the bar waits
        return sum(self.shares[: self.number - 1]) + self.shares[self.number - 1] * self._last / maximum


def whole_job(fraction: float) -> float:
    """The whole job's fraction from the prompt's: room is left for staging before and for results after."""
    return RUN_FROM + (RUN_TO - RUN_FROM) * min(max(fraction, 0.0), 1.0)


#: An estimate is given once this much of the work has been watched for this long: before, it would be a guess.
ETA_SECONDS, ETA_FRACTION = 2.0, 0.05


def eta_seconds(elapsed_seconds: float, begun_at: float, fraction: float) -> float | None:
    """Seconds left if the rest goes as fast as what was watched; None while too little was.

    Args:
        elapsed_seconds: since the bar stood at ``begun_at``.
        begun_at: fraction at which watching began.
        fraction: where it stands now.
    """
    gained = fraction - begun_at
    if elapsed_seconds < ETA_SECONDS or gained < ETA_FRACTION:
        return None
    return elapsed_seconds * (1.0 - fraction) / gained

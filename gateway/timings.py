"""What finished runs teach: seconds of a node's pass by frames and pixels, predicted for the next job.

One **estimate** per template, node class, pass and upstream fits ``seconds = fixed + a * frames + b * frames * megapixels``
to what was measured, none of the three negative: a detector looks at each frame at a size of its own, an encoder at each
pixel, a loader has its start. Of all runs ten sums are kept, older runs fading in them, so memory does not grow with jobs.
With too few runs to tell the three apart a small penalty divides what is known among them, least to the fixed part.

Each lap is folded in three times: where it ran, into the template on any upstream, and into the class in any template.
The first that is there is asked, and where none is, plans count nodes by class as ``comfy/progress.py`` says. A run much
longer or shorter than expected moves an estimate by a bounded part: a stall is forgotten soon, a new graphics card is not
overlooked.

Not here: how laps are measured and plans are made (``comfy/progress.py``), when rows are written (``engine/timing.py``).
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from gateway.comfy.progress import Lap

#: A row counts half after nine more runs: long enough to tell frames from pixels, short enough to follow a change.
FADING: Final = 0.925
#: What is measured counts as at most this many times more or less than was predicted, once there were a few runs.
SURPRISE: Final = 3.0
RUNS_TO_TRUST: Final = 2.0
#: Penalty on the part of (fixed, per frame, per pixel), as a fraction of one run.
PENALTIES: Final = (0.05, 0.02, 0.02)
#: A determinant this small beside the product of its diagonal is none: the runs do not tell these parts apart.
SINGULAR: Final = 1e-12
#: Rows kept; what was measured longest ago goes first. A node of a job makes up to three rows a pass.
MAX_ROWS: Final = 4096

#: What stands in place of a template for a class wherever it runs; stills apart, for their passes are others.
ANY_MOVING, ANY_STILL = "*", "*still"
#: In place of an upstream: on any of them.
ANY_UPSTREAM = ""
#: In place of a class: fetching, auditing and storing the results.
RESULTS = "(results)"


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do: the target."""

    frames: int
    #: Of one frame.
    megapixels: float

    @classmethod
    def of(cls, frames: int, width: int, height: int) -> Work:
        """Of a target's facts."""
        return cls(max(frames, 1), width * height / 1e6)


class Key(NamedTuple):
    """Whose seconds an estimate tells."""

    template: str
    node_class: str
    #: 1-based pass of its counter; 0 for what it takes without or after ticks.
    pass_number: int
    upstream: str


#: Sums over runs of products of (1/frames, 1, megapixels, seconds/frames): ten, upper triangle by rows.
Sums = tuple[float, ...]
_SUMS = 10
_NOTHING: Sums = (0.0,) * _SUMS


@dataclass(frozen=True, slots=True)
class Row:
    """An estimate as it is stored."""

    key: Key
    sums: Sums
    #: Counts up with each fold; rows with the lowest were measured longest ago.
    turn: int


def believed(seconds: float, expected: float) -> float:
    """What was measured, as far as it counts beside what was expected."""
    return min(max(seconds, expected / SURPRISE), expected * SURPRISE) if expected > 0 else seconds


def fold(sums: Sums, work: Work, seconds: float) -> Sums:
    """The sums with one more run in them."""
    a, c, y = 1.0 / work.frames, work.megapixels, seconds / work.frames
    aa, ab, ac, ay, bb, bc, by, cc, cy, yy = sums
    # Written out, as in ``fit``.
    return (
        FADING * aa + a * a,
        FADING * ab + a,
        FADING * ac + a * c,
        FADING * ay + a * y,
        FADING * bb + 1.0,
        FADING * bc + c,
        FADING * by + y,
        FADING * cc + c * c,
        FADING * cy + c * y,
        FADING * yy + y * y,
    )


def predict(parts: Sequence[float], work: Work) -> float:
    """Seconds of this work."""
    return parts[0] + work.frames * (parts[1] + parts[2] * work.megapixels)


def fit(sums: Sums) -> tuple[float, float, float]:
    """(fixed seconds, seconds a frame, seconds a frame and megapixel), none negative, that explain the runs best.

    Least squares of seconds per frame: each run counts alike, long or short. Where all three come out above zero that is
    it; else the best of the pairs and of the single ones, which are few enough to try all. Written out: it is called for
    each lap of each job.
    """
    aa, ab, ac, ay, bb, bc, by, cc, cy, _ = sums
    if bb <= 0:
        return (0.0, 0.0, 0.0)
    fixed, frame, pixel = PENALTIES
    aa, cc, bb = aa * (1 + fixed / bb), cc * (1 + pixel / bb), bb + frame
    minor, left, lower = bb * cc - bc * bc, ab * cc - ac * bc, ab * bc - ac * bb
    if (volume := aa * minor - ab * left + ac * lower) > SINGULAR * aa * bb * cc:
        parts = (
            (ay * minor - ab * (by * cc - cy * bc) + ac * (by * bc - cy * bb)) / volume,
            (aa * (by * cc - cy * bc) - ay * left + ac * (ab * cy - ac * by)) / volume,
            (aa * (bb * cy - bc * by) - ab * (ab * cy - ac * by) + ay * lower) / volume,
        )
        if min(parts) >= 0.0:
            return parts
    (a1, b1), (a2, c2), (b3, c3) = _pair(aa, ab, bb, ay, by), _pair(aa, ac, cc, ay, cy), _pair(bb, bc, cc, by, cy)
    faces = [(a1, b1, 0.0), (a2, 0.0, c2), (0.0, b3, c3), (ay / aa, 0.0, 0.0), (0.0, by / bb, 0.0)]
    if cc > 0.0:
        faces.append((0.0, 0.0, cy / cc))
    # At the minimum of a quadratic form it has fallen by this; what is left, the penalty in it, is least there.
    return max(faces, key=lambda parts: parts[0] * ay + parts[1] * by + parts[2] * cy)


def _pair(one: float, both: float, other: float, right: float, below: float) -> tuple[float, float]:
    """The best two parts, (0, 0) where one is negative."""
    area = one * other - both * both
    if area <= SINGULAR * one * other:
        return (0.0, 0.0)
    first, second = (right * other - below * both) / area, (below * one - right * both) / area
    return (first, second) if first >= 0.0 and second >= 0.0 else (0.0, 0.0)


class Timings:
    """All estimates, in memory."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = {row.key: row for row in rows if len(row.sums) == _SUMS}
        self._turn = max((row.turn for row in self._rows.values()), default=0)
        self._parts: dict[Key, tuple[float, float, float]] = {}
        self._changed: set[Key] = set()
        self._gone: set[Key] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def learn(self, template: str, upstream: str, work: Work, laps: Iterable[Lap]) -> None:
        """Fold in what was measured of one run."""
        for lap in laps:
            keys = _asked(template, upstream, work, lap.node_class, lap.pass_number)
            seconds = lap.seconds
            for key in keys:
                row = self._rows.get(key)
                if row is not None and row.sums[4] >= RUNS_TO_TRUST:
                    seconds = believed(seconds, predict(self._parts_of(key), work))
                    break
            for key in keys:
                self._fold(key, work, seconds)
        self._keep_within(MAX_ROWS)

    def _fold(self, key: Key, work: Work, seconds: float) -> None:
        self._turn += 1
        row = self._rows.get(key)
        self._rows[key] = Row(key, fold(row.sums if row else _NOTHING, work, seconds), self._turn)
        self._parts.pop(key, None)
        self._changed.add(key)
        self._gone.discard(key)

    def _keep_within(self, most: int) -> None:
        if len(self._rows) > most:
            oldest = sorted(self._rows.values(), key=lambda row: row.turn)[: len(self._rows) - most * 9 // 10]
            self._drop([row.key for row in oldest])

    def keep(self, templates: Iterable[str], upstreams: Iterable[str]) -> None:
        """Forget what was learned of templates and upstreams that are no more."""
        names, places = {*templates, ANY_MOVING, ANY_STILL}, {*upstreams, ANY_UPSTREAM}
        self._drop([key for key in self._rows if key.template not in names or key.upstream not in places])

    def _drop(self, keys: Iterable[Key]) -> None:
        for key in keys:
            del self._rows[key]
            self._parts.pop(key, None)
            self._changed.discard(key)
            self._gone.add(key)

    def take_changes(self) -> tuple[list[Row], list[Key]]:
        """Rows to be stored and keys to be deleted since the last call."""
        changed, gone = [self._rows[key] for key in self._changed], list(self._gone)
        self._changed, self._gone = set(), set()
        return changed, gone

    def give_back(self, changed: Iterable[Row], gone: Iterable[Key]) -> None:
        """These could not be stored: they are among the next changes, unless they have changed since."""
        self._changed |= {row.key for row in changed if row.key in self._rows}
        self._gone |= {key for key in gone if key not in self._rows}

    def knows(self, template: str) -> bool:
        """Whether a run of this template was ever measured."""
        return Key(template, RESULTS, 0, ANY_UPSTREAM) in self._rows

    def seconds(self, template: str, upstream: str, work: Work, node_class: str, pass_number: int) -> float | None:
        """Predicted seconds of a pass: as it went there, else as it went anywhere, else as the class goes; or None.

        Args:
            template: by name.
            upstream: where it will run; "" for wherever.
            work: the target.
            node_class: of the node.
            pass_number: as in ``Lap``.
        """
        key = Key(template, node_class, pass_number, upstream)
        if key not in self._rows:  # most are there: the others need not even be named
            rest = _asked(template, upstream, work, node_class, pass_number)[1:]
            known = next((key for key in rest if key in self._rows), None)
            if known is None:
                return None
            key = known
        return predict(self._parts_of(key), work)

    def _parts_of(self, key: Key) -> tuple[float, float, float]:
        if (parts := self._parts.get(key)) is None:
            parts = self._parts[key] = fit(self._rows[key].sums)
        return parts


def _asked(template: str, upstream: str, work: Work, node_class: str, pass_number: int) -> tuple[Key, Key, Key]:
    """Whose estimates are asked, and taught, in order: there, the template anywhere, the class anywhere."""
    return (
        Key(template, node_class, pass_number, upstream),
        Key(template, node_class, pass_number, ANY_UPSTREAM),
        Key(ANY_MOVING if work.frames > 1 else ANY_STILL, node_class, pass_number, ANY_UPSTREAM),
    )


def start_after(free_in: Iterable[float], seconds_ahead: float) -> float | None:
    """Seconds until a job starts when work of ``seconds_ahead`` is started before it; None without an upstream.

    Work ahead is taken as water that fills the upstreams from the one that is free first: exact for many small jobs, and
    off by part of the longest where there are few. First come, first served is assumed.

    Args:
        free_in: seconds until each upstream is free.
        seconds_ahead: predicted seconds of what runs before.
    """
    levels = sorted(max(seconds, 0.0) for seconds in free_in)
    if not levels:
        return None
    left = max(seconds_ahead, 0.0)
    for count, (level, above) in enumerate(pairwise(levels), 1):
        room = (above - level) * count
        if left <= room:
            return level + left / count
        left -= room
    return levels[-1] + left / len(levels)

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
from itertools import combinations, pairwise
from typing import Final

from gateway.comfy.progress import Lap

#: A row counts half after nine more runs: long enough to tell frames from pixels, short enough to follow a change.
FADING: Final = 0.925
#: What is measured counts as at most this many times more or less than was predicted, once there were a few runs.
SURPRISE: Final = 3.0
RUNS_TO_TRUST: Final = 2.0
#: Penalty on the part of (fixed, per frame, per pixel), as a fraction of one run.
PENALTIES: Final = (0.05, 0.02, 0.02)
#: Beside it a share of all runs, so that noise does not become a slope when all targets are alike.
RELATIVE_PENALTY: Final = 0.002
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


@dataclass(frozen=True, slots=True)
class Key:
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


def fold(sums: Sums, work: Work, seconds: float) -> Sums:
    """The sums with one more run in them."""
    if sums[4] >= RUNS_TO_TRUST:
        expected = predict(fit(sums), work)
        seconds = min(max(seconds, expected / SURPRISE), expected * SURPRISE) if expected > 0 else seconds
    point = (1.0 / work.frames, 1.0, work.megapixels, seconds / work.frames)
    products = [point[row] * point[column] for row in range(4) for column in range(row, 4)]
    return tuple(FADING * old + new for old, new in zip(sums, products, strict=True))


def predict(parts: Sequence[float], work: Work) -> float:
    """Seconds of this work."""
    return parts[0] + work.frames * (parts[1] + parts[2] * work.megapixels)


def fit(sums: Sums) -> tuple[float, float, float]:
    """(fixed seconds, seconds a frame, seconds a frame and megapixel), none negative, that explain the runs best.

    Least squares of seconds per frame: each run counts alike, long or short. Of the seven sets of parts that may be
    above zero the best one is taken; three unknowns are few enough to try them all.
    """
    aa, ab, ac, ay, bb, bc, by, cc, cy, yy = sums
    if bb <= 0:
        return (0.0, 0.0, 0.0)
    diagonal = (aa, bb, cc)
    weights = [penalty / bb + RELATIVE_PENALTY for penalty in PENALTIES]
    gram = [[aa, ab, ac], [ab, bb, bc], [ac, bc, cc]]
    for place in range(3):
        gram[place][place] += weights[place] * diagonal[place]
    right = (ay, by, cy)
    best, least = (0.0, 0.0, 0.0), yy
    for count in (1, 2, 3):
        for chosen in combinations(range(3), count):
            found = _solve([[gram[row][column] for column in chosen] for row in chosen], [right[row] for row in chosen])
            if found is None or min(found) < 0:
                continue
            # At the minimum of a quadratic form its value is this; the penalty is in it.
            left = yy - sum(part * right[row] for part, row in zip(found, chosen, strict=True))
            if left < least:
                parts = [0.0, 0.0, 0.0]
                for part, row in zip(found, chosen, strict=True):
                    parts[row] = part
                best, least = (parts[0], parts[1], parts[2]), left
    return best


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gauss without pivoting, which a positive definite matrix does not need; None where it is none."""
    size = len(right)
    for pivot in range(size):
        if matrix[pivot][pivot] <= 1e-300:  # noqa: PLR2004 - nothing was measured of it
            return None
        for row in range(pivot + 1, size):
            factor = matrix[row][pivot] / matrix[pivot][pivot]
            right[row] -= factor * right[pivot]
            for column in range(pivot, size):
                matrix[row][column] -= factor * matrix[pivot][column]
    found = [0.0] * size
    for row in reversed(range(size)):
        rest = sum(matrix[row][column] * found[column] for column in range(row + 1, size))
        found[row] = (right[row] - rest) / matrix[row][row]
    return found


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
        any_template = ANY_MOVING if work.frames > 1 else ANY_STILL
        for lap in laps:
            for name, where in ((template, upstream), (template, ANY_UPSTREAM), (any_template, ANY_UPSTREAM)):
                self._fold(Key(name, lap.node_class, lap.pass_number, where), work, lap.seconds)
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
        any_template = ANY_MOVING if work.frames > 1 else ANY_STILL
        for name, where in ((template, upstream), (template, ANY_UPSTREAM), (any_template, ANY_UPSTREAM)):
            key = Key(name, node_class, pass_number, where)
            if key in self._rows:
                return predict(self._parts_of(key), work)
        return None

    def _parts_of(self, key: Key) -> tuple[float, float, float]:
        if (parts := self._parts.get(key)) is None:
            parts = self._parts[key] = fit(self._rows[key].sums)
        return parts


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

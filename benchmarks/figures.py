"""What is printed: figures of several rounds, ours beside the floor of the same round, and whether a target is met.

A round measures the floor and ours one after the other, so what the machine does meanwhile hits both; the ratio shown is
the median of the rounds' ratios, not the ratio of two medians.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from statistics import median
from typing import Any, assert_never


class Side(Enum):
    """Whose value it is."""

    OURS = "ours"
    FLOOR = "floor"
    PEER = "peer"


class Bound(Enum):
    """Which way a target goes."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True, slots=True)
class Target:
    """What the figure shall be."""

    bound: Bound
    value: float
    #: Of the ratio to the floor; else of our figure itself.
    is_ratio: bool = True
    #: Written behind the value.
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.bound.value} {self.value:g}{' x' if self.is_ratio else f' {self.unit}'.rstrip()}"

    def is_met(self, ours: float, ratio: float | None) -> bool | None:
        """Whether; None when there is nothing to judge."""
        judged = ratio if self.is_ratio else ours
        if judged is None:
            return None
        return judged <= self.value if self.bound is Bound.AT_MOST else judged >= self.value


def at_most(value: float) -> Target:
    """A ratio of at most."""
    return Target(Bound.AT_MOST, value)


def at_least(value: float) -> Target:
    """A ratio of at least."""
    return Target(Bound.AT_LEAST, value)


@dataclass
class Figure:
    """One line of the table: what was measured in each round."""

    bench: str
    name: str
    unit: str
    target: Target | None = None
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    #: Per round, where it is no quotient of the two (an addition, say).
    ratios: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Median over the rounds; None without a floor, or where the target is not one of a ratio."""
        if self.target is not None and not self.target.is_ratio:
            return None
        rounds = self.ratios or [mine / base for mine, base in zip(self.ours, self.floor, strict=False) if base]
        return median(rounds) if rounds else None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one, or when nothing was measured."""
        if self.target is None or not self.ours:
            return None
        return self.target.is_met(median(self.ours), self.ratio)

    def row(self) -> list[str]:
        """Its cells."""
        met = {True: "yes", False: "**no**", None: ""}[self.is_met]
        return [
            f"{self.name}, {self.unit}" if self.unit else self.name,
            _spread(self.ours),
            _spread(self.floor),
            f"{self.ratio:.2f}" if self.ratio is not None else "",
            str(self.target or ""),
            met,
            _spread(self.peer),
        ]

    def to_json(self) -> dict[str, Any]:
        """All that is known of it."""
        return {
            "bench": self.bench,
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "floor": self.floor,
            "peer": self.peer,
            "ratio": self.ratio,
            "target": str(self.target) if self.target else None,
            "met": self.is_met,
        }


class Sheet:
    """The figures of one benchmark, filled round by round."""

    def __init__(self, bench: str) -> None:
        self.bench = bench
        self.figures: dict[str, Figure] = {}
        #: Sentences below the table: what else was seen.
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Say something once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def add(
        self,
        name: str,
        unit: str,
        *,
        ours: float | None = None,
        floor: float | None = None,
        peer: float | None = None,
        ratio: float | None = None,
        target: Target | None = None,
    ) -> None:
        """One round's values of a figure; several calls may each bring a part."""
        figure = self.figures.setdefault(name, Figure(self.bench, name, unit))
        figure.target = figure.target or target
        for values, value in (
            (figure.ours, ours),
            (figure.floor, floor),
            (figure.peer, peer),
            (figure.ratios, ratio),
        ):
            if value is not None:
                values.append(value)

    def add_from(self, side: Side, name: str, unit: str, value: float, *, target: Target | None = None) -> None:
        """One round's value of a figure on one side."""
        match side:
            case Side.OURS:
                self.add(name, unit, ours=value, target=target)
            case Side.FLOOR:
                self.add(name, unit, floor=value, target=target)
            case Side.PEER:
                self.add(name, unit, peer=value, target=target)
            case _:
                assert_never(side)


HEAD = ("figure", "ours", "floor", "ratio", "target", "met", "comfy-api-proxy")


def table(sheets: list[Sheet]) -> str:
    """All figures as a Markdown table, one for each benchmark, notes below."""
    parts = []
    for sheet in sheets:
        rows = [HEAD, *(figure.row() for figure in sheet.figures.values())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        notes = ["", *(f"* {sentence}" for sentence in sheet.notes)] if sheet.notes else []
        parts.append("\n".join([f"### {sheet.bench}", "", *lines, *notes]))
    return "\n\n".join(parts)


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of them lie, nearest rank; nan when there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _spread(values: list[float]) -> str:
    """Median (least to most)."""
    if not values:
        return ""
    if len(values) == 1:
        return _digits(values[0])
    return f"{_digits(median(values))} ({_digits(min(values))} to {_digits(max(values))})"


def _digits(value: float) -> str:
    """Three digits that count."""
    if value != value:  # noqa: PLR0124 - nan is the one number that is not itself
        return "none"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"  # noqa: PLR2004 - digits

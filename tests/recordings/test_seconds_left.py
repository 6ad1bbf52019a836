"""How far seconds-left and bar are off on recorded runs, with what other runs have taught and without; `-s` prints the tables.

What the runs are: tests/recordings/runs/README.md. The error is that of the newest estimate shown when 10, 50 and 90 %
of a run's time had passed, as a part of the run's whole time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest

from gateway.comfy import progress
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
from gateway.comfy.progress import Lap, Plan, Tracker, plan_for
from gateway.timings import Timings, Work

RUNS = Path(__file__).parent / "runs"
POINTS = (0.1, 0.5, 0.9)
P = "recorded"


@dataclass(frozen=True, eq=False)
class Run:
    """One line of a recording."""

    template: str
    upstream: str
    frames: int
    work: Work
    graph: dict[str, Any]
    messages: tuple[tuple[float, Message], ...]

    @property
    def seconds(self) -> float:
        return self.messages[-1][0]


def message(kind: str, *said: Any) -> Message:  # noqa: PLR0911 - one line a kind
    match kind:
        case "prompt":
            return PromptStarted(P)
        case "cached":
            return NodesCached(P, tuple(said[0]))
        case "node":
            return NodeStarted(P, said[0])
        case "tick":
            return NodeProgress(P, *said)
        case "done":
            return NodeFinished(P, said[0])
        case "output":
            return NodeOutput(P, said[0], ())
        case _:
            return Succeeded(P, {})


@cache
def recorded(name: str) -> tuple[Run, ...]:
    lines = [json.loads(line) for line in (RUNS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return tuple(
        Run(
            line["template"],
            name,
            line["frames"],
            Work.of(line["frames"], line["width"], line["height"]),
            line["graph"],
            tuple((at, message(*said)) for at, *said in line["messages"]),
        )
        for line in lines
    )


def plan(run: Run, timings: Timings) -> Plan:
    def seconds_of(node_class: str, pass_number: int) -> float | None:
        return timings.seconds(run.template, run.upstream, run.work, node_class, pass_number)

    return plan_for(run.graph, frames=run.frames, seconds_of=seconds_of)


def replay(run: Run, planned: Plan) -> tuple[list[tuple[float, float, float | None]], Tracker]:
    """(seconds since the start, fraction, seconds left) after each message but the last."""
    tracker, shown = Tracker(planned, 0.0), []
    for at, said in run.messages[:-1]:
        tracker.feed(said, at)
        snapshot = tracker.snapshot()
        shown.append((at, snapshot.fraction, tracker.seconds_left(at)))
    return shown, tracker


def learned(runs: list[Run]) -> Timings:
    timings = Timings()
    for run in runs:
        timings.learn(run.template, run.upstream, run.work, laps(run))
    return timings


@cache
def laps(run: Run) -> tuple[Lap, ...]:
    return replay(run, plan(run, Timings()))[1].laps()


def errors(run: Run, planned: Plan) -> list[tuple[float | None, float]]:
    """At each point (error of seconds left, error of the bar), as parts of the whole time."""
    shown, _ = replay(run, planned)
    found = []
    for point in POINTS:
        now = run.seconds * point
        at, fraction, left = next(entry for entry in reversed(shown) if entry[0] <= now)
        # A client counts down from what it was told last.
        off = None if left is None else abs(max(left - (now - at), 0.0) - (run.seconds - now)) / run.seconds
        found.append((off, abs(fraction - point)))
    return found


# ------------------------------------------------------------------------------------------------------------- ways to tell

Way = Callable[[Run], Plan]


@cache
def cold(run: Run) -> Plan:
    """As at the first start."""
    return plan(run, Timings())


@cache
def by_nodes(run: Run) -> Plan:
    """Each node counts alike, done or not."""
    return replace(by_nodes_and_ticks(run), passes=dict.fromkeys(run.graph, (0.0,)))


@cache
def by_nodes_and_ticks(run: Run) -> Plan:
    """The same, and a node's counter counts within it."""
    return replace(cold(run), shares=dict.fromkeys(run.graph, 1 / len(run.graph)), passes={})


@cache
def all_but_it(run: Run) -> Plan:
    """All other runs on this upstream were there before."""
    return plan(run, learned([other for other in recorded(run.upstream) if other is not run]))


@cache
def those_before_it(run: Run) -> Plan:
    """As it was when it ran."""
    runs = list(recorded(run.upstream))
    return plan(run, learned(runs[: runs.index(run)]))


@cache
def another_upstream(run: Run) -> Plan:
    """All runs were on another upstream."""
    return plan(run, learned([other for other in recorded("worker") if other.upstream != run.upstream]))


@dataclass(frozen=True)
class Off:
    """Errors of many runs, in per cent, at each point."""

    medians: tuple[float, ...]
    means: tuple[float, ...]
    worst: tuple[float, ...]


def measured(runs: list[Run], way: Way, which: int = 0) -> Off:
    per_run = [errors(run, way(run)) for run in runs]
    columns = [[100 * (found[place][which] or 0.0) for found in per_run] for place in range(len(POINTS))]
    assert which or all(found[place][0] is not None for found in per_run for place in range(len(POINTS)))
    return Off(*(tuple(round(what(column), 1) for column in columns) for what in (median, mean, max)))


def movies(name: str, first: int = 0) -> list[Run]:
    return [run for run in recorded(name)[first:] if run.frames > 1]


@pytest.fixture
def impatient(monkeypatch):
    """A pace is told from the first moment on: some runs are over before it would be."""
    monkeypatch.setattr(progress, "PACE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "PACE_FRACTION", 1e-9)


# ------------------------------------------------------------------------------------------------------------- what is shown

WORKERS = ("worker", "worker-throttled", "worker-loaded")
EVERYWHERE = (*WORKERS, "comfyui")
#: Means in per cent of a run's time at 10, 50 and 90 % of it, as measured; docs/architecture.md has the same table.
LEARNED = {
    ("worker", "all others"): (14.1, 11.4, 2.8),
    ("worker", "those before"): (15.0, 14.5, 3.6),
    ("worker-throttled", "all others"): (22.3, 6.8, 2.3),
    ("worker-throttled", "those before"): (17.6, 6.6, 2.8),
    ("worker-throttled", "another upstream"): (25.6, 15.0, 7.1),
    ("worker-loaded", "those before"): (23.6, 14.2, 2.6),
}
WAYS = {"all others": all_but_it, "those before": those_before_it, "another upstream": another_upstream}


def say(line: str) -> None:
    print(line)  # noqa: T201 - the table, for whoever runs this with -s


def some(name: str, way: str) -> list[Run]:
    """Before the first three nothing much was there to learn from."""
    return movies(name, 3 if way == "those before" else 0)


@pytest.mark.parametrize(("name", "way"), LEARNED)
def test_with_what_was_learned_seconds_left_are_off_by_no_more_than_was_measured(name: str, way: str) -> None:
    off = measured(some(name, way), WAYS[way])
    say(f"{name}, {way}: median {off.medians}, mean {off.means}, worst {off.worst}")
    assert all(found <= bound for found, bound in zip(off.means, LEARNED[name, way], strict=True)), off


def test_learning_makes_the_early_estimate_better_by_half(impatient) -> None:
    for name in WORKERS:
        runs = some(name, "those before")
        assert measured(runs, those_before_it).means[0] < measured(runs, cold).means[0] / 2, name


def test_at_a_tenth_of_a_run_seconds_left_are_told_only_where_something_was_learned() -> None:
    for name in WORKERS:
        runs = some(name, "those before")
        assert all(errors(run, those_before_it(run))[0][0] is not None for run in runs)
        assert all(errors(run, cold(run))[0][0] is None for run in runs if run.seconds < 10 * progress.PACE_SECONDS)


@pytest.mark.parametrize("counting", [by_nodes, by_nodes_and_ticks])
@pytest.mark.parametrize("which", [0, 1], ids=["seconds left", "bar"])
def test_cold_start_is_no_worse_than_counting_nodes(impatient, counting: Way, which: int) -> None:
    runs = [run for name in EVERYWHERE for run in movies(name)]
    for place, point in enumerate(POINTS):
        pairs = [(errors(run, cold(run))[place][which], errors(run, counting(run))[place][which]) for run in runs]
        told = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        ours, theirs = (mean(column) for column in zip(*told, strict=True))
        say(f"{counting.__name__} at {point:.0%}: {100 * ours:.1f} % against {100 * theirs:.1f} %, {len(told)} runs")
        assert len(told) > len(runs) / 2
        assert ours <= theirs


def test_a_graph_of_classes_nobody_knows_is_counted_by_nodes() -> None:
    (unknown,) = [run for run in recorded("comfyui") if "StandinFaceSwap" in str(run.graph)]
    assert errors(unknown, cold(unknown)) == errors(unknown, by_nodes_and_ticks(unknown))


def test_bars_follow_time_better_with_what_was_learned() -> None:
    for name in WORKERS:
        runs = some(name, "those before")
        ours, theirs = measured(runs, those_before_it, 1), measured(runs, cold, 1)
        say(f"{name}: bar off by {ours.means} learned, {theirs.means} cold")
        assert sum(ours.means) < sum(theirs.means)


@pytest.mark.parametrize("name", WORKERS)
def test_bars_never_fall_and_seconds_left_neither_jump_nor_go_below_zero(name: str) -> None:
    for run in movies(name, 3):
        shown, _ = replay(run, those_before_it(run))
        for (before, low, old), (after, high, new) in pairwise(shown):
            assert low <= high
            assert new is not None
            assert new >= 0.0
            # Of what was told before, the time since then taken off.
            assert old is None or abs(new - max(old - (after - before), 0.0)) <= 0.25 * run.seconds


def test_each_recorded_run_is_whole() -> None:
    assert {name: len(recorded(name)) for name in EVERYWHERE} == {**dict.fromkeys(WORKERS, 15), "comfyui": 3}
    for name in EVERYWHERE:
        for run in recorded(name):
            times = [at for at, _ in run.messages]
            assert times == sorted(times)
            assert isinstance(run.messages[0][1], PromptStarted)
            assert isinstance(run.messages[-1][1], Succeeded)

"""The benchmarks in their smallest form: they run, measure both sides, and leave nothing. How fast anything is, is not
asked here."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, relay, wire
from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import Bound, Figure, Target, at_least, at_most
from benchmarks.processes import BenchmarkError
from tests.tools.gateway_process import command_lines
from tests.tools.waiting import wait_until_now

ROOT = Path(__file__).resolve().parents[2]
#: Nearly all of it is processes that start; a busy machine must not fail it.
PATIENCE_SECONDS = 180


def command(folder: Path, *words: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "COMFY_API_PROXY"}
    arguments = [sys.executable, "-m", "benchmarks", *words, "--smoke", "--rounds", "1", "--folder", str(folder)]
    return {"args": arguments, "cwd": ROOT, "env": environment}


def processes_of(folder: Path) -> list[list[str]]:
    return [words for _, words in command_lines() if any(str(folder) in word for word in words)]


@dataclass
class Run:
    folder: Path
    output: str
    figures: list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """All benchmarks, once."""
    folder, file = tmp_path_factory.mktemp("bench"), tmp_path_factory.mktemp("json") / "figures.json"
    started = command(folder, "all", "--json", str(file))
    ended = subprocess.run(**started, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return Run(folder, ended.stdout, json.loads(file.read_text())["figures"])


@pytest.mark.long
@pytest.mark.system
def test_each_benchmark_measures_ours_and_the_floor(run: Run) -> None:
    for bench in BENCHMARKS:
        measured = [figure for figure in run.figures if figure["bench"] == bench]
        assert [figure["name"] for figure in measured if figure["ours"] and figure["floor"]], bench
        assert [figure["name"] for figure in measured if figure["target"] and figure["met"] is None] == []


@pytest.mark.long
@pytest.mark.system
def test_each_value_is_a_number_that_can_be(run: Run) -> None:
    for figure in run.figures:
        values = figure["ours"] + figure["floor"]
        assert values
        assert all(math.isfinite(value) and value >= 0 for value in values if "added" not in figure["name"]), figure


@pytest.mark.long
@pytest.mark.system
def test_nothing_is_lost_or_invented_on_the_way(run: Run) -> None:
    shares = [figure for figure in run.figures if figure["name"].endswith("share of ticks")]
    assert len(shares) == len(relay.SMOKE_SCENARIOS)
    assert all(figure["floor"] == [1.0] for figure in shares)
    assert all(0 < figure["ours"][0] <= 1 for figure in shares)
    busy = [figure for figure in run.figures if "busy" in figure["name"]]
    assert all(0 < value <= 100 for figure in busy for value in figure["ours"] + figure["floor"])


@pytest.mark.long
@pytest.mark.system
def test_table_has_a_line_for_each_figure_and_says_what_was_not_measured(run: Run) -> None:
    lines = run.output.splitlines()
    for figure in run.figures:
        assert [line for line in lines if line.startswith(f"| {figure['name']}")], figure["name"]
    assert "comfy-api-proxy was not measured" in run.output


@pytest.mark.long
@pytest.mark.system
def test_nothing_is_left_behind(run: Run) -> None:
    assert list(run.folder.iterdir()) == []
    assert processes_of(run.folder) == []


@pytest.mark.long
@pytest.mark.system
def test_run_that_is_stopped_leaves_nothing_behind(tmp_path) -> None:
    started = command(tmp_path, "relay")
    process = subprocess.Popen(**started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_now(lambda: processes_of(tmp_path)[1:], what="a process that it started")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) != 0
    finally:
        process.kill()
        process.wait()
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- judging


def test_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    figure = Figure("b", "n", "ms", at_most(3), ours=[2.0, 30.0, 4.0], floor=[1.0, 10.0, 1.0])
    assert figure.ratio == 3.0
    assert figure.is_met
    figure.ours[0] = 4.0
    assert figure.is_met is False


@pytest.mark.parametrize(
    ("target", "ours", "met"),
    [
        (at_least(1), 10.0, True),
        (at_least(1), 9.0, False),
        (Target(Bound.AT_MOST, 40, is_ratio=False), 40.0, True),
        (Target(Bound.AT_MOST, 40, is_ratio=False), 41.0, False),
        (Target(Bound.AT_LEAST, 99, is_ratio=False), 98.0, False),
    ],
)
def test_target_is_met_on_its_side_of_the_bound_only(target, ours, met) -> None:
    assert Figure("b", "n", "", target, ours=[ours], floor=[10.0]).is_met is met


def test_missed_target_stands_out_and_an_unmeasured_one_says_nothing() -> None:
    sheet = figures.Sheet("b")
    sheet.add("slow", "ms", ours=9.0, floor=1.0, target=at_most(3))
    sheet.add("unknown", "ms", floor=1.0, target=at_most(3))
    slow, unknown = figures.table([sheet]).splitlines()[-2:]
    assert "**no**" in slow
    assert "no" not in unknown.replace("unknown", "")


# -------------------------------------------------------------------------------------------------------------- reading


class Shown:
    """A viewer that was shown these percentages, one a millisecond."""

    def __init__(self, *percentages: float) -> None:
        self._percentages = percentages

    def messages(self) -> list[tuple[int, bytes]]:
        return [(at * 1_000_000, b'{"percentage": %f}' % value) for at, value in enumerate(self._percentages)]


class Percentages:
    pattern = relay._PERCENTAGE
    is_exact = False


def latencies(*percentages: float) -> list[float]:
    """Ten ticks after the first one, all sent at time 0."""
    return relay._latencies(Percentages(), Shown(*percentages), [0] * 12, 10)


def test_percentages_are_taken_for_the_ticks_they_show() -> None:
    assert latencies(20.0, 22.0, 30.0, 40.0) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("percentages", [(20.0, 30.0, 30.0, 40.0), (20.0, 30.0, 28.0, 40.0)])
def test_event_that_comes_twice_or_out_of_order_breaks_the_run_off(percentages) -> None:
    with pytest.raises(BenchmarkError, match="twice or out of order"):
        latencies(*percentages)


def test_percentage_between_two_ticks_breaks_the_run_off() -> None:
    with pytest.raises(BenchmarkError, match="belongs to no tick"):
        latencies(20.0, 23.0, 40.0)


def test_block_counts_when_its_last_byte_came() -> None:
    reads = [(1, b"data: a\n\nda"), (2, b"ta: b\n"), (3, b"\ndata: c\n\n")]
    assert wire._blocks(reads) == [(1, b"data: a"), (3, b"data: b"), (3, b"data: c")]


def test_frames_are_found_wherever_reads_were_cut() -> None:
    texts = [b"x" * 5, b"y" * 300, b"z" * 70_000]
    heads = [bytes([0x81, 5]), bytes([0x81, 126]) + (300).to_bytes(2), bytes([0x81, 127]) + (70_000).to_bytes(8)]
    stream = b"".join(head + text for head, text in zip(heads, texts, strict=True))
    for step in (1, 2, 7, 1000):
        reads = [(at, stream[at : at + step]) for at in range(0, min(len(stream), 400), step)]
        reads.append((len(stream), stream[reads[-1][0] + step :]))
        assert [text for _, text in wire._frames(reads)] == texts

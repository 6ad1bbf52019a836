"""Processes that are measured: started in a group of their own, read by /proc, and gone at the end whatever happened.

CPU and memory are those of a process and of all that it started: work that is handed to a child is still work. Linux
only. Source: proc(5), ``schedstat`` of each thread (nanoseconds on a core), ``stat`` fields 16 and 17 (ticks of children it
has waited for) and 24 (resident pages).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: A process that has not said that it is ready by then never will be.
START_SECONDS = 30.0
#: Asked to end, a process gets this long before it is made to.
STOP_SECONDS = 10.0
_SAMPLE_SECONDS = 0.02
_FROM_HERE = f"import sys; sys.path.insert(0, {str(Path(__file__).absolute().parent.parent)!r}); "


class BenchmarkError(Exception):
    """A benchmark cannot go on; one sentence."""


@dataclass
class Measured:
    """A process whose CPU time and memory can be read while it lives."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pids(self) -> list[int]:
        """Its process id and those of all that it started and that live."""
        return [self.process.pid, *_descendants(self.process.pid)]

    def cpu_seconds(self) -> float:
        """CPU time used so far: its own, its children's, and that of children it has waited for.

        Of what lives the scheduler's nanoseconds are read: ticks of 10 ms would drown a few hundred events.
        """
        return sum(_cpu_of_threads(pid) + _cpu_of_the_dead(pid) for pid in self.pids)

    def rss_bytes(self) -> int:
        """Resident memory now. Pages that parent and child share count twice."""
        return sum(_rss_pages(pid) for pid in self.pids) * _PAGE_BYTES

    def require_alive(self) -> None:
        """Raise BenchmarkError, with the end of its log, when it is gone."""
        if self.process.poll() is not None:
            raise BenchmarkError(f"A measured process ended by itself: {_tail(self.log)}")


@contextmanager
def running(
    command: Sequence[str], *, folder: Path, name: str, environment: Mapping[str, str] | None = None
) -> Iterator[Measured]:
    """Run a command in a process group of its own; at the end the whole group is gone.

    Args:
        command: program and arguments.
        folder: working directory; its output goes to files there.
        name: of those files.
        environment: added to ours, without what configures a gateway of this machine's owner.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
    log = folder / f"{name}.log"
    with log.open("ab") as err, (folder / f"{name}.out").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=inherited | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield Measured(process, log)
    finally:
        _end(process)


async def first_line(measured: Measured, name: str) -> str:
    """The first line that it printed, as soon as it did. Raises BenchmarkError."""
    path = measured.log.parent / f"{name}.out"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        text = path.read_text(encoding="utf-8")
        if "\n" in text:
            return text.partition("\n")[0]
        measured.require_alive()
        await asyncio.sleep(0.01)
    raise BenchmarkError(f"{name} did not start within {START_SECONDS:.0f} s: {_tail(measured.log)}")


async def announced(measured: Measured, name: str) -> dict[str, Any]:
    """The JSON object that one of our own processes prints when it listens."""
    told = json.loads(await first_line(measured, name))
    if not isinstance(told, dict):
        raise BenchmarkError(f"{name} announced something else than an object")
    return told


def our_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this checkout, wherever it is run."""
    run = f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", _FROM_HERE + run, *arguments]


def our_gateway(*arguments: str) -> list[str]:
    """The command that runs the gateway of this checkout, which need not be the one that is installed."""
    return [
        sys.executable,
        "-c",
        f"{_FROM_HERE}sys.argv[0] = 'comfygate'; from gateway.cli import main; main()",
        *arguments,
    ]


@dataclass
class MemoryPeak:
    """Resident memory before, and the most that was seen since."""

    before_bytes: int
    peak_bytes: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def growth_bytes(self) -> int:
        """Bytes by which it grew at most."""
        return max(0, self.peak_bytes - self.before_bytes)


@asynccontextmanager
async def watching_memory(measured: Measured) -> AsyncIterator[MemoryPeak]:
    """Sample a process tree's memory 50 times a second, in a thread, while the context lasts."""
    peak = MemoryPeak(await asyncio.to_thread(measured.rss_bytes))

    async def sample() -> None:
        while not peak._stop.is_set():  # noqa: SLF001 - one thing in two parts
            peak.peak_bytes = max(peak.peak_bytes, await asyncio.to_thread(measured.rss_bytes))
            await asyncio.sleep(_SAMPLE_SECONDS)

    sampler = asyncio.create_task(sample(), name="memory sampler")
    try:
        yield peak
    finally:
        peak._stop.set()  # noqa: SLF001 - as above
        await sampler


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the program, which ends its children itself; then leave nothing of its group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)


def _descendants(pid: int) -> list[int]:
    direct: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that ended while we looked
            direct += map(int, path.read_text(encoding="ascii").split())
    return [*direct, *(grandchild for child in direct for grandchild in _descendants(child))]


def _stat(pid: int) -> list[str]:
    """Fields from the third on: the second is a name in brackets that may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_of_threads(pid: int) -> float:
    nanoseconds = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that ended while we looked
            nanoseconds += int(path.read_text(encoding="ascii").split()[0])
    return nanoseconds / 1e9


def _cpu_of_the_dead(pid: int) -> float:
    return sum(map(int, _stat(pid)[13:15])) / _TICKS_PER_SECOND


def _rss_pages(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) if fields else 0


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]

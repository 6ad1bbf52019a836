"""Speed against floors measured in the same run, by hand: ``python -m benchmarks all --rounds 3``.

Each benchmark's module says what it measures; ``bare`` says what the floors do, ``upstream`` what stands in for ComfyUI.
Everything stays on loopback and in one temporary folder that is deleted at the end. The machine should do nothing else:
the load before the run is printed with the result. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import uvloop

from benchmarks import figures, material
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError

#: From the cheapest to set up to the dearest.
BENCHMARKS = ("status", "relay", "submit", "pool", "transfer")
PEER_VARIABLE = "COMFY_API_PROXY"
#: A load above this means that somebody else uses the machine.
QUIET_LOAD = 0.5


def main() -> None:
    """Run what was asked for and print the tables."""
    arguments = _arguments()
    names = BENCHMARKS if arguments.benchmark == "all" else (arguments.benchmark,)
    signal.signal(signal.SIGTERM, _leave)  # so that contexts end, and with them every process
    _allow_many_files()
    machine = _machine()
    print(_told(machine), file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="comfygate-bench-", dir=arguments.folder))
    try:
        sheets = _run(arguments, names, folder)
    except BenchmarkError as error:
        sys.exit(f"The benchmark broke off: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(_told(machine), figures.table(sheets), sep="\n\n")
    if arguments.json is not None:
        whole = {
            "machine": machine,
            "rounds": arguments.rounds,
            "figures": [figure.to_json() for sheet in sheets for figure in sheet.figures.values()],
            "notes": {sheet.bench: sheet.notes for sheet in sheets},
        }
        arguments.json.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _run(arguments: argparse.Namespace, names: tuple[str, ...], folder: Path) -> list[figures.Sheet]:
    made = folder / "material"
    made.mkdir()
    sheets = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        own = folder / name
        own.mkdir()
        options = Options(arguments.rounds, arguments.smoke, arguments.peer, own, material.make(made), arguments.only)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sheets.append(runner.run(importlib.import_module(f"benchmarks.{name}").run(options)))
        shutil.rmtree(own, ignore_errors=True)
    return sheets


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("benchmark", choices=(*BENCHMARKS, "all"))
    parser.add_argument("--rounds", type=int, default=3, help="floor and ours, so often (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="of relay, the scenarios whose names contain this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's values there")
    parser.add_argument("--smoke", action="store_true", help="the least of everything; the figures mean nothing")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; its disk is measured too")
    parser.add_argument(
        "--peer",
        type=Path,
        default=os.environ.get(PEER_VARIABLE) or shutil.which("comfy-api-proxy"),
        help=f"executable of comfy-api-proxy (default: {PEER_VARIABLE}, or where PATH has it)",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    if arguments.peer is not None:
        arguments.peer = Path(arguments.peer).resolve()
        if not os.access(arguments.peer, os.X_OK):
            parser.error(f"{arguments.peer} is not an executable")
    return arguments


def _leave(number: int, frame: object) -> NoReturn:
    del frame
    sys.exit(128 + number)


def _allow_many_files() -> None:
    """A thousand viewers need a thousand files, here and in each server that is started from here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _machine() -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    root = Path(__file__).absolute().parent.parent
    git = shutil.which("git")
    if git is None:
        return "unknown"
    found = subprocess.run(
        [git, "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _told(machine: dict[str, Any]) -> str:
    quiet = "" if machine["load_before"] <= QUIET_LOAD else " Others use this machine: the figures are worth little."
    return (
        f"{machine['cores']} cores ({machine['cpu']}), Linux {machine['kernel']}, Python {machine['python']}, "
        f"commit {machine['commit']}, load before the run {machine['load_before']}.{quiet}"
    )


if __name__ == "__main__":
    main()

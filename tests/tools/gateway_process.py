"""A whole gateway as a process on loopback: started, stopped, killed and started again on the same data directory.

Nothing is faked: the command is the one users run, its workers are the real embedded ones, settings are environment
variables. Every process is found by its own parent and folder, never by a name that another gateway has too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from tests.tools.files import files_below
from tests.tools.plain_http import NO_TLS
from tests.tools.waiting import PATIENCE_SECONDS, wait_until, wait_until_now

#: Settings of the machine's owner must not change a test.
_OWN_PREFIX = "GATEWAY_"
_READY_LINE = b"comfygate listens on "
#: The command, with other times. There is no setting for them: two gateways that differ could both believe to hold.
_QUICK = (
    "from gateway import holding; from gateway.lease import Timing; from gateway.cli import main\n"
    "holding.TIMING = Timing(0.5, 2.4, 3.0); main()"
)
_PLAIN = "from gateway.cli import main; main()"


@dataclass
class GatewayProcess:
    """One data directory, one port, and the process that serves them while there is one."""

    folder: Path
    #: By name, without the prefix.
    settings: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    port: int = 0
    #: Flags of ``comfygate serve`` beside the port.
    flags: tuple[str, ...] = ()
    #: A lease that is taken over after three seconds instead of ten.
    has_quick_lease: bool = False
    #: Lines of Python that the command runs first, for times that no setting changes.
    first: str = ""
    #: Where it keeps its data, when that is not in its own folder.
    shared_data_dir: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    #: Bytes of its output that were there before its start.
    _seen: int = 0

    # ------------------------------------------------------------------------------------------------------- its life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, *, wait_for_workers: bool = True, wait_until_it_listens: bool = True) -> Self:
        """Start it, and wait until it listens and all its workers are there."""
        assert self.process is None, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        with self.output.open("ab") as out, self.log.open("ab") as err:
            seen = self.output.stat().st_size
            self.process = subprocess.Popen(
                [*self._program, "serve", "--port", str(self.port), *self.flags],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self._seen = seen
        try:
            if wait_until_it_listens:
                wait_until_now(self.is_listening, what="the gateway to listen")
                if wait_for_workers:
                    wait_until_now(self._is_whole, what="all workers")
        except BaseException:
            self.end()  # nobody else will: whoever wanted it has nothing to end
            raise
        return self

    def stop(self) -> tuple[int, float]:
        """SIGTERM; its exit status, and the seconds it took."""
        assert self.process is not None, "it does not run"
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_SECONDS)
        self.process = None
        return status, time.monotonic() - begun

    def kill(self) -> None:
        """kill -9: nothing of it gets to run any more."""
        assert self.process is not None, "it does not run"
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self.process = None

    def end(self) -> None:
        """Whatever its state: no process of it is left afterwards."""
        children = self.children() if self.process is not None else []
        if self.process is not None:
            self.kill()
        for pid in {*children, *self.worker_pids().values()}:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    @property
    def _program(self) -> list[str]:
        if self.has_quick_lease or self.first:
            return [sys.executable, "-c", f"{self.first}\n{_QUICK if self.has_quick_lease else _PLAIN}"]
        return [str(Path(sys.executable).parent / "comfygate")]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIX)}
        # Without an allow-list a test that forgets a stub would dial out; nothing in tests may.
        settings = {"URL_INPUTS": "allowlist", "LOG_FORMAT": "json", **self.settings}
        settings |= {"DATA_DIR": str(self.data_dir), "EMBEDDED_WORKERS": str(self.workers)}
        return inherited | {_OWN_PREFIX + name: value for name, value in settings.items()}

    def is_listening(self) -> bool:
        """Whether it said so since its start; AssertionError when it ended instead."""
        assert self.process is not None
        assert self.process.poll() is None, f"it ended: {self.log.read_text()[-2000:]}"
        return _READY_LINE in self.output.read_bytes()[self._seen :]

    def _is_whole(self) -> bool:
        with self.http() as http:
            health = http.get("/health", headers=self.bearer).json()
        return health["status"] == "healthy" and len(health["upstreams"]) == self.workers

    # ------------------------------------------------------------------------------------------------ what it left behind

    @property
    def data_dir(self) -> Path:
        return self.shared_data_dir or self.folder / "data"

    @property
    def output(self) -> Path:
        """What it told its operator."""
        return self.folder / "stdout.txt"

    @property
    def log(self) -> Path:
        return self.folder / "stderr.txt"

    def files(self) -> set[str]:
        """All bytes of clients that lie on its disk: blobs, parts of blobs, scratch; not what its workers keep."""
        return {
            str(path.relative_to(self.data_dir))
            for name in ("blobs", "scratch")
            for path in files_below(self.data_dir / name)
        }

    def rows(self, query: str, *values: object) -> list[Any]:
        """Ask its database, reading only."""
        with closing(sqlite3.connect(f"file:{self.data_dir / 'gateway.db'}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()

    def leftovers(self) -> dict[str, Any]:
        """Everything that a submission can leave."""
        tables = ("jobs", "tasks", "assets", "blobs", "events")
        counts = {table: self.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}  # noqa: S608 - our own names
        return {"files": self.files(), **counts}

    # ---------------------------------------------------------------------------------------------------- its processes

    def children(self) -> list[int]:
        """Process ids of all that it started and that live."""
        assert self.process is not None
        return descendants(self.process.pid)

    def worker_pids(self) -> dict[str, int]:
        """Name of each live worker -> its process id, also when the gateway is gone."""
        folder = str(self.data_dir / "embedded")
        found: dict[str, int] = {}
        for pid, words in command_lines():
            if "gateway.embedded" in words and words[-1].startswith(folder):
                found[Path(words[-1]).name] = pid
        return found

    # ------------------------------------------------------------------------------------------------------ talking to it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bearer(self) -> dict[str, str]:
        """Its admin token as a header."""
        return {"Authorization": f"Bearer {(self.data_dir / 'admin-token').read_text().strip()}"}

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False, verify=NO_TLS)

    def client(self, **settings: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False, **{"verify": NO_TLS, **settings}
        )


def free_port() -> int:
    """A port that nobody else takes as long as this process lives; a gateway that is started again comes back on it.

    Not one of the kernel's own choice, which it may give to somebody else a moment later: those begin higher (from 32768
    on Linux, from 49152 elsewhere). Tests that run beside this one see its name taken.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        if sys.platform == "linux":
            name = socket.socket(socket.AF_UNIX)
            try:
                name.bind(f"\0comfygate tests port {port}")  # in no folder, and gone with this process
            except OSError:
                name.close()
                continue
            name.detach()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def command_lines() -> list[tuple[int, list[str]]]:
    """(process id, words of its command line) of every live process that may be looked at."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:  # it ended while we looked
                continue
            if words[0] and is_alive(int(entry.name)):
                found.append((int(entry.name), words[:-1]))
    return found


def descendants(pid: int) -> list[int]:
    """Process ids of children, theirs included."""
    direct: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # that thread ended while we looked; others have children, too
            direct += map(int, path.read_text().split())
    return [*direct, *(grandchild for child in direct for grandchild in descendants(child))]


def is_alive(pid: int) -> bool:
    """Whether it runs: a zombie that nobody has waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


async def wait_until_gone(pids: list[int], *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until none of these runs."""
    await wait_until(
        lambda: not any(is_alive(pid) for pid in pids),
        what=f"the end of {pids}",
        patience_seconds=patience_seconds,
    )

"""What may be made to go wrong, for tests; nothing does unless ``--faults`` says so.

``--faults`` is a comma list of ``name[:key=value]…``:

``silent-socket[:after=N]``
    Each socket stays open and gets nothing more once N frames (default 0) were sent to it.
``drop-socket[:after=N][:n=M]``
    A socket is closed with 1011 once N frames (default 0) were sent to it; only the first M sockets (default 1), so
    that a client that connects again is served.
``orphan-socket[:after=N][:n=M]``
    Once N frames (default 0) were sent to a socket, the server forgets it: it stays open and gets nothing more. Only the
    first M (default 1). ComfyUI does so to a socket that took over the clientId of one that ends later.
``blocked-loop[:after=N][:seconds=S]``
    The sending of frames stands still for S seconds (default 600) before frame N (default 0), as when another client has
    stopped reading; HTTP goes on.
``hang[:node=CLASS]``
    The first node of that class (default any) never ends and cannot be interrupted.
``crash[:frame=K][:node=CLASS][:once=1]``
    The process ends without a word (``os._exit(70)``) when a node (default any) ticks with value K or more (default 1).
    ``once=1`` leaves a mark in the worker's directory, so that a restarted worker works.
``oom[:node=CLASS][:n=M]``
    Nodes of that class (default any class with FaceSwap in its name) raise an out-of-memory error, the first M times
    (default always).
``slow-upload[:seconds=S]``
    Every upload is answered S seconds late (default 2).
``http-500[:n=M][:path=P]``
    The first M requests (default 3) whose path starts with P (default any) are answered 500 and do nothing.
``lost-file[:fresh=1][:n=M]``
    When a cached output is handed out again, its files are deleted first: the names are right, /view is 404. With
    ``fresh=1`` files that were just made are deleted too. The first M times (default always).
``late-reply[:seconds=S][:n=M]``
    The first M prompts (default 1) are queued, and answered S seconds late (default 600).
``false-500[:n=M]``
    The first M prompts (default 1) are queued, and answered 500.
``partial[:n=M]``
    The first M prompts (default 1) are queued, and answered 200 with ``node_errors``, as when an output was left out.
``deaf``
    Interrupts of what runs are not noticed: it ends as it would have.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CRASH_EXIT_STATUS = 70

#: Which keys each fault takes.
KNOWN: Mapping[str, frozenset[str]] = {
    "silent-socket": frozenset({"after"}),
    "drop-socket": frozenset({"after", "n"}),
    "orphan-socket": frozenset({"after", "n"}),
    "blocked-loop": frozenset({"after", "seconds"}),
    "hang": frozenset({"node"}),
    "crash": frozenset({"frame", "node", "once"}),
    "oom": frozenset({"node", "n"}),
    "slow-upload": frozenset({"seconds"}),
    "http-500": frozenset({"n", "path"}),
    "lost-file": frozenset({"fresh", "n"}),
    "late-reply": frozenset({"seconds", "n"}),
    "false-500": frozenset({"n"}),
    "partial": frozenset({"n"}),
    "deaf": frozenset(),
}


def parse_faults(text: str) -> dict[str, dict[str, str]]:
    """Read the value of ``--faults``.

    Raises:
        ValueError: an unknown name or key; the sentence says which.
    """
    faults: dict[str, dict[str, str]] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, *pairs = part.split(":")
        if name not in KNOWN:
            raise ValueError(f"unknown fault {name!r}; known are {', '.join(KNOWN)}")
        settings = dict(pair.partition("=")[::2] for pair in pairs)
        if unknown := settings.keys() - KNOWN[name]:
            raise ValueError(f"fault {name!r} takes no {min(unknown)!r}")
        faults[name] = settings
    return faults


@dataclass(slots=True)
class Faults:
    """The faults of one worker; counters are kept under a lock, as nodes run in a thread of their own."""

    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    #: Where ``crash:once=1`` leaves its mark.
    directory: Path | None = None
    _used: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _number(self, name: str, key: str, default: float) -> float:
        return float(self.settings[name].get(key, default))

    def _take(self, name: str, default: float) -> bool:
        """Use a fault up by one; False when its ``n`` is reached."""
        with self._lock:
            used = self._used.get(name, 0)
            self._used[name] = used + 1
        return used < self._number(name, "n", default)

    def silences(self, frames_sent: int) -> bool:
        """Must this socket get nothing more?"""
        return "silent-socket" in self.settings and frames_sent >= self._number("silent-socket", "after", 0)

    def drops(self, frames_sent: int) -> bool:
        """Must this socket be closed now?"""
        if "drop-socket" not in self.settings or frames_sent < self._number("drop-socket", "after", 0):
            return False
        return self._take("drop-socket", 1)

    def orphans(self, frames_sent: int) -> bool:
        """Must this socket be forgotten now?"""
        if "orphan-socket" not in self.settings or frames_sent < self._number("orphan-socket", "after", 0):
            return False
        return self._take("orphan-socket", 1)

    def block_seconds(self) -> float:
        """How long the sending of frames must stand still before this one."""
        if "blocked-loop" not in self.settings:
            return 0
        with self._lock:
            sent = self._used.get("blocked-loop", 0)
            self._used["blocked-loop"] = sent + 1
        is_due = sent == self._number("blocked-loop", "after", 0)
        return self._number("blocked-loop", "seconds", 600) if is_due else 0

    def hangs(self, class_type: str) -> bool:
        """Must this node never end?"""
        return "hang" in self.settings and self.settings["hang"].get("node", class_type) == class_type

    def crash_if_due(self, class_type: str, value: float) -> None:
        """End the process if this tick is the one."""
        crash = self.settings.get("crash")
        if crash is None or crash.get("node", class_type) != class_type or value < self._number("crash", "frame", 1):
            return
        if crash.get("once") and self.directory is not None:
            mark = self.directory / ".crashed-once"
            if mark.exists():
                return
            mark.touch()
        os._exit(CRASH_EXIT_STATUS)

    def runs_out_of_memory(self, class_type: str) -> bool:
        """Must this node raise an out-of-memory error?"""
        if "oom" not in self.settings:
            return False
        wanted = self.settings["oom"].get("node")
        hit = class_type == wanted if wanted else "FaceSwap" in class_type
        return hit and self._take("oom", float("inf"))

    def upload_delay_seconds(self) -> float:
        """How late an upload is answered."""
        return self._number("slow-upload", "seconds", 2) if "slow-upload" in self.settings else 0

    def fails_request(self, path: str) -> bool:
        """Must this request be answered 500?"""
        if "http-500" not in self.settings or not path.startswith(self.settings["http-500"].get("path", "")):
            return False
        return self._take("http-500", 3)

    def loses_files(self, *, is_fresh: bool) -> bool:
        """Are the files of this output deleted? Args: is_fresh: it was just made, and not found in the cache."""
        if "lost-file" not in self.settings or (is_fresh and "fresh" not in self.settings["lost-file"]):
            return False
        return self._take("lost-file", float("inf"))

    def reply_delay_seconds(self) -> float:
        """How late the answer to this prompt is."""
        is_due = "late-reply" in self.settings and self._take("late-reply", 1)
        return self._number("late-reply", "seconds", 600) if is_due else 0

    def denies_prompt(self) -> bool:
        """Must this prompt, which is queued, be answered 500?"""
        return "false-500" in self.settings and self._take("false-500", 1)

    def faults_prompt(self) -> bool:
        """Must the answer to this prompt, which is queued, name a node that is wrong?"""
        return "partial" in self.settings and self._take("partial", 1)

    def is_deaf(self) -> bool:
        """Are interrupts of what runs not noticed?"""
        return "deaf" in self.settings

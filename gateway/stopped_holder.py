"""Ending a process that holds a data directory, is stopped, and so can neither go on nor let go.

Nothing is believed but the kernel: a number in a file may mean another process by now, or count in another container.

Source: Linux, proc(5): the state in /proc/<pid>/stat, the locks in /proc/locks; pidfd_open(2).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from gateway.data_dir import LOCK

#: Stopped by a signal, or by a debugger.
_STOPPED = frozenset({"T", "t"})


def kill_stopped_holder(folder: Path, pid: int) -> bool:
    """End the process when it is stopped and holds the lock of the directory; whether it was ended."""
    if sys.platform != "linux" or pid <= 0:
        return False
    try:
        handle = os.pidfd_open(pid)  # from here on the number cannot come to mean another process
    except OSError:
        return False
    try:
        if not (_is_stopped(pid) and _holds_lock(pid, folder)):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:  # it ended meanwhile, or is not ours to end
        return False
    else:
        return True
    finally:
        os.close(handle)


def _is_stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    return state in _STOPPED


def _holds_lock(pid: int, folder: Path) -> bool:
    """Lines are like ``1: FLOCK  ADVISORY  WRITE 708 08:01:13 0 EOF``; the device is spelled differently by some."""
    inode = str((folder / LOCK).stat().st_ino)
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[4] == str(pid) and words[5].rpartition(":")[2] == inode:
            return True
    return False

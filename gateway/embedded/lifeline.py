"""The worker ends when its parent does, however that ended.

Two lines, as each has a gap: the kernel's signal (Linux only; it is also sent when the *thread* that started the worker
ends) and the end of stdin (needs a pipe that nobody else inherited).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
_ORPHAN_EXIT_STATUS = 0


def end_with_parent() -> None:
    """Ask the kernel for SIGKILL at the parent's death, and watch stdin for its end."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # no such call in this libc: stdin alone must do
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_end_with_stdin, name="embedded-lifeline", daemon=True).start()


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    # Not sys.exit: the event loop may hang in a codec, and nobody is left to wait for a tidy end.
    os._exit(_ORPHAN_EXIT_STATUS)

"""Where a process may die: each commit, rename, sync, and each file or folder that is made or goes.

``watch`` counts them as they come by, and ends the process right before or right after the one that was chosen, as a
kill does: nothing is closed, nothing is said, no handler runs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine.default import DefaultDialect

#: What a process that met its point ends with.
DIED: Final = 77
#: Calls of the operating system that change what lies in a folder, or make it last.
CALLS: Final = ("rename", "replace", "unlink", "fsync", "mkdir", "rmdir", "utime")
OURS: Final = f"{os.sep}gateway{os.sep}"


@dataclass
class Points:
    """What came by.

    Args:
        fatal: the point to die at: its site, and which of that site's, from 0; None to live. Not its number among
            all, which the turns of the threads change a little.
        after: whether it takes effect first.
    """

    fatal: tuple[str, int] | None = None
    after: bool = False
    sites: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def passing(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                site = f"{kind} in {_site()}"
                is_fatal = (site, self.sites.count(site)) == self.fatal
                self.sites.append(site)
            if is_fatal and not self.after:
                os._exit(DIED)
            result = call(*arguments, **named)
            if is_fatal:
                os._exit(DIED)
            return result

        return counted


def watch(points: Points) -> None:
    """Have all points of this process come by from now on."""
    for name in CALLS:
        setattr(os, name, points.passing(name, getattr(os, name)))
    DefaultDialect.do_commit = points.passing("commit", DefaultDialect.do_commit)  # type: ignore[method-assign]


def _site() -> str:
    """The innermost function of the gateway's on the stack, and the module it stands in."""
    frame = sys._getframe(2)
    while frame is not None and OURS not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    return "?" if frame is None else f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"

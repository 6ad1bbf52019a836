"""How a run comes back, and whom it tells on the way: what passes between ``runner.py`` and whoever gives out work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto


class Ending(Enum):
    """How a run came back, for whoever gives out work."""

    #: The upstream saw it through, whatever became of it.
    SETTLED = auto()
    #: It ended, or waits again, and that says nothing of the upstream.
    WITHDRAWN = auto()
    #: It was not dispatched: this upstream cannot take this task.
    REFUSED = auto()
    #: It was not dispatched: something went wrong on the way there.
    UNPLACED = auto()
    #: It came back before it began, and waits again.
    GIVEN_BACK = auto()
    #: The attempt was lost there.
    LOST = auto()
    #: It was lost because nothing was heard of it for too long.
    SILENT = auto()
    #: It was lost because the upstream ran out of memory.
    OUT_OF_MEMORY = auto()
    #: The upstream saw it through, and we could not keep the result. It waits again.
    NOT_STORED = auto()


@dataclass(frozen=True, slots=True)
class Stages:
    """Whom to tell how far a run is."""

    #: It is off the queue; the next of its lane comes into the window.
    dispatched: Callable[[], None]
    #: The upstream is about to be done with it. May come never, or more than once.
    ending: Callable[[], None]
    #: The upstream is done with it, and its results are to be fetched. Does not come after a loss.
    ended: Callable[[], None]

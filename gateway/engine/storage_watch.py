"""What is done about object storage that is away: it is asked now and then, and results wait for it.

It is asked so that ``/health`` knows of an outage before somebody's files do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from gateway.errors import StorageUnreachableError
from gateway.interfaces import Blobs, Clock

#: Between two questions; one that is not answered takes half a minute beside.
PROBE_SECONDS: Final = 20.0
#: How long a result waits on its upstream for storage that takes nothing, before the work is done once more.
PATIENCE_SECONDS: Final = 900.0
LOOK_SECONDS: Final = 5.0
#: Fetching and cleaning a result anew costs too much for doing it every few seconds.
LOOKS: Final = 12
_WAITING: Final = "Waiting for the storage of files"

T = TypeVar("T")
log = structlog.get_logger(__name__)


class StorageWatch:
    """One loop.

    Args:
        blobs: what is asked.
        clock: time.
    """

    def __init__(self, blobs: Blobs, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock

    async def run(self) -> None:
        """Ask until canceled."""
        while True:
            await self._blobs.probe()
            await self._clock.sleep(PROBE_SECONDS)


async def once_storage_takes(
    work: Callable[[], Awaitable[T]], blobs: Blobs, clock: Clock, show: Callable[[str], Awaitable[None]]
) -> T:
    """What storing something comes to; where storage takes nothing, that is tried again for ``PATIENCE_SECONDS``.

    Args:
        work: fetches and stores it, and leaves nothing where it fails.
        blobs: say how storage is.
        clock: time.
        show: says what is waited for.

    Raises:
        StorageUnreachableError: it did not come back in that time.
    """
    began = clock.monotonic()
    while True:
        try:
            return await work()
        except StorageUnreachableError as error:
            if clock.monotonic() - began >= PATIENCE_SECONDS:
                raise
            log.warning("result_waits_for_storage", reason=error.reason)
        await show(_WAITING)
        await _may_be_back(blobs, clock)


async def _may_be_back(blobs: Blobs, clock: Clock) -> None:
    """Come back when it is, or soon: whether it takes files shows only when it is given some."""
    for _ in range(LOOKS):
        await clock.sleep(LOOK_SECONDS)
        if blobs.state().trouble is None:
            return

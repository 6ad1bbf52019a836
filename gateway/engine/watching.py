"""Keeps the templates that serve like those on disk: looks again and again, and has what changed read anew.

It looks instead of being told. A look at the shipped templates takes a tenth of a millisecond, and it works where the
kernel's notices do not come: on network drives, in folders mounted into a container, when the folder itself is replaced.

A template is read when two looks in a row found it alike, so what an editor has half written is left alone. An edit is
live a second after its last byte. What the new version is worth is for ``catalog.py`` to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from gateway.engine.catalog import Catalog
from gateway.engine.template_files import FOLDER, Mark, marks
from gateway.interfaces import Clock

log = structlog.get_logger(__name__)

#: Twice this, and the time to read it, until an edit is live.
LOOK_SECONDS: Final = 0.5


class TemplateWatch:
    """The watch over one catalog's folder; one loop."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._before: Mapping[str, Mark] = {}
        self._is_failing = False

    async def run(self) -> None:
        """Watch until canceled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
                self._is_failing = False
            # Not to be able to keep a version now is no reason to stop looking: what serves goes on serving.
            except Exception as error:
                if not self._is_failing:  # once, and not twice a second
                    log.error("templates_not_reloaded", exc_info=error)
                self._is_failing = True

    async def look(self) -> None:
        """Look once; have those read that changed since they were last read, and did not since the look before."""
        seen = await asyncio.to_thread(marks, self._catalog.folder)
        before, self._before = self._before, seen
        read = self._catalog.marks
        # Where the folder cannot be listed, nothing is known of what is in it.
        names = {FOLDER} if FOLDER in seen else seen.keys() | read.keys()
        settled = {name for name in names if seen.get(name) != read.get(name) and seen.get(name) == before.get(name)}
        if settled:
            await self._catalog.reload(settled)

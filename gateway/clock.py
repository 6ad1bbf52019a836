"""The real clock. Everything else gets its time from ``interfaces.Clock``."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Time as this machine has it."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Come back after ``seconds``."""
        await asyncio.sleep(seconds)

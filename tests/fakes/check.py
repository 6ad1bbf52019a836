"""A safety check that says what a test wants.

A "picture" is the few bytes of its input (``FakeMedia``): what holds ``bad`` scores 0.9, all else 0.1. Unrealistic: it takes
no time, unless ``gate`` is cleared.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.screening import CheckFailedError, Opinion, Pending

BAD, GOOD = 0.9, 0.1


class FakeCheck:
    """``interfaces.SafetyCheck``."""

    name = "model"

    def __init__(self) -> None:
        #: References of all pictures that it was shown.
        self.shown: list[str] = []
        #: Said instead of a score to the next pictures, one each.
        self.answers: list[Opinion | Pending | CheckFailedError] = []
        #: Nothing is said while it is not set.
        self.gate = asyncio.Event()
        self.gate.set()

    async def look(self, picture: Path, *, reference: str) -> Opinion | Pending:
        self.shown.append(reference)
        await self.gate.wait()
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, CheckFailedError):
                raise answer
            return answer
        return Opinion(BAD if b"bad" in picture.read_bytes() else GOOD)  # noqa: ASYNC240 - a few bytes

    async def close(self) -> None:
        pass

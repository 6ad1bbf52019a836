"""Waiting for other processes: short polls with a deadline, because nobody tells us when they are done."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

POLL_SECONDS = 0.02
#: Generous: a busy machine must not fail a test. A test that passes waits for what it wants, never for this.
PATIENCE_SECONDS = 120.0

T = TypeVar("T")


async def wait_until(
    ask: Callable[[], Awaitable[T] | T], *, what: str = "", patience_seconds: float = PATIENCE_SECONDS
) -> T:
    """The first true answer; AssertionError with the last one when none came in time."""
    deadline = time.monotonic() + patience_seconds
    while True:
        answer: Any = ask()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_seconds:.0f} s in vain for {what or ask}: {answer!r}")
        await asyncio.sleep(POLL_SECONDS)


def wait_until_now(ask: Callable[[], T], *, what: str = "", patience_seconds: float = PATIENCE_SECONDS) -> T:
    """``wait_until`` where there is no event loop: in fixtures."""
    deadline = time.monotonic() + patience_seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_seconds:.0f} s in vain for {what or ask}: {answer!r}")
        time.sleep(POLL_SECONDS)
    return answer

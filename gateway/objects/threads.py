"""Blocking work in threads, as a coroutine: what becomes of the thread when the caller is canceled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, TypeVar

R = TypeVar("R")


async def run_in(
    threads: Executor, work: Callable[..., R], *arguments: object, stopped: threading.Event | None = None
) -> R:
    """Do blocking work in a thread. With ``stopped``, a canceled caller has the thread stop, and waits for that."""
    running = asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stopped is None:
            running.add_done_callback(lambda done: done.cancelled() or done.exception())
        else:
            stopped.set()
            await ended(running)
        raise


async def ended(running: asyncio.Future[Any]) -> None:
    """Come back when a thread has ended its work, however often the caller is canceled meanwhile."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    if not running.cancelled():
        running.exception()  # nobody else asks for it

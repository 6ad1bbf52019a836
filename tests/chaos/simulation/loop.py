"""An event loop on virtual time: when nothing is ready, the clock jumps to the next timer.

No socket, no thread, no waiting. What the engine hands to threads runs at once, in the caller's thread. Tasks are
hashed by their number, so that sets of them are walked in the same order in every run. Where it is unrealistic: work
takes no time, only waiting does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

NOON = 1_750_248_000.0
#: Turns of the loop without time passing after which something runs in circles.
MAX_TURNS_AT_ONCE = 20_000
#: No world takes longer.
MAX_SECONDS = 5_000.0

#: The simulated process that a task belongs to: inherited by every task that it starts.
OWNER: ContextVar[Any] = ContextVar("owner", default=None)


class StuckLoopError(AssertionError):
    """Nothing is left that could ever happen, or the same goes on for ever at one moment."""


class SimulatedTask(asyncio.Task[Any]):
    """A task that knows its number and whose it is."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, **options: Any) -> None:
        self.number = next(loop.numbers)
        self.owner = OWNER.get()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their virtual times."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.errors: list[dict[str, Any]] = []
        self._now = 0.0
        self._turns_at_once = 0
        #: What goes on too long is only looked for while the world lives.
        self.is_ending = False
        self._selector = self
        self._clock_resolution = 1e-9
        self.set_task_factory(lambda loop, coro, **options: SimulatedTask(coro, loop=self, **options))
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._now

    # The loop asks its selector how long to wait: here waiting is what moves the clock.

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise StuckLoopError("nothing is left that could happen")
        if timeout > 0:
            self._now = max(self._now + timeout, self._scheduled[0]._when)
            self._turns_at_once = 0
        self._turns_at_once += 1
        if self._now > MAX_SECONDS and not self.is_ending:
            raise StuckLoopError(f"nothing has come of it in {MAX_SECONDS:.0f} s")
        if self._turns_at_once > MAX_TURNS_AT_ONCE:
            raise StuckLoopError(f"{MAX_TURNS_AT_ONCE} turns of the loop and no time has passed")
        return []

    def _process_events(self, _: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, as from a thread
            done.set_exception(error)
        return done


class VirtualClock:
    """``interfaces.Clock`` on the running virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return NOON + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

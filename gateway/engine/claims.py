"""Requests that are done once: one leader per key, everybody else waits for its answer.

Within this process the leader is whoever comes first; in the store it holds a claim, for another process and for the
one after a crash. It renews the claim while it works, and lets go of it when it fails, so that the next can try.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog

from gateway.errors import (
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    IdempotencyReuseError,
    ShuttingDownError,
)
from gateway.idempotency import HEADER, RENEW_SECONDS, Answer, Claim, Free, Wanted
from gateway.interfaces import ClaimStore, Clock

log = structlog.get_logger(__name__)

#: How often a claim of another process is looked at: nobody here is told when it is done.
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Done:
    """What a request led to."""

    answer: Answer
    #: The answer is that of an earlier request.
    is_replay: bool


class Claims:
    """See the module.

    Args:
        store: where claims lie.
        clock: for leases, and for how long one waits.
        new_token: makes tokens, each one of its kind.
    """

    def __init__(self, store: ClaimStore, clock: Clock, new_token: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_token = new_token
        #: Set when the leader has left.
        self._leaders: dict[Wanted, asyncio.Event] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    async def once(
        self,
        wanted: Wanted,
        make: Callable[[Claim], Awaitable[Answer]],
        *,
        room: Callable[[], AbstractContextManager[None]],
        until: float,
    ) -> Done:
        """The answer to a request that is done once.

        Args:
            wanted: whose key, and what for.
            make: does it. Its job is stored with the claim in its promise, and the answer is that promise's; when it
                raises, the claim is free again.
            room: entered by whoever does it, not by those who wait.
            until: monotonic seconds; nobody waits for longer.

        Raises:
            IdempotencyMismatchError: the key was used for something else.
            IdempotencyInFlightError: the first one had no answer in time.
            GatewayError: what ``room`` and ``make`` raise.
        """
        while True:
            found = await self._store.look(wanted, now=self._clock.now())
            if isinstance(found, Answer):
                return Done(found, is_replay=True)
            leader = self._leaders.get(wanted)
            if leader is None and isinstance(found, Free):
                answer = await self._lead(wanted, make, room)
                if answer is not None:
                    return Done(answer, is_replay=False)
                continue
            await self._wait(leader, until)

    async def require_unused(self, wanted: Wanted) -> None:
        """Refuse a key that ``single`` would refuse, before much is done for it. Raises IdempotencyReuseError."""
        with _reuse_told():
            if not isinstance(await self._store.look(wanted, now=self._clock.now()), Free):
                raise _reused()

    @asynccontextmanager
    async def single(self, wanted: Wanted) -> AsyncIterator[Claim]:
        """The claim of a key that is good for one request: nobody waits for it, no answer is told again.

        It is used up by whatever is stored with it (a promise, an upload); else it is free again when the block raises,
        and soon after the process is killed in it.

        Raises:
            IdempotencyReuseError: on entering: it is used up, or another request is at work with it.
        """
        with _reuse_told():
            async with self._holding(wanted) as claim:
                if claim is None:
                    raise _reused()
                yield claim

    async def _lead(
        self,
        wanted: Wanted,
        make: Callable[[Claim], Awaitable[Answer]],
        room: Callable[[], AbstractContextManager[None]],
    ) -> Answer | None:
        """Do it; None when somebody outside this process was faster."""
        # Nothing is awaited between the look at the leaders and this: there is one.
        left = self._leaders[wanted] = asyncio.Event()
        try:
            with room():
                async with self._holding(wanted) as claim:
                    return None if claim is None else await make(claim)
        finally:
            del self._leaders[wanted]
            left.set()

    @asynccontextmanager
    async def _holding(self, wanted: Wanted) -> AsyncIterator[Claim | None]:
        """A claim for the length of the block; kept when the block succeeds, released when it does not."""
        claim = Claim(wanted, self._new_token())
        try:
            found = await self._store.claim(wanted, claim.token, now=self._clock.now())
            if not isinstance(found, Free):
                yield None
                return
            renewing = asyncio.create_task(self._renew(claim), name="renew idempotency claim")
            try:
                yield claim
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
        except BaseException:
            # Also when the caller left while the claim was being written: nobody knows then whether it was.
            await self._release(claim)
            raise

    async def _renew(self, claim: Claim) -> None:
        while True:
            await self._clock.sleep(RENEW_SECONDS)
            if not await self._store.renew(claim, now=self._clock.now()):
                log.warning("claim_lost", scope=claim.wanted.scope)
                return

    async def _release(self, claim: Claim) -> None:
        """Done to the end even when the caller is being canceled."""

        async def release() -> None:
            try:
                await self._store.release(claim)
            except ShuttingDownError:
                return  # nothing can be stored any more; its lease ends by itself

        task = asyncio.create_task(release(), name="release idempotency claim")
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what callers that left have begun."""
        await asyncio.gather(*self._releasing, return_exceptions=True)

    async def _wait(self, leader: asyncio.Event | None, until: float) -> None:
        """Until the leader has left, or for a while where it is none of ours."""
        left_seconds = until - self._clock.monotonic()
        if left_seconds <= 0:
            raise IdempotencyInFlightError(
                f"The first request with this {HEADER} is still at work.", retry_after_seconds=1
            )
        if leader is None:
            await self._clock.sleep(min(LOOK_SECONDS, left_seconds))
            return
        waits = asyncio.create_task(leader.wait(), name="wait for idempotency leader")
        sleeps = asyncio.create_task(self._clock.sleep(left_seconds), name="idempotency time-out")
        try:
            await asyncio.wait({waits, sleeps}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waits.cancel()
            sleeps.cancel()
            await asyncio.gather(waits, sleeps, return_exceptions=True)

    async def sweep(self) -> int:
        """Forget those past their time; how many."""
        number = 0
        while swept := await self._store.sweep(now=self._clock.now()):
            number += swept
        return number


@contextmanager
def _reuse_told() -> Iterator[None]:
    """Of a key that is good for one request it does not matter what it was used for."""
    try:
        yield
    except IdempotencyMismatchError as error:
        raise _reused() from error


def _reused() -> IdempotencyReuseError:
    return IdempotencyReuseError(f"This {HEADER} was used before; each is good for one request.", field=HEADER)

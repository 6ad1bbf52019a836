"""Empties the outbox of webhooks: sends what is due, keeps what came of it, and lets nobody wait for the dead.

One loop looks for what is due and starts one task per attempt. An endpoint that does not answer takes two places at most,
its owner a quarter of all, and a host that failed several times in a row gets one message at a time, after a rest
(``outbox.HostBreaker``); so whoever answers is asked at once, whatever others do.

An attempt is made only while the data directory is ours: a gateway that was taken over sends nothing. It is written when
it is over. A process that is killed in between sends the same message again, under the same id.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import structlog

from gateway.engine.errands import AGAIN_SECONDS, TICK_SECONDS, Hosts, Rounds
from gateway.engine.webhook_secrets import WebhookSecrets
from gateway.errors import BusyError, ShuttingDownError
from gateway.interfaces import Clock, Store, WebhookSender
from gateway.job import Job
from gateway.outbox import Answer, Delivery, Message, Reason, judge

log = structlog.get_logger(__name__)

#: Attempts under way at once: sockets that wait, mostly.
MAX_UNDER_WAY: Final = 512
MAX_PER_OWNER: Final = MAX_UNDER_WAY // 4
MAX_PER_ENDPOINT: Final = 2
#: Endpoints looked at in one go.
WINDOW: Final = 64
#: To hosts whose last attempt failed, all together.
MAX_DOUBTED: Final = 64

Tell = Callable[[Job], bytes]
"""A job's message, as bytes."""


class Courier:
    """The outbox's motor. ``run`` until ``stop``.

    Args:
        store: where the outbox is.
        sender: carries one message.
        secrets: what messages are signed with.
        clock: time.
        tell: makes the body of a job's message.
        may_act: comes back while the data directory is ours. Raises BusyError, ShuttingDownError.
        chance: gives a number from 0 to 1.
    """

    def __init__(
        self,
        store: Store,
        sender: WebhookSender,
        secrets: WebhookSecrets,
        clock: Clock,
        *,
        tell: Tell,
        may_act: Callable[[], Awaitable[None]],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._sender = sender
        self._secrets = secrets
        self._clock = clock
        self._tell = tell
        self._may_act = may_act
        self._chance = chance
        self._rounds = Rounds(clock, "webhook", self._round)
        self._under_way: dict[str, tuple[Message, asyncio.Task[None]]] = {}
        #: By host and port.
        self._hosts = Hosts(clock)

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._rounds.wake()

    async def run(self) -> None:
        """Send what is due until stopped."""
        await self._rounds.run()

    async def stop(self) -> None:
        """Break off what is under way; it is sent again by whoever comes next."""
        self._rounds.stop()
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -------------------------------------------------------------------------------------------------------- one round

    async def _round(self) -> float:
        """Start what is due; seconds until there is something to look for."""
        while len(self._under_way) < MAX_UNDER_WAY:
            found = await self._store.webhooks.due(
                now=self._clock.now(),
                without_owners=self._full_owners(),
                # What is under way is still due: it must not take the places of what is not, nor be looked at each time
                # that another attempt ends. What is new for its endpoint waits until that attempt is over.
                without_endpoints=self._busy_endpoints(),
                limit=WINDOW,
                each=MAX_PER_ENDPOINT,
            )
            if not sum([await self._take(message) for message in found]):
                break
        at = await self._store.webhooks.next_due(
            without_owners=self._full_owners(), without_endpoints=self._busy_endpoints()
        )
        return TICK_SECONDS if at is None else min(max(at - self._clock.now(), 0.0), TICK_SECONDS)

    async def _take(self, message: Message) -> bool:
        """Start an attempt, or let its endpoint be; whether anything has changed by that."""
        if message.id in self._under_way:
            return False
        if len(self._under_way) >= MAX_UNDER_WAY or message.owner in self._full_owners():
            return False
        host = host_of(message.url)
        until = self._resting_until(host)
        if until is not None:
            await self._store.webhooks.postpone(message.endpoint, until=self._clock.now() + until)
            return True
        task = asyncio.create_task(self._attempt(message, host), name=f"webhook to {host}")
        self._under_way[message.id] = (message, task)
        return True

    def _busy_endpoints(self) -> set[int]:
        return {message.endpoint for message, _ in self._under_way.values()}

    def _full_owners(self) -> set[str]:
        counts = Counter(message.owner for message, _ in self._under_way.values())
        return {owner for owner, count in counts.items() if count >= MAX_PER_OWNER}

    def _resting_until(self, host: str) -> float | None:
        """Seconds for which a host gets nothing; None when it may be asked now."""
        if host not in self._hosts:
            return None
        asked = [host_of(message.url) for message, _ in self._under_way.values()]
        if (until := self._hosts.resting_until(host, asked)) is not None:
            return until
        is_crowded = sum(other in self._hosts for other in asked) >= MAX_DOUBTED
        return AGAIN_SECONDS if is_crowded else None

    # ------------------------------------------------------------------------------------------------------ one attempt

    async def _attempt(self, message: Message, host: str) -> None:
        try:
            answer = await self._send(message)
            if answer is not None:
                self._note(host, answer)
                await self._record(message, host, answer)
        except ShuttingDownError:
            self._rounds.stop()  # taken over: whoever has the outbox now sends it
        except BusyError:
            await self._clock.sleep(AGAIN_SECONDS)
        except Exception as error:  # a task's edge: what is wrong with one message must not end the loop
            log.error("webhook_failed", host=host, exc_info=error)
            await self._clock.sleep(AGAIN_SECONDS)
        finally:
            self._under_way.pop(message.id, None)
            self._rounds.wake()

    async def _send(self, message: Message) -> Answer | None:
        """What came of it; None when there is nothing to be told any more."""
        job = await self._store.job(message.job_id)
        if job is None:
            return None
        try:
            body = self._tell(job)
        except Exception as error:  # else it would be due at once again, for ever
            log.error("webhook_body_failed", dialect=job.dialect, exc_info=error)
            return Answer(Reason.INTERNAL)
        secrets = await self._secrets.of(message.account)
        await self._may_act()
        return await self._sender.send(Delivery(message.url, message.id, int(self._clock.now()), body, secrets))

    def _note(self, host: str, answer: Answer) -> None:
        if answer.is_fault:
            self._hosts.fault(host)
        elif answer.status is not None:
            self._hosts.answered(host)

    async def _record(self, message: Message, host: str, answer: Answer) -> None:
        now = self._clock.now()
        verdict = judge(message.attempts, answer, now, self._chance)
        is_new = await self._store.webhooks.record(message, answer, verdict, now=now)
        log.info(
            "webhook_attempt",
            host=host,
            attempt=message.attempts + 1,
            outcome=answer.reason.value,
            status=answer.status,
            then=type(verdict).__name__.lower() if is_new else "nothing",
        )


def host_of(url: str) -> str:
    """Host and port of a URL, for the log and the breaker; its path and query may be secrets."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return ""
    return f"{parts.hostname or ''}:{port}"

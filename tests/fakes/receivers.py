"""Receivers of webhooks that do what a test says, and secrets that lie open.

Unrealistic: nothing is signed, resolved or dialled; a black hole is one whose attempt ends when the test's clock says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from gateway.engine.webhook_secrets import NewSecret, WebhookSecrets
from gateway.engine.webhooks import Webhooks
from gateway.errors import NotFoundError
from gateway.interfaces import Clock, Store, WebhookSender
from gateway.outbox import Answer, Delivery, Message, MessageState, Reason

OK = Answer(Reason.ANSWERED, 204)
DOWN = Answer(Reason.UNREACHABLE)
TIMEOUT_SECONDS = 20.0


class PlainSealer:
    def seal(self, account: str, secret: bytes) -> bytes:
        return account.encode() + b":" + secret

    def open(self, account: str, sealed: bytes) -> bytes | None:
        name, _, secret = sealed.partition(b":")
        return secret if name == account.encode() else None


def webhooks_of(store: Store, clock: Clock, sender: WebhookSender) -> Webhooks:
    """The owners' side, with no courier behind it."""
    secrets = WebhookSecrets(store.webhooks, PlainSealer(), clock, lambda size: b"s" * size)
    return Webhooks(store.webhooks, secrets, sender, clock, lambda: "1", on_message=lambda: None)


class FakeWebhooks:
    """The engine's ``Webhooks`` in memory, for the windows: what a test puts in, and what it was asked."""

    def __init__(self) -> None:
        self.stored: list[Message] = []
        self.tried: list[tuple[str, str, str, bytes]] = []
        self.answer = OK
        self.accounts: list[str] = []

    async def messages(
        self, owner: str, *, state: MessageState | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[Message]:
        mine = [one for one in self.stored if one.owner == owner and state in {None, one.state}]
        start = 0 if before is None else [one.id for one in mine].index(before) + 1
        return mine[start : start + limit]

    async def redeliver(self, message_id: str, owner: str) -> Message:
        for number, one in enumerate(self.stored):
            if (one.id, one.owner) == (message_id, owner):
                self.stored[number] = replace(one, state=MessageState.PENDING, attempts=0, next_at=1.0)
                return self.stored[number]
        raise NotFoundError("There is no such message.", field="id")

    async def test(self, owner: str, account: str, url: str, body: Callable[[float], bytes]) -> tuple[str, Answer]:
        self.tried.append((owner, account, url, body(1_750_248_000.0)))
        return "msg_test_1", self.answer

    async def new_secret(self, account: str) -> NewSecret:
        self.accounts.append(account)
        return NewSecret("whsec_c2VjcmV0", None if len(self.accounts) == 1 else 1_750_248_000.0)


class Receivers:
    """``interfaces.WebhookSender``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: (seconds since the clock's beginning, delivery), when each attempt began.
        self.asked: list[tuple[float, Delivery]] = []
        #: By host, what it answers from now on; the last one stays.
        self.script: dict[str, list[Answer]] = {}
        self.black_holes: set[str] = set()
        self.timed_out = 0
        self.most_under_way = 0
        self._under_way = 0
        #: Raised by ``may_act``.
        self.refusal: Exception | None = None

    async def may_act(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def send(self, delivery: Delivery) -> Answer:
        host = urlsplit(delivery.url).hostname or ""
        self.asked.append((self._clock.monotonic(), delivery))
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            if host in self.black_holes:
                await self._clock.sleep(TIMEOUT_SECONDS)
                self.timed_out += 1
                return Answer(Reason.TIMED_OUT)
            answers = self.script.get(host, [OK])
            return answers.pop(0) if len(answers) > 1 else answers[0]
        finally:
            self._under_way -= 1

    def times(self, host: str) -> list[float]:
        return [at for at, delivery in self.asked if urlsplit(delivery.url).hostname == host]

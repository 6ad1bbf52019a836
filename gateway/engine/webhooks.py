"""What owners may ask about their webhooks: what was told and what was not, once more, try it, a new secret."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.engine.webhook_secrets import NewSecret, WebhookSecrets
from gateway.errors import NotFoundError
from gateway.interfaces import Clock, WebhookSender, WebhookStore
from gateway.outbox import Answer, Delivery, Message, MessageState


class Webhooks:
    """The owners' side of the outbox.

    Args:
        store: the outbox.
        secrets: what signs.
        sender: carries a trial.
        clock: time.
        new_id: makes ids.
        on_message: called when there is something to be sent.
    """

    def __init__(
        self,
        store: WebhookStore,
        secrets: WebhookSecrets,
        sender: WebhookSender,
        clock: Clock,
        new_id: Callable[[], str],
        *,
        on_message: Callable[[], None],
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._sender = sender
        self._clock = clock
        self._new_id = new_id
        self._on_message = on_message

    async def messages(
        self, owner: str, *, state: MessageState | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[Message]:
        """An owner's messages, newest first; none where ``before`` is none of theirs."""
        return await self._store.messages(owner, state=state, before=before, limit=limit)

    async def redeliver(self, message_id: str, owner: str) -> Message:
        """Have a message sent again, now and by the schedule from its beginning, under its id. Raises NotFoundError."""
        message = await self._store.redeliver(message_id, owner, now=self._clock.now())
        if message is None:
            raise NotFoundError("There is no such message.", field="id")
        self._on_message()
        return message

    async def test(self, owner: str, account: str, url: str, body: Callable[[float], bytes]) -> tuple[str, Answer]:
        """One attempt with a message that means nothing; its id, and what came of it.

        Nothing is kept of it; but an endpoint that takes it is one again, had it answered 410 before.

        Args:
            owner: whose endpoint it is.
            account: whose secret signs.
            url: judged.
            body: makes the message of a time (Unix seconds).
        """
        message_id = f"msg_test_{self._new_id()}"
        now = self._clock.now()
        signing = await self._secrets.of(account)
        answer = await self._sender.send(Delivery(url, message_id, int(now), body(now), signing))
        if answer.is_success:
            await self._store.enable(owner, url)
        return message_id, answer

    async def new_secret(self, account: str) -> NewSecret:
        """A new secret, told this once; the one before it signs for a day more. Raises ConflictError."""
        return await self._secrets.rotate(account)

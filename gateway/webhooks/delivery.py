"""One attempt: a signed POST to a URL, through the guard that is handed in (``interfaces.Sender``), within one deadline."""

from __future__ import annotations

from typing import Final

from gateway.errors import SourceUnreachableError
from gateway.interfaces import Outgoing, Sender
from gateway.outbox import Answer, Delivery, Reason
from gateway.webhooks.signature import headers_of

#: Between the 15 and the 30 s that the specification asks a sender to wait.
DEADLINE_SECONDS: Final = 20.0


class Deliverer:
    """Carries messages.

    Args:
        sender: carries them, guarded.
        deadline_seconds: for the whole of an attempt.
    """

    def __init__(self, sender: Sender, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._sender = sender
        self._deadline_seconds = deadline_seconds

    async def send(self, delivery: Delivery) -> Answer:
        """One attempt; what came of it. A refused place and one that does not answer are told alike."""
        outgoing = Outgoing(
            "POST",
            delivery.url,
            "application/json",
            len(delivery.body),
            delivery.body,
            patience_seconds=self._deadline_seconds,
            deadline_seconds=self._deadline_seconds,
            fields=headers_of(delivery),
        )
        try:
            heard = await self._sender.send(outgoing)
        except TimeoutError:
            return Answer(Reason.TIMED_OUT)
        except SourceUnreachableError:
            return Answer(Reason.UNREACHABLE)
        return Answer(Reason.ANSWERED, heard.status, heard.retry_after_seconds)

"""What users' webhooks are signed with: made when first needed, told when asked for, rotated without a gap."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.interfaces import Clock, Sealer, WebhookStore
from gateway.outbox import SealedSecret

log = structlog.get_logger(__name__)

#: Within the 24 to 64 bytes of the specification.
SECRET_BYTES: Final = 32
#: How long a secret signs beside the one that came after it.
OVERLAP_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret, told this once."""

    #: As receivers' libraries take it.
    text: str
    #: Unix seconds: until then the one before it signs too; None when there was none that anybody could know.
    previous_until: float | None

    def __repr__(self) -> str:
        """Without the text, wherever it may be printed."""
        return "NewSecret(…)"


class WebhookSecrets:
    """Every account's.

    Args:
        store: where they are kept.
        sealer: makes them unreadable there.
        clock: for how long old ones sign.
        random_bytes: makes them; tests hand in their own.
    """

    def __init__(
        self,
        store: WebhookStore,
        sealer: Sealer,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._random_bytes = random_bytes

    async def of(self, account: str) -> tuple[bytes, ...]:
        """What an account's messages are signed with now, newest first: one at least, made if need be.

        One that nobody was told is of use all the same: it signs on beside the first that is asked for.
        """
        known = self._opened(account, await self._store.secrets(account, now=self._clock.now()))
        if known:
            return known
        await self._add(account, old_until=None)
        known = self._opened(account, await self._store.secrets(account, now=self._clock.now()))
        if known:
            return known
        # There are some, and the key that opens them is gone: they are worth nothing to anybody any more.
        log.error("webhook_secrets_unreadable", remedy="restore the file webhook-key, or ask for new secrets")
        return (await self._add(account, old_until=self._clock.now()))[:1]

    async def rotate(self, account: str) -> NewSecret:
        """A new secret; the one before it signs beside it for a day. Raises ConflictError when too many sign already."""
        now = self._clock.now()
        had_some = bool(await self._store.secrets(account, now=now))
        known = await self._add(account, old_until=now + OVERLAP_SECONDS)
        log.info("webhook_secret_made", account=account, signing=len(known))
        text = "whsec_" + base64.b64encode(known[0]).decode()
        return NewSecret(text, now + OVERLAP_SECONDS if had_some else None)

    async def _add(self, account: str, *, old_until: float | None) -> tuple[bytes, ...]:
        sealed = self._sealer.seal(account, self._random_bytes(SECRET_BYTES))
        kept = await self._store.add_secret(account, sealed, old_until=old_until, now=self._clock.now())
        return self._opened(account, kept)

    def _opened(self, account: str, kept: Sequence[SealedSecret]) -> tuple[bytes, ...]:
        opened = (self._sealer.open(account, one.sealed) for one in kept)
        return tuple(secret for secret in opened if secret is not None)

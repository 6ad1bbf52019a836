"""Idempotency keys: how they are spelled, what counts as the same request, and what a stored claim means.

The first request with a key **claims** it before it does anything. The claim is *in flight* under a lease that its
holder renews, and becomes *done*, with the answer, in the transaction that creates the job. Whoever comes later with
the same request gets that answer, waits for it, or takes a claim over whose holder died: its lease ran out, and the
**token** of the new holder keeps the old one from ever storing anything.

Sources: draft-ietf-httpapi-idempotency-key-header-07 (expired), whose value is an RFC 9651 string; a bare token is
taken as well, because documented clients send one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from gateway.accounts import may_hold_a_key
from gateway.errors import IdempotencyMismatchError, InvalidInputError
from gateway.strictjson import JsonValue

HEADER: Final = "Idempotency-Key"
#: How long a claim holds that nobody renews: what a kill costs the next try.
LEASE_SECONDS: Final = 60.0
#: How often its holder renews it: two renewals may be late.
RENEW_SECONDS: Final = 20.0
#: How long an answer is replayed.
RETENTION_SECONDS: Final = 86_400.0

#: 1 to 64 visible ASCII characters without those that an RFC 9651 string would have to escape.
KEY: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants done once."""

    #: Whose key it is; the same key of another is another.
    scope: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do it."""

    wanted: Wanted
    #: Of one kind, so that a holder that was taken over can store nothing any more.
    token: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is stored, and told again to whoever repeats the request."""

    status: int
    body: bytes
    #: The job that was made.
    job_id: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A claim as it lies in the store."""

    fingerprint: str
    token: str
    #: Unix seconds, by the clock of the one who wrote it.
    lease_until: float
    expires_at: float
    #: None while it is in flight.
    answer: Answer | None


class Free(Enum):
    """Nobody has claimed it, or nobody who lives."""

    FREE = "free"


@dataclass(frozen=True, slots=True)
class InFlight:
    """Somebody is at it."""

    #: After so long without a word the claim can be taken over.
    lease_seconds: float


Standing: TypeAlias = Free | InFlight | Answer


def key_of(values: Sequence[str]) -> str | None:
    """The key that a request's ``Idempotency-Key`` headers say; None when there are none.

    ``k`` and ``"k"`` are the same key.

    Raises:
        InvalidInputError: there are several, or the one is malformed, or an API key by mistake.
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInputError(f"The request has more than one {HEADER} header.", field=HEADER)
    text = values[0].strip(" \t")
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if not KEY.fullmatch(inner):
        raise InvalidInputError(
            f"{HEADER} takes 1 to 64 visible ASCII characters other than quotes and backslashes.", field=HEADER
        )
    if may_hold_a_key(inner):
        raise InvalidInputError(f"{HEADER} holds an API key, and what it holds is stored: send another.", field=HEADER)
    return inner


def fingerprint(method: str, route: str, body: JsonValue) -> str:
    """What makes two requests the same: method, route and what the body says, not how it is written.

    Args:
        method: in capitals.
        route: the path as it was asked, without the query; how long a client waits is no part of what it asks for.
        body: read strictly, so that it has one meaning.
    """
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{method}\n{route}\n{canonical}".encode()).hexdigest()


def standing(stored: Stored | None, wanted: Wanted, now: float) -> Standing:
    """What a stored claim means for somebody who wants this now.

    Raises:
        IdempotencyMismatchError: the key was used for something else.
    """
    if stored is None or stored.expires_at <= now:
        return Free.FREE
    left = stored.lease_until - now
    # More than a lease can be left only after the clock was put back; without this it would be in flight for that long.
    if stored.answer is None and not 0 < left <= LEASE_SECONDS:
        return Free.FREE
    if stored.fingerprint != wanted.fingerprint:
        raise IdempotencyMismatchError(f"This {HEADER} was used before, for another request.", field=HEADER)
    return InFlight(left) if stored.answer is None else stored.answer

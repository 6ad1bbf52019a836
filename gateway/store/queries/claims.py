"""Claims of idempotency keys: made before anything else is done, done in the transaction that creates the job.

What a stored claim means is decided by ``gateway/idempotency.py``.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, select, text, tuple_, update

from gateway.errors import IdempotencyInFlightError
from gateway.idempotency import (
    LEASE_SECONDS,
    RETENTION_SECONDS,
    Answer,
    Claim,
    Free,
    Standing,
    Stored,
    Wanted,
    standing,
)
from gateway.store.queries import BATCH_ROWS, by_dialect, change
from gateway.store.schema_credits import IS_IN_FLIGHT, claims


def look(connection: Connection, wanted: Wanted, now: float) -> Standing:
    """What became of this key. Raises IdempotencyMismatchError when it was used for something else."""
    row = connection.execute(_CLAIM, {"scope_": wanted.scope, "key_": wanted.key}).one_or_none()
    if row is None:
        return Free.FREE
    answer = None if row.status is None else Answer(row.status, bytes(row.body), row.job_id)
    return standing(Stored(row.fingerprint, row.token, row.lease_until, row.expires_at, answer), wanted, now)


def claim(connection: Connection, wanted: Wanted, token: str, now: float) -> Standing:
    """Take the key if it is free, under ``token``; else what became of it, and nothing was changed.

    Raises:
        IdempotencyMismatchError: it was used for something else.
    """
    found = look(connection, wanted, now)
    if found is Free.FREE:
        values = {
            "scope": wanted.scope,
            "key": wanted.key,
            "fingerprint": wanted.fingerprint,
            "token": token,
            "lease_until": now + LEASE_SECONDS,
            "expires_at": now + RETENTION_SECONDS,
            "status": None,
            "body": None,
            "job_id": None,
        }
        change(connection, _PUT[connection.dialect.name], values)
    return found


def renew(connection: Connection, held: Claim, now: float) -> bool:
    """Hold it for one more lease; False when it is no longer ours."""
    values = {"lease_until": now + LEASE_SECONDS}
    return connection.execute(_CHANGE, _ours(held) | values).rowcount == 1


def finish(connection: Connection, held: Claim, answer: Answer, now: float) -> None:
    """Keep the answer, in the transaction that creates the job.

    Raises:
        IdempotencyInFlightError: somebody else has taken it over; nothing may be created.
    """
    values = {
        "status": answer.status,
        "body": answer.body,
        "job_id": answer.job_id,
        "expires_at": now + RETENTION_SECONDS,
    }
    if connection.execute(_CHANGE, _ours(held) | values).rowcount != 1:
        raise IdempotencyInFlightError(
            "Another request with this Idempotency-Key has taken over from this one.", retry_after_seconds=1
        )


def release(connection: Connection, held: Claim) -> None:
    """Let go of it after a failure. What is done, or somebody else's, stays."""
    change(connection, _RELEASE, _ours(held))


def sweep(connection: Connection, now: float) -> int:
    """Forget a batch of those past their time; how many."""
    return connection.execute(_SWEEP, {"now": now}).rowcount


def _ours(held: Claim) -> dict[str, object]:
    return {"scope_": held.wanted.scope, "key_": held.wanted.key, "token_": held.token}


_IS_KEY = (claims.c.scope == bindparam("scope_")) & (claims.c.key == bindparam("key_"))
_IS_OURS = _IS_KEY & (claims.c.token == bindparam("token_")) & text(IS_IN_FLIGHT)
_CLAIM = select(claims).where(_IS_KEY)
_PUT = by_dialect(
    lambda insert_into: (new := insert_into(claims)).on_conflict_do_update(
        index_elements=["scope", "key"],
        set_={
            name: getattr(new.excluded, name)
            for name in ("fingerprint", "token", "lease_until", "expires_at", "status", "body", "job_id")
        },
    )
)
# The columns to set are those of the values handed in.
_CHANGE = update(claims).where(_IS_OURS)
_RELEASE = delete(claims).where(_IS_OURS)
_OLD = (
    select(claims.c.scope, claims.c.key)
    .where(claims.c.expires_at <= bindparam("now"))
    .order_by(claims.c.expires_at)
    .limit(BATCH_ROWS)
)
_SWEEP = delete(claims).where(tuple_(claims.c.scope, claims.c.key).in_(_OLD))

"""The outbox of webhooks: written in the transaction that ends a job, emptied by ``gateway/engine/courier.py``.

``gateway/outbox.py`` decides what follows from an attempt. An endpoint knows when the first of its messages is due, so
that one with a hundred thousand messages waiting takes one place in the look for what to do next, as any other does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import assert_never

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, insert, or_, select, text, update

from gateway.errors import ConflictError
from gateway.job import Job
from gateway.outbox import (
    FIELD,
    KINDS,
    Again,
    Answer,
    Dead,
    Delivered,
    Message,
    MessageState,
    Reason,
    SealedSecret,
    Verdict,
    message_id,
)
from gateway.store.queries import BATCH_ROWS, by_dialect, change
from gateway.store.rows import AnyRow, Values
from gateway.store.schema_accounts import api_keys
from gateway.store.schema_webhooks import IS_DUE_SOME_TIME, IS_PENDING, webhook_endpoints, webhook_messages
from gateway.store.schema_webhooks import webhook_secrets as secrets_table

#: Secrets that sign at a time: the newest, and those before it whose time is not over.
MAX_SECRETS = 4


def post(connection: Connection, job: Job, now: float) -> None:
    """Leave the message of a job that ends, when it wants one: in the transaction that ends it."""
    url = job.extra.get(FIELD)
    if not isinstance(url, str):
        return
    change(connection, _MEET[connection.dialect.name], {"owner": job.owner, "url": url, "next_at": now})
    endpoint = connection.execute(_ENDPOINT, {"owner_": job.owner, "url_": url}).one()
    is_disabled = endpoint.disabled_at is not None
    message = {
        "id": message_id(job.id),
        "endpoint": endpoint.id,
        "owner": job.owner,
        "job_id": job.id,
        "kind": KINDS[job.state],
        "state": (MessageState.DEAD if is_disabled else MessageState.PENDING).value,
        "attempts": 0,
        "next_at": None if is_disabled else now,
        "created_at": now,
        "reason": Reason.DISABLED.value if is_disabled else None,
    }
    change(connection, _ADD, message)


# ----------------------------------------------------------------------------------------------------------- the courier


def due(
    connection: Connection,
    now: float,
    without_owners: Collection[str],
    without_endpoints: Collection[int],
    limit: int,
    each: int,
) -> Sequence[Message]:
    """What is due: at most ``each`` messages of at most ``limit`` endpoints, those that have waited longest first."""
    which = {"now": now, "limit": limit, "owners": sorted(without_owners), "endpoints": sorted(without_endpoints)}
    found: list[Message] = []
    for endpoint in connection.execute(_DUE_ENDPOINTS, which).all():
        rows = connection.execute(_HEADS, {"endpoint_": endpoint.id, "now": now, "each": each})
        found += [_message(row) for row in rows]
    return found


def next_due(
    connection: Connection, without_owners: Collection[str], without_endpoints: Collection[int]
) -> float | None:
    """When something is due that does not belong to these; None when nothing will be."""
    which = {"owners": sorted(without_owners), "endpoints": sorted(without_endpoints)}
    return connection.execute(_NEXT, which).scalar_one_or_none()


def record(connection: Connection, message: Message, answer: Answer, verdict: Verdict, now: float) -> bool:
    """Write what came of an attempt; False when the message has moved on since it was read: then no row changed."""
    values: Values = {
        "wanted": message.id,
        "seen": message.attempts,
        "attempts": message.attempts + 1,
        "last_at": now,
        "last_status": answer.status,
        "reason": answer.reason.value,
        "next_at": None,
    }
    match verdict:
        case Delivered():
            values["state"] = MessageState.DELIVERED.value
        case Again():
            values["state"] = MessageState.PENDING.value
            values["next_at"] = verdict.at
        case Dead():
            values["state"] = MessageState.DEAD.value
        case _:
            assert_never(verdict)
    if connection.execute(_ATTEMPTED, values).rowcount != 1:
        return False
    if isinstance(verdict, Dead) and verdict.disables_endpoint:
        _disable(connection, message.endpoint, now)
    _set_next(connection, message.endpoint)
    return True


def postpone(connection: Connection, endpoint: int, until: float) -> None:
    """Let an endpoint be until a time; its messages keep theirs."""
    connection.execute(_POSTPONE, {"wanted": endpoint, "until": until})


def _disable(connection: Connection, endpoint: int, now: float) -> None:
    connection.execute(_DISABLE_MESSAGES, {"wanted": endpoint})
    connection.execute(_DISABLE, {"wanted": endpoint, "at": now})


def _set_next(connection: Connection, endpoint: int) -> None:
    connection.execute(_SET_NEXT, {"wanted": endpoint})


# -------------------------------------------------------------------------------------------------------------- the owner


def messages(
    connection: Connection, owner: str, state: MessageState | None, before: str | None, limit: int
) -> Sequence[Message]:
    """An owner's, newest first; ``before`` is the id of the last one already seen."""
    wanted: Select[tuple[object, ...]] = _OF_OWNER
    values: Values = {"owner_": owner, "limit": limit}
    if state is not None:
        wanted = wanted.where(webhook_messages.c.state == bindparam("state_"))
        values["state_"] = state.value
    if before is not None:
        last = connection.execute(_ONE, {"wanted": before, "owner_": owner}).one_or_none()
        if last is None:
            return []
        wanted = wanted.where(
            or_(
                webhook_messages.c.created_at < bindparam("last_at_"),
                (webhook_messages.c.created_at == bindparam("last_at_"))
                & (webhook_messages.c.id < bindparam("last_id")),
            )
        )
        values |= {"last_at_": last.created_at, "last_id": before}
    return [_message(row) for row in connection.execute(wanted, values)]


def redeliver(connection: Connection, wanted: str, owner: str, now: float) -> Message | None:
    """Have an owner's message sent again, from the beginning of the schedule; None when there is none.

    Its endpoint counts as enabled again: whoever asks for this knows better than an answer of the past.
    """
    row = connection.execute(_ONE, {"wanted": wanted, "owner_": owner}).one_or_none()
    if row is None:
        return None
    connection.execute(_SEND_AGAIN, {"wanted": wanted, "now": now, "pending": MessageState.PENDING.value})
    connection.execute(_ENABLE, {"wanted": row.endpoint})
    _set_next(connection, row.endpoint)
    return _message(connection.execute(_ONE, {"wanted": wanted, "owner_": owner}).one())


def enable(connection: Connection, owner: str, url: str) -> None:
    """An endpoint that had answered 410 is one again; what was given up meanwhile stays so."""
    if (row := connection.execute(_ENDPOINT, {"owner_": owner, "url_": url}).one_or_none()) is not None:
        connection.execute(_ENABLE, {"wanted": row.id})


# ---------------------------------------------------------------------------------------------------------------- secrets


def secrets(connection: Connection, account: str, now: float) -> Sequence[SealedSecret]:
    """Those that sign now, newest first."""
    rows = connection.execute(_SECRETS, {"account_": account, "now": now})
    return [SealedSecret(bytes(row.sealed), row.expires_at) for row in rows]


def add_secret(
    connection: Connection, account: str, sealed: bytes, old_until: float | None, now: float
) -> Sequence[SealedSecret]:
    """Keep a new secret; those that sign from now on, newest first.

    Args:
        connection: in the transaction.
        account: whose.
        sealed: the secret, unreadable here.
        old_until: how long the one before it signs beside it; None: it is kept only where there is none yet.
        now: Unix seconds.

    Raises:
        ConflictError: as many sign already as may.
    """
    known = secrets(connection, account, now)
    if known and old_until is None:
        return known
    if len(known) >= MAX_SECRETS:
        raise ConflictError(f"{MAX_SECRETS} secrets sign already: wait until the time of one is over.")
    change(connection, _FORGET_SECRETS, {"account_": account, "now": now})
    change(connection, _RETIRE, {"account_": account, "until": old_until})
    change(connection, _ADD_SECRET, {"account": account, "sealed": sealed, "created_at": now, "expires_at": None})
    return secrets(connection, account, now)


def sweep(connection: Connection) -> int:
    """Forget a batch of endpoints that no message names any more; how many."""
    return connection.execute(_SWEEP).rowcount


def forget_owner(connection: Connection, owner: str) -> None:
    """Forget where an owner's messages went; they themselves go with their jobs."""
    connection.execute(_FORGET_ENDPOINTS, {"owner_": owner})


# ------------------------------------------------------------------------------------------------------------------- rows


def _message(row: AnyRow) -> Message:
    return Message(
        id=row.id,
        endpoint=row.endpoint,
        owner=row.owner,
        account=row.account,
        url=row.url,
        job_id=row.job_id,
        kind=row.kind,
        state=MessageState(row.state),
        attempts=row.attempts,
        next_at=row.next_at,
        created_at=row.created_at,
        last_at=row.last_at,
        last_status=row.last_status,
        reason=Reason(row.reason) if row.reason else None,
    )


_m, _e = webhook_messages.c, webhook_endpoints.c
_MEET = by_dialect(
    lambda insert_into: insert_into(webhook_endpoints).on_conflict_do_update(
        index_elements=["owner", "url"],
        # An endpoint that rests is woken by what is new; whoever looks lets it rest on.
        set_={
            "next_at": text(
                "CASE WHEN webhook_endpoints.disabled_at IS NOT NULL THEN NULL"
                " WHEN webhook_endpoints.next_at < excluded.next_at THEN webhook_endpoints.next_at"
                " ELSE excluded.next_at END"
            )
        },
    )
)
_ENDPOINT = select(webhook_endpoints).where(_e.owner == bindparam("owner_"), _e.url == bindparam("url_"))
_ADD = insert(webhook_messages)
_NOT_THESE = (
    _e.owner.not_in(bindparam("owners", expanding=True)),
    _e.id.not_in(bindparam("endpoints", expanding=True)),
)
_DUE_ENDPOINTS = (
    select(_e.id)
    .where(text(IS_DUE_SOME_TIME), _e.next_at <= bindparam("now"), *_NOT_THESE)
    .order_by(_e.next_at)
    .limit(bindparam("limit"))
)
_NEXT = select(func.min(_e.next_at)).where(text(IS_DUE_SOME_TIME), *_NOT_THESE)
_WHOLE = select(
    webhook_messages, _e.url, func.coalesce(api_keys.c.user_id, webhook_messages.c.owner).label("account")
).select_from(
    webhook_messages.join(webhook_endpoints, _e.id == _m.endpoint).outerjoin(api_keys, api_keys.c.id == _m.owner)
)
_HEADS = (
    _WHOLE.where(
        _m.endpoint == bindparam("endpoint_"), text(f"webhook_messages.{IS_PENDING}"), _m.next_at <= bindparam("now")
    )
    .order_by(_m.next_at)
    .limit(bindparam("each"))
)
_ONE = _WHOLE.where(_m.id == bindparam("wanted"), _m.owner == bindparam("owner_"))
_OF_OWNER = (
    _WHOLE.where(_m.owner == bindparam("owner_")).order_by(_m.created_at.desc(), _m.id.desc()).limit(bindparam("limit"))
)
_ATTEMPTED = update(webhook_messages).where(
    _m.id == bindparam("wanted"), _m.attempts == bindparam("seen"), text(IS_PENDING)
)
_SEND_AGAIN = (
    update(webhook_messages)
    .where(_m.id == bindparam("wanted"))
    .values(
        # One that waits keeps its count: an attempt of it may be under way.
        attempts=text("CASE WHEN state = 'pending' THEN attempts ELSE 0 END"),
        state=bindparam("pending"),
        next_at=bindparam("now"),
    )
)
_POSTPONE = (
    update(webhook_endpoints)
    .where(_e.id == bindparam("wanted"), text(IS_DUE_SOME_TIME), _e.next_at < bindparam("until"))
    .values(next_at=bindparam("until"))
)
_SET_NEXT = (
    update(webhook_endpoints)
    .where(_e.id == bindparam("wanted"), _e.disabled_at.is_(None))
    .values(
        next_at=select(func.min(_m.next_at))
        .where(_m.endpoint == bindparam("wanted"), text(IS_PENDING))
        .scalar_subquery()
    )
)
_DISABLE_MESSAGES = (
    update(webhook_messages)
    .where(_m.endpoint == bindparam("wanted"), text(IS_PENDING))
    .values(state=MessageState.DEAD.value, reason=Reason.DISABLED.value, next_at=None)
)
_DISABLE = (
    update(webhook_endpoints).where(_e.id == bindparam("wanted")).values(disabled_at=bindparam("at"), next_at=None)
)
_ENABLE = update(webhook_endpoints).where(_e.id == bindparam("wanted")).values(disabled_at=None)
_SECRETS = (
    select(secrets_table)
    .where(
        secrets_table.c.account == bindparam("account_"),
        or_(secrets_table.c.expires_at.is_(None), secrets_table.c.expires_at > bindparam("now")),
    )
    .order_by(secrets_table.c.id.desc())
)
_FORGET_SECRETS = delete(secrets_table).where(
    secrets_table.c.account == bindparam("account_"), secrets_table.c.expires_at <= bindparam("now")
)
_RETIRE = (
    update(secrets_table)
    .where(secrets_table.c.account == bindparam("account_"), secrets_table.c.expires_at.is_(None))
    .values(expires_at=bindparam("until"))
)
_ADD_SECRET = insert(secrets_table)
_UNUSED = select(_e.id).where(~exists().where(_m.endpoint == _e.id)).limit(BATCH_ROWS)
_SWEEP = delete(webhook_endpoints).where(_e.id.in_(_UNUSED))
_FORGET_ENDPOINTS = delete(webhook_endpoints).where(
    _e.owner == bindparam("owner_"), ~exists().where(_m.endpoint == _e.id)
)

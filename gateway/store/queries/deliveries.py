"""Deliveries: made in the transaction in which their job succeeds, worked off by ``gateway/engine/carrier.py``.

``gateway/delivering.py`` decides what follows from an attempt. That one is over is told in a numbered event, in the
transaction that writes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never

from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    Select,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from gateway.delivering import Answer, Delivery, DeliveryState, Reason
from gateway.errors import ConflictError
from gateway.events import Event, EventKind
from gateway.outbox import Again, Dead, Delivered, Verdict
from gateway.store.queries import change
from gateway.store.rows import AnyRow, Values, event_row
from gateway.store.schema import assets, events, jobs
from gateway.store.schema_deliveries import IS_PENDING, deliveries


def add(connection: Connection, planned: Sequence[Delivery]) -> None:
    """Keep the deliveries of a job: in the transaction in which it succeeds."""
    if planned:
        change(connection, _ADD, [_row(one) for one in planned])


# ----------------------------------------------------------------------------------------------------------- the carrier


def due(
    connection: Connection,
    now: float,
    without_owners: Collection[str],
    without_hosts: Collection[str],
    without: Collection[str],
    limit: int,
) -> Sequence[Delivery]:
    """What is due and none of these, what has waited longest first."""
    which = {"now": now, "limit": limit, **_left_out(without_owners, without_hosts, without)}
    return [_delivery(row) for row in connection.execute(_DUE, which)]


def next_due(
    connection: Connection, without_owners: Collection[str], without_hosts: Collection[str], without: Collection[str]
) -> float | None:
    """When something is due that is none of these; None when nothing will be."""
    return connection.execute(_NEXT, _left_out(without_owners, without_hosts, without)).scalar_one_or_none()


def record(
    connection: Connection, delivery: Delivery, answer: Answer, verdict: Verdict, now: float
) -> tuple[bool, Event | None]:
    """Write what came of an attempt; whether the delivery was as it had been read (else no row changed), and its event."""
    changed = replace(
        delivery,
        attempts=delivery.attempts + 1,
        last_at=now,
        last_status=answer.status,
        reason=answer.reason,
        place=answer.place or delivery.place,
        next_at=None,
    )
    match verdict:
        case Delivered():
            changed = replace(changed, state=DeliveryState.DELIVERED)
        case Again():
            changed = replace(changed, next_at=verdict.at)
        case Dead():
            changed = replace(changed, state=DeliveryState.FAILED)
        case _:
            assert_never(verdict)
    values: Values = {"wanted": delivery.id, "seen": delivery.attempts, **_changes(changed)}
    if connection.execute(_ATTEMPTED, values).rowcount != 1:
        return False, None
    return True, None if changed.state is DeliveryState.PENDING else _tell(connection, changed, now)


def _tell(connection: Connection, delivery: Delivery, now: float) -> Event:
    number = connection.execute(_NEXT_NUMBER, {"wanted": delivery.job_id}).scalar_one()
    kind, data = told(delivery)
    event = Event(delivery.job_id, number, kind, now, data)
    change(connection, _INSERT_EVENT, event_row(event))
    return event


def told(delivery: Delivery) -> tuple[EventKind, Mapping[str, object]]:
    """What is said of a delivery that is over."""
    data: dict[str, object] = {
        "delivery": delivery.id,
        "asset_id": delivery.asset_id,
        "name": delivery.file_name,
        "target": delivery.target,
        "place": delivery.place,
    }
    if delivery.state is DeliveryState.DELIVERED:
        return EventKind.UPLOADED, data
    reason = delivery.reason.value if delivery.reason else None
    return EventKind.UPLOAD_FAILED, {**data, "reason": reason, "status": delivery.last_status}


# ---------------------------------------------------------------------------------------------------- owners, operators


def of_jobs(connection: Connection, job_ids: Sequence[str]) -> Sequence[Delivery]:
    """Those of these jobs, each job's in the order of its outputs."""
    return [_delivery(row) for row in connection.execute(_OF_JOBS, {"jobs": list(job_ids)})]


def is_pending(connection: Connection, job_id: str) -> bool:
    """Whether one of a job's is not over."""
    return connection.execute(_PENDING_OF, {"wanted": job_id}).one_or_none() is not None


def listed(
    connection: Connection, owner: str | None, state: DeliveryState | None, before: str | None, limit: int
) -> Sequence[Delivery]:
    """An owner's, or with None everybody's, newest first; ``before`` is the id of the last one already seen."""
    wanted: Select[tuple[object, ...]] = _LIST
    values: Values = {"limit": limit}
    if owner is not None:
        wanted = wanted.where(_d.owner == bindparam("owner_"))
        values["owner_"] = owner
    if state is not None:
        wanted = wanted.where(_d.state == bindparam("state_"))
        values["state_"] = state.value
    if before is not None:
        last = one(connection, before, owner)
        if last is None:
            return []
        wanted = wanted.where(
            or_(
                _d.created_at < bindparam("last_at_"),
                (_d.created_at == bindparam("last_at_")) & (_d.id < bindparam("last_id")),
            )
        )
        values |= {"last_at_": last.created_at, "last_id": before}
    return [_delivery(row) for row in connection.execute(wanted, values)]


def one(connection: Connection, wanted: str, owner: str | None) -> Delivery | None:
    """One of an owner's, or with None anybody's."""
    row = connection.execute(_ONE, {"wanted": wanted}).one_or_none()
    return None if row is None or owner not in {None, row.owner} else _delivery(row)


def redeliver(connection: Connection, wanted: str, owner: str | None, now: float) -> Delivery | None:
    """Have a delivery made now, and by the schedule from its beginning; None when there is none.

    Raises:
        ConflictError: it has been made, or the file is kept no longer, or it never had a URL.
    """
    found = one(connection, wanted, owner)
    if found is None:
        return None
    if found.state is DeliveryState.DELIVERED:
        raise ConflictError("It has been delivered.")
    if found.reason is Reason.NO_URL:
        raise ConflictError("The job has no URL for this output.")
    if connection.execute(_KEPT, {"wanted": found.asset_id}).one_or_none() is None:
        raise ConflictError("The file is not kept any more.")
    # One that waits keeps its count: an attempt of it may be under way.
    attempts = found.attempts if found.state is DeliveryState.PENDING else 0
    changed = replace(found, state=DeliveryState.PENDING, attempts=attempts, next_at=now)
    connection.execute(_CHANGE, {"wanted": wanted, **_changes(changed)})
    return changed


# ------------------------------------------------------------------------------------------------------------------- rows


def _left_out(owners: Collection[str], hosts: Collection[str], ids: Collection[str]) -> Values:
    return {"owners": sorted(owners), "hosts": sorted(hosts), "ids": sorted(ids)}


def _changes(delivery: Delivery) -> Values:
    return {
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "next_at": delivery.next_at,
        "last_at": delivery.last_at,
        "last_status": delivery.last_status,
        "reason": delivery.reason.value if delivery.reason else None,
        "place": delivery.place,
    }


def _row(delivery: Delivery) -> Values:
    return {
        "id": delivery.id,
        "job_id": delivery.job_id,
        "owner": delivery.owner,
        "position": delivery.position,
        "asset_id": delivery.asset_id,
        "file_name": delivery.file_name,
        "target": delivery.target,
        "host": delivery.host,
        "created_at": delivery.created_at,
        **_changes(delivery),
    }


def _delivery(row: AnyRow) -> Delivery:
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        owner=row.owner,
        position=row.position,
        asset_id=row.asset_id,
        file_name=row.file_name,
        target=row.target,
        host=row.host,
        place=row.place,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_at=row.next_at,
        created_at=row.created_at,
        last_at=row.last_at,
        last_status=row.last_status,
        reason=Reason(row.reason) if row.reason else None,
    )


_d = deliveries.c
_ADD = insert(deliveries)
_NOT_THESE = (
    _d.owner.not_in(bindparam("owners", expanding=True)),
    _d.host.not_in(bindparam("hosts", expanding=True)),
    _d.id.not_in(bindparam("ids", expanding=True)),
)
_DUE = (
    select(deliveries)
    .where(text(IS_PENDING), _d.next_at <= bindparam("now"), *_NOT_THESE)
    .order_by(_d.next_at, _d.id)
    .limit(bindparam("limit"))
)
_NEXT = select(func.min(_d.next_at)).where(text(IS_PENDING), *_NOT_THESE)
_ATTEMPTED = update(deliveries).where(_d.id == bindparam("wanted"), _d.attempts == bindparam("seen"), text(IS_PENDING))
_CHANGE = update(deliveries).where(_d.id == bindparam("wanted"))
_NEXT_NUMBER = (
    update(jobs)
    .where(jobs.c.id == bindparam("wanted"))
    .values(last_event=jobs.c.last_event + 1)
    .returning(jobs.c.last_event)
)
_INSERT_EVENT = insert(events)
_OF_JOBS = select(deliveries).where(_d.job_id.in_(bindparam("jobs", expanding=True))).order_by(_d.job_id, _d.position)
_PENDING_OF = select(_d.id).where(_d.job_id == bindparam("wanted"), text(IS_PENDING)).limit(1)
_LIST = select(deliveries).order_by(_d.created_at.desc(), _d.id.desc()).limit(bindparam("limit"))
_ONE = select(deliveries).where(_d.id == bindparam("wanted"))
_KEPT = select(assets.c.id).where(assets.c.id == bindparam("wanted"))


def is_being_delivered(job_id: ColumnElement[Any]) -> Exists:
    """A condition for the sweep: something of this job, given by a column, is still to be put somewhere."""
    return exists().where(_d.job_id == job_id, text(f"deliveries.{IS_PENDING}"))

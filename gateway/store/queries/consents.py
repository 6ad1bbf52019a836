"""Records of consent: begun in the transaction that creates a job, completed in the one that ends it, kept on their own."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_, update

from gateway.consent import Attestation, ConsentRecord
from gateway.errors import InvalidInputError
from gateway.interfaces import NewJob
from gateway.job import Job
from gateway.store.queries import BATCH_ROWS, change
from gateway.store.rows import AnyRow, to_json
from gateway.store.schema_consents import consents


def attest(connection: Connection, new: NewJob, now: float) -> None:
    """Keep what was said of a new job, when it was said."""
    if new.consent is None:
        return
    row = {
        "job_id": new.id,
        "owner": new.owner,
        "dialect": new.dialect,
        "attested": new.consent.value,
        "at": now,
        "inputs": to_json({role: given.blob for role, given in new.inputs.items()}),
    }
    change(connection, _ADD, row)


def complete(connection: Connection, job: Job, now: float) -> None:
    """Add how a job ended and what came of it; nothing where nothing was said."""
    outputs = to_json([result.blob for result in job.results])
    change(connection, _END, {"wanted": job.id, "ended_at": now, "state": job.state.value, "outputs": outputs})


def record(connection: Connection, job_id: str) -> ConsentRecord | None:
    """That of a job."""
    row = connection.execute(_ONE, {"wanted": job_id}).one_or_none()
    return None if row is None else _record(row)


def records(
    connection: Connection, owner: str | None, since: float, after: str | None, limit: int
) -> Sequence[ConsentRecord]:
    """Those since a time, oldest first, from the one after that of the job ``after`` on.

    Raises:
        InvalidInputError: there is no record of ``after``.
    """
    begin = (since, "")
    if after is not None:
        last = connection.execute(_ONE, {"wanted": after}).one_or_none()
        if last is None:
            raise InvalidInputError("after is the id of a job whose consent is recorded.", field="after")
        begin = max(begin, (last.at, last.job_id))
    values = {"at_": begin[0], "job_": begin[1], "limit_": limit}
    found = connection.execute(_ALL, values) if owner is None else connection.execute(_OF, {**values, "owner_": owner})
    return [_record(row) for row in found]


def sweep(connection: Connection, before: float) -> int:
    """Forget a batch of those whose jobs ended by then; how many."""
    return connection.execute(_SWEEP, {"before": before}).rowcount


def forget(connection: Connection, job_id: str) -> int:
    """Forget that of a job."""
    return connection.execute(_FORGET, {"wanted": job_id}).rowcount


def forget_owner(connection: Connection, owner: str) -> int:
    """Forget a batch of an owner's; how many."""
    return connection.execute(_FORGET_OWNER, {"owner_": owner}).rowcount


def _record(row: AnyRow) -> ConsentRecord:
    return ConsentRecord(
        job_id=row.job_id,
        owner=row.owner,
        dialect=row.dialect,
        attested=Attestation(row.attested),
        at=row.at,
        inputs=orjson.loads(row.inputs),
        ended_at=row.ended_at,
        state=row.state,
        outputs=None if row.outputs is None else tuple(orjson.loads(row.outputs)),
    )


_c = consents.c
_ADD = insert(consents)
_END = update(consents).where(_c.job_id == bindparam("wanted"))
_ONE = select(consents).where(_c.job_id == bindparam("wanted"))
_ALL = (
    select(consents)
    .where(tuple_(_c.at, _c.job_id) > tuple_(bindparam("at_"), bindparam("job_")))
    .order_by(_c.at, _c.job_id)
    .limit(bindparam("limit_"))
)
_OF = _ALL.where(_c.owner == bindparam("owner_"))
_SWEEP = delete(consents).where(
    _c.job_id.in_(select(_c.job_id).where(_c.ended_at <= bindparam("before")).limit(BATCH_ROWS))
)
_FORGET = delete(consents).where(_c.job_id == bindparam("wanted"), _c.ended_at.is_not(None))
_FORGET_OWNER = delete(consents).where(
    _c.job_id.in_(select(_c.job_id).where(_c.owner == bindparam("owner_"), _c.ended_at.is_not(None)).limit(BATCH_ROWS))
)

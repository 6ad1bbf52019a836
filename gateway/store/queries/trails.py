"""What tasks left behind them: upstreams that died while they ran them, and what else was lost around then.

An upstream that dies is seen twice: as one that can no longer be reached, at once; and by the attempt that it ran, which
is lost when the upstream comes back without it or was away for too long. What counts is the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, exists, func, select, text, union_all

from gateway.job import Cause
from gateway.poison import OUTAGE_SECONDS, Death, Loss, Trail
from gateway.store.queries import by_dialect, change
from gateway.store.schema import IS_LOSS, attempts, outages

#: Far longer than a task lies between two tries.
OUTAGES_KEPT_SECONDS = 30 * 86_400.0


def trails(connection: Connection, task_ids: Sequence[str]) -> Mapping[str, Trail]:
    """One trail per task, in the order of the ids; an empty one where nothing died."""
    deaths: dict[str, list[Death]] = {task_id: [] for task_id in task_ids}
    for row in connection.execute(_DEATHS, {"wanted": list(task_ids)}):
        at = row.ended_at if row.away_at is None else row.away_at
        deaths[row.task_id].append(Death(row.upstream, at, taken_at=row.dispatched_at, found_at=row.ended_at))
    return {task_id: Trail(tuple(found), _losses(connection, found)) for task_id, found in deaths.items()}


def _losses(connection: Connection, deaths: Sequence[Death]) -> tuple[Loss, ...]:
    found: dict[Loss, None] = {}
    for death in deaths:
        window = {"since": death.at - OUTAGE_SECONDS, "until": death.at + OUTAGE_SECONDS}
        found.update({Loss(row.upstream, row.at): None for row in connection.execute(_LOSSES, window)})
    return tuple(found)


def note_outage(connection: Connection, upstream: str, at: float) -> None:
    """An upstream became unreachable."""
    change(connection, _NOTE[connection.dialect.name], {"at": at, "upstream": upstream})


def forget_outages(connection: Connection, now: float) -> None:
    """Those that are too old to tell anything."""
    change(connection, _FORGET, {"before": now - OUTAGES_KEPT_SECONDS})


_lost = attempts.alias("lost")
_away = outages.alias("away")
_DEATHS = (
    select(
        attempts.c.task_id,
        attempts.c.upstream,
        attempts.c.dispatched_at,
        attempts.c.ended_at,
        select(func.max(_away.c.at))
        .where(
            _away.c.upstream == attempts.c.upstream,
            _away.c.at.between(attempts.c.dispatched_at, attempts.c.ended_at),
        )
        .scalar_subquery()
        .label("away_at"),
    )
    .where(
        attempts.c.task_id.in_(bindparam("wanted", expanding=True)),
        attempts.c.cause == Cause.DIED.value,
        attempts.c.started_at.is_not(None),
    )
    .order_by(attempts.c.task_id, attempts.c.number)
)
_LOSSES = union_all(
    select(outages.c.upstream, outages.c.at).where(outages.c.at.between(bindparam("since"), bindparam("until"))),
    select(_lost.c.upstream, _lost.c.ended_at.label("at")).where(
        text(f"lost.{IS_LOSS}"),
        _lost.c.ended_at.between(bindparam("since"), bindparam("until")),
        ~exists().where(
            _away.c.upstream == _lost.c.upstream, _away.c.at.between(_lost.c.dispatched_at, _lost.c.ended_at)
        ),
    ),
).order_by("at")
_NOTE = by_dialect(lambda insert_into: insert_into(outages).on_conflict_do_nothing(index_elements=["at", "upstream"]))
_FORGET = delete(outages).where(outages.c.at < bindparam("before"))

"""What tasks left behind them: upstreams that died while they ran them, and what else was lost around then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, and_, bindparam, select, text

from gateway.job import Cause
from gateway.poison import OUTAGE_SECONDS, Loss, Trail
from gateway.store.schema import IS_LOSS, attempts


def trails(connection: Connection, task_ids: Sequence[str]) -> Mapping[str, Trail]:
    """One trail per task, in the order of the ids; an empty one where nothing died."""
    deaths: dict[str, dict[int, Loss]] = {task_id: {} for task_id in task_ids}
    losses: dict[str, dict[Loss, None]] = {task_id: {} for task_id in task_ids}
    for row in connection.execute(_TRAILS, {"wanted": list(task_ids), "seconds": OUTAGE_SECONDS}):
        deaths[row.task_id][row.number] = Loss(row.upstream, row.ended_at)
        losses[row.task_id][Loss(row.lost_upstream, row.lost_at)] = None
    return {task_id: Trail(tuple(deaths[task_id].values()), tuple(losses[task_id])) for task_id in task_ids}


_lost = attempts.alias("lost")
_TRAILS = (
    select(
        attempts.c.task_id,
        attempts.c.number,
        attempts.c.upstream,
        attempts.c.ended_at,
        _lost.c.upstream.label("lost_upstream"),
        _lost.c.ended_at.label("lost_at"),
    )
    # Each death is found beside itself, so it is in the answer also when nothing else was lost.
    .join(
        _lost,
        and_(
            text(f"lost.{IS_LOSS}"),
            _lost.c.ended_at.between(
                attempts.c.ended_at - bindparam("seconds"), attempts.c.ended_at + bindparam("seconds")
            ),
        ),
    )
    .where(
        attempts.c.task_id.in_(bindparam("wanted", expanding=True)),
        attempts.c.cause == Cause.DIED.value,
        attempts.c.started_at.is_not(None),
    )
    .order_by(attempts.c.task_id, attempts.c.number, _lost.c.ended_at)
)

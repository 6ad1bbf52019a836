"""What was learned of how long nodes take. A few thousand rows at most, read once and written together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, func, select, text, update

from gateway.store.queries import by_dialect, change
from gateway.store.schema import IS_QUEUED, tasks, timings
from gateway.timings import Key, Row


def all_timings(connection: Connection) -> Sequence[Row]:
    """All rows."""
    return [
        Row(Key(row.template, row.node_class, row.pass_number, row.upstream), tuple(json.loads(row.sums)), row.turn)
        for row in connection.execute(_ALL)
    ]


def save_timings(
    connection: Connection, changed: Sequence[Row], gone: Sequence[Key], repriced: Mapping[str, float]
) -> None:
    """Keep rows, forget others, and multiply the cost of queued tasks per template."""
    if gone:
        change(connection, _FORGET, [_named(key) for key in gone])
    if changed:
        rows = [{**_columns(row.key), "sums": json.dumps(row.sums), "turn": row.turn} for row in changed]
        change(connection, _KEEP[connection.dialect.name], rows)
    for template, factor in repriced.items():
        pinned = f"{template}@"
        change(connection, _REPRICE, {"pinned": pinned, "length": len(pinned), "factor": factor})


def _columns(key: Key) -> dict[str, object]:
    return {
        "template": key.template,
        "node_class": key.node_class,
        "pass_number": key.pass_number,
        "upstream": key.upstream,
    }


def _named(key: Key) -> dict[str, object]:
    return {f"the_{name}": value for name, value in _columns(key).items()}


_ALL = select(timings)
_KEEP = by_dialect(
    lambda insert_into: (new := insert_into(timings)).on_conflict_do_update(
        index_elements=["template", "node_class", "pass_number", "upstream"],
        set_={"sums": new.excluded.sums, "turn": new.excluded.turn},
    )
)
_FORGET = delete(timings).where(
    timings.c.template == bindparam("the_template"),
    timings.c.node_class == bindparam("the_node_class"),
    timings.c.pass_number == bindparam("the_pass_number"),
    timings.c.upstream == bindparam("the_upstream"),
)
# A requirement begins with the template's name and "@"; "_" in a name would be a wildcard to LIKE.
_REPRICE = (
    update(tasks)
    .where(text(IS_QUEUED), func.substr(tasks.c.requirement, 1, bindparam("length")) == bindparam("pinned"))
    .values(cost_seconds=tasks.c.cost_seconds * bindparam("factor"))
)

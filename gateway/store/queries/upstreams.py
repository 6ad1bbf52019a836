"""What is remembered of upstreams and templates across restarts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select, update

from gateway.interfaces import UpstreamRow
from gateway.store.queries import by_dialect, change
from gateway.store.rows import upstream_from
from gateway.store.schema import templates, upstreams


def upstream(connection: Connection, name: str, url: str | None, client_id: str, now: float) -> UpstreamRow:
    """The row of an upstream, made with ``client_id`` when there is none; a ``url`` replaces the one before."""
    row = {
        "name": name,
        "client_id": client_id,
        "url": url,
        "removed": False,
        "draining": False,
        "created_at": now,
        "updated_at": now,
    }
    change(connection, _KEEP_UPSTREAM[connection.dialect.name], row)
    return upstream_from(connection.execute(_UPSTREAM, {"wanted": name}).one())


def all_upstreams(connection: Connection) -> Sequence[UpstreamRow]:
    """All remembered upstreams, by name."""
    return [upstream_from(row) for row in connection.execute(_UPSTREAMS)]


def set_upstream(
    connection: Connection, name: str, *, removed: bool | None, draining: bool | None, now: float
) -> UpstreamRow | None:
    """Change what is not None; None when there is no such upstream."""
    changes = {"removed": removed, "draining": draining}
    set_ = {column: value for column, value in changes.items() if value is not None}
    change(connection, _SET_UPSTREAM, {"wanted": name, "updated_at": now, **set_})
    row = connection.execute(_UPSTREAM, {"wanted": name}).one_or_none()
    return None if row is None else upstream_from(row)


def save_template(connection: Connection, name: str, version: str, toml: str, graph: str, now: float) -> None:
    """Keep a template version. A version is its content, so one that is there already stays."""
    row = {"name": name, "version": version, "toml": toml, "graph": graph, "saved_at": now}
    change(connection, _KEEP_TEMPLATE[connection.dialect.name], row)


def template(connection: Connection, name: str, version: str) -> tuple[str, str] | None:
    """(toml, graph) of a kept version."""
    row = connection.execute(_TEMPLATE, {"name": name, "version": version}).one_or_none()
    return None if row is None else (row.toml, row.graph)


_KEEP_UPSTREAM = by_dialect(
    lambda insert_into: (new := insert_into(upstreams)).on_conflict_do_update(
        index_elements=["name"],
        set_={"url": func.coalesce(new.excluded.url, upstreams.c.url), "updated_at": new.excluded.updated_at},
    )
)
_UPSTREAM = select(upstreams).where(upstreams.c.name == bindparam("wanted"))
_UPSTREAMS = select(upstreams).order_by(upstreams.c.name)
_SET_UPSTREAM = update(upstreams).where(upstreams.c.name == bindparam("wanted"))
_KEEP_TEMPLATE = by_dialect(
    lambda insert_into: insert_into(templates).on_conflict_do_nothing(index_elements=["name", "version"])
)
_TEMPLATE = select(templates.c.toml, templates.c.graph).where(
    templates.c.name == bindparam("name"), templates.c.version == bindparam("version")
)

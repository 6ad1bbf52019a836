"""The way from any older database to these tables, and the refusal of newer ones."""

from __future__ import annotations

import importlib
import sys

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import StaticPool

from gateway.store import migrations
from gateway.store.migrations import SchemaTooNewError, newest, upgrade
from gateway.store.migrations.versions import v0001_first_tables
from gateway.store.queries import accounts
from gateway.store.schema import metadata

COLOURS = "mako.ext.pygmentplugin"


@pytest.fixture
def connection():
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as made:
        yield made
    engine.dispose()


def tables(connection):
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'")
    return {name: sql for name, sql in rows if sql}


def normal(sql):
    """Columns and constraints in any order and on any lines: SQLite adds a column behind the constraints."""
    head, _, body = " ".join(sql.split()).partition("(")
    parts, depth = [""], 0
    for letter in body.rpartition(")")[0]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [head.strip(), *sorted(part.strip() for part in parts), body.rpartition(")")[2].strip()]


def test_migrations_make_the_tables_that_the_schema_says(connection):
    upgrade(connection)
    made = tables(connection)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as other:
        metadata.create_all(other)
        said = tables(other)
    engine.dispose()
    assert made.keys() == said.keys()
    for name, sql in said.items():
        assert normal(made[name]) == normal(sql)


def test_upgrade_again_changes_nothing(connection):
    upgrade(connection)
    before = tables(connection)
    upgrade(connection)
    assert tables(connection) == before
    assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [(newest(),)]


def test_steps_are_named_as_they_are_numbered_and_the_newest_is_the_head():
    script = ScriptDirectory(str(migrations._HERE))
    assert migrations.known() == {step.revision for step in script.walk_revisions()}
    assert newest() == script.get_current_head()


def test_a_database_that_lacks_nothing_is_left_alone_without_loading_what_runs_steps(connection, monkeypatch):
    upgrade(connection)
    monkeypatch.setitem(sys.modules, "gateway.store.migrations.running", None)
    upgrade(connection)
    connection.exec_driver_sql("DELETE FROM alembic_version")
    with pytest.raises(ImportError):
        upgrade(connection)


def test_alembic_is_loaded_without_the_colours_of_its_templates(monkeypatch):
    monkeypatch.delitem(sys.modules, COLOURS, raising=False)
    with migrations._without_colours(), pytest.raises(ImportError):
        importlib.import_module(COLOURS)
    assert COLOURS not in sys.modules


def test_events_of_before_stay_as_they_were_and_may_be_followed_by_outputs(connection, monkeypatch):
    script = ScriptDirectory(str(migrations._HERE))
    upto = script._upgrade_revs
    with monkeypatch.context() as older:
        older.setattr(ScriptDirectory, "_upgrade_revs", lambda _, __, heads: upto("0009", heads))
        upgrade(connection)
    connection.commit()  # within a transaction the next would do nothing
    connection.exec_driver_sql("PRAGMA foreign_keys=ON")
    values = dict.fromkeys(
        ["id", "owner", "submitter", "dialect", "task", "template", "template_version", "output_name", "step"], "''"
    )
    values |= dict.fromkeys(["parameters", "inputs", "warnings", "results", "extra"], "'[]'")
    values |= dict.fromkeys(["priority", "created_at", "updated_at", "queue_deadline", "last_event"], "1")
    values |= {"state": "'queued'", "fraction": "0"}
    connection.exec_driver_sql(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join(values.values())})")  # noqa: S608 - ours
    connection.exec_driver_sql("INSERT INTO events VALUES ('', 1, 'queued', 2.5, '{}')")
    upgrade(connection)
    connection.exec_driver_sql("INSERT INTO events VALUES ('', 2, 'output', 3.5, '{}')")
    connection.exec_driver_sql("INSERT INTO events VALUES ('', 3, 'failed', 4.5, '{}')")
    assert connection.exec_driver_sql("SELECT * FROM events").all() == [
        ("", 1, "queued", 2.5, "{}"), ("", 2, "output", 3.5, "{}"), ("", 3, "failed", 4.5, "{}"),
    ]  # fmt: skip
    with pytest.raises(IntegrityError):
        connection.exec_driver_sql("INSERT INTO events VALUES ('', 4, 'canceled', 5.5, '{}')")  # a second end
    connection.exec_driver_sql("DELETE FROM jobs")
    assert connection.exec_driver_sql("SELECT * FROM events").all() == []


def test_newer_database_is_refused_with_the_remedy(connection):
    upgrade(connection)
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNewError, match=r"newer version of the gateway .*9999.*backup"):
        upgrade(connection)


def test_failed_upgrade_leaves_nothing_behind(connection, monkeypatch):
    def broken():
        v0001_first_tables._make_blobs()
        raise OSError

    script = ScriptDirectory(str(migrations._HERE))
    steps = script._upgrade_revs("head", ())
    monkeypatch.setattr(steps[0], "migration_fn", broken)
    monkeypatch.setattr(ScriptDirectory, "_upgrade_revs", lambda *_: steps)
    connection.exec_driver_sql("BEGIN")
    with pytest.raises(OSError):  # noqa: PT011 - raised just above, nothing else does
        upgrade(connection)
    connection.rollback()
    assert tables(connection) == {}


def test_steps_form_one_line_and_refuse_to_go_back():
    script = ScriptDirectory(str(migrations._HERE))
    assert len(script.get_heads()) == 1
    for step in script.walk_revisions():
        with pytest.raises(NotImplementedError, match="forwards only"):
            step.module.downgrade()


def upgrade_to(connection, revision):
    script = ScriptDirectory(str(migrations._HERE))
    steps = {"fn": lambda heads, _: list(script._upgrade_revs(revision, heads))}
    context = MigrationContext.configure(connection, opts=steps)
    with Operations.context(context):
        context.run_migrations()


def test_keys_of_an_older_database_have_no_lists_of_node_classes(connection):
    upgrade_to(connection, "0012")
    connection.exec_driver_sql("INSERT INTO users VALUES ('u', 'ann', 'free', 0, 1.0)")
    row = ("k", "u", "laptop", "cfg_live_1", 60, 4, '["jobs"]', 1.0, None, None, 2.0)
    connection.exec_driver_sql(f"INSERT INTO api_keys VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 - marks alone
    upgrade(connection)
    (kept,) = accounts.keys(connection, "", 9)
    assert (kept.key.name, kept.key.last_used_at, kept.key.node_rules) == ("laptop", 2.0, None)
    with pytest.raises(IntegrityError):
        connection.exec_driver_sql("UPDATE api_keys SET nodes_allow = '[]'")


def test_assets_of_an_older_database_are_kept(connection):
    connection.exec_driver_sql("PRAGMA foreign_keys = ON")
    upgrade_to(connection, "0010")
    connection.exec_driver_sql("INSERT INTO blobs VALUES ('b', 7, 1.0, 0)")
    jobs = "id, owner, submitter, dialect, task, template, template_version, state, priority, parameters, inputs, output_name"
    connection.exec_driver_sql(
        f"INSERT INTO jobs ({jobs}, created_at, updated_at, queue_deadline, warnings, fraction, step, results, last_event, extra) "  # noqa: S608 - names of ours
        "VALUES ('j', 'ann', 'ann', 'd', 't', 't', 'v', 'queued', 0, '{}', '{}', 'o', 1, 1, 1, '[]', 0, '', '[]', 1, '{}')"
    )
    rows = [
        ("in", "ann", "input", "b", 7, "{}", None, None, 1.0, None),
        ("out", "ann", "result", "b", 7, "{}", "j", "link", 2.0, 3.0),
    ]
    connection.exec_driver_sql(f"INSERT INTO assets VALUES ({', '.join('?' * 10)})", rows)  # noqa: S608 - marks alone
    connection.exec_driver_sql("INSERT INTO job_inputs VALUES ('j', 'target', 'in')")
    upgrade(connection)
    assert connection.exec_driver_sql("SELECT * FROM assets ORDER BY id").all() == [(*row, *[None] * 4) for row in rows]
    assert connection.exec_driver_sql("SELECT * FROM job_inputs").all() == [("j", "target", "in", None)]
    connection.exec_driver_sql("DELETE FROM jobs")
    assert connection.exec_driver_sql("SELECT id FROM assets").all() == [("in",)], (
        "results go with their jobs as before"
    )

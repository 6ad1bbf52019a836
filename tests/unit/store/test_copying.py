import sqlite3

import pytest

from gateway.store.copying import DatabaseFile
from gateway.store.sql_store import SqlStore


async def test_file_that_a_killed_gateway_left_is_copied_with_its_log(tmp_path) -> None:
    path = tmp_path / "gateway.db"
    store = await SqlStore.open(path, result_retention_seconds=1, asset_retention_seconds=1)
    await store.upstream("gpu-1", now=1.0)
    left = tmp_path / "left"
    left.mkdir()
    # As a kill leaves it: what was committed lies in the log still.
    for name in ("gateway.db", "gateway.db-wal"):
        (left / name).write_bytes((tmp_path / name).read_bytes())
    await store.close()
    await DatabaseFile(left / "gateway.db").copy_to(tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT name FROM upstreams").fetchall() == [("gpu-1",)]
    copy.close()


async def test_what_is_no_database_is_not_copied_and_none_is_made(tmp_path) -> None:
    (tmp_path / "text.db").write_text("no database at all, though long enough to be read as a header" * 9)
    with pytest.raises(sqlite3.DatabaseError):
        await DatabaseFile(tmp_path / "text.db").copy_to(tmp_path / "copy.db")
    with pytest.raises(sqlite3.OperationalError):
        await DatabaseFile(tmp_path / "none.db").copy_to(tmp_path / "copy.db")
    assert not (tmp_path / "none.db").exists()

"""The command line as a whole (``cli/app.py``)."""

from __future__ import annotations

import os

import pytest

from gateway.cli.app import CLOSED_PIPE_STATUS, main


def test_a_reader_who_has_seen_enough_is_no_fault(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        with pytest.raises(SystemExit) as ended:
            main(["config"])
    assert ended.value.code == CLOSED_PIPE_STATUS
    assert "Traceback" not in capfd.readouterr().err

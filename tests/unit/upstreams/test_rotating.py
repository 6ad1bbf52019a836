from __future__ import annotations

from gateway.upstreams.rotating import TAIL_BYTES, RotatedLog


def kept(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_log_takes_so_many_files_of_so_many_bytes_and_the_oldest_goes(tmp_path):
    log = RotatedLog(tmp_path / "log" / "x.log", file_bytes=10, files=3)
    for word in (b"one", b"two", b"three", b"four four", b"five five", b"six six"):
        log.write(word)
    log.close()
    assert kept(tmp_path / "log") == {"x.log": b"six six", "x.log.1": b"five five", "x.log.2": b"four four"}


def test_a_log_that_is_opened_again_goes_on_where_it_ended(tmp_path):
    for word in (b"first ", b"second"):
        log = RotatedLog(tmp_path / "x.log", file_bytes=100)
        log.write(word)
        log.close()
    assert kept(tmp_path) == {"x.log": b"first second"}


def test_the_tail_is_of_this_opening_and_bounded(tmp_path):
    before = RotatedLog(tmp_path / "x.log")
    before.write(b"before")
    before.close()
    log = RotatedLog(tmp_path / "x.log", file_bytes=10)
    log.write(b"a" * TAIL_BYTES)
    log.write(b"\xffend")
    assert log.tail() == "a" * (TAIL_BYTES - 4) + "�end"
    assert (tmp_path / "x.log").read_bytes() == b"\xffend"
    log.close()

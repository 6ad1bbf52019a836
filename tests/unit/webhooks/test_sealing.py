"""Secrets beside the database: unreadable without the key's file, and of use for their own account alone."""

from __future__ import annotations

import stat

import pytest

from gateway.webhooks.sealing import KEY_BYTES, KEY_FILE, FileSealer, KeyFileError


def test_what_is_sealed_is_had_back_by_whoever_has_the_file(tmp_path):
    sealed = FileSealer.beside(tmp_path).seal("u-ann", b"secret")
    assert b"secret" not in sealed
    assert FileSealer.beside(tmp_path).open("u-ann", sealed) == b"secret"


def test_the_file_is_its_owner_s_alone(tmp_path):
    FileSealer.beside(tmp_path)
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == KEY_BYTES
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY_FILE]


def test_half_a_key_that_a_killed_process_left_is_no_key(tmp_path):
    (tmp_path / f"{KEY_FILE}.part").write_bytes(b"half")
    FileSealer.beside(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY_FILE]


def test_another_account_or_another_key_opens_nothing(tmp_path):
    sealer = FileSealer(b"k" * KEY_BYTES)
    sealed = sealer.seal("u-ann", b"secret")
    assert sealer.open("u-bob", sealed) is None
    assert FileSealer(b"x" * KEY_BYTES).open("u-ann", sealed) is None
    assert sealer.open("u-ann", sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert sealer.open("u-ann", b"") is None


def test_the_same_secret_is_sealed_differently_each_time():
    sealer = FileSealer(b"k" * KEY_BYTES)
    assert sealer.seal("u-ann", b"secret") != sealer.seal("u-ann", b"secret")


def test_a_damaged_file_is_not_replaced(tmp_path):
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(KeyFileError):
        FileSealer.beside(tmp_path)
    assert (tmp_path / KEY_FILE).read_bytes() == b"short"

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from gateway import data_dir
from gateway.data_dir import (
    DataDirHeldError,
    DirectoryLock,
    LockOwner,
    LockReplacedError,
    StartError,
    hold_data_dir,
    leave_address,
    lock_owner,
    prepare_data_dir,
    read_address,
    read_admin_token,
    read_asset_key,
)
from gateway.settings import from_mapping


def mode(path) -> int:
    return path.stat().st_mode & 0o777


def test_directory_is_made_for_its_owner_alone(tmp_path) -> None:
    folder = prepare_data_dir(tmp_path / "new" / "data")
    assert folder.is_absolute()
    assert [mode(path) for path in (folder, folder / "blobs", folder / "scratch")] == [0o700] * 3


def test_directory_that_was_open_to_others_is_closed(tmp_path) -> None:
    tmp_path.chmod(0o755)
    assert mode(prepare_data_dir(tmp_path)) == 0o700


def test_directory_that_cannot_be_made_is_told_with_the_remedy(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot be used.*GATEWAY_DATA_DIR"):
        prepare_data_dir(tmp_path / "file" / "data")


def test_second_holder_is_refused_until_the_first_lets_go(tmp_path) -> None:
    with hold_data_dir(tmp_path):
        assert mode(tmp_path / "lock") == 0o600
        with pytest.raises(StartError, match="Another gateway"), hold_data_dir(tmp_path):
            pass
    with hold_data_dir(tmp_path):
        pass


def test_holder_that_was_killed_holds_nothing(tmp_path) -> None:
    code = (
        "import os, signal, pathlib, sys\n"
        "from gateway.data_dir import hold_data_dir\n"
        "with hold_data_dir(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -9
    with hold_data_dir(tmp_path):
        pass


def test_token_is_made_once_for_its_owner_alone(tmp_path) -> None:
    token, is_new = read_admin_token(from_mapping({}), tmp_path)
    assert is_new
    assert len(token) >= 32
    assert mode(tmp_path / "admin-token") == 0o600
    assert read_admin_token(from_mapping({}), tmp_path) == (token, False)


def test_key_of_links_is_made_once_for_its_owner_alone(tmp_path) -> None:
    key = read_asset_key(tmp_path)
    assert (len(key), mode(tmp_path / "asset-key")) == (32, 0o600)
    assert read_asset_key(tmp_path) == key
    assert [path.name for path in tmp_path.iterdir()] == ["asset-key"]


def test_half_a_key_of_links_is_replaced(tmp_path) -> None:
    (tmp_path / "asset-key").write_bytes(b"half")
    (tmp_path / "asset-key.part").write_bytes(b"left by a kill")
    assert len(read_asset_key(tmp_path)) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["asset-key"]


def test_key_of_links_that_cannot_be_made_is_told_with_the_remedy(tmp_path) -> None:
    with pytest.raises(StartError, match="GATEWAY_DATA_DIR"):
        read_asset_key(tmp_path / "nowhere")


def test_token_of_the_settings_stands_over_the_file_and_is_not_written(tmp_path) -> None:
    assert read_admin_token(from_mapping({"admin_token": "given"}), tmp_path) == ("given", False)
    assert not (tmp_path / "admin-token").exists()


def test_address_is_left_for_its_owner_alone_and_taken_along(tmp_path) -> None:
    assert read_address(tmp_path) is None
    (tmp_path / "address").write_text("http://127.0.0.1:1")  # of a gateway that was killed
    with leave_address(tmp_path, "http://127.0.0.1:8000"):
        assert read_address(tmp_path) == "http://127.0.0.1:8000"
        assert mode(tmp_path / "address") == 0o600
    assert list(tmp_path.iterdir()) == []


def test_held_directory_is_told_apart_from_one_that_cannot_be_used(tmp_path) -> None:
    with hold_data_dir(tmp_path), pytest.raises(DataDirHeldError), hold_data_dir(tmp_path):
        pass
    with pytest.raises(StartError) as refusal, hold_data_dir(tmp_path / "none"):
        pass
    assert not isinstance(refusal.value, DataDirHeldError)


def test_lock_says_whose_it_is_and_forgets_it_with_the_next_holder(tmp_path) -> None:
    lock = DirectoryLock.lock(tmp_path, "abc")
    assert lock_owner(tmp_path) == LockOwner("abc", os.getpid())
    assert DirectoryLock.lock(tmp_path, "other") is None
    assert lock_owner(tmp_path).holder == "abc", "who is refused writes nothing"
    lock.close()
    with hold_data_dir(tmp_path):
        assert lock_owner(tmp_path) == LockOwner("")


def test_replaced_lock_is_another_file_and_the_old_one_frees_nothing(tmp_path) -> None:
    """A third gateway must not take the end of the first for the end of the second."""
    stopped = DirectoryLock.lock(tmp_path, "first")
    new = DirectoryLock.replacement(tmp_path, "second")
    assert lock_owner(tmp_path).holder == "first"
    new.seal()
    assert lock_owner(tmp_path).holder == "second"
    assert mode(tmp_path / "lock") == 0o600
    assert (stopped.is_in_place(), new.is_in_place()) == (False, True)
    with pytest.raises(LockReplacedError):
        stopped.seal()
    stopped.close()
    assert DirectoryLock.lock(tmp_path, "third") is None
    new.seal()  # once more does no harm
    new.close()
    third = DirectoryLock.lock(tmp_path, "third")
    third.seal()
    third.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_replacement_that_is_not_needed_leaves_nothing(tmp_path) -> None:
    with hold_data_dir(tmp_path):
        DirectoryLock.replacement(tmp_path, "second").close()
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
        assert DirectoryLock.lock(tmp_path) is None


def test_lock_that_is_replaced_between_opening_and_locking_is_tried_anew(tmp_path, monkeypatch) -> None:
    new = DirectoryLock.replacement(tmp_path, "second")
    flock, calls = fcntl.flock, []

    def replaced_first(descriptor, kind) -> None:
        if not calls:
            calls.append(1)
            new.seal()
        flock(descriptor, kind)

    monkeypatch.setattr(data_dir.fcntl, "flock", replaced_first)
    assert DirectoryLock.lock(tmp_path, "third") is None
    assert calls == [1]
    new.close()


@pytest.mark.parametrize("text", ["", "abc", "abc def", "\xff"])
def test_lock_file_without_an_owner_is_a_commands(tmp_path, text) -> None:
    (tmp_path / "lock").write_bytes(text.encode("latin-1"))
    assert lock_owner(tmp_path) == LockOwner("")


def test_address_of_the_one_that_took_over_stays(tmp_path) -> None:
    with leave_address(tmp_path, "http://127.0.0.1:8000"):
        (tmp_path / "address").write_text("http://127.0.0.1:8001\n")
    assert read_address(tmp_path) == "http://127.0.0.1:8001"

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gateway.data_dir import DirectoryLock
from gateway.stopped_holder import kill_stopped_holder
from tests.tools.waiting import wait_until_now

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

HOLD = (
    "import pathlib, sys, time; from gateway.data_dir import DirectoryLock\n"
    "lock = DirectoryLock.lock(pathlib.Path(sys.argv[1]), 'a'); print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_stopped_holder_is_ended_and_its_lock_is_free(tmp_path, holder) -> None:
    stop(holder)
    assert kill_stopped_holder(tmp_path, holder.pid)
    assert holder.wait(10) == -signal.SIGKILL
    lock = wait_until_now(lambda: DirectoryLock.lock(tmp_path))
    lock.close()


def test_holder_that_runs_is_left_alone(tmp_path, holder) -> None:
    assert not kill_stopped_holder(tmp_path, holder.pid)
    assert holder.poll() is None


def test_stopped_process_that_holds_another_lock_is_left_alone(tmp_path, holder) -> None:
    """The number in the file may be another process's by now."""
    stop(holder)
    (tmp_path / "other").mkdir()
    DirectoryLock.lock(tmp_path / "other").close()
    assert not kill_stopped_holder(tmp_path / "other", holder.pid)
    assert holder.poll() is None


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_number_that_is_nobodys_ends_nobody(tmp_path, pid) -> None:
    assert not kill_stopped_holder(tmp_path, pid)

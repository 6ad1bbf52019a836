"""What stands between the gateway and a ComfyUI, with a main.py of a few lines in its place."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.upstreams.launcher import comfyui_arguments, environment_for, is_ours, sweep
from tests.tools.gateway_process import is_alive
from tests.tools.waiting import wait_until_now

ROOT = Path(__file__).resolve().parents[3]
#: Answers with its arguments, as ComfyUI does; has a child of its own; says a lot; ends by the signal in its environment.
MAIN = """
import json, os, signal, socket, subprocess, sys
child = subprocess.Popen(["/bin/sleep", "60"])
print("child", child.pid, "saw", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
if "--fail" in sys.argv:
    sys.exit("no such GPU")
server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
os.makedirs(os.path.join(sys.argv[sys.argv.index("--temp-directory") + 1], "temp"))
os.path.isdir(sys.argv[sys.argv.index("--user-directory") + 1]) or sys.exit("no user directory")
argv = ["another's"] if "--another" in sys.argv else sys.argv
body = json.dumps({"system": {"argv": argv}}).encode()
while True:
    peer, _ = server.accept()
    request = peer.recv(65536)
    print(request.decode(), flush=True)
    peer.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + body)
    peer.close()
    if "--crash" in sys.argv:
        os.kill(os.getpid(), int(sys.argv[sys.argv.index("--crash") + 1]))
"""


@contextmanager
def launched(tmp_path, *arguments):
    """The launcher with this main.py, as the gateway starts it."""
    (tmp_path / "main.py").write_text(MAIN)
    # A bare interpreter starts in a third of the time.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    python.chmod(0o700)
    command = [sys.executable, "-S", "-m", "gateway.upstreams.launcher", "--python", str(python)]
    command += ["--checkout", str(tmp_path), "--device", "3", *(f"--argument={one}" for one in arguments)]
    with subprocess.Popen(
        [*command, "--directory", str(tmp_path / "own")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COMFYGATE_WORKER_TOKEN": "t0k"},
    ) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(20)


def ready(process):
    readable, _, _ = select.select([process.stdout], [], [], 20)
    assert readable, "it said nothing"
    line = process.stdout.readline()
    return json.loads(line) if line else None


def log_of(tmp_path):
    path = tmp_path / "own" / "log" / "comfyui.log"
    return path.read_text() if path.exists() else ""


def logged(tmp_path, words):
    """The log once it has these words: what keeps it is not who says that ComfyUI answers."""
    wait_until_now(lambda: words in log_of(tmp_path), what=words)
    return log_of(tmp_path)


def child_of(tmp_path):
    return int(logged(tmp_path, " saw ").split("child ")[1].split()[0])


def gone(*pids):
    return lambda: not any(is_alive(pid) for pid in pids)


def test_end_of_input_ends_it_with_all_it_started_and_its_temp_folder(tmp_path):
    with launched(tmp_path) as process:
        told = ready(process)
        child = child_of(tmp_path)
        assert is_alive(told["pid"])
        assert is_alive(child)
        assert " saw 3\n" in logged(tmp_path, "Authorization: Bearer t0k")
        process.stdin.close()
        assert process.wait(20) == 0
        wait_until_now(gone(told["pid"], child), what="the end of what was killed")
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["input", "log", "output", "user"]
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "own").rglob("*")} == {0}


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels tell no child that its parent died")
def test_it_ends_with_a_launcher_that_is_killed(tmp_path):
    with launched(tmp_path) as process:
        told = ready(process)
        child = child_of(tmp_path)
        process.kill()
        wait_until_now(gone(told["pid"]), what="the end of the program")
        os.kill(child, signal.SIGKILL)  # nobody is left who knows of it


def test_being_told_again_while_it_hears_it_does_not_stop_it_from_ending(tmp_path):
    """The kernel says that the gateway died once for each of its threads that the launcher was handed on to."""
    with launched(tmp_path) as process:
        told = ready(process)
        for _ in range(2_000):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGHUP)
        process.stdin.close()
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        wait_until_now(gone(told["pid"]), what="the end of what was killed")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM])
def test_how_it_died_is_how_the_launcher_dies(tmp_path, number):
    with launched(tmp_path, "--crash", str(int(number))) as process:
        ready(process)
        child = child_of(tmp_path)
        assert process.wait(20) == -number
        wait_until_now(gone(child), what="the end of what was killed")


def test_one_that_does_not_get_far_is_told_with_its_last_words(tmp_path):
    with launched(tmp_path, "--fail") as process:
        assert ready(process) is None
        assert process.wait(20) == 1
        assert process.stderr.read().decode().endswith("no such GPU\n")
        wait_until_now(gone(child_of(tmp_path)), what="the end of what was killed")


def test_what_answers_on_its_port_and_is_another_is_not_taken_for_it(tmp_path):
    with launched(tmp_path, "--another") as process:
        wait_until_now(lambda: log_of(tmp_path).count("GET /system_stats") > 1, what="a second question")
        assert select.select([process.stdout], [], [], 0)[0] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_arguments_that_keep_instances_apart_stand_behind_those_of_the_operator(tmp_path):
    words = comfyui_arguments(tmp_path, "cpu", 4711, 1100, ["--port", "80", "--fast"])
    assert words.index("--fast") < words.index("--cpu")
    assert words[len(words) - 1 - words[::-1].index("--port") + 1] == "4711"
    assert words[words.index("--database-url") + 1] == f"sqlite:///{tmp_path}/comfyui.db"
    assert "--cpu" not in comfyui_arguments(tmp_path, "0", 4711, 1100, [])


@pytest.mark.parametrize(("device", "seen"), [("2", "2"), ("GPU-8f3c", "GPU-8f3c"), ("cpu", "")])
def test_an_instance_sees_its_own_gpu_alone(device, seen):
    found = environment_for(device, {"CUDA_VISIBLE_DEVICES": "0,1,2", "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "A": "b"})
    assert (found["CUDA_VISIBLE_DEVICES"], found["HIP_VISIBLE_DEVICES"], found["A"]) == (seen, seen, "b")
    assert found["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST", "what the operator says stands"
    assert environment_for(device, {})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_what_is_old_goes_and_folders_left_empty_go_later(tmp_path):
    old, new = tmp_path / "input" / "gateway" / "old.png", tmp_path / "output" / "new.png"
    link = tmp_path / "output" / "link"
    outside = tmp_path / "user" / "kept.json"
    for path in (old, new, outside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1000.0, 1000.0) if path is not new else (3000.0, 3000.0))
    link.symlink_to(outside.parent)
    os.utime(link, (1000.0, 1000.0), follow_symlinks=False)
    assert sweep(tmp_path, 2000.0) == 2
    assert (old.exists(), new.exists(), link.is_symlink(), outside.exists()) == (False, True, False, True)
    assert old.parent.is_dir(), "somebody may be about to write into it"
    for folder in (old.parent, old.parent.parent):
        os.utime(folder, (1000.0, 1000.0))
    assert sweep(tmp_path, 2000.0) == 0
    assert not old.parent.exists()


@pytest.mark.parametrize(
    ("body", "ours"),
    [
        (b'{"system": {"argv": ["main.py", "--user-directory", "/d/user"]}}', True),
        (b'{"system": {"argv": ["main.py"]}}', False),
        (b'{"system": {}}', False),
        (b"[]", False),
        (b"<html>", False),
    ],
)
def test_an_answer_is_ours_when_it_names_our_directory(body, ours):
    assert is_ours(body, Path("/d")) is ours

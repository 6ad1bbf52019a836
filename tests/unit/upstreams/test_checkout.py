from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.upstreams import checkout
from gateway.upstreams.launcher import parse_arguments


def test_instances_are_called_by_their_device_and_count_up():
    assert checkout.names(["0", "1", "cpu", "cpu"]) == {
        "comfyui-0": "0",
        "comfyui-1": "1",
        "comfyui-cpu": "cpu",
        "comfyui-cpu.2": "cpu",
    }


@pytest.mark.parametrize("folder", checkout.ENVIRONMENTS)
def test_the_checkouts_own_python_comes_before_ours_and_the_chosen_one_before_both(tmp_path, folder):
    assert checkout.python_of(tmp_path, None) == Path(sys.executable)
    own = tmp_path / folder / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.symlink_to(sys.executable)
    assert checkout.python_of(tmp_path, None) == own, "not what it points to, which knows no packages"
    assert checkout.python_of(tmp_path, Path("/usr/bin/python9")) == Path("/usr/bin/python9")


def test_what_cannot_be_run_is_told_with_a_remedy(tmp_path):
    no_main, no_python = checkout.faults(tmp_path, tmp_path / "python")
    assert "GATEWAY_COMFYUI_DIR" in no_main
    assert "GATEWAY_COMFYUI_PYTHON" in no_python
    (tmp_path / "main.py").touch()
    assert list(checkout.faults(tmp_path, Path(sys.executable))) == []
    assert len(list(checkout.faults(tmp_path, tmp_path))) == 1, "a folder can be entered, and is no program"


def test_the_launcher_understands_what_it_is_told(tmp_path):
    command = checkout.launcher(
        Path("comfy"), Path("/py"), "1", tmp_path, max_upload_mib=7, arguments=["--lowvram", "--reserve-vram", "1 2"]
    )
    program, rest = command.arguments[:3], command.arguments[3:]
    assert program == (sys.executable, "-m", "gateway.upstreams.launcher")
    read = parse_arguments([*rest, "--directory", str(tmp_path)])
    assert (read.python, read.checkout, read.device) == (Path("/py"), Path("comfy").absolute(), "1")
    assert (read.max_upload_mib, read.argument) == (7, ["--lowvram", "--reserve-vram", "1 2"])
    assert command.log_file == str(tmp_path / "log" / "comfyui.log")
    assert (command.engine, command.start_seconds) == ("comfyui", 600.0)

"""``comfygate nodes install`` (``cli/nodes.py``)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from gateway.cli import nodes
from gateway.cli.app import main
from gateway.cli.nodes import Done, install, pack
from gateway.data_dir import StartError


@pytest.fixture
def comfyui(tmp_path):
    folder = tmp_path / "ComfyUI"
    (folder / "custom_nodes").mkdir(parents=True)
    (folder / "main.py").write_text("")
    return folder


@pytest.fixture
def place(comfyui):
    return comfyui / "custom_nodes" / "comfygate_nodes"


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_pack_is_copied_whole_and_is_no_link(comfyui, place):
    assert install(comfyui) == (Done.INSTALLED, place)
    assert contents(place) == contents(pack())
    assert not any(path.is_symlink() for path in [place, *place.rglob("*")])
    assert not list(place.rglob("__pycache__"))
    assert os.listdir(place.parent) == ["comfygate_nodes"]  # noqa: PTH208 - names are wanted, not paths


def test_copy_works_where_the_gateway_is_not(comfyui, place, tmp_path):
    """As ComfyUI loads it: under a name of its own, from that folder alone."""
    install(comfyui)
    script = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('pack', sys.argv[1] + '/__init__.py')\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['pack'] = module\n"
        "spec.loader.exec_module(module)\n"
        "print(sorted(module.NODE_CLASS_MAPPINGS))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(place)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "['GatewayCpuFaceSwap', 'GatewayFaceDetect', 'GatewayUploadOutput']"


def test_second_installation_changes_nothing(comfyui, place):
    install(comfyui)
    (place / "__pycache__").mkdir()  # as ComfyUI leaves it
    before = place.stat().st_ino
    assert install(comfyui) == (Done.UNCHANGED, place)
    assert place.stat().st_ino == before


def test_earlier_copy_is_replaced_whole(comfyui, place):
    install(comfyui)
    (place / "swap.py").write_text("an earlier version")
    (place / "gone_since.py").write_text("")
    assert install(comfyui) == (Done.UPDATED, place)
    assert contents(place) == contents(pack())


def test_what_a_killed_installation_left_is_cleared_away(comfyui, place):
    shutil.copytree(pack(), place.with_name("comfygate_nodes.new.disabled"))
    shutil.copytree(pack(), place.with_name("comfygate_nodes.old.disabled"))
    assert install(comfyui)[0] is Done.INSTALLED
    assert [path.name for path in place.parent.iterdir()] == ["comfygate_nodes"]


def test_earlier_copy_stays_when_the_new_one_cannot_be_put(comfyui, place, monkeypatch):
    install(comfyui)
    (place / "swap.py").write_text("an earlier version")
    before = contents(place)

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nodes.shutil, "copytree", fail)
    with pytest.raises(StartError, match="No space left"):
        install(comfyui)
    assert contents(place) == before
    assert [path.name for path in place.parent.iterdir()] == ["comfygate_nodes"]


@pytest.mark.parametrize("missing", ["main.py", "custom_nodes"])
def test_folder_that_is_no_comfyui_is_refused(comfyui, missing):
    path = comfyui / missing
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(StartError, match="is no ComfyUI"):
        install(comfyui)
    assert missing not in [path.name for path in comfyui.iterdir()]


def as_somebody_elses(place):
    place.mkdir()
    (place / "__init__.py").write_text("theirs")


def as_a_link(place):
    place.symlink_to(pack())


def as_a_file(place):
    place.write_text("")


@pytest.mark.parametrize("other", [as_somebody_elses, as_a_link, as_a_file])
def test_what_is_not_our_copy_is_left_alone(comfyui, place, other):
    other(place)
    with pytest.raises(StartError, match="move it away first"):
        install(comfyui)
    assert place.is_symlink() == (other is as_a_link)
    if other is as_somebody_elses:
        assert contents(place) == {"__init__.py": b"theirs"}


def test_command_says_what_to_do_next(comfyui, place, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["nodes", "install", str(comfyui)])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert str(place) in said
    assert "restart that ComfyUI" in said


def test_command_refuses_with_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["nodes", "install", str(tmp_path)])
    assert ended.value.code == 1
    assert "is no ComfyUI" in capsys.readouterr().err

"""What the doctor says of a checkout that the gateway runs; a script stands in for its Python."""

from __future__ import annotations

import json

import pytest

from gateway.cli.checks_comfyui import check_comfyui
from gateway.cli.findings import Level
from gateway.settings import from_mapping

WELL = {"version": "3.12.3", "missing": [], "gpus": ["NVIDIA L4", "NVIDIA L4"]}


@pytest.fixture
def checkout(tmp_path):
    """Findings about a checkout whose Python answers this, by level."""

    async def findings(answer=WELL, gpus="0", status=0):
        python = tmp_path / "python"
        said = answer if isinstance(answer, str) else json.dumps(answer)
        python.write_text(f"#!/bin/sh\necho \"$3\" > {tmp_path}/asked\ncat <<'END'\n{said}\nEND\nexit {status}\n")
        python.chmod(0o700)
        settings = from_mapping({"comfyui_dir": tmp_path, "comfyui_python": python, "comfyui_gpus": gpus})
        found = [finding async for finding in check_comfyui(settings)]
        assert all(finding.remedy for finding in found if finding.level is not Level.OK)
        return {level: [one.sentence for one in found if one.level is level] for level in Level}

    (tmp_path / "main.py").touch()
    return findings


async def test_without_a_checkout_nothing_is_said():
    assert [finding async for finding in check_comfyui(from_mapping({}))] == []


async def test_gpus_are_named_as_pytorch_names_them(checkout, tmp_path):
    found = await checkout(gpus="0,1")
    assert found[Level.FAIL] == found[Level.WARN] == []
    assert "GPU 1 is NVIDIA L4" in found[Level.OK]
    assert (tmp_path / "asked").read_text() == "gpus\n"


async def test_a_gpu_that_is_not_there_is_a_fault(checkout):
    assert (await checkout(gpus="1,2"))[Level.FAIL] == ["there is no GPU 2: PyTorch sees 2"]


async def test_a_processor_is_slow_and_no_gpu_is_asked_for(checkout, tmp_path):
    found = await checkout(WELL | {"gpus": []}, gpus="cpu,cpu")
    assert (len(found[Level.WARN]), found[Level.FAIL]) == (1, [])
    assert (tmp_path / "asked").read_text() == "\n"


@pytest.mark.parametrize(
    ("answer", "sentence"), [("no module named json", "does not run"), (WELL | {"missing": ["torch"]}, "lacks torch")]
)
async def test_a_python_without_what_comfyui_needs_is_a_fault(checkout, answer, sentence):
    [fault] = (await checkout(answer))[Level.FAIL]
    assert sentence in fault


async def test_a_folder_without_main_py_is_a_fault_and_its_python_is_not_run(checkout, tmp_path):
    (tmp_path / "main.py").unlink()
    [fault] = (await checkout())[Level.FAIL]
    assert "holds no main.py" in fault
    assert not (tmp_path / "asked").exists()

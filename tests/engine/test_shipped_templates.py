"""What we ship fits together: the templates and the embedded worker's own node tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.comfy.graph import allowed_values
from gateway.embedded.files import Folders
from gateway.embedded.registry import REGISTRY
from gateway.engine.template_files import shipped_workflows
from gateway.fitness import check
from gateway.interfaces import Capabilities
from gateway.lacks import is_left_out, missing_on
from gateway.template import load_template


@pytest.fixture
def worker(tmp_path: Path):
    """The embedded worker's node tables."""
    folders = Folders(tmp_path)
    folders.prepare()
    return {node.name: node.object_info(folders) for node in REGISTRY.values()}


def shipped(name):
    folder = shipped_workflows() / name
    return load_template(name, (folder / "template.toml").read_text(), (folder / "graph.json").read_text())


def capabilities(object_info):
    return Capabilities({name: allowed_values(entry) for name, entry in object_info.items()}, None, object_info)


@pytest.mark.parametrize("name", sorted(folder.name for folder in shipped_workflows().iterdir() if folder.is_dir()))
def test_who_sends_a_text_of_another_form_is_told_the_form(name):
    for parameter in shipped(name).parameters.values():
        assert (parameter.entry.pattern is None) == (parameter.entry.pattern_means is None), parameter.name


@pytest.mark.parametrize("name", ["faceswap_gif", "faceswap_image", "faceswap_video", "image_upscale_lanczos"])
def test_embedded_worker_can_run_what_it_is_for(name, worker):
    assert check(shipped(name), worker) == []
    assert missing_on(shipped(name), capabilities(worker)) == ()
    assert allowed_values(worker["ReActorFaceSwap"])["swap_model"] == ("cpu-preview",)


@pytest.mark.parametrize("name", ["image_creation", "image_upscale_model", "video_creation"])
def test_embedded_worker_imitates_no_model_and_is_not_blamed_for_it(name, worker):
    template = shipped(name)
    problems = check(template, worker)
    assert problems
    assert all(is_left_out(template, problem) for problem in problems)
    assert missing_on(template, capabilities(worker))


def test_every_other_problem_of_an_optional_template_is_a_fault(worker):
    template = shipped("image_upscale_model")
    renamed = json.loads(json.dumps(worker).replace('"filename_prefix"', '"prefix"'))
    assert not all(is_left_out(template, problem) for problem in check(template, renamed))
    assert not any(is_left_out(shipped("faceswap_image"), problem) for problem in check(template, worker))

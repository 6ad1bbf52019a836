"""The folder of templates on disk (``engine/template_files.py``)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gateway.engine import template_files
from gateway.engine.template_files import FOLDER, marks, read_folder, shipped_workflows, workflows_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(
        ROOT / "workflows",
        tmp_path / "workflows",
        ignore=shutil.ignore_patterns("*_creation", "image_*", "face_detect"),
    )


def write(path):
    path.write_text(path.read_text() + "\n")


def replace_keeping_size_and_time(path):
    """As rsync and cp -p do: another file, of which neither size nor time tells."""
    before = path.stat()
    fresh = path.with_suffix(".new")
    fresh.write_bytes(b" " * before.st_size)
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.rename(path)


@pytest.mark.parametrize("file", ["template.toml", "graph.json"])
@pytest.mark.parametrize("change", [write, replace_keeping_size_and_time, Path.unlink])
def test_any_change_of_a_file_changes_the_mark_of_its_template_alone(folder, file, change):
    before = marks(folder)
    assert marks(folder) == before
    change(folder / "faceswap_image" / file)
    after = marks(folder)
    assert after["faceswap_image"] != before["faceswap_image"]
    assert after["faceswap_video"] == before["faceswap_video"]


def test_files_that_the_gateway_does_not_read_change_no_mark(folder):
    before = marks(folder)
    write(folder / "faceswap_image" / "README.md")
    (folder / "faceswap_image" / ".graph.json.swp").write_text("an editor's")
    assert marks(folder) == before


def test_folder_that_cannot_be_listed_has_one_mark_and_one_problem(tmp_path):
    assert marks(tmp_path / "nowhere").keys() == {FOLDER}
    reading = read_folder(tmp_path / "nowhere")
    assert reading.templates == {}
    assert reading.problems.keys() == {FOLDER}


def test_reading_keeps_the_marks_from_before_it(folder, monkeypatch):
    """What is written while it is read must show as a change at the next look."""
    real = template_files.load_template

    def load_while_it_is_edited(name, toml_text, graph_text):
        write(folder / name / "graph.json")
        return real(name, toml_text, graph_text)

    monkeypatch.setattr(template_files, "load_template", load_while_it_is_edited)
    reading = read_folder(folder)
    assert reading.templates.keys() == {"faceswap_gif", "faceswap_image", "faceswap_video"}
    now = marks(folder)
    assert all(reading.marks[name] != now[name] for name in now)


def test_templates_beyond_the_limit_are_named_and_left_out(folder, monkeypatch):
    monkeypatch.setattr(template_files, "MAX_TEMPLATES", 2)
    reading = read_folder(folder)
    assert reading.templates.keys() == {"faceswap_gif", "faceswap_image"}
    assert "more than 2 templates" in reading.problems["faceswap_video"].message
    before = marks(folder)
    shutil.rmtree(folder / "faceswap_image")
    assert marks(folder)["faceswap_video"] != before["faceswap_video"], "its turn has come, so it must be read"


def test_own_workflows_stand_before_the_shipped_ones(tmp_path):
    assert workflows_folder(None, tmp_path) == shipped_workflows()
    (tmp_path / "workflows").mkdir()
    assert workflows_folder(None, tmp_path) == tmp_path / "workflows"
    assert workflows_folder(tmp_path / "elsewhere", tmp_path) == tmp_path / "elsewhere"


def test_shipped_workflows_of_a_checkout_lie_beside_the_package(monkeypatch, tmp_path):
    assert (shipped_workflows() / "faceswap_video" / "template.toml").is_file()
    (tmp_path / "gateway" / "workflows").mkdir(parents=True)
    monkeypatch.setattr(template_files.importlib.resources, "files", lambda _: tmp_path / "gateway")
    assert shipped_workflows() == tmp_path / "gateway" / "workflows"

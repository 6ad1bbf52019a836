"""``comfygate templates`` (``cli/templates.py``), against a stand-in that serves what a real ComfyUI said of its nodes."""

from __future__ import annotations

import copy
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.cli.app import main
from gateway.engine.catalog import Catalog

ROOT = Path(__file__).resolve().parents[3]
REAL = json.loads((ROOT / "tests/data/object_info/real.json").read_text(encoding="utf-8"))
EDITOR_FORMAT = '{"nodes": [], "links": [], "version": 0.4}'


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    """No settings of whoever runs the tests, and no ./workflows."""
    for name in ("GATEWAY_UPSTREAMS", "GATEWAY_WORKFLOWS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@contextmanager
def standin(object_info, *, status=200, body=None):
    """A ComfyUI of which there is nothing but GET /object_info; its base URL."""
    answer = json.dumps(object_info).encode() if body is None else body

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/object_info"
            self.send_response(status if found else 404)
            self.send_header("Content-Length", str(len(answer) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def check(capsys):
    """Run the command; its exit status and what it said."""

    def run(*urls):
        arguments = [word for url in urls for word in ("--upstream", url)]
        with pytest.raises(SystemExit) as ended:
            main(["templates", "check", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


def rows(output, marker):
    """Cells of each row of a table that holds all of these words."""
    lines = [line for line in output.splitlines() if "│" in line and all(word in line for word in marker)]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.fixture
def workflows(tmp_path, monkeypatch):
    """A copy of the shipped templates that is the one checked."""
    folder = shutil.copytree(ROOT / "workflows", tmp_path / "mine")
    monkeypatch.setenv("GATEWAY_WORKFLOWS_DIR", str(folder))
    return folder


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ------------------------------------------------------------------------------------------------------ what upstreams lack


def test_real_nodes_lack_nothing_that_the_shipped_templates_need(check):
    with standin(REAL) as url:
        code, said = check(url)
    assert code == 0
    assert "Everything fits on 1 of 1 upstreams" in said
    assert "Problems" not in said
    assert {row[3] for row in rows(said, ["faceswap_"])} == {"-"}


def test_optional_template_that_lacks_nodes_or_models_is_told_and_is_no_problem(check):
    info = {name: entry for name, entry in copy.deepcopy(REAL).items() if name != "KSampler"}
    info["UpscaleModelLoader"]["input"]["required"]["model_name"][1]["options"] = []
    with standin(info) as url:
        code, said = check(url)
    assert (code, "Problems" in said) == (0, False)
    assert "Optional, and not on every one of them: image_creation, image_upscale_model." in said
    assert {row[3] for row in rows(said, ["image_creation", "KSampler"])} == {url}


def test_optional_template_that_does_not_fit_the_nodes_that_are_there_is_a_problem(check):
    info = copy.deepcopy(REAL)
    del info["KSampler"]["input"]["required"]["cfg"]
    with standin(info) as url:
        code, said = check(url)
    assert code == 1
    assert rows(said, ["image_creation", "input unknown"])


def test_table_tells_every_class_and_model_that_a_template_needs(check):
    with standin(REAL) as url:
        _, said = check(url)
    for template, class_type in (("faceswap_video", "VHS_VideoCombine"), ("faceswap_image", "SaveImage")):
        assert rows(said, [template, "class", class_type])
    (model,) = rows(said, ["faceswap_video", "model", "boost_model"])
    assert "GPEN-BFR-512.onnx" in model[2]
    assert "else none" in model[2]


def drop_class(info):
    del info["ReActorFaceBoost"]


def drop_models(info):
    info["ReActorFaceSwap"]["input"]["required"]["swap_model"][0] = ["someone_elses.onnx"]


def drop_choice(info):
    info["ReActorFaceSwap"]["input"]["required"]["facedetection"][0] = ["only_this_one"]


def drop_format(info):
    formats = info["VHS_VideoCombine"]["input"]["required"]["format"]
    formats[0] = ["image/gif"]


def rename_input(info):
    required = info["ReActorFaceSwap"]["input"]["required"]
    required["target_faces_index"] = required.pop("input_faces_index")


def rename_optional_input(info):
    section = info["ReActorFaceSwap"]["input"]["optional"]
    section["source_picture"] = section.pop("source_image")


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (drop_class, ["faceswap_video", "class missing", "Face boost (ReActorFaceBoost)"]),
        (drop_models, ["faceswap_image", "model missing", "Swap face", "swap_model", "none of inswapper_128.onnx"]),
        (drop_choice, ["faceswap_image", "value not offered", "Swap face", "facedetection", "'retinaface_resnet50'"]),
        (drop_format, ["faceswap_video", "value not offered", "Result", "format"]),
        (rename_input, ["faceswap_video", "input unknown", "Swap face", "input_faces_index", "renamed"]),
        (rename_input, ["faceswap_video", "input missing", "Swap face", "target_faces_index"]),
        (rename_optional_input, ["faceswap_image", "input unknown", "Swap face", "source_image", "renamed"]),
    ],
)
def test_each_fault_of_an_upstream_is_found_and_the_other_upstream_is_not_blamed(check, plant, found):
    info = copy.deepcopy(REAL)
    plant(info)
    with standin(REAL) as sound, standin(info) as faulty:
        code, said = check(sound, faulty)
    assert code == 1
    (row,) = rows(said, found)
    assert row[1] == faulty
    assert not rows(said, [sound])
    assert {row[3] for row in rows(said, ["class"]) if row[1] == "class"} <= {"-", faulty}


def test_what_is_missing_is_marked_where_it_is_needed(check):
    info = copy.deepcopy(REAL)
    drop_class(info)
    drop_models(info)
    with standin(info) as url:
        _, said = check(url)
    assert rows(said, ["faceswap_video", " class ", "ReActorFaceBoost"])[0][3] == url
    assert rows(said, ["faceswap_video", " model ", "swap_model:"])[0][3] == url
    assert rows(said, ["faceswap_video", " model ", "boost_model:"])[0][3] == url
    assert rows(said, ["faceswap_video", " class ", "VHS_LoadVideo"])[0][3] == "-"


def test_upstreams_are_those_of_the_settings_unless_others_are_named(check, monkeypatch):
    info = copy.deepcopy(REAL)
    drop_class(info)
    with standin(REAL) as sound, standin(info) as faulty:
        monkeypatch.setenv("GATEWAY_UPSTREAMS", faulty)
        assert check()[0] == 1
        assert check(sound)[0] == 0


# -------------------------------------------------------------------------------------------- what templates lack themselves


def lose_title(folder):
    rewrite(folder / "faceswap_image" / "graph.json", '"Swap face"', '"ReActor"')


def save_in_the_editors_format(folder):
    (folder / "faceswap_image" / "graph.json").write_text(EDITOR_FORMAT)


def lose_input(folder):
    rewrite(folder / "faceswap_image" / "graph.json", '"swap_model"', '"swap_modle"')


def forget_the_graph(folder):
    (folder / "faceswap_image" / "graph.json").unlink()


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (lose_title, ["cannot be loaded", "Swap face", "no node of this title"]),
        (save_in_the_editors_format, ["cannot be loaded", "export it with Save (API format)"]),
        (lose_input, ["cannot be loaded", "Swap face", "swap_model", "no such input"]),
        (forget_the_graph, ["cannot be loaded", "graph.json cannot be read"]),
    ],
)
def test_each_fault_of_a_template_is_found_without_an_upstream(check, workflows, plant, found):
    plant(workflows)
    code, said = check()
    assert code == 1
    assert rows(said, ["faceswap_image", *found])
    assert not rows(said, ["faceswap_video", "cannot be loaded"])


def test_templates_are_checked_by_themselves_where_there_is_no_upstream(check, workflows):
    code, said = check()
    assert code == 0
    assert "no upstream was asked" in said
    assert {row[3] for row in rows(said, ["faceswap_"])} == {"not asked"}


@pytest.mark.parametrize("exists", [True, False])
def test_folder_without_a_template_is_a_problem(check, workflows, exists):
    shutil.rmtree(workflows)
    if exists:
        workflows.mkdir()
    code, said = check()
    assert code == 1
    assert "There is no template" in said or "cannot be read" in said


# ------------------------------------------------------------------------------------------------ upstreams that say nothing


def test_unreachable_upstream_is_one_sentence_and_the_others_are_checked(check):
    with standin(REAL) as gone:
        pass
    with standin(REAL) as sound:
        code, said = check(gone, sound)
    assert code == 1
    assert f"{gone} does not answer" in said
    assert "Everything fits on 1 of 2 upstreams" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (401, b"", "wants credentials"),
        (404, b"", "is it a ComfyUI?"),
        (200, b"<html>", "is it a ComfyUI?"),
        (200, b"{}", "is it a ComfyUI?"),
    ],
)
def test_what_answers_but_is_no_comfyui_is_one_sentence(check, status, body, sentence):
    with standin(None, status=status, body=body) as url:
        code, said = check(url)
    assert code == 1
    assert sentence in said
    assert "by themselves are sound" in said


def test_credentials_in_a_url_are_never_shown(check):
    info = copy.deepcopy(REAL)
    drop_class(info)
    with standin(info) as url:
        code, said = check(url.replace("://", "://someone:hush-hush@"))
    assert code == 1
    assert url in said
    assert "hush-hush" not in said


def test_url_that_is_none_is_refused_with_a_sentence(check):
    code, said = check("ftp://10.0.0.5")
    assert code == 1
    assert "must begin with http" in said


# -------------------------------------------------------------------------------------------------------------- copying


class Shelf:
    async def save_template(self, *arguments, now):
        pass


class Clock:
    def now(self):
        return 0.0


async def test_copied_templates_serve_as_they_are(tmp_path, capsys):
    main_ends_well(["templates", "init", "mine/templates"])
    assert "GATEWAY_WORKFLOWS_DIR" in capsys.readouterr().out
    catalog = Catalog(tmp_path / "mine" / "templates", Shelf(), Clock())
    await catalog.load()
    assert catalog.problems() == {}
    shipped = sorted(path.name for path in (ROOT / "workflows").iterdir() if path.is_dir())
    assert list(catalog.names()) == shipped
    assert sorted(path.name for path in (tmp_path / "mine" / "templates").iterdir()) == shipped


def main_ends_well(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_copying_overwrites_nothing_and_then_copies_nothing(tmp_path, capsys):
    mine = tmp_path / "faceswap_video"
    mine.mkdir()
    (mine / "graph.json").write_text("my own")
    with pytest.raises(SystemExit) as ended:
        main(["templates", "init", str(tmp_path)])
    assert ended.value.code == 1
    assert "faceswap_video already" in capsys.readouterr().err
    assert (mine / "graph.json").read_text() == "my own"
    assert [path.name for path in tmp_path.iterdir()] == ["faceswap_video"]


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["templates", "init", str(tmp_path / "file" / "below")])
    assert ended.value.code == 1
    assert "cannot be written" in capsys.readouterr().err

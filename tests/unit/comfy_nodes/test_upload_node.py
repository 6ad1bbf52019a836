"""What the node takes for its file, what it reports, and that nothing of it can fail a prompt that was made well."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from comfy_nodes import upload_node
from comfy_nodes.upload_node import NOT_ASKED, REPORT, GatewayUploadOutput, Places, run_upload
from comfy_nodes.uploading import FAILED, HOSTS_VARIABLE, UPLOADED, Sent

URL = "https://bucket.example.com/key?X-Signature=s3cret"
LISTED = {HOSTS_VARIABLE: "bucket.example.com"}


@pytest.fixture
def places(tmp_path):
    roots = {"output": str(tmp_path / "output"), "temp": str(tmp_path / "temp")}
    for root in roots.values():
        Path(root).mkdir()

    def save_path(prefix, width, height):
        path = Path(roots["output"]) / f"{prefix}_00001_"
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    return Places(roots, save_path)


@pytest.fixture
def sent(monkeypatch):
    """What was sent: (bytes, target, content type)."""
    found = []

    def send(path, target, *, content_type, on_tick, check_interrupted):
        data = Path(path).read_bytes()
        found.append((data, target, content_type))
        return Sent(UPLOADED, len(data), hashlib.sha256(data).hexdigest(), "")

    monkeypatch.setattr(upload_node, "send", send)
    return found


def video(places, kind="output", data=b"video"):
    path = Path(places.roots[kind]) / "gateway" / "id" / "p" / "out_00001-audio.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return (True, [str(path.with_name("out_00001.mp4")), str(path)])


@pytest.mark.parametrize("kind", ["output", "temp"])
def test_the_last_file_of_a_video_goes_and_is_named_as_comfyui_names_it(places, sent, kind):
    inputs = {"url": URL, "filenames": video(places, kind), "content_type": "video/mp4"}
    assert run_upload(inputs, places, LISTED) == {
        "filename": "out_00001-audio.mp4",
        "subfolder": "gateway/id/p",
        "type": kind,
        "status": UPLOADED,
        "size_bytes": 5,
        "sha256": hashlib.sha256(b"video").hexdigest(),
        "reason": "",
    }
    [(data, target, content_type)] = sent
    assert (data, target.host, content_type) == (b"video", "bucket.example.com", "video/mp4")


@pytest.mark.parametrize("make", [lambda p: p, lambda p: (p / 255).astype(np.float32)])
def test_a_picture_goes_as_png_with_nothing_beside_it(places, sent, make):
    picture = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    report = run_upload({"url": URL, "images": make(picture), "filename_prefix": "gateway/x"}, places, LISTED)
    assert (report["status"], report["subfolder"], report["filename"]) == (UPLOADED, "gateway", "x_00001_.png")
    with Image.open(io.BytesIO(sent[0][0])) as found:
        assert np.array_equal(np.asarray(found), picture[0])
        assert found.info == {}


def test_without_a_url_nothing_is_sent_and_the_file_is_told(places, sent):
    report = run_upload({"url": "", "filenames": video(places)}, places, LISTED)
    assert (report["status"], report["size_bytes"], report["filename"]) == (NOT_ASKED, 5, "out_00001-audio.mp4")
    assert sent == []


@pytest.mark.parametrize("environment", [{}, {HOSTS_VARIABLE: "other.example.com"}])
def test_a_url_that_is_not_listed_fails_the_upload_and_not_the_prompt(places, sent, environment):
    report = run_upload({"url": URL, "filenames": video(places)}, places, environment)
    assert (report["status"], report["filename"]) == (FAILED, "out_00001-audio.mp4")
    assert HOSTS_VARIABLE in report["reason"]
    assert "s3cret" not in str(report)
    assert sent == []


@pytest.mark.parametrize("error", [PermissionError("/secret/path"), UnicodeError("label too long")])
def test_what_goes_wrong_with_the_disk_or_a_name_fails_the_upload_and_not_the_prompt(places, monkeypatch, error):
    def send(*_, **__):
        raise error

    monkeypatch.setattr(upload_node, "send", send)
    path = Path(places.roots["output"]) / "a.mp4"
    path.write_bytes(b"video")
    report = run_upload({"url": URL, "filenames": (True, [str(path)])}, places, LISTED)
    assert (report["status"], report["filename"]) == (FAILED, "a.mp4")
    assert report["reason"] == f"it could not be sent ({type(error).__name__})"


def test_a_path_from_elsewhere_is_neither_sent_nor_told(places, sent, tmp_path):
    (tmp_path / "secret.txt").write_text("not yours")
    report = run_upload({"url": URL, "filenames": (True, [str(tmp_path / "secret.txt")])}, places, LISTED)
    assert (report["status"], report["filename"], report["size_bytes"]) == (FAILED, "", 0)
    assert "secret" not in str(report)
    assert sent == []


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "either"),
        ({"filenames": (True, ["x"]), "images": np.zeros((1, 2, 2, 3))}, "either"),
        ({"images": np.zeros((2, 2, 2, 3))}, "these are 2"),
        ({"filenames": (True, [])}, "no file"),
    ],
)
def test_a_graph_that_gives_it_no_one_file_is_told_so(places, sent, inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        run_upload({"url": URL, **inputs}, places, LISTED)
    assert sent == []


def test_on_comfyui_it_asks_for_its_folders_and_reports_in_the_history(places, sent, monkeypatch):
    folders = SimpleNamespace(
        get_output_directory=lambda: places.roots["output"],
        get_temp_directory=lambda: places.roots["temp"],
        get_save_image_path=lambda prefix, folder, width, height: (folder, f"{prefix}-{width}x{height}", 7, "", prefix),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folders)
    monkeypatch.setenv(HOSTS_VARIABLE, "bucket.example.com")
    told = GatewayUploadOutput().execute(url=URL, images=np.zeros((1, 2, 3, 3), np.float32), filename_prefix="p")
    [report] = told["ui"][REPORT]
    assert (report["status"], report["filename"]) == (UPLOADED, "p-3x2_00007_.png")
    assert set(told) == {"ui"}
    assert GatewayUploadOutput.OUTPUT_NODE
    assert GatewayUploadOutput.INPUT_TYPES()["required"]["url"][0] == "STRING"

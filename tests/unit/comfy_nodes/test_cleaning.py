"""What a gateway may have deleted on a ComfyUI: its own plain files, and nothing that any name could be bent to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_nodes import cleaning
from comfy_nodes.cleaning import FAILED, GONE, REFUSED, WAS_NOT_THERE, NotOursError, clean, own_files, parts_of

OURS, THEIRS = "a1b2c3d4e5f60718", "ffffffffffffffff"
TRAVERSALS = json.loads((Path(__file__).parents[2] / "corpus" / "traversal.json").read_text())
#: As this system deletes, and as one does where folders cannot be held open.
WAYS = ["by_descriptor", "by_path"]


@pytest.fixture(params=WAYS)
def roots(request, tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "_HAS_DESCRIPTORS", request.param == "by_descriptor")
    found = {kind: str(tmp_path / "ComfyUI" / kind) for kind in cleaning.KINDS}
    for root in found.values():
        Path(root).mkdir(parents=True)
    return found


def put(roots, kind, subfolder, name):
    path = Path(roots[kind]) / subfolder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"face")
    return path


def everything(roots):
    return sorted(str(path) for root in roots.values() for path in Path(root).rglob("*") if not path.is_dir())


def test_own_files_go_with_the_folders_that_they_leave_empty_and_the_own_folder_stays(roots):
    files = [
        ("input", f"gateway/{OURS}", "ab.png"),
        ("output", f"gateway/{OURS}/prompt-1/out", "1_00001_.png"),
        ("output", f"gateway/{OURS}/prompt-2", "out_00001-audio.mp4"),
        ("temp", f"gateway/{OURS}/prompt-1", "x.webp"),
    ]
    for file in files:
        put(roots, *file)
    kept = put(roots, "output", f"gateway/{OURS}/prompt-2", "out_00002_.mp4")
    assert clean(roots, OURS, files) == [GONE] * 4
    assert everything(roots) == [str(kept)]
    assert [path.name for path in (Path(roots["output"]) / "gateway" / OURS).iterdir()] == ["prompt-2"]
    assert (Path(roots["input"]) / "gateway" / OURS).is_dir()
    assert clean(roots, OURS, files[:1]) == [WAS_NOT_THERE]


@pytest.mark.parametrize(
    "file",
    [
        ("input", "", "portrait.png"),
        ("input", "gateway", "portrait.png"),
        ("input", f"gateway/{THEIRS}", "portrait.png"),
        ("input", f"gateway/{OURS}/../{THEIRS}", "portrait.png"),
        ("input", f"gateway/{OURS}", f"../{THEIRS}/portrait.png"),
        ("input", f"gateway/{OURS}/..", "portrait.png"),
        ("input", f"/gateway/{OURS}", "portrait.png"),
        ("input", f"gateway\\{OURS}", "portrait.png"),
        ("input", f"gateway//{OURS}", "portrait.png"),
        ("input", f"Gateway/{OURS}", "portrait.png"),
        ("user", f"gateway/{OURS}", "portrait.png"),
        ("input", f"gateway/{OURS}", "con.png"),
        ("input", f"gateway/{OURS}", "NUL"),
        ("input", f"gateway/{OURS}", "COM1 .txt"),
        ("input", f"gateway/{OURS}", "portrait.png."),
        ("input", f"gateway/{OURS}", "portrait.png "),
        ("input", f"gateway/{OURS}", "portrait.png::$DATA"),
        ("input", f"gateway/{OURS}", "x" * 256),
        ("input", f"gateway/{OURS}/" + "/".join("abcdefg"), "portrait.png"),
    ],
)
def test_what_is_not_ours_by_its_name_is_refused_without_a_look(roots, file):
    others = [put(roots, "input", folder, "portrait.png") for folder in ("", "gateway", f"gateway/{THEIRS}")]
    assert clean(roots, OURS, [file]) == [REFUSED]
    assert everything(roots) == sorted(str(path) for path in others)


def test_no_known_way_out_leads_out(roots, tmp_path):
    outside = tmp_path / "secret.txt"
    outside.write_text("not yours")
    theirs = put(roots, "input", f"gateway/{THEIRS}", "portrait.png")
    for word in TRAVERSALS:
        answers = clean(roots, OURS, [("input", f"gateway/{OURS}/{word}", "x"), ("input", f"gateway/{OURS}", word)])
        assert set(answers) <= {REFUSED, WAS_NOT_THERE}, word
    assert outside.exists()
    assert theirs.exists()


@given(subfolder=st.text(), name=st.text())
def test_whatever_is_taken_lies_in_the_own_folder(subfolder, name):
    try:
        parts = parts_of(OURS, ("output", f"gateway/{OURS}/{subfolder}", name))
    except NotOursError:
        return
    path = "/".join(("/top", *parts))
    assert path.startswith(f"/top/gateway/{OURS}/")
    assert path == os.path.normpath(path)


def test_links_are_neither_followed_nor_deleted_nor_told_of(roots, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "portrait.png").write_bytes(b"somebody's")
    own = Path(roots["input"]) / "gateway" / OURS
    own.mkdir(parents=True)
    (own / "link.png").symlink_to(outside / "portrait.png")
    (own / "folder").symlink_to(outside)
    asked = [("input", f"gateway/{OURS}", "link.png"), ("input", f"gateway/{OURS}/folder", "portrait.png")]
    assert clean(roots, OURS, asked) == [REFUSED, REFUSED]
    assert own_files(roots, OURS) == ([], False)
    assert (outside / "portrait.png").exists()
    assert (own / "link.png").is_symlink()


def test_an_own_folder_that_is_a_link_is_not_ours(roots, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "portrait.png").write_bytes(b"somebody's")
    (Path(roots["input"]) / "gateway").mkdir()
    (Path(roots["input"]) / "gateway" / OURS).symlink_to(tmp_path / "outside")
    assert clean(roots, OURS, [("input", f"gateway/{OURS}", "portrait.png")]) == [REFUSED]
    assert own_files(roots, OURS) == ([], False)
    assert (tmp_path / "outside" / "portrait.png").exists()


def test_a_root_that_is_a_link_is_where_the_operator_keeps_the_files(roots, tmp_path):
    disk = tmp_path / "large disk"
    Path(roots["output"]).rename(disk)
    Path(roots["output"]).symlink_to(disk)
    put(roots, "output", f"gateway/{OURS}/p", "out.png")
    assert own_files(roots, OURS)[0] == [("output", f"gateway/{OURS}/p", "out.png")]
    assert clean(roots, OURS, own_files(roots, OURS)[0]) == [GONE]
    assert list(disk.rglob("*.png")) == []


def test_folders_are_no_files_and_a_file_in_the_way_is_no_folder(roots):
    put(roots, "output", f"gateway/{OURS}/p", "out.png")
    asked = [("output", f"gateway/{OURS}", "p"), ("output", f"gateway/{OURS}/p/out.png", "x")]
    refused, beyond = clean(roots, OURS, asked)
    assert refused == REFUSED
    assert beyond in {REFUSED, WAS_NOT_THERE}
    assert len(everything(roots)) == 1


def test_a_file_that_cannot_be_deleted_is_told(roots, monkeypatch):
    put(roots, "output", f"gateway/{OURS}/p", "out.png")

    def in_use(*_args, **_named):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(cleaning.os, "unlink", in_use)
    assert clean(roots, OURS, [("output", f"gateway/{OURS}/p", "out.png")]) == [FAILED]


def test_the_list_comes_in_pages_and_misses_nothing(roots):
    wanted = [
        ("input", f"gateway/{OURS}", "a.png"),
        ("input", f"gateway/{OURS}", "b.png"),
        ("output", f"gateway/{OURS}/a", "b.png"),
        ("output", f"gateway/{OURS}/a/c", "a.png"),
        ("output", f"gateway/{OURS}/b", "a.png"),
        ("temp", f"gateway/{OURS}", "z.png"),
    ]
    for file in wanted:
        put(roots, *file)
    put(roots, "input", f"gateway/{THEIRS}", "a.png")
    put(roots, "input", "", "a.png")
    told, after, has_more = [], None, True
    while has_more:
        page, has_more = own_files(roots, OURS, after, most=1)
        told += page
        after = page[-1]
    assert told == wanted
    assert own_files(roots, OURS) == (wanted, False)


def test_of_nothing_there_nothing_is_told(roots):
    assert own_files(roots, OURS) == ([], False)
    for root in roots.values():
        Path(root).rmdir()
    assert own_files(roots, OURS) == ([], False)
    assert clean(roots, OURS, [("input", f"gateway/{OURS}", "a.png")]) == [WAS_NOT_THERE]


@pytest.mark.parametrize("value", ["", "..", "../x", "a" * 7, "a" * 41, "A1B2C3D4", "a1b2c3d4/", None, 7])
def test_an_id_is_small_letters_and_digits(value):
    with pytest.raises(NotOursError):
        cleaning.check_gateway(value)

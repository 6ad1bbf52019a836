from __future__ import annotations

import io
import os
import stat

import pytest

from gateway.embedded.files import Folders, OutsideFolderError, RefusedPathError
from gateway.embedded.routes_files import byte_range


def keep(folders, data: bytes, name: str, *, overwrite=False, subfolder="", kind="input"):
    return folders.keep_upload(io.BytesIO(data), name, kind=kind, subfolder=subfolder, overwrite=overwrite)


def test_folders_are_private_and_temp_starts_empty(tmp_path):
    old = tmp_path / "w" / "temp" / "old.png"
    old.parent.mkdir(parents=True)
    old.touch()
    Folders(tmp_path / "w").prepare()
    assert not old.exists()
    for name in ("", "input", "output", "temp"):
        assert stat.S_IMODE((tmp_path / "w" / name).stat().st_mode) == 0o700


def test_same_bytes_keep_their_name_and_others_get_a_number(folders):
    assert keep(folders, b"a", "up.png") == "up.png"
    assert keep(folders, b"a", "up.png") == "up.png"
    assert keep(folders, b"b", "up.png") == "up (1).png"
    assert keep(folders, b"b", "up.png") == "up (1).png"
    assert keep(folders, b"c", "up.png") == "up (2).png"
    assert keep(folders, b"d", "up.png", overwrite=True) == "up.png"
    assert (folders.directory / "input/up.png").read_bytes() == b"d"
    assert sorted(path.name for path in (folders.directory / "input").iterdir()) == [
        "up (1).png",
        "up (2).png",
        "up.png",
    ]


@pytest.mark.parametrize(
    ("name", "subfolder"), [("../e.png", ""), ("a.png", "../.."), ("a.png", "/tmp"), ("s/../../e", "")]
)
def test_upload_outside_the_folder_is_refused_and_writes_nothing(folders, name, subfolder):
    with pytest.raises(RefusedPathError) as refusal:
        keep(folders, b"x", name, subfolder=subfolder)
    assert refusal.value.status == 400
    assert not (folders.directory / "e.png").exists()


def test_upload_through_a_link_out_of_the_folder_is_refused(folders, tmp_path):
    (folders.directory / "input" / "out").symlink_to(tmp_path)
    with pytest.raises(RefusedPathError):
        keep(folders, b"x", "a.png", subfolder="out")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", ["", "new/x.png", "n" * 300])
def test_unusable_upload_name_is_an_error(folders, name):
    with pytest.raises((OSError, ValueError)):
        keep(folders, b"x", name)


def test_annotated_names_find_files_of_all_folders(folders):
    keep(folders, b"x", "a.png", kind="temp")
    keep(folders, b"x", "b.png", subfolder="s")
    assert folders.find("a.png [temp]") == folders.directory / "temp/a.png"
    assert folders.find("s/b.png") == folders.directory / "input/s/b.png"
    assert folders.find("a.png") is None
    for outside in ("/etc/hostname", "../../etc/hostname", "\0", 5, None, ".."):
        assert folders.find(outside) is None


def test_save_counter_is_the_highest_plus_one(folders):
    assert folders.save_path("job/out", "output").counter == 1
    (folders.directory / "output/job/out_00007_.png").touch()
    (folders.directory / "output/job/outer_00009_.png").touch()
    place = folders.save_path("job/out", "output")
    assert (place.counter, place.subfolder, place.filename) == (8, "job", "out")
    with pytest.raises(OutsideFolderError):
        folders.save_path("../x", "output")


@pytest.mark.parametrize(
    ("filename", "kind", "subfolder", "status"),
    [
        ("", "output", "", 400),
        ("a..b.png", "output", "", 400),
        ("/etc/passwd", "output", "", 400),
        ("a.png", "zz", "", 400),
        ("a.png", "input", "../..", 403),
    ],
)
def test_view_refuses_as_comfyui_does(folders, filename, kind, subfolder, status):
    with pytest.raises(RefusedPathError) as refusal:
        folders.view(filename, kind, subfolder)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=5-", (5, 100)),
        ("bytes=-7", (93, 100)),
        ("bytes=-999", (0, 100)),
        ("bytes=0-999", (0, 100)),
        ("bytes=100-", None),
        ("bytes=0-1,3-4", None),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("items=0-1", None),
    ],
)
def test_byte_range(asked, span):
    assert byte_range(asked, 100) == span


def test_sweep_deletes_old_files_of_all_folders_and_no_others(folders):
    for kind in ("input", "output", "temp"):
        keep(folders, b"old", "old.png", kind=kind, subfolder="s")
        keep(folders, b"new", "new.png", kind=kind)
        os.utime(folders.root(kind) / "s/old.png", (100, 100))
    assert folders.sweep(101) == 3
    assert folders.listing("input") == ["new.png"]
    assert list(folders.directory.rglob("old.png")) == []

"""What files of clients' own graphs are called and taken for."""

from __future__ import annotations

import pytest

from gateway.audit import MediaKind
from gateway.comfy.messages import NodeOutput, OutputFile
from gateway.engine.outputs import (
    MAX_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    MAX_TEXTS,
    all_of,
    each_file,
    name_of,
    source_of,
    unmeasured,
)
from gateway.errors import ResultInvalidError
from gateway.workflow import Workflow


def file(name="2_00001_.png", kind="images", *, subfolder="gateway/x/out", folder="output"):
    return OutputFile(name, subfolder, folder, kind)


@pytest.mark.parametrize(
    ("prefix", "made", "name"),
    [
        ("cat", "2_00001_.png", "cat_00001_.png"),
        ("pets/tabby cat", "2_00012_.png", "tabby cat_00012_.png"),
        ("..\\..\\cat", "2_00001.mp4", "cat_00001.mp4"),
        ("cat", "2_00001-audio.mp4", "cat_00001-audio.mp4"),
        ("cat", "2_123456_.png", "cat_123456_.png"),
        ("cat", "odd.png", "odd.png"),
        ("", "2_00001_.png", "2_00001_.png"),
        ("cat/", "2_00001_.png", "2_00001_.png"),
        ('a"b\n\u202e', "2_00001_.png", "ab_00001_.png"),
    ],
)
def test_files_are_called_as_the_client_wants_with_the_upstreams_counter(prefix, made, name):
    workflow = Workflow({}, {}, {"2": ("filename_prefix", prefix)}, "0")
    assert name_of(workflow, "2", file(made)) == name


def test_a_node_without_a_prefix_keeps_its_names_which_are_cut_from_the_front():
    workflow = Workflow({}, {}, {"2": ("filename_prefix", "x" * 1000)}, "0")
    assert name_of(workflow, "3", file("ComfyUI_temp_ab_00001_.png")) == "ComfyUI_temp_ab_00001_.png"
    long = name_of(workflow, "2", file())
    assert len(long) == MAX_NAME_CHARACTERS
    assert long.endswith("x_00001_.png")


def test_files_differ_by_node_type_folder_and_name_and_are_told_once():
    files = [file(), file(folder="temp"), file(subfolder=""), file("2_00002_.png")]
    assert len({source_of(each) for each in files}) == 4
    assert list(each_file({"2": (*files, *files), "3": (files[0],)})) == [
        *[("2", each) for each in files],
        ("3", files[0]),
    ]


def test_what_a_node_says_is_a_file_for_each_text_within_limits():
    texts = ["first", "", 7, "x" * (MAX_TEXT_CHARACTERS + 1), *(f"more {number}" for number in range(40))]
    told = all_of(NodeOutput("prompt", "2", (file("text-1.txt"),), {"text": texts}))
    assert [found.text for found in told[:3]] == [None, "first", "more 0"]
    assert len(told) < 1 + MAX_TEXTS
    assert len(list(each_file({"2": told}))) == len(told)
    assert all_of(NodeOutput("prompt", "2", (), {"text": "no list"})) == ()


def test_files_of_one_job_are_bounded():
    with pytest.raises(ResultInvalidError, match="1000 files"):
        list(each_file({str(node): tuple(file(f"{number}.png") for number in range(600)) for node in range(2)}))


@pytest.mark.parametrize(
    "name", ["page.html", "page.xhtml", "drawing.svg", "run.js", "feed.xml", "a.pdf", "none", "odd.p\u00e9"]
)
def test_what_a_browser_would_run_is_told_as_bytes(name):
    facts = unmeasured(file(name, "files"))
    assert (facts.kind, facts.content_type) == (MediaKind.FILE, "application/octet-stream")
    assert (facts.width, facts.height, facts.frames) == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("images", "image"),
        ("gifs", "video"),
        ("audio", "audio"),
        ("latents", "latent"),
        ("text", "text"),
        ("3d", "file"),
    ],
)
def test_where_the_name_says_nothing_the_key_does(kind, found):
    assert unmeasured(file("made.bin", kind)).kind == found

"""What is forgotten of a gateway's prompts: its own entries, and previews that nobody can be shown again."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_nodes.cleaning import GONE, REFUSED, WAS_NOT_THERE
from comfy_nodes.prompts import FOLDER_KEY, MARK, MAX_PROMPTS, History, forget, own_prompts

OURS, THEIRS = "a1b2c3d4e5f60718", "ffffffffffffffff"


def entry(gateway, *files, mark=OURS, node="7"):
    """As ComfyUI keeps it: the queue's item and the outputs."""
    extra = {} if gateway is None else {FOLDER_KEY: f"gateway/{gateway}"}
    inputs = {} if mark is None else {MARK: f"gateway/{mark}/p/out"}
    graph = {"7": {"class_type": "PreviewImage", "inputs": inputs}}
    listed = [{"filename": name, "subfolder": folder, "type": kind} for kind, folder, name in files]
    return {"prompt": (1, "p", graph, extra, ["7"]), "outputs": {node: {"images": listed}}, "status": {}}


@pytest.fixture
def roots(tmp_path):
    found = {kind: str(tmp_path / kind) for kind in ("input", "output", "temp")}
    for root in found.values():
        Path(root).mkdir()
    return found


def put(roots, kind, name, folder=""):
    path = Path(roots[kind]) / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"face")
    return path


def history_of(entries):
    return History(lambda: dict(entries), entries.pop)


def test_entries_are_a_gateways_by_the_folder_that_it_sent():
    entries = {
        "a": entry(OURS),
        "b": entry(THEIRS),
        "c": entry(None),
        "d": {"prompt": None},
        "e": None,
        "f": {"prompt": (1, 2)},
    }
    assert own_prompts(history_of(entries), OURS) == ["a"]
    many = {f"{number}": entry(OURS) for number in range(MAX_PROMPTS + 5)}
    assert len(own_prompts(history_of(many), OURS)) == MAX_PROMPTS


def test_an_own_prompt_goes_with_its_previews(roots):
    preview, deep = put(roots, "temp", "ComfyUI_temp_abcde_00001_.png"), put(roots, "temp", "x.png", "sub")
    entries = {"a": entry(OURS, ("temp", "", preview.name), ("temp", "sub", "x.png"))}
    assert forget(history_of(entries), roots, OURS, "a") == GONE
    assert (entries, preview.exists(), deep.exists()) == ({}, False, False)
    assert forget(history_of(entries), roots, OURS, "a") == WAS_NOT_THERE


def test_prompts_of_others_stay_and_so_do_their_previews(roots):
    preview = put(roots, "temp", "ComfyUI_temp_abcde_00001_.png")
    entries = {"b": entry(THEIRS, ("temp", "", preview.name)), "c": entry(None, ("temp", "", preview.name))}
    assert [forget(history_of(entries), roots, OURS, one) for one in ("b", "c")] == [REFUSED, REFUSED]
    assert len(entries) == 2
    assert preview.exists()


@pytest.mark.parametrize("mark", [None, THEIRS])
def test_previews_of_nodes_without_the_mark_stay_since_a_later_prompt_may_be_shown_them(roots, mark):
    preview = put(roots, "temp", "ComfyUI_temp_abcde_00001_.png")
    entries = {"a": entry(OURS, ("temp", "", preview.name), mark=mark)}
    assert forget(history_of(entries), roots, OURS, "a") == GONE
    assert preview.exists()


def test_an_entry_leads_to_nothing_but_plain_files_in_temp(roots, tmp_path):
    outside = tmp_path / "secret.txt"
    outside.write_text("not yours")
    kept = [put(roots, "output", "out.png"), put(roots, "input", "in.png")]
    (Path(roots["temp"]) / "link.png").symlink_to(outside)
    files = [
        ("output", "", "out.png"),
        ("input", "", "in.png"),
        ("temp", "..", "secret.txt"),
        ("temp", "", "../secret.txt"),
        ("temp", "/", "link.png"),
        ("temp", str(tmp_path), "secret.txt"),
    ]
    entries = {"a": entry(OURS, *files)}
    assert forget(history_of(entries), roots, OURS, "a") == GONE
    assert all(path.exists() for path in (outside, *kept))


def test_outputs_of_nodes_that_the_graph_has_not_are_passed_over(roots):
    entries = {
        "a": entry(OURS, ("temp", "", "x.png"), node="9"),
        "b": {**entry(OURS), "outputs": {"7": {"images": [None, 7, {}], "text": "x"}}},
    }
    assert forget(history_of(entries), roots, OURS, "a") == GONE
    assert forget(history_of(entries), roots, OURS, "b") == GONE

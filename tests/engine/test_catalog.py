"""The templates that serve (``engine/catalog.py``)."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from gateway.audit import MediaKind
from gateway.engine import catalog as catalog_module
from gateway.engine.catalog import Catalog
from gateway.errors import InvalidInputError, TemplateError

ROOT = Path(__file__).parents[2]


class FrozenClock:
    def now(self):
        return 1_700_000_000.0

    def monotonic(self):
        return 0.0


class TemplateShelf:
    """The part of the store that keeps templates."""

    def __init__(self):
        self.kept = {}
        self.saved = []

    async def save_template(self, name, version, toml, graph, *, now):
        self.saved.append((name, version, now))
        self.kept.setdefault((name, version), (toml, graph))

    async def template(self, name, version):
        return self.kept.get((name, version))


@pytest.fixture
def shelf():
    return TemplateShelf()


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(
        ROOT / "workflows",
        tmp_path / "workflows",
        ignore=shutil.ignore_patterns("*_creation", "image_*", "face_detect"),
    )


@pytest.fixture
async def catalog(folder, shelf):
    catalog = Catalog(folder, shelf, FrozenClock())
    await catalog.load()
    return catalog


def rewrite(folder, name, file, old, new):
    path = folder / name / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def test_shipped_templates_load_without_a_problem(shelf):
    catalog = Catalog(ROOT / "workflows", shelf, FrozenClock())
    await catalog.load()
    assert catalog.problems() == {}
    assert [template.name for template in catalog.templates()] == list(catalog.names())
    assert catalog.names() == (
        "face_detect",
        "faceswap_gif",
        "faceswap_image",
        "faceswap_video",
        "image_creation",
        "image_upscale_lanczos",
        "image_upscale_model",
        "video_creation",
    )


async def test_template_that_stands_in_comes_after_the_others(shelf):
    catalog = Catalog(ROOT / "workflows", shelf, FrozenClock())
    await catalog.load()
    names = [template.name for template in catalog.for_task("image_upscale", MediaKind.IMAGE)]
    assert names == ["image_upscale_model", "image_upscale_lanczos"]


async def test_task_without_a_target_takes_none_and_the_others_want_one(shelf):
    catalog = Catalog(ROOT / "workflows", shelf, FrozenClock())
    await catalog.load()
    assert [template.name for template in catalog.for_task("image_creation", None)] == ["image_creation"]
    for task, kind in (("image_creation", MediaKind.IMAGE), ("image_upscale", None)):
        with pytest.raises(InvalidInputError) as caught:
            catalog.for_task(task, kind)
        assert caught.value.field == "target"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (MediaKind.VIDEO, "faceswap_video"),
        (MediaKind.GIF, "faceswap_gif"),
        (MediaKind.IMAGE, "faceswap_image"),
    ],
)
async def test_kind_of_target_chooses_the_template(catalog, kind, name):
    assert [template.name for template in catalog.for_task("face_swap", kind)] == [name]


async def test_kind_that_no_template_takes_is_the_callers_fault(catalog, folder):
    shutil.rmtree(folder / "faceswap_image")
    await catalog.reload()
    with pytest.raises(InvalidInputError, match="gif or video") as caught:
        catalog.for_task("face_swap", MediaKind.IMAGE)
    assert caught.value.field == "target"


async def test_task_that_no_template_does_is_not(catalog):
    with pytest.raises(TemplateError):
        catalog.for_task("upscale", MediaKind.IMAGE)


async def test_unknown_template_is_an_error(catalog):
    assert catalog.get("faceswap_image").name == "faceswap_image"
    with pytest.raises(TemplateError, match="no such template"):
        catalog.get("faceswap_audio")


async def test_bad_template_is_named_and_the_others_serve(folder, shelf):
    rewrite(folder, "faceswap_video", "graph.json", '"Swap face"', '"Swap the face"')
    catalog = Catalog(folder, shelf, FrozenClock())
    await catalog.load()
    assert catalog.names() == ("faceswap_gif", "faceswap_image")
    assert "'Swap face'" in catalog.problems()["faceswap_video"]
    with pytest.raises(TemplateError, match="Swap face"):
        catalog.get("faceswap_video")
    assert [name for name, _, _ in shelf.saved] == ["faceswap_gif", "faceswap_image"]


async def test_bad_edit_leaves_the_last_good_version_serving(catalog, folder):
    good = catalog.get("faceswap_video")
    rewrite(folder, "faceswap_video", "template.toml", "crf = 20", "crf = 21")
    await catalog.reload()
    assert catalog.get("faceswap_video") is good
    assert "crf" in catalog.problems()["faceswap_video"]

    rewrite(folder, "faceswap_video", "graph.json", '"crf": 20', '"crf": 21')
    await catalog.reload()
    assert catalog.get("faceswap_video").outputs["result"].crf == 21
    assert catalog.problems() == {}


async def test_problem_says_whether_a_last_good_version_serves_on(catalog, folder):
    rewrite(folder, "faceswap_video", "template.toml", "crf = 20", "crf = 21")
    shutil.copytree(folder / "faceswap_video", folder / "never_good")
    await catalog.reload()
    assert catalog.problems()["faceswap_video"].endswith("its last good version goes on serving")
    assert "goes on serving" not in catalog.problems()["never_good"]


async def test_only_the_templates_named_are_read_again(catalog, folder):
    image = catalog.get("faceswap_image")
    rewrite(folder, "faceswap_image", "template.toml", "price = 1", "price = 2")
    rewrite(folder, "faceswap_video", "template.toml", "crf = 20", "crf = 21")
    await catalog.reload({"faceswap_video"})
    assert catalog.problems().keys() == {"faceswap_video"}
    assert catalog.get("faceswap_image") is image

    await catalog.reload({"faceswap_image"})
    assert catalog.problems().keys() == {"faceswap_video"}
    assert catalog.get("faceswap_image").pricing.credits == 2


async def test_all_serve_on_while_the_folder_itself_cannot_be_read(catalog, folder):
    away = folder.rename(folder.with_name("away"))
    await catalog.reload()
    assert catalog.names() == ("faceswap_gif", "faceswap_image", "faceswap_video")
    (reason,) = catalog.problems().values()
    assert reason.endswith("what was read before goes on serving")

    away.rename(folder)
    await catalog.reload()
    assert catalog.problems() == {}


async def test_removed_template_stops_serving(catalog, folder):
    shutil.rmtree(folder / "faceswap_video")
    await catalog.reload()
    assert catalog.names() == ("faceswap_gif", "faceswap_image")
    assert catalog.problems() == {}


async def test_version_is_in_the_store_before_it_serves_and_once(catalog, shelf):
    template = catalog.get("faceswap_image")
    assert ("faceswap_image", template.version, 1_700_000_000.0) in shelf.saved
    await catalog.reload()
    assert len(shelf.saved) == 3


async def test_version_that_the_store_cannot_keep_does_not_serve(catalog, folder, shelf, monkeypatch):
    async def fail(*args, **kwargs):
        raise OSError

    good = catalog.get("faceswap_image")
    monkeypatch.setattr(shelf, "save_template", fail)
    rewrite(folder, "faceswap_image", "template.toml", "price = 1", "price = 2")
    with pytest.raises(OSError):  # noqa: PT011 - the store's own error comes through as it is
        await catalog.reload()
    assert catalog.get("faceswap_image") is good


async def test_pinned_version_survives_an_edit_and_a_restart(catalog, folder, shelf):
    old = catalog.get("faceswap_image")
    assert await catalog.pinned("faceswap_image", old.version) is old
    rewrite(folder, "faceswap_image", "template.toml", "price = 1", "price = 2")
    restarted = Catalog(folder, shelf, FrozenClock())
    await restarted.load()
    assert restarted.get("faceswap_image").pricing.credits == 2
    pinned = await restarted.pinned("faceswap_image", old.version)
    assert (pinned.pricing.credits, pinned.version) == (1, old.version)

    shelf.kept.clear()
    assert await restarted.pinned("faceswap_image", old.version) is pinned


async def test_pinned_versions_in_memory_are_bounded(catalog, shelf, monkeypatch):
    monkeypatch.setattr(catalog_module, "MAX_PINNED", 2)
    template = catalog.get("faceswap_image")
    for number in range(4):
        shelf.kept["faceswap_image", str(number)] = (template.toml_text, template.graph_text)
        await catalog.pinned("faceswap_image", str(number))
    assert [version for _, version in catalog._pinned] == ["2", "3"]


async def test_version_that_was_never_kept_is_an_error(catalog):
    with pytest.raises(TemplateError, match="not known"):
        await catalog.pinned("faceswap_image", "0" * 16)


async def test_missing_folder_is_a_problem_that_tells_no_path(tmp_path, shelf):
    catalog = Catalog(tmp_path / "nowhere", shelf, FrozenClock())
    await catalog.load()
    assert catalog.names() == ()
    (reason,) = catalog.problems().values()
    assert str(tmp_path) not in reason


@pytest.mark.parametrize(
    ("file", "data", "reason"),
    [
        ("template.toml", None, "cannot be read"),
        ("graph.json", None, "cannot be read"),
        ("graph.json", b"\xff\xfe", "not UTF-8"),
        ("graph.json", b" " * (4 * 1024 * 1024 + 1), "larger than"),
    ],
)
async def test_unreadable_file_is_a_problem_that_tells_no_path(folder, shelf, file, data, reason):
    path = folder / "faceswap_image" / file
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    catalog = Catalog(folder, shelf, FrozenClock())
    await catalog.load()
    assert catalog.names() == ("faceswap_gif", "faceswap_video")
    problem = catalog.problems()["faceswap_image"]
    assert reason in problem
    assert str(folder) not in problem


async def test_hidden_folders_and_loose_files_are_no_templates(folder, shelf):
    (folder / ".git").mkdir()
    (folder / "__pycache__").mkdir()
    (folder / "README.md").write_text("x")
    (folder / "Bad Name").mkdir()
    catalog = Catalog(folder, shelf, FrozenClock())
    await catalog.load()
    assert catalog.problems().keys() == {"Bad Name"}


async def test_byte_order_mark_of_an_editor_is_no_fault(folder, shelf):
    path = folder / "faceswap_image" / "graph.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    catalog = Catalog(folder, shelf, FrozenClock())
    await catalog.load()
    assert catalog.problems() == {}


async def test_files_are_not_read_on_the_event_loop(folder, shelf, monkeypatch):
    seen = []
    real = catalog_module.read_folder

    def spy(*arguments):
        seen.append(threading.current_thread())
        return real(*arguments)

    monkeypatch.setattr(catalog_module, "read_folder", spy)
    await Catalog(folder, shelf, FrozenClock()).load()
    assert seen
    assert threading.main_thread() not in seen

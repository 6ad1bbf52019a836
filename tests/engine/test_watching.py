"""Edits in the folder of templates are live within two seconds (``engine/watching.py``), on a clock that stands still."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import structlog

from gateway.engine.catalog import Catalog
from gateway.engine.watching import LOOK_SECONDS, TemplateWatch
from tests.fakes.clock import FrozenClock

ROOT = Path(__file__).parents[2]
LIVE_WITHIN_SECONDS = 2.0


class TemplateShelf:
    """The part of the store that keeps templates; fails while ``is_full``."""

    def __init__(self):
        self.kept = {}
        self.is_full = False

    async def save_template(self, name, version, toml, graph, *, now):
        if self.is_full:
            raise OSError("no space left")
        self.kept[name, version] = (toml, graph)

    async def template(self, name, version):
        return self.kept.get((name, version))


class TellingClock(FrozenClock):
    """Tells when the loop has done its work and sleeps again."""

    def __init__(self):
        super().__init__()
        self.asleep = asyncio.Event()

    async def sleep(self, seconds):
        self.asleep.set()
        await super().sleep(seconds)

    async def pass_looks(self, seconds):
        for _ in range(round(seconds / LOOK_SECONDS)):
            await self.asleep.wait()
            self.asleep.clear()
            self.advance(LOOK_SECONDS)
        await self.asleep.wait()


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(
        ROOT / "workflows",
        tmp_path / "workflows",
        ignore=shutil.ignore_patterns("*_creation", "image_*", "face_detect"),
    )


@pytest.fixture
def shelf():
    return TemplateShelf()


@pytest.fixture
async def catalog(folder, shelf):
    catalog = Catalog(folder, shelf, FrozenClock())
    await catalog.load()
    return catalog


@pytest.fixture
async def watch(catalog):
    watch = TemplateWatch(catalog, FrozenClock())
    await watch.look()
    return watch


async def look_until_live(watch):
    for _ in range(int(LIVE_WITHIN_SECONDS / LOOK_SECONDS) - 1):
        await watch.look()


def rewrite(folder, name, file, old, new):
    path = folder / name / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def price(folder, new, name="faceswap_image", old="1"):
    rewrite(folder, name, "template.toml", f"price = {old}", f"price = {new}")


async def test_edit_is_live_and_nothing_else_is_read(watch, catalog, folder):
    video = catalog.get("faceswap_video")
    price(folder, 7)
    await look_until_live(watch)
    assert catalog.get("faceswap_image").pricing.credits == 7
    assert catalog.get("faceswap_video") is video


async def test_what_did_not_change_is_not_read_again(watch, catalog, monkeypatch):
    async def refuse(only=None):
        raise AssertionError(only)

    monkeypatch.setattr(catalog, "reload", refuse)
    for _ in range(3):
        await watch.look()


async def test_edit_between_the_first_reading_and_the_first_look_counts(catalog, folder):
    price(folder, 7)
    await look_until_live(TemplateWatch(catalog, FrozenClock()))
    assert catalog.get("faceswap_image").pricing.credits == 7


async def test_half_written_file_is_left_alone_until_it_is_whole(watch, catalog, folder):
    """An editor that truncates and then writes piece by piece: no problem shows, no version of a half file serves."""
    path = folder / "faceswap_image" / "graph.json"
    good, text = catalog.get("faceswap_image"), path.read_text().replace('"LoadImage"', '"LoadImageMask"', 1)
    for end in range(0, len(text), len(text) // 6):
        path.write_text(text[:end])
        await watch.look()
        assert catalog.problems() == {}
        assert catalog.get("faceswap_image") is good
    path.write_text(text)
    await look_until_live(watch)
    assert catalog.problems() == {}
    assert catalog.get("faceswap_image").graph_text == text


async def test_template_that_is_being_written_holds_up_no_other(watch, catalog, folder):
    price(folder, 7)
    for number in range(3):
        (folder / "faceswap_video" / "graph.json").write_text(" " * number)
        await watch.look()
    assert catalog.get("faceswap_image").pricing.credits == 7
    assert catalog.problems() == {}


async def test_bad_edit_is_named_with_node_and_input_and_mending_it_is_live(watch, catalog, folder):
    good = catalog.get("faceswap_image")
    rewrite(folder, "faceswap_image", "graph.json", '"swap_model"', '"swap_modle"')
    with structlog.testing.capture_logs() as logs:
        await look_until_live(watch)
        await look_until_live(watch)
    assert catalog.get("faceswap_image") is good
    reason = catalog.problems()["faceswap_image"]
    assert "'Swap face'" in reason
    assert "'swap_model'" in reason
    refused = [line for line in logs if line["event"] == "template_refused"]
    assert len(refused) == 1, "each problem is told once"
    assert refused[0]["log_level"] == "warning"
    assert refused[0]["last_good_serves"]
    assert "'Swap face', input 'swap_model'" in refused[0]["reason"]

    rewrite(folder, "faceswap_image", "graph.json", '"swap_modle"', '"swap_model"')
    with structlog.testing.capture_logs() as logs:
        await look_until_live(watch)
    assert catalog.problems() == {}
    assert [line["event"] for line in logs] == ["template_mended"]


async def test_bad_template_that_is_taken_away_is_no_problem_any_more(watch, catalog, folder):
    rewrite(folder, "faceswap_image", "graph.json", '"swap_model"', '"swap_modle"')
    await look_until_live(watch)
    shutil.rmtree(folder / "faceswap_image")
    await look_until_live(watch)
    assert catalog.problems() == {}
    assert catalog.names() == ("faceswap_gif", "faceswap_video")


async def test_removed_template_is_not_offered_and_its_jobs_keep_their_version(watch, catalog, folder):
    old = catalog.get("faceswap_image")
    shutil.rmtree(folder / "faceswap_image")
    with structlog.testing.capture_logs() as logs:
        await look_until_live(watch)
    assert catalog.names() == ("faceswap_gif", "faceswap_video")
    assert [(line["event"], line["template"]) for line in logs] == [("template_removed", "faceswap_image")]
    assert (await catalog.pinned("faceswap_image", old.version)).graph_text == old.graph_text


async def test_new_template_is_offered(watch, catalog, folder):
    shutil.copytree(folder / "faceswap_image", folder / "another")
    await look_until_live(watch)
    assert catalog.names() == ("another", "faceswap_gif", "faceswap_image", "faceswap_video")


async def test_folder_that_is_replaced_does_not_interrupt_service(watch, catalog, folder):
    """A deployment takes the old folder away and brings a new one; in between nothing can be listed."""
    fresh = shutil.copytree(folder, folder.with_name("fresh"))
    price(fresh, 7)
    folder.rename(folder.with_name("old"))
    await look_until_live(watch)
    assert catalog.names() == ("faceswap_gif", "faceswap_image", "faceswap_video")
    assert len(catalog.problems()) == 1

    fresh.rename(folder)
    await look_until_live(watch)
    assert catalog.problems() == {}
    assert catalog.get("faceswap_image").pricing.credits == 7


async def test_folder_that_stays_away_is_not_read_again_and_again(watch, catalog, folder, monkeypatch):
    async def refuse(only=None):
        raise AssertionError(only)

    folder.rename(folder.with_name("away"))
    await look_until_live(watch)
    monkeypatch.setattr(catalog, "reload", refuse)
    await look_until_live(watch)


async def test_loop_looks_by_the_clock_and_outlives_a_store_that_fails(catalog, folder, shelf):
    clock = TellingClock()
    shelf.is_full = True
    price(folder, 7)
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(TemplateWatch(catalog, clock).run())
        await clock.pass_looks(3 * LIVE_WITHIN_SECONDS)
        assert catalog.get("faceswap_image").pricing.credits == 1
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["templates_not_reloaded"]
        shelf.is_full = False
        await clock.pass_looks(LIVE_WITHIN_SECONDS)
        assert catalog.get("faceswap_image").pricing.credits == 7
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from gateway.data_dir import StartError
from gateway.errors import ConflictError, InvalidInputError
from gateway.main import local_url, open_gateway
from gateway.naming import upstream_name
from gateway.settings import from_mapping
from gateway.store.sql_store import SqlStore
from gateway.upstream_builder import UpstreamBuilder
from tests.fakes.clock import FrozenClock


@pytest.fixture
async def build(tmp_path):
    store = SqlStore.in_memory()

    def builder(**settings):
        return UpstreamBuilder(
            from_mapping(settings), store, FrozenClock(), tmp_path, on_change=lambda: None, live_prompts=frozenset
        )

    builder.store = store
    yield builder
    await store.close()


def allow(name: str) -> None:
    pass


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://10.0.0.5:8188", "10.0.0.5-8188"),
        ("https://user:secret@gpu.example.org/comfy", "gpu.example.org-443"),
        ("http://[::1]:8188", "ipv6---1-8188"),
    ],
)
def test_name_of_an_upstream_is_its_place_and_never_its_credentials(url, name) -> None:
    assert upstream_name(url) == name


async def test_upstreams_of_the_settings_those_remembered_and_workers_make_the_pool(build) -> None:
    await build().remember("http://later:8188", "later", allow)
    made = await build(upstreams="http://a:8188", embedded_workers=1).all()
    assert [(one.upstream.name, one.embedded) for one in made] == [
        ("a-8188", False),
        ("later", False),
        ("embedded-1", True),
    ]
    for one in made:
        await one.upstream.close()


async def test_an_upstream_keeps_its_client_id_and_its_draining_and_stays_removed(build) -> None:
    [first] = await build(upstreams="http://a:8188").all()
    await build.store.set_upstream("a-8188", draining=True, now=0.0)
    [again] = await build(upstreams="http://a:8188").all()
    assert again.draining
    assert again.upstream._client_id == first.upstream._client_id
    await build.store.set_upstream("a-8188", removed=True, now=0.0)
    assert await build(upstreams="http://a:8188", embedded_workers=0).all() == []
    added = await build().remember("http://a:8188", None, allow)
    assert added.name == "a-8188"
    assert not (await build.store.upstreams())[0].removed
    for one in (first.upstream, again.upstream, added):
        await one.close()


async def test_a_worker_that_was_removed_stays_away_until_it_is_added_by_its_name(build) -> None:
    both = build(embedded_workers=2)
    assert [one.upstream.name for one in await both.all()] == ["embedded-1", "embedded-2"]
    await build.store.set_upstream("embedded-1", removed=True, draining=True, now=0.0)
    assert [one.upstream.name for one in await both.all()] == ["embedded-2"]
    assert (await both.remember("embedded-1", None, allow)).name == "embedded-1"
    assert [(one.upstream.name, one.draining) for one in await both.all()] == [
        ("embedded-1", False),
        ("embedded-2", False),
    ]


@pytest.mark.parametrize(("url", "name"), [("embedded-3", None), ("embedded-1", "other"), ("embedded-x", None)])
async def test_only_a_worker_of_the_settings_goes_by_its_name(build, url, name) -> None:
    with pytest.raises(InvalidInputError):
        await build(embedded_workers=2).remember(url, name, allow)


async def test_what_was_added_anew_keeps_its_new_url_and_is_not_drained(build) -> None:
    [first] = await build(upstreams="http://a:8188").all()
    await build.store.set_upstream("a-8188", removed=True, draining=True, now=0.0)
    added = await build().remember("http://user:new@a:8188", None, allow)
    [again] = await build(upstreams="http://a:8188").all()
    assert not again.draining
    assert again.upstream._address.headers == added._address.headers != {}
    for one in (first.upstream, added, again.upstream):
        await one.close()


async def test_an_instance_named_twice_is_told(build) -> None:
    with pytest.raises(StartError, match="a-8188 twice"):
        await build(upstreams="http://a:8188,http://a:8188/").all()


@pytest.mark.parametrize(
    ("url", "name", "field"),
    [
        ("ftp://a", None, "url"),
        ("http://a:99999", None, "url"),
        ("http://a?x=1", None, "url"),
        ("http://a", "../x", "name"),
        ("http://a", "a b", "name"),
        ("http://a", "x" * 65, "name"),
        ("http://a", "embedded-1", "name"),
    ],
)
async def test_an_upstream_that_is_none_is_refused_and_not_remembered(build, url, name, field) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await build().remember(url, name, allow)
    assert refused.value.field == field
    assert await build.store.upstreams() == []


async def test_a_taken_name_is_refused_before_its_url_is_replaced(build) -> None:
    def taken(name: str) -> None:
        raise ConflictError("taken")

    with pytest.raises(ConflictError):
        await build().remember("http://a:8188", "gpu", taken)
    assert await build.store.upstreams() == []


async def test_a_database_of_a_later_version_is_told(tmp_path) -> None:
    settings = from_mapping({"data_dir": tmp_path, "embedded_workers": 0})
    with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('v9999')")
    with pytest.raises(StartError, match=r"version|newer"):
        async with open_gateway(settings):
            pass


async def test_a_damaged_database_is_told(tmp_path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StartError, match="restore a backup"):
        async with open_gateway(from_mapping({"data_dir": tmp_path, "embedded_workers": 0})):
            pass


async def test_leftovers_of_a_killed_gateway_are_cleared_when_the_next_one_holds_the_directory(tmp_path) -> None:
    left = tmp_path / "scratch" / "result-x"
    left.mkdir(parents=True)
    (left / "fetched").write_bytes(b"x")
    (tmp_path / "admin-token").mkdir()  # so that the start ends here
    with pytest.raises(StartError):
        async with open_gateway(from_mapping({"data_dir": tmp_path, "embedded_workers": 0})):
            pass
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("10.0.0.5", "http://10.0.0.5:8000"),
    ],
)
def test_own_address_is_one_that_this_machine_reaches(host, url):
    assert local_url(host, 8000, is_encrypted=False) == url


async def test_a_checkout_has_an_instance_for_each_gpu_which_goes_by_its_name(build, tmp_path) -> None:
    several = build(comfyui_dir=tmp_path / "ComfyUI", comfyui_gpus="0,1", comfyui_args="--fast --reserve-vram '1 0'")
    made = await several.all()
    assert [(one.upstream.name, one.embedded) for one in made] == [("comfyui-0", False), ("comfyui-1", False)]
    assert made[0].upstream.status().engine == "comfyui"
    folder, command = several._program("comfyui-1")
    assert folder == tmp_path / "comfyui" / "comfyui-1"
    assert command.arguments[command.arguments.index("--device") + 1] == "1"
    assert command.arguments[-3:] == ("--argument=--fast", "--argument=--reserve-vram", "--argument=1 0")
    await build.store.set_upstream("comfyui-0", removed=True, now=0.0)
    assert [one.upstream.name for one in await several.all()] == ["comfyui-1"]
    assert (await several.remember("comfyui-0", None, allow)).name == "comfyui-0"
    with pytest.raises(InvalidInputError):
        await build().remember("http://a:8188", "comfyui-9", allow)


async def test_a_checkout_that_is_none_stops_the_start_with_a_sentence(tmp_path) -> None:
    settings = from_mapping({"data_dir": tmp_path / "data", "comfyui_dir": tmp_path})
    with pytest.raises(StartError, match=r"GATEWAY_COMFYUI_DIR: .* holds no main.py: name the folder"):
        async with open_gateway(settings):
            pass

"""Uploads through the engine's door: how long they stay, what they are taken for, what another owner learns: nothing."""

from __future__ import annotations

import pytest

from gateway.asset_links import LIFE_SECONDS
from gateway.audit import MediaKind
from gateway.engine.assets import Upload
from gateway.errors import BlobNotFoundError, ForbiddenError, HashMismatchError, NotFoundError
from gateway.sniffing import ANY_FILE, PNG

DAY = 86_400.0


@pytest.fixture
async def engine(engine):
    await engine.start(engine.new_upstream())
    return engine


def upload(engine, data=b"image:x", *, owner="ann", found=PNG, content_type="image/png", file_path="photo.png", **more):
    return Upload(owner, engine.blobs.put(data), found, content_type, file_path, **more)


async def test_an_upload_is_kept_as_long_as_the_settings_or_the_client_say(engine):
    now = engine.clock.now()
    kept = (await engine.service.assets.upload(upload(engine))).asset
    assert kept.expires_at == now + DAY
    short = (await engine.service.assets.upload(upload(engine, file_path="b.png", expires_in_seconds=60))).asset
    assert short.expires_at == now + 60
    await engine.pass_time(61)
    assert await engine.service.assets.get(kept.id, "ann") == kept
    with pytest.raises(NotFoundError):
        await engine.service.assets.get(short.id, "ann")


async def test_bytes_of_an_expired_upload_go_with_the_sweep(engine):
    kept = (await engine.service.assets.upload(upload(engine, expires_in_seconds=60))).asset
    await engine.pass_time(4000)
    await engine.keeper.sweep()
    assert kept.blob not in engine.blobs.stored


async def test_bytes_that_are_not_the_expected_ones_are_refused_and_nothing_is_kept(engine):
    wrong = upload(engine, expected_hash="0" * 64)
    with pytest.raises(HashMismatchError):
        await engine.service.assets.upload(wrong)
    with pytest.raises(BlobNotFoundError):
        await engine.service.assets.by_hash("ann", wrong.blob.hash)
    right = upload(engine, expected_hash=wrong.blob.hash)
    assert (await engine.service.assets.upload(right)).is_new_blob


async def test_what_bytes_do_not_tell_is_taken_as_declared_and_not_measured(engine):
    voice = upload(engine, b"RIFF", found=ANY_FILE, content_type="audio/wav", file_path="voice.wav")
    facts = (await engine.service.assets.upload(voice)).asset.facts
    assert (facts.kind, facts.content_type, facts.suffix) == (MediaKind.AUDIO, "audio/wav", ".wav")
    assert (facts.width, facts.height, facts.frames) == (0, 0, 0)


async def test_from_hash_gives_the_same_asset_for_the_same_name_and_another_for_another(engine):
    assets = engine.service.assets
    kept = (await assets.upload(upload(engine))).asset
    same = await assets.from_hash("ann", kept.blob, file_path="photo.png")
    assert (same.asset.id, same.is_new_asset) == (kept.id, False)
    other = await assets.from_hash("ann", kept.blob, file_path="b.png", tags=("t",), expires_in_seconds=60)
    assert (other.is_new_asset, other.is_new_blob) == (True, False)
    assert (other.asset.content_type, other.asset.facts, other.asset.tags) == ("image/png", kept.facts, ("t",))


async def test_from_hash_of_what_only_another_owner_has_finds_nothing(engine):
    kept = (await engine.service.assets.upload(upload(engine, owner="bob"))).asset
    with pytest.raises(BlobNotFoundError):
        await engine.service.assets.from_hash("ann", kept.blob, file_path="photo.png")


async def test_an_input_that_came_with_a_job_can_be_made_an_asset(engine):
    job_id = await engine.submit(owner="ann")
    blob = (await engine.job(job_id)).inputs["target"].blob
    assert (await engine.service.assets.from_hash("ann", blob, file_path="again.png")).is_new_asset


async def test_a_link_opens_without_an_owner_for_an_hour_and_not_after_the_file_is_gone(engine):
    assets = engine.service.assets
    kept = (await assets.upload(upload(engine))).asset
    link = assets.link(kept.id, kept.expires_at)
    shown = (str(link.expires_at), link.signature)
    assert await assets.opened(kept.id, *shown) == kept
    with pytest.raises(ForbiddenError):
        await assets.opened("another", *shown)
    await engine.pass_time(LIFE_SECONDS)
    with pytest.raises(ForbiddenError):
        await assets.opened(kept.id, *shown)
    fresh = assets.link(kept.id, kept.expires_at)
    await assets.delete(kept.id, "ann")
    with pytest.raises(NotFoundError):
        await assets.opened(kept.id, str(fresh.expires_at), fresh.signature)


async def test_unknown_foreign_deleted_and_absurd_ids_are_one_sentence(engine):
    assets = engine.service.assets
    foreign = (await assets.upload(upload(engine, owner="bob"))).asset.id
    deleted = (await assets.upload(upload(engine))).asset.id
    await assets.delete(deleted, "ann")
    said = set()
    for asset_id in ("unknown", foreign, deleted, "x" * 10_000, ""):
        for ask in (assets.get, assets.delete):
            with pytest.raises(NotFoundError) as refused:
                await ask(asset_id, "ann")
            said.add((str(refused.value), refused.value.field, refused.value.code))
    assert len(said) == 1

"""What every store promises of uploads: whose they are, what they are called, how long they stay, what holds them."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import MediaFacts, MediaKind
from gateway.errors import AssetInUseError, BlobNotFoundError, IdempotencyInFlightError
from gateway.idempotency import Answer, Claim, Free, Wanted
from gateway.interfaces import Blob, NewAsset, NewJob, Report
from gateway.job import JobInput, JobResult, JobState, RetryLimits, TaskEvent
from gateway.store.sql_store import SqlStore

FACTS = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 0, 0, 0, None, None, has_audio=False, video_codec=None)
LIMITS = RetryLimits(max_attempts=2, max_interruptions=4)
X, Y = Blob("a" * 64, 7), Blob("b" * 64, 9)
UPLOAD = NewAsset("up-1", "ann", X, "image/x-png", "photo.png", ("input", "face"), FACTS, expires_at=1000.0)


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("assets") / "empty.db"

    async def make():
        await (await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)).close()

    asyncio.run(make())
    return path


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, empty_file):
    if request.param == "file":
        path = Path(shutil.copy(empty_file, tmp_path / "gateway.db"))
        made = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
    else:
        made = SqlStore.in_memory(result_retention_seconds=100.0, asset_retention_seconds=50.0)
    yield made
    await made.close()


async def add(store, *, now=10.0, claim=None, must_be_known=False, **changes):
    return await store.assets.add(replace(UPLOAD, **changes), now=now, claim=claim, must_be_known=must_be_known)


async def get(store, asset_id="up-1", owner="ann", *, now=20.0):
    return await store.assets.get(asset_id, owner, now=now)


async def create_job(store, *inputs, owner="ann", number=1):
    new = NewJob(
        id=f"job-{number}",
        task_id=f"task-{number}",
        owner=owner,
        submitter=owner,
        dialect="comfy_v2",
        task="workflow",
        template="workflow",
        template_version="v1",
        priority=0,
        parameters={},
        inputs={f"file-{place}": item for place, item in enumerate(inputs, 1)},
        output_name="out",
        queue_deadline=10_000.0,
        requirement="needs",
        cost_seconds=1.0,
    )
    return await store.create_job(new, max_queue=10, now=20.0)


def made_of(source, number=1):
    return JobInput(f"in-{number}", X.hash, X.size_bytes, FACTS, source)


async def succeed(store, *results, number=1):
    for event, attempt, said in (
        (TaskEvent.DISPATCHED, None, {"upstream": "gpu", "prompt_id": f"p-{number}", "engine": "comfyui"}),
        (TaskEvent.STARTED, 1, {}),
        (TaskEvent.SUCCEEDED, 1, {"results": results}),
    ):
        recorded = await store.record(f"task-{number}", Report(event, attempt, **said), limits=LIMITS, now=30.0)
    return recorded.job


# --------------------------------------------------------------------------------------------------------- keeping


async def test_an_upload_is_kept_as_it_was_given(store):
    minted = await add(store)
    assert (minted.is_new_blob, minted.is_new_asset) == (True, True)
    found = await get(store)
    assert found == minted.asset
    assert (found.id, found.owner, found.blob, found.size_bytes) == ("up-1", "ann", X.hash, 7)
    assert (found.content_type, found.file_path, found.tags) == ("image/x-png", "photo.png", ("input", "face"))
    assert (found.created_at, found.expires_at, found.job_id, found.facts) == (10.0, 1000.0, None, FACTS)


async def test_the_same_bytes_under_the_same_name_are_the_same_asset_kept_for_longer_and_never_for_less(store):
    first = await add(store)
    again = await add(store, id="up-2", now=11.0, expires_at=2000.0, content_type="text/plain", tags=())
    assert (again.is_new_blob, again.is_new_asset) == (False, False)
    assert again.asset == replace(first.asset, expires_at=2000.0)
    assert (await add(store, id="up-3", now=12.0, expires_at=1500.0)).asset.expires_at == 2000.0
    assert await get(store, "up-2") is None


async def test_another_name_or_none_is_another_asset_over_the_same_bytes(store):
    await add(store)
    other = await add(store, id="up-2", file_path="other.png")
    assert (other.is_new_blob, other.is_new_asset) == (False, True)
    nameless = await add(store, id="up-3", file_path=None)
    assert (nameless.is_new_asset, nameless.asset.file_path) == (True, None)
    assert (await add(store, id="up-4", file_path=None)).asset.id == "up-3"


async def test_what_has_expired_is_not_there_and_comes_back_as_another_asset(store):
    await add(store, expires_at=50.0)
    assert await get(store, now=49.0) is not None
    assert await get(store, now=50.0) is None
    assert await store.assets.named("ann", "photo.png", now=50.0) is None
    assert await store.assets.by_hash("ann", X.hash, now=50.0) is None
    back = await add(store, id="up-2", now=50.0)
    assert (back.asset.id, back.is_new_blob, back.is_new_asset) == ("up-2", True, True)
    assert await get(store, "up-1", now=50.0) is None


async def test_the_sweep_takes_an_expired_upload_and_then_its_bytes(store):
    await add(store, expires_at=50.0)
    swept = await store.sweep(job_retention_seconds=1e6, blob_grace_seconds=0.0, now=60.0)
    assert (swept.assets, swept.blobs) == (1, (X.hash,))


async def test_purging_an_owner_takes_uploads_and_no_other_owners(store):
    await add(store)
    await add(store, id="up-2", owner="bob")
    assert (await store.purge_owner("ann")).assets == 1
    assert await get(store) is None
    assert await get(store, "up-2", "bob") is not None


async def test_a_backup_speaks_of_uploads(tmp_path, empty_file):
    path = Path(shutil.copy(empty_file, tmp_path / "gateway.db"))
    store = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
    try:
        await add(store)
        await store.copy_to(tmp_path / "copy.db")
        assert await store.blobs_of_copy(tmp_path / "copy.db", after="", limit=10) == [X]
    finally:
        await store.close()


# -------------------------------------------------------------------------------------------------------- other owners


async def test_nothing_of_another_owner_is_seen(store):
    await add(store)
    assert await get(store, "up-1", "bob") is None
    assert await store.assets.named("bob", "photo.png", now=20.0) is None
    assert await store.assets.by_hash("bob", X.hash, now=20.0) is None
    assert await store.assets.delete("up-1", "bob", now=20.0) is False
    with pytest.raises(BlobNotFoundError):
        await add(store, id="up-2", owner="bob", must_be_known=True)
    assert await get(store) is not None
    assert (await get(store, "up-1", None)).owner == "ann"


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "known", "get", "named", "by_hash", "delete", "sweep"]),
        st.sampled_from([X, Y]),
        st.sampled_from(["a.png", "b.png", None]),
        st.integers(1, 4),
        st.sampled_from([15.0, 40.0]),
    ),
    max_size=12,
)


@given(bobs=steps, anns=steps)
@settings(max_examples=60, deadline=None)
def test_what_an_owner_is_answered_does_not_depend_on_what_another_has(bobs, anns):
    async def answers(*, with_ann):
        store = SqlStore.in_memory()
        try:
            told = []
            for place in range(max(len(bobs), len(anns))):
                if with_ann and place < len(anns):
                    await act(store, "ann", *anns[place], now=10.0 + place)
                if place < len(bobs):
                    told.append(await act(store, "bob", *bobs[place], now=10.0 + place))
            return told
        finally:
            await store.close()

    assert asyncio.run(answers(with_ann=True)) == asyncio.run(answers(with_ann=False))


async def act(store, owner, what, blob, name, number, until, *, now):
    """One step of an owner's, and all that it is told. Ids are the gateway's: no two assets get one."""
    assets, older = store.assets, f"{owner}-{10.0 + number}"
    new = replace(UPLOAD, id=f"{owner}-{now}", owner=owner, blob=blob, file_path=name, expires_at=until)
    told = {
        "add": lambda: assets.add(new, now=now),
        "known": lambda: assets.add(new, now=now, must_be_known=True),
        "get": lambda: assets.get(older, owner, now=now),
        "named": lambda: assets.named(owner, name or "a.png", now=now),
        "by_hash": lambda: assets.by_hash(owner, blob.hash, now=now),
        "delete": lambda: assets.delete(older, owner, now=now),
    }
    if what == "sweep":
        await store.sweep(job_retention_seconds=1e6, blob_grace_seconds=5.0, now=now)
        return None
    try:
        return await told[what]()
    except BlobNotFoundError as error:
        return str(error)


# ------------------------------------------------------------------------------------------------------ names, hashes


async def test_a_name_means_what_was_sent_last_under_it(store):
    await add(store, now=10.0)
    await add(store, id="up-2", blob=Y, now=11.0)
    assert (await store.assets.named("ann", "photo.png", now=20.0)).id == "up-2"
    await add(store, id="up-3", now=12.0)  # the first bytes again
    assert (await store.assets.named("ann", "photo.png", now=20.0)).id == "up-1"


@pytest.mark.parametrize(("stored", "asked"), [("photo.png", "input/photo.png"), ("input/photo.png", "photo.png")])
async def test_the_folder_of_inputs_is_no_part_of_a_name(store, stored, asked):
    await add(store, file_path=stored)
    assert (await store.assets.named("ann", asked, now=20.0)).id == "up-1"
    assert (await get(store)).file_path == stored


async def test_a_hash_finds_an_upload_before_an_input_and_an_input_where_there_is_no_other(store):
    await create_job(store, made_of(None))
    assert (await store.assets.by_hash("ann", X.hash, now=20.0)).id == "in-1"
    assert await store.assets.by_hash("bob", X.hash, now=20.0) is None
    minted = await add(store, must_be_known=True)
    assert (minted.is_new_blob, minted.is_new_asset) == (False, True)
    assert (await store.assets.by_hash("ann", X.hash, now=20.0)).id == "up-1"


# ---------------------------------------------------------------------------------------------------------- jobs hold


async def test_an_upload_is_deleted_once(store):
    await add(store)
    assert await store.assets.delete("up-1", "ann", now=20.0) is True
    assert await store.assets.delete("up-1", "ann", now=20.0) is False
    assert await get(store) is None
    assert (await store.sweep(job_retention_seconds=1e6, blob_grace_seconds=0.0, now=30.0)).blobs == (X.hash,)


async def test_bytes_stay_as_long_as_anything_is_made_of_them(store):
    await add(store)
    await add(store, id="up-2", owner="bob")
    await store.assets.delete("up-1", "ann", now=20.0)
    assert (await store.sweep(job_retention_seconds=1e6, blob_grace_seconds=0.0, now=30.0)).blobs == ()


async def test_what_a_job_was_given_cannot_be_deleted_until_the_job_has_ended(store):
    await add(store)
    job = (await create_job(store, made_of("up-1"))).job
    assert (await store.job(job.id)).inputs["file-1"].source == "up-1"
    with pytest.raises(AssetInUseError):
        await store.assets.delete("up-1", "ann", now=20.0)
    await store.request_cancel(job.id, frozenset({JobState.QUEUED}), now=25.0)
    assert await store.assets.delete("up-1", "ann", now=30.0) is True


async def test_an_upload_may_expire_while_a_job_that_was_given_it_waits(store):
    await add(store, expires_at=50.0)
    await create_job(store, made_of("up-1"))
    swept = await store.sweep(job_retention_seconds=1e6, blob_grace_seconds=0.0, now=60.0)
    assert (swept.assets, swept.blobs) == (1, ())
    assert (await get(store, now=60.0)) is None


async def test_a_job_cannot_prolong_an_upload_by_calling_it_its_input(store):
    await add(store)
    await create_job(store, replace(made_of(None), asset_id="up-1"))
    assert (await get(store)).expires_at == 1000.0


async def test_a_result_is_an_asset_of_its_owner_that_is_held_as_long_as_its_job_is_kept(store):
    await create_job(store)
    await succeed(store, JobResult("out-1", Y.hash, 9, FACTS, "link-1", name="mine_00001_.png"))
    found = await get(store, "out-1", now=40.0)
    assert (found.job_id, found.content_type, found.file_path, found.tags) == (
        "job-1",
        "image/png",
        "mine_00001_.png",
        (),
    )
    assert found.expires_at == 130.0
    assert await get(store, "out-1", "bob", now=40.0) is None
    with pytest.raises(AssetInUseError):
        await store.assets.delete("out-1", "ann", now=40.0)
    assert await get(store, "out-1", now=130.0) is None
    assert await store.assets.delete("out-1", "ann", now=130.0) is False


async def test_an_input_of_a_job_is_no_asset_that_can_be_named(store):
    await create_job(store, made_of(None))
    assert await get(store, "in-1") is None
    assert await store.assets.delete("in-1", "ann", now=20.0) is False


# ------------------------------------------------------------------------------------------------------- idempotency


async def test_an_upload_uses_its_key_up_with_the_row(store):
    claim = Claim(Wanted("ann", "key", "print"), "token")
    assert await store.claims.claim(claim.wanted, claim.token, now=10.0) is Free.FREE
    minted = await add(store, claim=claim)
    assert await store.claims.look(claim.wanted, now=10_000.0) == Answer(201, b"", minted.asset.id)


async def test_a_lost_claim_keeps_nothing(store):
    claim = Claim(Wanted("ann", "key", "print"), "token")
    with pytest.raises(IdempotencyInFlightError):
        await add(store, claim=claim)
    assert await get(store) is None
    assert await store.assets.by_hash("ann", X.hash, now=20.0) is None

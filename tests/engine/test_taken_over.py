"""The engine of a gateway that was taken over while it was stopped: it sends nothing new, and ends without a noise."""

from __future__ import annotations

import pytest

from gateway.errors import LeaseLostError
from gateway.store.queries.leases import Claim
from gateway.store.sql_store import SqlStore


def claim(holder: str) -> Claim:
    return Claim("data_dir", holder, seal=lambda: None)


@pytest.fixture
async def stopped(engine):
    """An engine with one task at work and one that waits, and the store of the gateway that has taken over."""
    await engine.store.close()
    engine.store = SqlStore.in_memory(claim=claim("first"))
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_ids = [await engine.submit(face=b"image:1"), await engine.submit(face=b"image:2")]
    new = SqlStore.in_memory(claim=claim("second"), beside=engine.store)
    return engine, gpu, job_ids, new


async def states(store, job_ids):
    return [(await store.job(job_id)).state.value for job_id in job_ids]


async def rows(store):
    raw = store._executor.database.connection.connection.driver_connection
    return list(raw.iterdump())


async def test_what_its_upstream_says_is_not_recorded_and_nothing_new_is_begun(stopped, logged):
    engine, gpu, job_ids, new = stopped
    before = await rows(new)
    bytes_before = dict(engine.blobs.stored)
    engine.finish(gpu)
    await engine.pass_time(700.0)
    with pytest.raises(LeaseLostError):
        await engine.submit(face=b"image:3")
    with pytest.raises(LeaseLostError):
        await engine.service.cancel(job_ids[1], "local")
    await engine.pass_time(60.0)
    assert await rows(new) == before
    assert await states(new, job_ids) == ["dispatched", "queued"]
    assert len(gpu.prompts) == 1
    assert not engine.loop.done() or engine.loop.exception() is None
    assert [line for line in logged if line["log_level"] in {"error", "critical"}] == []
    assert dict(engine.blobs.stored).keys() >= bytes_before.keys(), "what the store would not forget keeps its bytes"


async def test_housekeeping_of_a_former_holder_forgets_and_deletes_nothing(stopped, logged):
    engine, _, _, new = stopped
    before, files = await rows(new), dict(engine.blobs.stored)
    engine.clock.advance(1e8)
    await engine.keeper.run()
    assert await rows(new) == before
    assert dict(engine.blobs.stored) == files
    assert [line for line in logged if line["log_level"] == "error"] == []

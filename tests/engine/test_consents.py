"""Consent through the whole engine: asked for where a face is swapped, recorded, kept for its own time."""

from __future__ import annotations

import pytest

from gateway.consent import Attestation
from gateway.engine.maintenance import Maintenance
from gateway.errors import ConsentRequiredError, NotFoundError

DAY = 86_400.0


@pytest.fixture
def strict(engine):
    engine.settings = engine.settings.model_copy(update={"require_consent": True})
    return engine


async def test_a_swap_for_which_nothing_is_said_is_refused_and_nothing_is_left(strict):
    await strict.start(strict.new_upstream())
    with pytest.raises(ConsentRequiredError):
        strict.service.consents.check(None, "face_swap")
    with pytest.raises(ConsentRequiredError):
        await strict.submit(settle=False)
    assert await strict.service.jobs("local") == []
    assert strict.blobs.stored == {}
    assert await strict.service.consents.records() == []


async def test_a_task_that_swaps_no_face_needs_none(strict):
    await strict.start(strict.new_upstream())
    strict.service.consents.check(None, "image_upscale")
    strict.service.consents.check(None, "face_detect")
    job_id = await strict.submit(roles=("target",), task="image_upscale", settle=False)
    with pytest.raises(NotFoundError):
        await strict.service.consents.record(job_id)


@pytest.mark.parametrize("required", [True, False])
async def test_what_is_said_is_recorded_whether_it_had_to_be_or_not(engine, required):
    engine.settings = engine.settings.model_copy(update={"require_consent": required})
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit(consent=Attestation.HEADER)
    engine.finish(gpu)
    job = await engine.until("succeeded", job_id)
    record = await engine.service.consents.record(job_id)
    assert (record.owner, record.dialect, record.attested) == ("local", "faceswap", Attestation.HEADER)
    assert record.inputs == {role: given.blob for role, given in job.inputs.items()}
    assert record.outputs == tuple(result.blob for result in job.results) != ()
    assert engine.service.health().consent_required is required


async def finished(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit(consent=Attestation.FIELD)
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    return job_id


async def test_the_record_stays_when_the_job_is_forgotten_and_goes_a_year_after_its_end(engine):
    job_id = await finished(engine)
    keeper = Maintenance(
        engine.store,
        engine.blobs,
        engine.recorder,
        engine.service,
        engine.timings,
        engine.clock,
        job_retention_seconds=30 * DAY,
    )
    engine.clock.advance(364 * DAY)
    await keeper.sweep()
    with pytest.raises(NotFoundError):
        await engine.service.job(job_id, "local")
    assert (await engine.service.consents.record(job_id)).state == "succeeded"
    engine.clock.advance(2 * DAY)
    await keeper.sweep()
    with pytest.raises(NotFoundError):
        await engine.service.consents.record(job_id)


async def test_a_purge_takes_the_record_only_when_that_is_asked(engine):
    job_id = await finished(engine)
    archive = engine.service.archive
    assert (await archive.purge_job(job_id)).consents == 0
    assert (await archive.purge_owner("local")).consents == 0
    assert await engine.service.consents.record(job_id)
    assert (await archive.purge_job(job_id, consents=True)).consents == 1  # the job itself is gone already
    with pytest.raises(NotFoundError):
        await archive.purge_job(job_id, consents=True)


async def test_a_purge_of_an_owner_takes_all_records_when_that_is_asked(engine):
    await finished(engine)
    purged = await engine.service.archive.purge_owner("local", consents=True)
    assert (purged.jobs, purged.consents) == (1, 1)
    assert await engine.service.consents.records() == []

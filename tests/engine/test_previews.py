"""Pictures of a job at work, from an upstream's message to whoever listens."""

from __future__ import annotations

from gateway.comfy.messages import Preview
from gateway.events import MAX_PREVIEW_BYTES, PreviewImage


async def test_previews_of_an_attempt_are_shown_with_their_node_and_go_with_the_job(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    gpu.prompt.say(Preview(gpu.prompt.id, "3", "image/jpeg", b"first"), Preview(None, None, "image/png", b"second"))
    ear = engine.service.subscribe(job_id, previews=True)
    await engine.settle()
    assert ear.take_preview() == PreviewImage(job_id, "image/png", b"second", None)
    gpu.prompt.say(Preview(gpu.prompt.id, "3", "image/jpeg", b"third"))
    await engine.settle()
    assert ear.take_preview() == PreviewImage(job_id, "image/jpeg", b"third", "3")
    engine.finish(gpu, start=False)
    await engine.until("succeeded", job_id)
    ear.close()
    assert engine.service.subscribe(job_id, previews=True).take_preview() is None


async def test_a_picture_that_is_too_large_for_a_preview_is_dropped(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    ear = engine.service.subscribe(job_id, previews=True)
    gpu.prompt.start()
    largest = b"x" * MAX_PREVIEW_BYTES
    gpu.prompt.say(Preview(None, None, "image/png", largest))
    gpu.prompt.say(Preview(None, None, "image/png", largest + b"x"))
    await engine.settle()
    assert ear.take_preview() == PreviewImage(job_id, "image/png", largest)
    ear.close()

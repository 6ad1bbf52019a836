"""``Idempotency-Key`` of comfy_v2's creates on the whole engine: good for one job, for a day, across restarts."""

from __future__ import annotations

import json

from gateway.api.app import create_app
from gateway.audit import MediaKind
from gateway.engine.assets import Upload
from gateway.errors import QueueFullError
from gateway.sniffing import MediaType
from tests.tools.asgi import TOKEN, ask

DAY = 86_400.0
PNG = MediaType(MediaKind.IMAGE, "image/png", ".png")
PATH = "/api/v2/templates/image_upscale_lanczos/jobs"


async def create(engine, key="once", **inputs):
    app = create_app(engine.service, engine.settings, admin_token=TOKEN)
    body = json.dumps({"inputs": {"target": "photo.png", **inputs}}).encode()
    answer = await ask(app, "POST", PATH, body, content_type="application/json", idempotency_key=key)
    error = answer.json["error"]
    return answer.status, None if error is None else error["code"]


async def upload(engine):
    blob = engine.blobs.put(b"image:photo")
    await engine.service.assets.upload(Upload("local", blob, PNG, "image/png", "photo.png", expires_in_seconds=3 * DAY))


async def test_a_key_that_made_a_job_is_used_up_for_a_day_across_a_restart(engine):
    await engine.start()
    await upload(engine)
    assert await create(engine) == (201, None)

    await engine.restart()

    assert await create(engine) == (422, "idempotency_key_reuse")
    assert await create(engine, scale_factor=3) == (422, "idempotency_key_reuse")
    assert await create(engine, "another") == (201, None)
    engine.clock.advance(DAY + 1)
    assert await create(engine) == (201, None)


async def test_a_key_that_made_none_is_free_again(engine):
    await engine.start()
    await upload(engine)

    assert await create(engine, scale_factor=99) == (422, "invalid_workflow")
    create_job, engine.store.create_job = engine.store.create_job, refuse
    assert await create(engine) == (429, "queue_full")
    engine.store.create_job = create_job

    assert await create(engine) == (201, None)
    assert len(await engine.service.jobs("local")) == 1


async def refuse(*_, **__):
    raise QueueFullError("As many jobs wait as may wait.")

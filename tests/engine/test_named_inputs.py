"""Jobs of a template that was asked for by name, over the whole engine: which one runs, and whose files it is given."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.api.app import create_app
from gateway.audit import MediaKind
from gateway.engine.assets import Upload
from gateway.errors import AssetInUseError, InvalidInputError, NotFoundError, TaskUnavailableError
from gateway.sniffing import MediaType
from tests.tools.asgi import TOKEN, ask

PNG = MediaType(MediaKind.IMAGE, "image/png", ".png")


def with_models(upstream, *names):
    """The same upstream, with these upscale models."""
    classes = {
        node_class: {name: names if name == "model_name" else offered for name, offered in inputs.items()}
        for node_class, inputs in upstream.known.classes.items()
    }
    upstream.known = replace(upstream.known, classes=classes)
    return upstream


async def upscale(engine, template, **more):
    job_id = await engine.submit(task="image_upscale", roles=("target",), template=template, **more)
    return (await engine.job(job_id)).template


async def test_the_template_that_is_named_runs_though_another_would_fit_better(engine):
    await engine.start(with_models(engine.new_upstream(), "4x-UltraSharp.pth"))

    assert await upscale(engine, None) == "image_upscale_model"
    assert await upscale(engine, "image_upscale_lanczos") == "image_upscale_lanczos"


async def test_a_template_that_is_named_is_not_replaced_by_another_that_could_run(engine):
    await engine.start(with_models(engine.new_upstream()))

    assert await upscale(engine, None, must_be_runnable=True) == "image_upscale_lanczos"
    with pytest.raises(TaskUnavailableError, match="image_upscale_model"):
        await upscale(engine, "image_upscale_model", must_be_runnable=True)


async def test_a_template_that_is_named_takes_its_own_kind_of_target_alone(engine):
    await engine.start(engine.new_upstream())
    with pytest.raises(InvalidInputError, match="faceswap_video takes no such target") as refused:
        await engine.submit(template="faceswap_video")
    assert refused.value.field == "target"


async def test_what_each_template_lacks_is_told_of_it_alone(engine):
    await engine.start(with_models(engine.new_upstream()))
    missing = {view.template.name: view.missing for view in engine.service.template_views()}
    assert missing["image_upscale_lanczos"] == ()
    assert all(sentence.startswith("image_upscale_model: ") for sentence in missing["image_upscale_model"])
    assert missing["image_upscale_model"]


# --------------------------------------------------------------------------------------------------------------- files


async def upload(engine, content, name, owner="local"):
    blob = engine.blobs.put(b"image:" + content)
    minted = await engine.service.assets.upload(Upload(owner, blob, PNG, PNG.content_type, name))
    return minted.asset


async def ask_for(engine, **inputs):
    app = create_app(engine.service, engine.settings, admin_token=TOKEN)
    body = json.dumps({"inputs": inputs}).encode()
    return await ask(app, "POST", "/api/v2/templates/faceswap_image/jobs", body, content_type="application/json")


async def test_a_job_holds_the_assets_that_it_was_given_by_id_and_by_name(engine):
    await engine.start()  # no upstream: it waits
    target, face = await upload(engine, b"target", "target.png"), await upload(engine, b"face", "face.png")

    reference = {"__type": "core/ASSET", "info": {"id": target.id}}
    answer = await ask_for(engine, target=reference, face="face.png")

    assert answer.status == 201, answer.body
    job = await engine.job(answer.json["id"])
    assert {role: (given.source, given.blob) for role, given in job.inputs.items()} == {
        "target": (target.id, target.blob),
        "face": (face.id, face.blob),
    }
    assert (job.template, job.dialect) == ("faceswap_image", "comfy_v2")
    with pytest.raises(AssetInUseError):
        await engine.service.assets.delete(face.id, "local")


async def test_of_several_uploads_of_a_name_the_last_one_is_meant(engine):
    await engine.start()
    await upload(engine, b"old", "face.png")
    engine.clock.advance(1)
    newest = await upload(engine, b"new", "face.png")

    answer = await ask_for(engine, target="face.png", face="face.png")

    assert (await engine.job(answer.json["id"])).inputs["face"].source == newest.id


async def test_another_owner_s_files_are_not_there(engine):
    await engine.start()
    theirs = await upload(engine, b"theirs", "face.png", owner="somebody")

    by_name = await ask_for(engine, target="face.png", face="face.png")
    by_id = await ask_for(engine, target={"__type": "core/ASSET", "info": {"id": theirs.id}}, face="face.png")

    assert [answer.json["error"]["code"] for answer in (by_name, by_id)] == ["missing_asset"] * 2
    with pytest.raises(NotFoundError):
        await engine.service.assets.named("face.png", "local")


async def test_a_refusal_leaves_the_assets_where_they_are(engine):
    await engine.start()
    target = await upload(engine, b"target", "target.png")

    answer = await ask_for(engine, target="target.png", face="target.png", face_restore_visibility=7)

    assert (answer.status, answer.json["error"]["code"]) == (422, "invalid_workflow")
    assert await engine.blobs.exists(target.blob)

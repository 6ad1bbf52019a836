"""Tasks beside the face swap, on the whole engine: which template, which numbers, what is audited, what is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.engine.results import OPAQUE_CODE, OPAQUE_GIF_SENTENCE, OPAQUE_SENTENCE
from gateway.engine.submitting import draw_number
from gateway.errors import InvalidInputError, TaskUnavailableError
from gateway.events import EventKind

STOOD_IN = ("upscaled_without_model", "Enlarged by Lanczos resampling: no worker had an upscale model.")


def listing(upstream, **lists):
    """The same upstream, with these files in its lists, by input name."""
    classes = {
        node_class: {name: lists.get(name, offered) for name, offered in inputs.items()}
        for node_class, inputs in upstream.known.classes.items()
    }
    upstream.known = replace(upstream.known, classes=classes)
    return upstream


def bare(engine, name="gpu-1"):
    """An upstream without any model of these tasks."""
    return listing(engine.new_upstream(name), model_name=(), ckpt_name=(), clip_name=())


def stocked(engine, name="gpu-2"):
    return listing(
        engine.new_upstream(name),
        model_name=("4x-UltraSharp.pth",),
        ckpt_name=("ltx-video-2b.safetensors", "sd_xl_base_1.0.safetensors"),
        clip_name=("t5xxl_fp8.safetensors",),
    )


async def upscale(engine, **more):
    return await engine.submit(task="image_upscale", roles=("target",), **more)


async def create(engine, task="image_creation", **parameters):
    return await engine.submit(task=task, roles=(), parameters={"prompt": "a lighthouse", **parameters})


async def warnings(engine, job_id):
    told = [event.data for event in await engine.store.events_after(job_id, 0) if event.kind is EventKind.WARNING]
    assert [warning["message"] for warning in told] == list((await engine.job(job_id)).warnings)
    return [(warning["code"], warning["message"]) for warning in told]


# ------------------------------------------------------------------------------------------------------- enlarging


async def test_picture_is_enlarged_by_a_model_where_a_worker_has_one(engine):
    await engine.start(bare(engine), gpu := stocked(engine))
    job_id = await upscale(engine)
    assert (await engine.job(job_id)).template == "image_upscale_model"
    graph = gpu.prompt.graph
    assert graph["2"]["inputs"]["model_name"] == "4x-UltraSharp.pth"
    assert (graph["4"]["inputs"]["width"], graph["4"]["inputs"]["height"]) == (1280, 720)
    gpu.prompt.start()
    gpu.prompt.succeed("5", b"twice:target")
    job = await engine.until("succeeded", job_id)
    assert (job.results[0].facts.width, job.results[0].facts.height) == (1280, 720)
    assert engine.media.likes == [engine.blobs.path(job.inputs["target"].blob)], "whose colours it has"
    assert await warnings(engine, job_id) == []


async def test_picture_is_resampled_where_no_worker_that_works_has_a_model_and_the_result_says_so(engine):
    gone = stocked(engine)
    gone.set_reachable(reachable=False)
    await engine.start(gpu := bare(engine), gone)
    job_id = await upscale(engine)
    assert (await engine.job(job_id)).template == "image_upscale_lanczos"
    assert gpu.prompt.graph["2"]["inputs"]["scale_by"] == 2
    gpu.prompt.start()
    gpu.prompt.succeed("3", b"twice:target")
    await engine.until("succeeded", job_id)
    assert await warnings(engine, job_id) == [STOOD_IN]


async def test_transparency_that_is_lost_is_said(engine):
    await engine.start(gpu := bare(engine))
    job_id = await upscale(engine, target=b"drawn:target")
    gpu.prompt.start()
    gpu.prompt.succeed("3", b"twice:target")
    await engine.until("succeeded", job_id)
    assert await warnings(engine, job_id) == [STOOD_IN, (OPAQUE_CODE, OPAQUE_SENTENCE)]


@pytest.mark.parametrize(("result", "codes"), [(b"image:swapped", [OPAQUE_CODE]), (b"drawn:swapped", [])])
async def test_transparency_is_only_said_to_be_lost_where_it_is(engine, result, codes):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(target=b"drawn:target")
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_image"), result)
    await engine.until("succeeded", job_id)
    assert [code for code, _ in await warnings(engine, job_id)] == codes


@pytest.mark.parametrize(
    ("result", "said"), [(b"solid:swapped", [(OPAQUE_CODE, OPAQUE_GIF_SENTENCE)]), (b"cutout:swapped", [])]
)
async def test_holes_of_a_gif_that_were_lost_are_said_in_words_of_their_own(engine, result, said):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(target=b"cutout:target")
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_gif"), result)
    await engine.until("succeeded", job_id)
    assert await warnings(engine, job_id) == said


async def test_what_was_chosen_is_kept_over_a_restart_and_still_said(engine):
    await engine.start(gpu := bare(engine))
    job_id = await upscale(engine)
    gpu.prompt.start()
    await engine.settle()
    await engine.restart()
    await engine.settle()
    listing(gpu, model_name=("late.pth",))
    gpu.prompt.succeed("3", b"twice:target")
    assert (await engine.until("succeeded", job_id)).template == "image_upscale_lanczos"
    assert await warnings(engine, job_id) == [STOOD_IN]


async def test_job_that_names_a_model_waits_for_it_or_is_refused(engine):
    await engine.start(bare(engine), gone := stocked(engine))
    gone.set_reachable(reachable=False)
    job_id = await upscale(engine, parameters={"upscale_model": "4x-UltraSharp.pth"})
    assert (await engine.until("queued", job_id)).template == "image_upscale_model"
    with pytest.raises(InvalidInputError) as caught:
        await upscale(engine, parameters={"upscale_model": "../../evil.pth"})
    assert caught.value.field == "upscale_model"


async def test_nothing_is_known_of_any_worker_yet_so_the_job_asks_for_least(engine):
    gpu = stocked(engine)
    gpu.known = None
    await engine.start(gpu)
    job_id = await upscale(engine, must_be_runnable=True)
    assert (await engine.job(job_id)).template == "image_upscale_lanczos"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (b"image:target", "expected a result of 1280x720 pixels, got 640x360"),
        (b"painted:target", "got 1024x1024"),
        (b"video:target", "of kind image, got one of kind video"),
        (b"twice:flat", "one plain colour"),
        (b"twice:other", "does not show what its source shows"),
    ],
)
async def test_result_that_is_not_the_picture_enlarged_is_a_failure(engine, result, words):
    await engine.start(gpu := bare(engine))
    job_id = await upscale(engine)
    gpu.prompt.start()
    gpu.prompt.succeed("3", result)
    job = await engine.until("failed", job_id)
    assert job.error_code == "result_invalid"
    assert words in job.error_message


async def test_plain_picture_may_come_back_plain(engine):
    await engine.start(gpu := bare(engine))
    job_id = await upscale(engine, target=b"image:flat")
    gpu.prompt.start()
    gpu.prompt.succeed("3", b"twice:flat")
    await engine.until("succeeded", job_id)


async def test_parameter_that_no_template_knows_is_named_even_where_nothing_can_run(engine):
    await engine.start(bare(engine))
    for task, roles in (("image_upscale", ("target",)), ("image_creation", ())):
        with pytest.raises(InvalidInputError, match="no parameter 'sharpen'") as caught:
            await engine.submit(task=task, roles=roles, parameters={"sharpen": 1}, must_be_runnable=True)
        assert caught.value.field == "sharpen"


@pytest.mark.parametrize("factor", [1, 5, 2.5, "2", True])
async def test_factor_that_is_none_is_refused_and_leaves_nothing(engine, factor):
    await engine.start(bare(engine))
    with pytest.raises(InvalidInputError) as caught:
        await upscale(engine, parameters={"scale_factor": factor})
    assert caught.value.field == "scale_factor"
    assert engine.blobs.stored == {}


async def test_preview_engine_says_nothing_of_swaps_when_it_resamples(engine):
    worker = bare(engine)
    worker.state = replace(worker.state, engine="preview")
    await engine.start(worker)
    job_id = await upscale(engine)
    worker.prompt.start()
    worker.prompt.succeed("3", b"twice:target")
    await engine.until("succeeded", job_id)
    assert await warnings(engine, job_id) == [STOOD_IN]


# --------------------------------------------------------------------------------------------------- out of words


async def test_picture_is_painted_from_words_alone(engine):
    await engine.start(gpu := stocked(engine))
    job_id = await create(engine, steps=12)
    graph = gpu.prompt.graph
    job = await engine.job(job_id)
    assert graph["2"]["inputs"]["text"] == "a lighthouse"
    assert graph["1"]["inputs"]["ckpt_name"] == "sd_xl_base_1.0.safetensors"
    assert (graph["5"]["inputs"]["steps"], graph["5"]["inputs"]["seed"]) == (12, job.parameters["seed"])
    assert gpu.uploads == []
    gpu.prompt.start()
    gpu.prompt.succeed("7", b"painted:lighthouse")
    job = await engine.until("succeeded", job_id)
    assert job.inputs == {}
    assert job.results[0].facts.width == 1024


async def test_nobody_is_told_of_inputs_that_there_are_not(engine):
    await engine.start(stocked(engine))
    said = []
    show = engine.bus.show
    engine.bus.show = lambda passing: (said.append(passing.message), show(passing))
    await create(engine)
    assert said[0] == "Sending the job to the worker"


async def test_every_attempt_paints_with_the_same_seed(engine):
    await engine.start(gpu := stocked(engine))
    job_id = await create(engine)
    seed = gpu.prompt.graph["5"]["inputs"]["seed"]
    gpu.prompt.start()
    gpu.prompt.lose()
    await engine.settle()
    await engine.pass_time(120)
    assert len(gpu.prompts) == 2
    assert gpu.prompt.graph["5"]["inputs"]["seed"] == seed
    gpu.prompt.start()
    gpu.prompt.succeed("7", b"painted:lighthouse")
    await engine.until("succeeded", job_id)


async def test_two_jobs_paint_with_two_seeds(engine):
    await engine.start(stocked(engine))
    seeds = {(await engine.job(await create(engine))).parameters["seed"] for _ in range(5)}
    assert len(seeds) == 5


def test_drawn_numbers_keep_their_limits():
    assert {draw_number(3, 4) for _ in range(100)} == {3, 4}
    assert draw_number(7, 7) == 7


async def test_film_has_its_length_its_rate_and_its_size_or_is_a_failure(engine):
    await engine.start(gpu := stocked(engine))
    good, bad = await create(engine, "video_creation"), await create(engine, "video_creation", fps=25)
    graph = gpu.prompt.graph
    assert (graph["6"]["inputs"]["length"], graph["11"]["inputs"]["length"]) == (97, 96)
    gpu.prompt.start()
    gpu.prompt.succeed("12", b"film:waves")
    await engine.until("succeeded", good)
    gpu.prompt.start()
    gpu.prompt.succeed("12", b"film:waves")
    job = await engine.until("failed", bad)
    assert "expected a result of 100 frames, got 96" in job.error_message


async def test_black_film_is_a_failure(engine):
    await engine.start(gpu := stocked(engine))
    job_id = await create(engine, "video_creation")
    gpu.prompt.start()
    gpu.prompt.succeed("12", b"film:flat")
    assert "one plain colour" in (await engine.until("failed", job_id)).error_message


async def test_task_without_a_model_is_refused_or_waits_as_the_client_likes(engine):
    await engine.start(bare(engine))
    with pytest.raises(TaskUnavailableError) as caught:
        await engine.submit(task="image_creation", roles=(), parameters={"prompt": "x"}, must_be_runnable=True)
    (sentence,) = caught.value.missing
    assert sentence.startswith("image_creation: node 'Checkpoint' (CheckpointLoaderSimple), input 'ckpt_name'")
    await engine.until("queued", await create(engine))


async def test_what_can_run_but_not_with_a_parameter_is_refused_with_that_name(engine):
    await engine.start(bare(engine))
    with pytest.raises(
        TaskUnavailableError, match=r"^No worker can run image_upscale with upscale_model now\. Missing"
    ) as caught:
        await upscale(engine, parameters={"scale_factor": 3, "upscale_model": "4x.pth"}, must_be_runnable=True)
    assert {sentence.partition(":")[0] for sentence in caught.value.missing} == {"image_upscale_model"}
    with pytest.raises(TaskUnavailableError, match=r"^No worker can run image_creation now\. Missing"):
        await engine.submit(
            task="image_creation", roles=(), parameters={"prompt": "x", "steps": 9}, must_be_runnable=True
        )


async def test_file_for_a_task_that_takes_none_is_refused(engine):
    await engine.start(stocked(engine))
    with pytest.raises(InvalidInputError) as caught:
        await engine.submit(task="image_creation", roles=("target",), parameters={"prompt": "x"})
    assert caught.value.field == "target"


async def test_wrong_words_and_numbers_are_refused_by_name(engine):
    await engine.start(stocked(engine))
    for task, given, field in (
        ("image_creation", {"prompt": ""}, "prompt"),
        ("image_creation", {"prompt": "x", "checkpoint": "/etc/passwd"}, "checkpoint"),
        ("video_creation", {"prompt": "x", "duration": 10, "fps": 60}, "duration"),
        ("video_creation", {"prompt": "x", "fps": "24"}, "fps"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            await engine.submit(task=task, roles=(), parameters=given)
        assert caught.value.field == field


async def test_why_a_job_without_files_waits_can_be_told(engine):
    await engine.start(bare(engine))
    wait = await engine.service.why_waiting(await engine.job(await create(engine)))
    assert wait.upstreams[0].fits is False


async def test_cost_of_a_job_goes_with_what_it_makes(engine):
    await engine.start(bare(engine))
    await create(engine, width=2048, height=2048)
    await engine.submit(
        task="image_creation", roles=(), parameters={"prompt": "x", "width": 512, "height": 512}, submitter="bob"
    )
    costs = {found.submitter: found.cost_seconds for found in await engine.store.candidates(limit=10)}
    assert costs["ann"] > costs["bob"]

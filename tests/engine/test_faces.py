"""Faces counted, swaps by number, swaps with several photos, on the whole engine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.audit import MediaKind
from gateway.comfy.messages import LogLine
from gateway.errors import InvalidInputError, TaskUnavailableError
from gateway.events import EventKind
from gateway.faces import MAX_REPORT_BYTES, Face

FACES_NODE = "2"


def report(*faces, detector="opencv", width=640, height=360):
    return json.dumps({"detector": detector, "width": width, "height": height, "faces": list(faces)})


def box(index, x, width):
    return {"index": index, "x": x, "y": 10, "width": width, "height": 50, "area": width * 50}


async def detect(engine, **more):
    return await engine.submit(task="face_detect", roles=("target",), **more)


async def detected(engine, gpu, *faces, **more):
    """A finished detection."""
    job_id = await detect(engine)
    gpu.prompt.start()
    gpu.prompt.tell(FACES_NODE, report(*faces, **more))
    return await engine.until("succeeded", job_id)


async def warnings(engine, job_id):
    told = [event.data for event in await engine.store.events_after(job_id, 0) if event.kind is EventKind.WARNING]
    return [warning["code"] for warning in told]


def offering(upstream, node_class, **inputs):
    """The same upstream, whose class has these inputs too."""
    classes = {**upstream.known.classes, node_class: {**upstream.known.classes[node_class], **inputs}}
    upstream.known = replace(upstream.known, classes=classes)
    return upstream


# ------------------------------------------------------------------------------------------------------------ detection


async def test_detection_ends_with_the_faces_of_the_picture(engine):
    await engine.start(gpu := engine.new_upstream())
    job = await detected(engine, gpu, box(0, 300, 90), box(1, 20, 40), detector="reactor")
    (result,) = job.results
    assert (result.facts.kind, result.facts.content_type) == (MediaKind.FACES, "application/json")
    assert result.link.endswith(".json")
    found = await engine.service.faces(job)
    assert found.detector == "reactor"
    assert found.faces == (Face(0, 300, 10, 90, 50, 4500), Face(1, 20, 10, 40, 50, 2000))
    assert await warnings(engine, job.id) == []


async def test_nobody_in_the_picture_is_a_success(engine):
    await engine.start(gpu := engine.new_upstream())
    job = await detected(engine, gpu)
    assert (await engine.service.faces(job)).faces == ()


async def test_a_detection_under_way_has_no_faces_and_neither_has_one_whose_report_is_gone(engine):
    await engine.start(gpu := engine.new_upstream())
    job = await engine.job(await detect(engine))
    assert await engine.service.faces(job) is None
    gpu.prompt.start()
    gpu.prompt.tell(FACES_NODE, report())
    done = await engine.until("succeeded", job.id)
    engine.blobs.stored.pop(done.results[0].blob)
    assert await engine.service.faces(done) is None


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([report(box(0, 600, 90))], "does not lie in the picture"),
        ([report(box(0, 20, 40), box(1, 300, 90))], "face 1 should come before face 0"),
        ([report(width=64)], "64x360 pixels"),
        (["Traceback of /home/comfy"], "not JSON"),
        ([], "Expected one report from 'Faces', got 0"),
        ([report(), report()], "got 2"),
        (["x" * (MAX_REPORT_BYTES + 1)], "got 0"),
    ],
)
async def test_a_report_that_is_none_fails_the_job(engine, texts, words):
    await engine.start(gpu := engine.new_upstream())
    job_id = await detect(engine)
    gpu.prompt.start()
    gpu.prompt.tell(FACES_NODE, *texts)
    job = await engine.until("failed", job_id)
    assert job.error_code == "result_invalid"
    assert words in job.error_message
    assert "/home" not in job.error_message
    assert set(engine.blobs.stored) == {job.inputs["target"].blob}


async def test_a_report_outlives_the_process_that_heard_it(engine, monkeypatch):
    """Told once, in the upstream's success: what was told is in the store before the result is."""
    await engine.start(gpu := engine.new_upstream())
    job_id = await detect(engine)
    gpu.prompt.start()

    async def die(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(type(engine.collector), "_one", die)
    gpu.prompt.tell(FACES_NODE, report(box(0, 20, 40)))
    await engine.settle()
    monkeypatch.undo()
    await engine.restart()
    job = await engine.until("succeeded", job_id)
    assert len((await engine.service.faces(job)).faces) == 1


async def test_the_best_detector_of_each_worker_is_known_beforehand(engine):
    real = offering(engine.new_upstream("gpu-1"), "GatewayFaceDetect", detector=("opencv", "reactor"))
    worker = offering(engine.new_upstream("local", engine="preview"), "GatewayFaceDetect", detector=("opencv",))
    await engine.start(real, worker)
    assert engine.service.detectors() == ("reactor", "opencv")
    worker.set_reachable(reachable=False)
    assert engine.service.detectors() == ("reactor",)
    await detect(engine)
    assert real.prompt.graph[FACES_NODE]["inputs"]["detector"] == "reactor"


async def test_a_detection_that_names_its_detector_waits_for_a_worker_that_has_it(engine):
    real = offering(engine.new_upstream("gpu-1"), "GatewayFaceDetect", detector=("opencv", "reactor"))
    worker = offering(engine.new_upstream("local", engine="preview"), "GatewayFaceDetect", detector=("opencv",))
    await engine.start(real, worker)
    for _ in range(2):
        await detect(engine, parameters={"detector": "reactor"})
    await engine.settle()
    assert real.prompt.graph[FACES_NODE]["inputs"]["detector"] == "reactor"
    assert worker.prompts == {}


async def test_a_pool_without_the_node_can_refuse_detection(engine):
    gpu = engine.new_upstream()
    classes = {name: inputs for name, inputs in gpu.known.classes.items() if name != "GatewayFaceDetect"}
    gpu.known = replace(gpu.known, classes=classes)
    await engine.start(gpu)
    assert engine.service.detectors() == ()
    assert not next(kind for kind in engine.service.task_types() if kind.name == "face_detect").can_run
    with pytest.raises(TaskUnavailableError):
        await detect(engine, must_be_runnable=True)
    assert engine.service.health().template_problems == {}


# ------------------------------------------------------------------------------------------------------------ numbering


async def swapped(engine, gpu, *, lines=(), **more):
    job_id = await engine.submit(**more)
    gpu.prompt.start()
    gpu.prompt.say(*(LogLine(gpu.prompt.id, line) for line in lines))
    engine.finish(gpu, start=False)
    return await engine.until("succeeded", job_id)


async def test_a_swap_by_another_detector_than_the_one_that_counted_says_so(engine):
    await engine.start(gpu := engine.new_upstream())
    await detected(engine, gpu, box(0, 20, 40), detector="opencv")
    job = await swapped(engine, gpu, parameters={"target_faces": "0"})
    assert await warnings(engine, job.id) == ["face_numbering_differs"]
    assert job.warnings == ("The faces of the target were numbered by opencv, and swapped by reactor.",)


async def test_the_newest_count_is_the_one_that_tells(engine):
    await engine.start(gpu := engine.new_upstream())
    await detected(engine, gpu, box(0, 20, 40), detector="opencv")
    engine.clock.advance(1)
    await detected(engine, gpu, box(0, 20, 40), detector="reactor")
    job = await swapped(engine, gpu)
    assert await warnings(engine, job.id) == []


async def test_faces_counted_in_another_picture_do_not_matter(engine):
    await engine.start(gpu := engine.new_upstream())
    await detected(engine, gpu, detector="opencv")
    job = await swapped(engine, gpu, target=b"image:another")
    assert await warnings(engine, job.id) == []


async def test_a_face_that_is_not_there_is_told(engine):
    await engine.start(gpu := engine.new_upstream())
    job = await swapped(engine, gpu, lines=["[ReActor] STATUS - No target face found for 4"])
    assert await warnings(engine, job.id) == ["face_missing"]
    assert "no face 4" in job.warnings[0]


# --------------------------------------------------------------------------------------------------------- several photos

TWO = [{"face_index": 1}, {"face_index": 0}]


async def test_each_photo_is_sent_and_put_on_its_face(engine):
    await engine.start(gpu := engine.new_upstream())
    job = await swapped(engine, gpu, roles=("target", "face_0", "face_1"), parameters={"face_swaps": TWO})
    swaps = [node["inputs"] for node in gpu.prompt.graph.values() if node["class_type"] == "ReActorFaceSwap"]
    assert [inputs["input_faces_index"] for inputs in swaps] == ["1", "0"]
    assert job.inputs.keys() == {"target", "face_0", "face_1"}
    assert await warnings(engine, job.id) == []


@pytest.mark.parametrize(
    ("roles", "parameters", "field"),
    [
        (("target", "face"), {"face_swaps": TWO}, "face_0"),
        (("target", "face_0"), {"face_swaps": TWO}, "face_1"),
        (("target", "face_0", "face_1", "face_2"), {"face_swaps": TWO}, "face_2"),
        (("target", "face_0"), {}, "face"),
        (("target",), {"face_swaps": []}, "face_swaps"),
    ],
)
async def test_photos_that_do_not_go_with_the_list_are_refused_and_leave_nothing(engine, roles, parameters, field):
    await engine.start(engine.new_upstream())
    with pytest.raises(InvalidInputError) as caught:
        await engine.submit(roles=roles, parameters=parameters)
    assert caught.value.field == field
    assert engine.blobs.stored == {}


async def test_each_photo_costs_its_time(engine):
    """Otherwise who sends ten faces at once would get ten times the share."""
    gpu = engine.new_upstream()
    gpu.set_reachable(reachable=False)
    await engine.start(gpu)
    await engine.submit(submitter="one", target=b"video:target")
    two = {"face_swaps": TWO}
    await engine.submit(submitter="two", target=b"video:target", roles=("target", "face_0", "face_1"), parameters=two)
    costs = {each.submitter: each.cost_seconds for each in await engine.store.candidates(limit=9)}
    assert costs["two"] == pytest.approx(2 * costs["one"])


async def test_a_swap_with_several_photos_is_taken_up_again(engine):
    await engine.start(gpu := engine.new_upstream())
    moving = {"face_swaps": [{**item, "frame_time_seconds": 0.5} for item in TWO]}
    job_id = await engine.submit(target=b"video:target", roles=("target", "face_0", "face_1"), parameters=moving)
    gpu.prompt.start()
    await engine.restart()
    gpu.prompt.succeed(engine.result_node("faceswap_video"), b"video:swapped")
    await engine.until("succeeded", job_id)
    assert await warnings(engine, job_id) == ["identity_not_tracked"]


async def test_where_persons_are_followed_there_is_nothing_to_warn_of(engine):
    gpu = offering(engine.new_upstream(), "ReActorFaceSwap", gateway_reference_frame=None)
    await engine.start(gpu)
    job_id = await engine.submit(target=b"video:target", parameters={"reference_frame_time_seconds": 0.5})
    (swap,) = (node["inputs"] for node in gpu.prompt.graph.values() if node["class_type"] == "ReActorFaceSwap")
    assert swap["gateway_reference_frame"] == 12
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_video"), b"video:swapped")
    await engine.until("succeeded", job_id)
    assert await warnings(engine, job_id) == []


# ------------------------------------------------------------------------------------------------------------------ sound


async def test_a_video_without_its_sound_is_what_was_asked_for(engine):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(target=b"video:target", parameters={"keep_audio": False})
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_video"), b"silent:swapped")
    job = await engine.until("succeeded", job_id)
    assert not job.results[0].facts.has_audio


async def test_a_video_with_the_sound_that_was_wished_away_is_no_success(engine):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(target=b"video:target", parameters={"keep_audio": False})
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_video"), b"video:swapped")
    assert "without audio" in (await engine.until("failed", job_id)).error_message


async def test_a_video_that_lost_its_sound_is_no_success(engine):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(target=b"video:target")
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_video"), b"silent:swapped")
    assert "audio" in (await engine.until("failed", job_id)).error_message


async def test_parameter_of_another_kind_of_target_is_said_to_be_one(engine):
    await engine.start(engine.new_upstream())
    with pytest.raises(InvalidInputError) as caught:
        await engine.submit(parameters={"keep_audio": False})
    assert (caught.value.message, caught.value.field) == (
        "There is no parameter 'keep_audio' for a target of kind image.",
        "keep_audio",
    )
    with pytest.raises(InvalidInputError, match=r"^There is no parameter 'sound'\.$"):
        await engine.submit(parameters={"sound": False})

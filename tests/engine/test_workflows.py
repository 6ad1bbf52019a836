"""Clients' own graphs through the whole engine: where they run, what they are given, what comes of them."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path

import pytest

from gateway.audit import MediaKind
from gateway.comfy.graph import allowed_values
from gateway.comfy.messages import Failed, NodeFinished, NodeOutput, NodeStarted, OutputFile, Succeeded
from gateway.consent import Attestation
from gateway.engine import relearning
from gateway.engine.assets import Upload
from gateway.errors import (
    BusyError,
    ConsentRequiredError,
    MissingAssetError,
    NotFoundError,
    QueueFullError,
    ShuttingDownError,
    TooLargeError,
    UnsafeContentError,
    UnsupportedMediaError,
    WorkflowError,
    WorkflowFormatError,
)
from gateway.events import EventKind
from gateway.interfaces import Capabilities
from gateway.settings import from_mapping
from gateway.sniffing import ANY_FILE, PNG, described
from tests.fakes.media import IMAGE, PNG_HEAD
from tests.fakes.upstream import FakeUpstream

REAL = json.loads((Path(__file__).parents[1] / "data/object_info/real.json").read_text(encoding="utf-8"))
REAL |= {
    "EmptyImage": {
        "input": {
            "required": {
                "width": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
                "height": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
                "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
                "color": ["INT", {"default": 0, "min": 0, "max": 16777215, "step": 1}],
            }
        },
        "output": ["IMAGE"],
        "output_node": False,
    },
    "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
}
#: Nothing but a picture made of nothing, saved.
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "cats/tabby"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
SWAP = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "mine"}},
}
SECRETS = {"api_key_comfy_org": "s3cret"}


def capabilities(*, without=(), max_upload_bytes=None):
    info = {name: entry for name, entry in copy.deepcopy(REAL).items() if name not in without}
    return Capabilities({name: allowed_values(entry) for name, entry in info.items()}, max_upload_bytes, info)


def upstream(name="gpu-1", **how):
    engine = how.pop("engine", "comfyui")
    return FakeUpstream(name, capabilities(**how), engine=engine)


async def upload(engine, data=b"image:photo", name="photo.png", *, owner="local", found=PNG):
    received = Upload(owner, engine.blobs.put(data), found, "image/png", name)
    return (await engine.service.assets.upload(received)).asset


async def last_event(engine, job_id):
    return (await engine.store.events_after(job_id, 0))[-1]


async def shown(engine, job_id):
    """What the events say of outputs, less what they take back."""
    found = {}
    for event in await engine.store.events_after(job_id, 0):
        if event.kind is EventKind.OUTPUT:
            assert event.data["asset_id"] not in found
            found[event.data["asset_id"]] = event.data["name"]
        for gone in event.data.get("dropped", ()):
            del found[gone]
    return found


# ---------------------------------------------------------------------------------------------------------- submitting


async def test_a_clients_graph_runs_as_it_is_with_a_prefix_of_ours(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH, priority=3, extra={"mine": 1})
    job = await engine.until("dispatched", job_id)
    assert (job.task, job.template, job.priority, job.extra) == ("workflow", "workflow", 3, {"mine": 1})
    sent = gpu.prompt.graph
    assert sent["1"]["inputs"] == GRAPH["1"]["inputs"]
    assert sent["2"]["inputs"] == {"images": ["1", 0], "filename_prefix": f"gateway/{gpu.prompt.id}/out/2"}
    assert await engine.service.workflow(job) == GRAPH
    gpu.prompt.start()
    saved = gpu.prompt.show("2", "2_00001_.png", contents=[PNG_HEAD + b"tabby"])
    gpu.prompt.end(saved)
    job = await engine.until("succeeded", job_id)
    (result,) = job.results
    assert (result.node_id, result.name, result.facts) == ("2", "tabby_00001_.png", IMAGE)
    assert engine.blobs.stored[result.blob] == PNG_HEAD + b"tabby"
    assert await engine.service.result(result.link) == (job, result)


async def test_files_that_it_names_are_the_owners_and_staged_where_it_runs(engine):
    gpu = upstream()
    await engine.start(gpu)
    photo = await upload(engine, PNG_HEAD + b"photo")
    by_name = await engine.job(await engine.submit_workflow(SWAP))
    reference = {"__type": "core/ASSET", "info": {"id": photo.id}}
    by_id_graph = copy.deepcopy(SWAP)
    by_id_graph["1"]["inputs"]["image"] = reference
    by_id = await engine.job(await engine.submit_workflow(by_id_graph))
    for job in (by_name, by_id):
        (given,) = job.inputs.values()
        assert (given.blob, given.source, given.facts) == (photo.blob, photo.id, IMAGE)
    assert gpu.prompt.graph["1"]["inputs"] == {"image": f"gateway/{photo.blob}.png"}
    assert (await engine.service.workflow(by_id))["1"]["inputs"]["image"] == reference


async def test_a_result_of_one_job_is_a_file_of_the_next(engine):
    gpu = upstream()
    await engine.start(gpu)
    first = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gpu.prompt.end(gpu.prompt.show("2", "2_00001_.png", contents=[PNG_HEAD + b"tabby"]))
    (made,) = (await engine.until("succeeded", first)).results
    graph = copy.deepcopy(SWAP)
    graph["1"]["inputs"]["image"] = {"__type": "core/ASSET", "info": {"id": made.asset_id}}
    second = await engine.job(await engine.submit_workflow(graph))
    assert second.inputs["file-1"].source == made.asset_id
    assert gpu.uploads == [made.blob]


async def test_files_of_others_and_of_nobody_are_missing_alike_and_all_are_named(engine):
    await engine.start(upstream())
    theirs = await upload(engine, owner="bob")
    graph = copy.deepcopy(SWAP) | {
        "4": {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": {"id": theirs.id}}}},
        "5": {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": {"id": "nobodys"}}}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
        "7": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }
    with pytest.raises(MissingAssetError) as caught:
        await engine.submit_workflow(graph)
    assert caught.value.details["missing_ids"] == sorted([theirs.id, "nobodys"])
    errors = caught.value.details["node_errors"]
    assert set(errors) == {"1", "4", "5"}
    assert errors["4"] == errors["5"]
    assert await engine.service.jobs("local") == []


async def test_an_upload_whose_bytes_are_gone_is_missing(engine):
    await engine.start(upstream())
    photo = await upload(engine)
    del engine.blobs.stored[photo.blob]
    with pytest.raises(MissingAssetError):
        await engine.submit_workflow(SWAP)


async def test_a_damaged_picture_is_refused_at_its_node_and_what_cannot_be_measured_is_not(engine):
    await engine.start(upstream())
    await upload(engine, PNG_HEAD + b":broken")
    with pytest.raises(WorkflowError) as caught:
        await engine.submit_workflow(SWAP)
    (error,) = caught.value.details["node_errors"]["1"]
    assert (error["field"], error["reason"]) == ("image", "unreadable_file")
    await upload(engine, b"whatever", found=ANY_FILE)
    job = await engine.job(await engine.submit_workflow(SWAP))
    assert job.inputs["file-1"].facts.kind is MediaKind.FILE


@pytest.mark.parametrize(
    ("graph", "error"),
    [
        ({"nodes": [], "links": []}, WorkflowFormatError),
        ({"1": {"class_type": "NoSuchClass", "inputs": {}}}, WorkflowError),
        ([], WorkflowError),
    ],
)
async def test_what_cannot_run_is_refused_at_once_and_nothing_is_stored(engine, graph, error):
    await engine.start(upstream())
    with pytest.raises(error):
        await engine.submit_workflow(graph)
    assert await engine.service.jobs("local") == []


async def test_while_no_upstream_has_spoken_nothing_can_be_judged(engine):
    silent = upstream()
    silent.known = None
    await engine.start(silent)
    with pytest.raises(BusyError) as caught:
        await engine.submit_workflow(GRAPH)
    assert caught.value.retry_after_seconds == 5


async def test_a_gateway_that_stops_takes_no_graph(engine):
    await engine.start(upstream())
    engine.service.begin_stopping()
    with pytest.raises(ShuttingDownError):
        await engine.submit_workflow(GRAPH)


async def test_a_file_that_no_upstream_takes_is_refused(engine):
    await engine.start(upstream(max_upload_bytes=2000))
    await upload(engine, PNG_HEAD + bytes(2000))
    with pytest.raises(TooLargeError):
        await engine.submit_workflow(SWAP)


async def test_a_full_queue_keeps_no_secret(tmp_path, engine):
    engine.settings = engine.settings.model_copy(update={"max_queue": 1})
    gpu = upstream()
    gpu.set_reachable(False)
    await engine.start(gpu)
    await engine.submit_workflow(GRAPH)
    with pytest.raises(QueueFullError):
        await engine.submit_workflow(GRAPH, secrets=SECRETS)
    assert len(engine.recorder.credentials) == 0


async def test_jobs_go_only_where_they_can_run_and_where_they_can_by_now(engine):
    plain, full = upstream("gpu-1", without=("PreviewImage",)), upstream("gpu-2")
    await engine.start(plain, full)
    first = await engine.submit_workflow(GRAPH)
    assert (await engine.job(first)).upstream == "gpu-2"
    second = await engine.submit_workflow(GRAPH)
    await engine.until("queued", second)
    plain.known = capabilities()  # a package was installed there
    await engine.pass_time(6)
    assert (await engine.job(second)).upstream == "gpu-1"


async def test_what_was_installed_just_now_counts(engine):
    gpu = upstream(without=("PreviewImage",))
    gpu.learns = capabilities()
    await engine.start(gpu)
    assert (await engine.job(await engine.submit_workflow(GRAPH))).upstream == "gpu-1"
    assert gpu.relearned == 1


async def test_upstreams_are_asked_anew_where_one_lacks_something_and_only_there(engine):
    gpu, down = upstream(), upstream("gpu-2")
    down.set_reachable(False)
    await engine.start(gpu, down)
    with pytest.raises(WorkflowError):
        await engine.submit_workflow({"1": {"class_type": "NoSuchClass", "inputs": {}}})
    assert (gpu.relearned, down.relearned) == (1, 0)
    for at_fault in ({"nodes": [], "links": []}, {"1": {"class_type": "ShellCommand", "inputs": {}}}, []):
        with pytest.raises((WorkflowError, WorkflowFormatError)):
            await engine.submit_workflow(at_fault)
    assert gpu.relearned == 1


async def test_an_upstream_that_takes_long_to_say_what_it_can_do_is_not_waited_for(engine, monkeypatch):
    monkeypatch.setattr(relearning, "PATIENCE_SECONDS", 0.0)
    gpu = upstream()
    monkeypatch.setattr(gpu, "relearn", asyncio.Event().wait)
    await engine.start(gpu)
    with pytest.raises(WorkflowError):
        await engine.submit_workflow({"1": {"class_type": "NoSuchClass", "inputs": {}}})


async def test_our_own_worker_runs_no_graph_beside_a_real_upstream(engine):
    real, worker = upstream("gpu-1", without=("PreviewImage",)), upstream("embedded-1", engine="preview")
    await engine.start(real, worker)
    with pytest.raises(WorkflowError) as caught:
        await engine.submit_workflow(GRAPH)
    assert set(caught.value.details["upstreams"]) == {"gpu-1"}


async def test_why_a_graph_waits_is_told_for_each_upstream(engine):
    plain, full = upstream("gpu-1", without=("PreviewImage",)), upstream("gpu-2")
    await engine.start(plain, full)
    await engine.submit_workflow(GRAPH)
    second = await engine.job(await engine.submit_workflow(GRAPH))
    wait = await engine.service.why_waiting(second)
    assert [(found.upstream, found.fits) for found in wait.upstreams] == [("gpu-1", False), ("gpu-2", True)]


async def test_the_graph_of_a_templates_job_is_its_templates_without_names_of_files(engine):
    await engine.start(engine.new_upstream())
    job = await engine.job(await engine.submit())
    graph = await engine.service.workflow(job)
    assert {node["class_type"] for node in graph.values()} >= {"LoadImage", "SaveImage"}
    assert "gateway/" not in json.dumps(graph)


async def test_a_graph_that_is_forgotten_is_not_found(engine):
    gpu = upstream()
    await engine.start(gpu)
    job = await engine.job(await engine.submit_workflow(GRAPH))
    gpu.prompt.fail()
    await engine.until("failed", job.id)
    await engine.service.archive.purge_job(job.id)
    with pytest.raises(NotFoundError):
        await engine.service.workflow(job)


# ------------------------------------------------------------------------------------------------------------- outputs


async def test_outputs_are_there_as_soon_as_their_node_has_spoken(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    first = gpu.prompt.show("3", "ComfyUI_temp_1_.png")
    job = await engine.until("running", job_id)
    (early,) = job.results
    assert (early.node_id, early.name) == ("3", "ComfyUI_temp_1_.png")
    assert await engine.service.result(early.link) == (job, early)
    second = gpu.prompt.show("2", "2_00001_.png", "2_00002_.png")
    await engine.settle()
    gpu.prompt.end(first, second)
    job = await engine.until("succeeded", job_id)
    assert [result.name for result in job.results] == ["ComfyUI_temp_1_.png", "tabby_00001_.png", "tabby_00002_.png"]
    assert list(await shown(engine, job_id)) == [result.asset_id for result in job.results]
    assert await engine.kinds(job_id) == ["queued", "dispatched", "started", *["output"] * 3, "finishing", "succeeded"]


async def test_what_is_told_twice_or_only_at_the_end_is_there_once(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    first = gpu.prompt.show("2", "2_00001_.png")
    gpu.prompt.say(first)
    await engine.settle()
    late = OutputFile("x.png", "", "temp", "images")
    gpu.files[late] = b"late"
    from_history = type(first)(gpu.prompt.id, "3", (late, late))
    gpu.prompt.say(Succeeded(gpu.prompt.id, {"3": from_history, "2": first}))
    job = await engine.until("succeeded", job_id)
    assert [(result.node_id, result.name) for result in job.results] == [("2", "tabby_00001_.png"), ("3", "x.png")]
    assert set(await shown(engine, job_id)) == {result.asset_id for result in job.results}


async def test_what_cannot_be_fetched_early_is_fetched_at_the_end(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gpu.fetch_errors = [FileNotFoundError()]
    output = gpu.prompt.show("2", "2_00001_.png", "2_00002_.png")
    assert (await engine.until("running", job_id)).results == ()
    gpu.prompt.end(output)
    assert len((await engine.until("succeeded", job_id)).results) == 2


async def test_a_fetch_that_hangs_holds_up_no_end_and_leaves_nothing(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gate = gpu.fetch_gate = asyncio.Event()
    output = gpu.prompt.show("2", "2_00001_.png")
    await engine.until("running", job_id)
    gpu.prompt.end(output)
    await engine.until("finishing", job_id)
    gate.set()
    assert len((await engine.until("succeeded", job_id)).results) == 1
    assert not list(engine.folder.glob("result-*"))


@pytest.mark.parametrize("end", ["failed", "canceled", "queued"])
async def test_what_did_not_succeed_leaves_no_output(engine, end):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gpu.prompt.show("2", "2_00001_.png")
    (early,) = (await engine.until("running", job_id)).results
    if end == "failed":
        gpu.prompt.fail()
    elif end == "canceled":
        await engine.service.cancel(job_id, "local")
    else:
        gpu.prompt.lose()
    job = await engine.until(end, job_id)
    assert job.results == ()
    with pytest.raises(NotFoundError):
        await engine.service.result(early.link)
    event = await last_event(engine, job_id)
    assert event.data.get("dropped") == ([early.asset_id] if end == "queued" else None)
    await engine.pass_time(4000)
    gpu.set_reachable(False)
    await engine.keeper.sweep()
    assert early.blob not in engine.blobs.stored


async def test_a_large_graph_runs_and_what_was_learned_of_graphs_is_kept(engine):
    gpu = upstream()
    await engine.start(gpu)
    many = {str(n): {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}} for n in range(3, 300)}
    job_id = await engine.submit_workflow(GRAPH | many)
    assert len(gpu.prompt.graph) == 299
    gpu.prompt.start()
    gpu.prompt.say(NodeStarted(gpu.prompt.id, "1"), NodeFinished(gpu.prompt.id, "1"))
    await engine.settle()
    gpu.prompt.end(gpu.prompt.show("2", "2_00001_.png"))
    await engine.until("succeeded", job_id)
    await engine.timings.save()
    learned = await engine.store.timings()
    assert "workflow" in {row.key.template for row in learned}
    await engine.keeper.round(0)
    await engine.timings.save()
    assert await engine.store.timings() == learned


async def test_after_a_loss_the_next_attempt_makes_all_anew(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gpu.prompt.show("3", "temp.png", contents=[b"the first"])
    await engine.until("running", job_id)
    gpu.prompt.lose()
    await engine.until("queued", job_id)
    await engine.pass_time(60)
    gpu.prompt.start()
    again = gpu.prompt.show("3", "temp.png", contents=[b"the second"])
    await engine.settle()
    gpu.prompt.end(again)
    job = await engine.until("succeeded", job_id)
    assert [engine.blobs.stored[result.blob] for result in job.results] == [b"the second"]
    assert set(await shown(engine, job_id)) == {result.asset_id for result in job.results}


async def test_what_a_node_only_says_is_an_output_too(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    said = NodeOutput(gpu.prompt.id, "3", (), {"text": ["30 frames", "", 7, "\ud800 half", "x" * 65_537]})
    gpu.prompt.say(said)
    job = await engine.until("running", job_id)
    assert [(result.name, result.facts.kind, result.facts.content_type) for result in job.results] == [
        ("text-1.txt", MediaKind.TEXT, "text/plain"),
        ("text-2.txt", MediaKind.TEXT, "text/plain"),
    ]
    gpu.prompt.say(Succeeded(gpu.prompt.id, {"3": said}))
    job = await engine.until("succeeded", job_id)
    assert [engine.blobs.stored[result.blob] for result in job.results] == [b"30 frames", b"? half"]
    assert len(await shown(engine, job_id)) == 2


async def test_a_restart_in_between_keeps_what_was_shown_and_doubles_nothing(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    first = gpu.prompt.show("3", "temp.png")
    (early,) = (await engine.until("running", job_id)).results
    await engine.restart()
    second = gpu.prompt.show("2", "2_00001_.png")
    await engine.settle()
    gpu.prompt.end(first, second)
    job = await engine.until("succeeded", job_id)
    assert [result.name for result in job.results] == ["temp.png", "tabby_00001_.png"]
    assert job.results[0] == early


async def test_files_of_every_kind_are_kept_as_they_are(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    prompt = gpu.prompt
    prompt.start()
    named = {
        "voice_00001_.flac": ("audio", MediaKind.AUDIO, "audio/flac"),
        "noise_00001_.latent": ("latents", MediaKind.LATENT, "application/octet-stream"),
        "story.txt": ("text", MediaKind.TEXT, "text/plain"),
        "shape.glb": ("3d", MediaKind.FILE, "model/gltf-binary"),
        "page.html": ("files", MediaKind.FILE, "application/octet-stream"),
        "drawing.svg": ("images", MediaKind.IMAGE, "application/octet-stream"),
        "deep.exr": ("images", MediaKind.IMAGE, "image/x-exr"),
    }
    outputs = [prompt.show(str(number), name, kind=how[0]) for number, (name, how) in enumerate(named.items(), 10)]
    prompt.end(*outputs)
    job = await engine.until("succeeded", job_id)
    found = {result.name: (result.facts.kind, result.facts.content_type) for result in job.results}
    assert found == {name: how[1:] for name, how in named.items()}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "empty"), (bytes(1001), "larger"), (PNG_HEAD + b":broken", "no good")],
)
async def test_a_result_that_is_no_good_fails_the_job(engine, content, sentence):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gpu.prompt.end(gpu.prompt.show("2", "2_00001_.png", contents=[content]))
    job = await engine.until("failed", job_id)
    assert (job.error_code, job.results) == ("result_invalid", ())
    assert sentence in job.error_message


async def test_more_files_than_a_job_may_have_fail_it(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gpu.prompt.end(gpu.prompt.show("2", *(f"2_{number:05}_.png" for number in range(1001))))
    assert (await engine.until("failed", job_id)).error_code == "result_invalid"


async def test_a_graph_that_can_only_make_too_many_files_is_refused_at_once(engine):
    await engine.start(upstream())
    most = {str(n): GRAPH["2"] for n in range(2, 1002)} | {"1": GRAPH["1"]}
    with pytest.raises(WorkflowError, match="1001 nodes that write files; a job may make 1000"):
        await engine.submit_workflow(most | {"x": GRAPH["2"]})
    assert await engine.submit_workflow(most)


async def test_a_failure_names_its_node(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    gpu.prompt.say(Failed(gpu.prompt.id, "node_failed", "A node failed.", "2", "SaveImage"))
    job = await engine.until("failed", job_id)
    assert (job.error_node_id, job.error_node_class) == ("2", "SaveImage")


# ------------------------------------------------------------------------------------------------------------- secrets


async def test_a_secret_goes_with_each_attempt_and_is_gone_at_the_end(engine, logged):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH, secrets=SECRETS)
    assert gpu.prompt.secrets == SECRETS
    gpu.prompt.start()
    await engine.settle()
    gpu.prompt.lose()
    await engine.until("queued", job_id)
    await engine.pass_time(60)
    assert len(gpu.prompts) == 2
    assert gpu.prompt.secrets == SECRETS
    gpu.prompt.start()
    gpu.prompt.end(gpu.prompt.show("2", "2_00001_.png"))
    job = await engine.until("succeeded", job_id)
    assert len(engine.recorder.credentials) == 0
    assert SECRETS["api_key_comfy_org"] not in f"{job!r}{logged}{await engine.store.workflow(job_id)}"
    assert job.extra == {"secrets": ["api_key_comfy_org"]}


async def test_a_job_whose_secret_went_with_a_restart_fails_where_it_would_be_needed_again(engine):
    gpu = upstream()
    await engine.start(gpu)
    running = await engine.submit_workflow(GRAPH, secrets=SECRETS)
    waiting = await engine.submit_workflow(GRAPH, secrets=SECRETS)
    plain = await engine.submit_workflow(GRAPH)
    gpu.prompt.start()
    await engine.restart()
    gpu.prompt.end(gpu.prompt.show("2", "2_00001_.png"))  # what runs needs none to be taken up
    await engine.until("succeeded", running)
    job = await engine.until("failed", waiting)
    assert job.error_code == "credential_lost"
    await engine.until("dispatched", plain)


async def test_a_lost_attempt_after_a_restart_needs_its_secret(engine):
    gpu = upstream()
    await engine.start(gpu)
    job_id = await engine.submit_workflow(GRAPH, secrets=SECRETS)
    gpu.prompt.start()
    await engine.restart()
    gpu.prompt.start()
    await engine.settle()
    gpu.prompt.lose()
    await engine.until("queued", job_id)
    await engine.pass_time(60)
    assert (await engine.until("failed", job_id)).error_code == "credential_lost"


async def test_no_more_secrets_are_held_than_may_be(engine, monkeypatch):
    monkeypatch.setattr("gateway.engine.credentials.MAX_JOBS", 1)
    await engine.start(upstream())
    await engine.submit_workflow(GRAPH, secrets=SECRETS)
    with pytest.raises(BusyError):
        await engine.submit_workflow(GRAPH, secrets=SECRETS)
    await engine.submit_workflow(GRAPH)


# ------------------------------------------------------------------------------------------------------------- consent


async def test_a_graph_that_swaps_a_face_needs_consent_where_it_is_asked_for_and_nothing_is_left_without(engine):
    engine.settings = engine.settings.model_copy(update={"require_consent": True})
    await engine.start(upstream())
    swap = GRAPH | {"4": {"class_type": "ReActorFaceSwap", "inputs": {"input_image": ["1", 0]}}}
    with pytest.raises(ConsentRequiredError):
        await engine.submit_workflow(swap, settle=False)
    assert await engine.service.jobs("local") == []
    job_id = await engine.submit_workflow(GRAPH)
    with pytest.raises(NotFoundError):
        await engine.service.consents.record(job_id)


async def test_what_is_said_of_a_graph_is_recorded_with_what_came_of_it(engine):
    changes = {"require_consent": True, "nodes_swap": ("saveimage",)}
    engine.settings = engine.settings.model_copy(update=changes)
    gpu = upstream()
    await engine.start(gpu)
    with pytest.raises(ConsentRequiredError):
        await engine.submit_workflow(GRAPH, settle=False)
    job_id = await engine.submit_workflow(GRAPH, consent=Attestation.HEADER)
    gpu.prompt.start()
    gpu.prompt.end(gpu.prompt.show("2", "2_00001_.png", contents=[PNG_HEAD + b"tabby"]))
    (result,) = (await engine.until("succeeded", job_id)).results
    record = await engine.service.consents.record(job_id)
    assert (record.attested, record.state, record.outputs) == (Attestation.HEADER, "succeeded", (result.blob,))


# ----------------------------------------------------------------------------------------------------- the safety check


def looking(engine, **settings):
    values = {**engine.settings.model_dump(exclude_unset=True), "safety_model": "red.onnx", **settings}
    engine.settings = from_mapping(values)
    return engine


async def test_files_of_a_graph_are_looked_at_and_the_place_of_a_flagged_one_is_named(engine):
    await looking(engine).start(upstream())
    await upload(engine, b"image:bad")
    before = dict(engine.blobs.stored)
    with pytest.raises(UnsafeContentError) as refused:
        await engine.submit_workflow(SWAP)
    assert refused.value.field == "1.image"
    assert (engine.blobs.stored, list(await engine.service.jobs("local"))) == (before, [])
    assert len(engine.check.shown) == 1
    await upload(engine, b"image:good")
    assert (await engine.job(await engine.submit_workflow(SWAP))).warnings == ()


@pytest.mark.parametrize("declared", ["image/bmp", "audio/ogg", "text/plain"])
async def test_file_that_nobody_can_look_at_does_not_run_whatever_it_is_called(engine, declared):
    """A worker opens more kinds of pictures than are decoded here, and a client may call any of them a sound."""
    await looking(engine).start(upstream())
    await upload(engine, b"BM a picture of a kind", found=described(ANY_FILE, declared, "photo.png"))
    with pytest.raises(UnsupportedMediaError) as refused:
        await engine.submit_workflow(SWAP)
    assert refused.value.field == "1.image"
    assert list(await engine.service.jobs("local")) == []


async def test_file_that_nobody_can_look_at_runs_with_a_warning_where_flagged_ones_run(engine):
    await looking(engine, safety="flag").start(upstream())
    await upload(engine, b"BM a picture of a kind", found=ANY_FILE)
    job_id = await engine.submit_workflow(SWAP)
    second = (await engine.store.events_after(job_id, 1))[0]
    assert (second.kind, second.data["code"]) == (EventKind.WARNING, "input_not_looked_at")

"""Videos that an upstream puts to the job's target itself: what is taken over without its bytes, and what is fetched after all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from dataclasses import replace

import pytest

from gateway.binding import as_dispatched
from gateway.comfy.messages import Failed, LogLine, NodeOutput, OutputFile, Succeeded
from gateway.delivering import DeliveryState, Named, file_names
from gateway.direct import ARRIVALS, NODE_CLASS, REPORT, URL_SECONDS, arrival_key, node_for
from gateway.engine.arrivals import NOT_AUDITED_SENTENCE
from gateway.errors import (
    BusyError,
    InternalJobError,
    ShuttingDownError,
    StorageUnreachableError,
    TooLargeError,
)
from gateway.placed import placed_at
from tests.fakes.bucket import Kept, MemoryBucket


def video(index=b"video:swapped", pictures=b"the pictures"):
    """A row of boxes, as an MP4 is; the fake reads what it is out of the index."""
    boxes = [(b"ftyp", b"isomiso2"), (b"mdat", pictures), (b"moov", index)]
    return b"".join(struct.pack(">I", 8 + len(body)) + kind + body for kind, body in boxes)


MADE = video()
FETCHED = b"video:fetched"


@pytest.fixture
async def direct(engine):
    """The engine with a target that upstreams put files to, and an upstream with the node pack."""
    engine.bucket = engine.direct["archive"] = MemoryBucket(engine.clock.now)
    engine.storage.add_target("archive")
    engine.gpu = engine.new_upstream()
    engine.gpu.set_class(NODE_CLASS, "url", "filenames")
    engine.gpu.set_class("VHS_VideoCombine", "save_metadata")
    await engine.start(engine.gpu)
    carrier = engine.carrier  # a restart makes another
    loop = asyncio.create_task(carrier.run(), name="carrier")
    yield engine
    await carrier.stop()
    await asyncio.gather(loop, return_exceptions=True)


async def submitted(engine, *, name="archive", target=b"video:target"):
    wish = {"deliver_to": await engine.deliveries.wish(Named(name), "local")}
    return await engine.submit(target, extra=wish)


def maker_of(prompt):
    """The node that makes the video."""
    (maker,) = [one for one, node in prompt.graph.items() if node["class_type"] == "VHS_VideoCombine"]
    return maker


def report_on(data, **other):
    file = {"filename": "out_00001.mp4", "subfolder": "gateway/x", "type": "output"}
    sent = {"status": "uploaded", "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "reason": ""}
    return {**file, **sent, **other}


def end(engine, *, arrives=MADE, report=None, lines=(), start=True):
    """The newest prompt ends in success: what it made lies there to be fetched, and has arrived at the target or not."""
    prompt = engine.gpu.prompt
    maker = maker_of(prompt)
    if start:
        prompt.start()
    prompt.say(*(LogLine(prompt.id, line) for line in lines))
    file = OutputFile("out_00001.mp4", f"gateway/{prompt.id}", "output", "gifs")
    engine.gpu.files[file] = FETCHED
    outputs = {maker: NodeOutput(prompt.id, maker, (file,))}
    if node_for(maker) in prompt.graph:
        if arrives is not None:
            engine.bucket.kept[arrival_key(prompt.id, maker)] = Kept(arrives, engine.clock.now(), "", None, "")
        told = report or report_on(arrives or MADE)
        outputs[node_for(maker)] = NodeOutput(prompt.id, node_for(maker), (), {REPORT: [told]})
    prompt.say(Succeeded(prompt.id, outputs))


async def ended(engine, job_id, state="succeeded"):
    job = await engine.until(state, job_id)
    deliveries = (await engine.deliveries.of([job])).get(job_id, [])
    return job, deliveries


async def place_of(engine, job_id):
    """Where what the newest prompt makes is to be."""
    return f"{job_id}/{engine.gpu.prompt.id}/{(await engine.job(job_id)).output_name}.mp4"


def in_place(engine):
    """What lies elsewhere than among the arrivals."""
    return [key for key in engine.bucket.kept if not key.startswith(ARRIVALS)]


async def require_fetched(engine, job_id):
    """It is with us, audited, and delivered from here."""
    job, (delivery,) = await ended(engine, job_id)
    (result,) = job.results
    assert engine.blobs.stored[result.blob] == FETCHED
    assert NOT_AUDITED_SENTENCE not in job.warnings
    assert (delivery.state, [put.data for put in engine.storage.puts]) == (DeliveryState.DELIVERED, [FETCHED])
    assert (await engine.kinds(job_id)).count("uploaded") == 1
    return job


async def test_the_graph_names_a_url_for_one_object_and_what_is_made_tells_nothing_of_it(direct):
    await submitted(direct)
    prompt = direct.gpu.prompt
    maker = maker_of(prompt)
    node = prompt.graph[node_for(maker)]
    assert node["class_type"] == NODE_CLASS
    assert node["inputs"]["filenames"] == [maker, 0]
    assert node["inputs"]["url"] == f"https://memory.test/{ARRIVALS}{prompt.id}/{maker}?put&for={URL_SECONDS}&type=None"
    assert prompt.graph[maker]["inputs"]["save_metadata"] is False


async def test_what_arrived_is_in_its_place_and_never_came_here(direct):
    job_id = await submitted(direct)
    end(direct)
    job, (delivery,) = await ended(direct, job_id)
    (result,) = job.results
    placed = placed_at(result.blob)
    key = f"{job_id}/{direct.gpu.prompt.id}/{job.output_name}.mp4"
    assert (placed.target, placed.key, placed.sha256) == ("archive", key, hashlib.sha256(MADE).hexdigest())
    assert (result.size_bytes, result.facts.frames, result.place) == (len(MADE), 25, f"s3://memory/{key}")
    kept = direct.bucket.kept
    assert {name: one.data for name, one in kept.items()} == {key: MADE}
    assert (kept[key].content_type, kept[key].filename) == ("video/mp4", f"{job.output_name}.mp4")
    assert (delivery.state, delivery.place, delivery.file_name) == (
        DeliveryState.DELIVERED,
        f"s3://memory/{key}",
        f"{job.output_name}.mp4",
    )
    assert direct.gpu.fetched == []
    assert direct.storage.puts == []
    *_, succeeded, uploaded = await direct.store.events_after(job_id, 0)
    assert (succeeded.kind.value, uploaded.kind.value, uploaded.data["place"]) == (
        "succeeded",
        "uploaded",
        result.place,
    )
    assert NOT_AUDITED_SENTENCE in job.warnings


async def test_where_the_storage_works_out_no_hash_the_file_is_read_once_and_hashed(direct):
    direct.bucket.works_out_hashes = False
    job_id = await submitted(direct)
    end(direct)
    job, _ = await ended(direct, job_id)
    assert placed_at(job.results[0].blob) is not None


@pytest.mark.parametrize("works_out_hashes", [True, False])
async def test_bytes_that_are_not_those_that_were_told_are_not_taken(direct, works_out_hashes):
    direct.bucket.works_out_hashes = works_out_hashes
    job_id = await submitted(direct)
    end(direct, arrives=video(pictures=b"THE PICTURES"), report=report_on(MADE))
    await require_fetched(direct, job_id)
    assert not in_place(direct), "nothing wrong is left in its place"


@pytest.mark.parametrize(
    ("arrives", "report"),
    [
        (None, None),
        (MADE, report_on(MADE, size_bytes=len(MADE) + 1)),
        (MADE, report_on(MADE, size_bytes="12")),
        (MADE, report_on(MADE, sha256="../../etc")),
        (MADE, report_on(MADE, status="failed", reason="its host is not in COMFYGATE_UPLOAD_HOSTS")),
        (MADE, report_on(MADE, status="not_asked")),
        (MADE, {"status": ["uploaded"]}),
        (b"", report_on(b"")),
        (b"video:no boxes at all", None),
        (video(b"cut:swapped"), None),
        (video(b"silent:swapped"), None),
        (video(b"stump:swapped"), None),
        (video(b"image:swapped"), None),
        (video(b"nothing:swapped"), None),
        (video()[:-3], None),
        (video() + b"\0\0\0", None),
    ],
    ids=[
        "not there",
        "another size",
        "a size in words",
        "no hash",
        "not sent",
        "not asked",
        "no report",
        "empty",
        "no MP4",
        "frames missing",
        "sound missing",
        "another size of picture",
        "no video",
        "unreadable",
        "cut short",
        "too long",
    ],
)
async def test_whatever_is_wrong_the_file_is_fetched_audited_and_delivered_from_here(direct, arrives, report):
    job_id = await submitted(direct)
    end(direct, arrives=arrives, report=report)
    await require_fetched(direct, job_id)


async def test_a_missed_face_in_the_log_has_the_pictures_looked_at(direct):
    job_id = await submitted(direct)
    end(direct, lines=["Cannot detect any Target faces"])
    await require_fetched(direct, job_id)


async def test_a_storage_that_does_not_answer_fails_no_job(direct):
    job_id = await submitted(direct)
    direct.bucket.failure = StorageUnreachableError("down", reason="HeadObject: connection refused")
    end(direct)
    await require_fetched(direct, job_id)


async def test_a_storage_that_signs_nothing_has_the_file_fetched(direct):
    direct.bucket.failure = StorageUnreachableError("down", reason="no credentials")
    job_id = await submitted(direct)
    assert NODE_CLASS not in {node["class_type"] for node in direct.gpu.prompt.graph.values()}
    end(direct)
    await require_fetched(direct, job_id)


async def test_only_jobs_that_go_to_such_a_target_and_run_where_the_node_is_are_invited(direct):
    direct.storage.add_target("lan")
    await submitted(direct, name="lan")
    assert NODE_CLASS not in {node["class_type"] for node in direct.gpu.prompt.graph.values()}
    end(direct)
    await direct.submit(b"video:target")
    assert NODE_CLASS not in {node["class_type"] for node in direct.gpu.prompt.graph.values()}
    end(direct)
    await submitted(direct, target=b"image:target")
    assert NODE_CLASS not in {node["class_type"] for node in direct.gpu.prompt.graph.values()}
    direct.finish(direct.gpu)
    await direct.settle()
    direct.gpu.set_class(NODE_CLASS)
    await submitted(direct)
    assert NODE_CLASS not in {node["class_type"] for node in direct.gpu.prompt.graph.values()}


async def test_who_reads_the_url_and_puts_something_else_there_just_then_is_found_out(direct):
    job_id = await submitted(direct)
    arrival = arrival_key(direct.gpu.prompt.id, maker_of(direct.gpu.prompt))
    copied = direct.bucket.copy

    async def copy(source, key, **how):
        direct.bucket.kept[arrival] = Kept(video(pictures=b"OTHER MOVIES"), direct.clock.now(), "", None, "")
        await copied(source, key, **how)

    direct.bucket.copy = copy
    end(direct)
    await require_fetched(direct, job_id)
    assert not in_place(direct)


async def test_a_killed_gateway_finds_its_copy_again_and_verifies_it_anew(direct):
    job_id = await submitted(direct)
    arrival = arrival_key(direct.gpu.prompt.id, maker_of(direct.gpu.prompt))
    key, worked_out, started = await place_of(direct, job_id), direct.bucket.sha256_found, asyncio.Event()

    async def stands_still(_):
        started.set()
        await asyncio.Event().wait()

    async def killed(_):
        raise ShuttingDownError("nothing of it gets to run any more")

    direct.bucket.sha256_found, direct.arrivals._take_back = stands_still, killed
    end(direct)
    await started.wait()
    del direct.bucket.kept[arrival]  # all was done but for writing it down
    direct.bucket.sha256_found = worked_out
    await direct.restart()
    job, (delivery,) = await ended(direct, job_id)
    assert placed_at(job.results[0].blob).key == key
    assert (delivery.state, in_place(direct), direct.gpu.fetched) == (DeliveryState.DELIVERED, [key], [])
    assert ("sha256_found", key) in direct.bucket.asked


async def test_a_copy_of_a_killed_gateway_that_is_another_file_is_not_believed(direct):
    job_id = await submitted(direct)
    key = await place_of(direct, job_id)
    other = video(pictures=b"THE PICTURES")
    direct.bucket.kept[key] = Kept(other, 0.0, "video/mp4", None, hashlib.sha256(MADE).hexdigest())
    end(direct, arrives=None)
    await require_fetched(direct, job_id)
    assert key not in direct.bucket.kept


async def test_a_job_that_is_canceled_meanwhile_leaves_no_file_in_its_place(direct):
    job_id = await submitted(direct)
    started, go = asyncio.Event(), asyncio.Event()
    worked_out = direct.bucket.sha256_found

    async def slow(key):
        started.set()
        await go.wait()
        return await worked_out(key)

    direct.bucket.sha256_found = slow
    end(direct)
    await started.wait()
    await direct.service.cancel(job_id, "local")
    await direct.until("canceled", job_id)
    assert not in_place(direct)


async def test_nothing_is_put_in_its_place_while_somebody_else_holds_the_data(direct):
    direct.receivers.refusal = ShuttingDownError("taken over")
    await submitted(direct)
    end(direct)
    await direct.settle()
    assert not in_place(direct)


async def test_two_videos_of_a_job_have_two_names(direct):
    job_id = await submitted(direct)
    job = await direct.job(job_id)
    end(direct)
    job, _ = await ended(direct, job_id)
    other = replace(job.results[0], asset_id="other", blob="ab" * 32, place=None)
    names = file_names(replace(job, results=(other, job.results[0])))
    assert names == (f"1-{job.output_name}.mp4", f"{job.output_name}.mp4")


async def test_a_job_that_is_canceled_while_its_file_is_copied_leaves_no_file_in_its_place(direct):
    job_id = await submitted(direct)
    started, go = asyncio.Event(), asyncio.Event()
    copied = direct.bucket.copy

    async def slow(source, key, **how):
        started.set()
        await copied(source, key, **how)
        await go.wait()

    direct.bucket.copy = slow
    end(direct)
    await started.wait()
    await direct.service.cancel(job_id, "local")
    await direct.until("canceled", job_id)
    assert not in_place(direct)


async def test_a_process_that_is_replaced_deletes_nothing_that_its_successor_delivered(direct):
    job_id = await submitted(direct)
    prompt, maker = direct.gpu.prompt, maker_of(direct.gpu.prompt)
    started, worked_out = asyncio.Event(), direct.bucket.sha256_found

    async def stands_still(_):
        direct.bucket.sha256_found = worked_out
        started.set()
        await asyncio.Event().wait()

    direct.bucket.sha256_found = stands_still
    direct.bucket.kept[arrival_key(prompt.id, maker)] = Kept(MADE, direct.clock.now(), "", None, "")
    job = await direct.job(job_id)
    bound = as_dispatched(await direct.catalog.of_job(job), job.parameters, direct.gpu.known)
    files = {node_for(maker): (OutputFile("", "", "output", REPORT, text=json.dumps(report_on(MADE))),)}
    replaced = asyncio.create_task(direct.arrivals.taken(job, bound, bound.outputs[maker], prompt.id, files, number=1))
    await started.wait()
    end(direct)
    job, (delivery,) = await ended(direct, job_id)
    replaced.cancel()
    await asyncio.gather(replaced, return_exceptions=True)
    assert delivery.state is DeliveryState.DELIVERED
    assert in_place(direct) == [placed_at(job.results[0].blob).key]


async def test_that_a_face_was_missed_is_not_forgotten_with_the_process(direct):
    job_id = await submitted(direct)
    direct.gpu.fetch_gate = asyncio.Event()
    end(direct, lines=["Cannot detect any Target faces"])
    await direct.until("finishing", job_id)
    await direct.restart()
    direct.gpu.fetch_gate.set()
    await ended(direct, job_id)
    assert direct.gpu.fetched
    assert not in_place(direct)


async def test_a_swap_whose_log_was_not_heard_from_its_start_is_looked_at(direct):
    job_id = await submitted(direct)
    direct.gpu.prompt.start()
    await direct.settle()
    prompt, maker = direct.gpu.prompt, maker_of(direct.gpu.prompt)
    await direct.restart()
    file = OutputFile("out_00001.mp4", f"gateway/{prompt.id}", "output", "gifs")
    direct.gpu.files[file] = FETCHED
    direct.bucket.kept[arrival_key(prompt.id, maker)] = Kept(MADE, direct.clock.now(), "", None, "")
    told = NodeOutput(prompt.id, node_for(maker), (), {REPORT: [report_on(MADE)]})
    prompt.say(Succeeded(prompt.id, {maker: NodeOutput(prompt.id, maker, (file,)), node_for(maker): told}))
    job, _ = await ended(direct, job_id)
    assert placed_at(job.results[0].blob) is None


@pytest.mark.parametrize("error", [InternalJobError("It died."), TooLargeError("It is too large.")])
async def test_an_index_that_cannot_be_read_fails_no_job(direct, error):
    async def skim(path):
        raise error

    direct.media.skim = skim
    job_id = await submitted(direct)
    end(direct)
    await require_fetched(direct, job_id)


async def test_not_to_know_whose_the_data_is_costs_no_attempt(direct):
    direct.receivers.refusal = BusyError("busy")
    job_id = await submitted(direct)
    end(direct)
    job = await direct.until("succeeded", job_id)
    assert placed_at(job.results[0].blob) is None
    assert (await direct.kinds(job_id)).count("dispatched") == 1


async def test_an_upstream_whose_node_fails_is_not_asked_again_and_the_job_loses_nothing(direct):
    job_id = await submitted(direct)
    prompt = direct.gpu.prompt
    prompt.start()
    prompt.say(Failed(prompt.id, "node_failed", "A node failed.", node_for(maker_of(prompt))))
    await direct.settle()
    assert direct.gpu.prompt is not prompt
    assert NODE_CLASS not in {node["class_type"] for node in direct.gpu.prompt.graph.values()}
    end(direct)
    await require_fetched(direct, job_id)

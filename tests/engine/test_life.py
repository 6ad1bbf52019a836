"""A job's life through the whole engine, on fakes: how it succeeds, how it fails, what a loss costs."""

from __future__ import annotations

import asyncio

import pytest

from gateway.breaker import EJECT_SECONDS
from gateway.comfy.messages import LogLine, NodeProgress, NodeStarted
from gateway.comfy.progress import RUN_TO
from gateway.engine import results, storage_watch
from gateway.engine.bars import STEP
from gateway.engine.dispatcher import MAX_RETRY_SECONDS
from gateway.engine.results import FETCH_WAIT_SECONDS
from gateway.engine.storage_watch import LOOK_SECONDS, LOOKS
from gateway.errors import StorageFullError, TooLargeError
from gateway.events import EventKind
from gateway.interfaces import BlobsState, Report, Trouble
from gateway.job import JobState, TaskEvent

FILTERED = "[ReActor] NSFW content detected with score=0.991, skipping..."
FACELESS = "[ReActor] No source faces detected"


async def test_a_job_succeeds_and_its_result_is_stored(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    assert gpu.prompt.job_id == job_id
    engine.finish(gpu)
    job = await engine.until("succeeded", job_id)
    assert job.fraction == 1.0
    assert engine.blobs.stored[job.results[0].blob] == b"image:swapped"
    assert job.results[0].link.endswith(".png")
    assert await engine.kinds(job_id) == ["queued", "dispatched", "started", "finishing", "succeeded"]
    assert not engine.pool.is_busy("gpu-1")
    assert gpu.prompt.closed


async def test_the_attempts_id_is_stored_before_the_upstream_hears_of_it(engine):
    gpu = engine.new_upstream()
    seen = []
    record = engine.store.record

    async def watched(task_id, report, **more):
        seen.append((report.event.value, report.prompt_id, list(gpu.prompts)))
        return await record(task_id, report, **more)

    engine.store.record = watched
    await engine.start(gpu)
    await engine.submit()
    assert seen[0] == ("dispatched", gpu.prompt.id, [])


async def test_a_failed_node_fails_the_job_and_frees_the_upstream(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    gpu.prompt.fail()
    job = await engine.until("failed", job_id)
    assert (job.error_code, job.error_message) == ("node_failed", "A node failed.")
    await engine.submit(b"image:other")
    assert len(gpu.prompts) == 2


@pytest.mark.parametrize(("line", "code"), [(FACELESS, "no_face_found"), (None, "result_unchanged")])
async def test_an_unchanged_result_fails_by_what_the_log_says(engine, line, code):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit(b"image:same")
    gpu.prompt.start()
    if line:
        gpu.prompt.say(LogLine(gpu.prompt.id, line))
    engine.finish(gpu, b"image:same", start=False)
    job = await engine.until("failed", job_id)
    assert job.error_code == code
    assert set(engine.blobs.stored.values()) == {b"image:same", b"image:face"}


@pytest.mark.parametrize("target", [b"image:target", b"small:target"], ids=["other-size", "same-size"])
async def test_a_black_picture_from_the_workers_filter_fails_as_flagged(engine, target):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(target)
    engine.finish(gpu, b"small:black")
    job = await engine.until("failed", job_id)
    assert job.error_code == "content_flagged"
    assert set(engine.blobs.stored.values()) == {target, b"image:face"}


@pytest.mark.parametrize(
    ("content", "line", "code"),
    [
        (b"stump:black", None, "content_flagged"),
        (b"cut:swapped", FILTERED, "content_flagged"),
        (b"cut:swapped", None, "result_invalid"),
    ],
)
async def test_a_clip_that_the_workers_filter_cut_fails_as_flagged(engine, content, line, code):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(b"video:target")
    gpu.prompt.start()
    if line:
        gpu.prompt.say(LogLine(gpu.prompt.id, line))
    gpu.prompt.succeed(engine.result_node("faceswap_video"), content, "out_00001-audio.mp4")
    assert (await engine.until("failed", job_id)).error_code == code


@pytest.mark.parametrize(("target", "content"), [(b"small:target", b"small:swapped"), (b"small:black", b"small:black")])
async def test_a_picture_of_the_filters_size_is_not_flagged_for_its_size(engine, target, content):
    await engine.start(gpu := engine.new_upstream())
    job_id = await engine.submit(target)
    engine.finish(gpu, content)
    await engine.settle()
    assert (await engine.job(job_id)).error_code != "content_flagged"


async def test_all_frames_are_compared_before_a_video_is_called_unchanged(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit(b"video:same")
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_video"), b"video:same", "out_00001-audio.mp4")
    await engine.until("failed", job_id)
    assert engine.media.compared == [False, True]


async def test_a_result_that_is_plainly_another_picture_is_not_decoded_again_to_be_compared(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit(b"video:same")
    gpu.prompt.start()
    gpu.prompt.succeed(engine.result_node("faceswap_video"), b"video:plain swap", "out_00001-audio.mp4")
    await engine.until("succeeded", job_id)
    assert engine.media.compared == []


async def test_a_lost_attempt_is_tried_on_another_upstream(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    await engine.start(first, second)
    job_id = await engine.submit()
    first.prompt.start()
    first.prompt.lose()
    await engine.settle()
    assert second.prompt.attempt == 2
    task = await engine.task(job_id)
    assert (task.losses, task.interruptions) == (1, 0)
    engine.finish(second)
    assert (await engine.until("succeeded", job_id)).upstream == "gpu-2"


async def test_a_job_fails_when_its_attempts_are_used_up(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    for attempt in (1, 2, 3):
        assert gpu.prompt.attempt == attempt
        gpu.prompt.start()
        gpu.prompt.lose()
        await engine.settle()
        await engine.pass_time(60)
    job = await engine.until("failed", job_id)
    assert job.error_code == "upstream_lost"
    assert len(gpu.prompts) == 3


async def test_an_upstream_that_lost_an_attempt_rests_before_it_gets_the_next(engine):
    gpu = engine.new_upstream()
    gpu.on_run = lambda prompt: prompt.lose()
    await engine.start(gpu)
    job_id = await engine.submit()
    assert len(gpu.prompts) == 1
    await engine.pass_time(5.9)
    assert len(gpu.prompts) == 1
    gpu.on_run = None
    await engine.pass_time(0.2)
    assert len(gpu.prompts) == 2
    engine.finish(gpu)
    await engine.until("succeeded", job_id)


async def test_a_worker_that_was_stopped_under_a_job_costs_it_nothing(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    for _ in range(5):
        gpu.prompt.start()
        gpu.prompt.lose(by_our_stop=True)
        await engine.settle()
    task = await engine.task(job_id)
    assert (task.losses, task.interruptions) == (0, 5)


async def test_somebody_elses_interrupt_costs_an_attempt_only_once_it_had_begun(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.interrupt()  # also what a refusal for a missing upload looks like
    await engine.settle()
    task = await engine.task(job_id)
    assert (task.attempt, task.losses, task.interruptions) == (2, 0, 1)
    gpu.prompt.start()
    gpu.prompt.interrupt()
    await engine.settle()
    await engine.pass_time(7)
    task = await engine.task(job_id)
    assert (task.attempt, task.losses, task.interruptions) == (3, 1, 1)


async def test_out_of_memory_is_tried_on_another_upstream_and_on_none_twice(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    await engine.start(first, second)
    await engine.submit(b"image:busy")
    job_id = await engine.submit(b"image:large")
    small = next(gpu for gpu in (first, second) if gpu.prompt.job_id == job_id)
    other = second if small is first else first
    small.prompt.start()
    small.prompt.fail("out_of_memory", "Too large.")
    await engine.settle()
    assert (await engine.job(job_id)).state.value == "queued", "it waits for the other one, though this one is free"
    engine.finish(other)
    await engine.settle()
    await engine.until("dispatched", job_id)
    other.prompt.fail("out_of_memory", "Too large.")
    job = await engine.until("failed", job_id)
    assert job.error_code == "out_of_memory"


async def test_a_silent_prompt_is_canceled_there_and_counts_as_lost(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await engine.settle()
    await engine.pass_time(599)
    prompt = gpu.prompt
    prompt.say(NodeStarted(prompt.id, "1"))
    await engine.settle()
    await engine.pass_time(599)
    assert gpu.canceled == []
    await engine.pass_time(2)
    assert gpu.canceled == [prompt.id]
    await engine.pass_time(EJECT_SECONDS)
    task = await engine.task(job_id)
    assert (task.attempt, task.losses) == (2, 1)


async def test_a_prompt_that_waits_too_long_behind_others_is_taken_back_at_no_cost(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.set_foreign_prompts(1)
    await engine.pass_time(601)
    gpu.set_foreign_prompts(0)
    engine.dispatcher.wake()
    await engine.settle()
    task = await engine.task(job_id)
    assert (task.attempt, task.losses, task.interruptions) == (2, 0, 1)
    assert len(gpu.canceled) == 1


async def test_what_a_stale_attempt_reports_changes_nothing(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    await engine.start(first, second)
    job_id = await engine.submit()
    first.prompt.start()
    first.prompt.lose()
    await engine.settle()
    task = await engine.task(job_id)
    before = await engine.kinds(job_id)
    for event in (TaskEvent.STARTED, TaskEvent.SUCCEEDED, TaskEvent.FAILED, TaskEvent.ATTEMPT_LOST):
        assert await engine.recorder.record(task.id, Report(event, attempt=1)) is None
    assert await engine.recorder.record_outputs(task.id, 1, {}) is None
    assert await engine.kinds(job_id) == before


# -------------------------------------------------------------------------------------------------------------- results


async def test_a_result_whose_connection_breaks_is_fetched_again(engine):
    gpu = engine.new_upstream()
    gpu.fetch_errors = [ConnectionError("broke")] * len(FETCH_WAIT_SECONDS)
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("finishing", job_id)
    for seconds in FETCH_WAIT_SECONDS:
        await engine.settle()
        await engine.pass_time(seconds)
    await engine.until("succeeded", job_id)
    assert len(gpu.prompts) == 1


async def test_a_result_that_is_gone_costs_the_attempt(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    gpu.files.clear()
    await engine.until("queued", job_id)
    await engine.settle()
    await engine.pass_time(7)
    task = await engine.task(job_id)
    assert (task.attempt, task.losses, task.finishing) == (2, 1, False)


async def test_a_full_disk_of_ours_is_no_loss_of_the_upstreams(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.blobs.is_full = True
    engine.finish(gpu)
    await engine.until("queued", job_id)
    engine.blobs.is_full = False
    await engine.settle()
    await engine.pass_time(MAX_RETRY_SECONDS)
    task = await engine.task(job_id)
    assert (task.losses, task.interruptions) == (0, 1)


AWAY = BlobsState("s3://faces/p/", Trouble("EndpointConnectionError"))


async def test_a_result_waits_for_storage_that_does_not_answer_and_is_not_made_anew(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.blobs.place = AWAY
    engine.finish(gpu)
    for _ in range(LOOKS + 1):
        await engine.settle()
        await engine.pass_time(LOOK_SECONDS)
    job = await engine.job(job_id)
    shown = engine.bus.latest(job_id)
    assert (job.state, shown.message) == (JobState.FINISHING, "Waiting for the storage of files")
    engine.blobs.place = BlobsState("s3://faces/p/")
    await engine.settle()
    await engine.pass_time(LOOK_SECONDS)
    await engine.until("succeeded", job_id)
    assert await engine.kinds(job_id) == ["queued", "dispatched", "started", "finishing", "succeeded"]


async def test_a_result_that_storage_never_takes_is_made_anew_at_last_and_costs_no_attempt(engine, monkeypatch):
    monkeypatch.setattr(storage_watch, "PATIENCE_SECONDS", LOOK_SECONDS)
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.blobs.place = AWAY
    engine.finish(gpu)
    for _ in range(LOOKS + 1):
        await engine.settle()
        await engine.pass_time(LOOK_SECONDS)
    await engine.until("queued", job_id)
    await engine.settle()
    await engine.pass_time(MAX_RETRY_SECONDS)
    task = await engine.task(job_id)
    assert (task.losses, task.interruptions) == (0, 1)


async def test_a_job_that_waits_for_storage_can_be_canceled(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.blobs.place = AWAY
    engine.finish(gpu)
    await engine.settle()
    await engine.service.cancel(job_id, "local")
    await engine.until("canceled", job_id)


@pytest.mark.parametrize("content", [b"", b"text:nonsense", b"video:film", b"image:" + b"x" * 2000])
async def test_a_result_that_is_not_as_promised_fails_the_job_and_leaves_nothing(engine, content, tmp_path):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu, content)
    job = await engine.until("failed", job_id)
    assert job.error_code == "result_invalid"
    assert set(engine.blobs.stored.values()) == {b"image:target", b"image:face"}
    assert list(tmp_path.iterdir()) == []


def in_pieces(gpu, *tries):
    """Let the upstream give its file in these pieces, try for try; an error among them breaks the try off."""

    async def fetch(_file):
        for piece in tries[min(fetch.tries, len(tries) - 1)]:
            if isinstance(piece, Exception):
                fetch.tries += 1
                raise piece
            yield piece

    fetch.tries = 0
    gpu.fetch = fetch


@pytest.fixture
def writes(monkeypatch):
    """Sizes of what is written of a result, one for each time a thread is asked."""
    sizes = []
    write = results._write_at

    def watched(path, offset, data):
        sizes.append(len(data))
        write(path, offset, data)

    monkeypatch.setattr(results, "_write_at", watched)
    return sizes


@pytest.mark.parametrize(("chunk_bytes", "expected"), [(1000, [26]), (26, [26]), (10, [12, 13, 1]), (1, [6, 6, 13, 1])])
async def test_a_result_is_written_in_large_pieces_and_a_small_one_in_one(
    engine, monkeypatch, writes, chunk_bytes, expected
):
    monkeypatch.setattr(results, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(results, "LARGE_BYTES", 2 * chunk_bytes)
    gpu = engine.new_upstream()
    in_pieces(gpu, [b"image:", b"swappe", b"d face on it!", b"!"])
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    assert b"image:swapped face on it!!" in engine.blobs.stored.values()
    assert writes == expected


async def test_of_a_try_that_broke_off_nothing_stays_in_the_result(engine, monkeypatch):
    monkeypatch.setattr(results, "CHUNK_BYTES", 4)
    gpu = engine.new_upstream()
    in_pieces(gpu, [b"image:a longer one", b" that breaks", ConnectionError("broke")], [b"image:", b"short", b" one"])
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("finishing", job_id)
    await engine.settle()
    await engine.pass_time(FETCH_WAIT_SECONDS[0])
    await engine.until("succeeded", job_id)
    assert b"image:short one" in engine.blobs.stored.values()


async def test_what_was_fetched_of_a_large_result_is_gone_before_it_is_compared(engine, monkeypatch, tmp_path):
    """Its pages need not be written to the disk, and the disk need not hold it twice."""
    monkeypatch.setattr(results, "LARGE_BYTES", 1)
    left = []
    compare = engine.media.compare

    async def watched(*given, **options):
        left.extend(path.name for path in tmp_path.rglob("*") if path.is_file())
        return await compare(*given, **options)

    monkeypatch.setattr(engine.media, "compare", watched)
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    assert left == ["cleaned"]


# ------------------------------------------------------------------------------------------------------------- progress


async def ticks(engine, gpu, *values, maximum=10):
    swap = next(node for node in gpu.prompt.graph if "ReActorFaceSwap" in str(gpu.prompt.graph[node]["class_type"]))
    gpu.prompt.say(NodeStarted(gpu.prompt.id, swap), *(NodeProgress(gpu.prompt.id, swap, v, maximum) for v in values))
    await engine.settle()


async def test_the_bar_waits_at_its_highest_over_a_lost_attempt_and_says_so(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    await engine.start(first, second)
    job_id = await engine.submit()
    first.prompt.start()
    await ticks(engine, first, 1, 8)
    high = engine.service.progress(job_id)
    assert "Swap face: 8 of 10" in high.message
    first.prompt.lose()
    await engine.settle()
    second.prompt.start()
    await ticks(engine, second, 1)
    after = engine.service.progress(job_id)
    assert after.fraction == high.fraction
    assert after.message.startswith("Catching up after a lost attempt. ")
    await ticks(engine, second, 9)
    later = engine.service.progress(job_id)
    assert later.fraction > high.fraction
    assert not later.message.startswith("Catching up")


async def test_the_bar_does_not_fall_over_a_restart(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await ticks(engine, gpu, 1, 8)
    shown = engine.service.progress(job_id).fraction
    await engine.restart()
    await ticks(engine, gpu, 2)
    assert shown <= engine.service.progress(job_id).fraction <= shown + STEP


async def test_the_bar_is_below_one_until_the_terminal_commit(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.fetch_gate = asyncio.Event()
    engine.finish(gpu)
    await engine.until("finishing", job_id)
    await engine.settle()
    assert engine.service.progress(job_id).fraction == RUN_TO
    assert RUN_TO <= (await engine.job(job_id)).fraction < 1.0
    gpu.fetch_gate.set()
    assert (await engine.until("succeeded", job_id)).fraction == 1.0


async def test_nothing_shown_passes_what_is_stored_and_few_ticks_are_written(engine, monkeypatch):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    writes = []
    save = engine.store.save_progress

    async def counted(rows, *, now):
        writes.extend(rows)
        await save(rows, now=now)

    monkeypatch.setattr(engine.store, "save_progress", counted)
    gpu.prompt.start()
    for value in range(1, 11):
        await ticks(engine, gpu, value)
        assert engine.service.progress(job_id).fraction <= (await engine.job(job_id)).fraction
    assert 0 < len(writes) <= 1 / STEP
    engine.finish(gpu, start=False)
    await engine.until("succeeded", job_id)
    assert (await engine.job(job_id)).fraction == 1.0


async def test_seconds_left_are_told_by_the_attempts_own_pace(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await ticks(engine, gpu, 1)
    assert engine.service.progress(job_id).eta_seconds is None
    engine.clock.advance(10.0)
    await ticks(engine, gpu, 6)
    left = engine.service.progress(job_id).eta_seconds
    assert 5.0 < left < 15.0


async def test_a_canceled_jobs_bar_stays_where_it_was(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    await ticks(engine, gpu, 1, 8)
    shown = engine.service.progress(job_id).fraction
    await engine.service.cancel(job_id, "local")
    assert (await engine.until("canceled", job_id)).fraction >= shown


async def test_a_finished_job_leaves_no_snapshot_behind(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    await engine.settle()
    assert engine.service.progress(job_id) is None
    assert engine.bus._channels == {}
    assert engine.runner.bars._ceilings == {}
    assert engine.runner.live_prompts() == frozenset()
    assert len(engine.runner.canceling) == 0


# ------------------------------------------------------------------------------------------------- what must not break it


async def test_a_broken_round_does_not_stop_the_queue(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    candidates = engine.store.candidates

    async def broken(*, limit):
        raise RuntimeError("the database is locked")

    engine.store.candidates = broken
    job_id = await engine.submit()
    engine.store.candidates = candidates
    await engine.pass_time(5)
    engine.finish(gpu)
    await engine.until("succeeded", job_id)


async def test_a_task_whose_runner_broke_is_taken_up_again(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    record_outputs = engine.store.record_outputs

    async def broken(*_, **__):
        raise RuntimeError("the disk is full")

    engine.store.record_outputs = broken
    engine.finish(gpu)
    await engine.settle()
    engine.store.record_outputs = record_outputs
    prompt = gpu.prompt
    engine.finish(gpu, start=False)
    await engine.pass_time(7)
    await engine.until("succeeded", job_id)
    assert list(gpu.prompts.values()) == [prompt]


async def test_a_task_that_always_breaks_its_runner_is_given_up(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)

    async def broken(*_, **__):
        raise RuntimeError("a bug")

    engine.store.record_outputs = broken
    gpu.on_run = lambda prompt: prompt.succeed("1")
    job_id = await engine.submit()
    for _ in range(6):
        gpu.prompt.succeed("1")
        await engine.pass_time(31)
    job = await engine.until("failed", job_id)
    assert job.error_code == "internal_error"


async def test_inputs_that_are_gone_from_our_own_disk_end_the_job(engine):
    gpu = engine.new_upstream()
    await engine.start()
    job_id = await engine.submit()
    engine.blobs.stored.clear()
    gpu.stage_error = FileNotFoundError("no such file")
    engine.pool.add(gpu)
    job = await engine.until("failed", job_id)
    assert job.error_code == "internal_error"


async def test_inputs_too_large_for_one_upstream_go_to_another(engine):
    small, large = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    small.stage_error = TooLargeError("An input is larger than what the upstream takes.")
    await engine.start(small, large)
    job_id = await engine.submit()
    assert (small.prompts, large.prompt.job_id) == ({}, job_id)
    engine.finish(large)
    await engine.until("succeeded", job_id)


async def test_inputs_too_large_for_every_upstream_fail_the_job(engine):
    small = engine.new_upstream()
    small.stage_error = TooLargeError("An input is larger than what the upstream takes.")
    await engine.start(small)
    job_id = await engine.submit()
    job = await engine.until("failed", job_id)
    assert job.error_code == "too_large"


@pytest.mark.parametrize("error", [ConnectionError("broke"), StorageFullError("full")])
async def test_a_failed_upload_costs_time_and_nothing_else(engine, error):
    gpu = engine.new_upstream()
    gpu.stage_error = error
    await engine.start(gpu)
    job_id = await engine.submit()
    assert await engine.kinds(job_id) == ["queued"]
    gpu.stage_error = None
    await engine.pass_time(7)
    assert await engine.kinds(job_id) == ["queued", "dispatched"]
    assert (await engine.task(job_id)).attempt == 1


async def test_models_that_vanish_while_inputs_are_staged_cost_nothing(engine):
    first, second = engine.new_upstream("gpu-1"), engine.new_upstream("gpu-2")
    first.stage_gate = asyncio.Event()
    await engine.start(first, second)
    second.set_reachable(reachable=False)
    job_id = await engine.submit()
    first.known = engine.new_upstream(models={"swap_model": ("other.onnx",)}).known
    first.stage_gate.set()
    await engine.settle()
    assert await engine.kinds(job_id) == ["queued"]
    second.set_reachable(reachable=True)
    engine.dispatcher.wake()
    await engine.settle()
    assert second.prompt.attempt == 1


async def test_events_are_numbered_without_gaps_whatever_happens(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    job_id = await engine.submit()
    gpu.prompt.start()
    gpu.prompt.lose()
    await engine.settle()
    await engine.pass_time(7)
    engine.finish(gpu)
    await engine.until("succeeded", job_id)
    events = await engine.store.events_after(job_id, 0)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert [event.kind for event in events if event.is_terminal] == [EventKind.SUCCEEDED]

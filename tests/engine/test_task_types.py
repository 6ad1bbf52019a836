"""What jobs can be asked for, and the refusal of what no upstream can run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.engine.task_types import NOBODY_KNOWN
from gateway.errors import InvalidInputError, TaskUnavailableError
from gateway.manifest import ParameterType


def without(upstream, *classes):
    """The same upstream, lacking these node classes."""
    left = {name: inputs for name, inputs in upstream.known.classes.items() if name not in classes}
    upstream.known = replace(upstream.known, classes=left)
    return upstream


def task(engine, name):
    return next(found for found in engine.service.task_types() if found.name == name)


async def test_a_task_can_run_where_an_upstream_fits_one_of_its_templates(engine):
    await engine.start(without(engine.new_upstream(), "VHS_LoadVideo", "VHS_VideoCombine"))
    assert task(engine, "face_swap").can_run
    assert task(engine, "face_swap").missing == ()


async def test_what_upstreams_lack_is_told_of_the_one_that_lacks_least_and_names_none(engine):
    near = without(engine.new_upstream("near"), "ReActorFaceSwap")
    far = without(engine.new_upstream("far"), "ReActorFaceSwap", "LoadImage")
    await engine.start(near, far)
    found = task(engine, "face_swap")
    assert not found.can_run
    assert len(found.missing) == 3, found.missing
    assert "faceswap_image: node 'Swap face' (ReActorFaceSwap): the upstream does not have this node class" in (
        found.missing
    )
    assert not any("near" in sentence or "http" in sentence for sentence in found.missing)


async def test_an_upstream_that_is_down_still_counts(engine):
    gpu = engine.new_upstream()
    await engine.start(gpu)
    gpu.set_reachable(False)
    assert task(engine, "face_swap").can_run


async def test_nothing_can_run_while_no_upstream_has_said_what_it_can_do(engine):
    gpu = engine.new_upstream()
    gpu.known = None
    await engine.start(gpu)
    found = task(engine, "face_swap")
    assert (found.can_run, found.missing) == (False, (NOBODY_KNOWN,))


async def test_a_worker_of_our_own_is_no_help_beside_real_upstreams(engine):
    gpu = without(engine.new_upstream("gpu"), "ReActorFaceSwap")
    await engine.start(engine.new_upstream("worker", engine="preview"), gpu)
    found = task(engine, "face_swap")
    assert not found.can_run
    assert all("ReActorFaceSwap" in sentence for sentence in found.missing)


async def test_parameters_of_all_templates_are_told_once(engine):
    await engine.start(engine.new_upstream())
    told = {parameter.name: parameter for parameter in task(engine, "face_swap").parameters}
    assert len(told) == len(task(engine, "face_swap").parameters)
    visibility = told["face_restore_visibility"]
    assert (visibility.type, visibility.default, visibility.min, visibility.max) == (ParameterType.FLOAT, 1.0, 0.1, 1.0)
    assert told["target_gender"].choices == ("no", "female", "male")
    assert (told["target_faces"].max_length, visibility.max_length) == (64, None)
    assert {parameter.multiple_of for parameter in told.values()} == {None}
    sizes = {parameter.name: parameter.multiple_of for parameter in task(engine, "image_creation").parameters}
    assert (sizes["width"], sizes["steps"], sizes["cfg"]) == (8, None, None)
    assert not any(parameter.required for parameter in told.values())


async def test_a_job_that_must_be_runnable_is_refused_with_what_is_missing_and_leaves_nothing(engine):
    await engine.start(without(engine.new_upstream(), "ReActorFaceSwap"))
    with pytest.raises(TaskUnavailableError) as caught:
        await engine.submit(must_be_runnable=True)
    assert [sentence.partition(":")[0] for sentence in caught.value.missing] == ["faceswap_image"]
    assert caught.value.missing[0] in caught.value.message
    assert "8188" not in caught.value.message
    assert engine.blobs.stored == {}
    assert set((await engine.store.counts()).values()) == {0}


async def test_a_job_that_must_be_runnable_waits_for_an_upstream_that_has_not_spoken_or_is_down(engine):
    gpu = engine.new_upstream()
    known, gpu.known = gpu.known, None
    await engine.start(gpu)
    await engine.until("queued", await engine.submit(must_be_runnable=True))
    gpu.known = known
    gpu.set_reachable(False)
    await engine.until("queued", await engine.submit(must_be_runnable=True))


async def test_a_job_that_need_not_be_runnable_waits(engine):
    await engine.start(without(engine.new_upstream(), "ReActorFaceSwap"))
    await engine.until("queued", await engine.submit())


async def test_a_task_that_wants_a_target_is_refused_without_one(engine):
    await engine.start(engine.new_upstream())
    with pytest.raises(InvalidInputError) as caught:
        await engine.submit(roles=())
    assert caught.value.field == "target"

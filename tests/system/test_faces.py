"""Faces counted and swapped by number on a whole gateway with an embedded worker, from submission to file.

No dialect speaks of detection here, so jobs are handed to the engine's own door, which is where dialects hand theirs.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from gateway.audit import MediaKind
from gateway.engine.submitting import Submission, SubmittedFile
from gateway.job import Job, JobState
from gateway.main import Gateway, open_gateway
from gateway.settings import from_mapping
from tests.tools import clips, groups
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

KINDS = frozenset({MediaKind.IMAGE, MediaKind.GIF, MediaKind.VIDEO})
PREVIEW = "Made by the CPU preview engine: a classical blend, not the quality of a swap model."
MIDDLE = groups.HALF[0]
#: Grey levels by which a block moves at least where a face was swapped, and at most where only the coding differs.
SWAPPED, STILL = 8.0, 5.0


class House:
    """A gateway, and what a test asks of it."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.service = gateway.service
        self.folder = folder

    async def run(self, task: str, parameters: dict[str, object] | None = None, **files: Path) -> Job:
        """A job that ended well."""
        inputs = {role: await self.put(path) for role, path in files.items()}
        submission = Submission(
            owner="local",
            submitter="ann",
            dialect="test",
            inputs=inputs,
            accepts=dict.fromkeys(inputs, KINDS),
            task=task,
            parameters=parameters or {},
            must_be_runnable=True,
        )
        job_id = (await self.service.submit(submission)).id

        async def ended() -> Job | None:
            job = await self.service.job(job_id, "local")
            return job if job.is_terminal else None

        job = await wait_until(ended, what="the end of the job", patience_seconds=120)
        assert job.state is JobState.SUCCEEDED, (job.error_code, job.error_message)
        return job

    async def put(self, path: Path) -> SubmittedFile:
        async with await self.service.blobs.writer() as writer:
            await writer.write(await asyncio.to_thread(path.read_bytes))
            return SubmittedFile(await writer.commit(), path.name)

    def result(self, job: Job) -> Path:
        """Its file, called as its kind is."""
        path = self.folder / f"{job.id}{job.results[0].facts.suffix}"
        path.write_bytes(self.service.blobs.inner.path(job.results[0].blob).read_bytes())
        return path


@asynccontextmanager
async def house(folder: Path, **settings: object):
    async with open_gateway(from_mapping({"data_dir": folder / "data", "log_level": "warning", **settings})) as gateway:
        await wait_until(lambda: gateway.service.health().is_ready, what="a pool that is ready")
        yield House(gateway, folder)


def embedded(folder: Path) -> AbstractAsyncContextManager[House]:
    return house(folder, embedded_workers=1)


@pytest.fixture
async def gateway(tmp_path):
    async with embedded(tmp_path) as made:
        yield made


def pixels(path: Path) -> np.ndarray:
    """Frames of a still or a video, upright."""
    if path.suffix in {".mp4", ".mov"}:
        return clips.frames_of(path).astype(np.int16)
    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))[np.newaxis].astype(np.int16)


def sides_moved(before: Path, after: Path) -> tuple[np.ndarray, np.ndarray]:
    """Per frame, by how many grey levels a block of the middle of each half moved most: where its face is.

    Means of blocks of 10x10 pixels, for coding alone moves single ones by more than a swap does.
    """
    moved = (pixels(after) - pixels(before)).mean(axis=3)
    left, right = (moved[:, 60:140, x - 50 : x + 50] for x in (MIDDLE // 2, MIDDLE * 3 // 2))
    return tuple(np.abs(_blocks(half)).max(axis=(1, 2)) for half in (left, right))  # type: ignore[return-value] # two


def _blocks(frames: np.ndarray) -> np.ndarray:
    count, rows, columns = frames.shape
    return frames.reshape(count, rows // 10, 10, columns // 10, 10).mean(axis=(2, 4))


def sources(folder: Path) -> tuple[Path, Path]:
    """Two photos, so unlike both targets that a swap shows."""
    first, second = clips.face(folder / "first.png"), folder / "second.png"
    with Image.open(first) as picture:
        ImageOps.mirror(picture).save(second)
    return first, second


async def test_faces_are_numbered_by_size_in_pixels_of_the_upright_picture(gateway, tmp_path):
    photo = groups.group(tmp_path / "group.jpg")
    job = await gateway.run("face_detect", target=photo)
    report = await gateway.service.faces(job)
    assert (report.detector, gateway.service.detectors()) == ("opencv", ("opencv",))
    assert (report.width, report.height) == (2 * groups.HALF[0], groups.HALF[1])
    large, small = report.faces
    assert (large.index, small.index) == (0, 1)
    assert large.area > small.area
    assert large.x > MIDDLE > small.x + small.width
    assert job.warnings == ()


async def test_each_face_gets_its_own_photo_and_the_rest_stays(gateway, tmp_path):
    photo = groups.group(tmp_path / "group.jpg")
    await gateway.run("face_detect", target=photo)
    first, second = sources(tmp_path)
    swaps = [{"face_index": 1}, {"face_index": 0}]
    both = await gateway.run("face_swap", {"face_swaps": swaps}, target=photo, face_0=first, face_1=second)
    left, right = sides_moved(photo, gateway.result(both))
    assert left.min() > SWAPPED
    assert right.min() > SWAPPED
    assert both.warnings == (PREVIEW,)
    one = await gateway.run("face_swap", {"face_swaps": swaps[:1]}, target=photo, face_0=first)
    left, right = sides_moved(photo, gateway.result(one))
    assert left.min() > SWAPPED
    assert right.max() == 0


async def test_a_number_that_is_nobodys_is_told_when_another_was_swapped(gateway, tmp_path):
    photo = groups.group(tmp_path / "group.jpg")
    first, second = sources(tmp_path)
    swaps = [{"face_index": 0}, {"face_index": 7}]
    job = await gateway.run("face_swap", {"face_swaps": swaps}, target=photo, face_0=first, face_1=second)
    assert job.warnings == (PREVIEW, "There is no face 7 in the target, so it was not replaced.")


@pytest.mark.long
async def test_a_person_is_followed_through_a_clip_in_which_sizes_cross(gateway, tmp_path):
    """Face 0 at the end is not face 0 of the clip: by number alone the other one would be swapped."""
    clip = groups.crossing(tmp_path / "crossing.mp4")
    first, second = sources(tmp_path)
    by_number = await gateway.run("face_swap", target=clip, face=first)
    left, right = sides_moved(clip, gateway.result(by_number))
    assert right.min() > SWAPPED > STILL > left.max()
    followed = await gateway.run("face_swap", {"reference_frame_time_seconds": 0.79}, target=clip, face=first)
    left, right = sides_moved(clip, gateway.result(followed))
    assert left.min() > SWAPPED > STILL > right.max()
    assert followed.warnings == (PREVIEW,)
    # Each is face 0 at a time of his own; without sound.
    swaps = [{"face_index": 0, "frame_time_seconds": seconds} for seconds in (0.0, 0.79)]
    parameters = {"face_swaps": swaps, "keep_audio": False}
    both = await gateway.run("face_swap", parameters, target=clip, face_0=first, face_1=second)
    left, right = sides_moved(clip, gateway.result(both))
    assert min(left.min(), right.min()) > SWAPPED
    assert followed.results[0].facts.has_audio
    assert not both.results[0].facts.has_audio

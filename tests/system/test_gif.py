"""GIFs through a whole gateway with an embedded worker: a GIF goes in, and one with the same frames and delays comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tools import gifs
from tests.tools.faceswap_client import ended, job, parts, submit

pytestmark = pytest.mark.system

MANY = 300


def nobody(step: int = 0) -> np.ndarray:
    ramp = np.add.outer(np.arange(121), np.arange(161)).astype(np.uint8)
    return np.stack([np.roll(ramp, step, axis=1)] * 3, axis=-1)


def cases() -> dict[str, bytes]:
    steps = gifs.portraits([0, 1, 1, 1, 2, 3, 3, 4])
    few = gifs.portraits(range(4))
    many = gifs.portraits([index // 2 % 10 for index in range(MANY)], size=(97, 81), scale=200)
    title = [nobody()] * 3
    return {
        # Three frames without a face, all alike: the worker's file holds one of them.
        "title": gifs.gif([*few[:2], *title, *few[2:], *title], [4, 5, 60, 70, 80, 6, 7, 8, 9, 10], loop=0),
        "uneven": gifs.gif(steps, [5, 13, 7, 100, 2, 0, 33, 250], loop=3),
        "transparent": gifs.gif(few, [10, 20, 9, 30], loop=0, transparent=True),
        "one": gifs.gif(few[:1], [25], loop=None),
        "still": gifs.gif(few[:1] * 5, [9, 8, 7, 6, 500], loop=None),
        "slow": gifs.gif(few[:3], [300, 400, 500], loop=1),
        "many": gifs.gif(many, [2 + index % 5 for index in range(MANY)], loop=0),
    }


@pytest.fixture(scope="module")
def targets(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gifs")
    paths = {}
    for name, data in cases().items():
        paths[name] = folder / f"{name}.gif"
        paths[name].write_bytes(data)
    return paths


@pytest.mark.parametrize("name", ["title", "uneven", "transparent", "one", "still", "slow", "many"])
async def test_gif_comes_back_with_its_size_frames_delays_and_loop(name, targets, pool, material, tmp_path):
    target, result = targets[name], tmp_path / "result.gif"
    async with pool.client() as client:
        prompt_id = await submit(client, video=target, image=material.face())
        found = await ended(client, prompt_id)
        assert found["status"] == "SUCCESS", found
        assert (await job(client, prompt_id))["template"] == "faceswap_gif"
        answer = await client.get(found["result"])
    assert answer.headers["content-type"] == "image/gif"
    result.write_bytes(answer.content)
    assert gifs.timing(result) == gifs.timing(target)
    before, after = (gifs.pixels(path).astype(np.int16) for path in (target, result))
    moved = np.abs(after - before).mean(axis=(1, 2, 3))
    if name == "title":
        has_face = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0, 0], dtype=bool)
        assert moved[~has_face].max() == 0
        moved = moved[has_face]
    assert moved.min() > 0.5, moved
    np.testing.assert_array_equal(gifs.holes(result), gifs.holes(target))
    assert gifs.holes(target).any() == (name == "transparent")
    height, width = before.shape[1:3]
    outside = (slice(None), slice(0, height // 6), slice(0, width // 6))
    assert np.abs(after[outside] - before[outside]).mean() < 3


async def test_gif_without_a_face_is_no_success(pool, material, tmp_path):
    frames = [nobody(step) for step in range(4)]
    target = tmp_path / "nobody.gif"
    target.write_bytes(gifs.gif(frames, [7, 9, 11, 13], loop=0))
    async with pool.client() as client:
        found = await ended(client, await submit(client, video=target, image=material.face()))
    assert (found["status"], found["code"]) == ("FAILED", "no_face_found")


async def test_gif_is_no_picture(pool, material, targets):
    """What may move has its own field."""
    async with pool.client() as client:
        answer = await client.post("/face-swap", files=parts(target_image=targets["one"], image=material.face()))
    assert (answer.status_code, answer.json()["field"]) == (415, "target_image")

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gateway.comfy.frames import PreviewPicture, parse_binary
from gateway.embedded.node import NodeResult
from gateway.embedded.previews import preview_of


def test_each_node_that_makes_pictures_shows_the_first_of_them(make_bench, image_graph):
    bench = make_bench()
    shown = []
    bench.executor.execute(bench.prompt(image_graph, ["9"]), lambda *_: None, shown.append)
    assert [preview.node_id for preview in shown] == ["1", "3"]
    with Image.open(io.BytesIO(shown[0].jpeg)) as loaded, Image.open(io.BytesIO(shown[1].jpeg)) as inverted:
        assert loaded.size == inverted.size == (8, 6)
        sums = np.asarray(loaded.convert("RGB")).astype(int) + np.asarray(inverted.convert("RGB"))
    assert abs(sums.mean() - 255) < 5


def test_both_frames_are_read_as_comfyuis():
    preview = preview_of("p", "3", NodeResult((np.zeros((1, 4, 4, 3), np.uint8),)))
    assert parse_binary(preview.plain()) == PreviewPicture(None, None, "image/jpeg", preview.jpeg)
    assert parse_binary(preview.described()) == PreviewPicture("p", "3", "image/jpeg", preview.jpeg)


def test_a_large_picture_is_shown_small():
    preview = preview_of("p", "3", NodeResult((np.zeros((2, 600, 2048, 3), np.uint8),)))
    with Image.open(io.BytesIO(preview.jpeg)) as picture:
        assert picture.size == (512, 150)


def test_what_is_no_picture_is_not_shown():
    for outputs in ((), ("text",), (np.zeros((6, 8), np.uint8),), (np.zeros((0, 6, 8, 3), np.uint8),)):
        assert preview_of("p", "3", NodeResult(outputs)) is None

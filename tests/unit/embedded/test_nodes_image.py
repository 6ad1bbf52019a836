"""LoadImage against ComfyUI's own, for each kind of pixel that reaches it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gateway.embedded.node import RunContext
from gateway.embedded.nodes_image import IMAGE_NODES

LOAD_IMAGE = next(node for node in IMAGE_NODES if node.name == "LoadImage")
COLOURS = Image.fromarray(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3))


@pytest.fixture
def load(folders):
    def run(picture, name="any.png", **options):
        picture.save(folders.directory / "input" / name, **options)
        context = RunContext(folders, "1", {}, {}, 10**9, lambda *_: None, lambda: None, lambda _: None)
        images, mask = LOAD_IMAGE.run(context, {"image": name}).outputs
        return images[0], mask[0]

    return run


def test_32_bit_greys_are_scaled_and_clipped_as_comfyui_does(load):
    levels = np.array([[0, 255, 25_500, 65_535]], np.int32)
    pixels, _ = load(Image.fromarray(levels), "any.tiff")
    assert pixels[0, :, 0].tolist() == [0, 1, 100, 255]


def test_a_transparent_colour_of_a_palette_is_in_the_mask(load):
    picture = COLOURS.quantize(16)
    indices = np.asarray(picture)
    chosen = int(indices[0, 0])
    pixels, mask = load(picture, transparency=chosen)
    np.testing.assert_array_equal(mask, np.where(indices == chosen, 255, 0))
    np.testing.assert_array_equal(pixels, np.asarray(picture.convert("RGB")))


def test_a_picture_without_transparency_has_an_empty_mask(load):
    _, mask = load(COLOURS)
    assert mask.shape == (64, 64)
    assert not mask.any()

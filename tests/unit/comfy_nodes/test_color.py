import numpy as np
import pytest

from comfy_nodes.alignment import solid_mask
from comfy_nodes.color import light_field, match_tone, measure_tone, to_lab


def flat(level, side=96):
    return np.full((side, side, 3), level, np.uint8)


def test_light_from_one_side_is_taken_over():
    slope = np.linspace(-18, 18, 96)[np.newaxis, :, np.newaxis]
    target = (flat(130) + slope).astype(np.uint8)
    field = light_field(flat(130), target)
    # Eyes' height, just inside the rim on either side.
    assert field[35, 22].mean() < -4
    assert field[35, 73].mean() > 4
    assert abs(field[35, 48]).max() < 3


def test_light_is_bounded_where_dark_hair_crosses_the_rim():
    target = flat(130)
    target[:20] = 5
    assert np.abs(light_field(flat(130), target)).max() <= 22.01


def test_tone_is_that_of_the_target_inside_the_mask():
    random = np.random.default_rng(2)
    source = np.clip(random.normal((90, 70, 60), 12, (96, 96, 3)), 0, 255).astype(np.uint8)
    target = np.clip(random.normal((180, 150, 140), 14, (96, 96, 3)), 0, 255).astype(np.uint8)
    lab = to_lab(source)
    matched = match_tone(lab, measure_tone(lab), measure_tone(to_lab(target)))
    inside = solid_mask(96) > 0
    assert matched[inside].mean(axis=0) == pytest.approx(target[inside].mean(axis=0), abs=3)

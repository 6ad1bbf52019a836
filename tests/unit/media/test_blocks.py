from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.media.blocks import block_means, largest_movement


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70), st.just(3))),
)
def test_block_means_are_the_means_of_blocks_that_cover_the_picture(rgb):
    height, width = rgb.shape[:2]
    means = block_means(rgb)
    rows, columns = max(1, height // 16), max(1, width // 16)
    assert means.shape == (rows, columns)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    for row in range(rows):
        for column in range(columns):
            bottom = height if row == rows - 1 else 16 * row + 16
            right = width if column == columns - 1 else 16 * column + 16
            assert means[row, column] == pytest.approx(luma[16 * row : bottom, 16 * column : right].mean(), abs=1e-6)


def test_the_block_that_moved_most_counts():
    before = np.zeros((4, 5))
    after = before.copy()
    after[2, 3], after[0, 0] = -7.5, 3
    assert largest_movement(before, after) == 7.5


def test_of_several_readings_each_block_counts_by_its_best():
    target = np.zeros((1, 2))
    assert largest_movement(target, [np.array([[9.0, 1.0]]), np.array([[2.0, 8.0]])]) == 2.0

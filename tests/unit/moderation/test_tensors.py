from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.moderation.card import read_card
from gateway.moderation.tensors import score_of, tensor_of
from gateway.screening import CheckFailedError
from tests.tools.tiny_onnx import CARD

PLAIN = read_card(CARD)
NUMBERS = st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8)


def test_values_are_normalised_channel_by_channel_in_the_cards_order() -> None:
    card = replace(PLAIN, mean=(0.5, 0.0, 0.25), std=(0.5, 1.0, 0.25))
    picture = Image.new("RGB", (20, 10), (255, 0, 51))
    assert tensor_of(picture, card).shape == (1, 3, 8, 8)
    assert tensor_of(picture, card)[0, :, 0, 0] == pytest.approx([1.0, 0.0, -0.2])
    turned = replace(card, channels="bgr", layout="nhwc")
    assert tensor_of(picture, turned)[0, 0, 0] == pytest.approx([-0.6, 0.0, 3.0])
    assert tensor_of(picture, card).dtype == np.float32


def test_the_whole_picture_is_shown_and_nothing_is_cut_off() -> None:
    wide = Image.new("RGB", (80, 10))
    wide.paste((255, 255, 255), (76, 0, 80, 10))
    stretched = tensor_of(wide, replace(PLAIN, width=20, height=20))
    padded = tensor_of(wide, replace(PLAIN, width=20, height=20, fit="pad"))
    assert stretched[0, 0, :, -1].min() > 0.9
    assert padded[0, 0, 9:11, -1].min() > 0.5
    assert padded[0, 0, :8].max() == 0.0


@pytest.mark.parametrize(
    ("activation", "flagged", "output", "expected"),
    [
        ("softmax", (1,), [[0.0, 0.0]], 0.5),
        ("softmax", (1, 2), [[0.0, 0.0, 0.0, 0.0]], 0.5),
        ("softmax", (0,), [[1e4, -1e4]], 1.0),
        ("sigmoid", (0,), [[0.0]], 0.5),
        ("sigmoid", (0, 1), [-1e4, 1e4], 1.0),
        ("none", (1, 2), [[0.9, 0.2, 0.3]], 0.3),
        ("none", (0,), [[1.0004]], 1.0),
    ],
)
def test_score_is_what_speaks_against_the_picture(activation, flagged, output, expected) -> None:
    card = replace(PLAIN, activation=activation, flagged=flagged)
    assert score_of(np.array(output, np.float32), card) == pytest.approx(expected)


@pytest.mark.parametrize(
    "output",
    [
        np.array([[0.1]]),
        np.array([[0.1, np.nan]]),
        np.array([[0.1, np.inf]]),
        np.array([[0.1, 0.2], [0.3, 0.4]]),
        np.array([[1, 2]]),
        np.array(["a", "b"]),
        np.array(0.5),
        np.zeros((0,)),
        None,
    ],
)
def test_output_that_is_not_what_the_card_says_is_no_answer(output) -> None:
    with pytest.raises(CheckFailedError):
        score_of(output, PLAIN)


def test_logits_that_a_card_calls_probabilities_are_no_answer() -> None:
    with pytest.raises(CheckFailedError, match="activation"):
        score_of(np.array([[0.0, 7.0]]), replace(PLAIN, activation="none"))


@given(NUMBERS)
def test_scores_of_all_classes_are_one(numbers) -> None:
    card = replace(PLAIN, flagged=tuple(range(len(numbers))))
    assert score_of(np.array(numbers), card) == pytest.approx(1.0)

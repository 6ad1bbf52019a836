from __future__ import annotations

import pytest

from gateway.moderation.card import CardError, read_card
from tests.tools.tiny_onnx import CARD


def test_card_is_read() -> None:
    card = read_card(CARD)
    assert (card.width, card.height, card.layout, card.channels, card.fit) == (8, 8, "nchw", "rgb", "stretch")
    assert (card.output, card.flagged, card.activation) == ("logits", (1,), "softmax")


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("width = 8", "width = 0", "input.width"),
        ("width = 8", "width = 4096", "input.width"),
        ("width = 8", 'width = "8"', "input.width"),
        ("height = 8", "", "input.height"),
        ("mean = [0.0, 0.0, 0.0]", "mean = [0.0]", "input.mean"),
        ("mean = [0.0, 0.0, 0.0]", "mean = [nan, 0.0, 0.0]", "input.mean"),
        ("std = [1.0, 1.0, 1.0]", "std = [1.0, 0.0, 1.0]", "input.std"),
        ("[input]", "[input]\nlayout = 'hwc'", "input.layout"),
        ("[input]", "[input]\nfit = 'crop'", "input.fit"),
        ("[input]", "[input]\nmeans = 1", "input.means"),
        ("flagged = [1]", "flagged = []", "output.flagged"),
        ("flagged = [1]", "flagged = [1, 1]", "output.flagged"),
        ("flagged = [1]", "flagged = [-1]", "output.flagged"),
        ('activation = "softmax"', "", "output.activation"),
        ('name = "logits"', 'name = ""', "output.name"),
        ("[output]", "[output", "no TOML"),
    ],
)
def test_card_that_is_no_good_says_where(old, new, where) -> None:
    assert old in CARD
    with pytest.raises(CardError, match=where):
        read_card(CARD.replace(old, new))

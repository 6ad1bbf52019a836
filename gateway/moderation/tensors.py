"""From a picture to the numbers a classifier takes, and from the numbers it gives to one score. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from gateway.moderation.card import Card
from gateway.screening import CheckFailedError

_LEVELS = 255.0
#: What rounding leaves beside a probability.
_SLACK = 1e-3


def tensor_of(picture: Image.Image, card: Card) -> npt.NDArray[np.float32]:
    """A batch of one: the whole picture, made to fit, normalised as the card says.

    Args:
        picture: RGB.
        card: how the classifier wants it.
    """
    size = (card.width, card.height)
    fitted = (
        ImageOps.pad(picture, size, Image.Resampling.BICUBIC, color=(0, 0, 0))
        if card.fit == "pad"
        else picture.resize(size, Image.Resampling.BICUBIC)
    )
    values: npt.NDArray[np.float32] = np.asarray(fitted, dtype=np.float32) / np.float32(_LEVELS)
    if card.channels == "bgr":
        values = values[..., ::-1]
    mean, std = (np.array(figures, dtype=np.float32) for figures in (card.mean, card.std))
    normal = np.divide(values - mean, std, dtype=np.float32)
    batch = normal[np.newaxis]
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2) if card.layout == "nchw" else batch)


def score_of(output: Any, card: Card) -> float:
    """How much an output speaks against its picture, 0 to 1.

    Of a softmax the flagged probabilities are added up; of anything else the largest counts.

    Raises:
        CheckFailedError: it is not what the card says it is.
    """
    values = np.asarray(output)
    if not np.issubdtype(values.dtype, np.floating):
        raise CheckFailedError("the model's output is no floating-point numbers")
    if values.ndim == 0 or values.size != values.shape[-1]:
        raise CheckFailedError(f"the model's output has the shape {values.shape}, expected one row of numbers")
    row = values.reshape(-1).astype(np.float64)
    if max(card.flagged) >= row.size:
        raise CheckFailedError(
            f"the model's output has {row.size} numbers, and the card flags number {max(card.flagged)}"
        )
    if not np.isfinite(row).all():
        raise CheckFailedError("the model's output is not finite")
    if card.activation == "softmax":
        powers = np.exp(row - row.max())
        score = float((powers / powers.sum())[list(card.flagged)].sum())
    elif card.activation == "sigmoid":
        # By tanh, which overflows nowhere.
        score = float((0.5 * (1.0 + np.tanh(row[list(card.flagged)] / 2.0))).max())
    else:
        score = float(row[list(card.flagged)].max())
    if not -_SLACK <= score <= 1.0 + _SLACK:
        raise CheckFailedError("the model's output is no probability: the card's activation is another")
    return min(1.0, max(0.0, score))

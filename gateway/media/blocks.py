"""Block means: the figures in which two pictures are compared. What they mean, ``gateway/audit.py`` says.

Apart from it so that only the processes that decode load numpy; the gateway itself and the command line do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Means = npt.NDArray[np.float64]

#: Blocks are squares of 16x16 pixels (not 16 blocks across): a face of 64 pixels fills about four by four of them
#: whatever the size of the picture, where a sixteenth of a 1280x720 picture is 80x45 and would dilute it.
BLOCK_PIXELS: Final = 16
#: ITU-R BT.601 luma. A swap is matched to the target's colours, so colour tells little, while chroma is what 4:2:0
#: coding damages most: the same re-encodes move single channels two to three times as far as luma.
_LUMA: Final = np.array([0.299, 0.587, 0.114])


def block_means(rgb: Pixels) -> Means:
    """Mean luma of each block of a picture, 0.0 to 255.0.

    Rows and columns that fill no block of their own belong to the last one, so no block has fewer pixels than the
    others and every pixel counts.

    Args:
        rgb: height x width x 3.

    Returns:
        ``max(1, height // 16)`` x ``max(1, width // 16)`` means.
    """
    height, width = rgb.shape[:2]
    rows, columns = max(1, height // BLOCK_PIXELS), max(1, width // BLOCK_PIXELS)
    whole = min(height, BLOCK_PIXELS)
    # Rows first, all columns at once, in 16 bits (31 rows * 255 = 7905): 6 ms for 4096x2304 where reduceat takes 200.
    lines = rgb[: rows * whole].reshape(rows, whole, -1).sum(axis=1, dtype=np.uint16)
    lines[-1] += rgb[rows * whole :].reshape(-1, width * 3).sum(axis=0, dtype=np.uint16)
    starts = np.arange(columns) * BLOCK_PIXELS
    sums = np.add.reduceat(lines.reshape(rows, width, 3), starts, axis=1, dtype=np.uint32)
    heights = np.diff(np.arange(rows) * whole, append=height)
    luma: Means = (sums @ _LUMA) / np.outer(heights, np.diff(starts, append=width))
    return luma


def largest_movement(target: Means, readings: Means | Sequence[Means]) -> float:
    """Grey levels by which the block that moved most did move.

    Args:
        target: block means of a frame.
        readings: block means of the result's frame, or several readings of it: each block counts by its best one.
    """
    moved = [np.abs(target - reading) for reading in (readings if isinstance(readings, Sequence) else [readings])]
    return float(np.minimum.reduce(moved).max())

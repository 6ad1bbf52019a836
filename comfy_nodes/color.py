"""Making one face's colours fit where it is put: tone first, then light.

Tone: mean and spread of each LAB channel inside the mask are moved onto the target's. Light: what is left to fit at
the rim (shade from one side, a red cheek) is taken from a Poisson clone. Inside the mask a clone differs from its
source by a membrane, a field without detail of its own; so it is solved on a small crop and enlarged, which costs
a few milliseconds whatever the size of the face, and does not pick up the noise of single rim pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .alignment import solid_mask
from .opencv import load_cv2

#: Bounds of the stretch of L, A and B. A face keeps its features; its colours may go altogether, as in a grey picture.
_LEAST_GAIN, _MOST_GAIN = (0.65, 0.0, 0.0), 1.5
#: Levels of 255 that light may add or take: enough for shade, too little for dark hair to bleed into a cheek.
_LIGHT_LIMIT = 22.0
#: Blur, as a share of the crop's side, before solving: a lock of hair or a spectacle frame that crosses the rim is
#: not light.
_RIM_BLUR = 0.05


@dataclass(frozen=True)
class Tone:
    """Mean and standard deviation of the LAB channels (8 bit) inside the mask."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def towards(self, other: Tone, share: float) -> Tone:
        """This tone, moved by a share of the way to the other one."""
        return Tone(self.mean + share * (other.mean - self.mean), self.spread + share * (other.spread - self.spread))


def to_lab(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB to OpenCV's 8-bit LAB."""
    lab: NDArray[np.uint8] = load_cv2().cvtColor(crop, load_cv2().COLOR_RGB2LAB)
    return lab


def measure_tone(lab: NDArray[np.uint8]) -> Tone:
    """The tone of a square LAB crop."""
    mean, spread = load_cv2().meanStdDev(lab, mask=solid_mask(lab.shape[0]))
    return Tone(mean.ravel(), spread.ravel())


def match_tone(lab: NDArray[np.uint8], own: Tone, wanted: Tone) -> NDArray[np.uint8]:
    """An LAB crop with its tone moved, as RGB."""
    cv2 = load_cv2()
    gain = np.clip(wanted.spread / np.maximum(own.spread, 1.0), _LEAST_GAIN, _MOST_GAIN)
    levels = np.arange(256.0)[:, np.newaxis]
    table = np.clip((levels - own.mean) * gain + wanted.mean, 0, 255).round().astype(np.uint8)
    matched: NDArray[np.uint8] = cv2.cvtColor(cv2.LUT(lab, table[np.newaxis]), cv2.COLOR_LAB2RGB)
    return matched


def light_field(matched: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What to add to the matched crop so that its rim meets the target's: (side, side, 3), in levels.

    Zero where OpenCV refuses the clone; the soft mask alone has to do then.
    """
    cv2 = load_cv2()
    side = matched.shape[0]
    mask = solid_mask(side)
    left, top, width, height = cv2.boundingRect(mask)
    ours, theirs = (cv2.GaussianBlur(crop, (0, 0), _RIM_BLUR * side) for crop in (matched, target))
    try:
        # The clone puts the middle of the mask's bounding box there: so it stays where it is.
        middle = (left + width // 2, top + height // 2)
        clone = cv2.seamlessClone(ours, theirs, mask, middle, cv2.NORMAL_CLONE)
    except cv2.error:
        return np.zeros(matched.shape, np.float32)
    field = np.clip(clone.astype(np.float32) - ours, -_LIGHT_LIMIT, _LIGHT_LIMIT)
    # Smoothed inside the mask only: outside it, clone minus source is simply another picture.
    inside = (mask > 0).astype(np.float32)[..., np.newaxis]
    weight = cv2.GaussianBlur(inside, (0, 0), _RIM_BLUR * side)[..., np.newaxis]
    smooth: NDArray[np.float32] = cv2.GaussianBlur(field * inside, (0, 0), _RIM_BLUR * side)
    smooth /= np.maximum(weight, 0.01)
    return smooth

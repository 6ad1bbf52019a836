"""How a face lies in a picture, as four numbers, and the square crop in which every face lies alike.

A pose is a similarity: place, size, tilt. Two pictures of faces are aligned by cutting the same square out of both
and laying one over the other. All blending happens in that square, so that a face at the border of its picture is
nothing special: what is missing there is repeated edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detection import Face
from .opencv import load_cv2

#: Side of the crop, and where the eyes' middle lies in it (shares of the side); lengths in eye distances.
CROP_SIDE = 2.7
_EYES_X, _EYES_Y = 0.5, 0.9 / 2.7
#: The replaced region: brows to chin, in eye distances from the eyes' middle. Looked at on two portraits: chins lie
#: 1.39 and 1.53 below, cheeks 0.87 and 0.95 beside.
_MASK_MIDDLE, _MASK_ACROSS, _MASK_DOWN = 0.46, 0.90, 1.0
#: More than 2 makes the ellipse fuller at the cheeks and brows.
_MASK_EXPONENT = 2.3
#: From this share of the way out the mask fades.
_MASK_SOLID = 0.72
#: Eye distance as a share of the box's width, on average.
_EYE_DISTANCE_SHARE = 0.41


@dataclass(frozen=True)
class Pose:
    """Where a face is."""

    #: The middle between the eyes, in pixels.
    x: float
    y: float
    #: Eye distance in pixels.
    size: float
    #: Tilt in radians; positive turns the face clockwise.
    angle: float


def pose_of(face: Face) -> Pose:
    """The pose of a detected face.

    Eyes that a cascade found are a few per cent off. So is the box, in other ways; its width counts half.
    """
    (lx, ly), (rx, ry) = face.left_eye, face.right_eye
    by_eyes = math.hypot(rx - lx, ry - ly)
    by_box = _EYE_DISTANCE_SHARE * max(face.width, face.height)
    return Pose((lx + rx) / 2, (ly + ry) / 2, math.sqrt(max(by_eyes, 1.0) * by_box), math.atan2(ry - ly, rx - lx))


def crop_matrix(pose: Pose, side_pixels: int) -> NDArray[np.float64]:
    """The 2x3 matrix from picture pixels to those of the pose's crop of that size."""
    scale = side_pixels / (CROP_SIDE * pose.size)
    cos, sin = scale * math.cos(pose.angle), scale * math.sin(pose.angle)
    left, top = _EYES_X * side_pixels, _EYES_Y * side_pixels
    return np.array(
        [[cos, sin, left - cos * pose.x - sin * pose.y], [-sin, cos, top + sin * pose.x - cos * pose.y]],
        dtype=np.float64,
    )


def cut_crop(image: NDArray[np.uint8], pose: Pose, side_pixels: int) -> NDArray[np.uint8]:
    """The pose's square, (side, side, 3). Shrinking averages, so that no frame shimmers."""
    cv2 = load_cv2()
    matrix = crop_matrix(pose, side_pixels)
    scale = side_pixels / (CROP_SIDE * pose.size)
    if scale < 0.7:  # noqa: PLR2004 - from here on, linear sampling would skip pixels
        x0, y0, x1, y1 = crop_bounds(image, pose)
        part = image[y0:y1, x0:x1]
        small_size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        stretch_x, stretch_y = (x1 - x0) / small_size[0], (y1 - y0) / small_size[1]
        image = cv2.resize(part, small_size, interpolation=cv2.INTER_AREA)
        # Pixel centres: small pixel u stands for x0 - 0.5 + (u + 0.5) * stretch.
        to_whole = np.array(
            [
                [stretch_x, 0, x0 - 0.5 + stretch_x / 2],
                [0, stretch_y, y0 - 0.5 + stretch_y / 2],
                [0, 0, 1],
            ]
        )
        matrix = matrix @ to_whole
    warped: NDArray[np.uint8] = cv2.warpAffine(
        image, matrix, (side_pixels, side_pixels), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return warped


def crop_bounds(image: NDArray[Any], pose: Pose) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the pixels that the pose's square covers; at least one pixel, whatever the pose."""
    back = load_cv2().invertAffineTransform(crop_matrix(pose, 1))
    corners = back @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], dtype=np.float64)
    height, width = image.shape[:2]
    x0, y0 = np.floor(corners.min(axis=1)).astype(int)
    x1, y1 = np.ceil(corners.max(axis=1)).astype(int) + 1
    x0, y0 = min(max(0, int(x0)), width - 1), min(max(0, int(y0)), height - 1)
    return x0, y0, max(x0 + 1, min(width, int(x1))), max(y0 + 1, min(height, int(y1)))


@lru_cache(maxsize=8)
def soft_mask(side_pixels: int) -> NDArray[np.float32]:
    """How much of the new face shows, per crop pixel: 1 inside, fading to 0 at the ellipse. Read-only."""
    fade = np.clip((1.0 - _distance_out(side_pixels)) / (1.0 - _MASK_SOLID), 0.0, 1.0)
    mask = (fade * fade * (3.0 - 2.0 * fade)).astype(np.float32)
    mask.setflags(write=False)
    return mask


@lru_cache(maxsize=8)
def solid_mask(side_pixels: int) -> NDArray[np.uint8]:
    """255 where the new face shows at all, else 0. Read-only."""
    mask = np.where(_distance_out(side_pixels) <= 1.0, 255, 0).astype(np.uint8)
    mask.setflags(write=False)
    return mask


def _distance_out(side_pixels: int) -> NDArray[np.float64]:
    """0 in the middle of the face, 1 on the rim of the replaced region."""
    pixels = (np.arange(side_pixels) + 0.5) / side_pixels
    across = np.abs((pixels - _EYES_X) * CROP_SIDE / _MASK_ACROSS) ** _MASK_EXPONENT
    down = np.abs(((pixels - _EYES_Y) * CROP_SIDE - _MASK_MIDDLE) / _MASK_DOWN) ** _MASK_EXPONENT
    return (across[np.newaxis, :] + down[:, np.newaxis]) ** (1.0 / _MASK_EXPONENT)

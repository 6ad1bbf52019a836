"""Where the faces of one picture are, and their eyes: OpenCV's bundled Haar cascades on the CPU.

It answers for single pictures; ``tracking.py`` makes paths through a clip out of it. Boxes and eyes are in pixels of
the picture that was handed in, which must be upright.

A Haar cascade fires on brickwork now and then. So a box counts only when an eye pair lies where a face has one, or
when a second, independently trained cascade finds a face in the same place too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .opencv import load_cascade, load_cv2
from .options import numbered

_FACE_CASCADE = "haarcascade_frontalface_alt2.xml"
_SECOND_OPINION = "haarcascade_frontalface_default.xml"
#: The second is tried where the first sees no pair: behind glasses.
_EYE_CASCADES = ("haarcascade_eye.xml", "haarcascade_eye_tree_eyeglasses.xml")

#: Pictures are searched at this many pixels on the longer side; more finds no more faces, only takes longer.
STILL_SEARCH_PIXELS = 720
#: Frames of a clip are searched smaller, as they are many: 35 instead of 57 ms for 640x360, measured on one busy core.
CLIP_SEARCH_PIXELS = 480
#: A crowd's smaller faces are left out: every face costs work in every frame.
MAX_FACES = 32
_SCALE_FACTOR = 1.15
_MIN_NEIGHBOURS = 4
#: Smallest face searched for, as a share of the searched picture's shorter side, and in pixels of it.
_MIN_FACE_SHARE = 0.09
_MIN_FACE_PIXELS = 28
#: Head tilts, in degrees, tried when nobody is found upright; the cascade itself stands about 15 either way.
_TILTS_DEGREES = (-28.0, 28.0)

#: Where alt2's box has the eyes, as shares of its width and height. Measured on boxes with both eyes found.
_EYE_X_SHARES = (0.315, 0.685)
_EYE_Y_SHARE = 0.385
#: What may pass for an eye pair: distance and height difference as shares of the box width.
_EYE_DISTANCE_SHARES = (0.27, 0.52)
_EYE_MAX_SLOPE = 0.36
#: Box width that eyes are searched at; the eye cascade's window is 20 pixels wide.
_EYE_SEARCH_PIXELS = 160


@dataclass(frozen=True)
class Face:
    """One face of a picture."""

    #: The box, in pixels; clipped to the picture.
    x: int
    y: int
    width: int
    height: int
    #: Centre of the eye on the picture's left, in pixels.
    left_eye: tuple[float, float]
    #: Centre of the eye on the picture's right.
    right_eye: tuple[float, float]
    #: False: no pair was seen, and the eyes stand where faces have them.
    eyes_found: bool

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return self.width * self.height


def detect_faces(image: NDArray[np.uint8]) -> list[Face]:
    """The faces of a picture, largest first, ties left to right; at most MAX_FACES.

    Args:
        image: (height, width, 3), RGB.

    Raises:
        OpenCVMissingError: see ``opencv.py``.
    """
    return find_faces(image, STILL_SEARCH_PIXELS)


def find_faces(image: NDArray[np.uint8], search_pixels: int, *, tilted: bool = True) -> list[Face]:
    """As ``detect_faces``, on at most ``search_pixels`` of the longer side; tilted heads only when asked for."""
    cv2 = load_cv2()
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    faces = _find_upright(gray, search_pixels)
    for degrees in _TILTS_DEGREES if tilted and not faces else ():
        faces += _find_tilted(gray, search_pixels, degrees)
    return numbered(_without_doubles(faces))[:MAX_FACES]


def _find_upright(gray: NDArray[np.uint8], search_pixels: int) -> list[Face]:
    cv2 = load_cv2()
    small, scale = _shrink(gray, search_pixels)
    faces = []
    for box in _boxes(cv2.equalizeHist(small)):
        x, y, side = (value / scale for value in box)
        face = _face_in_box(gray, x, y, side)
        if face.eyes_found or _second_opinion(gray, face):
            faces.append(face)
    return faces


def _shrink(gray: NDArray[np.uint8], search_pixels: int) -> tuple[NDArray[np.uint8], float]:
    """The picture at no more than so many pixels on its longer side, and the scale that did it."""
    cv2 = load_cv2()
    scale = search_pixels / max(gray.shape)
    if scale >= 1.0:
        return gray, 1.0
    rows, columns = (max(1, round(side * scale)) for side in gray.shape)
    return cv2.resize(gray, (columns, rows), interpolation=cv2.INTER_AREA), scale


def _boxes(gray: NDArray[np.uint8]) -> Iterator[tuple[float, float, float]]:
    """Square boxes: x, y, side."""
    smallest = max(_MIN_FACE_PIXELS, round(_MIN_FACE_SHARE * min(gray.shape)))
    boxes = load_cascade(_FACE_CASCADE).detectMultiScale(
        gray, scaleFactor=_SCALE_FACTOR, minNeighbors=_MIN_NEIGHBOURS, minSize=(smallest, smallest)
    )
    for x, y, side, _ in boxes:
        yield float(x), float(y), float(side)


def _face_in_box(gray: NDArray[np.uint8], x: float, y: float, side: float) -> Face:
    pair = _eye_pair(gray, x, y, side)
    usual = tuple((x + share * side, y + _EYE_Y_SHARE * side) for share in _EYE_X_SHARES)
    left, right = pair or (usual[0], usual[1])
    height, width = gray.shape
    x0, y0 = max(0, round(x)), max(0, round(y))
    return Face(
        x=x0,
        y=y0,
        width=min(width, round(x + side)) - x0,
        height=min(height, round(y + side)) - y0,
        left_eye=left,
        right_eye=right,
        eyes_found=pair is not None,
    )


def _eye_pair(
    gray: NDArray[np.uint8], x: float, y: float, side: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The two centres that look most like a pair of eyes inside the box, or None."""
    cv2 = load_cv2()
    top, left = max(0, round(y + 0.12 * side)), max(0, round(x))
    crop = gray[top : round(y + 0.62 * side), left : round(x + side)]
    if min(crop.shape) < 8:  # noqa: PLR2004 - a sliver at the border holds no eye window
        return None
    zoom = _EYE_SEARCH_PIXELS / side
    crop = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    for cascade in _EYE_CASCADES:
        found = load_cascade(cascade).detectMultiScale(
            crop, scaleFactor=1.1, minNeighbors=2, minSize=(24, 24), maxSize=(72, 72)
        )
        centres = [(float(left + (ex + ew / 2) / zoom), float(top + (ey + eh / 2) / zoom)) for ex, ey, ew, eh in found]
        pairs = [(min(pair), max(pair)) for pair in combinations(centres, 2)]
        error, best = min(((_pair_error(pair, x, y, side), pair) for pair in pairs), default=(math.inf, None))
        if best is not None and math.isfinite(error):
            return best
    return None


def _pair_error(pair: tuple[tuple[float, float], tuple[float, float]], x: float, y: float, side: float) -> float:
    """How far a pair lies from where a face has its eyes, in box widths; infinite when no face is like that."""
    (lx, ly), (rx, ry) = pair
    across, down = rx - lx, ry - ly
    low, high = _EYE_DISTANCE_SHARES
    if not low * side <= math.hypot(across, down) <= high * side or abs(down) > _EYE_MAX_SLOPE * across:
        return math.inf
    middle = math.hypot((lx + rx) / 2 - (x + side / 2), (ly + ry) / 2 - (y + _EYE_Y_SHARE * side)) / side
    return math.inf if middle > 0.14 else middle + 0.5 * abs(down) / across  # noqa: PLR2004 - in box widths


def _second_opinion(gray: NDArray[np.uint8], face: Face) -> bool:
    cv2 = load_cv2()
    margin = face.width // 4
    top, left = max(0, face.y - margin), max(0, face.x - margin)
    crop = gray[top : face.y + face.height + margin, left : face.x + face.width + margin]
    zoom = 120 / max(face.width, 1)
    crop = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    found = load_cascade(_SECOND_OPINION).detectMultiScale(
        cv2.equalizeHist(crop), scaleFactor=1.1, minNeighbors=4, minSize=(84, 84)
    )
    return len(found) > 0


def _find_tilted(gray: NDArray[np.uint8], search_pixels: int, degrees: float) -> list[Face]:
    """Faces of a picture turned by ``degrees``, told in pixels of the picture as it is; only those with eyes."""
    cv2 = load_cv2()
    height, width = gray.shape
    small, scale = _shrink(gray, search_pixels)
    rows, columns = small.shape
    turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, 1.0)
    reach_x = abs(turn[0, 0]) * columns + abs(turn[0, 1]) * rows
    reach_y = abs(turn[0, 0]) * rows + abs(turn[0, 1]) * columns
    turn[:, 2] += (reach_x / 2 - columns / 2, reach_y / 2 - rows / 2)
    turned = cv2.warpAffine(small, turn, (math.ceil(reach_x), math.ceil(reach_y)))
    back = cv2.invertAffineTransform(turn) / scale

    def place(point: tuple[float, float]) -> tuple[float, float]:
        px, py = back @ np.array([*point, 1.0])
        return float(px), float(py)

    faces = []
    # Turned, it is at most half as large again; it is searched as it is.
    for face in _find_upright(turned, 2 * search_pixels):
        centre_x, centre_y = place((face.x + face.width / 2, face.y + face.height / 2))
        half = max(face.width, face.height) / scale / 2
        x0, y0 = max(0, round(centre_x - half)), max(0, round(centre_y - half))
        x1, y1 = min(width, round(centre_x + half)), min(height, round(centre_y + half))
        if face.eyes_found and x1 > x0 and y1 > y0:
            faces.append(Face(x0, y0, x1 - x0, y1 - y0, place(face.left_eye), place(face.right_eye), eyes_found=True))
    return faces


def _without_doubles(faces: list[Face]) -> list[Face]:
    """One face for each place: of two that overlap by half, the one with eyes, then the larger."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (not face.eyes_found, -face.area)):
        if all(overlap(face, other) < 0.4 for other in kept):  # noqa: PLR2004 - share of the smaller box
            kept.append(face)
    return kept


def overlap(one: Face, other: Face) -> float:
    """Shared area as a share of the smaller box, 0 to 1."""
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    if across <= 0 or down <= 0:
        return 0.0
    return across * down / max(1, min(one.area, other.area))

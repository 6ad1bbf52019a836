"""Which detectors there are to find faces with, and what each found, in one shape.

Faces must bear the same numbers where they are shown and where they are swapped. ReActor finds them with a detector of
its own (SCRFD of buffalo_l), and OpenCV's cascades see others: so where ReActor is loaded, its detector is asked, the
very function that its swap calls. It is looked for among the modules that ComfyUI has loaded and never imported here.

Source: ReActor 6ad6b35, ``scripts/reactor_swapper.py``, ``analyze_faces``; its pack puts itself on ``sys.path``, so that
its modules have short names. Faces have ``bbox`` (left, top, right, bottom) and ``kps``, the first two being the eyes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .options import numbered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REACTOR: Final = "reactor"
OPENCV: Final = "opencv"
_REACTOR_MODULE: Final = "scripts.reactor_swapper"
#: More are not told: a report stays small, and index lists name two digits.
MAX_REPORTED: Final = 100


@dataclass(frozen=True)
class FoundFace:
    """One face as reported."""

    #: The box in pixels of the picture, clipped to it.
    x: float
    y: float
    width: float
    height: float
    #: Pixels of the detector's own box, parts beyond the border included: what faces are numbered by.
    area: float
    #: Centres of the eyes, that on the picture's left first; None where the detector does not tell.
    eyes: tuple[tuple[float, float], tuple[float, float]] | None


def detectors() -> list[str]:
    """Names of the detectors that are there now, the best one first."""
    return [REACTOR, OPENCV] if _reactor_analysis() is not None else [OPENCV]


def find(picture: NDArray[np.uint8], detector: str) -> list[FoundFace]:
    """The faces of a picture in the order of their numbers.

    Args:
        picture: (height, width, 3), RGB, upright.
        detector: one of ``detectors()``.

    Raises:
        RuntimeError: that detector is not there.
        OpenCVMissingError: see ``opencv.py``.
    """
    analysis = _reactor_analysis()
    if detector == REACTOR:
        if analysis is None:
            raise RuntimeError("ReActor is not loaded in this ComfyUI, so its detector cannot be asked.")
        faces = _by_reactor(picture, analysis)
    else:
        faces = _by_cascades(picture)
    return numbered(faces)[:MAX_REPORTED]


def _reactor_analysis() -> Callable[[Any], Any] | None:
    found = getattr(sys.modules.get(_REACTOR_MODULE), "analyze_faces", None)
    return found if callable(found) else None


def _by_reactor(picture: NDArray[np.uint8], analysis: Callable[[Any], Any]) -> list[FoundFace]:
    import numpy as np

    height, width = picture.shape[:2]
    faces = []
    # As its swap does, it is handed the picture in OpenCV's order of colours.
    for face in analysis(np.ascontiguousarray(picture[:, :, ::-1])):
        left, top, right, bottom = (float(edge) for edge in face.bbox)
        x0, y0 = max(0.0, left), max(0.0, top)
        x1, y1 = min(float(width), right), min(float(height), bottom)
        if x1 > x0 and y1 > y0:
            eyes = _eyes(getattr(face, "kps", None))
            area = (right - left) * (bottom - top)
            # Rounded before they are numbered, so that whoever reads the report sees why they are in this order.
            x, y, wide, high, area = (round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0, area))
            faces.append(FoundFace(x, y, wide, high, area, eyes))
    return faces


def _eyes(points: Any) -> tuple[tuple[float, float], tuple[float, float]] | None:
    if points is None:
        return None
    left, right = ((float(x), float(y)) for x, y in points[:2])
    return left, right


def _by_cascades(picture: NDArray[np.uint8]) -> list[FoundFace]:
    from .detection import detect_faces

    return [
        FoundFace(face.x, face.y, face.width, face.height, face.area, (face.left_eye, face.right_eye))
        for face in detect_faces(picture)
    ]

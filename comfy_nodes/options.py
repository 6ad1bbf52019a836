"""Which faces are swapped with which: the words and the rules of ReActor's index and order inputs.

Pure, and free of numpy and OpenCV, so that input tables can be built where neither is installed. The rules are
facts of ReActor 6ad6b35 (``scripts/reactor_faceswap.py`` process, ``scripts/reactor_swapper.py`` sort_by_order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

#: The only entry of every list of swap models.
PREVIEW_MODEL = "cpu-preview"

#: How faces may be numbered, as the combos list them.
FACES_ORDERS = ("left-right", "right-left", "top-bottom", "bottom-top", "small-large", "large-small")
DEFAULT_ORDER = "large-small"

#: More faces than a picture shows, and every one costs a pass over all frames: later ones are dropped.
MAX_INDEXES = 32
#: int() refuses strings of thousands of digits; no picture has a million faces.
_MAX_DIGITS = 6

#: (x, y, area) of a box → its place. ReActor sorts by the box's left or top edge, or by its area; an order that it
#: does not know is large-small.
_SORT_KEYS: dict[str, Callable[[float, float, float], float]] = {
    "left-right": lambda x, _y, _area: x,
    "right-left": lambda x, _y, _area: -x,
    "top-bottom": lambda _x, y, _area: y,
    "bottom-top": lambda _x, y, _area: -y,
    "small-large": lambda _x, _y, area: area,
    "large-small": lambda _x, _y, area: -area,
}


@dataclass(frozen=True)
class SwapOptions:
    """Which faces of the target get which faces of the source."""

    #: Comma list of places among the target's faces, in ``input_faces_order``.
    input_faces_index: str = "0"
    #: Comma list of places among the source's faces; the i-th swapped target takes the (i mod n)-th of them.
    source_faces_index: str = "0"
    #: One of FACES_ORDERS.
    input_faces_order: str = DEFAULT_ORDER
    #: One of FACES_ORDERS.
    source_faces_order: str = DEFAULT_ORDER
    #: Of a clip: the frame whose faces ``input_faces_index`` numbers; they are then followed through all others. None
    #: numbers the faces of each frame.
    reference_frame: int | None = None


def parse_indexes(text: str) -> list[int]:
    """Places named by a comma list; ``[0]`` when it names none.

    A piece that is not digits only is dropped, one with a space in it too: ``"0, 1"`` is ``[0]``, as in ReActor.
    """
    # isdecimal, where ReActor asks isnumeric: "½" passes that one and then fails in int().
    places = [int(piece) for piece in text.split(",") if piece.isdecimal() and len(piece) <= _MAX_DIGITS]
    return places[:MAX_INDEXES] or [0]


def sort_key(order: str, x: float, y: float, area: float) -> tuple[float, float, float]:
    """What to sort faces by, in the given order; ties go left to right, then from top to bottom."""
    return _SORT_KEYS.get(order, _SORT_KEYS[DEFAULT_ORDER])(x, y, area), x, y


class Box(Protocol):
    """Where a face is, in pixels of the upright picture."""

    @property
    def x(self) -> float:
        """Its left edge."""
        ...

    @property
    def y(self) -> float:
        """Its top edge."""
        ...

    @property
    def area(self) -> float:
        """Its pixels."""
        ...


_Box = TypeVar("_Box", bound=Box)


def numbered(faces: Iterable[_Box], order: str = DEFAULT_ORDER) -> list[_Box]:
    """The faces of a picture in the order of their numbers, the first being face 0.

    The one numbering of detection and swap alike: by area of the box, largest first, ties left to right, unless
    another order is asked for. ReActor's own, but for ties, which it leaves as its detector has them.
    """
    return sorted(faces, key=lambda face: sort_key(order, face.x, face.y, face.area))

"""Where the faces of a picture are: what a detection says, and whether that can be believed.

An upstream reports faces as a line of JSON. It comes from outside, so it is read strictly and held against the picture:
numbers without a gap, boxes within the picture, the largest face first. What passes is written anew, without what nobody
asked for. Pure.

The numbering is that of ``comfy_nodes/options.py``, ``numbered``: by area of the detector's box, largest first, ties left
to right. The area is told beside the box because a box ends at the border of the picture, while ReActor numbers faces by
what its detector makes of them beyond it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from gateway.audit import MediaFacts, MediaKind
from gateway.errors import InvalidInputError, ResultInvalidError
from gateway.strictjson import JsonValue, loads_object

#: A face is 200 characters at most, and no detector of ours tells of more than 100.
MAX_REPORT_BYTES: Final = 64 * 1024
MAX_FACES: Final = 200
#: Boxes are told in hundredths of a pixel; a right edge is made of two of them.
_ROUNDING: Final = 0.02
_DETECTOR: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")

#: What finding faces is called as a task.
DETECTION_TASK: Final = "face_detect"

#: Job warning: the client counted faces by another detector than the swap went by.
NUMBERING_DIFFERS: Final = "face_numbering_differs"
#: Job warning: the swap found no face of a number that it was asked for.
FACE_MISSING: Final = "face_missing"
#: As ReActor 6ad6b35 logs it for a still, and the embedded worker for a whole clip; ReActor's line for a single frame of a
#: clip begins with the frame's number, and is no news.
_NO_SUCH_FACE: Final = re.compile(r"(?:^|- )No target face found for (\d{1,6})$")


@dataclass(frozen=True, slots=True)
class Face:
    """One face; the box in pixels of the upright picture."""

    #: Its number: 0 is the largest.
    index: int
    x: float
    y: float
    width: float
    height: float
    #: Pixels of the detector's own box, parts beyond the border included: what faces are numbered by.
    area: float


@dataclass(frozen=True, slots=True)
class FaceReport:
    """All faces of a picture, by number."""

    #: Which detector found them: "reactor" or "opencv".
    detector: str
    #: Of the upright picture, in pixels.
    width: int
    height: int
    faces: tuple[Face, ...]

    def to_json(self) -> bytes:
        """The report as a result file holds it."""
        return json.dumps(asdict(self)).encode()

    def facts(self) -> MediaFacts:
        """What the result file is."""
        return MediaFacts(
            MediaKind.FACES,
            "application/json",
            ".json",
            self.width,
            self.height,
            1,
            fps=None,
            duration_seconds=None,
            has_audio=False,
            video_codec=None,
        )


def read_report(data: bytes) -> FaceReport:
    """The report that ``to_json`` wrote, or that a node told.

    Raises:
        ResultInvalidError: it is none.
    """
    try:
        raw = loads_object(data)
    except InvalidInputError as error:
        raise _invalid("it is not JSON") from error
    detector, faces = raw.get("detector"), raw.get("faces")
    if not isinstance(detector, str) or not _DETECTOR.fullmatch(detector):
        raise _invalid("it names no detector")
    if not isinstance(faces, list) or len(faces) > MAX_FACES:
        raise _invalid("it has no list of faces")
    width, height = (_number(raw, side) for side in ("width", "height"))
    return FaceReport(detector, int(width), int(height), tuple(_face(face) for face in faces))


def audited_report(text: str, picture: MediaFacts) -> FaceReport:
    """What a node told of the faces of a picture, once it is known to be possible.

    Args:
        text: what the node told.
        picture: facts of the picture that was searched.

    Raises:
        ResultInvalidError: it is no report, or not of this picture.
    """
    report = read_report(text.encode())
    if (report.width, report.height) != (picture.width, picture.height):
        told, is_so = f"{report.width}x{report.height}", f"{picture.width}x{picture.height}"
        raise _invalid(f"it is about a picture of {told} pixels, and this one has {is_so}")
    if [face.index for face in report.faces] != list(range(len(report.faces))):
        raise _invalid("its numbers have gaps")
    for face in report.faces:
        if not _is_within(face, picture):
            raise _invalid(f"face {face.index} does not lie in the picture")
    for face, following in itertools.pairwise(report.faces):
        if (-face.area, face.x, face.y) > (-following.area, following.x, following.y):
            raise _invalid(f"face {following.index} should come before face {face.index}")
    return report


def missing_faces(log_lines: Sequence[str]) -> tuple[int, ...]:
    """Numbers of faces that a swap looked for in vain, by what its upstream logged; empty where that tells nothing."""
    found = {int(match[1]) for line in log_lines if (match := _NO_SUCH_FACE.search(line.strip()))}
    return tuple(sorted(found))


def _face(raw: JsonValue) -> Face:
    if not isinstance(raw, dict):
        raise _invalid("a face is no object")
    index = raw.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        raise _invalid("a face has no number")
    return Face(index, *(_number(raw, side) for side in ("x", "y", "width", "height", "area")))


def _number(raw: Mapping[str, JsonValue], name: str) -> float:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"{name} is no number")
    return value


def _is_within(face: Face, picture: MediaFacts) -> bool:
    has_size = face.width > 0 and face.height > 0
    # An area of two rounded sides may be off by as much for each pixel of the other.
    is_whole = face.area >= face.width * face.height - _ROUNDING * (face.width + face.height)
    right, bottom = face.x + face.width, face.y + face.height
    return (
        has_size
        and is_whole
        and face.x >= 0
        and face.y >= 0
        and right <= picture.width + _ROUNDING
        and bottom <= picture.height + _ROUNDING
    )


def _invalid(reason: str) -> ResultInvalidError:
    return ResultInvalidError(f"The worker's report of faces is no good: {reason}.")

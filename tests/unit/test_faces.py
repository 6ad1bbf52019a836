"""Reports of faces, read and judged (``faces.py``)."""

from __future__ import annotations

import json

import pytest

from gateway.audit import MediaFacts, MediaKind
from gateway.errors import ResultInvalidError
from gateway.faces import MAX_FACES, Face, audited_report, missing_faces, read_report

PICTURE = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 200, 100, 1, None, None, has_audio=False, video_codec=None)


def face(index, x, y, width, height, **more):
    box: dict = {"index": index, "x": x, "y": y, "width": width, "height": height, "area": width * height}
    return {**box, "left_eye": [1, 2], **more}


def report(*faces, **more):
    return json.dumps({"detector": "opencv", "width": 200, "height": 100, "faces": list(faces), **more})


def refused(text):
    with pytest.raises(ResultInvalidError) as caught:
        audited_report(text, PICTURE)
    return caught.value.message


def test_a_report_is_kept_without_what_nobody_asked_for():
    found = audited_report(report(face(0, 10, 20, 40, 50), face(1, 100.25, 0, 20, 30)), PICTURE)
    assert found.faces == (Face(0, 10, 20, 40, 50, 2000), Face(1, 100.25, 0, 20, 30, 600))
    assert b"eye" not in found.to_json()
    assert read_report(found.to_json()) == found
    assert (found.facts().kind, found.facts().suffix, found.facts().width) == (MediaKind.FACES, ".json", 200)


def test_a_picture_without_faces_has_a_report_too():
    assert audited_report(report(), PICTURE).faces == ()


def test_faces_of_one_size_are_numbered_from_the_left_then_from_the_top():
    equal = [face(0, 10, 0, 20, 20), face(1, 50, 0, 20, 20), face(2, 50, 40, 20, 20)]
    assert len(audited_report(report(*equal), PICTURE).faces) == 3


def test_a_face_at_the_border_is_numbered_by_all_of_its_box():
    """What shows of it is smaller than the second face, but the swap goes by the detector's box."""
    at_border = face(0, 0, 0, 10, 50, area=3000)
    assert audited_report(report(at_border, face(1, 50, 0, 50, 50)), PICTURE).faces[0].area == 3000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no report", "not JSON"),
        ("[]", "not JSON"),
        (report(detector="../etc"), "names no detector"),
        (report(detector=None), "names no detector"),
        (report(faces={}), "no list of faces"),
        (report(*[face(0, 0, 0, 1, 1)] * (MAX_FACES + 1)), "no list of faces"),
        (report(width="200"), "width is no number"),
        (report(width=True), "width is no number"),
        (report(width=100, height=200), "100x200 pixels, and this one has 200x100"),
        (report(7), "a face is no object"),
        (report(face("0", 0, 0, 10, 10)), "has no number"),
        (report(face(0, None, 0, 10, 10)), "x is no number"),
        (report(face(1, 0, 0, 10, 10)), "numbers have gaps"),
        (report(face(0, 0, 0, 10, 10), face(0, 20, 0, 10, 10)), "numbers have gaps"),
        (report(face(0, -1, 0, 10, 10)), "face 0 does not lie in the picture"),
        (report(face(0, 0, 95, 10, 10)), "face 0 does not lie in the picture"),
        (report(face(0, 191, 0, 10, 10)), "face 0 does not lie in the picture"),
        (report(face(0, 0, 0, 0, 10)), "face 0 does not lie in the picture"),
        (report(face(0, 0, 0, 10, 10, area=50)), "face 0 does not lie in the picture"),
        (report(face(0, 0, 0, 10, 10), face(1, 20, 0, 11, 10)), "face 1 should come before face 0"),
        (report(face(0, 30, 0, 10, 10), face(1, 20, 0, 10, 10)), "face 1 should come before face 0"),
    ],
)
def test_a_report_that_cannot_be_is_refused(text, words):
    assert words in refused(text)


def test_faces_that_a_swap_did_not_find_are_told_by_its_log():
    """ReActor's line for one frame of a clip begins with the frame, and means little: who is hidden comes back."""
    lines = [
        "[ReActor] 12:00:01 - STATUS - No target face found for 3",
        "No target face found for 1",
        "[ReActor] 12:00:02 - STATUS - 7: No target face found for 5",
        "No target face found for nobody",
    ]
    assert missing_faces(lines) == (1, 3)

import cv2
import numpy as np
import pytest

from comfy_nodes.detection import Face, detect_faces, overlap
from comfy_nodes.options import numbered


def test_one_face_is_found_with_both_eyes(portrait):
    (face,) = detect_faces(portrait)
    assert face.eyes_found
    assert (face.x + face.width / 2, face.y + face.height / 2) == pytest.approx((157, 80), abs=6)
    assert face.left_eye == pytest.approx((141, 71), abs=4)
    assert face.right_eye == pytest.approx((172, 72), abs=4)


def test_a_picture_without_people_has_no_faces(nobody):
    assert detect_faces(nobody) == []


def test_a_box_that_nothing_confirms_is_no_face(nobody, monkeypatch):
    """As alt2 sees a face in the foam of scikit-image's cup of coffee."""
    monkeypatch.setattr("comfy_nodes.detection._boxes", lambda _gray: [(20.0, 10.0, 60.0)])
    assert detect_faces(nobody) == []


def test_faces_are_numbered_largest_first(couple):
    first, second = detect_faces(couple)
    assert first.area > second.area
    assert first.x > second.x


def test_faces_can_be_numbered_left_to_right(couple):
    first, second = numbered(detect_faces(couple), "left-right")
    assert first.x < second.x


@pytest.mark.parametrize("degrees", [-25, 25])
def test_a_tilted_head_is_found_where_it_is(portrait, degrees):
    turn = cv2.getRotationMatrix2D((157, 80), degrees, 1.0)
    (face,) = detect_faces(cv2.warpAffine(portrait, turn, (256, 256), borderMode=cv2.BORDER_REPLICATE))
    for eye, upright in ((face.left_eye, (141, 71)), (face.right_eye, (172, 72))):
        assert eye == pytest.approx(tuple(turn @ (*upright, 1)), abs=6)


def test_boxes_stay_inside_the_picture(portrait):
    cut = np.ascontiguousarray(portrait[50:, 125:])
    height, width = cut.shape[:2]
    for face in detect_faces(cut):
        assert face.x >= 0
        assert face.y >= 0
        assert face.x + face.width <= width
        assert face.y + face.height <= height


def test_overlap_is_told_by_the_smaller_box():
    def box(x, side):
        return Face(x, 0, side, side, (0.0, 0.0), (0.0, 0.0), eyes_found=False)

    assert overlap(box(0, 100), box(20, 10)) == 1.0
    assert overlap(box(0, 10), box(5, 10)) == 0.5
    assert overlap(box(0, 10), box(10, 10)) == 0.0
